// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/headers.h"

#include "lib/wire/bytes.h"

namespace devmem::wire {

void write_ethernet(std::uint8_t* out, const Mac& dst, const Mac& src, std::uint16_t ethertype)
{
    std::memcpy(out, dst.data(), 6);
    std::memcpy(out + 6, src.data(), 6);
    store16(out + 12, ethertype);
}

void write_below(std::uint8_t* out, const Below& below, std::uint32_t l4_bytes)
{
    std::uint8_t* ip = out + kEthernetBytes;
    const auto traffic_class = static_cast<std::uint8_t>(below.dscp << 2 | below.ecn); // RFC 3168 5
    if (below.dst.family == 4) {
        write_ethernet(out, below.dst_mac, below.src_mac, kEthertypeIpv4);
        ip[0] = 0x45;
        ip[1] = traffic_class;
        store16(ip + 2, static_cast<std::uint16_t>(kIpv4Bytes + l4_bytes));
        store16(ip + 4, below.ip_id);
        store16(ip + 6, 0);
        ip[8] = below.hop_limit;
        ip[9] = below.protocol;
        store16(ip + 10, 0);
        std::memcpy(ip + 12, below.src.bytes.data(), 4);
        std::memcpy(ip + 16, below.dst.bytes.data(), 4);
        store16(ip + 10, checksum_fold(checksum_add(0, {ip, kIpv4Bytes})));
        return;
    }
    write_ethernet(out, below.dst_mac, below.src_mac, kEthertypeIpv6);
    store32(ip, 0x60000000 | std::uint32_t{traffic_class} << 20);
    store16(ip + 4, static_cast<std::uint16_t>(l4_bytes));
    ip[6] = below.protocol;
    ip[7] = below.hop_limit;
    std::memcpy(ip + 8, below.src.bytes.data(), 16);
    std::memcpy(ip + 24, below.dst.bytes.data(), 16);
}

} // namespace devmem::wire
