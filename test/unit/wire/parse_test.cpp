// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/wire/frames.h"
#include "test/unit/wire/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <set>
#include <string>

namespace devmem::wire {
namespace {

using frames::Bytes;

Verdict parse_all(const Bytes& frame, Packet* packet)
{
    return parse(frame, static_cast<std::uint32_t>(frame.size()), packet);
}

Verdict verdict_of(const Bytes& frame)
{
    Packet packet;
    return parse_all(frame, &packet);
}

/// The frame with `edit` applied and the IPv4 header checksum made good again.
Bytes edited(const Bytes& frame, const std::function<void(Bytes&)>& edit)
{
    Bytes bytes = frame;
    edit(bytes);
    if (bytes[12] == 0x08 && bytes[13] == 0x00) {
        const std::size_t header = std::max((bytes[14] & 0x0f) * 4u, 20u);
        bytes[24] = bytes[25] = 0;
        const auto sum = static_cast<std::uint16_t>(
            ~model::ones_complement_sum(std::span(bytes).subspan(14, header)));
        bytes[24] = static_cast<std::uint8_t>(sum >> 8);
        bytes[25] = static_cast<std::uint8_t>(sum);
    }
    return bytes;
}

Bytes with(const Bytes& frame, std::size_t offset, std::uint8_t value)
{
    return edited(frame, [&](Bytes& bytes) { bytes[offset] = value; });
}

TEST(Parse, OffsetsOfEverySample)
{
    for (const auto& sample : frames::kSamples) {
        SCOPED_TRACE(sample.name);
        Packet packet;
        ASSERT_EQ(parse_all(sample.bytes, &packet), Verdict::kOk);
        EXPECT_EQ(packet.kind, sample.kind);
        EXPECT_EQ(packet.l4_offset, sample.l4_offset);
        EXPECT_EQ(packet.src_mac, frames::kPeerMac);
        EXPECT_EQ(packet.payload_bytes, sample.payload_bytes);
        if (sample.kind == Kind::kTcp) {
            EXPECT_EQ(packet.header_bytes, sample.header_bytes);
        } else {
            EXPECT_EQ(packet.header_bytes, sample.l4_offset);
        }
        EXPECT_EQ(packet.l4_offset + packet.l4_bytes + sample.padding, sample.bytes.size());
    }
}

TEST(Parse, Syn4)
{
    Packet packet;
    ASSERT_EQ(parse_all(frames::kSyn4, &packet), Verdict::kOk);
    EXPECT_EQ(packet.dst_mac, frames::kOurMac);
    EXPECT_EQ(packet.src, frames::kPeer4);
    EXPECT_EQ(packet.dst, frames::kOur4);
    EXPECT_EQ(packet.l3_offset, 14);
    EXPECT_EQ(packet.hop_limit, 64);
    EXPECT_EQ(packet.src_port, 40000);
    EXPECT_EQ(packet.dst_port, 5201);
    EXPECT_EQ(packet.seq, 0x11223344u);
    EXPECT_EQ(packet.ack, 0u);
    EXPECT_EQ(packet.flags, 0x02);
    EXPECT_EQ(packet.window, 64240);
    TcpOptions options;
    options.mss = 1460;
    options.sack_permitted = true;
    options.timestamps = true;
    options.ts_val = 0x0a0b0c0d;
    options.window_scale = 7;
    EXPECT_EQ(packet.options, options);
}

TEST(Parse, DataWithTimestampsIsTheSameOverBothFamilies)
{
    Packet v4;
    Packet v6;
    ASSERT_EQ(parse_all(frames::kData4, &v4), Verdict::kOk);
    ASSERT_EQ(parse_all(frames::kData6, &v6), Verdict::kOk);
    EXPECT_EQ(v6.src, frames::kPeer6);
    EXPECT_EQ(v6.dst, frames::kOur6);
    TcpOptions options;
    options.timestamps = true;
    options.ts_val = 0x0a0b0c0e;
    options.ts_ecr = 0x01020304;
    for (const Packet& packet : {v4, v6}) {
        EXPECT_EQ(packet.seq, 0x11223345u);
        EXPECT_EQ(packet.ack, 0x55667789u);
        EXPECT_EQ(packet.flags, 0x18);
        EXPECT_EQ(packet.window, 502);
        EXPECT_EQ(packet.payload_bytes, 5u);
        EXPECT_EQ(packet.options, options);
    }
}

TEST(Parse, UrgentPointer)
{
    Packet packet;
    ASSERT_EQ(parse_all(frames::kData4, &packet), Verdict::kOk);
    EXPECT_EQ(packet.urgent, 0);
    const std::size_t pointer = packet.l4_offset + 18u; // RFC 9293 3.1
    Bytes frame = frames::kData4;
    frame[pointer] = 0x12;
    frame[pointer + 1] = 0x34;
    ASSERT_EQ(parse_all(frame, &packet), Verdict::kOk);
    EXPECT_EQ(packet.urgent, 0x1234);
}

// A parsed packet carries nothing over from the one that was in its place before.
TEST(Parse, NothingIsLeftOfTheLastPacket)
{
    Packet packet;
    ASSERT_EQ(parse_all(frames::kSack4, &packet), Verdict::kOk);
    ASSERT_EQ(packet.options.sack_count, 2);
    EXPECT_EQ(packet.options.sack[0], (SackBlock{0x55667800, 0x55667900}));
    EXPECT_EQ(packet.options.sack[1], (SackBlock{0x55668000, 0x55668100}));
    ASSERT_EQ(parse_all(frames::kData6, &packet), Verdict::kOk);
    ASSERT_EQ(parse_all(frames::kPaddedAck4, &packet), Verdict::kOk);
    EXPECT_EQ(packet.options, TcpOptions{});
    EXPECT_EQ(packet.src, frames::kPeer4);
    EXPECT_EQ(packet.dst, frames::kOur4);
    EXPECT_EQ(packet.payload_bytes, 0u);
}

TEST(Parse, VlanTags)
{
    Packet packet;
    ASSERT_EQ(parse_all(frames::kQinqSyn6, &packet), Verdict::kOk);
    EXPECT_EQ(packet.l3_offset, 22);
    EXPECT_EQ(packet.options.mss, 1440);
    EXPECT_EQ(packet.options.window_scale, 8);
    EXPECT_TRUE(packet.options.sack_permitted);

    const Bytes tag = {0x81, 0x00, 0x00, 0x05};
    Bytes frame = frames::kData4;
    frame.insert(frame.begin() + 12, tag.begin(), tag.end());
    ASSERT_EQ(parse_all(frame, &packet), Verdict::kOk);
    EXPECT_EQ(packet.header_bytes, 70);
    frame.insert(frame.begin() + 12, tag.begin(), tag.end());
    ASSERT_EQ(parse_all(frame, &packet), Verdict::kOk);
    frame.insert(frame.begin() + 12, tag.begin(), tag.end());
    EXPECT_EQ(parse_all(frame, &packet), Verdict::kEthertype);
}

TEST(Parse, OtherEthertypes)
{
    EXPECT_EQ(verdict_of(with(frames::kData6, 13, 0xde)), Verdict::kEthertype);
    // 802.3 with a length instead of a type.
    EXPECT_EQ(verdict_of(edited(frames::kData6, [](Bytes& b) { b[12] = 0x00, b[13] = 0x45; })),
              Verdict::kEthertype);
}

TEST(Parse, Ipv4HeaderLies)
{
    EXPECT_EQ(verdict_of(with(frames::kData4, 14, 0x65)), Verdict::kIpHeader); // version 6
    EXPECT_EQ(verdict_of(with(frames::kData4, 14, 0x44)), Verdict::kIpHeader); // 4 words
    // 15 words of header, and a total length of 57.
    EXPECT_EQ(verdict_of(edited(frames::kData4,
                                [](Bytes& b) {
                                    b[14] = 0x4f;
                                    b.resize(100);
                                })),
              Verdict::kIpHeader);
    const auto total = [](std::uint16_t value) {
        return edited(frames::kData4, [&](Bytes& b) {
            b[16] = static_cast<std::uint8_t>(value >> 8);
            b[17] = static_cast<std::uint8_t>(value);
        });
    };
    EXPECT_EQ(verdict_of(total(0)), Verdict::kIpHeader);
    EXPECT_EQ(verdict_of(total(19)), Verdict::kIpHeader);
    EXPECT_EQ(verdict_of(total(20)), Verdict::kTcpHeader);
    EXPECT_EQ(verdict_of(total(39)), Verdict::kTcpHeader);
    EXPECT_EQ(verdict_of(total(51)), Verdict::kTcpHeader); // one byte less than the TCP header says
    // Such a segment at the very end of the frame lies about TCP, the frame is whole.
    for (std::uint16_t bytes = 20; bytes < 52; ++bytes) {
        Bytes frame = total(bytes);
        frame.resize(14u + bytes);
        EXPECT_EQ(verdict_of(frame), Verdict::kTcpHeader) << bytes;
    }
    EXPECT_EQ(verdict_of(total(52)), Verdict::kOk);
    EXPECT_EQ(verdict_of(total(57)), Verdict::kOk);
    EXPECT_EQ(verdict_of(total(58)), Verdict::kTruncated);
    EXPECT_EQ(verdict_of(total(65535)), Verdict::kTruncated);
    EXPECT_EQ(verdict_of(with(frames::kData4, 23, 17)), Verdict::kIpProtocol);
    EXPECT_EQ(verdict_of(with(frames::kData4, 23, 58)), Verdict::kIpProtocol);
}

TEST(Parse, EveryBitOfAnIpv4HeaderIsGuardedByItsChecksum)
{
    for (const Bytes* frame : {&frames::kData4, &frames::kIpOptions4}) {
        const std::size_t header = ((*frame)[14] & 0x0f) * 4u;
        for (std::size_t bit = 0; bit < header * 8; ++bit) {
            Bytes bytes = *frame;
            bytes.resize(200); // room for whatever header length comes out
            bytes[14 + bit / 8] ^= static_cast<std::uint8_t>(1u << bit % 8);
            const Verdict verdict = verdict_of(bytes);
            EXPECT_TRUE(verdict == Verdict::kIpChecksum ||
                        (bit < 8 && verdict == Verdict::kIpHeader))
                << bit << ' ' << verdict_name(verdict);
        }
    }
}

// RFC 7126 4.3 and 4.4: LSRR and SSRR are dropped, wherever in the options; others are skipped.
TEST(Parse, SourceRoutesAreRefused)
{
    const auto verdict = [](std::vector<std::uint8_t> options) {
        return verdict_of(edited(frames::kData4, [&](Bytes& bytes) {
            bytes.insert(bytes.begin() + 34, options.begin(), options.end());
            bytes[14] = static_cast<std::uint8_t>(0x45 + options.size() / 4);
            bytes[17] = static_cast<std::uint8_t>(bytes[17] + options.size());
        }));
    };
    constexpr std::uint8_t kEnd = 0, kNop = 1, kRecord = 7, kTimestamp = 68, kLoose = 131,
                           kStrict = 137, kAlert = 148;
    for (const std::uint8_t route : {kLoose, kStrict}) {
        EXPECT_EQ(verdict({route, 7, 4, 192, 0, 2, 9, kEnd}), Verdict::kIpHeader);
        EXPECT_EQ(verdict({route, 3, 4, kEnd}), Verdict::kIpHeader) << "used up";
        EXPECT_EQ(verdict({kNop, route, 7, 8, 192, 0, 2, 9}), Verdict::kIpHeader);
        EXPECT_EQ(verdict({kAlert, 4, 0, 0, kNop, kNop, kNop, route}), Verdict::kIpHeader);
        EXPECT_EQ(verdict({kEnd, route, 3, 4}), Verdict::kOk) << "padding";
        EXPECT_EQ(verdict({kAlert, 4, route, route}), Verdict::kOk) << "a value";
    }
    for (const std::uint8_t illegal : std::to_array<std::uint8_t>({0, 1, 9}))
        EXPECT_EQ(verdict({94, illegal, kNop, kNop, kNop, kNop, kNop, kNop}), Verdict::kOk);
    EXPECT_EQ(verdict({kNop, kNop, kNop, 94}), Verdict::kOk) << "no length at all";
    EXPECT_EQ(verdict({kRecord, 7, 4, 0, 0, 0, 0, kEnd}), Verdict::kOk);
    EXPECT_EQ(verdict({kTimestamp, 8, 5, 0, 0, 0, 0, 0}), Verdict::kOk);
}

TEST(Parse, Ipv4Fragments)
{
    const auto field = [](std::uint8_t high, std::uint8_t low) {
        return edited(frames::kData4, [&](Bytes& b) { b[20] = high, b[21] = low; });
    };
    EXPECT_EQ(verdict_of(field(0x00, 0x00)), Verdict::kOk);
    EXPECT_EQ(verdict_of(field(0x20, 0x00)), Verdict::kIpFragment); // MF
    EXPECT_EQ(verdict_of(field(0x00, 0x01)), Verdict::kIpFragment);
    EXPECT_EQ(verdict_of(field(0x1f, 0xff)), Verdict::kIpFragment);
    EXPECT_EQ(verdict_of(field(0x40, 0x00)), Verdict::kOk); // DF
}

// RFC 3168 5: the last two bits of what was the TOS octet and is IPv6's traffic class.
TEST(Parse, EcnFieldOfBothFamilies)
{
    for (unsigned field = 0; field < 256; field++) {
        Packet packet{};
        const Bytes v4 =
            edited(frames::kData4, [&](Bytes& b) { b[15] = static_cast<std::uint8_t>(field); });
        ASSERT_EQ(parse(v4, static_cast<std::uint32_t>(v4.size()), &packet), Verdict::kOk);
        EXPECT_EQ(packet.ecn, field & 3);
        const Bytes v6 = edited(frames::kData6, [&](Bytes& b) {
            b[14] = static_cast<std::uint8_t>(0x60 | field >> 4);
            b[15] = static_cast<std::uint8_t>(field << 4 | 0xf); // a flow label follows
        });
        ASSERT_EQ(parse(v6, static_cast<std::uint32_t>(v6.size()), &packet), Verdict::kOk);
        EXPECT_EQ(packet.ecn, field & 3);
    }
}

TEST(Parse, Ipv6HeaderLies)
{
    EXPECT_EQ(verdict_of(with(frames::kData6, 14, 0x45)), Verdict::kIpHeader);
    EXPECT_EQ(verdict_of(with(frames::kData6, 19, 0)), Verdict::kTcpHeader);  // a jumbogram's 0
    EXPECT_EQ(verdict_of(with(frames::kData6, 19, 31)), Verdict::kTcpHeader); // header is 32
    EXPECT_EQ(verdict_of(with(frames::kData6, 19, 32)), Verdict::kOk);
    EXPECT_EQ(verdict_of(with(frames::kData6, 19, 38)), Verdict::kTruncated);
    EXPECT_EQ(verdict_of(with(frames::kData6, 18, 0xff)), Verdict::kTruncated);
    for (const int protocol : {1, 17, 50, 51, 59, 135})
        EXPECT_EQ(verdict_of(with(frames::kData6, 20, static_cast<std::uint8_t>(protocol))),
                  Verdict::kIpProtocol)
            << protocol;
}

// Offsets in kExtensions6: hop-by-hop 54, destination 62, routing 78, fragment 86, TCP 94.
TEST(Parse, Ipv6ExtensionHeaders)
{
    const Bytes& frame = frames::kExtensions6;
    // Hop-by-hop only directly after the IPv6 header.
    EXPECT_EQ(verdict_of(with(frame, 62, 0)), Verdict::kIpProtocol);
    // An unknown option that says: discard.
    for (const int type : {0x45, 0x85, 0xc2})
        EXPECT_EQ(verdict_of(with(frame, 56, static_cast<std::uint8_t>(type))), Verdict::kIpHeader);
    // An option beyond its header; a lone type in its last byte.
    EXPECT_EQ(verdict_of(with(frame, 57, 5)), Verdict::kIpHeader);
    EXPECT_EQ(verdict_of(edited(frame, [](Bytes& b) { b[57] = 3, b[61] = 1; })),
              Verdict::kIpHeader);
    // A header that ends after the packet.
    EXPECT_EQ(verdict_of(with(frame, 63, 30)), Verdict::kIpHeader);
    // Segments left.
    EXPECT_EQ(verdict_of(with(frame, 81, 1)), Verdict::kIpHeader);
    // Fragments: an offset, more to come. The reserved bits between them are ignored.
    EXPECT_EQ(verdict_of(with(frame, 88, 0x01)), Verdict::kIpFragment);
    EXPECT_EQ(verdict_of(with(frame, 89, 0x08)), Verdict::kIpFragment);
    EXPECT_EQ(verdict_of(with(frame, 89, 0x01)), Verdict::kIpFragment);
    EXPECT_EQ(verdict_of(with(frame, 89, 0x06)), Verdict::kOk);
    // The packet ends within the chain, or with it.
    for (std::uint8_t bytes = 0; bytes <= 40; ++bytes) {
        const Bytes packet = edited(frame, [&](Bytes& b) {
            b[19] = bytes;
            b.resize(54u + bytes);
        });
        EXPECT_EQ(verdict_of(packet), bytes < 40 ? Verdict::kIpHeader : Verdict::kTcpHeader)
            << int{bytes};
    }
}

/// IPv6 with `count` destination options headers of 8 bytes before TCP.
Bytes chain(unsigned count)
{
    Bytes frame = frames::kData6;
    Bytes headers;
    for (unsigned i = 0; i < count; ++i)
        headers.insert(headers.end(),
                       {static_cast<std::uint8_t>(i + 1 < count ? 60 : 6), 0, 1, 4, 0, 0, 0, 0});
    frame[20] = 60;
    frame[18] = static_cast<std::uint8_t>((37 + headers.size()) >> 8);
    frame[19] = static_cast<std::uint8_t>(37 + headers.size());
    frame.insert(frame.begin() + 54, headers.begin(), headers.end());
    return frame;
}

TEST(Parse, Ipv6ExtensionChainsAreBounded)
{
    Packet packet;
    ASSERT_EQ(parse_all(chain(32), &packet), Verdict::kOk);
    EXPECT_EQ(packet.l4_offset, 54 + 32 * 8);
    EXPECT_EQ(packet.payload_bytes, 5u);
    EXPECT_EQ(verdict_of(chain(33)), Verdict::kIpHeader);
    EXPECT_EQ(verdict_of(chain(8000)), Verdict::kIpHeader);
    // Nor can a chain ask for more header bytes than the bound.
    const Bytes frame = chain(8000);
    std::uint32_t head = 54;
    while (parse(std::span(frame).first(head), static_cast<std::uint32_t>(frame.size()), &packet) ==
           Verdict::kNeedMore)
        head = packet.need;
    EXPECT_LE(head, 54u + 256 + 8);
}

TEST(Parse, TcpHeaderLies)
{
    for (const unsigned words : {0u, 1u, 4u})
        EXPECT_EQ(verdict_of(with(frames::kData4, 46, static_cast<std::uint8_t>(words << 4))),
                  Verdict::kTcpHeader);
    // The data offset may not reach over the end of the segment: 37 bytes are 9 words and a byte.
    EXPECT_EQ(verdict_of(with(frames::kData4, 46, 10 << 4)), Verdict::kTcpHeader);
    EXPECT_EQ(verdict_of(with(frames::kData4, 46, 15 << 4)), Verdict::kTcpHeader);
    // Nor into Ethernet's padding.
    EXPECT_EQ(verdict_of(with(frames::kPaddedAck4, 46, 6 << 4)), Verdict::kTcpHeader);
    Packet packet;
    ASSERT_EQ(parse_all(with(frames::kData4, 46, 5 << 4), &packet), Verdict::kOk);
    EXPECT_EQ(packet.payload_bytes, 17u);
    EXPECT_EQ(packet.options, TcpOptions{});
}

// A TSO super-frame: 65,535 bytes of IP packet, of which only the headers are at hand.
TEST(Parse, SuperFrame)
{
    Bytes frame = edited(frames::kData4, [](Bytes& b) { b[16] = b[17] = 0xff; });
    frame.resize(66);
    Packet packet;
    ASSERT_EQ(parse(frame, 14 + 65535, &packet), Verdict::kOk);
    EXPECT_EQ(packet.payload_bytes, 65535u - 52);
    EXPECT_EQ(parse(frame, 14 + 65534, &packet), Verdict::kTruncated);
}

TEST(Parse, IcmpChecksums)
{
    for (const Bytes* frame : {&frames::kEcho4, &frames::kEcho6, &frames::kSolicitation}) {
        const std::size_t l4 = frame == &frames::kEcho4 ? 34 : 54;
        for (std::size_t i = l4; i < frame->size(); ++i)
            EXPECT_EQ(verdict_of(with(*frame, i, (*frame)[i] ^ 0x10)), Verdict::kIcmp) << i;
    }
    // ICMPv6's covers the addresses.
    EXPECT_EQ(verdict_of(with(frames::kEcho6, 30, 0x21)), Verdict::kIcmp);
    // 7 bytes are no message, with however good a checksum.
    EXPECT_EQ(verdict_of(edited(frames::kEcho4,
                                [](Bytes& b) {
                                    b[17] = 27;
                                    b.resize(14 + 27);
                                    const std::uint8_t message[] = {8, 0, 0xf7, 0xff, 0, 0, 0};
                                    std::copy(std::begin(message), std::end(message), &b[34]);
                                })),
              Verdict::kIcmp);
}

TEST(Parse, ArpOfOtherNetworks)
{
    for (const std::size_t offset : {15u, 16u, 18u, 19u})
        EXPECT_EQ(verdict_of(with(frames::kArpRequest, offset, 0x09)), Verdict::kIcmp) << offset;
}

TEST(Parse, VerdictsHaveNames)
{
    std::set<std::string> names;
    for (int i = 0; i <= static_cast<int>(Verdict::kIcmp); ++i)
        names.insert(verdict_name(static_cast<Verdict>(i)));
    EXPECT_EQ(names.size(), static_cast<std::size_t>(Verdict::kIcmp) + 1);
    EXPECT_EQ(names.count("unknown"), 0u);
}

} // namespace
} // namespace devmem::wire
