// SPDX-License-Identifier: BSD-3-Clause
// What a pool is to its callers: a set of free fragments. And whether a history of overlapping
// calls is one of such a set (linearizability; Herlihy and Wing 1990).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace devmem::test {

/// Fragments, a bit each: pools of up to 64.
using Fragments = std::uint64_t;

struct Call {
    enum Kind : std::uint8_t {
        kGet, ///< take `wanted` fragments, all or nothing; `result`: which, 0 if it failed
        kPut, ///< give `fragments`; `result`: those that were free already, and refused
    } kind;
    unsigned thread;
    bool returned; ///< else it may have taken effect, or not
    unsigned wanted;
    Fragments fragments;
    Fragments result;
};

/// The calls of a few threads, of which some came before others.
struct History {
    Fragments free; ///< at the start
    std::vector<Call> calls;
    std::vector<std::uint32_t> before; ///< by call: the calls that had returned when it was made

    /// There is an order of the calls, each at a moment between its call and its return, in which a
    /// set of fragments would have given the same results.
    bool linearizable() const;

    std::string text() const;
};

} // namespace devmem::test
