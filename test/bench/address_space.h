// SPDX-License-Identifier: BSD-3-Clause
// Regions of any size for measurements that never touch payload.
#pragma once

namespace bench {

/// Make the provider `space` known: `space:size=16G` is address space that no memory is behind, as
/// a device's memory is to the CPU. No port can write to it. Throws std::runtime_error.
void register_address_space();

} // namespace bench
