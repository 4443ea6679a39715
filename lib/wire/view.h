// SPDX-License-Identifier: BSD-3-Clause
// What of a frame may be read.
#pragma once

#include "lib/wire/frame.h"

namespace devmem::wire {

struct View {
    const std::uint8_t* data;
    std::uint32_t at_hand;     ///< bytes that may be read; at most frame_bytes
    std::uint32_t frame_bytes; ///< bytes the frame has, wherever they are

    bool has(std::uint32_t bytes) const { return bytes <= at_hand; }

    /// The verdict when has(bytes) is false.
    [[gnu::cold]] Verdict lacks(std::uint32_t bytes, Packet* packet) const
    {
        if (bytes > frame_bytes)
            return Verdict::kTruncated;
        packet->need = bytes;
        return Verdict::kNeedMore;
    }
};

} // namespace devmem::wire
