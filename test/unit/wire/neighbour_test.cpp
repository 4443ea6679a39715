// SPDX-License-Identifier: BSD-3-Clause
// ARP, Neighbor Discovery, echo and unreachable messages.
#include "test/unit/wire/frames.h"
#include "test/unit/wire/guarded.h"
#include "test/unit/wire/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace devmem::wire {
namespace {

using frames::Bytes;

Packet parsed(const Bytes& frame)
{
    Packet packet{};
    EXPECT_EQ(parse(frame, static_cast<std::uint32_t>(frame.size()), &packet), Verdict::kOk);
    return packet;
}

/// The ICMP frame with `edit` applied and its checksum made good again.
Bytes edited(const Bytes& frame, const std::function<void(Bytes&)>& edit)
{
    Bytes bytes = frame;
    edit(bytes);
    const bool v4 = bytes[12] == 0x08;
    const std::size_t l4 = v4 ? 34 : 54;
    bytes[l4 + 2] = bytes[l4 + 3] = 0;
    const auto message = std::span<const std::uint8_t>(bytes).subspan(l4);
    std::uint16_t sum;
    if (v4) {
        sum = model::ones_complement_sum(message);
    } else {
        Ip src{6, {}};
        Ip dst{6, {}};
        std::copy_n(&bytes[22], 16, src.bytes.data());
        std::copy_n(&bytes[38], 16, dst.bytes.data());
        sum = model::l4_sum(src, dst, 58, message);
    }
    sum = static_cast<std::uint16_t>(~sum);
    bytes[l4 + 2] = static_cast<std::uint8_t>(sum >> 8);
    bytes[l4 + 3] = static_cast<std::uint8_t>(sum);
    return bytes;
}

Bytes with(const Bytes& frame, std::size_t offset, std::uint8_t value)
{
    return edited(frame, [&](Bytes& bytes) { bytes[offset] = value; });
}

/// `bytes` appended to an ICMPv6 frame, lengths adapted.
Bytes with_more(const Bytes& frame, const Bytes& more)
{
    return edited(frame, [&](Bytes& bytes) {
        bytes.insert(bytes.end(), more.begin(), more.end());
        bytes[19] = static_cast<std::uint8_t>(bytes[19] + more.size());
    });
}

/// The first `size` bytes of an ICMP frame, as a packet of its own.
Bytes cut(const Bytes& frame, std::size_t size)
{
    return edited(frame, [&](Bytes& bytes) {
        bytes.resize(size);
        if (bytes[12] != 0x08) {
            bytes[19] = static_cast<std::uint8_t>(size - 54);
            return;
        }
        bytes[17] = static_cast<std::uint8_t>(size - 14);
        bytes[24] = bytes[25] = 0;
        const auto sum = static_cast<std::uint16_t>(
            ~model::ones_complement_sum(std::span(bytes).subspan(14, 20)));
        bytes[24] = static_cast<std::uint8_t>(sum >> 8);
        bytes[25] = static_cast<std::uint8_t>(sum);
    });
}

template <typename Write>
Bytes written(std::size_t size, Write write)
{
    Guarded guarded(256);
    for (std::size_t less = 0; less < size; ++less)
        EXPECT_EQ(write(guarded.tail(less)), 0u) << less;
    const auto out = guarded.tail(size);
    EXPECT_EQ(write(out), size);
    return {out.begin(), out.end()};
}

TEST(Arp, ReadsARequest)
{
    Arp arp;
    ASSERT_TRUE(parse_arp(frames::kArpRequest, parsed(frames::kArpRequest), &arp));
    EXPECT_EQ(arp.operation, 1);
    EXPECT_EQ(arp.sender_mac, frames::kPeerMac);
    EXPECT_EQ(arp.sender, frames::kPeer4);
    EXPECT_EQ(arp.target, frames::kOur4);
}

TEST(Arp, RefusesOtherOperationsAndGroupSenders)
{
    Arp arp;
    Bytes frame = frames::kArpRequest;
    frame[21] = 3; // RARP
    EXPECT_FALSE(parse_arp(frame, parsed(frame), &arp));
    frame = frames::kArpRequest;
    frame[22] = 0x03;
    EXPECT_FALSE(parse_arp(frame, parsed(frame), &arp));
    EXPECT_FALSE(parse_arp(frames::kEcho4, parsed(frames::kEcho4), &arp));
}

TEST(Arp, WritesRequestAndReply)
{
    EXPECT_EQ(written(42,
                      [](auto out) {
                          return write_arp(out, 1, frames::kPeerMac, frames::kPeer4, kBroadcast,
                                           frames::kOur4);
                      }),
              frames::kArpRequest);
    const Bytes reply = written(42, [](auto out) {
        return write_arp(out, 2, frames::kOurMac, frames::kOur4, frames::kPeerMac, frames::kPeer4);
    });
    Arp arp;
    ASSERT_TRUE(parse_arp(reply, parsed(reply), &arp));
    EXPECT_EQ(arp.operation, 2);
    EXPECT_EQ(arp.sender_mac, frames::kOurMac);
    EXPECT_EQ(arp.sender, frames::kOur4);
    EXPECT_EQ(arp.target, frames::kPeer4);
    EXPECT_EQ(Bytes(reply.begin(), reply.begin() + 6),
              Bytes(frames::kPeerMac.begin(), frames::kPeerMac.end()));
    EXPECT_EQ(Bytes(reply.begin() + 32, reply.begin() + 38),
              Bytes(frames::kPeerMac.begin(), frames::kPeerMac.end()));
}

TEST(Nd, Addresses)
{
    // The example of RFC 4291 2.7.1.
    const Ip target{6, {0x40, 0x37, 0, 0, 0, 0, 0, 0, 0, 1, 0x08, 0x00, 0x20, 0x0e, 0x8c, 0x6c}};
    const Ip group{6, {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x0e, 0x8c, 0x6c}};
    EXPECT_EQ(solicited_node(target), group);
    EXPECT_EQ(multicast_mac(group), (Mac{0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c}));
}

TEST(Nd, ReadsSolicitationAndAdvertisement)
{
    Nd nd;
    ASSERT_TRUE(parse_nd(frames::kSolicitation, parsed(frames::kSolicitation), &nd));
    EXPECT_TRUE(nd.solicitation);
    EXPECT_EQ(nd.target, frames::kOur6);
    EXPECT_TRUE(nd.has_mac);
    EXPECT_EQ(nd.mac, frames::kPeerMac);
    ASSERT_TRUE(parse_nd(frames::kAdvertisement, parsed(frames::kAdvertisement), &nd));
    EXPECT_FALSE(nd.solicitation);
    EXPECT_EQ(nd.target, frames::kPeer6);
    EXPECT_TRUE(nd.has_mac);
    EXPECT_EQ(nd.mac, frames::kPeerMac);
}

// RFC 4861 7.1.1 and 7.1.2, one by one.
TEST(Nd, RefusesWhatRfc4861Says)
{
    const auto valid = [](const Bytes& frame) {
        Guarded guarded(256);
        Nd nd;
        return parse_nd(guarded.copy(frame), parsed(frame), &nd);
    };
    for (const Bytes* frame : {&frames::kSolicitation, &frames::kAdvertisement}) {
        EXPECT_FALSE(valid(with(*frame, 21, 254)));  // passed a router
        EXPECT_FALSE(valid(with(*frame, 55, 1)));    // code
        EXPECT_FALSE(valid(with(*frame, 62, 0xff))); // multicast target
        EXPECT_FALSE(valid(with(*frame, 79, 0)));    // option of length 0
        EXPECT_FALSE(valid(with(*frame, 79, 2)));    // option longer than the message
        EXPECT_FALSE(valid(with(*frame, 80, 0x03))); // group MAC
        EXPECT_FALSE(valid(with_more(*frame, {14})));
        EXPECT_FALSE(valid(with_more(*frame, {14, 1, 0, 0})));
        EXPECT_TRUE(valid(with_more(*frame, {14, 1, 0, 0, 0, 0, 0, 0}))); // a nonce
        for (std::size_t bytes = 8; bytes < 24; ++bytes)
            EXPECT_FALSE(valid(cut(*frame, 54 + bytes))) << bytes;
        EXPECT_TRUE(valid(cut(*frame, 54 + 24)));
        EXPECT_FALSE(valid(with(*frame, 54, 133))); // router solicitation
    }
    EXPECT_FALSE(valid(frames::kEcho6));
    EXPECT_FALSE(valid(frames::kEcho4));

    // A link-layer option of a length that is not Ethernet's is no MAC.
    Nd nd;
    Bytes frame = with_more(with(frames::kSolicitation, 79, 2), {0, 0, 0, 0, 0, 0, 0, 0});
    ASSERT_TRUE(parse_nd(frame, parsed(frame), &nd));
    EXPECT_FALSE(nd.has_mac);
    // The other kind's option is not taken for its own.
    frame = with(frames::kAdvertisement, 78, 1);
    ASSERT_TRUE(parse_nd(frame, parsed(frame), &nd));
    EXPECT_FALSE(nd.has_mac);

    // An advertisement to a group may not be solicited.
    const auto to_group = [](Bytes& b) { std::copy_n(&frames::kSolicitation[38], 16, &b[38]); };
    EXPECT_FALSE(valid(edited(frames::kAdvertisement, to_group)));
    EXPECT_TRUE(valid(edited(frames::kAdvertisement, [&](Bytes& b) {
        to_group(b);
        b[58] = 0x20;
    })));

    // Duplicate address detection: from nobody, to the solicited-node group, without a MAC.
    const auto probe = [](Bytes& b) {
        std::fill_n(&b[22], 16, std::uint8_t{0});
        b.resize(78);
        b[19] = 24;
    };
    EXPECT_TRUE(valid(edited(frames::kSolicitation, probe)));
    EXPECT_FALSE(valid(
        edited(frames::kSolicitation, [](Bytes& b) { std::fill_n(&b[22], 16, std::uint8_t{0}); })));
    EXPECT_FALSE(valid(edited(frames::kSolicitation, [&](Bytes& b) {
        probe(b);
        b[53] = 2;
    })));
}

TEST(Nd, WritesSolicitationAndAdvertisement)
{
    EXPECT_EQ(written(86,
                      [](auto out) {
                          return write_nd_solicitation(out, frames::kPeerMac, frames::kPeer6,
                                                       frames::kOur6);
                      }),
              frames::kSolicitation);
    EXPECT_EQ(written(86,
                      [](auto out) {
                          return write_nd_advertisement(out, frames::kPeerMac, frames::kPeer6,
                                                        frames::kOur6, frames::kOurMac);
                      }),
              frames::kAdvertisement);
}

TEST(Nd, AnswersAProbeToAllNodes)
{
    const Bytes frame = written(86, [](auto out) {
        return write_nd_advertisement(out, frames::kOurMac, frames::kOur6, Ip{6, {}},
                                      frames::kPeerMac);
    });
    const Packet packet = parsed(frame);
    EXPECT_EQ(packet.dst, (Ip{6, {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}));
    EXPECT_EQ(packet.dst_mac, (Mac{0x33, 0x33, 0, 0, 0, 1}));
    Nd nd;
    EXPECT_TRUE(parse_nd(frame, packet, &nd)); // which it is not with S set
    EXPECT_EQ(nd.mac, frames::kOurMac);
}

TEST(Nd, ProbesWithoutAnAddressCarryNoMac)
{
    const Bytes frame = written(78, [](auto out) {
        return write_nd_solicitation(out, frames::kOurMac, Ip{6, {}}, frames::kOur6);
    });
    Nd nd;
    ASSERT_TRUE(parse_nd(frame, parsed(frame), &nd));
    EXPECT_FALSE(nd.has_mac);
}

TEST(Echo, Reply4)
{
    const Packet request = parsed(frames::kEcho4);
    const Bytes reply = written(frames::kEcho4.size(), [&](auto out) {
        return write_echo_reply(out, frames::kEcho4, request, frames::kOurMac);
    });
    const Packet packet = parsed(reply);
    EXPECT_EQ(packet.kind, Kind::kIcmp4);
    EXPECT_EQ(packet.src, frames::kOur4);
    EXPECT_EQ(packet.dst, frames::kPeer4);
    EXPECT_EQ(packet.src_mac, frames::kOurMac);
    EXPECT_EQ(packet.dst_mac, frames::kPeerMac);
    EXPECT_EQ(packet.hop_limit, 64);
    EXPECT_EQ(reply[34], 0);
    EXPECT_EQ(reply[35], 0);
    EXPECT_EQ(model::ones_complement_sum(std::span(reply).subspan(34)), 0xffff);
    EXPECT_EQ(Bytes(reply.begin() + 38, reply.end()),
              Bytes(frames::kEcho4.begin() + 38, frames::kEcho4.end()));
}

TEST(Echo, Reply6)
{
    const Packet request = parsed(frames::kEcho6);
    const Bytes reply = written(frames::kEcho6.size(), [&](auto out) {
        return write_echo_reply(out, frames::kEcho6, request, frames::kOurMac);
    });
    const Packet packet = parsed(reply);
    EXPECT_EQ(packet.src, frames::kOur6);
    EXPECT_EQ(packet.dst, frames::kPeer6);
    EXPECT_EQ(reply[54], 129);
    EXPECT_EQ(model::l4_sum(packet.src, packet.dst, 58, std::span(reply).subspan(54)), 0xffff);
    EXPECT_EQ(Bytes(reply.begin() + 58, reply.end()),
              Bytes(frames::kEcho6.begin() + 58, frames::kEcho6.end()));
}

TEST(Echo, SaysNothingToOthers)
{
    std::uint8_t out[256];
    const auto answered = [&](const Bytes& frame) {
        return write_echo_reply(out, frame, parsed(frame), frames::kOurMac) != 0;
    };
    EXPECT_FALSE(answered(with(frames::kEcho4, 34, 0)));    // a reply
    EXPECT_FALSE(answered(with(frames::kEcho4, 35, 1)));    // code
    EXPECT_FALSE(answered(with(frames::kEcho6, 54, 129)));  // a reply
    EXPECT_FALSE(answered(with(frames::kEcho6, 54, 8)));    // IPv4's type
    EXPECT_FALSE(answered(with(frames::kEcho6, 38, 0xff))); // to a group
    EXPECT_FALSE(answered(with(frames::kEcho6, 22, 0xff))); // from a group
    EXPECT_FALSE(answered(edited(frames::kEcho6, [](Bytes& b) {
        std::fill_n(&b[22], 16, std::uint8_t{0}); // from nobody
    })));
    EXPECT_FALSE(answered(frames::kData4));
    EXPECT_FALSE(answered(frames::kArpRequest));
}

TEST(Unreachable, NamesOurSegment)
{
    Unreachable unreachable{};
    ASSERT_TRUE(
        parse_unreachable(frames::kUnreachable4, parsed(frames::kUnreachable4), &unreachable));
    EXPECT_EQ(unreachable.code, 1);
    EXPECT_EQ(unreachable.src, frames::kOur4);
    EXPECT_EQ(unreachable.dst, frames::kPeer4);
    EXPECT_EQ(unreachable.src_port, 5201);
    EXPECT_EQ(unreachable.dst_port, 40000);
    EXPECT_EQ(unreachable.seq, 0x55667789u);

    ASSERT_TRUE(
        parse_unreachable(frames::kUnreachable6, parsed(frames::kUnreachable6), &unreachable));
    EXPECT_EQ(unreachable.code, 4);
    EXPECT_EQ(unreachable.src, frames::kOur6);
    EXPECT_EQ(unreachable.dst, frames::kPeer6);
    EXPECT_EQ(unreachable.src_port, 5201);
    EXPECT_EQ(unreachable.dst_port, 40000);
    EXPECT_EQ(unreachable.seq, 0x55667789u);
}

TEST(Unreachable, KnowsWhatHappensOnTheWay)
{
    const auto on_the_way = [](const Bytes& frame) {
        Unreachable unreachable{};
        EXPECT_TRUE(parse_unreachable(frame, parsed(frame), &unreachable));
        return unreachable.on_the_way;
    };
    const Bytes& v4 = frames::kUnreachable4;
    EXPECT_FALSE(on_the_way(v4));
    EXPECT_TRUE(on_the_way(with(v4, 34, 11))) << "time exceeded (RFC 792)";
    EXPECT_TRUE(on_the_way(with(v4, 34, 12))) << "parameter problem";
    const Bytes& v6 = frames::kUnreachable6;
    EXPECT_FALSE(on_the_way(v6));
    EXPECT_TRUE(on_the_way(with(v6, 54, 3))) << "time exceeded (RFC 4443)";
    EXPECT_TRUE(on_the_way(with(v6, 54, 4))) << "parameter problem";
}

TEST(Unreachable, RefusesOtherMessagesAndQuotes)
{
    const auto valid = [](const Bytes& frame) {
        Guarded guarded(256);
        Unreachable unreachable;
        return parse_unreachable(guarded.copy(frame), parsed(frame), &unreachable);
    };
    const Bytes& v4 = frames::kUnreachable4;
    EXPECT_FALSE(valid(with(v4, 34, 4)));    // source quench
    EXPECT_FALSE(valid(with(v4, 42, 0x65))); // quotes IPv6
    EXPECT_FALSE(valid(with(v4, 42, 0x44))); // header too short
    EXPECT_FALSE(valid(with(v4, 42, 0x46))); // options, and then too little of TCP
    EXPECT_FALSE(valid(with(v4, 49, 0x01))); // a later fragment
    EXPECT_FALSE(valid(with(v4, 51, 17)));   // UDP
    EXPECT_FALSE(valid(with(v4, 57, 2)));    // quotes somebody else's packet
    const Bytes& v6 = frames::kUnreachable6;
    EXPECT_FALSE(valid(with(v6, 54, 2))); // packet too big
    EXPECT_FALSE(valid(with(v6, 62, 0x45)));
    EXPECT_FALSE(valid(with(v6, 68, 17)));
    EXPECT_FALSE(valid(with(v6, 85, 2)));

    // The IP header and 8 bytes of TCP, no less.
    for (std::size_t quoted = 0; quoted <= 28; ++quoted)
        EXPECT_EQ(valid(cut(v4, 42 + quoted)), quoted == 28) << quoted;
    for (std::size_t quoted = 0; quoted <= 60; ++quoted)
        EXPECT_EQ(valid(cut(v6, 62 + quoted)), quoted >= 48) << quoted;
    EXPECT_FALSE(valid(frames::kEcho4));
    EXPECT_FALSE(valid(frames::kData4));
}

} // namespace
} // namespace devmem::wire
