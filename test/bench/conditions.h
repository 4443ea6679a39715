// SPDX-License-Identifier: BSD-3-Clause
// Where and how a figure was measured, and what the machine's simplest operations cost there.
#pragma once

#include "test/bench/modes.h"

namespace bench {

Json conditions(const Options& options);

/// Cycles each: one round of an empty loop, an uncontended atomic add, a spinlock taken and
/// released.
Json baselines(const Options& options);

} // namespace bench
