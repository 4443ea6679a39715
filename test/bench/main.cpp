// SPDX-License-Identifier: BSD-3-Clause
// devmem-bench: figures, with what they were measured on and what is asked of them.
#include "test/bench/conditions.h"
#include "test/bench/eal.h"
#include "test/bench/measure.h"
#include "test/bench/modes.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>

namespace bench {
namespace {

constexpr int kFailed = 1;
constexpr int kBadArguments = 2;

constexpr struct {
    const char* name;
    Mode* run;
} kModes[]{{"mempool", mempool}, {"fit", fit},   {"rx", rx},   {"tokens", tokens},
           {"memory", memory},   {"flat", flat}, {"e2e", e2e}, {"latency", latency}};
/// All of them.
constexpr char kAsks[] = "asks";

/// A mode that cannot measure does not keep the others from it, and what it asks does not hold.
void run_one_of_all(const char* name, Mode* run, const Options& options, Report& report)
{
    try {
        run(options, report);
    } catch (const std::exception& error) {
        report.asks.push_back({name, error.what(), {}, false});
    }
}

Report measure_all(const std::string& mode, const Options& options)
{
    Report report;
    report.mode = mode;
    report.conditions = conditions(options);
    report.baselines = baselines(options);
    for (const auto& [name, run] : kModes) {
        if (mode == name)
            run(options, report);
        else if (mode == kAsks)
            run_one_of_all(name, run, options, report);
    }
    report.conditions["slices"] = slices().all;
    report.conditions["slices_disturbed"] = slices().disturbed;
    return report;
}

int run(const std::string& mode, const Options& options, bool json)
{
    try {
        start_eal();
        const Report report = measure_all(mode, options);
        std::printf("%s\n", json ? report.json().c_str() : report.text().c_str());
        stop_eal();
        return mode == kAsks && !report.all_hold() ? kFailed : 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "devmem-bench: %s\n", error.what());
        return kFailed;
    }
}

} // namespace
} // namespace bench

int main(int argc, char** argv)
{
    std::vector<std::string> names{bench::kAsks};
    for (const auto& mode : bench::kModes)
        names.emplace_back(mode.name);

    CLI::App app("Measure devmem on this machine.", "devmem-bench");
    std::string mode;
    bench::Options options;
    bool json = false;
    app.add_option("MODE", mode, "what to measure; asks: everything, and exit 1 if an ask fails")
        ->required()
        ->check(CLI::IsMember(names));
    app.add_option("--rounds", options.rounds, "times that each cell is measured")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option("--seconds", options.seconds, "time for a cell in a round")
        ->check(CLI::Range(1e-4, 60.0))
        ->capture_default_str();
    app.add_flag("--json", json, "print one JSON object");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : bench::kBadArguments;
    }
    return bench::run(mode, options, json);
}
