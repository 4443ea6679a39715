// SPDX-License-Identifier: BSD-3-Clause
// lib/page_pool/sync.h for tests with threads: now and then a thread gives way between two
// accesses, so that calls overlap also where there are fewer cores than threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace devmem::sync {

/// Before every access: on the average one in 32 lets another thread go first.
inline void noise()
{
    static std::atomic<std::uint32_t> seed{1};
    thread_local std::uint32_t random = seed.fetch_add(0x9e3779b9, std::memory_order_relaxed) | 1;
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    if (random % 32 == 0)
        std::this_thread::yield();
}

template <class T>
class Atomic : public std::atomic<T> {
    using Base = std::atomic<T>;

public:
    using Base::Base;
    using Base::operator=;

    template <class... Order>
    T load(Order... order) const
    {
        noise();
        return Base::load(order...);
    }
    template <class... Order>
    void store(T desired, Order... order)
    {
        noise();
        Base::store(desired, order...);
    }
    template <class... Order>
    T exchange(T desired, Order... order)
    {
        noise();
        return Base::exchange(desired, order...);
    }
    template <class... Order>
    bool compare_exchange_strong(T& expected, T desired, Order... order)
    {
        noise();
        return Base::compare_exchange_strong(expected, desired, order...);
    }
    template <class... Order>
    bool compare_exchange_weak(T& expected, T desired, Order... order)
    {
        noise();
        return Base::compare_exchange_weak(expected, desired, order...);
    }
    template <class... Order>
    T fetch_add(T by, Order... order)
    {
        noise();
        return Base::fetch_add(by, order...);
    }
    template <class... Order>
    T fetch_sub(T by, Order... order)
    {
        noise();
        return Base::fetch_sub(by, order...);
    }
    template <class... Order>
    T fetch_and(T with, Order... order)
    {
        noise();
        return Base::fetch_and(with, order...);
    }
    template <class... Order>
    T fetch_or(T with, Order... order)
    {
        noise();
        return Base::fetch_or(with, order...);
    }
};

bool asymmetric_fences();
bool heavy_fence();

inline void light_fence()
{
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

inline void relax()
{
    std::this_thread::yield();
}

inline void yield()
{
    std::this_thread::yield();
}

} // namespace devmem::sync
