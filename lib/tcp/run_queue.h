// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/run_store.h"

#include <cstdint>

namespace devmem::tcp {

/// A FIFO of runs, linked through the store: a receive queue.
class RunQueue {
public:
    bool empty() const { return head_ == RunStore::kNone; }
    /// The fragment that the first run begins with, or RunStore::kNone.
    std::uint32_t front() const { return head_; }

    /// Add a run at the end: to the last run if it continues it in memory.
    [[gnu::always_inline]] void append(RunStore& runs, const Run& run)
    {
        if (!empty() && runs.merge(tail_, run))
            return;
        runs.put(run);
        link(runs, run.first, run.first);
    }

    /// Add the chain of runs from `head` to `tail`.
    void splice(RunStore& runs, std::uint32_t head, std::uint32_t tail)
    {
        const std::uint32_t second = runs[head].next;
        if (!empty() && runs.merge(tail_, runs.get(head))) {
            if (head == tail)
                return;
            head = second;
        }
        link(runs, head, tail);
    }

    /// Take the first run. @return false: there is none.
    bool pop(RunStore& runs, Run* run)
    {
        if (empty())
            return false;
        *run = runs.get(head_);
        head_ = runs[head_].next;
        return true;
    }

private:
    void link(RunStore& runs, std::uint32_t head, std::uint32_t tail)
    {
        if (empty())
            head_ = head;
        else
            runs[tail_].next = head;
        tail_ = tail;
    }

    std::uint32_t head_ = RunStore::kNone;
    std::uint32_t tail_ = RunStore::kNone; ///< meaningful unless empty
};

} // namespace devmem::tcp
