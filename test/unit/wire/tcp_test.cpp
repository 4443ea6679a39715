// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/tcp_options_codec.h"
#include "test/unit/wire/frames.h"
#include "test/unit/wire/guarded.h"
#include "test/unit/wire/model.h"

#include <gtest/gtest.h>

#include <random>

namespace devmem::wire {
namespace {

using frames::Bytes;

const Flow kFlow4{frames::kPeer4, frames::kOur4, 40000, 5201, frames::kPeerMac, frames::kOurMac};
const Flow kFlow6{frames::kPeer6, frames::kOur6, 40000, 5201, frames::kPeerMac, frames::kOurMac};

TcpOptions timestamps(std::uint32_t val, std::uint32_t ecr)
{
    TcpOptions options;
    options.timestamps = true;
    options.ts_val = val;
    options.ts_ecr = ecr;
    return options;
}

Bytes written(const Flow& flow, const TcpHeader& tcp, const TcpOptions& options,
              std::span<const std::uint8_t> payload0 = {},
              std::span<const std::uint8_t> payload1 = {})
{
    Bytes frame(kMaxTcpHeader);
    frame.resize(write_tcp(frame, flow, tcp, options, payload0, payload1, 0x1234));
    frame.insert(frame.end(), payload0.begin(), payload0.end());
    frame.insert(frame.end(), payload1.begin(), payload1.end());
    return frame;
}

/// Hand-made IPv4 frames carry DF, ours do not.
Bytes without_df(Bytes frame)
{
    frame[20] = 0;
    frame[24] = frame[25] = 0;
    const auto sum =
        static_cast<std::uint16_t>(~model::ones_complement_sum(std::span(frame).subspan(14, 20)));
    frame[24] = static_cast<std::uint8_t>(sum >> 8);
    frame[25] = static_cast<std::uint8_t>(sum);
    return frame;
}

TEST(WriteTcp, WritesTheSampleFrames)
{
    TcpOptions sack = timestamps(0x0a0b0c0e, 0x01020304);
    sack.sack_count = 2;
    sack.sack[0] = {0x55667800, 0x55667900};
    sack.sack[1] = {0x55668000, 0x55668100};
    const Bytes hello{'h', 'e', 'l', 'l', 'o'};
    const TcpHeader data{0x11223345, 0x55667789, 502, 0x18};
    const TcpHeader ack{0x11223345, 0x55667789, 502, 0x10};

    EXPECT_EQ(written(kFlow4, data, timestamps(0x0a0b0c0e, 0x01020304), hello),
              without_df(frames::kData4));
    EXPECT_EQ(written(kFlow6, data, timestamps(0x0a0b0c0e, 0x01020304), hello), frames::kData6);
    EXPECT_EQ(written(kFlow4, ack, sack), without_df(frames::kSack4));
    Bytes padded = frames::kPaddedAck4;
    padded.resize(54);
    EXPECT_EQ(written(kFlow4, ack, TcpOptions{}), without_df(padded));

    TcpOptions syn = timestamps(0x0a0b0c0d, 0);
    syn.mss = 1460;
    syn.sack_permitted = true;
    syn.window_scale = 7;
    EXPECT_EQ(written(kFlow4, {0x11223344, 0, 64240, 0x02}, syn), without_df(frames::kSyn4));
}

// RFC 791 3.1, RFC 8200 3, RFC 2474 3: where they stand, and that nothing else changes.
TEST(WriteTcp, DscpAndHopLimit)
{
    for (Flow flow : {kFlow4, kFlow6}) {
        const Bytes plain = written(flow, {1, 2, 3, 0x10}, {});
        for (unsigned i = 0; i < 256; i++) {
            flow.dscp = static_cast<std::uint8_t>(i % 64);
            flow.hop_limit = static_cast<std::uint8_t>(255 - i);
            Bytes frame = written(flow, {1, 2, 3, 0x10}, {});
            Bytes expected = plain;
            if (flow.src.family == 4) {
                EXPECT_EQ(model::ones_complement_sum(std::span(frame).subspan(14, 20)), 0xffff);
                expected[15] = static_cast<std::uint8_t>(i % 64 * 4);
                expected[22] = static_cast<std::uint8_t>(255 - i);
                std::copy_n(&frame[24], 2, &expected[24]);
            } else {
                expected[14] = static_cast<std::uint8_t>(0x60 + i % 64 / 4);
                expected[15] = static_cast<std::uint8_t>(i % 4 * 0x40);
                expected[21] = static_cast<std::uint8_t>(255 - i);
            }
            EXPECT_EQ(frame, expected) << i;
        }
    }
}

TEST(WriteTcp, ChecksumTakesPayloadInAnyTwoParts)
{
    std::mt19937 random(4);
    for (const Flow& flow : {kFlow4, kFlow6}) {
        for (const std::size_t size : {0u, 1u, 2u, 7u, 64u, 1459u}) {
            Bytes payload(size);
            for (auto& byte : payload)
                byte = static_cast<std::uint8_t>(random());
            for (std::size_t cut = 0; cut <= size; cut += 1 + size / 40) {
                const auto all = std::span<const std::uint8_t>(payload);
                const Bytes frame = written(flow, {1, 2, 3, 0x18}, timestamps(4, 5), all.first(cut),
                                            all.subspan(cut));
                const std::size_t l4 = flow.src.family == 4 ? 34 : 54;
                EXPECT_EQ(model::l4_sum(flow.src, flow.dst, 6, std::span(frame).subspan(l4)),
                          0xffff)
                    << size << ' ' << cut;
            }
        }
    }
}

TEST(WriteTcp, RoundTripOfRandomSegments)
{
    std::mt19937 random(5);
    for (int round = 0; round < 5000; ++round) {
        Flow flow = random() % 2 == 0 ? kFlow4 : kFlow6;
        for (std::size_t i = 0; i < (flow.src.family == 4 ? 4u : 16u); ++i) {
            flow.src.bytes[i] = static_cast<std::uint8_t>(random());
            flow.dst.bytes[i] = static_cast<std::uint8_t>(random());
        }
        flow.src_port = static_cast<std::uint16_t>(random());
        flow.dst_port = static_cast<std::uint16_t>(random());
        for (auto& byte : flow.dst_mac)
            byte = static_cast<std::uint8_t>(random());
        const TcpHeader tcp{static_cast<std::uint32_t>(random()),
                            static_cast<std::uint32_t>(random()),
                            static_cast<std::uint16_t>(random()),
                            static_cast<std::uint8_t>(random()), static_cast<Ecn>(random() % 4)};
        TcpOptions options;
        if (random() % 2 == 0)
            options = timestamps(static_cast<std::uint32_t>(random()),
                                 static_cast<std::uint32_t>(random()));
        if (random() % 2 == 0)
            options.mss = static_cast<std::uint16_t>(1 + random() % 65535);
        if (random() % 2 == 0)
            options.window_scale = static_cast<std::uint8_t>(random() % 15);
        options.sack_permitted = random() % 2 == 0;
        const auto others = tcp_options_bytes(options);
        options.sack_count = static_cast<std::uint8_t>(random() % 5);
        for (std::size_t i = 0; i < options.sack_count; ++i)
            options.sack[i] = {static_cast<std::uint32_t>(random()),
                               static_cast<std::uint32_t>(random())};
        const Bytes payload(random() % 40, 0xa5);

        const Bytes frame = written(flow, tcp, options, payload);
        // What had no room is gone from the end of the SACK blocks, and nothing else.
        TcpOptions kept = options;
        while (kept.sack_count > 0 && others + 4u + 8u * kept.sack_count > 40)
            kept.sack[--kept.sack_count] = {};

        Packet packet;
        ASSERT_EQ(parse(frame, static_cast<std::uint32_t>(frame.size()), &packet), Verdict::kOk);
        EXPECT_EQ(packet.options, kept);
        EXPECT_EQ(packet.header_bytes - packet.l4_offset - 20u, tcp_options_bytes(options));
        EXPECT_EQ(packet.src, flow.src);
        EXPECT_EQ(packet.dst, flow.dst);
        EXPECT_EQ(packet.src_mac, flow.src_mac);
        EXPECT_EQ(packet.dst_mac, flow.dst_mac);
        EXPECT_EQ(packet.src_port, flow.src_port);
        EXPECT_EQ(packet.dst_port, flow.dst_port);
        EXPECT_EQ(packet.seq, tcp.seq);
        EXPECT_EQ(packet.ack, tcp.ack);
        EXPECT_EQ(packet.window, tcp.window);
        EXPECT_EQ(packet.flags, tcp.flags);
        EXPECT_EQ(packet.ecn, tcp.ecn);
        EXPECT_EQ(packet.payload_bytes, payload.size());
    }
}

TEST(WriteTcp, RefusesWhatDoesNotFit)
{
    TcpOptions full = timestamps(1, 2);
    full.sack_count = 4;
    EXPECT_EQ(tcp_options_bytes(full), 40u);
    Guarded guarded(kMaxTcpHeader);
    for (const Flow& flow : {kFlow4, kFlow6}) {
        const std::size_t exact = flow.src.family == 4 ? kMaxTcpHeader - 20 : kMaxTcpHeader;
        for (std::size_t size = 0; size < exact; ++size)
            EXPECT_EQ(write_tcp(guarded.tail(size), flow, {1, 2, 3, 0x10}, full, {}, {}, 0), 0u);
        EXPECT_EQ(write_tcp(guarded.tail(exact), flow, {1, 2, 3, 0x10}, full, {}, {}, 0), exact);
    }
    // IP's length has 16 bits.
    const Bytes payload(65535 - 20 - 20 + 1);
    const auto most = std::span<const std::uint8_t>(payload).first(payload.size() - 1);
    std::uint8_t out[kMaxTcpHeader];
    EXPECT_EQ(write_tcp(out, kFlow4, {1, 2, 3, 0x10}, {}, most, {}, 0), 54u);
    EXPECT_EQ(write_tcp(out, kFlow4, {1, 2, 3, 0x10}, {}, payload, {}, 0), 0u);
    EXPECT_EQ(write_tcp(out, kFlow4, {1, 2, 3, 0x10}, {}, most, std::span(payload).first(1), 0),
              0u);
}

bool accepts(std::initializer_list<std::uint8_t> area, TcpOptions* options)
{
    Guarded guarded(64);
    *options = {};
    return parse_tcp_options(guarded.copy({area.begin(), area.size()}), options);
}

bool accepts(std::initializer_list<std::uint8_t> area)
{
    TcpOptions options;
    return accepts(area, &options);
}

TEST(ParseOptions, LayoutsOtherThanOurs)
{
    TcpOptions options;
    // Timestamps unaligned, as some middleboxes make them.
    ASSERT_TRUE(accepts({8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1}, &options));
    EXPECT_EQ(options, timestamps(1, 2));
    // What stands behind an end-of-list is nothing.
    ASSERT_TRUE(accepts({1, 0, 2, 4, 5, 180, 3, 99}, &options));
    EXPECT_EQ(options, TcpOptions{});
    // Unknown kinds are skipped by length: Fast Open (34) and an experiment (254).
    ASSERT_TRUE(accepts({34, 2, 254, 6, 0xf9, 0x89, 1, 2, 2, 4, 5, 180}, &options));
    EXPECT_EQ(options.mss, 1460);
    // A shift too large is not a missing one (RFC 7323 2.3 makes it 14).
    ASSERT_TRUE(accepts({3, 3, 255, 0}, &options));
    EXPECT_NE(options.window_scale, TcpOptions::kNoScale);
    EXPECT_GT(options.window_scale, 14);
    // Of two SACK options the second counts, whole.
    ASSERT_TRUE(accepts({5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, //
                         5, 10, 0, 0, 0, 5, 0, 0, 0, 6},
                        &options));
    TcpOptions one;
    one.sack_count = 1;
    one.sack[0] = {5, 6};
    EXPECT_EQ(options, one);
}

TEST(ParseOptions, FourSackBlocks)
{
    TcpOptions options;
    ASSERT_TRUE(accepts({1, 1, 5, 34, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0,
                         0, 4, 0, 0,  0, 5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 8},
                        &options));
    ASSERT_EQ(options.sack_count, 4);
    EXPECT_EQ(options.sack[3], (SackBlock{7, 8}));
}

TEST(ParseOptions, IllegalLengths)
{
    EXPECT_TRUE(accepts({}));
    for (const int kind : {2, 3, 4, 5, 8, 34, 254}) {
        const auto k = static_cast<std::uint8_t>(kind);
        EXPECT_FALSE(accepts({1, 1, 1, k})) << kind; // the length byte is behind the header
        EXPECT_FALSE(accepts({k, 0, 0, 0})) << kind;
        EXPECT_FALSE(accepts({k, 1, 0, 0})) << kind;
        EXPECT_FALSE(accepts({k, 5, 0, 0})) << kind;
        EXPECT_FALSE(accepts({k, 255, 0, 0})) << kind;
    }
    EXPECT_FALSE(accepts({2, 3, 5, 1}));
    EXPECT_FALSE(accepts({3, 4, 5, 1}));
    EXPECT_FALSE(accepts({4, 3, 5, 1}));
    EXPECT_FALSE(accepts({5, 2, 1, 1}));                          // no block
    EXPECT_FALSE(accepts({5, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})); // a block and a bit
    EXPECT_FALSE(accepts({8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
    // The canonical lead with a lying length does not pass as the canonical layout.
    EXPECT_FALSE(accepts({1, 1, 8, 11, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(ParseOptions, RandomAreasAreReadSafely)
{
    std::mt19937 random(6);
    Guarded guarded(40);
    unsigned accepted = 0;
    constexpr std::uint8_t kinds[] = {0, 1, 1, 1, 2, 3, 4, 5, 8, 34};
    for (int round = 0; round < 200'000; ++round) {
        const auto area = guarded.tail(random() % 11 * 4);
        for (auto& byte : area)
            byte = random() % 4 == 0 ? static_cast<std::uint8_t>(random())
                                     : kinds[random() % std::size(kinds)];
        TcpOptions options;
        if (!parse_tcp_options(area, &options))
            continue;
        ++accepted;
        ASSERT_LE(options.sack_count, 4);
        // What was understood can be written, within 40 bytes, and is understood the same again.
        Bytes again(tcp_options_bytes(options));
        ASSERT_LE(again.size(), 40u);
        write_tcp_options(again.data(), options);
        TcpOptions back;
        ASSERT_TRUE(parse_tcp_options(again, &back));
        if (again.size() + 8 <= 40 || back.sack_count == options.sack_count) {
            EXPECT_EQ(back, options);
        }
    }
    EXPECT_GT(accepted, 1000u);
}

} // namespace
} // namespace devmem::wire
