// SPDX-License-Identifier: BSD-3-Clause
// A port in memory: DPDK's net_ring, which says of itself that it splits headers from payload. What
// is put into its ring was split by whoever made it.
#pragma once

#include "lib/wire/frame.h"

#include <rte_ring.h>

#include <cstdint>
#include <vector>

namespace bench {

class SplitRing {
public:
    static constexpr unsigned kSlots = 4096;

    /// Throws std::runtime_error.
    explicit SplitRing(std::uint16_t mtu, unsigned queues = 1);
    /// What is in the rings is forgotten: the stack's pools may be gone.
    ~SplitRing();
    SplitRing(const SplitRing&) = delete;
    SplitRing& operator=(const SplitRing&) = delete;

    std::uint16_t port_id() const { return port_; }
    devmem::wire::Mac mac() const { return {0x02, 0, 0, 0, 0, 0x01}; }

    // By queue.
    std::vector<rte_ring*> rx; ///< towards the stack; one producer
    std::vector<rte_ring*> tx; ///< from it; one consumer

private:
    std::uint16_t port_ = 0;
};

} // namespace bench
