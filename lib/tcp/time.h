// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace devmem::tcp {

/// Microseconds on a monotonic clock.
using Time = std::uint64_t;
inline constexpr Time kNever = UINT64_MAX;

} // namespace devmem::tcp
