// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace bench {

/// Start EAL on the CPUs of the affinity mask, with hugepages if enough are free.
/// Throws std::runtime_error.
void start_eal();

void stop_eal();

std::uint64_t free_hugepage_bytes();

} // namespace bench
