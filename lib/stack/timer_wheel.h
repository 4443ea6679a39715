// SPDX-License-Identifier: BSD-3-Clause
// Deadlines of many connections, of which few are ever reached: a segment moves its connection's
// deadline, time seldom gets there. So moving one is made cheap and reaching one is not.
//
// A hierarchical timing wheel (Varghese and Lauck 1987) of ticks of 1,024 us. A tick's number is
// read as digits of 6 bits. A timer is filed at the highest digit in which its tick differs from
// the current one, in the bucket of its digit there:
//
//     current  0 . 5 . 12              digit 2 . 1 . 0
//     tick     0 . 5 . 40   files at level 0, bucket 40: due when digit 0 gets there
//     tick     0 . 9 .  3   files at level 1, bucket 9: filed anew when digit 1 gets there
//
// All digits above are the same, so the first bucket taken of the lowest level that has one is the
// next to look at, however far ahead: no tick is ever counted through. Nine digits hold every time,
// so there is no horizon.
//
// A timer that comes up in a bucket is asked for its deadline: reached, it fires; else it is filed
// anew. Hence a deadline may be put off, or forgotten, without touching its place.
//
// One thread. No allocation after construction.
#pragma once

#include "lib/memory/flat_array.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace devmem {

class TimerWheel {
public:
    static constexpr std::uint64_t kNever = UINT64_MAX;
    /// No time reaches this, half a million years on: a deadline from here is as good as kNever.
    static constexpr std::uint64_t kEnd = kNever << 10;

    /// @param slots timers there are: 0 to slots - 1
    /// @param now   microseconds, as everywhere here; below kEnd
    TimerWheel(std::uint32_t slots, std::uint64_t now)
        : timers_(slots), now_(now), current_(now >> kTickShift)
    {
        heads_.fill(kNone);
    }

    /// Set or move the deadline of `slot`. 0 is due at the next advance(), kNever is cancel().
    void schedule(std::uint32_t slot, std::uint64_t deadline)
    {
        Timer& timer = timers_[slot];
        timer.deadline = deadline;
        if (deadline >= kEnd)
            return;
        if (timer.bucket != kUnfiled) {
            if (deadline >= timer.suits)
                return;
            unlink(slot);
        }
        file(slot);
    }

    void cancel(std::uint32_t slot) { timers_[slot].deadline = kNever; }

    /// Call `fire(slot)` for every deadline up to `now`, each once; up to a tick late, never early.
    /// `fire` may call schedule() and cancel() for any slot; what it schedules waits for the next
    /// advance(). `now` does not go back.
    template <typename Fire>
    void advance(std::uint64_t now, Fire&& fire)
    {
        now_ = now;
        if (now < wake_)
            return;
        const std::uint64_t target = now >> kTickShift;
        wake_ = kNever; // schedule() in fire() lowers it again
        const std::uint16_t overdue = overdue_;
        overdue_ = overdue == kOverdue ? kOverdue + 1 : kOverdue;
        drain(overdue, fire);
        for (Next next = first(); next.tick <= target; next = first()) {
            current_ = next.tick;
            drain(next.bucket, fire);
        }
        current_ = target;
        wake_ = std::min(wake_, first().time());
    }

    /// When advance() may have something to do: no deadline is before it. It may itself be before
    /// the first, where deadlines were put off or cancelled. kNever: there is none.
    std::uint64_t next(std::uint64_t now) const { return std::max(now, wake_); }

private:
    static constexpr unsigned kTickShift = 10;
    static constexpr unsigned kDigitBits = 6; ///< a level's occupancy is one word
    static constexpr unsigned kDigits = 1u << kDigitBits;
    static constexpr unsigned kLevels = 9;
    static_assert(kTickShift + kLevels * kDigitBits == 64);

    static constexpr std::uint32_t kNone = UINT32_MAX;
    static constexpr std::uint16_t kOverdue = kLevels * kDigits; ///< two buckets, see overdue_
    static constexpr std::uint16_t kBuckets = kOverdue + 2;
    static constexpr std::uint16_t kUnfiled = UINT16_MAX;

    struct Timer {
        std::uint64_t deadline = kNever;
        std::uint64_t suits; ///< if filed: deadlines from here on need no other bucket
        std::uint32_t next;
        std::uint32_t prev;
        std::uint16_t bucket = kUnfiled;
    };

    struct Next {
        std::uint64_t tick; ///< kNever: all buckets are empty
        std::uint16_t bucket;
        std::uint64_t time() const { return tick == kNever ? kNever : tick << kTickShift; }
    };

    /// The first taken bucket and the tick at which it is to be drained.
    Next first() const
    {
        if (levels_ == 0)
            return {kNever, kUnfiled};
        const auto level = static_cast<unsigned>(std::countr_zero(levels_));
        const auto digit = static_cast<unsigned>(std::countr_zero(occupied_[level]));
        const unsigned shift = level * kDigitBits;
        const std::uint64_t above = current_ >> shift >> kDigitBits << kDigitBits;
        return {(above | digit) << shift, static_cast<std::uint16_t>(level * kDigits + digit)};
    }

    /// Put a timer where its deadline belongs.
    void file(std::uint32_t slot)
    {
        Timer& timer = timers_[slot];
        if (timer.deadline <= now_) {
            timer.suits = 0;
            wake_ = 0;
            push(slot, overdue_);
            return;
        }
        // The first tick that begins at the deadline or after it. It is after the current one.
        const std::uint64_t tick = ((timer.deadline - 1) >> kTickShift) + 1;
        const auto level = static_cast<unsigned>(std::bit_width(tick ^ current_) - 1) / kDigitBits;
        const auto digit = static_cast<unsigned>(tick >> level * kDigitBits) % kDigits;
        timer.suits = ((tick - 1) << kTickShift) + 1;
        wake_ = std::min(wake_, tick << kTickShift);
        push(slot, static_cast<std::uint16_t>(level * kDigits + digit));
    }

    template <typename Fire>
    void drain(std::uint16_t bucket, Fire& fire)
    {
        // Nothing that is filed meanwhile gets into this bucket: what is overdue goes to the other
        // one, all else has a later digit somewhere.
        while (heads_[bucket] != kNone) {
            const std::uint32_t slot = heads_[bucket];
            unlink(slot);
            const std::uint64_t deadline = timers_[slot].deadline;
            if (deadline <= now_)
                fire(slot);
            else if (deadline < kEnd)
                file(slot);
        }
    }

    void push(std::uint32_t slot, std::uint16_t bucket)
    {
        Timer& timer = timers_[slot];
        timer.bucket = bucket;
        timer.prev = kNone;
        timer.next = heads_[bucket];
        if (timer.next != kNone)
            timers_[timer.next].prev = slot;
        heads_[bucket] = slot;
        if (bucket < kOverdue) {
            occupied_[bucket / kDigits] |= std::uint64_t{1} << bucket % kDigits;
            levels_ |= 1u << bucket / kDigits;
        }
    }

    void unlink(std::uint32_t slot)
    {
        Timer& timer = timers_[slot];
        const std::uint16_t bucket = timer.bucket;
        timer.bucket = kUnfiled;
        if (timer.next != kNone)
            timers_[timer.next].prev = timer.prev;
        if (timer.prev != kNone) {
            timers_[timer.prev].next = timer.next;
            return;
        }
        heads_[bucket] = timer.next;
        if (timer.next != kNone || bucket >= kOverdue)
            return;
        std::uint64_t& occupied = occupied_[bucket / kDigits];
        occupied &= ~(std::uint64_t{1} << bucket % kDigits);
        if (occupied == 0)
            levels_ &= ~(1u << bucket / kDigits);
    }

    FlatArray<Timer> timers_;
    std::uint64_t now_;     ///< of the last advance()
    std::uint64_t current_; ///< tick; every filed timer's is greater
    /// advance() has nothing to do before: no deadline's tick is earlier. 0 if one is overdue.
    std::uint64_t wake_ = kNever;
    std::uint32_t levels_ = 0; ///< bit: level has a taken bucket
    /// Of the two buckets for deadlines already passed, the one that takes new ones: the other is
    /// being drained, and must come to an end.
    std::uint16_t overdue_ = kOverdue;
    std::array<std::uint64_t, kLevels> occupied_{}; ///< bit: bucket is taken
    std::array<std::uint32_t, kBuckets> heads_;
};

} // namespace devmem
