// SPDX-License-Identifier: BSD-3-Clause
#include "test/tools/wire/frame.h"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>

#include <algorithm>
#include <cstring>

namespace wire {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::uint16_t kIpv4 = 0x0800, kIpv6 = 0x86dd;
constexpr std::uint8_t kHops = 64;

std::uint16_t load16(const Frame& frame, std::size_t at)
{
    return static_cast<std::uint16_t>(frame[at] << 8 | frame[at + 1]);
}

void store16(Frame& frame, std::size_t at, std::size_t value)
{
    frame[at] = static_cast<std::uint8_t>(value >> 8);
    frame[at + 1] = static_cast<std::uint8_t>(value);
}

/// RFC 1071: the sum over [begin, end), not yet folded.
std::uint64_t sum(const Frame& frame, std::size_t begin, std::size_t end)
{
    std::uint64_t total = 0;
    for (std::size_t at = begin; at < end; at += 2)
        total += at + 1 < end ? load16(frame, at) : static_cast<std::uint64_t>(frame[at]) << 8;
    return total;
}

std::uint16_t checksum(std::uint64_t total)
{
    while (total >> 16 != 0)
        total = (total & 0xffff) + (total >> 16);
    return static_cast<std::uint16_t>(~total);
}

/// The frame back to the sender, with room for `head` bytes between Ethernet header and as much of
/// the packet as `most` bytes of IP hold.
Frame answer(const Frame& frame, const Packet& packet, std::size_t head, std::size_t most)
{
    const std::size_t quoted = std::min(packet.ip_bytes(), most - head);
    Frame reply(kEthernet + head + quoted);
    std::copy_n(frame.begin() + 6, 6, reply.begin());
    std::copy_n(frame.begin(), 6, reply.begin() + 6);
    std::copy_n(frame.begin() + 12, 2, reply.begin() + 12);
    std::copy_n(frame.begin() + static_cast<std::ptrdiff_t>(packet.ip), quoted,
                reply.begin() + static_cast<std::ptrdiff_t>(kEthernet + head));
    return reply;
}

Frame too_big4(const Frame& frame, const Packet& packet, std::uint16_t mtu)
{
    constexpr std::size_t kHead = sizeof(iphdr) + sizeof(icmphdr);
    Frame reply = answer(frame, packet, kHead, 576); // RFC 1812 4.3.2.3
    iphdr asked;
    std::memcpy(&asked, &frame[packet.ip], sizeof(asked));
    iphdr ip{};
    ip.version = 4;
    ip.ihl = 5;
    ip.tot_len = htons(static_cast<std::uint16_t>(reply.size() - kEthernet));
    ip.ttl = kHops;
    ip.protocol = IPPROTO_ICMP;
    ip.saddr = asked.daddr;
    ip.daddr = asked.saddr;
    std::memcpy(&reply[kEthernet], &ip, sizeof(ip));
    store16(reply, kEthernet + offsetof(iphdr, check),
            checksum(sum(reply, kEthernet, kEthernet + sizeof(ip))));

    constexpr std::size_t kIcmp = kEthernet + sizeof(iphdr);
    reply[kIcmp] = ICMP_DEST_UNREACH;
    reply[kIcmp + 1] = ICMP_FRAG_NEEDED;
    store16(reply, kIcmp + offsetof(icmphdr, un.frag.mtu), mtu);
    store16(reply, kIcmp + offsetof(icmphdr, checksum), checksum(sum(reply, kIcmp, reply.size())));
    return reply;
}

Frame too_big6(const Frame& frame, const Packet& packet, std::uint16_t mtu)
{
    constexpr std::size_t kHead = sizeof(ip6_hdr) + sizeof(icmp6_hdr);
    Frame reply = answer(frame, packet, kHead, 1280); // RFC 4443 3.2
    const std::size_t length = reply.size() - kEthernet - sizeof(ip6_hdr);
    ip6_hdr asked;
    std::memcpy(&asked, &frame[packet.ip], sizeof(asked));
    ip6_hdr ip{};
    ip.ip6_vfc = 6 << 4;
    ip.ip6_plen = htons(static_cast<std::uint16_t>(length));
    ip.ip6_nxt = IPPROTO_ICMPV6;
    ip.ip6_hlim = kHops;
    ip.ip6_src = asked.ip6_dst;
    ip.ip6_dst = asked.ip6_src;
    std::memcpy(&reply[kEthernet], &ip, sizeof(ip));

    constexpr std::size_t kIcmp = kEthernet + sizeof(ip6_hdr);
    reply[kIcmp] = ICMP6_PACKET_TOO_BIG;
    store16(reply, kIcmp + offsetof(icmp6_hdr, icmp6_mtu) + 2, mtu);
    const std::uint64_t pseudo_header =
        sum(reply, kEthernet + offsetof(ip6_hdr, ip6_src), kIcmp) + length + IPPROTO_ICMPV6;
    store16(reply, kIcmp + offsetof(icmp6_hdr, icmp6_cksum),
            checksum(pseudo_header + sum(reply, kIcmp, reply.size())));
    return reply;
}

} // namespace

std::optional<Packet> parse(const Frame& frame)
{
    if (frame.size() < kEthernet + sizeof(iphdr))
        return std::nullopt;
    Packet packet{};
    packet.ip = kEthernet;
    const std::uint16_t type = load16(frame, 12);
    if (type == kIpv4) {
        const std::uint16_t fragment = load16(frame, packet.ip + offsetof(iphdr, frag_off));
        if (frame[packet.ip + offsetof(iphdr, protocol)] != IPPROTO_TCP ||
            (fragment & (IP_MF | IP_OFFMASK)) != 0)
            return std::nullopt;
        packet.payload = packet.ip + 4 * (frame[packet.ip] & 0xfu);
        packet.end = packet.ip + load16(frame, packet.ip + offsetof(iphdr, tot_len));
    } else if (type == kIpv6) {
        if (frame.size() < kEthernet + sizeof(ip6_hdr) ||
            frame[packet.ip + offsetof(ip6_hdr, ip6_nxt)] != IPPROTO_TCP)
            return std::nullopt;
        packet.v6 = true;
        packet.payload = packet.ip + sizeof(ip6_hdr);
        packet.end = packet.payload + load16(frame, packet.ip + offsetof(ip6_hdr, ip6_plen));
    } else {
        return std::nullopt;
    }
    if (packet.payload >= packet.end || packet.end > frame.size())
        return std::nullopt;
    return packet;
}

Frame too_big(const Frame& frame, const Packet& packet, std::uint16_t mtu)
{
    return packet.v6 ? too_big6(frame, packet, mtu) : too_big4(frame, packet, mtu);
}

} // namespace wire
