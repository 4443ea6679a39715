// SPDX-License-Identifier: BSD-3-Clause
#include <devmem/devmem.h>

#include <gtest/gtest.h>

#include <bit>
#include <cerrno>

namespace {

struct devmem_fit fit(std::uint16_t mtu, bool ipv6, bool timestamps, std::uint32_t page = 65536,
                      std::uint32_t alignment = 0)
{
    struct devmem_fit out {};
    EXPECT_EQ(devmem_fit(mtu, ipv6, timestamps, page, alignment, &out), 0);
    return out;
}

TEST(Fit, EthernetWithTimestampsFillsThePage)
{
    const struct devmem_fit out = fit(1500, false, true);
    EXPECT_EQ(out.fragment_bytes, 1448u);
    EXPECT_EQ(out.fragments_per_page, 45u);
    EXPECT_EQ(out.page_bytes, 65536u);
    EXPECT_EQ(out.mss, 1460u);
}

TEST(Fit, TheMssDoesNotCountOptions)
{
    EXPECT_EQ(fit(1500, false, false).mss, 1460u); // RFC 9293 3.7.1: MTU - 40
    EXPECT_EQ(fit(1500, false, false).fragment_bytes, 1460u);
    EXPECT_EQ(fit(1500, true, true).mss, 1440u); // MTU - 60
    EXPECT_EQ(fit(1500, true, true).fragment_bytes, 1428u);
    EXPECT_EQ(fit(9000, false, true).fragment_bytes, 8948u);
    EXPECT_EQ(fit(9000, false, true).fragments_per_page, 7u);
}

TEST(Fit, SmallSegmentsShrinkThePageToSixtyFourFragments)
{
    const struct devmem_fit out = fit(576, false, true);
    EXPECT_EQ(out.fragment_bytes, 524u);
    EXPECT_EQ(out.page_bytes, 32768u);
    EXPECT_EQ(out.fragments_per_page, 62u);
}

TEST(Fit, TheLargestSegmentIsOneFragmentOfAPage)
{
    const struct devmem_fit out = fit(65521, false, true);
    EXPECT_EQ(out.fragment_bytes, 65469u);
    EXPECT_EQ(out.fragments_per_page, 1u);
    EXPECT_EQ(out.mss, 65481u);
}

TEST(Fit, ASegmentLargerThanThePageIsCutEvenly)
{
    const struct devmem_fit out = fit(9000, false, true, 4096); // 8948 = 3 * 2982 + 2
    EXPECT_EQ(out.fragment_bytes, 2982u);
    EXPECT_EQ(out.fragments_per_page, 1u);
    EXPECT_EQ(out.mss, 3u * 2982u + 12u);
}

TEST(Fit, AlignmentRoundsTheFragmentUp)
{
    EXPECT_EQ(fit(1500, false, true, 65536, 64).fragment_bytes, 1472u);
    EXPECT_EQ(fit(1500, false, true, 65536, 64).fragments_per_page, 44u);
    EXPECT_EQ(fit(1500, false, true, 65536, 64).mss, 1460u);
    // 65469 rounded up to 4096 would be more than an mbuf holds.
    EXPECT_EQ(fit(65521, false, true, 65536, 4096).fragment_bytes, 32768u);
}

/// What the pools and the engine rely on, for every MTU.
TEST(Fit, HoldsItsInvariants)
{
    for (std::uint32_t page = 4096; page <= 2u << 20; page *= 2) {
        for (std::uint32_t mtu = 576; mtu <= 65535; ++mtu) {
            for (const std::uint32_t alignment : {0u, 64u}) {
                const bool ipv6 = mtu >= 1280 && mtu % 2 != 0;
                const bool timestamps = mtu % 3 != 0;
                struct devmem_fit out {};
                ASSERT_EQ(devmem_fit(static_cast<std::uint16_t>(mtu), ipv6, timestamps, page,
                                     alignment, &out),
                          0);
                ASSERT_TRUE(std::has_single_bit(out.page_bytes));
                ASSERT_LE(out.page_bytes, page);
                ASSERT_GE(out.fragment_bytes, 64u);
                ASSERT_LE(out.fragment_bytes, 65535u);
                ASSERT_EQ(out.fragment_bytes % (alignment ? alignment : 1), 0u);
                ASSERT_GE(out.fragments_per_page, 1u);
                ASSERT_LE(out.fragments_per_page, 64u);
                ASSERT_EQ(out.fragments_per_page, out.page_bytes / out.fragment_bytes);
                ASSERT_TRUE(out.page_bytes == page || 2 * out.page_bytes / out.fragment_bytes > 64);
                // Never more than the path carries, and less only by the parts that do not divide.
                const std::uint32_t largest = mtu - (ipv6 ? 60 : 40);
                ASSERT_LE(out.mss, largest);
                ASSERT_LT(largest - out.mss, 17u);
                const std::uint32_t payload = out.mss - (timestamps ? 12u : 0u);
                if (alignment == 0) {
                    ASSERT_EQ(payload % out.fragment_bytes, 0u) << mtu << ' ' << page;
                }
            }
        }
    }
}

TEST(Fit, RefusesWhatCannotBe)
{
    struct devmem_fit out {};
    EXPECT_EQ(devmem_fit(575, false, true, 65536, 0, &out), -EINVAL);
    EXPECT_EQ(devmem_fit(1279, true, true, 65536, 0, &out), -EINVAL);
    EXPECT_EQ(devmem_fit(1500, false, true, 65535, 0, &out), -EINVAL);
    EXPECT_EQ(devmem_fit(1500, false, true, 0, 0, &out), -EINVAL);
    EXPECT_EQ(devmem_fit(1500, false, true, 65536, 48, &out), -EINVAL);
    EXPECT_EQ(devmem_fit(1500, false, true, 4096, 8192, &out), -EINVAL);
}

} // namespace
