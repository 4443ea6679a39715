// SPDX-License-Identifier: BSD-3-Clause
// Frames that end too early, or of which too little is at hand, or whose bytes are anything at all.
// The bytes lie against an unmapped page: to read one too many is a fault.
#include "test/unit/wire/frames.h"
#include "test/unit/wire/guarded.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace devmem::wire {
namespace {

using frames::Bytes;

/// What a caller relies on when parse() says kOk.
void expect_consistent(const Packet& packet, std::size_t at_hand, std::size_t frame_bytes)
{
    ASSERT_LE(packet.l3_offset, packet.l4_offset);
    ASSERT_LE(packet.l4_offset + packet.l4_bytes, frame_bytes);
    if (packet.kind == Kind::kTcp) {
        ASSERT_GE(packet.header_bytes, packet.l4_offset + 20);
        ASSERT_LE(packet.header_bytes, at_hand);
        ASSERT_EQ(packet.header_bytes + packet.payload_bytes, packet.l4_offset + packet.l4_bytes);
        ASSERT_LE(packet.options.sack_count, packet.options.sack.size());
    } else {
        ASSERT_LE(packet.l4_offset + packet.l4_bytes, at_hand);
        ASSERT_EQ(packet.header_bytes, packet.l4_offset);
    }
}

/// Everything that reads a parsed packet.
void read_all(std::span<const std::uint8_t> frame, const Packet& packet)
{
    std::uint8_t out[2048];
    Arp arp;
    Nd nd;
    Unreachable unreachable;
    if (packet.kind == Kind::kTcp)
        return;
    parse_arp(frame, packet, &arp);
    parse_nd(frame, packet, &nd);
    parse_unreachable(frame, packet, &unreachable);
    write_echo_reply(out, frame, packet, frames::kOurMac);
}

TEST(Truncation, EveryShorterFrameIsTruncated)
{
    Guarded guarded(256);
    for (const auto& sample : frames::kSamples) {
        SCOPED_TRACE(sample.name);
        for (std::size_t length = 0; length < sample.bytes.size() - sample.padding; ++length) {
            Packet packet;
            const auto head = guarded.copy(std::span(sample.bytes).first(length));
            EXPECT_EQ(parse(head, static_cast<std::uint32_t>(length), &packet), Verdict::kTruncated)
                << length;
        }
    }
}

TEST(Truncation, EveryShorterHeadAsksForWhatItNeeds)
{
    Guarded guarded(256);
    for (const auto& sample : frames::kSamples) {
        SCOPED_TRACE(sample.name);
        const auto frame_bytes = static_cast<std::uint32_t>(sample.bytes.size());
        for (std::uint32_t length = 0; length < sample.header_bytes; ++length) {
            Packet packet;
            std::uint32_t at_hand = length;
            unsigned rounds = 0;
            while (parse(guarded.copy(std::span(sample.bytes).first(at_hand)), frame_bytes,
                         &packet) == Verdict::kNeedMore) {
                ASSERT_GT(packet.need, at_hand);
                ASSERT_LE(packet.need, sample.header_bytes);
                at_hand = packet.need;
                ++rounds;
            }
            EXPECT_GE(rounds, 1u) << length;
            EXPECT_EQ(at_hand, sample.header_bytes) << length;
            EXPECT_EQ(packet.l4_offset, sample.l4_offset) << length;
            EXPECT_EQ(packet.payload_bytes, sample.payload_bytes) << length;
        }
        for (std::uint32_t length = sample.header_bytes; length <= frame_bytes; ++length) {
            Packet packet;
            EXPECT_EQ(
                parse(guarded.copy(std::span(sample.bytes).first(length)), frame_bytes, &packet),
                Verdict::kOk)
                << length;
        }
    }
}

// More bytes at hand than the frame has: a buffer's tail is not the frame's.
TEST(Truncation, BytesBehindTheFrameDoNotCount)
{
    for (const auto& sample : frames::kSamples) {
        SCOPED_TRACE(sample.name);
        Packet packet;
        const auto real = static_cast<std::uint32_t>(sample.bytes.size() - sample.padding);
        EXPECT_EQ(parse(sample.bytes, real, &packet), Verdict::kOk);
        EXPECT_EQ(parse(sample.bytes, real - 1, &packet), Verdict::kTruncated);
    }
}

TEST(Truncation, EveryValueOfEveryByteIsReadSafely)
{
    Guarded guarded(256);
    unsigned accepted = 0;
    for (const auto& sample : frames::kSamples) {
        const auto frame_bytes = static_cast<std::uint32_t>(sample.bytes.size());
        for (std::size_t at = 12; at < sample.bytes.size(); ++at) {
            const auto frame = guarded.tail(frame_bytes);
            guarded.copy(sample.bytes);
            for (unsigned value = 0; value < 256; ++value) {
                frame[at] = static_cast<std::uint8_t>(value);
                Packet packet;
                if (parse(frame, frame_bytes, &packet) != Verdict::kOk)
                    continue;
                ++accepted;
                ASSERT_NO_FATAL_FAILURE(expect_consistent(packet, frame_bytes, frame_bytes));
                read_all(frame, packet);
            }
        }
    }
    EXPECT_GT(accepted, 10'000u);
}

// The last byte of an extension header is an option type: its length would be the next one.
TEST(Truncation, LoneExtensionOptionTypeAtTheEnd)
{
    Bytes bytes(frames::kExtensions6.begin(), frames::kExtensions6.begin() + 62);
    bytes[19] = 8;
    const std::uint8_t options[] = {1, 3, 0, 0, 0, 1};
    std::copy(std::begin(options), std::end(options), &bytes[56]);
    Guarded guarded(256);
    Packet packet;
    EXPECT_EQ(parse(guarded.copy(bytes), static_cast<std::uint32_t>(bytes.size()), &packet),
              Verdict::kIpHeader);
}

/// Put the IPv4 and ICMP checksums right, so that random bytes get past them.
void forgive(std::span<std::uint8_t> frame)
{
    const auto fix = [&](std::size_t from, std::size_t to, std::size_t at, std::uint32_t sum) {
        if (to > frame.size() || from + 20 > to)
            return;
        frame[at] = frame[at + 1] = 0;
        const std::uint16_t value =
            checksum_fold(checksum_add(sum, frame.subspan(from, to - from)));
        frame[at] = static_cast<std::uint8_t>(value >> 8);
        frame[at + 1] = static_cast<std::uint8_t>(value);
    };
    if (frame.size() >= 34 && frame[12] == 0x08 && frame[13] == 0x00)
        fix(14, 14 + (frame[14] & 0x0f) * 4u, 24, 0);
    Packet packet;
    if (parse(frame, static_cast<std::uint32_t>(frame.size()), &packet) != Verdict::kIcmp ||
        packet.kind == Kind::kArp || packet.l4_bytes < 8)
        return;
    const std::uint32_t pseudo = packet.kind == Kind::kIcmp6
                                     ? checksum_pseudo(packet.src, packet.dst, 58, packet.l4_bytes)
                                     : 0;
    fix(packet.l4_offset, packet.l4_offset + packet.l4_bytes, packet.l4_offset + 2u, pseudo);
}

TEST(Truncation, RandomDamageIsReadSafely)
{
    std::mt19937 random(3);
    Guarded guarded(256);
    unsigned accepted[4] = {};
    for (int round = 0; round < 100'000; ++round) {
        const auto& sample = frames::kSamples[random() % std::size(frames::kSamples)];
        Bytes bytes = sample.bytes;
        for (auto damage = random() % 4; damage != 0; --damage)
            bytes[12 + random() % (bytes.size() - 12)] = static_cast<std::uint8_t>(random());
        if (random() % 4 == 0)
            bytes.resize(random() % (bytes.size() + 1));
        forgive(bytes);
        const std::size_t at_hand =
            random() % 4 == 0 ? random() % (bytes.size() + 1) : bytes.size();
        const auto frame_bytes = static_cast<std::uint32_t>(bytes.size());
        const auto head = guarded.copy(std::span(bytes).first(at_hand));
        Packet packet;
        const Verdict verdict = parse(head, frame_bytes, &packet);
        if (verdict == Verdict::kNeedMore) {
            ASSERT_GT(packet.need, at_hand);
            ASSERT_LE(packet.need, frame_bytes);
        }
        if (verdict != Verdict::kOk)
            continue;
        ++accepted[static_cast<int>(packet.kind)];
        ASSERT_NO_FATAL_FAILURE(expect_consistent(packet, at_hand, frame_bytes));
        if (at_hand == bytes.size())
            read_all(head, packet);
    }
    for (const unsigned kind : accepted)
        EXPECT_GT(kind, 1000u);
}

} // namespace
} // namespace devmem::wire
