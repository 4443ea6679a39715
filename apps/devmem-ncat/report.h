// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <devmem/devmem.h>

#include <cstdint>
#include <string>
#include <vector>

namespace ncat {

/// What the run came to.
struct Report {
    std::uint64_t bytes = 0;
    double seconds = 0;     ///< from the first payload to the last
    double cpu_seconds = 0; ///< user and system time of the process meanwhile
    std::uint64_t connections = 0;
    std::uint64_t tokens = 0;
    std::uint64_t device_bytes = 0;
    std::uint64_t host_bytes = 0;
    devmem_shard_stats stats{}; ///< summed over the shards
    std::vector<std::string> hashes;
    devmem_region_info region{};
    struct devmem_fit fit {};
    devmem_port port{};

    double gbps() const;
    /// Share of the fragments' bytes that payload fills.
    double fill() const;
    std::string json() const;
    /// For people.
    std::string text() const;
};

/// Add the counters of a shard to a sum.
void add_stats(devmem_shard_stats& sum, const devmem_shard_stats& stats);

} // namespace ncat
