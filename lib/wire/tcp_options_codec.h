// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/wire/tcp_options.h"

#include <cstddef>
#include <span>

namespace devmem::wire {

/// NOP NOP, kind 8, length 10: how RFC 7323 appendix A lays out a lone Timestamps option.
inline constexpr std::uint32_t kTimestampsLead = 0x0101080a;

/// Parse the option area of a TCP header. Unknown kinds are skipped by their length; of an option
/// that comes twice the last counts.
/// @return false: a length below 2, past the end or wrong for its kind (RFC 9293 MUST-7)
bool parse_tcp_options(std::span<const std::uint8_t> area, TcpOptions* options);

/// Write the options, padded to 4, into an area of tcp_options_bytes(options).
void write_tcp_options(std::uint8_t* area, const TcpOptions& options);

} // namespace devmem::wire
