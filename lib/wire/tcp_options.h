// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>

namespace devmem::wire {

/// A SACK block (RFC 2018 3): bytes left <= SEG.SEQ < right were received.
struct SackBlock {
    std::uint32_t left;
    std::uint32_t right;
    bool operator==(const SackBlock&) const = default;
};

/// The options of a TCP segment (RFC 9293 3.2, 7323, 2018), parsed, host order.
struct TcpOptions {
    static constexpr std::uint8_t kNoScale = 0xff;

    std::uint16_t mss = 0; ///< 0: absent
    /// Shift count. Not clamped to 14 here: RFC 7323 2.3 is the engine's.
    std::uint8_t window_scale = kNoScale;
    bool sack_permitted = false;
    bool timestamps = false;
    std::uint32_t ts_val = 0;
    std::uint32_t ts_ecr = 0;
    std::uint8_t sack_count = 0; ///< 0 to 4
    std::array<SackBlock, 4> sack{};
    bool operator==(const TcpOptions&) const = default;
};

} // namespace devmem::wire
