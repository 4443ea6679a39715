// SPDX-License-Identifier: BSD-3-Clause
// alloc_adjacent(): runs of any size out of one page.
#include <cerrno>
#include <random>

#include "test/unit/page_pool/pool_fixture.h"

namespace devmem::test {
namespace {

/// Where the first n free in a row begin, or free.size().
std::size_t first_fit(const std::vector<bool>& free, std::size_t n)
{
    for (std::size_t at = 0; at + n <= free.size(); ++at) {
        std::size_t have = 0;
        while (have < n && free[at + have])
            ++have;
        if (have == n)
            return at;
    }
    return free.size();
}

/// The run that is to be had from a page of which these are free.
FragmentRun expected(std::vector<bool> free, std::uint32_t n)
{
    const std::size_t at = first_fit(free, n);
    if (at == free.size())
        return {0, 0};
    for (std::size_t i = at; i < at + n; ++i)
        free[i] = false;
    std::size_t end = at + n;
    if (first_fit(free, n) == free.size()) {
        while (end < free.size() && free[end])
            ++end;
    }
    return {static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(end - at)};
}

// From a page in pieces: the first run that fits, and its tail if nothing else does.
TEST(PagePoolAdjacent, TakesTheFirstRunThatFits)
{
    std::mt19937 random{1};
    for (const std::uint32_t per_page : {1U, 2U, 3U, 7U, 16U, 45U, 63U, 64U}) {
        for (std::uint32_t n = 1; n <= per_page; ++n) {
            for (int i = 0; i < 20; ++i) {
                PoolMemory pool{{"pieces", per_page, per_page, 1}};
                std::vector<bool> free(per_page);
                // From nearly all free to nearly none.
                for (std::uint32_t f = 0; f < per_page; ++f)
                    free[f] = random() % 20 >= static_cast<unsigned>(i);
                for (std::uint32_t f = 0; f < per_page; ++f) {
                    if (free[f]) {
                        ASSERT_EQ(0, pool->free_run(kNoLcore, {f, 1}));
                    }
                }
                const FragmentRun want = expected(free, n);
                FragmentRun got{};
                ASSERT_EQ(want.count == 0 ? -ENOBUFS : 0,
                          pool->alloc_adjacent(i % 2 == 0 ? 0 : kNoLcore, n, &got));
                if (want.count != 0) {
                    ASSERT_EQ(want.first, got.first);
                    ASSERT_EQ(want.count, got.count);
                    for (std::uint32_t f = got.first; f < got.first + got.count; ++f)
                        free[f] = false;
                }
                ASSERT_NO_FATAL_FAILURE(expect_free(*pool, free));
                ASSERT_EQ(want.count == 0 ? 1U : 0U, pool->stats().alloc_failed);
            }
        }
    }
}

// Every size from every shape of page: as many runs as division says, nothing left over where one
// fits, and the last, short page is used if it is long enough.
TEST(PagePoolAdjacent, PacksPages)
{
    for (std::uint32_t per_page = 1; per_page <= 64; ++per_page) {
        const std::uint32_t last = per_page / 2 + 1;
        for (std::uint32_t n = 1; n <= per_page; ++n) {
            for (const std::uint32_t caller : {0U, kNoLcore, caller_of_process(1)}) {
                PoolMemory pool{{"packed", 2 * per_page + last, per_page, 1}};
                fill(*pool);
                std::vector<bool> free(pool->fragments(), true);
                std::uint32_t runs = 0;
                FragmentRun run{};
                while (pool->alloc_adjacent(caller, n, &run) == 0) {
                    ++runs;
                    ASSERT_EQ(run.first / per_page, (run.first + run.count - 1) / per_page);
                    for (std::uint32_t f = run.first; f < run.first + run.count; ++f) {
                        ASSERT_TRUE(free.at(f));
                        free[f] = false;
                    }
                    const std::uint32_t end =
                        std::min((run.first / per_page + 1) * per_page, pool->fragments());
                    const std::uint32_t rest = end - (run.first + n);
                    ASSERT_EQ(rest < n ? n + rest : n, run.count) << n << " of " << per_page;
                }
                ASSERT_EQ(2 * (per_page / n) + last / n, runs) << n << " of " << per_page;
                const std::uint64_t pages = last >= n ? 3 : 2;
                const PagePoolStats stats = pool->stats();
                ASSERT_EQ(2 * n > per_page ? pages : 0, stats.alloc_slow_high_order);
                ASSERT_EQ(2 * n > per_page ? 0 : pages, stats.alloc_slow);
                ASSERT_EQ(1U, stats.alloc_failed);
                ASSERT_NO_FATAL_FAILURE(expect_free(*pool, free));
                ASSERT_EQ(last >= n ? 0 : last, pool->free_count());
            }
        }
    }
}

TEST(PagePoolAdjacent, RefusesWhatNoPageHas)
{
    PoolMemory pool{{"refused", 100, 10, 1}};
    fill(*pool);
    FragmentRun run{};
    for (const std::uint32_t caller : {0U, kNoLcore}) {
        for (const std::uint32_t n : {0U, 11U, 64U, 65U, UINT32_MAX})
            EXPECT_EQ(-EINVAL, pool->alloc_adjacent(caller, n, &run));
    }
    expect_free(*pool, std::vector<bool>(100, true));
    EXPECT_EQ(0U, pool->stats().alloc_failed);
}

// Callers that are no lcore do not take a page each time.
TEST(PagePoolAdjacent, SharesAPage)
{
    PoolMemory pool{{"shared", 640, 64, 1}};
    fill(*pool);
    FragmentRun first{};
    ASSERT_EQ(0, pool->alloc_adjacent(kNoLcore, 4, &first));
    for (std::uint32_t i = 1; i < 16; ++i) {
        FragmentRun run{};
        ASSERT_EQ(0, pool->alloc_adjacent(i % 2 == 0 ? kNoLcore : caller_of_process(i), 4, &run));
        EXPECT_EQ(first.first + 4 * i, run.first);
    }
    EXPECT_EQ(1U, pool->stats().hold - pool->stats().release);
}

// What an lcore has put off, with what others put since, is a page: nobody else has it.
TEST(PagePoolAdjacent, FindsThePageTheLcoreItselfHoldsUp)
{
    for (const std::uint32_t putting : {1U, kNoLcore}) {
        for (const std::uint32_t getting : {0U, 1U, kNoLcore}) {
            PoolMemory pool{{"late", 64, 64, 2}};
            fill(*pool);
            FragmentRun run{};
            ASSERT_EQ(0, pool->alloc_adjacent(0, 64, &run));
            ASSERT_EQ(0, pool->free_run(0, {0, 32}));
            ASSERT_EQ(0, pool->free_run(putting, {32, 32}));
            ASSERT_EQ(0, pool->alloc_adjacent(getting, 64, &run)) << getting;
            EXPECT_EQ(64U, run.count);
            EXPECT_EQ(0U, pool->free_count());
        }
    }
}

// Half of a run is in the reserve of an lcore, the other half was put: they are adjacent.
TEST(PagePoolAdjacent, JoinsWhatAnLcoreKeepsWithWhatWasPut)
{
    for (const std::uint32_t getting : {0U, 1U, kNoLcore}) {
        PoolMemory pool{{"joined", 64, 64, 2}};
        fill(*pool);
        FragmentRun run{};
        ASSERT_EQ(1U, pool->alloc_runs(0, 32, &run));
        ASSERT_EQ(0, pool->free_run(0, {8, 24}));
        ASSERT_EQ(-ENOBUFS, pool->alloc_adjacent(getting, 57, &run));
        ASSERT_EQ(0, pool->alloc_adjacent(getting, 56, &run));
        EXPECT_EQ(8U, run.first);
        EXPECT_EQ(56U, run.count);
    }
}

} // namespace
} // namespace devmem::test
