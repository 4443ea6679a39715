// SPDX-License-Identifier: BSD-3-Clause
// Writing what lies below TCP and ICMP.
#pragma once

#include "lib/wire/frame.h"
#include "lib/wire/layout.h"

namespace devmem::wire {

/// What the link and network headers of an outgoing packet say.
struct Below {
    Mac dst_mac, src_mac;
    Ip src, dst; ///< of one family
    std::uint8_t protocol;
    std::uint8_t hop_limit;
    std::uint16_t ip_id; ///< IPv4 only
    std::uint8_t dscp = 0;
    Ecn ecn = kNotEct;
};

/// Offset of the layer above in a packet to `dst`.
inline std::uint32_t below_bytes(const Ip& dst)
{
    return kEthernetBytes + (dst.family == 4 ? kIpv4Bytes : kIpv6Bytes);
}

/// Write the headers: below_bytes() bytes, and `l4_bytes` will follow. IPv4 packets may be
/// fragmented on their way (DF clear): nothing here discovers path MTUs.
void write_below(std::uint8_t* out, const Below& below, std::uint32_t l4_bytes);

void write_ethernet(std::uint8_t* out, const Mac& dst, const Mac& src, std::uint16_t ethertype);

} // namespace devmem::wire
