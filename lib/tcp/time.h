// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace devmem::tcp {

/// Microseconds on a monotonic clock.
using Time = std::uint64_t;
inline constexpr Time kNever = UINT64_MAX;

/// Ticks of the timestamp clock: milliseconds (RFC 7323 5.4: 1 ms to 1 s a tick).
constexpr std::uint32_t timestamp_of(Time time)
{
    return static_cast<std::uint32_t>(time / 1000);
}

} // namespace devmem::tcp
