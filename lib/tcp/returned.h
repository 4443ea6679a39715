// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>

namespace devmem::tcp {

/// Counts, for ever, what comes back of what was given out. Any thread adds and reads; what is read
/// is as old as the thread's last look.
template <typename T>
class ReturnCount {
public:
    T count(std::memory_order order = std::memory_order_relaxed) const
    {
        return shared_.load(order) + exclusive_.load(order);
    }
    ReturnCount& operator+=(T n)
    {
        shared_.fetch_add(n, std::memory_order_release);
        return *this;
    }
    /// As +=, for a caller who keeps all others out of this function: no atomic addition.
    void add_exclusive(T n)
    {
        exclusive_.store(exclusive_.load(std::memory_order_relaxed) + n, std::memory_order_release);
    }
    /// Nobody adds meanwhile.
    void clear()
    {
        shared_.store(0, std::memory_order_relaxed);
        exclusive_.store(0, std::memory_order_relaxed);
    }

private:
    std::atomic<T> shared_{0};
    std::atomic<T> exclusive_{0};
};

/// How many fragments of a connection the application has returned.
using Returned = ReturnCount<std::uint32_t>;

} // namespace devmem::tcp
