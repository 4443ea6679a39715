// SPDX-License-Identifier: BSD-3-Clause
#include "lib/stack/ack_queue.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <utility>

using devmem::AckQueue;

TEST(AckQueue, ComesUpInTheOrderOfTheDelays)
{
    constexpr std::uint32_t kSlots = 5;
    constexpr std::uint64_t kDelay = 40'000;
    AckQueue queue(kSlots);
    std::deque<std::pair<std::uint64_t, std::uint32_t>> model;
    std::mt19937 random(3);
    std::uint64_t now = 0;
    for (int i = 0; i < 100'000; i++) {
        now += random() % 20'000;
        while (!model.empty() && model.front().first <= now) {
            ASSERT_TRUE(queue.due(now));
            ASSERT_EQ(queue.pop(), model.front().second);
            model.pop_front();
        }
        ASSERT_FALSE(queue.due(now));
        if (model.size() < kSlots) {
            const auto slot = static_cast<std::uint32_t>(random() % kSlots);
            queue.push(slot, now + kDelay);
            model.emplace_back(now + kDelay, slot);
        }
        for (std::size_t n = 0; n < model.size(); n++)
            ASSERT_EQ(queue.ahead(static_cast<std::uint32_t>(n)), model[n].second);
    }
}
