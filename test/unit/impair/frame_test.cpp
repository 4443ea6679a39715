// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/impair/frames.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace wire {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes part(const Frame& frame, std::size_t at, std::size_t len)
{
    const auto begin = frame.begin() + static_cast<std::ptrdiff_t>(at);
    return Bytes(begin, begin + static_cast<std::ptrdiff_t>(len));
}

TEST(WireFrame, FindsTcp)
{
    Frame frame = tcp4(100);
    frame.resize(frame.size() + 6); // padding
    const auto v4 = parse(frame);
    ASSERT_TRUE(v4);
    EXPECT_FALSE(v4->v6);
    EXPECT_EQ(v4->payload, 34u);
    EXPECT_EQ(v4->end, 114u);
    const auto v6 = parse(tcp6(100));
    ASSERT_TRUE(v6);
    EXPECT_TRUE(v6->v6);
    EXPECT_EQ(v6->payload, 54u);
    EXPECT_EQ(v6->end, 114u);
}

TEST(WireFrame, LeavesTheRestAlone)
{
    EXPECT_FALSE(parse({}));
    EXPECT_FALSE(parse(ethernet(0x0806, 46)));
    Frame udp = tcp4(100);
    udp[23] = 17;
    EXPECT_FALSE(parse(udp));
    Frame fragment = tcp4(100);
    fragment[21] = 1;
    EXPECT_FALSE(parse(fragment));
    Frame cut = tcp4(100);
    cut.resize(cut.size() - 1);
    EXPECT_FALSE(parse(cut));
    Frame icmp6 = tcp6(100);
    icmp6[20] = 58;
    EXPECT_FALSE(parse(icmp6));
}

TEST(WireFrame, TooBigOfIpv4)
{
    const Frame frame = tcp4(1500, 7);
    const Frame reply = too_big(frame, *parse(frame), 1400);
    EXPECT_EQ(part(reply, 0, 6), part(frame, 6, 6));
    EXPECT_EQ(part(reply, 6, 6), part(frame, 0, 6));
    EXPECT_EQ(part(reply, 26, 4), part(frame, 30, 4)); // from where it was going
    EXPECT_EQ(part(reply, 30, 4), part(frame, 26, 4));
    EXPECT_EQ(reply[23], 1);
    EXPECT_EQ(reply.size(), 14u + 576u);
    EXPECT_EQ(part(reply, 16, 2), (Bytes{576 >> 8, 576 & 0xff}));
    EXPECT_EQ(ones_complement(&reply[14], 20), 0xffffu);
    EXPECT_EQ(ones_complement(&reply[34], reply.size() - 34), 0xffffu);
    EXPECT_EQ(part(reply, 34, 2), (Bytes{3, 4}));
    EXPECT_EQ(part(reply, 40, 2), (Bytes{1400 >> 8, 1400 & 0xff}));
    EXPECT_EQ(part(reply, 42, reply.size() - 42), part(frame, 14, reply.size() - 42));
}

TEST(WireFrame, TooBigOfIpv6)
{
    const Frame frame = tcp6(1500);
    const Frame reply = too_big(frame, *parse(frame), 1300);
    EXPECT_EQ(part(reply, 22, 16), part(frame, 38, 16));
    EXPECT_EQ(part(reply, 38, 16), part(frame, 22, 16));
    EXPECT_EQ(reply[20], 58);
    EXPECT_EQ(reply.size(), 14u + 1280u);
    EXPECT_EQ(part(reply, 18, 2), (Bytes{1240 >> 8, 1240 & 0xff}));
    EXPECT_EQ(sum6(reply, 58), 0xffffu);
    EXPECT_EQ(part(reply, 54, 2), (Bytes{2, 0}));
    EXPECT_EQ(part(reply, 58, 4), (Bytes{0, 0, 1300 >> 8, 1300 & 0xff}));
    EXPECT_EQ(part(reply, 62, reply.size() - 62), part(frame, 14, reply.size() - 62));
}

} // namespace
} // namespace wire
