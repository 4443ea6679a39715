// SPDX-License-Identifier: BSD-3-Clause
// The internet checksum as RFC 1071 1 words it, one 16-bit word after the other.
#pragma once

#include "lib/wire/frame.h"

#include <vector>

namespace devmem::wire::model {

inline std::uint16_t ones_complement_sum(std::span<const std::uint8_t> bytes)
{
    unsigned sum = 0;
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
        sum += static_cast<unsigned>(bytes[i] << 8);
        if (i + 1 < bytes.size())
            sum += bytes[i + 1];
        if (sum > 0xffff)
            sum -= 0xffff;
    }
    return static_cast<std::uint16_t>(sum);
}

/// Sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1) and the segment: 0xffff if its checksum is
/// good.
inline std::uint16_t l4_sum(const Ip& src, const Ip& dst, std::uint8_t protocol,
                            std::span<const std::uint8_t> segment)
{
    std::vector<std::uint8_t> all;
    const std::size_t address = src.family == 4 ? 4 : 16;
    all.insert(all.end(), src.bytes.begin(), src.bytes.begin() + static_cast<long>(address));
    all.insert(all.end(), dst.bytes.begin(), dst.bytes.begin() + static_cast<long>(address));
    for (int shift = 24; shift >= 0; shift -= 8)
        all.push_back(static_cast<std::uint8_t>(segment.size() >> shift));
    all.insert(all.end(), {0, 0, 0, protocol});
    all.insert(all.end(), segment.begin(), segment.end());
    return ones_complement_sum(all);
}

} // namespace devmem::wire::model
