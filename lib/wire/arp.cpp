// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/bytes.h"
#include "lib/wire/headers.h"

#include <algorithm>

namespace devmem::wire {

bool parse_arp(std::span<const std::uint8_t> frame, const Packet& packet, Arp* arp)
{
    if (packet.kind != Kind::kArp)
        return false;
    const std::uint8_t* p = frame.data() + packet.l3_offset;
    arp->operation = load16(p + 6);
    std::copy_n(p + 8, 6, arp->sender_mac.data());
    arp->sender = {4, {}};
    arp->target = {4, {}};
    std::copy_n(p + 14, 4, arp->sender.bytes.data());
    std::copy_n(p + 24, 4, arp->target.bytes.data());
    // A group address as somebody's own would make us multicast his packets (RFC 1812 3.3.2).
    return (arp->operation == 1 || arp->operation == 2) && (arp->sender_mac[0] & 1) == 0;
}

std::size_t write_arp(std::span<std::uint8_t> out, std::uint16_t operation, const Mac& our_mac,
                      const Ip& our_ip, const Mac& target_mac, const Ip& target_ip)
{
    if (out.size() < kEthernetBytes + kArpBytes)
        return 0;
    write_ethernet(out.data(), target_mac, our_mac, kEthertypeArp);
    std::uint8_t* p = out.data() + kEthernetBytes;
    store32(p, 0x00010800); // Ethernet, IPv4
    store16(p + 4, 0x0604); // and the lengths of their addresses
    store16(p + 6, operation);
    std::memcpy(p + 8, our_mac.data(), 6);
    std::memcpy(p + 14, our_ip.bytes.data(), 4);
    // What a request asks for is left zero, as every implementation does.
    const Mac asked = operation == 1 ? Mac{} : target_mac;
    std::memcpy(p + 18, asked.data(), 6);
    std::memcpy(p + 24, target_ip.bytes.data(), 4);
    return kEthernetBytes + kArpBytes;
}

} // namespace devmem::wire
