// SPDX-License-Identifier: BSD-3-Clause
// Who is at which MAC: ARP (RFC 826) and Neighbor Discovery (RFC 4861), the part a host needs.
#pragma once

#include "lib/wire/frame.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace devmem {

/// Neighbours of a stack, shared by its shards: the answer to a request may arrive at any queue.
/// Only somebody we asked for gets an entry, so that a flood of announcements cannot evict anyone.
/// A lock is taken, but never for a packet of an established connection: those know their MAC.
class Neighbours {
public:
    /// The MAC of a next hop, if it answered. A next hop that was not known becomes wanted.
    bool resolve(const wire::Ip& next_hop, wire::Mac* mac);

    /// A neighbour told its MAC. Kept if somebody wants it or it was known before.
    void learn(const wire::Ip& ip, const wire::Mac& mac);

    /// Changes with every MAC learned: whoever waits for one looks again when it does.
    std::uint32_t version() const { return version_.load(std::memory_order_acquire); }

private:
    struct Entry {
        wire::Ip ip;
        wire::Mac mac{};
        bool known = false;
    };
    /// More next hops than a subnet of initiating hosts has; the oldest is replaced.
    std::array<Entry, 256> entries_{};
    std::size_t used_ = 0;
    std::size_t next_victim_ = 0;
    std::mutex lock_;
    std::atomic<std::uint32_t> version_{0};

    Entry* find(const wire::Ip& ip);
};

} // namespace devmem
