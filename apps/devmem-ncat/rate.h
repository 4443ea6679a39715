// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace ncat {

using Clock = std::chrono::steady_clock;

/// A pace shared by threads: the generic cell rate algorithm, whose whole state is the time at
/// which the next bytes are due.
class RateLimiter {
public:
    explicit RateLimiter(std::uint64_t bytes_per_second) : rate_(bytes_per_second) {}

    bool enabled() const { return rate_ != 0; }

    /// Whether `bytes` may pass now. If so they count.
    bool take(std::uint64_t bytes, Clock::time_point now)
    {
        // Lost time is made up for up to this much: a poll loop is not on the dot.
        constexpr std::int64_t kSlack = 10'000'000;
        const std::int64_t now_ns = now.time_since_epoch() / std::chrono::nanoseconds(1);
        const auto cost = static_cast<std::int64_t>(static_cast<double>(bytes) * 1e9 /
                                                    static_cast<double>(rate_));
        std::int64_t due = due_ns_.load(std::memory_order_relaxed);
        std::int64_t next;
        do {
            if (now_ns < due)
                return false;
            next = (due < now_ns - kSlack ? now_ns : due) + cost;
        } while (!due_ns_.compare_exchange_weak(due, next, std::memory_order_relaxed));
        return true;
    }

private:
    std::uint64_t rate_;
    std::atomic<std::int64_t> due_ns_{0};
};

} // namespace ncat
