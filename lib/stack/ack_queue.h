// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/memory/flat_array.h"
#include "lib/tcp/time.h"

#include <bit>
#include <cstdint>

namespace devmem {

/// Connections whose ACK is delayed. All delays are the same, so they come up in the order in which
/// they began, and the next is always the first: no timer is moved, and what many connections cost
/// here lies side by side. A slot is in it at most once, which its user sees to.
class AckQueue {
public:
    struct Entry {
        tcp::Time deadline;
        std::uint32_t slot;
    };

    explicit AckQueue(std::uint32_t slots)
        : mask_(std::bit_ceil(slots) - 1), entries_(std::size_t{mask_} + 1)
    {
    }

    bool due(tcp::Time now) const { return head_ != tail_ && front().deadline <= now; }
    void push(std::uint32_t slot, tcp::Time deadline)
    {
        entries_[tail_++ & mask_] = {deadline, slot};
    }
    std::uint32_t pop() { return entries_[head_++ & mask_].slot; }
    /// The slot that comes up `n` after the first, if there are so many; any slot otherwise.
    std::uint32_t ahead(std::uint32_t n) const { return entries_[(head_ + n) & mask_].slot; }

private:
    const Entry& front() const { return entries_[head_ & mask_]; }

    std::uint32_t mask_;
    std::uint32_t head_ = 0;
    std::uint32_t tail_ = 0;
    FlatArray<Entry> entries_;
};

} // namespace devmem
