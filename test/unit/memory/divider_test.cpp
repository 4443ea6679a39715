// SPDX-License-Identifier: BSD-3-Clause
#include "lib/memory/divider.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

using devmem::Divider;

TEST(Divider, DividesAsTheMachineDoes)
{
    std::mt19937 random(1);
    const auto check = [&](std::uint32_t divisor) {
        const Divider by(divisor);
        ASSERT_EQ(by.divisor(), divisor);
        for (unsigned i = 0; i < 2000; i++) {
            const auto n = static_cast<std::uint32_t>(random()) >> random() % 32;
            // Where an estimate would be wrong: about multiples.
            for (const std::uint32_t m : {n, n / divisor * divisor, n / divisor * divisor - 1})
                ASSERT_EQ(by.quotient(m), m / divisor) << m << " by " << divisor;
        }
        ASSERT_EQ(by.quotient(UINT32_MAX), UINT32_MAX / divisor) << divisor;
    };
    for (std::uint32_t divisor = 1; divisor <= 4096; divisor++)
        ASSERT_NO_FATAL_FAILURE(check(divisor));
    for (unsigned shift = 13; shift < 31; shift++) {
        const std::uint32_t power = std::uint32_t{1} << shift;
        for (const std::uint32_t divisor : {power - 1, power, power + 1})
            ASSERT_NO_FATAL_FAILURE(check(divisor));
    }
    ASSERT_NO_FATAL_FAILURE(check(std::uint32_t{1} << 31));
}
