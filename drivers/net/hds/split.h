// SPDX-License-Identifier: BSD-3-Clause
// Where a packet's headers end, and so where it is split. No DPDK port, no mbuf in here.
#pragma once

#include <cstdint>
#include <span>

namespace devmem::hds {

/// What is known of a packet's headers. Lengths are 0 for layers that are absent or malformed.
struct Headers {
    std::uint32_t packet_type = 0; ///< RTE_PTYPE_*
    std::uint8_t l2_len = 0;       ///< Ethernet and up to two VLAN tags
    std::uint16_t l3_len = 0;      ///< with IPv4 options, with IPv6 extension headers
    std::uint8_t l4_len = 0;
    std::uint32_t l4_bytes = 0;      ///< header and payload by the IP header: no Ethernet padding
    std::uint32_t payload_bytes = 0; ///< TCP only

    /// Offset of the first payload byte of a TCP segment.
    std::uint32_t header_bytes() const { return std::uint32_t{l2_len} + l3_len + l4_len; }
};

/// Read the headers of a frame of `frame_bytes` bytes of which the first `head.size()` are at hand.
/// Every length is checked against the frame before it is believed: a lying packet is one whose
/// lower layers only are known.
/// @return false: bytes beyond `head` are needed to say more.
bool parse_headers(std::span<const std::uint8_t> head, std::uint32_t frame_bytes, Headers* headers);

/// Where a queue splits.
enum class Split : std::uint8_t {
    kNone,    ///< one pool; a packet spills into further mbufs of it
    kLength,  ///< after so many bytes, whatever they are
    kIpv4Tcp, ///< after the TCP header, if the packet is such and has payload
    kIpv6Tcp,
    kAnyTcp, ///< over IPv4 or IPv6
};

/// The headers a queue may be asked to split after, ended by 0: the first two as dpdk-testpmd asks
/// for ipv4-tcp and ipv6-tcp, the third for TCP over either.
extern const std::uint32_t kSplitHeaders[];

/// @return the split asked for by rte_eth_rxseg_split.proto_hdr; kNone if it is not in the list.
Split split_after(std::uint32_t proto_hdr);

/// The headers of this packet end where the queue is to split and payload follows.
bool splits(Split split, const Headers& headers);

} // namespace devmem::hds
