// SPDX-License-Identifier: BSD-3-Clause
// Additions that are atomic only where Bias says that others add too: none is lost, whoever comes
// when.
#include "lib/stack/bias.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

using devmem::Bias;

namespace {

void pass(unsigned turns)
{
    for (; turns != 0; turns--)
        asm volatile("");
}

void await(const std::atomic<unsigned>& number, unsigned value)
{
    for (unsigned turns = 0; number.load(std::memory_order_acquire) != value; turns++) {
        if (turns > 10'000) // the other may want this CPU
            std::this_thread::yield();
    }
}

struct Counter {
    Bias bias;
    std::atomic<unsigned> value{0};

    /// @return whether without a read-modify-write
    bool add()
    {
        const Bias::Use use(bias);
        if (use.alone()) {
            const unsigned read = value.load(std::memory_order_relaxed);
            pass(64); // for others to come in between
            value.store(read + 1, std::memory_order_relaxed);
        } else {
            value.fetch_add(1, std::memory_order_relaxed);
        }
        return use.alone();
    }
};

} // namespace

TEST(Bias, TheOnlyThreadIsAlone)
{
    Counter counter;
    for (int i = 0; i < 1000; i++)
        EXPECT_TRUE(counter.add());
    std::thread([&] { EXPECT_FALSE(counter.add()); }).join();
    EXPECT_FALSE(counter.add()) << "for good";
    EXPECT_EQ(counter.value, 1002u);
}

TEST(Bias, NothingIsLostWhenAnotherComes)
{
    constexpr unsigned kRounds = 5'000, kMost = 40;
    std::unique_ptr<Counter> counter;
    std::atomic<unsigned> begun{0}, done{0};
    // Both spin, to begin as one: how far apart is then up to them.
    std::thread other([&] {
        for (unsigned round = 1; round <= kRounds; round++) {
            await(begun, round);
            pass(round * 7919 % 4096);
            for (unsigned i = 0; i < kMost; i++)
                counter->add();
            done.store(round, std::memory_order_release);
        }
    });
    unsigned wrong = 0, alone = 0;
    for (unsigned round = 1; round <= kRounds; round++) {
        counter = std::make_unique<Counter>();
        begun.store(round, std::memory_order_release);
        for (unsigned i = 0; i < kMost; i++)
            alone += counter->add() ? 1 : 0;
        await(done, round);
        wrong += counter->value != 2 * kMost ? 1 : 0;
    }
    other.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(alone, 0u);
}
