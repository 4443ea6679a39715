// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/memory/regions.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>
#include <vector>

using namespace devmem::test;

namespace {

class EveryProvider : public testing::TestWithParam<std::pair<const char*, const char*>> {
protected:
    std::string spec(const std::string& rest) const
    {
        return std::string(GetParam().first) + ":" + rest + ",huge=" + GetParam().second;
    }
    void SetUp() override
    {
        if (GetParam().second == std::string("yes") && hugepages_free() < 4)
            GTEST_SKIP() << "fewer than 4 free hugepages (vm.nr_hugepages)";
    }
};

TEST_P(EveryProvider, WhatThePortWritesIsReadBack)
{
    const RegionPtr region = create(spec("size=4M,page=64K"));
    std::byte* port = region->provider->map_for_port(*region);
    ASSERT_NE(port, nullptr);
    std::vector<unsigned char> sent(region->bytes);
    for (std::size_t i = 0; i < sent.size(); ++i)
        sent[i] = static_cast<unsigned char>((i * 2654435761u) >> 13);
    std::memcpy(port, sent.data(), sent.size());
    std::vector<unsigned char> got(sent.size());
    ASSERT_EQ(devmem_region_read(region.get(), 0, got.data(), got.size()), 0);
    EXPECT_EQ(got, sent);
    std::vector<unsigned char> piece(777);
    ASSERT_EQ(devmem_region_read(region.get(), 65000, piece.data(), piece.size()), 0);
    EXPECT_EQ(std::memcmp(piece.data(), sent.data() + 65000, piece.size()), 0);
}

TEST_P(EveryProvider, ScatterAndGatherMoveThePiecesNamed)
{
    const RegionPtr region = create(spec("size=2M"));
    char one[] = "first", two[] = "second";
    const std::array out{Transfer{100, one, 5}, Transfer{region->bytes - 6, two, 6}};
    ASSERT_EQ(region->provider->dma_write(*region, out), 0);
    char back_one[5], back_two[6], zero[2] = {1, 1};
    const std::array in{Transfer{region->bytes - 6, back_two, 6}, Transfer{100, back_one, 5},
                        Transfer{105, zero, 2}};
    ASSERT_EQ(region->provider->read_back(*region, in), 0);
    EXPECT_EQ(std::string(back_one, 5), "first");
    EXPECT_EQ(std::string(back_two, 6), "second");
    EXPECT_EQ(std::string(zero, 2), std::string(2, '\0'));
}

TEST_P(EveryProvider, NothingOutsideTheRegionIsTouched)
{
    const RegionPtr region = create(spec("size=2M"));
    char byte = 'x';
    EXPECT_EQ(devmem_region_read(region.get(), region->bytes, &byte, 1), -ERANGE);
    EXPECT_EQ(devmem_region_read(region.get(), UINT64_MAX, &byte, 2), -ERANGE);
    EXPECT_EQ(devmem_region_read(region.get(), region->bytes, &byte, 0), 0);
    const std::array transfers{Transfer{0, &byte, 1}, Transfer{region->bytes, &byte, 1}};
    EXPECT_EQ(region->provider->dma_write(*region, transfers), -ERANGE);
    EXPECT_EQ(region->provider->read_back(*region, transfers), -ERANGE);
    char first = 'y';
    ASSERT_EQ(devmem_region_read(region.get(), 0, &first, 1), 0);
    EXPECT_EQ(first, '\0'); // the whole batch was refused
}

TEST_P(EveryProvider, IsAlignedToItsPage)
{
    for (const char* page : {"4K", "64K", "2M", "8M"}) {
        const RegionPtr region = create(spec(std::string("size=8M,page=") + page));
        EXPECT_EQ(info_of(region).address % region->page_bytes, 0u) << page;
        const auto port = reinterpret_cast<std::uintptr_t>(region->provider->map_for_port(*region));
        EXPECT_EQ(port % region->page_bytes, 0u) << page;
    }
}

TEST_P(EveryProvider, DescribesItself)
{
    const RegionPtr region = create(spec("size=2048K"));
    const devmem_region_info info = info_of(region);
    EXPECT_EQ(info.bytes, 2u << 20);
    EXPECT_EQ(info.page_bytes, 65536u);
    EXPECT_STREQ(info.provider, GetParam().first);
    EXPECT_EQ(info.spec, spec("size=2M,page=64K"));
    EXPECT_EQ(info.readable, std::string(GetParam().first) == "host");
    EXPECT_EQ(info.dmabuf_fd, -1);
    EXPECT_EQ(region->provider->export_dmabuf(*region), -EOPNOTSUPP);
}

TEST_P(EveryProvider, IsResidentWhenItIsMade)
{
    // Every page of the mapping is in memory before anyone touched it.
    const RegionPtr region = create(spec("size=8M"));
    std::ifstream smaps("/proc/self/smaps");
    const std::string begin =
        maps_line(reinterpret_cast<std::uintptr_t>(region->provider->map_for_port(*region)));
    std::string line;
    while (std::getline(smaps, line) && line != begin)
        ;
    std::uint64_t kib = 0;
    while (std::getline(smaps, line) && !line.starts_with("VmFlags")) {
        for (const char* key : {"Rss:", "Shared_Hugetlb:", "Private_Hugetlb:"}) {
            if (line.starts_with(key))
                kib += std::stoull(line.substr(std::strlen(key)));
        }
    }
    EXPECT_GE(kib, 8u * 1024);
}

INSTANTIATE_TEST_SUITE_P(Memory, EveryProvider,
                         testing::Values(std::pair{"host", "no"}, std::pair{"host", "yes"},
                                         std::pair{"opaque", "no"}, std::pair{"opaque", "yes"}),
                         [](const auto& test) {
                             return std::string(test.param.first) +
                                    (test.param.second == std::string("yes") ? "_huge" : "_plain");
                         });

TEST(Opaque, TheDeviceAddressIsMappedWithoutAnyAccess)
{
    for (const char* huge : {"no", "auto"}) {
        const RegionPtr region = create(std::string("opaque:size=4M,huge=") + huge);
        for (std::uint64_t offset = 0; offset < region->bytes; offset += 4096) {
            const std::string line = maps_line(info_of(region).address + offset);
            ASSERT_NE(line.find(" ---s "), std::string::npos) << line;
            ASSERT_NE(line.find("/memfd:devmem-opaque"), std::string::npos) << line;
        }
    }
}

TEST(OpaqueDeathTest, TheDeviceAddressFaults)
{
    const RegionPtr region = create("opaque:size=64K");
    auto* address = reinterpret_cast<volatile char*>(info_of(region).address);
    std::memset(region->provider->map_for_port(*region), 1, region->bytes);
    const auto unhandled = [] { std::signal(SIGSEGV, SIG_DFL); }; // a sanitizer may have taken it
    EXPECT_EXIT((unhandled(), static_cast<void>(address[0])), testing::KilledBySignal(SIGSEGV), "");
    EXPECT_EXIT((unhandled(), static_cast<void>(address[65535])), testing::KilledBySignal(SIGSEGV),
                "");
    EXPECT_EXIT((unhandled(), std::memset(const_cast<char*>(address), 1, 1)),
                testing::KilledBySignal(SIGSEGV), "");
}

TEST(Region, GoesWithItsLastReference)
{
    Region* region = nullptr;
    ASSERT_EQ(devmem_region_create("opaque:size=64K", &region, nullptr, 0), 0);
    devmem_region_info info{};
    devmem_region_info_get(region, &info);
    devmem::region_acquire(*region);
    devmem_region_release(region);
    EXPECT_EQ(devmem::region_find(info.address), region);
    EXPECT_FALSE(maps_line(info.address).empty());
    devmem_region_release(region);
    EXPECT_EQ(devmem::region_find(info.address), nullptr);
    EXPECT_EQ(maps_line(info.address).find("devmem-opaque"), std::string::npos);
    devmem_region_release(nullptr);
}

TEST(Region, IsFoundByAnyAddressInIt)
{
    const RegionPtr a = create("opaque:size=128K");
    const RegionPtr b = create("host:size=64K");
    for (const RegionPtr& region : {std::cref(a), std::cref(b)}) {
        const std::uint64_t base = info_of(region).address;
        EXPECT_EQ(devmem::region_find(base), region.get());
        EXPECT_EQ(devmem::region_find(base + region->bytes - 1), region.get());
        EXPECT_NE(devmem::region_find(base - 1), region.get());
        EXPECT_NE(devmem::region_find(base + region->bytes), region.get());
    }
    EXPECT_EQ(devmem::region_find(0), nullptr);
    EXPECT_EQ(devmem::region_find(UINT64_MAX), nullptr);
}

TEST(Region, AWrongSpecNamesTheKeyAndTheValidOnes)
{
    const std::pair<const char*, const char*> kWrong[] = {
        {"opaque", "size is missing"},
        {"opaque:", "size is missing"},
        {"opaque:page=4K", "size is missing"},
        {"opaque:sise=1M", "unknown key \"sise\""},
        {"opaque:size=1M,,", "unknown key \"\""},
        {"opaque:size", "size has no value"},
        {"opaque:size=", "size= is not a size"},
        {"opaque:size=0", "size=0 is not a size"},
        {"opaque:size=1T", "size=1T is not a size"},
        {"opaque:size=1MB", "size=1MB is not a size"},
        {"opaque:size=-1M", "size=-1M is not a size"},
        {"opaque:size=99999999999G", "size=99999999999G is not a size"},
        {"opaque:size=1M,size=2M", "size is given twice"},
        {"opaque:size=100K", "size=100K is not a multiple of page=64K"},
        {"opaque:size=1M,page=48K", "page=48K is not a power of two"},
        {"opaque:size=1M,page=2K", "page=2K is not a power of two from 4K"},
        {"opaque:size=4G,page=2G", "page=2G is not a power of two from 4K to 1G"},
        {"opaque:size=1M,node=x", "node=x is not a number"},
        {"opaque:size=1M,node=-1", "node=-1 is not a number"},
        {"opaque:size=1M,node=4000", "node=4000 is no node of this machine"},
        {"opaque:size=1M,huge=maybe", "huge=maybe is none of auto, yes, no"},
        {"host:size=64K,huge=yes", "huge=yes: "},
        {"host:size=1M,max=512K", "max=512K is not a multiple of page=64K and at least size=1M"},
        {"host:size=1M,max=1090K", "max=1090K is not a multiple"},
        {"host:size=2M,huge=yes,flags=grow", "huge=yes: "},
        {"host:size=1M,flags=portable", "unknown flag \"portable\""},
        {"host:size=1M,flags=", "unknown flag \"\""},
        {"host:size=1M,flags=port+", "unknown flag \"\""},
    };
    for (const auto& [spec, expected] : kWrong) {
        Region* region = nullptr;
        char error[512] = "";
        EXPECT_EQ(devmem_region_create(spec, &region, error, sizeof(error)), -EINVAL) << spec;
        EXPECT_EQ(region, nullptr);
        const std::string text = error;
        EXPECT_NE(text.find(expected), std::string::npos) << spec << " -> " << text;
        EXPECT_EQ(text.find('\n'), std::string::npos);
        for (const char* key : {"size: ", "max: ", "page: ", "node: ", "huge: ", "flags: "})
            EXPECT_NE(text.find(key), std::string::npos) << spec << " -> " << text;
    }
}

TEST(Region, AnUnknownProviderListsTheKnownOnes)
{
    for (const char* spec : {"", ":size=1M", "hosts:size=1M", "cuda"}) {
        Region* region = nullptr;
        std::string error;
        EXPECT_EQ(devmem::region_create(spec, &region, error), -EINVAL) << spec;
        EXPECT_NE(error.find("providers: host, opaque"), std::string::npos) << error;
    }
}

TEST(Region, ErrorTextIsOptionalAndBounded)
{
    Region* region = nullptr;
    EXPECT_EQ(devmem_region_create("opaque:sise=1", &region, nullptr, 0), -EINVAL);
    char error[8] = "";
    EXPECT_EQ(devmem_region_create("opaque:sise=1", &region, error, sizeof(error)), -EINVAL);
    EXPECT_STREQ(error, "opaque:");
}

TEST(Region, MemoryThatIsNotToBeHadIsRefusedWithTheReason)
{
    Region* region = nullptr;
    std::string error;
    // 1 PiB: more than any machine this runs on has, less than the address space.
    EXPECT_EQ(devmem::region_create("host:size=1048576G,huge=no", &region, error), -ENOMEM);
    EXPECT_NE(error.find("size=1048576G"), std::string::npos) << error;
    EXPECT_NE(error.find("available"), std::string::npos) << error;
    EXPECT_EQ(devmem::region_create("opaque:size=1048576G,huge=yes", &region, error), -ENOMEM);
    EXPECT_NE(error.find("vm.nr_hugepages"), std::string::npos) << error;
    EXPECT_EQ(region, nullptr);
}

TEST(Region, FallsBackToPlainPages)
{
    const RegionPtr region = create("opaque:size=64K"); // no multiple of a hugepage
    EXPECT_STREQ(info_of(region).spec, "opaque:size=64K,page=64K,huge=no");
}

TEST(Region, NodeZeroIsAccepted)
{
    const RegionPtr region = create("host:size=1M,node=0,huge=no");
    EXPECT_STREQ(info_of(region).spec, "host:size=1M,page=64K,node=0,huge=no");
    EXPECT_LE(info_of(region).numa_node, 0); // -1 where the kernel does not say
}

TEST(Provider, RegistersOnceAndIsUsed)
{
    static const char* const kKeys[][2] = {{"depth", "a number"}, {nullptr, nullptr}};
    static int destroyed;
    destroyed = 0;
    static const devmem::Provider kFake{
        .name = "fake",
        .keys = kKeys,
        .create =
            [](const devmem::SpecKeys& keys, Region& region, std::string& error) {
                if (keys.find("depth") == keys.end()) {
                    error = "depth is missing";
                    return -EOPNOTSUPP;
                }
                region.base = devmem::DeviceAddress{0x1000};
                region.bytes = 4096;
                region.page_bytes = 4096;
                return 0;
            },
        .destroy = [](Region&) { ++destroyed; },
        .dma_write = [](const Region&, std::span<const Transfer>) { return -ENOTSUP; },
        .read_back = [](const Region&, std::span<const Transfer>) { return -ENODEV; },
        .map_for_port = [](const Region&) -> std::byte* { return nullptr; },
        .export_dmabuf = [](const Region&) { return -EOPNOTSUPP; },
    };
    EXPECT_EQ(devmem::provider_register(kFake), 0);
    EXPECT_EQ(devmem::provider_register(kFake), -EEXIST);
    Region* refused = nullptr;
    std::string error;
    EXPECT_EQ(devmem::region_create("fake", &refused, error), -EOPNOTSUPP);
    EXPECT_EQ(error, "fake: depth is missing");
    {
        const RegionPtr region = create("fake:depth=1");
        EXPECT_EQ(devmem::region_find(0x1fff), region.get());
        char byte;
        EXPECT_EQ(devmem_region_read(region.get(), 0, &byte, 1), -EIO);
    }
    EXPECT_EQ(destroyed, 1);
}

TEST(Size, ParsesAndFormats)
{
    const std::pair<const char*, std::uint64_t> kGood[] = {{"0", 0},
                                                           {"1", 1},
                                                           {"4K", 4096},
                                                           {"4k", 4096},
                                                           {"256M", 256u << 20},
                                                           {"3G", 3ull << 30},
                                                           {"18446744073709551615", UINT64_MAX}};
    for (const auto& [text, expected] : kGood) {
        std::uint64_t bytes = 7;
        EXPECT_EQ(devmem::parse_size(text, &bytes), 0) << text;
        EXPECT_EQ(bytes, expected);
    }
    for (const char* text : {"", "K", "1KB", "1.5G", " 1", "0x10", "17179869184G", "+1"}) {
        std::uint64_t bytes = 7;
        EXPECT_EQ(devmem::parse_size(text, &bytes), -EINVAL) << text;
        EXPECT_EQ(bytes, 7u);
    }
    EXPECT_EQ(devmem::format_size(0), "0");
    EXPECT_EQ(devmem::format_size(1000), "1000");
    EXPECT_EQ(devmem::format_size(1536), "1536");
    EXPECT_EQ(devmem::format_size(65536), "64K");
    EXPECT_EQ(devmem::format_size(3ull << 40), "3072G");
}

} // namespace
