// SPDX-License-Identifier: BSD-3-Clause
// Additions that are atomic only where Bias says that others add too: none is lost, whoever comes
// when.
#include "lib/stack/bias.h"

#include <gtest/gtest.h>

#include <barrier>
#include <memory>
#include <thread>
#include <vector>

using devmem::Bias;

namespace {

struct Counter {
    Bias bias;
    std::atomic<unsigned> value{0};

    /// @return whether without a read-modify-write
    bool add()
    {
        const Bias::Use use(bias);
        if (use.alone())
            value.store(value.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        else
            value.fetch_add(1, std::memory_order_relaxed);
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

TEST(Bias, NothingIsLostWhenOthersCome)
{
    constexpr unsigned kRounds = 2000, kThreads = 3, kMost = 300;
    std::unique_ptr<Counter> counter;
    std::barrier start(kThreads + 1), end(kThreads + 1);
    std::atomic<unsigned> alone{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kThreads; t++) {
        threads.emplace_back([&, t] {
            for (unsigned round = 0; round < kRounds; round++) {
                start.arrive_and_wait();
                // Each begins at another time in each round.
                for (unsigned spin = (round * (t + 1) * 7919) % 4096; spin != 0; spin--)
                    asm volatile("");
                unsigned n = 0;
                for (unsigned i = 0; i < kMost; i++)
                    n += counter->add() ? 1 : 0;
                alone += n;
                end.arrive_and_wait();
            }
        });
    }
    unsigned wrong = 0;
    for (unsigned round = 0; round < kRounds; round++) {
        counter = std::make_unique<Counter>();
        start.arrive_and_wait();
        end.arrive_and_wait();
        wrong += counter->value != kThreads * kMost ? 1 : 0;
    }
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(alone, 0u);
}
