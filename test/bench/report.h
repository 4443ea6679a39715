// SPDX-License-Identifier: BSD-3-Clause
// What a run found out, for programs and for people.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <vector>

namespace bench {

using Json = nlohmann::ordered_json;

struct Stat {
    double median, min, max;
};

/// @pre samples is not empty.
Stat summarize(std::vector<double> samples);

struct Result {
    std::string name;
    Json params;
    Stat stat;
    std::string unit;
};

struct Ask {
    std::string name;
    std::string want;
    std::optional<double> got; ///< nothing: this machine cannot measure it
    bool holds;
};

struct Report {
    std::string mode;
    Json conditions, baselines; ///< objects
    std::vector<Result> results;
    std::vector<Ask> asks;

    void ask_at_least(const std::string& name, double want, std::optional<double> got);
    void ask_at_most(const std::string& name, double want, std::optional<double> got);
    bool all_hold() const;

    std::string json() const;
    /// One table per name of results. The last parameter becomes columns: what is to be compared.
    std::string text() const;
};

} // namespace bench
