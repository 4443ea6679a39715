// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/wire/view.h"

namespace devmem::wire {

/// Most bytes of extension headers a packet may carry. Real ones are 8 to 40; each header is at
/// least 8, so this also bounds their number, and with it the work and the header bytes one packet
/// can ask for (RFC 8504 5.3 lets a host set such limits).
inline constexpr std::uint32_t kMaxExtensionBytes = 256;

/// Skip the extension headers of an IPv6 packet whose upper end is at `end`.
/// @param next   in: Next Header of the IPv6 header; out: the upper-layer protocol
/// @param offset in: of the first byte after the IPv6 header; out: of the upper-layer header
/// @return kOk; kIpFragment: a fragment that is not the whole packet; kIpHeader: malformed, over
/// the limit, or a packet RFC 8200 has a host discard; kNeedMore
Verdict skip_ipv6_extensions(const View& view, std::uint32_t end, std::uint8_t* next,
                             std::uint32_t* offset, Packet* packet);

} // namespace devmem::wire
