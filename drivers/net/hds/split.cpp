// SPDX-License-Identifier: BSD-3-Clause
#include "drivers/net/hds/split.h"

#include <rte_mbuf_ptype.h>

namespace devmem::hds {
namespace {

constexpr std::uint16_t kIpv4 = 0x0800, kArp = 0x0806, kVlan = 0x8100, kIpv6 = 0x86dd,
                        kQinq = 0x88a8;
constexpr std::uint8_t kHopByHop = 0, kIcmp = 1, kTcp = 6, kUdp = 17, kRouting = 43, kFragment = 44,
                       kAuthentication = 51, kIcmpv6 = 58, kDestination = 60, kSctp = 132;
/// Longer chains of extension headers are legal and never seen; they are not followed.
constexpr int kMaxExtensions = 8;
/// What rte_mbuf.l3_len holds.
constexpr std::uint32_t kMaxL3 = 511;

/// The first bytes of a frame. Remembers whether a byte was missed that the frame does have.
class Reader {
public:
    Reader(std::span<const std::uint8_t> head, std::uint32_t frame_bytes)
        : head_(head), frame_bytes_(frame_bytes)
    {
    }

    bool has(std::uint32_t end)
    {
        if (end <= head_.size())
            return true;
        missed_ = end <= frame_bytes_;
        return false;
    }
    std::uint8_t u8(std::uint32_t at) const { return head_[at]; }
    std::uint16_t u16(std::uint32_t at) const
    {
        return static_cast<std::uint16_t>(head_[at] << 8 | head_[at + 1]);
    }
    std::uint32_t frame_bytes() const { return frame_bytes_; }
    bool missed() const { return missed_; }

private:
    std::span<const std::uint8_t> head_;
    std::uint32_t frame_bytes_;
    bool missed_ = false;
};

void parse_l4(Reader& in, std::uint8_t protocol, std::uint32_t at, std::uint32_t bytes, Headers* h)
{
    h->l4_bytes = bytes;
    switch (protocol) {
    case kTcp: {
        if (bytes < 20 || !in.has(at + 20))
            return;
        const std::uint32_t len = (in.u8(at + 12) >> 4) * 4u;
        if (len < 20 || len > bytes)
            return;
        h->packet_type |= RTE_PTYPE_L4_TCP;
        h->l4_len = static_cast<std::uint8_t>(len);
        h->payload_bytes = bytes - len;
        return;
    }
    case kUdp:
        if (bytes < 8)
            return;
        h->packet_type |= RTE_PTYPE_L4_UDP;
        h->l4_len = 8;
        return;
    case kSctp:
        h->packet_type |= RTE_PTYPE_L4_SCTP;
        return;
    case kIcmp:
    case kIcmpv6:
        h->packet_type |= RTE_PTYPE_L4_ICMP;
        return;
    default:
        h->packet_type |= RTE_PTYPE_L4_NONFRAG;
    }
}

void parse_ipv4(Reader& in, std::uint32_t at, Headers* h)
{
    if (!in.has(at + 20) || in.u8(at) >> 4 != 4)
        return;
    const std::uint32_t len = (in.u8(at) & 0xf) * 4u;
    const std::uint32_t total = in.u16(at + 2);
    if (len < 20 || total < len || at + total > in.frame_bytes())
        return;
    h->packet_type |= len == 20 ? RTE_PTYPE_L3_IPV4 : RTE_PTYPE_L3_IPV4_EXT;
    h->l3_len = static_cast<std::uint16_t>(len);
    if ((in.u16(at + 6) & 0x3fff) != 0) // more fragments, or an offset
        h->packet_type |= RTE_PTYPE_L4_FRAG;
    else
        parse_l4(in, in.u8(at + 9), at + len, total - len, h);
}

void parse_ipv6(Reader& in, std::uint32_t at, Headers* h)
{
    if (!in.has(at + 40) || in.u8(at) >> 4 != 6)
        return;
    const std::uint32_t end = at + 40 + in.u16(at + 4);
    if (end > in.frame_bytes())
        return;
    std::uint8_t next = in.u8(at + 6);
    std::uint32_t l4 = at + 40;
    for (int i = 0;; ++i) {
        std::uint32_t len;
        if (next == kHopByHop || next == kRouting || next == kDestination || next == kFragment)
            len = 8;
        else if (next == kAuthentication)
            len = 12;
        else
            break;
        if (i == kMaxExtensions || l4 + len > end || !in.has(l4 + len))
            return;
        if (next == kAuthentication)
            len = (in.u8(l4 + 1) + 2u) * 4;
        else if (next != kFragment)
            len = (in.u8(l4 + 1) + 1u) * 8;
        if (l4 + len > end || l4 + len - at > kMaxL3)
            return;
        if (next == kFragment) {
            h->packet_type |= RTE_PTYPE_L3_IPV6_EXT | RTE_PTYPE_L4_FRAG;
            h->l3_len = static_cast<std::uint16_t>(l4 + len - at);
            return;
        }
        next = in.u8(l4);
        l4 += len;
    }
    h->packet_type |= l4 == at + 40 ? RTE_PTYPE_L3_IPV6 : RTE_PTYPE_L3_IPV6_EXT;
    h->l3_len = static_cast<std::uint16_t>(l4 - at);
    parse_l4(in, next, l4, end - l4, h);
}

void parse_frame(Reader& in, Headers* h)
{
    if (!in.has(14))
        return;
    std::uint32_t at = 14;
    std::uint16_t type = in.u16(12);
    h->packet_type = RTE_PTYPE_L2_ETHER;
    while ((type == kVlan || type == kQinq) && at < 14 + 2 * 4) {
        if (!in.has(at + 4))
            return;
        h->packet_type = at == 14 ? RTE_PTYPE_L2_ETHER_VLAN : RTE_PTYPE_L2_ETHER_QINQ;
        type = in.u16(at + 2);
        at += 4;
    }
    h->l2_len = static_cast<std::uint8_t>(at);
    if (type == kIpv4)
        parse_ipv4(in, at, h);
    else if (type == kIpv6)
        parse_ipv6(in, at, h);
    else if (type == kArp && at == 14)
        h->packet_type = RTE_PTYPE_L2_ETHER_ARP;
}

constexpr std::uint32_t kAfterIpv4Tcp =
    RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4_EXT_UNKNOWN | RTE_PTYPE_L4_TCP;
constexpr std::uint32_t kAfterIpv6Tcp =
    RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV6_EXT_UNKNOWN | RTE_PTYPE_L4_TCP;
constexpr std::uint32_t kAfterTcp = RTE_PTYPE_L2_ETHER | RTE_PTYPE_L4_TCP;
static_assert(kAfterIpv4Tcp == 0x191 && kAfterIpv6Tcp == 0x1e1 && kAfterTcp == 0x101);

} // namespace

const std::uint32_t kSplitHeaders[] = {kAfterIpv4Tcp, kAfterIpv6Tcp, kAfterTcp, 0};

bool parse_headers(std::span<const std::uint8_t> head, std::uint32_t frame_bytes, Headers* headers)
{
    Reader in(head, frame_bytes);
    *headers = {};
    parse_frame(in, headers);
    return !in.missed();
}

Split split_after(std::uint32_t proto_hdr)
{
    switch (proto_hdr) {
    case kAfterIpv4Tcp:
        return Split::kIpv4Tcp;
    case kAfterIpv6Tcp:
        return Split::kIpv6Tcp;
    case kAfterTcp:
        return Split::kAnyTcp;
    default:
        return Split::kNone;
    }
}

bool splits(Split split, const Headers& headers)
{
    if ((headers.packet_type & RTE_PTYPE_L4_MASK) != RTE_PTYPE_L4_TCP || headers.payload_bytes == 0)
        return false;
    switch (split) {
    case Split::kIpv4Tcp:
        return RTE_ETH_IS_IPV4_HDR(headers.packet_type) != 0;
    case Split::kIpv6Tcp:
        return RTE_ETH_IS_IPV6_HDR(headers.packet_type) != 0;
    default:
        return split == Split::kAnyTcp;
    }
}

} // namespace devmem::hds
