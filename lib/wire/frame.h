// SPDX-License-Identifier: BSD-3-Clause
// From bytes to a parsed packet and back. Packets are hostile input: every length is checked
// against the bytes that are there and against the frame's total length before anything is read.
#pragma once

#include "lib/wire/tcp_options.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace devmem::wire {

using Mac = std::array<std::uint8_t, 6>;

inline constexpr Mac kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/// An IP address, IPv4 in the first four bytes (the rest zero).
struct Ip {
    std::uint8_t family = 0; ///< 4 or 6
    std::array<std::uint8_t, 16> bytes{};
    bool operator==(const Ip&) const = default;
};

enum class Verdict : std::uint8_t {
    kOk,
    kNeedMore,  ///< the frame is long enough but too little of it is at hand: see Packet::need
    kTruncated, ///< the frame is shorter than its headers say
    kEthertype,
    kIpHeader,
    kIpChecksum,
    kIpFragment,
    kIpProtocol,
    kTcpHeader,
    kTcpOptions,
    kIcmp, ///< malformed ICMP, ICMPv6, ND or ARP
};

enum class Kind : std::uint8_t { kArp, kIcmp4, kIcmp6, kTcp };

/// Codepoints of the ECN field (RFC 3168 5).
enum Ecn : std::uint8_t { kNotEct = 0, kEct1 = 1, kEct0 = 2, kCe = 3 };

/// A parsed frame. Pointers and offsets refer to the bytes given to parse().
struct Packet {
    Kind kind;
    Mac src_mac, dst_mac;
    Ip src, dst;                ///< not for ARP
    std::uint16_t l3_offset;    ///< of the IP or ARP header
    std::uint16_t l4_offset;    ///< of the TCP or ICMP header (IPv6 extension headers skipped)
    std::uint16_t header_bytes; ///< TCP: offset of the first payload byte. Others: l4_offset
    std::uint32_t l4_bytes;     ///< bytes of header and payload from l4_offset on, by the IP header
    std::uint32_t payload_bytes; ///< TCP: payload, by the IP header (Ethernet padding is left out)
    std::uint32_t need;          ///< kNeedMore: header bytes that must be available
    std::uint8_t hop_limit;      ///< TTL or hop limit (ND requires 255)
    std::uint8_t ecn;            ///< the ECN field, see Ecn; not for ARP
    /// TCP only.
    std::uint16_t src_port, dst_port;
    std::uint32_t seq, ack;
    std::uint16_t window;
    std::uint16_t urgent; ///< pointer
    std::uint8_t flags;
    TcpOptions options;
};

/// Parse a frame of `frame_bytes` bytes of which the first `head.size()` are at hand.
/// A TCP packet's payload is never looked at. ICMP and ARP must be at hand whole (else kNeedMore).
/// VLAN tags (one or two) are skipped. The checksums of IPv4 and, for packets at hand whole, ICMP
/// and ICMPv6 are checked; TCP's is the port's or the caller's business.
Verdict parse(std::span<const std::uint8_t> head, std::uint32_t frame_bytes, Packet* packet);

/// A name for a verdict, for messages.
const char* verdict_name(Verdict verdict);

/// Internet checksum (RFC 1071) building blocks; `sum` is an unfolded host-order accumulator over
/// big-endian 16-bit words.
std::uint32_t checksum_add(std::uint32_t sum, std::span<const std::uint8_t> bytes);
std::uint16_t checksum_fold(std::uint32_t sum); ///< folded and complemented
std::uint32_t checksum_pseudo(const Ip& src, const Ip& dst, std::uint8_t protocol,
                              std::uint32_t l4_bytes);

/// The default of RFC 1700 and of RFC 4861 6.3.2 where no router says otherwise.
inline constexpr std::uint8_t kDefaultHopLimit = 64;

/// What a TCP segment to be written says. What all segments of a connection say is in Flow.
struct Flow {
    Ip src, dst;
    std::uint16_t src_port, dst_port;
    Mac src_mac, dst_mac;
    std::uint8_t dscp = 0; ///< RFC 2474, 6 bits
    std::uint8_t hop_limit = kDefaultHopLimit;
};

struct TcpHeader {
    std::uint32_t seq, ack;
    std::uint16_t window;
    std::uint8_t flags;
    Ecn ecn = kNotEct;
};

/// Largest header write_tcp() makes: Ethernet, IPv6, TCP with 40 bytes of options.
inline constexpr std::size_t kMaxTcpHeader = 14 + 40 + 60;

/// Write Ethernet, IP and TCP headers for `payload` (in two parts) into `out`, all checksums
/// included. Options that do not fit 40 bytes lose SACK blocks from the end. The payload is not
/// copied.
/// @return bytes written; 0: `out` is too small or the packet larger than IP's length says.
std::size_t write_tcp(std::span<std::uint8_t> out, const Flow& flow, const TcpHeader& tcp,
                      const TcpOptions& options, std::span<const std::uint8_t> payload0,
                      std::span<const std::uint8_t> payload1, std::uint16_t ip_id);

/// Bytes the options of a segment take, padded to 4.
std::size_t tcp_options_bytes(const TcpOptions& options);

/// The reply to an echo request (RFC 792, RFC 4443 4.2): `frame` is the whole request as parsed.
/// @return bytes written; 0: not an echo request to answer, or `out` too small.
std::size_t write_echo_reply(std::span<std::uint8_t> out, std::span<const std::uint8_t> frame,
                             const Packet& packet, const Mac& our_mac);

/// ARP (RFC 826).
struct Arp {
    std::uint16_t operation; ///< 1 request, 2 reply
    Mac sender_mac;
    Ip sender, target;
};
bool parse_arp(std::span<const std::uint8_t> frame, const Packet& packet, Arp* arp);
std::size_t write_arp(std::span<std::uint8_t> out, std::uint16_t operation, const Mac& our_mac,
                      const Ip& our_ip, const Mac& target_mac, const Ip& target_ip);

/// Neighbor Discovery (RFC 4861): what of it a host needs.
struct Nd {
    bool solicitation; ///< else advertisement
    Ip target;
    bool has_mac;
    Mac mac; ///< source or target link-layer address option
};
/// @return false: not a valid solicitation or advertisement (RFC 4861 7.1: hop limit 255, code 0,
/// option lengths not zero).
bool parse_nd(std::span<const std::uint8_t> frame, const Packet& packet, Nd* nd);
std::size_t write_nd_solicitation(std::span<std::uint8_t> out, const Mac& our_mac, const Ip& our_ip,
                                  const Ip& target);
/// @param solicited_by who asked; the unspecified address gets a multicast answer
std::size_t write_nd_advertisement(std::span<std::uint8_t> out, const Mac& our_mac,
                                   const Ip& target, const Ip& solicited_by,
                                   const Mac& solicited_by_mac);

/// The solicited-node multicast address (RFC 4291 2.7.1) and the MAC of an IPv6 multicast address.
Ip solicited_node(const Ip& target);
Mac multicast_mac(const Ip& group);

/// Destination unreachable (RFC 792 type 3, RFC 4443 type 1), time exceeded (11, 3) or parameter
/// problem (12, 4) about one of our TCP segments.
struct Unreachable {
    bool on_the_way; ///< not destination unreachable
    std::uint8_t code;
    Ip src, dst; ///< of our segment
    std::uint16_t src_port, dst_port;
    std::uint32_t seq;
};
bool parse_unreachable(std::span<const std::uint8_t> frame, const Packet& packet, Unreachable* out);

} // namespace devmem::wire
