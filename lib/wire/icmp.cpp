// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/bytes.h"
#include "lib/wire/headers.h"

#include <algorithm>

namespace devmem::wire {
namespace {

constexpr std::uint8_t kEchoReply4 = 0;
constexpr std::uint8_t kUnreachable4 = 3;
constexpr std::uint8_t kEchoRequest4 = 8;
constexpr std::uint8_t kTimeExceeded4 = 11;
constexpr std::uint8_t kParameterProblem4 = 12;
constexpr std::uint8_t kUnreachable6 = 1;
constexpr std::uint8_t kTimeExceeded6 = 3;
constexpr std::uint8_t kParameterProblem6 = 4;
constexpr std::uint8_t kEchoRequest6 = 128;
constexpr std::uint8_t kEchoReply6 = 129;

/// Can be the source of our reply, or its destination.
bool unicast(const Ip& ip)
{
    if (ip == Ip{ip.family, {}})
        return false;
    return ip.family == 4 ? ip.bytes[0] < 224 : ip.bytes[0] != 0xff;
}

} // namespace

std::size_t write_echo_reply(std::span<std::uint8_t> out, std::span<const std::uint8_t> frame,
                             const Packet& packet, const Mac& our_mac)
{
    const bool v4 = packet.kind == Kind::kIcmp4;
    if (!v4 && packet.kind != Kind::kIcmp6)
        return 0;
    const std::uint8_t* request = frame.data() + packet.l4_offset;
    if (request[0] != (v4 ? kEchoRequest4 : kEchoRequest6) || request[1] != 0)
        return 0;
    // RFC 1122 3.2.2.6 lets a host keep silent on multicast; whose address to answer from, only the
    // caller knows.
    if (!unicast(packet.src) || !unicast(packet.dst))
        return 0;
    const std::uint32_t l4 = below_bytes(packet.src);
    if (l4 + packet.l4_bytes > out.size())
        return 0;

    // The request's identification is as unique on the way back.
    const std::uint16_t ip_id = v4 ? load16(frame.data() + packet.l3_offset + 4) : std::uint16_t{0};
    write_below(out.data(),
                {packet.src_mac, our_mac, packet.dst, packet.src,
                 v4 ? kProtocolIcmp4 : kProtocolIcmp6, kDefaultHopLimit, ip_id},
                packet.l4_bytes);
    std::uint8_t* reply = out.data() + l4;
    std::memcpy(reply, request, packet.l4_bytes);
    reply[0] = v4 ? kEchoReply4 : kEchoReply6;
    store16(reply + 2, 0);
    const std::uint32_t pseudo =
        v4 ? 0 : checksum_pseudo(packet.dst, packet.src, kProtocolIcmp6, packet.l4_bytes);
    store16(reply + 2, checksum_fold(checksum_add(pseudo, {reply, packet.l4_bytes})));
    return l4 + packet.l4_bytes;
}

bool parse_unreachable(std::span<const std::uint8_t> frame, const Packet& packet, Unreachable* out)
{
    const bool v4 = packet.kind == Kind::kIcmp4;
    if (!v4 && packet.kind != Kind::kIcmp6)
        return false;
    const std::span<const std::uint8_t> icmp = frame.subspan(packet.l4_offset, packet.l4_bytes);
    const std::uint8_t type = icmp[0];
    out->on_the_way = type == (v4 ? kTimeExceeded4 : kTimeExceeded6) ||
                      type == (v4 ? kParameterProblem4 : kParameterProblem6);
    if (!out->on_the_way && type != (v4 ? kUnreachable4 : kUnreachable6))
        return false;
    // The head of our own packet: its IP header and at least 8 bytes of TCP's.
    const std::span<const std::uint8_t> quote = icmp.subspan(kIcmpBytes);
    std::size_t header;
    if (v4) {
        if (quote.size() < kIpv4Bytes || quote[0] >> 4 != 4)
            return false;
        header = (quote[0] & 0x0f) * 4u;
        if (header < kIpv4Bytes || (load16(&quote[6]) & kIpv4OffsetMask) != 0 ||
            quote[9] != kProtocolTcp)
            return false;
        out->src = {4, {}};
        out->dst = {4, {}};
        std::copy_n(&quote[12], 4, out->src.bytes.data());
        std::copy_n(&quote[16], 4, out->dst.bytes.data());
    } else {
        // We send no extension headers.
        if (quote.size() < kIpv6Bytes || quote[0] >> 4 != 6 || quote[6] != kProtocolTcp)
            return false;
        header = kIpv6Bytes;
        out->src.family = 6;
        out->dst.family = 6;
        std::copy_n(&quote[8], 16, out->src.bytes.data());
        std::copy_n(&quote[24], 16, out->dst.bytes.data());
    }
    // It is sent to who sent what it quotes.
    if (quote.size() < header + 8 || out->src != packet.dst)
        return false;
    out->code = icmp[1];
    out->src_port = load16(&quote[header]);
    out->dst_port = load16(&quote[header + 2]);
    out->seq = load32(&quote[header + 4]);
    return true;
}

} // namespace devmem::wire
