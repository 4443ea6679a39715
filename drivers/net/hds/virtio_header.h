// SPDX-License-Identifier: BSD-3-Clause
// What precedes each frame of a TAP: struct virtio_net_hdr of the virtio specification, in the
// machine's byte order. <linux/virtio_net.h> is not C++.
#pragma once

#include <cstdint>

namespace devmem::hds {

struct VirtioHeader {
    static constexpr std::uint8_t kNeedsChecksum = 1, kDataValid = 2; // flags
    static constexpr std::uint8_t kTcp4 = 1, kTcp6 = 4;               // gso_type

    std::uint8_t flags;
    std::uint8_t gso_type;
    std::uint16_t hdr_len;     ///< bytes of all headers, of a super-frame to be segmented
    std::uint16_t gso_size;    ///< payload bytes of its segments; 0: it is none
    std::uint16_t csum_start;  ///< where the checksum to be completed begins
    std::uint16_t csum_offset; ///< where it goes, from csum_start
};
static_assert(sizeof(VirtioHeader) == 10);

} // namespace devmem::hds
