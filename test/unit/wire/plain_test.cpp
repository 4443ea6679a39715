// SPDX-License-Identifier: BSD-3-Clause
// The two short cuts, beside the ways that are longer: parse() and write_tcp().
#include "lib/wire/ack_template.h"
#include "lib/wire/frame.h"
#include "lib/wire/plain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <vector>

using namespace devmem::wire;

namespace {

constexpr std::array<std::uint8_t, 2> kFamilies{4, 6};
constexpr std::uint8_t kAck = 0x10, kPshAck = 0x18;

Flow flow_of(std::uint8_t family)
{
    Flow flow{};
    flow.src.family = flow.dst.family = family;
    for (unsigned i = 0; i < (family == 4 ? 4u : 16u); i++) {
        flow.src.bytes[i] = static_cast<std::uint8_t>(0x20 + i);
        flow.dst.bytes[i] = static_cast<std::uint8_t>(0xfd - i);
    }
    flow.src_port = 54321;
    flow.dst_port = 5201;
    flow.src_mac = {2, 1, 2, 3, 4, 5};
    flow.dst_mac = {2, 6, 7, 8, 9, 10};
    return flow;
}

/// A segment's headers as they are written, and how long the whole packet is.
struct Segment {
    std::vector<std::uint8_t> head;
    std::uint32_t frame_bytes;
};

Segment segment_of(std::uint8_t family, bool timestamps, std::uint8_t flags, std::uint32_t text,
                   Ecn ecn = kNotEct)
{
    TcpOptions options;
    options.timestamps = timestamps;
    options.ts_val = 0x01020304;
    options.ts_ecr = 0xfffefdfc;
    const std::vector<std::uint8_t> payload(text);
    std::vector<std::uint8_t> head(kMaxTcpHeader);
    head.resize(write_tcp(head, flow_of(family), {0xdeadbeef, 0x12345678, 0x4321, flags, ecn},
                          options, payload, {}, 77));
    return {head, static_cast<std::uint32_t>(head.size()) + text};
}

/// What both say of a packet, if the short way takes it. @return whether it does
bool agrees(const Segment& segment, bool ip_checked)
{
    PlainSegment plain{};
    if (!parse_plain(segment.head.data(), static_cast<std::uint32_t>(segment.head.size()),
                     segment.frame_bytes, ip_checked, &plain))
        return false;
    Packet packet{};
    EXPECT_EQ(parse(segment.head, segment.frame_bytes, &packet), Verdict::kOk);
    EXPECT_EQ(packet.kind, Kind::kTcp);
    EXPECT_EQ(packet.header_bytes, segment.head.size());
    const std::size_t bytes = packet.src.family == 4 ? 4 : 16;
    EXPECT_EQ(plain.ipv6(), packet.src.family == 6);
    EXPECT_EQ(plain.tcp, segment.head.data() + plain.l4);
    EXPECT_EQ(plain.l4, packet.l4_offset);
    EXPECT_TRUE(std::equal(plain.addresses(), plain.addresses() + bytes, packet.src.bytes.begin()));
    EXPECT_TRUE(std::equal(plain.addresses() + bytes, plain.addresses() + 2 * bytes,
                           packet.dst.bytes.begin()));
    EXPECT_EQ(plain.ports(), std::uint32_t{packet.src_port} << 16 | packet.dst_port);
    EXPECT_EQ(plain.seq(), packet.seq);
    EXPECT_EQ(plain.ack(), packet.ack);
    EXPECT_EQ(plain.window(), packet.window);
    EXPECT_EQ(plain.flags(), packet.flags);
    EXPECT_EQ(plain.text_bytes, packet.payload_bytes);
    EXPECT_EQ(plain.timestamps, packet.options.timestamps);
    EXPECT_EQ(plain.ts_val(), packet.options.ts_val);
    EXPECT_EQ(plain.ts_ecr(), packet.options.ts_ecr);
    EXPECT_EQ(packet.options.sack_count, 0);
    EXPECT_NE(packet.ecn, kCe);
    return true;
}

} // namespace

TEST(PlainSegment, TakesTextOfBothFamiliesWithAndWithoutTimestamps)
{
    for (const std::uint8_t family : kFamilies) {
        for (const bool timestamps : {false, true}) {
            for (const std::uint8_t flags : {kAck, kPshAck})
                EXPECT_TRUE(agrees(segment_of(family, timestamps, flags, 1000), false));
        }
    }
}

TEST(PlainSegment, LeavesAllElseToTheLongWay)
{
    for (unsigned flags = 0; flags < 256; flags++) {
        const bool plain = flags == kAck || flags == kPshAck;
        EXPECT_EQ(agrees(segment_of(4, true, static_cast<std::uint8_t>(flags), 1), true), plain);
    }
    for (const std::uint8_t family : kFamilies) {
        for (const Ecn ecn : {kNotEct, kEct0, kEct1, kCe})
            EXPECT_EQ(agrees(segment_of(family, true, kAck, 1, ecn), true), ecn != kCe);
    }
    EXPECT_FALSE(agrees(segment_of(4, true, kAck, 0), true)) << "no text";
    Segment padded = segment_of(4, true, kAck, 100);
    padded.frame_bytes++;
    EXPECT_FALSE(agrees(padded, true));
    Segment longer = segment_of(4, true, kAck, 100);
    longer.head.push_back(0);
    EXPECT_FALSE(agrees(longer, true)) << "text among the headers";
    Segment wrong = segment_of(4, true, kAck, 100);
    wrong.head[24] ^= 1;
    EXPECT_FALSE(agrees(wrong, false)) << "IPv4 checksum";
}

// Whatever is changed, what it takes means the same to parse().
TEST(PlainSegment, AgreesWithTheLongWayOnDamagedHeaders)
{
    std::mt19937 generator(1);
    const auto random = [&] { return static_cast<std::uint32_t>(generator()); };
    unsigned taken = 0;
    for (unsigned i = 0; i < 400'000; i++) {
        Segment segment = segment_of(i % 2 == 0 ? 4 : 6, i % 3 != 0, kAck, 1 + random() % 2000);
        const unsigned changes = random() % 3;
        for (unsigned c = 0; c < changes; c++)
            segment.head[12 + random() % (segment.head.size() - 12)] ^=
                static_cast<std::uint8_t>(1u << random() % 8);
        if (random() % 8 == 0)
            segment.head.resize(random() % (segment.head.size() + 1));
        taken += agrees(segment, false) ? 1 : 0;
    }
    EXPECT_GT(taken, 100'000u);
}

namespace {

/// An IPv4 header with DF set.
void dont_fragment(std::uint8_t* ip)
{
    ip[6] |= 0x40;
    ip[10] = ip[11] = 0;
    std::uint32_t sum = 0;
    for (unsigned i = 0; i < 20; i += 2)
        sum += static_cast<std::uint32_t>(ip[i] << 8 | ip[i + 1]);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~(sum + (sum >> 16));
    ip[10] = static_cast<std::uint8_t>(sum >> 8);
    ip[11] = static_cast<std::uint8_t>(sum);
}

} // namespace

// But for DF.
TEST(AckTemplate, WritesWhatWriteTcpWrites)
{
    std::mt19937 generator(2);
    const auto random = [&] { return static_cast<std::uint32_t>(generator()); };
    for (const std::uint8_t family : kFamilies) {
        Flow flow = flow_of(family);
        AckTemplate ack(flow);
        for (unsigned i = 0; i < 20'000; i++) {
            if (i % 100 == 0) { // they change in the life of a connection
                flow.dscp = static_cast<std::uint8_t>(random() % 64);
                flow.hop_limit = static_cast<std::uint8_t>(random());
                ack = AckTemplate(flow);
            }
            // Checksums of all ones and all zeros come with the small numbers.
            const unsigned narrow = random() % 33;
            const auto number = [&] {
                return static_cast<std::uint32_t>(std::uint64_t{random()} >> narrow);
            };
            const TcpHeader header{number(), number(), static_cast<std::uint16_t>(number()), kAck};
            TcpOptions options;
            options.timestamps = random() % 2 == 0;
            options.ts_val = options.timestamps ? number() : 0;
            options.ts_ecr = options.timestamps ? number() : 0;
            std::array<std::uint8_t, kMaxTcpHeader> expected{};
            std::array<std::uint8_t, AckTemplate::kRoom> got{};
            const std::size_t bytes = write_tcp(expected, flow, header, options, {}, {}, 0);
            if (family == 4)
                dont_fragment(&expected[14]);
            ASSERT_EQ(ack.write(got.data(), header.seq, header.ack, header.window,
                                options.timestamps, options.ts_val, options.ts_ecr),
                      bytes);
            ASSERT_TRUE(std::equal(expected.begin(),
                                   expected.begin() + static_cast<std::ptrdiff_t>(bytes),
                                   got.begin()))
                << "family " << int{family} << ", number " << i;
        }
    }
}
