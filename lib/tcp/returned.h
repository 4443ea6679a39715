// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>

namespace devmem::tcp {

/// How many fragments of a connection the application has returned, ever. Any thread adds and
/// reads; what is read is as old as the thread's last look.
class Returned {
public:
    std::uint32_t count(std::memory_order order = std::memory_order_relaxed) const
    {
        return shared_.load(order) + exclusive_.load(order);
    }
    Returned& operator+=(std::uint32_t n)
    {
        shared_.fetch_add(n, std::memory_order_release);
        return *this;
    }
    /// As +=, for a caller who keeps all others out of this function: no atomic addition.
    void add_exclusive(std::uint32_t n)
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
    std::atomic<std::uint32_t> shared_{0};
    std::atomic<std::uint32_t> exclusive_{0};
};

} // namespace devmem::tcp
