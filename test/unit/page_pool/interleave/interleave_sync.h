// SPDX-License-Identifier: BSD-3-Clause
// lib/page_pool/sync.h, where each operation is a step of a scheduler.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "test/unit/page_pool/interleave/scheduler.h"

namespace devmem::sync {

/// std::atomic, as far as it is used. Weak exchanges do not fail without reason.
template <class T>
class Atomic {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));

public:
    static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;

    constexpr Atomic() = default;
    constexpr Atomic(T value) : value_(value) {}
    Atomic(const Atomic&) = delete;
    Atomic& operator=(const Atomic&) = delete;

    T load(std::memory_order = std::memory_order_seq_cst) const
    {
        return interleave::step::running() ? value(interleave::step::load(&value_, sizeof(T)))
                                           : value_;
    }
    void store(T desired, std::memory_order order = std::memory_order_seq_cst)
    {
        if (interleave::step::running())
            interleave::step::store(&value_, sizeof(T), word(desired),
                                    order == std::memory_order_seq_cst);
        else
            value_ = desired;
    }
    operator T() const { return load(); }
    T operator=(T desired)
    {
        store(desired);
        return desired;
    }

    T exchange(T desired, std::memory_order = std::memory_order_seq_cst)
    {
        return update([&](T) { return desired; });
    }
    bool compare_exchange_strong(T& expected, T desired, std::memory_order,
                                 std::memory_order = std::memory_order_seq_cst)
    {
        const T before = update([&](T now) { return now == expected ? desired : now; });
        const bool exchanged = before == expected;
        expected = before;
        return exchanged;
    }
    bool compare_exchange_strong(T& expected, T desired)
    {
        return compare_exchange_strong(expected, desired, std::memory_order_seq_cst);
    }
    bool compare_exchange_weak(T& expected, T desired, std::memory_order success,
                               std::memory_order failure = std::memory_order_seq_cst)
    {
        return compare_exchange_strong(expected, desired, success, failure);
    }
    bool compare_exchange_weak(T& expected, T desired)
    {
        return compare_exchange_strong(expected, desired);
    }

    /// What was there before an addition; the step is complete when it is known that it is not
    /// used.
    class Sum {
    public:
        Sum(T& cell, T by) : cell_(cell)
        {
            if (interleave::step::running())
                interleave::step::begin_update();
            before_ = cell_;
            cell_ = static_cast<T>(cell_ + by);
        }
        Sum(const Sum&) = delete;
        Sum& operator=(const Sum&) = delete;
        ~Sum()
        {
            if (interleave::step::running())
                interleave::step::update(&cell_, sizeof(T), word(before_), word(cell_), !used_);
        }
        operator T()
        {
            used_ = true;
            return before_;
        }

    private:
        T& cell_;
        T before_;
        bool used_ = false;
    };

    Sum fetch_add(T by, std::memory_order = std::memory_order_seq_cst) { return {value_, by}; }
    Sum fetch_sub(T by, std::memory_order = std::memory_order_seq_cst)
    {
        return {value_, static_cast<T>(-by)};
    }
    T fetch_and(T with, std::memory_order = std::memory_order_seq_cst)
    {
        return update([&](T now) { return static_cast<T>(now & with); });
    }
    T fetch_or(T with, std::memory_order = std::memory_order_seq_cst)
    {
        return update([&](T now) { return static_cast<T>(now | with); });
    }
    T fetch_xor(T with, std::memory_order = std::memory_order_seq_cst)
    {
        return update([&](T now) { return static_cast<T>(now ^ with); });
    }

private:
    static std::uint64_t word(T value)
    {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &value, sizeof(T));
        return bits;
    }
    static T value(std::uint64_t bits)
    {
        T value;
        std::memcpy(&value, &bits, sizeof(T));
        return value;
    }
    template <class F>
    T update(F after)
    {
        if (interleave::step::running())
            interleave::step::begin_update();
        const T before = value_;
        value_ = after(before);
        if (interleave::step::running())
            interleave::step::update(&value_, sizeof(T), word(before), word(value_), false);
        return before;
    }

    T value_{};
};

/// Whether there is a heavy fence: else the pool orders what it does itself.
inline bool have_heavy_fence = true;

inline bool asymmetric_fences()
{
    return have_heavy_fence;
}

inline void light_fence() {}

inline bool heavy_fence()
{
    interleave::step::heavy_fence();
    return true;
}

inline void relax()
{
    interleave::step::wait();
}

inline void yield()
{
    interleave::step::wait();
}

} // namespace devmem::sync
