// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace devmem::tcp {

/// Payload bytes that are contiguous in one region page, and the fragments that hold them.
/// The engine never sees the bytes: it shortens a run by editing these numbers. Byte p of the run
/// lies in fragment `first + (off + p) / fragment_bytes`; a run holds every one of its `count`
/// fragments and no fragment is held twice.
struct Run {
    std::uint32_t first; ///< fragment index, in the space shared by all pools of a shard
    std::uint32_t count; ///< fragments, 1 to 64, all of one page
    std::uint32_t off;   ///< of the first byte in fragment `first`
    std::uint32_t len;   ///< bytes
};

} // namespace devmem::tcp
