// SPDX-License-Identifier: BSD-3-Clause
// TSC cycles of something repeated, on one lcore or on several at once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

namespace bench {

/// One turn of a loop, long against a look at the clock (a microsecond or more). Called on several
/// lcores at the same time, `lane` 0 on the main one. @return false if it could not be done.
using Turn = std::function<bool(unsigned lane)>;

/// Slices of time measured so far, and those that the scheduler spoilt: see measure().
struct Slices {
    std::uint64_t all = 0, disturbed = 0;
};
const Slices& slices();

/// Mean TSC cycles of a turn on each of `lanes` lcores that run it at once, over `seconds`.
///
/// The time is cut into slices that all lanes begin together. A slice in which a lane was preempted
/// or late says more of the machine's other load than of the turn, and does not count, unless there
/// is no other. Throws std::runtime_error if a turn fails.
///
/// @param excluded of each lane: cycles, counted up by the turn itself, that are none of its own.
/// Empty: there are none
double measure(const Turn& turn, unsigned lanes, double seconds,
               std::span<const std::uint64_t* const> excluded = {});

} // namespace bench
