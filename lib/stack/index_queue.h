// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <bit>
#include <cstdint>
#include <memory>

namespace devmem {

/// A first-in first-out queue of slot numbers with room for all of them: it never overflows as long
/// as a slot is in it at most once, which its user sees to with a flag in the slot.
class IndexQueue {
public:
    explicit IndexQueue(std::uint32_t slots)
        : mask_(std::bit_ceil(slots) - 1), items_(std::make_unique<std::uint32_t[]>(mask_ + 1u))
    {
    }

    bool empty() const { return head_ == tail_; }
    std::uint32_t size() const { return tail_ - head_; }
    void push(std::uint32_t slot) { items_[tail_++ & mask_] = slot; }
    std::uint32_t pop() { return items_[head_++ & mask_]; }

private:
    std::uint32_t mask_;
    std::uint32_t head_ = 0;
    std::uint32_t tail_ = 0;
    std::unique_ptr<std::uint32_t[]> items_;
};

} // namespace devmem
