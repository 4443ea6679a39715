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
/// flags but ACK and PSH, not marked CE, timestamps or no options at all. What it says is read
/// where it lies: the headers are to stay.
struct PlainSegment {
    const std::uint8_t* tcp;
    std::uint32_t text_bytes; ///< by the IP header; never 0
    std::uint8_t l4;          ///< where the TCP header lies in the frame
    bool timestamps;

    bool ipv6() const { return l4 != kEthernetBytes + kIpv4Bytes; }
    /// Source, then destination, as they lie in the header.
    const std::uint8_t* addresses() const { return tcp - (ipv6() ? 32 : 8); }
    // Host order.
    std::uint32_t ports() const { return load32(tcp); } ///< source << 16 | destination
    std::uint32_t seq() const { return load32(tcp + 4); }
    std::uint32_t ack() const { return load32(tcp + 8); }
    std::uint8_t flags() const { return tcp[13]; }
    std::uint16_t window() const { return load16(tcp + 14); }
    std::uint32_t ts_val() const { return timestamps ? load32(tcp + kTcpBytes + 4) : 0; }
    std::uint32_t ts_ecr() const { return timestamps ? load32(tcp + kTcpBytes + 8) : 0; }
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

/// What parse_plain() asks of the TCP header at `l4`.
[[gnu::always_inline]] inline bool plain_tcp(const std::uint8_t* head, std::uint32_t head_bytes,
                                             std::uint32_t l4, PlainSegment* segment)
{
    constexpr std::uint32_t kTimestampsBytes = 12;
    constexpr std::uint32_t kPsh = 0x08, kAck = 0x10;
    constexpr auto offset_flags = [](std::uint32_t bytes) { return bytes / 4 << 28 | kAck << 16; };
    const std::uint8_t* const tcp = head + l4;
    // Not the reserved bits, nor PSH, nor the window.
    const std::uint32_t word = load32(tcp + 12) & 0xf0ff0000 & ~(kPsh << 16);
    segment->tcp = tcp;
    segment->l4 = static_cast<std::uint8_t>(l4);
    segment->timestamps = head_bytes == l4 + kTcpBytes + kTimestampsBytes;
    if (segment->timestamps) [[likely]]
        return word == offset_flags(kTcpBytes + kTimestampsBytes) &&
               load32(tcp + kTcpBytes) == kTimestampsLead;
    return head_bytes == l4 + kTcpBytes && word == offset_flags(kTcpBytes);
}

/// @param head        the packet's first `head_bytes` bytes: all its headers, and none of its text
/// @param frame_bytes of the whole packet; no padding
/// @param ip_checked  the port has checked the IPv4 header's checksum and found it good
/// @return false: parse() it
inline bool parse_plain(const std::uint8_t* head, std::uint32_t head_bytes,
                        std::uint32_t frame_bytes, bool ip_checked, PlainSegment* segment)
{
    constexpr std::uint32_t kTcp4 = kEthernetBytes + kIpv4Bytes;
    constexpr std::uint32_t kTcp6 = kEthernetBytes + kIpv6Bytes;
    // Nothing shorter is read beyond the end of: TCP over IPv4 without options is 54 bytes.
    if (head_bytes < kTcp4 + kTcpBytes || head_bytes >= frame_bytes)
        return false;
    segment->text_bytes = frame_bytes - head_bytes;
    const std::uint8_t* const ip = head + kEthernetBytes;
    const std::uint32_t type = load32(head + 12); // and the traffic class, or half of it
    // With the ECN field as the low bits of what is compared, CE is the one value too large.
    constexpr std::uint32_t kIpv4 = std::uint32_t{kEthertypeIpv4} << 16 | 0x4500;
    constexpr std::uint32_t kIpv6 = std::uint32_t{kEthertypeIpv6} << 16 | 0x6000;
    if ((type & 0xffffff03) - kIpv4 < kCe) [[likely]] {
        constexpr std::uint32_t kFragmentProtocol = std::uint32_t{kIpv4FragmentMask} << 16 | 0xff;
        return kEthernetBytes + load16(ip + 2) == frame_bytes &&
               (load32(ip + 6) & kFragmentProtocol) == kProtocolTcp &&
               (ip_checked || plain_ipv4_checksum_good(ip)) &&
               plain_tcp(head, head_bytes, kTcp4, segment);
    }
    return head_bytes >= kTcp6 + kTcpBytes && (type & 0xfffff030) - kIpv6 < kCe << 4 &&
           ip[6] == kProtocolTcp && kTcp6 + load16(ip + 4) == frame_bytes &&
           plain_tcp(head, head_bytes, kTcp6, segment);
}

} // namespace devmem::wire
