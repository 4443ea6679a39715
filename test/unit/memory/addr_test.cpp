// SPDX-License-Identifier: BSD-3-Clause
#include <devmem/devmem.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

namespace {

TEST(Addr, ParsesIpv4WithAndWithoutPrefix)
{
    devmem_addr addr{};
    ASSERT_EQ(devmem_addr_parse("10.1.2.3/24", &addr), 0);
    EXPECT_EQ(addr.family, 4);
    EXPECT_EQ(addr.prefix_len, 24);
    const std::uint8_t bytes[16] = {10, 1, 2, 3};
    EXPECT_EQ(std::memcmp(addr.bytes, bytes, sizeof(bytes)), 0);
    ASSERT_EQ(devmem_addr_parse("10.1.2.3", &addr), 0);
    EXPECT_EQ(addr.prefix_len, 32);
}

TEST(Addr, ParsesIpv6WithAndWithoutPrefix)
{
    devmem_addr addr{};
    ASSERT_EQ(devmem_addr_parse("fd00::1:2/64", &addr), 0);
    EXPECT_EQ(addr.family, 6);
    EXPECT_EQ(addr.prefix_len, 64);
    const std::uint8_t bytes[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2};
    EXPECT_EQ(std::memcmp(addr.bytes, bytes, sizeof(bytes)), 0);
    ASSERT_EQ(devmem_addr_parse("::", &addr), 0);
    EXPECT_EQ(addr.prefix_len, 128);
}

TEST(Addr, RefusesWhatIsNoAddressAndLeavesTheResultAlone)
{
    for (const char* text :
         {"", "/", "10.0.0", "10.0.0.256", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/8x",
          "10.0.0.1/256", "fd00::/129", "fd00:::1", " 10.0.0.1", "host",
          "fd00:fd00:fd00:fd00:fd00:fd00:fd00:fd00:fd00:fd00:fd00"}) {
        devmem_addr addr{};
        addr.family = 9;
        EXPECT_EQ(devmem_addr_parse(text, &addr), -EINVAL) << text;
        EXPECT_EQ(addr.family, 9) << text;
    }
}

TEST(Addr, FormatsAndTruncates)
{
    for (const char* text :
         {"10.1.2.3", "fd00::1", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}) {
        devmem_addr addr{};
        ASSERT_EQ(devmem_addr_parse(text, &addr), 0);
        char out[46];
        devmem_addr_format(&addr, out, sizeof(out));
        EXPECT_STREQ(out, text);
    }
    devmem_addr addr{};
    ASSERT_EQ(devmem_addr_parse("10.1.2.3", &addr), 0);
    char out[5];
    devmem_addr_format(&addr, out, sizeof(out));
    EXPECT_STREQ(out, "10.1");
}

} // namespace
