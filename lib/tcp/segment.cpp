// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/segment.h"

namespace devmem::tcp {

std::uint16_t peer_mss(const Segment& syn)
{
    constexpr std::uint16_t kDefault4 = 536, kDefault6 = 1220;
    return syn.options->mss != 0 ? syn.options->mss : syn.ipv6 ? kDefault6 : kDefault4;
}

bool reset_for(const Segment& segment, SegmentOut* out)
{
    if (segment.flags & kRst)
        return false;
    *out = {};
    if (segment.flags & kAck) {
        out->seq = segment.ack;
        out->ack = Seq(0);
        out->flags = kRst;
    } else {
        const std::uint32_t length =
            segment.len + ((segment.flags & kSyn) ? 1u : 0u) + ((segment.flags & kFin) ? 1u : 0u);
        out->seq = Seq(0);
        out->ack = segment.seq + length;
        out->flags = kRst | kAck;
    }
    return true;
}

} // namespace devmem::tcp
