// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/report.h"

#include <algorithm>
#include <cstdio>

namespace bench {
namespace {

using Row = std::vector<std::string>;

std::string number(double value)
{
    char text[32];
    std::snprintf(text, sizeof(text), value < 10 ? "%.3f" : "%.1f", value);
    return text;
}

std::string bound(const char* relation, double want)
{
    char text[32];
    std::snprintf(text, sizeof(text), "%s %g", relation, want);
    return text;
}

std::string plain(const Json& value)
{
    if (value.is_string())
        return value.get<std::string>();
    return value.is_number_float() ? number(value.get<double>()) : value.dump();
}

std::string layout(const std::vector<Row>& rows)
{
    std::vector<std::size_t> widths;
    for (const Row& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (std::size_t i = 0; i < row.size(); ++i)
            widths[i] = std::max(widths[i], row[i].size());
    }
    std::string text;
    for (const Row& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i)
            text += std::string(2 + widths[i] - row[i].size(), ' ') + row[i];
        text += '\n';
    }
    return text;
}

std::string pairs(const Json& object)
{
    std::vector<Row> rows;
    for (const auto& [key, value] : object.items())
        rows.push_back({key, plain(value)});
    return layout(rows);
}

/// Results of one name, from `begin` on: a line for all that differ in the last parameter only.
std::string table(const Result* begin, const Result* end)
{
    std::vector<Row> rows{{}};
    Row columns, line;
    for (const Result* r = begin; r != end; ++r) {
        Row key;
        for (auto param = r->params.begin(); param != r->params.end(); ++param)
            key.push_back(plain(*param));
        const std::string column = key.back();
        key.pop_back();
        if (std::find(columns.begin(), columns.end(), column) == columns.end())
            columns.push_back(column);
        if (key != line || rows.size() == 1) {
            line = key;
            rows.push_back(key);
        }
        rows.back().push_back(number(r->stat.median));
    }
    Row& head = rows[0];
    for (const auto& [name, value] : begin->params.items())
        head.push_back(name);
    head.pop_back();
    head.insert(head.end(), columns.begin(), columns.end());
    return begin->name + ", " + begin->unit + "\n" + layout(rows);
}

} // namespace

Stat summarize(std::vector<double> samples)
{
    std::sort(samples.begin(), samples.end());
    const std::size_t half = samples.size() / 2;
    const double median =
        samples.size() % 2 != 0 ? samples[half] : (samples[half - 1] + samples[half]) / 2;
    return {median, samples.front(), samples.back()};
}

void Report::ask_at_least(const std::string& name, double want, std::optional<double> got)
{
    asks.push_back({name, bound(">=", want), got, got && *got >= want});
}

void Report::ask_at_most(const std::string& name, double want, std::optional<double> got)
{
    asks.push_back({name, bound("<=", want), got, got && *got <= want});
}

bool Report::all_hold() const
{
    return std::all_of(asks.begin(), asks.end(), [](const Ask& ask) { return ask.holds; });
}

std::string Report::json() const
{
    Json object{{"mode", mode},
                {"conditions", conditions},
                {"baselines", baselines},
                {"results", Json::array()},
                {"asks", Json::array()}};
    for (const Result& r : results)
        object["results"].push_back({{"name", r.name},
                                     {"params", r.params},
                                     {"median", r.stat.median},
                                     {"min", r.stat.min},
                                     {"max", r.stat.max},
                                     {"unit", r.unit}});
    for (const Ask& ask : asks)
        object["asks"].push_back({{"name", ask.name},
                                  {"want", ask.want},
                                  {"got", ask.got ? Json(*ask.got) : Json()},
                                  {"holds", ask.holds}});
    return object.dump();
}

std::string Report::text() const
{
    std::string text = mode + "\n" + pairs(conditions) + "\nbaselines\n" + pairs(baselines) + "\n";
    for (auto begin = results.data(), all = begin + results.size(); begin != all;) {
        const auto end = std::find_if(
            begin, all, [&](const Result& result) { return result.name != begin->name; });
        text += table(begin, end) + "\n";
        begin = end;
    }
    std::vector<Row> rows{{"ask", "want", "got", "holds"}};
    for (const Ask& ask : asks)
        rows.push_back({ask.name, ask.want, ask.got ? number(*ask.got) : "not measured",
                        ask.holds ? "yes" : "NO"});
    return text + layout(rows);
}

} // namespace bench
