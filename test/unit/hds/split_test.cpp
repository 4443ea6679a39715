// SPDX-License-Identifier: BSD-3-Clause
// Where headers end. The frames know it from how they were made.
#include "drivers/net/hds/split.h"
#include "test/unit/hds/frames.h"

#include <gtest/gtest.h>
#include <memory>
#include <random>
#include <rte_mbuf_ptype.h>

using devmem::hds::Headers;
using devmem::hds::parse_headers;
using devmem::hds::Split;
using devmem::hds::split_after;
using devmem::hds::splits;
using hds_test::Made;
using hds_test::make_frame;
using hds_test::put16;
using hds_test::Shape;

namespace {

/// Parse from a copy with nothing behind it, so that a sanitizer sees any overrun.
bool parse(std::span<const std::uint8_t> head, std::size_t frame_bytes, Headers* h)
{
    const auto exact = std::make_unique<std::uint8_t[]>(head.size());
    std::copy(head.begin(), head.end(), exact.get());
    return parse_headers({exact.get(), head.size()}, static_cast<std::uint32_t>(frame_bytes), h);
}

Headers whole(const hds_test::Frame& frame)
{
    Headers h;
    EXPECT_TRUE(parse(frame, frame.size(), &h));
    return h;
}

std::vector<Shape> shapes()
{
    return {
        {.payload = 100},
        {.tcp_options = 12, .payload = 1448},
        {.tcp_options = 40, .payload = 1},
        {.ip_options = 40, .payload = 9},
        {.vlans = 1, .payload = 30},
        {.vlans = 2, .tcp_options = 12, .payload = 30},
        {.ipv6 = true, .payload = 100},
        {.ipv6 = true, .tcp_options = 12, .payload = 1428},
        {.vlans = 1, .ipv6 = true, .extensions = {0, 60, 43}, .payload = 5},
    };
}

TEST(Split, FindsTheFirstPayloadByte)
{
    for (const Shape& shape : shapes()) {
        const Made made = make_frame(shape);
        const Headers h = whole(made.bytes);
        EXPECT_EQ(h.header_bytes(), made.header);
        EXPECT_EQ(h.payload_bytes, shape.payload);
        EXPECT_EQ(h.l2_len, made.l3);
        EXPECT_EQ(h.l3_len, made.l4 - made.l3);
        EXPECT_TRUE(splits(Split::kAnyTcp, h));
        EXPECT_EQ(splits(Split::kIpv4Tcp, h), !shape.ipv6);
        EXPECT_EQ(splits(Split::kIpv6Tcp, h), shape.ipv6);
        EXPECT_FALSE(splits(Split::kLength, h));
    }
}

TEST(Split, NamesPacketTypes)
{
    const auto type = [](const Shape& shape) { return whole(make_frame(shape).bytes).packet_type; };
    EXPECT_EQ(type({}), RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4 | RTE_PTYPE_L4_TCP);
    EXPECT_EQ(type({.ip_options = 4}),
              RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4_EXT | RTE_PTYPE_L4_TCP);
    EXPECT_EQ(type({.vlans = 1, .protocol = 17}),
              RTE_PTYPE_L2_ETHER_VLAN | RTE_PTYPE_L3_IPV4 | RTE_PTYPE_L4_UDP);
    EXPECT_EQ(type({.vlans = 2, .ipv6 = true, .extensions = {0}}),
              RTE_PTYPE_L2_ETHER_QINQ | RTE_PTYPE_L3_IPV6_EXT | RTE_PTYPE_L4_TCP);
    EXPECT_EQ(type({.payload = 64, .fragment = 0x2000}),
              RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4 | RTE_PTYPE_L4_FRAG);
    EXPECT_EQ(type({.ipv6 = true, .extensions = {44}, .payload = 64}),
              RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV6_EXT | RTE_PTYPE_L4_FRAG);
}

TEST(Split, HeaderOnlyPacketsDoNotSplit)
{
    EXPECT_FALSE(splits(Split::kAnyTcp, whole(make_frame({.payload = 0}).bytes)));
    // Ethernet padding is no payload.
    hds_test::Frame padded = make_frame({.payload = 0}).bytes;
    padded.resize(60);
    EXPECT_FALSE(splits(Split::kAnyTcp, whole(padded)));
    EXPECT_FALSE(splits(Split::kAnyTcp, whole(make_frame({.protocol = 17, .payload = 9}).bytes)));
    EXPECT_FALSE(
        splits(Split::kAnyTcp, whole(make_frame({.payload = 64, .fragment = 0x2000}).bytes)));
    EXPECT_FALSE(splits(Split::kAnyTcp, whole(make_frame({.payload = 64, .fragment = 8}).bytes)));
}

/// With the first n bytes at hand the answer is either "more" or what the whole frame gives.
TEST(Split, AsksForMoreOrAnswersAsTheWhole)
{
    for (const Shape& shape : shapes()) {
        const Made made = make_frame(shape);
        const Headers all = whole(made.bytes);
        for (std::size_t n = 0; n <= made.bytes.size(); ++n) {
            Headers h;
            if (!parse(std::span(made.bytes).first(n), made.bytes.size(), &h)) {
                EXPECT_LT(n, made.header);
                continue;
            }
            EXPECT_EQ(h.packet_type, all.packet_type);
            EXPECT_EQ(h.header_bytes(), all.header_bytes());
            EXPECT_EQ(h.payload_bytes, all.payload_bytes);
        }
    }
}

/// A frame cut short says nothing false: what is cut off is never counted as payload.
TEST(Split, TruncatedFramesDoNotSplit)
{
    for (const Shape& shape : shapes()) {
        const Made made = make_frame(shape);
        for (std::size_t n = 0; n < made.bytes.size(); ++n) {
            Headers h;
            EXPECT_TRUE(parse(std::span(made.bytes).first(n), n, &h));
            EXPECT_FALSE(splits(Split::kAnyTcp, h)) << n;
        }
    }
}

TEST(Split, LyingLengthsDoNotSplit)
{
    const auto lie = [](const Shape& shape, auto edit) {
        Made made = make_frame(shape);
        edit(made);
        EXPECT_FALSE(splits(Split::kAnyTcp, whole(made.bytes)));
    };
    const Shape v4{.payload = 50};
    const Shape v6{.ipv6 = true, .extensions = {0}, .payload = 50};
    lie(v4, [](Made& m) { m.bytes[m.l3] = 0x44; });                  // IHL 16 bytes
    lie(v4, [](Made& m) { m.bytes[m.l3] = 0x65; });                  // version 6
    lie(v4, [](Made& m) { put16(m.bytes, m.l3 + 2, 19); });          // total length < header
    lie(v4, [](Made& m) { put16(m.bytes, m.l3 + 2, 91); });          // one more than there is
    lie(v4, [](Made& m) { m.bytes[m.l4 + 12] = 0x40; });             // data offset 16 bytes
    lie({.payload = 3}, [](Made& m) { m.bytes[m.l4 + 12] = 0x60; }); // data offset beyond the end
    lie(v6, [](Made& m) { put16(m.bytes, m.l3 + 4, 79); });
    lie(v6, [](Made& m) { put16(m.bytes, m.l3 + 4, 0); }); // jumbogram
    lie(v6, [](Made& m) { m.bytes[m.l3 + 41] = 255; });    // extension of 2048 bytes
    lie({.ipv6 = true, .extensions = std::vector<std::uint8_t>(9, 60), .payload = 50},
        [](Made&) {}); // too many extension headers
}

TEST(Split, AnyBytesAreRead)
{
    std::mt19937 random(1);
    for (int round = 0; round < 50000; ++round) {
        Made made = make_frame(shapes()[random() % shapes().size()]);
        for (unsigned flips = 1 + random() % 4; flips != 0; --flips)
            made.bytes[random() % std::min<std::size_t>(made.bytes.size(), 120)] =
                static_cast<std::uint8_t>(random());
        const std::size_t n = random() % (made.bytes.size() + 1);
        Headers h;
        if (!parse(std::span(made.bytes).first(n), made.bytes.size(), &h)) {
            ASSERT_LT(n, made.bytes.size());
        }
        ASSERT_LE(h.header_bytes() + h.payload_bytes, made.bytes.size());
    }
}

TEST(Split, OffersWhatTestpmdAsks)
{
    EXPECT_EQ(split_after(0x191), Split::kIpv4Tcp);
    EXPECT_EQ(split_after(0x1e1), Split::kIpv6Tcp);
    EXPECT_EQ(split_after(0x101), Split::kAnyTcp);
    EXPECT_EQ(split_after(0x291), Split::kNone);
}

} // namespace
