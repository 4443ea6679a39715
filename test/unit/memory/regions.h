// SPDX-License-Identifier: BSD-3-Clause
// What tests of regions share.
#pragma once

#include "lib/memory/region.h"

#include <devmem/devmem.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

namespace devmem::test {

using devmem::Region;
using devmem::Transfer;

struct Release {
    void operator()(Region* region) const { devmem_region_release(region); }
};
using RegionPtr = std::unique_ptr<Region, Release>;

inline RegionPtr create(const std::string& spec)
{
    Region* region = nullptr;
    std::string error;
    EXPECT_EQ(devmem::region_create(spec, &region, error), 0) << error;
    return RegionPtr(region);
}

inline devmem_region_info info_of(const RegionPtr& region)
{
    devmem_region_info info{};
    devmem_region_info_get(region.get(), &info);
    return info;
}

/// The line of /proc/self/maps that holds an address; empty if it is not mapped.
inline std::string maps_line(std::uint64_t address)
{
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        std::size_t dash = 0;
        const std::uint64_t begin = std::stoull(line, &dash, 16);
        const std::uint64_t end = std::stoull(line.substr(dash + 1), nullptr, 16);
        if (address >= begin && address < end)
            return line;
    }
    return {};
}

inline std::uint64_t hugepages_free()
{
    std::ifstream meminfo("/proc/meminfo");
    for (std::string key; meminfo >> key;) {
        std::uint64_t value = 0;
        if (key == "HugePages_Free:" && meminfo >> value)
            return value;
    }
    return 0;
}

} // namespace devmem::test
