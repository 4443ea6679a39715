// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/bytes.h"
#include "lib/wire/headers.h"

#include <algorithm>

namespace devmem::wire {
namespace {

constexpr std::uint8_t kSolicitation = 135;
constexpr std::uint8_t kAdvertisement = 136;
constexpr std::uint8_t kSourceLinkLayer = 1;
constexpr std::uint8_t kTargetLinkLayer = 2;
constexpr std::uint32_t kSolicited = 0x40000000;
constexpr std::uint32_t kOverride = 0x20000000;

constexpr std::uint32_t kNdBytes = 24;       ///< ICMPv6 header and target
constexpr std::uint32_t kLinkLayerBytes = 8; ///< the option, on Ethernet

/// RFC 4861 7.1: who has passed a router has a smaller one.
constexpr std::uint8_t kNdHopLimit = 255;

constexpr Ip kUnspecified{6, {}};
constexpr Ip kAllNodes{6, {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

bool multicast(const Ip& ip)
{
    return ip.bytes[0] == 0xff;
}

/// @param link_layer option type to add with our MAC; 0: none
std::size_t write_nd(std::span<std::uint8_t> out, const Below& below, std::uint8_t type,
                     std::uint32_t flags, const Ip& target, std::uint8_t link_layer)
{
    const std::uint32_t l4 = kEthernetBytes + kIpv6Bytes;
    const std::uint32_t bytes = kNdBytes + (link_layer != 0 ? kLinkLayerBytes : 0);
    if (l4 + bytes > out.size())
        return 0;
    write_below(out.data(), below, bytes);
    std::uint8_t* p = out.data() + l4;
    p[0] = type;
    p[1] = 0;
    store16(p + 2, 0);
    store32(p + 4, flags);
    std::memcpy(p + 8, target.bytes.data(), 16);
    if (link_layer != 0) {
        p[24] = link_layer;
        p[25] = kLinkLayerBytes / 8;
        std::memcpy(p + 26, below.src_mac.data(), 6);
    }
    const std::uint32_t pseudo = checksum_pseudo(below.src, below.dst, kProtocolIcmp6, bytes);
    store16(p + 2, checksum_fold(checksum_add(pseudo, {p, bytes})));
    return l4 + bytes;
}

} // namespace

Ip solicited_node(const Ip& target)
{
    Ip group{6, {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff}};
    std::copy_n(&target.bytes[13], 3, &group.bytes[13]);
    return group;
}

Mac multicast_mac(const Ip& group)
{
    return {0x33, 0x33, group.bytes[12], group.bytes[13], group.bytes[14], group.bytes[15]};
}

bool parse_nd(std::span<const std::uint8_t> frame, const Packet& packet, Nd* nd)
{
    if (packet.kind != Kind::kIcmp6)
        return false;
    const std::span<const std::uint8_t> message = frame.subspan(packet.l4_offset, packet.l4_bytes);
    nd->solicitation = message[0] == kSolicitation;
    if (!nd->solicitation && message[0] != kAdvertisement)
        return false;
    if (packet.hop_limit != kNdHopLimit || message[1] != 0 || message.size() < kNdBytes)
        return false;
    nd->target.family = 6;
    std::copy_n(&message[8], 16, nd->target.bytes.data());
    if (multicast(nd->target))
        return false;

    nd->has_mac = false;
    const std::uint8_t wanted = nd->solicitation ? kSourceLinkLayer : kTargetLinkLayer;
    std::span<const std::uint8_t> options = message.subspan(kNdBytes);
    while (!options.empty()) {
        const std::size_t bytes = options.size() < 2 ? 0 : options[1] * 8u;
        if (bytes == 0 || bytes > options.size())
            return false;
        if (options[0] == wanted && bytes == kLinkLayerBytes) {
            nd->has_mac = true;
            std::copy_n(&options[2], 6, nd->mac.data());
        }
        options = options.subspan(bytes);
    }
    // As for ARP: nobody's own address is a group's.
    if (nd->has_mac && (nd->mac[0] & 1) != 0)
        return false;
    if (!nd->solicitation)
        return !(multicast(packet.dst) && (load32(&message[4]) & kSolicited) != 0);
    // Duplicate address detection: it asks the group, and has no address to speak of.
    if (packet.src == kUnspecified)
        return packet.dst == solicited_node(nd->target) && !nd->has_mac;
    return true;
}

std::size_t write_nd_solicitation(std::span<std::uint8_t> out, const Mac& our_mac, const Ip& our_ip,
                                  const Ip& target)
{
    const Ip group = solicited_node(target);
    return write_nd(out,
                    {multicast_mac(group), our_mac, our_ip, group, kProtocolIcmp6, kNdHopLimit, 0},
                    kSolicitation, 0, target, our_ip == kUnspecified ? 0 : kSourceLinkLayer);
}

std::size_t write_nd_advertisement(std::span<std::uint8_t> out, const Mac& our_mac,
                                   const Ip& target, const Ip& solicited_by,
                                   const Mac& solicited_by_mac)
{
    const bool unsolicited = solicited_by == kUnspecified;
    const Ip& dst = unsolicited ? kAllNodes : solicited_by;
    const Mac dst_mac = unsolicited ? multicast_mac(kAllNodes) : solicited_by_mac;
    return write_nd(out, {dst_mac, our_mac, target, dst, kProtocolIcmp6, kNdHopLimit, 0},
                    kAdvertisement, kOverride | (unsolicited ? 0 : kSolicited), target,
                    kTargetLinkLayer);
}

} // namespace devmem::wire
