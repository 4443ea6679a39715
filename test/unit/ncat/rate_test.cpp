// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/rate.h"

#include <gtest/gtest.h>

namespace {

using ncat::Clock;
using ncat::RateLimiter;
using namespace std::chrono_literals;

/// Bytes that pass in a time, in pieces, asked for at every step.
std::uint64_t passed(RateLimiter& limiter, Clock::time_point from, Clock::duration time,
                     Clock::duration step, std::uint64_t piece)
{
    std::uint64_t bytes = 0;
    for (Clock::time_point now = from; now < from + time; now += step) {
        while (limiter.take(piece, now))
            bytes += piece;
    }
    return bytes;
}

TEST(Rate, KeepsThePace)
{
    const Clock::time_point start{1h};
    for (const std::uint64_t piece : {1448u, 65536u}) {
        for (const auto step : {Clock::duration(1us), Clock::duration(3ms)}) {
            RateLimiter limiter(8'000'000);
            const std::uint64_t bytes = passed(limiter, start, 2s, step, piece);
            EXPECT_LE(bytes, 16'000'000u + piece) << piece;
            EXPECT_GE(bytes, 15'900'000u) << piece;
        }
    }
}

TEST(Rate, IdleTimeIsNotSavedUp)
{
    RateLimiter limiter(1'000'000);
    const Clock::time_point start{1h};
    EXPECT_TRUE(limiter.take(1000, start));
    EXPECT_FALSE(limiter.take(1000, start + 999us));
    const Clock::time_point later = start + 100s;
    EXPECT_LE(passed(limiter, later, 1s, 100us, 1000), 1'001'000u);
}

TEST(Rate, ZeroIsNoLimit)
{
    EXPECT_FALSE(RateLimiter(0).enabled());
    EXPECT_TRUE(RateLimiter(1).enabled());
}

} // namespace
