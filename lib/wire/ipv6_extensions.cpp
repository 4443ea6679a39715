// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/ipv6_extensions.h"

#include "lib/wire/bytes.h"

namespace devmem::wire {
namespace {

constexpr std::uint8_t kHopByHop = 0;
constexpr std::uint8_t kRouting = 43;
constexpr std::uint8_t kFragment = 44;
constexpr std::uint8_t kDestinationOptions = 60;

constexpr std::uint8_t kPad1 = 0;

/// Options of a Hop-by-Hop or Destination Options header (RFC 8200 4.2). We know none but the two
/// pads, so the upper bits of the type decide: 00 skip, all else discard the packet.
bool options_allow(std::span<const std::uint8_t> options)
{
    while (!options.empty()) {
        const std::uint8_t type = options[0];
        if (type == kPad1) {
            options = options.subspan(1);
            continue;
        }
        if (options.size() < 2 || options[1] > options.size() - 2)
            return false;
        if ((type & 0xc0) != 0)
            return false;
        options = options.subspan(2u + options[1]);
    }
    return true;
}

} // namespace

Verdict skip_ipv6_extensions(const View& view, std::uint32_t end, std::uint8_t* next,
                             std::uint32_t* offset, Packet* packet)
{
    const std::uint32_t first = *offset;
    for (;;) {
        const std::uint8_t type = *next;
        if (type != kRouting && type != kFragment && type != kDestinationOptions &&
            !(type == kHopByHop &&
              *offset == first)) // RFC 8200 4.1: only directly after the header
            return Verdict::kOk;

        const std::uint32_t at = *offset;
        if (end - at < 8)
            return Verdict::kIpHeader;
        if (!view.has(at + 8))
            return view.lacks(at + 8, packet);
        const std::uint8_t* header = view.data + at;
        // A fragment header has no length field.
        const std::uint32_t bytes = type == kFragment ? 8u : 8u + header[1] * 8u;
        if (bytes > end - at || at + bytes - first > kMaxExtensionBytes)
            return Verdict::kIpHeader;
        if (!view.has(at + bytes))
            return view.lacks(at + bytes, packet);

        switch (type) {
        case kFragment:
            // Offset and M both zero: an atomic fragment, a whole packet (RFC 6946).
            if ((load16(header + 2) & 0xfff9) != 0)
                return Verdict::kIpFragment;
            break;
        case kRouting:
            // Segments left: the packet is to travel on, and we do not forward (RFC 8200 4.4).
            if (header[3] != 0)
                return Verdict::kIpHeader;
            break;
        default:
            if (!options_allow({header + 2, bytes - 2}))
                return Verdict::kIpHeader;
        }
        *next = header[0];
        *offset = at + bytes;
    }
}

} // namespace devmem::wire
