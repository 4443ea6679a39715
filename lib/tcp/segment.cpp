// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/segment.h"

namespace devmem::tcp {

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
