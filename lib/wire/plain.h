// SPDX-License-Identifier: BSD-3-Clause
// The short way in, for what nearly every packet of a bulk stream is. What it does not take goes
// through parse(), which says the same of what both take.
#pragma once

#include "lib/wire/bytes.h"
#include "lib/wire/frame.h"
#include "lib/wire/layout.h"
#include "lib/wire/tcp_options_codec.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace devmem::wire {

/// A segment with text: Ethernet without tags, IPv4 or IPv6 with nothing between it and TCP, no
/// flags but ACK and PSH, not marked CE, timestamps or no options at all. Host order.
struct PlainSegment {
    const std::uint8_t* addresses; ///< in the header: source, then destination
    std::uint32_t ports;           ///< source << 16 | destination
    std::uint32_t seq, ack;
    std::uint32_t ts_val, ts_ecr; ///< 0 without timestamps
    std::uint32_t text_bytes;     ///< by the IP header; never 0
    std::uint16_t window;
    std::uint8_t flags;
    bool ipv6;
    bool timestamps;
};

/// A header without options sums to all ones, in either byte order.
inline bool plain_ipv4_checksum_good(const std::uint8_t* ip)
{
    std::uint32_t word[5];
    std::memcpy(word, ip, sizeof word);
    std::uint64_t sum = std::uint64_t{word[0]} + word[1] + word[2] + word[3] + word[4];
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

/// @param head        the packet's first `head_bytes` bytes: all its headers, and none of its text
/// @param frame_bytes of the whole packet; no padding
/// @param ip_checked  the port has checked the IPv4 header's checksum and found it good
/// @return false: parse() it
inline bool parse_plain(const std::uint8_t* head, std::uint32_t head_bytes,
                        std::uint32_t frame_bytes, bool ip_checked, PlainSegment* segment)
{
    constexpr std::uint32_t kTimestampsBytes = 12;
    // Nothing shorter is read beyond the end of: TCP over IPv4 without options is 54 bytes.
    if (head_bytes < kEthernetBytes + kIpv4Bytes + kTcpBytes)
        return false;
    const std::uint8_t* const ip = head + kEthernetBytes;
    const std::uint32_t type = load32(head + 12); // and the traffic class, or half of it
    std::uint32_t l4;
    std::uint32_t end;
    // With the ECN field as the low bits of what is compared, CE is the one value too large.
    constexpr std::uint32_t kIpv4 = std::uint32_t{kEthertypeIpv4} << 16 | 0x4500;
    constexpr std::uint32_t kIpv6 = std::uint32_t{kEthertypeIpv6} << 16 | 0x6000;
    if ((type & 0xffffff03) - kIpv4 < kCe) [[likely]] {
        l4 = kEthernetBytes + kIpv4Bytes;
        end = kEthernetBytes + load16(ip + 2);
        if (ip[9] != kProtocolTcp || (load16(ip + 6) & kIpv4FragmentMask) != 0 ||
            !(ip_checked || plain_ipv4_checksum_good(ip)))
            return false;
        segment->addresses = ip + 12;
        segment->ipv6 = false;
    } else {
        l4 = kEthernetBytes + kIpv6Bytes;
        if (head_bytes < l4 + kTcpBytes || (type & 0xfffff030) - kIpv6 >= kCe << 4 ||
            ip[6] != kProtocolTcp)
            return false;
        end = l4 + load16(ip + 4);
        segment->addresses = ip + 8;
        segment->ipv6 = true;
    }
    constexpr std::uint8_t kPsh = 0x08, kAck = 0x10;
    const std::uint8_t* const tcp = head + l4;
    const std::uint32_t tcp_bytes = (tcp[12] >> 4) * 4u;
    if (end != frame_bytes || l4 + tcp_bytes != head_bytes || end <= head_bytes ||
        (tcp[13] & ~kPsh) != kAck)
        return false;
    segment->timestamps = tcp_bytes == kTcpBytes + kTimestampsBytes;
    segment->ts_val = segment->ts_ecr = 0;
    if (segment->timestamps) [[likely]] {
        if (load32(tcp + kTcpBytes) != kTimestampsLead)
            return false;
        segment->ts_val = load32(tcp + kTcpBytes + 4);
        segment->ts_ecr = load32(tcp + kTcpBytes + 8);
    } else if (tcp_bytes != kTcpBytes) {
        return false;
    }
    segment->ports = load32(tcp);
    segment->seq = load32(tcp + 4);
    segment->ack = load32(tcp + 8);
    segment->flags = tcp[13];
    segment->window = load16(tcp + 14);
    segment->text_bytes = end - head_bytes;
    return true;
}

} // namespace devmem::wire
