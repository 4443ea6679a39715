// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace wire {

/// An Ethernet frame without its checksum.
using Frame = std::vector<std::uint8_t>;

/// A whole TCP packet in a frame: what the wire impairs.
struct Packet {
    bool v6;
    std::size_t ip;      ///< offset of the IP header
    std::size_t payload; ///< offset of the IP payload
    std::size_t end;     ///< offset of its end; a frame may be padded

    std::size_t ip_bytes() const { return end - ip; }
};

/// @return nothing: not IP, not TCP, a fragment, cut short
std::optional<Packet> parse(const Frame& frame);

/// What a router says to the sender of `packet`, which does not fit into the next MTU: ICMP
/// "fragmentation needed" (RFC 1191 4) or ICMPv6 "packet too big" (RFC 4443 3.2). The wire has no
/// address, so it speaks as the destination, as a tunnel's end does that bridges.
Frame too_big(const Frame& frame, const Packet& packet, std::uint16_t mtu);

} // namespace wire
