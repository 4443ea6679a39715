// SPDX-License-Identifier: BSD-3-Clause
// What a spec may insist on, and regions whose pages come and go.
#include "test/unit/memory/regions.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <thread>
#include <utility>
#include <vector>

using namespace devmem::test;

namespace {

TEST(Flags, AreHonouredOrRefusedByName)
{
    const std::pair<const char*, int> kAsked[] = {
        {"host:size=1M,huge=no,flags=readable", 0},
        {"host:size=1M,huge=no,flags=port+readable+grow", 0},
        {"host:size=1M,flags=unreadable", -EOPNOTSUPP},
        {"host:size=1M,flags=readable+dmabuf", -EOPNOTSUPP},
        {"opaque:size=1M,huge=no,flags=unreadable+grow+port", 0},
        {"opaque:size=1M,flags=readable", -EOPNOTSUPP},
        {"opaque:size=1M,flags=dmabuf", -EOPNOTSUPP},
    };
    for (const auto& [spec, expected] : kAsked) {
        Region* region = nullptr;
        std::string error;
        EXPECT_EQ(devmem::region_create(spec, &region, error), expected) << spec << ": " << error;
        EXPECT_EQ(region != nullptr, expected == 0);
        if (expected == 0) {
            devmem_region_release(region);
            continue;
        }
        const std::string last = std::string(spec).substr(std::string(spec).find_last_of("=+") + 1);
        EXPECT_NE(error.find("flags=" + last), std::string::npos) << error;
    }
}

TEST(Flags, AreInTheDescription)
{
    const RegionPtr host = create("host:size=1M,huge=no,flags=port+readable");
    EXPECT_STREQ(info_of(host).spec, "host:size=1M,page=64K,huge=no,flags=readable+port");
    EXPECT_EQ(info_of(host).flags, DEVMEM_REGION_READABLE | DEVMEM_REGION_PORT);
    const RegionPtr opaque = create("opaque:size=1M,max=2M");
    EXPECT_STREQ(info_of(opaque).spec, "opaque:size=1M,max=2M,page=64K,huge=no");
    EXPECT_EQ(info_of(opaque).flags,
              DEVMEM_REGION_UNREADABLE | DEVMEM_REGION_GROW | DEVMEM_REGION_PORT);
    // A description makes the same region again.
    for (const RegionPtr* region : {&host, &opaque})
        EXPECT_STREQ(info_of(create(info_of(*region).spec)).spec, info_of(*region).spec);
}

/// A region of 16 pages, half of them there at first.
class Growing : public testing::TestWithParam<std::pair<const char*, const char*>> {
protected:
    void SetUp() override
    {
        const bool huge = GetParam().second == std::string("yes");
        if (huge && hugepages_free() < 16)
            GTEST_SKIP() << "fewer than 16 free hugepages (vm.nr_hugepages)";
        region = create(std::string(GetParam().first) + (huge ? ":size=16M,max=32M,page=2M,huge=yes"
                                                              : ":size=512K,max=1M,huge=no"));
        ASSERT_NE(region, nullptr);
        page = region->page_bytes;
        port = region->provider->map_for_port(*region);
    }

    /// Bytes of the region that are in memory, by the kernel's account.
    std::uint64_t resident(std::uint64_t offset, std::uint64_t bytes) const
    {
        std::vector<unsigned char> pages(bytes / 4096);
        EXPECT_EQ(mincore(port + offset, bytes, pages.data()), 0);
        return 4096 * static_cast<std::uint64_t>(std::count_if(
                          pages.begin(), pages.end(), [](unsigned char in) { return in & 1; }));
    }

    /// Bytes that the file behind the region takes, -1 if it has none or may not be looked at.
    std::int64_t file_bytes() const
    {
        const auto at = reinterpret_cast<std::uintptr_t>(port);
        const std::string line = maps_line(at);
        struct stat file {};
        const std::string range = line.substr(0, line.find(' '));
        if (line.find("memfd") == std::string::npos ||
            stat(("/proc/self/map_files/" + range).c_str(), &file) != 0)
            return -1;
        return std::int64_t{file.st_blocks} * 512;
    }

    void expect_pages(std::uint64_t pages) const
    {
        EXPECT_EQ(info_of(region).populated, pages * page);
        EXPECT_EQ(resident(0, region->bytes), pages * page);
        if (const std::int64_t bytes = file_bytes(); bytes >= 0) {
            EXPECT_EQ(static_cast<std::uint64_t>(bytes), pages * page);
        }
    }

    int read(std::uint64_t offset, std::string* text) const
    {
        return devmem_region_read(region.get(), offset, text->data(), text->size());
    }

    RegionPtr region;
    std::uint64_t page = 0;
    std::byte* port = nullptr;
};

TEST_P(Growing, BacksItsBeginningAndNoMore)
{
    EXPECT_EQ(info_of(region).bytes, 16 * page);
    expect_pages(8);
    EXPECT_EQ(resident(0, 8 * page), 8 * page);
    std::string text(4, '?');
    EXPECT_EQ(read(8 * page - 4, &text), 0);
    EXPECT_EQ(read(8 * page - 3, &text), -ERANGE) << "the last byte has no page";
    EXPECT_EQ(read(8 * page, &text), -ERANGE);
    expect_pages(8); // looking put none there
}

TEST_P(Growing, GivesPagesBackToTheSystemAndTakesThemAgain)
{
    for (std::uint64_t p = 0; p < 8; p++)
        std::memcpy(port + p * page, &p, sizeof(p));
    ASSERT_EQ(devmem::region_populate(*region, 8 * page, 8 * page), 0);
    expect_pages(16);
    ASSERT_EQ(devmem::region_depopulate(*region, 2 * page, page), 0);
    ASSERT_EQ(devmem::region_depopulate(*region, 4 * page, 12 * page), 0);
    expect_pages(3);
    EXPECT_EQ(resident(2 * page, page), 0u);
    std::string text(8, '?');
    EXPECT_EQ(read(2 * page, &text), -ERANGE);

    // Pages that are there already stay as they are.
    ASSERT_EQ(devmem::region_populate(*region, 0, 5 * page), 0);
    expect_pages(5);
    for (const std::uint64_t p : {0u, 1u, 3u}) {
        ASSERT_EQ(read(p * page, &text), 0);
        EXPECT_EQ(std::memcmp(text.data(), &p, sizeof(p)), 0) << p;
    }
    ASSERT_EQ(read(2 * page, &text), 0);
    EXPECT_EQ(text, std::string(8, '\0'));

    ASSERT_EQ(devmem::region_depopulate(*region, 0, 16 * page), 0);
    ASSERT_EQ(devmem::region_depopulate(*region, 0, 16 * page), 0);
    expect_pages(0);
}

TEST_P(Growing, LeavesTheOtherPagesAlone)
{
    // The port writes pages 0 to 3 while 4 to 15 come and go.
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> rounds{0};
    std::thread traffic([&] {
        std::string text(64, '?'), back(64, '\0');
        for (std::uint64_t i = 0; !stop.load(); i++) {
            std::snprintf(text.data(), text.size(), "round %llu",
                          static_cast<unsigned long long>(i));
            const Transfer out{i % 4 * page + 128, text.data(), text.size()};
            const Transfer in{i % 4 * page + 128, back.data(), back.size()};
            ASSERT_EQ(region->provider->dma_write(*region, {&out, 1}), 0);
            ASSERT_EQ(region->provider->read_back(*region, {&in, 1}), 0);
            ASSERT_EQ(text, back);
            rounds.fetch_add(1);
        }
    });
    for (int i = 0; i < 50 || rounds.load() < 1000; i++) {
        ASSERT_EQ(devmem::region_depopulate(*region, 4 * page, 12 * page), 0);
        ASSERT_EQ(devmem::region_populate(*region, 4 * page, 12 * page), 0);
    }
    stop = true;
    traffic.join();
    expect_pages(16);
}

TEST_P(Growing, RefusesWhatIsNoWholePageOfIt)
{
    for (const auto call : {devmem::region_populate, devmem::region_depopulate}) {
        EXPECT_EQ(call(*region, page / 2, page), -EINVAL);
        EXPECT_EQ(call(*region, 0, page - 4096), -EINVAL);
        EXPECT_EQ(call(*region, 16 * page, page), -ERANGE);
        EXPECT_EQ(call(*region, 15 * page, 2 * page), -ERANGE);
        EXPECT_EQ(call(*region, page, -page), -ERANGE); // the end wraps
        EXPECT_EQ(call(*region, 16 * page, 0), 0);
    }
    expect_pages(8);
}

INSTANTIATE_TEST_SUITE_P(Memory, Growing,
                         testing::Values(std::pair{"host", "no"}, std::pair{"host", "yes"},
                                         std::pair{"opaque", "no"}, std::pair{"opaque", "yes"}),
                         [](const auto& test) {
                             return std::string(test.param.first) +
                                    (test.param.second == std::string("yes") ? "_huge" : "_plain");
                         });

TEST(Grow, IsForRegionsThatAskedForIt)
{
    for (const char* spec : {"host:size=4M", "opaque:size=4M", "host:size=4M,huge=no"}) {
        const RegionPtr region = create(spec);
        EXPECT_EQ(info_of(region).flags & DEVMEM_REGION_GROW, 0u);
        EXPECT_EQ(devmem::region_depopulate(*region, 0, region->page_bytes), -EOPNOTSUPP);
        EXPECT_EQ(devmem::region_populate(*region, 0, region->page_bytes), -EOPNOTSUPP);
        EXPECT_EQ(info_of(region).populated, 4u << 20);
    }
}

TEST(Grow, SmallPagesAreNoPartOfATransparentHugepage)
{
    // A part of one would not go back to the system by itself.
    if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled").good())
        GTEST_SKIP() << "the kernel has no transparent hugepages";
    for (const char* provider : {"host", "opaque"}) {
        const RegionPtr region = create(std::string(provider) + ":size=8M,huge=no,flags=grow");
        const std::string begin =
            maps_line(reinterpret_cast<std::uintptr_t>(region->provider->map_for_port(*region)));
        std::ifstream smaps("/proc/self/smaps");
        std::string line;
        while (std::getline(smaps, line) && line != begin)
            ;
        while (std::getline(smaps, line) && !line.starts_with("VmFlags:"))
            ;
        EXPECT_NE((line + " ").find(" nh "), std::string::npos) << line;
    }
}

TEST(Grow, MemoryThatIsNotToBeHadIsRefused)
{
    const RegionPtr region = create("opaque:size=2M,page=2M,max=16384G,huge=no");
    ASSERT_NE(region, nullptr);
    EXPECT_EQ(devmem::region_populate(*region, 0, region->bytes), -ENOMEM);
    EXPECT_EQ(info_of(region).populated, 2u << 20);
}

TEST(Grow, WhatAFailingProviderDidIsUndone)
{
    // Pages are populated in runs; the provider refuses page 6.
    static std::vector<bool> backed;
    backed.assign(8, true);
    static const char* const kNoKeys[][2] = {{nullptr, nullptr}};
    static const devmem::Provider kBrittle{
        .name = "brittle",
        .keys = kNoKeys,
        .flags = DEVMEM_REGION_GROW,
        .create =
            [](const devmem::SpecKeys&, Region& region, std::string&) {
                region.base = devmem::DeviceAddress{1ull << 50};
                region.bytes = 8 * 4096;
                region.page_bytes = 4096;
                return 0;
            },
        .destroy = [](Region&) {},
        .dma_write = [](const Region&, std::span<const Transfer>) { return -ENOTSUP; },
        .read_back = [](const Region&, std::span<const Transfer>) { return 0; },
        .map_for_port = [](const Region&) -> std::byte* { return nullptr; },
        .export_dmabuf = [](const Region&) { return -EOPNOTSUPP; },
        .populate =
            [](const Region&, std::uint64_t offset, std::uint64_t bytes) {
                if (offset <= 6 * 4096 && offset + bytes > 6 * 4096)
                    return -EIO;
                for (; bytes != 0; bytes -= 4096, offset += 4096)
                    backed[offset / 4096] = true;
                return 0;
            },
        .depopulate =
            [](const Region&, std::uint64_t offset, std::uint64_t bytes) {
                for (; bytes != 0; bytes -= 4096, offset += 4096)
                    backed[offset / 4096] = false;
                return 0;
            },
        .dma_address = [](const Region&, std::uint64_t page) { return (16 - page) << 12; },
    };
    ASSERT_EQ(devmem::provider_register(kBrittle), 0);
    EXPECT_EQ(devmem_region_create("brittle:flags=port", nullptr, nullptr, 0), -EOPNOTSUPP);
    const RegionPtr region = create("brittle:flags=grow");
    EXPECT_EQ(region->populated, 8u * 4096);
    for (const std::uint64_t p : {0u, 1u, 3u, 6u})
        ASSERT_EQ(devmem::region_depopulate(*region, p * 4096, 4096), 0);
    const std::vector<bool> before = backed;
    EXPECT_EQ(devmem::region_populate(*region, 0, 8 * 4096), -EIO);
    EXPECT_EQ(backed, before);
    EXPECT_EQ(region->populated, 4u * 4096);
    EXPECT_EQ(devmem::region_populate(*region, 0, 6 * 4096), 0);
    EXPECT_EQ(region->populated, 7u * 4096);

    EXPECT_EQ(devmem::dma_address(*region, 3), 13u << 12);
}

TEST(DmaAddress, IsTheDeviceAddressOfAPageForLackOfADevice)
{
    for (const char* spec : {"host:size=1M", "opaque:size=1M"}) {
        const RegionPtr region = create(spec);
        EXPECT_EQ(devmem::dma_address(*region, 0), info_of(region).address);
        EXPECT_EQ(devmem::dma_address(*region, 15), info_of(region).address + 15 * 65536);
    }
}

} // namespace
