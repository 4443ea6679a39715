// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_cycles.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace devmem {

/// What a shard's poll() does, in this order.
enum class Stage : std::uint8_t {
    kPoll,    ///< fetch packets from the port; besides, whatever is between the others
    kParse,   ///< headers, and which packets go together
    kLookup,  ///< the connections
    kTcp,     ///< payload out of its mbufs, segments to the engine
    kRelease, ///< header mbufs back to their pool
    kAck,     ///< timers, what is to be sent, and the port's taking it; events
};

/// TSC cycles by stage. A look at the clock is some 20 of them.
struct StageClock {
    std::array<std::uint64_t, 6> cycles{};
    std::uint64_t last = 0;

    void start() { last = rte_rdtsc(); }
    void lap(Stage stage)
    {
        const std::uint64_t now = rte_rdtsc();
        cycles[static_cast<std::size_t>(stage)] += now - last;
        last = now;
    }
};

} // namespace devmem
