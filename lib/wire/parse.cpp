// SPDX-License-Identifier: BSD-3-Clause
// The way in. An ordinary TCP segment passes through here in a straight line: every branch that it
// does not take leads out of the function.
#include "lib/wire/bytes.h"
#include "lib/wire/ipv6_extensions.h"
#include "lib/wire/layout.h"
#include "lib/wire/plain.h"
#include "lib/wire/tcp_options_codec.h"
#include "lib/wire/view.h"

#include <algorithm>

namespace devmem::wire {
namespace {

inline Verdict parse_tcp(const View& view, std::uint32_t l4, std::uint32_t l4_bytes, Packet* packet)
{
    if (l4_bytes < kTcpBytes)
        return Verdict::kTcpHeader;
    if (!view.has(l4 + kTcpBytes))
        return view.lacks(l4 + kTcpBytes, packet);
    const std::uint8_t* tcp = view.data + l4;
    const std::uint32_t header = (tcp[12] >> 4) * 4u;
    if (header < kTcpBytes || header > l4_bytes)
        return Verdict::kTcpHeader;
    if (!view.has(l4 + header))
        return view.lacks(l4 + header, packet);

    packet->kind = Kind::kTcp;
    packet->header_bytes = static_cast<std::uint16_t>(l4 + header);
    packet->payload_bytes = l4_bytes - header;
    packet->src_port = load16(tcp);
    packet->dst_port = load16(tcp + 2);
    packet->seq = load32(tcp + 4);
    packet->ack = load32(tcp + 8);
    packet->flags = tcp[13];
    packet->window = load16(tcp + 14);
    packet->urgent = load16(tcp + 18);
    packet->options = {};
    if (header == kTcpBytes + 12 && load32(tcp + kTcpBytes) == kTimestampsLead) [[likely]] {
        packet->options.timestamps = true;
        packet->options.ts_val = load32(tcp + kTcpBytes + 4);
        packet->options.ts_ecr = load32(tcp + kTcpBytes + 8);
        return Verdict::kOk;
    }
    if (!parse_tcp_options({tcp + kTcpBytes, header - kTcpBytes}, &packet->options))
        return Verdict::kTcpOptions;
    return Verdict::kOk;
}

Verdict parse_icmp(const View& view, std::uint32_t l4, std::uint32_t l4_bytes, Kind kind,
                   Packet* packet)
{
    if (l4_bytes < kIcmpBytes)
        return Verdict::kIcmp;
    if (!view.has(l4 + l4_bytes))
        return view.lacks(l4 + l4_bytes, packet);
    packet->kind = kind;
    packet->header_bytes = static_cast<std::uint16_t>(l4);
    packet->payload_bytes = 0;
    const std::uint32_t pseudo =
        kind == Kind::kIcmp6 ? checksum_pseudo(packet->src, packet->dst, kProtocolIcmp6, l4_bytes)
                             : 0;
    if (checksum_fold(checksum_add(pseudo, {view.data + l4, l4_bytes})) != 0)
        return Verdict::kIcmp;
    return Verdict::kOk;
}

/// Hand over to the layer above.
inline Verdict parse_l4(const View& view, std::uint32_t l4, std::uint32_t end,
                        std::uint8_t protocol, Packet* packet)
{
    packet->l4_offset = static_cast<std::uint16_t>(l4);
    packet->l4_bytes = end - l4;
    if (protocol == kProtocolTcp) [[likely]]
        return parse_tcp(view, l4, end - l4, packet);
    if (protocol == kProtocolIcmp4 && packet->src.family == 4)
        return parse_icmp(view, l4, end - l4, Kind::kIcmp4, packet);
    if (protocol == kProtocolIcmp6 && packet->src.family == 6)
        return parse_icmp(view, l4, end - l4, Kind::kIcmp6, packet);
    return Verdict::kIpProtocol;
}

/// Whether the options of an IPv4 header have a source route in them (RFC 791 3.1, LSRR and SSRR).
/// Behind an illegal length nothing can be found.
bool has_source_route(std::span<const std::uint8_t> options)
{
    constexpr std::uint8_t kEnd = 0, kNop = 1, kLoose = 131, kStrict = 137;
    while (!options.empty() && options[0] != kEnd) {
        if (options[0] == kLoose || options[0] == kStrict)
            return true;
        const std::size_t bytes = options[0] == kNop ? 1 : options.size() < 2 ? 0 : options[1];
        if (bytes == 0 || bytes > options.size())
            return false;
        options = options.subspan(bytes);
    }
    return false;
}

Verdict check_longer_ipv4(std::span<const std::uint8_t> header)
{
    if (checksum_fold(checksum_add(0, header)) != 0)
        return Verdict::kIpChecksum;
    // RFC 7126 4.3 and 4.4. Nobody is to choose the way of our answers.
    return has_source_route(header.subspan(kIpv4Bytes)) ? Verdict::kIpHeader : Verdict::kOk;
}

using Pair [[gnu::vector_size(16)]] = std::uint64_t;

/// In one store of 16 bytes. The lookup of the flow reads the address at once, and a read of what
/// two stores wrote waits until both are in the cache: 10 cycles and more.
inline void set_ipv4(const std::uint8_t* address, Ip* ip)
{
    std::uint32_t word;
    std::memcpy(&word, address, sizeof word);
    const std::uint64_t wide =
        std::endian::native == std::endian::little ? word : std::uint64_t{word} << 32;
    const Pair pair{wide, 0};
    ip->family = 4;
    std::memcpy(ip->bytes.data(), &pair, sizeof pair);
}

inline Verdict parse_ipv4(const View& view, std::uint32_t l3, Packet* packet)
{
    if (!view.has(l3 + kIpv4Bytes))
        return view.lacks(l3 + kIpv4Bytes, packet);
    const std::uint8_t* ip = view.data + l3;
    const std::uint32_t header = (ip[0] & 0x0f) * 4u;
    if (ip[0] >> 4 != 4 || header < kIpv4Bytes)
        return Verdict::kIpHeader;
    if (!view.has(l3 + header))
        return view.lacks(l3 + header, packet);

    if (header == kIpv4Bytes) [[likely]] {
        if (!plain_ipv4_checksum_good(ip))
            return Verdict::kIpChecksum;
    } else if (const Verdict verdict = check_longer_ipv4({ip, header}); verdict != Verdict::kOk) {
        return verdict;
    }

    // What follows the total length, up to the end of the frame, is Ethernet padding.
    const std::uint32_t total = load16(ip + 2);
    if (total < header)
        return Verdict::kIpHeader;
    if (l3 + total > view.frame_bytes)
        return Verdict::kTruncated;
    if ((load16(ip + 6) & kIpv4FragmentMask) != 0)
        return Verdict::kIpFragment;
    packet->ecn = ip[1] & 3;
    packet->hop_limit = ip[8];
    set_ipv4(ip + 12, &packet->src);
    set_ipv4(ip + 16, &packet->dst);
    return parse_l4(view, l3 + header, l3 + total, ip[9], packet);
}

inline Verdict parse_ipv6(const View& view, std::uint32_t l3, Packet* packet)
{
    if (!view.has(l3 + kIpv6Bytes))
        return view.lacks(l3 + kIpv6Bytes, packet);
    const std::uint8_t* ip = view.data + l3;
    if (ip[0] >> 4 != 6)
        return Verdict::kIpHeader;
    std::uint32_t l4 = l3 + kIpv6Bytes;
    const std::uint32_t end = l4 + load16(ip + 4);
    if (end > view.frame_bytes)
        return Verdict::kTruncated;
    packet->ecn = ip[1] >> 4 & 3;
    packet->hop_limit = ip[7];
    packet->src.family = 6;
    packet->dst.family = 6;
    std::memcpy(packet->src.bytes.data(), ip + 8, 16);
    std::memcpy(packet->dst.bytes.data(), ip + 24, 16);
    std::uint8_t next = ip[6];
    if (next != kProtocolTcp) [[unlikely]] {
        const Verdict verdict = skip_ipv6_extensions(view, end, &next, &l4, packet);
        if (verdict != Verdict::kOk)
            return verdict;
    }
    return parse_l4(view, l4, end, next, packet);
}

Verdict parse_arp_header(const View& view, std::uint32_t l3, Packet* packet)
{
    if (!view.has(l3 + kArpBytes))
        return view.lacks(l3 + kArpBytes, packet);
    packet->kind = Kind::kArp;
    packet->l4_offset = static_cast<std::uint16_t>(l3);
    packet->header_bytes = static_cast<std::uint16_t>(l3);
    packet->l4_bytes = kArpBytes;
    packet->payload_bytes = 0;
    // Hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
    const std::uint8_t* arp = view.data + l3;
    if (load32(arp) != 0x00010800 || load16(arp + 4) != 0x0604)
        return Verdict::kIcmp;
    return Verdict::kOk;
}

} // namespace

Verdict parse(std::span<const std::uint8_t> head, std::uint32_t frame_bytes, Packet* packet)
{
    const View view{head.data(),
                    static_cast<std::uint32_t>(std::min<std::size_t>(head.size(), frame_bytes)),
                    frame_bytes};
    if (!view.has(kEthernetBytes))
        return view.lacks(kEthernetBytes, packet);
    std::memcpy(packet->dst_mac.data(), view.data, 6);
    std::memcpy(packet->src_mac.data(), view.data + 6, 6);

    std::uint32_t l3 = kEthernetBytes;
    std::uint16_t ethertype = load16(view.data + 12);
    for (int tags = 0; tags < 2; ++tags) {
        if (ethertype != kEthertypeVlan && ethertype != kEthertypeServiceVlan) [[likely]]
            break;
        if (!view.has(l3 + 4))
            return view.lacks(l3 + 4, packet);
        ethertype = load16(view.data + l3 + 2);
        l3 += 4;
    }
    packet->l3_offset = static_cast<std::uint16_t>(l3);
    switch (ethertype) {
    case kEthertypeIpv4:
        return parse_ipv4(view, l3, packet);
    case kEthertypeIpv6:
        return parse_ipv6(view, l3, packet);
    case kEthertypeArp:
        return parse_arp_header(view, l3, packet);
    default:
        return Verdict::kEthertype;
    }
}

const char* verdict_name(Verdict verdict)
{
    switch (verdict) {
    case Verdict::kOk:
        return "ok";
    case Verdict::kNeedMore:
        return "need_more";
    case Verdict::kTruncated:
        return "truncated";
    case Verdict::kEthertype:
        return "ethertype";
    case Verdict::kIpHeader:
        return "ip_header";
    case Verdict::kIpChecksum:
        return "ip_checksum";
    case Verdict::kIpFragment:
        return "ip_fragment";
    case Verdict::kIpProtocol:
        return "ip_protocol";
    case Verdict::kTcpHeader:
        return "tcp_header";
    case Verdict::kTcpOptions:
        return "tcp_options";
    case Verdict::kIcmp:
        return "icmp";
    }
    return "unknown";
}

} // namespace devmem::wire
