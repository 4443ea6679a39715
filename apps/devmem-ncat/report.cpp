// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/report.h"

#include <nlohmann/json.hpp>

#include <cinttypes>
#include <cstdio>
#include <string_view>

namespace ncat {
namespace {

constexpr std::string_view kDrop = "drop_";

const char* split_name(const devmem_port& port)
{
    return port.split == DEVMEM_SPLIT_HARDWARE ? "hardware" : "software";
}

/// Call `visit(cause, count)` for every counter of dropped packets.
template <typename Visit>
void for_each_drop(const devmem_shard_stats& stats, Visit visit)
{
    const auto each = [&](std::string_view name, std::uint64_t count) {
        if (name.starts_with(kDrop))
            visit(std::string(name.substr(kDrop.size())), count);
    };
#define DEVMEM_NCAT_EACH(name, text) each(#name, stats.name);
    DEVMEM_SHARD_STATS(DEVMEM_NCAT_EACH)
#undef DEVMEM_NCAT_EACH
}

} // namespace

double Report::gbps() const
{
    return seconds > 0 ? static_cast<double>(bytes) * 8 / 1e9 / seconds : 0;
}

double Report::fill() const
{
    const std::uint64_t room = stats.rx_fragments * fit.fragment_bytes;
    return room == 0 ? 0 : static_cast<double>(stats.rx_payload_bytes) / static_cast<double>(room);
}

std::string Report::json() const
{
    nlohmann::ordered_json drops = nlohmann::ordered_json::object();
    for_each_drop(stats,
                  [&](const std::string& cause, std::uint64_t count) { drops[cause] = count; });
    const nlohmann::ordered_json object{
        {"bytes", bytes},
        {"seconds", seconds},
        {"gbps", gbps()},
        {"cpu_seconds", cpu_seconds},
        {"connections", connections},
        {"tokens", tokens},
        {"mean_token_bytes",
         tokens == 0 ? 0 : static_cast<double>(bytes) / static_cast<double>(tokens)},
        {"device_bytes", device_bytes},
        {"host_bytes", host_bytes},
        {"fill", fill()},
        {"ooo_segments", stats.rx_ooo_segments},
        {"ce_segments", stats.rx_ce_segments},
        {"sha256", hashes},
        {"region",
         {{"spec", region.spec},
          {"readable", region.readable},
          {"page_bytes", region.page_bytes},
          {"fragment_bytes", fit.fragment_bytes}}},
        {"port", {{"name", port.name}, {"driver", port.driver}, {"split", split_name(port)}}},
        {"drops", drops},
    };
    return object.dump();
}

std::string Report::text() const
{
    char line[256];
    std::snprintf(line, sizeof(line),
                  "%" PRIu64 " bytes in %.3f s, %.2f Gb/s; %" PRIu64 " connection%s; %" PRIu64
                  " tokens of %.0f bytes on average; %" PRIu64 " bytes in device memory, %" PRIu64
                  " in host memory; fragments %.1f %% full",
                  bytes, seconds, gbps(), connections, connections == 1 ? "" : "s", tokens,
                  tokens == 0 ? 0.0 : static_cast<double>(bytes) / static_cast<double>(tokens),
                  device_bytes, host_bytes, fill() * 100);
    std::string text = line;
    std::string drops;
    for_each_drop(stats, [&](const std::string& cause, std::uint64_t count) {
        if (count != 0)
            drops += (drops.empty() ? "" : ", ") + cause + " " + std::to_string(count);
    });
    return drops.empty() ? text : text + "; drops: " + drops;
}

void add_stats(devmem_shard_stats& sum, const devmem_shard_stats& stats)
{
#define DEVMEM_NCAT_ADD(name, text) sum.name += stats.name;
    DEVMEM_SHARD_STATS(DEVMEM_NCAT_ADD)
#undef DEVMEM_NCAT_ADD
}

} // namespace ncat
