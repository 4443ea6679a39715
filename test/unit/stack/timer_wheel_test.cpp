// SPDX-License-Identifier: BSD-3-Clause
#include "lib/stack/timer_wheel.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace devmem {
namespace {

constexpr std::uint64_t kTick = 1024;
constexpr std::uint64_t kHour = 3'600'000'000;

std::vector<std::uint32_t> fired(TimerWheel& wheel, std::uint64_t now)
{
    std::vector<std::uint32_t> slots;
    wheel.advance(now, [&](std::uint32_t slot) { slots.push_back(slot); });
    return slots;
}

using Slots = std::vector<std::uint32_t>;

TEST(TimerWheel, FiresOnceNotBeforeAndWithinATick)
{
    for (const std::uint64_t start : {std::uint64_t{0}, std::uint64_t{1'234'567'890'123}}) {
        for (const std::uint64_t delay :
             {std::uint64_t{1}, kTick, 63 * kTick, 64 * kTick, 64 * kTick + 1, 4096 * kTick - 1,
              std::uint64_t{40'000}, 1000 * kHour}) {
            TimerWheel wheel(1, start);
            wheel.schedule(0, start + delay);
            EXPECT_EQ(fired(wheel, start + delay - 1), Slots{}) << delay;
            EXPECT_EQ(fired(wheel, start + delay + kTick - 1), Slots{0}) << delay;
            EXPECT_EQ(fired(wheel, start + delay + kHour), Slots{}) << delay;
        }
    }
}

TEST(TimerWheel, PassedDeadlinesFireAtTheNextAdvance)
{
    TimerWheel wheel(2, 5000);
    wheel.schedule(0, 0);
    wheel.schedule(1, 5000);
    EXPECT_EQ(wheel.next(5000), 5000u);
    EXPECT_EQ(fired(wheel, 5000).size(), 2u);
    EXPECT_EQ(wheel.next(5000), TimerWheel::kNever);
}

TEST(TimerWheel, DeadlinesMoveEitherWay)
{
    TimerWheel wheel(1, 0);
    wheel.schedule(0, 10 * kTick);
    wheel.schedule(0, 100 * kTick);
    EXPECT_EQ(fired(wheel, 99 * kTick), Slots{});
    wheel.schedule(0, 1000 * kTick);
    EXPECT_EQ(fired(wheel, 999 * kTick), Slots{});
    EXPECT_EQ(fired(wheel, 1000 * kTick), Slots{0});
    wheel.schedule(0, 5000 * kTick);
    wheel.schedule(0, 1001 * kTick);
    EXPECT_EQ(fired(wheel, 1001 * kTick), Slots{0});
    EXPECT_EQ(fired(wheel, 6000 * kTick), Slots{});
}

TEST(TimerWheel, CancelledTimersDoNotFire)
{
    TimerWheel wheel(3, 0);
    wheel.cancel(0); // never set
    wheel.schedule(0, 10 * kTick);
    wheel.schedule(1, 10 * kTick);
    wheel.schedule(2, 0);
    wheel.cancel(0);
    wheel.schedule(1, TimerWheel::kNever);
    wheel.cancel(2);
    EXPECT_EQ(fired(wheel, kHour), Slots{});
    EXPECT_EQ(wheel.next(kHour), TimerWheel::kNever);
    wheel.schedule(0, 20 * kTick); // passed by now
    EXPECT_EQ(fired(wheel, kHour), Slots{0});
}

// A cancelled timer whose old place is still in the wheel comes back earlier and later than there.
TEST(TimerWheel, CancelledTimersCanBeSetAgain)
{
    for (const std::uint64_t deadline : {50 * kTick, 200 * kTick}) {
        TimerWheel wheel(1, 0);
        wheel.schedule(0, 100 * kTick);
        wheel.cancel(0);
        wheel.schedule(0, deadline);
        EXPECT_EQ(fired(wheel, deadline - 1), Slots{});
        EXPECT_EQ(fired(wheel, deadline), Slots{0});
        EXPECT_EQ(fired(wheel, kHour), Slots{});
    }
}

// A connection that cannot send sets its deadline to 0 from within: it must be asked again at the
// next advance(), not at once and for ever.
TEST(TimerWheel, FiringAgainWaitsForTheNextAdvance)
{
    TimerWheel wheel(2, 0);
    wheel.schedule(0, 5 * kTick);
    unsigned calls = 0;
    const auto again = [&](std::uint32_t slot) {
        ++calls;
        wheel.schedule(slot, calls % 2 == 0 ? 0 : 5 * kTick + calls);
    };
    for (unsigned i = 1; i <= 10; ++i) {
        wheel.advance(kHour, again);
        EXPECT_EQ(calls, i);
        EXPECT_EQ(wheel.next(kHour), kHour);
    }
}

TEST(TimerWheel, FireMayCancelAndMoveTheOthers)
{
    TimerWheel wheel(8, 0);
    for (std::uint32_t slot = 0; slot < 8; ++slot)
        wheel.schedule(slot, 100 * kTick);
    Slots slots;
    wheel.advance(100 * kTick, [&](std::uint32_t slot) {
        if (slots.empty()) {
            for (std::uint32_t other = 0; other < 8; ++other) {
                if (other % 2 == 0)
                    wheel.cancel(other);
                else
                    wheel.schedule(other, 200 * kTick + slot);
            }
        }
        slots.push_back(slot);
    });
    EXPECT_EQ(slots.size(), 1u);
    EXPECT_EQ(fired(wheel, 300 * kTick).size(), 4u);
}

TEST(TimerWheel, NextIsNeverAfterTheFirstDeadline)
{
    TimerWheel wheel(2, 0);
    EXPECT_EQ(wheel.next(0), TimerWheel::kNever);
    wheel.schedule(0, 100 * kHour);
    wheel.schedule(1, 200 * kHour);
    // Sleeping until next() gets there in a few steps, and misses nothing.
    std::uint64_t now = 0;
    unsigned steps = 0;
    Slots slots;
    while (slots.size() < 2) {
        const std::uint64_t next = wheel.next(now);
        ASSERT_LE(next, (slots.empty() ? 100 : 200) * kHour + kTick);
        ASSERT_GT(next, now);
        now = next;
        for (const std::uint32_t slot : fired(wheel, now))
            slots.push_back(slot);
        ASSERT_LT(++steps, 20u);
    }
    EXPECT_EQ(slots, (Slots{0, 1}));
}

TEST(TimerWheel, TheEndOfTime)
{
    constexpr std::uint64_t kLast = TimerWheel::kEnd - 1;
    TimerWheel idle(1, 0);
    idle.schedule(0, TimerWheel::kNever - 1);
    EXPECT_EQ(idle.next(0), TimerWheel::kNever);

    TimerWheel wheel(3, 0);
    wheel.schedule(0, kLast - kTick);
    wheel.schedule(1, TimerWheel::kEnd);
    wheel.schedule(2, TimerWheel::kNever - 1);
    EXPECT_EQ(fired(wheel, kLast - kTick - 1), Slots{});
    EXPECT_EQ(fired(wheel, kLast), Slots{0});
    EXPECT_EQ(fired(wheel, kLast), Slots{});
}

// If work grew with the ticks passed, these 10^15 ticks would take for ever.
TEST(TimerWheel, JumpsCostNothing)
{
    constexpr std::uint32_t kSlots = 16;
    TimerWheel wheel(kSlots, 0);
    std::uint64_t now = 0;
    std::uint64_t count = 0;
    for (int i = 0; i < 20'000; ++i) {
        for (std::uint32_t slot = 0; slot < kSlots; ++slot)
            wheel.schedule(slot, now + 1 + slot * 1000 * kHour);
        now += 20'000 * kHour;
        wheel.advance(now, [&](std::uint32_t) { ++count; });
    }
    EXPECT_EQ(count, 20'000u * kSlots);
}

/// What the wheel promises, by the simplest means.
class Model {
public:
    explicit Model(std::uint64_t now) : now_(now) {}

    void schedule(std::uint32_t slot, std::uint64_t deadline) { deadlines_[slot] = deadline; }
    void cancel(std::uint32_t slot) { deadlines_.erase(slot); }

    void expect_first(std::uint64_t next) const
    {
        for (const auto& [slot, deadline] : deadlines_)
            ASSERT_LE(next, std::max(now_, (deadline + kTick - 1) / kTick * kTick)) << slot;
    }

    /// `fired` must be deadlines that were reached, and all of those reached a tick ago.
    void expect_fired(std::uint64_t now, const Slots& fired)
    {
        now_ = now;
        for (const std::uint32_t slot : fired) {
            const auto at = deadlines_.find(slot);
            ASSERT_NE(at, deadlines_.end()) << "fired twice or cancelled: " << slot;
            ASSERT_LE(at->second, now) << "early: " << slot;
            deadlines_.erase(at);
        }
        for (const auto& [slot, deadline] : deadlines_)
            ASSERT_GT(deadline + kTick, now) << "late: " << slot;
    }

private:
    std::uint64_t now_;
    std::map<std::uint32_t, std::uint64_t> deadlines_;
};

TEST(TimerWheel, RandomOperationsAgreeWithTheModel)
{
    constexpr std::uint32_t kSlots = 64;
    for (unsigned seed = 0; seed < 20; ++seed) {
        SCOPED_TRACE(seed);
        std::mt19937_64 random(seed);
        // Any number of bits up to an hour, or now and then a year: every level sees traffic.
        const auto span = [&] {
            const std::uint64_t bits = random() % 64 == 0 ? 45 : random() % 33;
            return random() % (std::uint64_t{1} << bits);
        };
        std::uint64_t now = random() % (std::uint64_t{1} << random() % 50);
        TimerWheel wheel(kSlots, now);
        Model model(now);
        for (int i = 0; i < 20'000; ++i) {
            const auto slot = static_cast<std::uint32_t>(random() % kSlots);
            switch (random() % 8) {
            case 0:
                wheel.cancel(slot);
                model.cancel(slot);
                break;
            case 1: {
                const std::uint64_t past = now - std::min(now, span());
                wheel.schedule(slot, past);
                model.schedule(slot, past);
                break;
            }
            case 2:
            case 3:
            case 4: {
                const std::uint64_t deadline = now + span();
                wheel.schedule(slot, deadline);
                model.schedule(slot, deadline);
                break;
            }
            default: {
                now += span() >> random() % 16;
                // Some of those that fire are set again from within, as connections are.
                std::map<std::uint32_t, std::uint64_t> again;
                Slots slots;
                wheel.advance(now, [&](std::uint32_t due) {
                    slots.push_back(due);
                    if (random() % 2 == 0) {
                        const std::uint64_t deadline = random() % 4 == 0 ? 0 : now + span();
                        wheel.schedule(due, deadline);
                        again[due] = deadline;
                    }
                });
                ASSERT_NO_FATAL_FAILURE(model.expect_fired(now, slots));
                for (const auto& [due, deadline] : again)
                    model.schedule(due, deadline);
            }
            }
            ASSERT_NO_FATAL_FAILURE(model.expect_first(wheel.next(now)));
        }
    }
}

} // namespace
} // namespace devmem
