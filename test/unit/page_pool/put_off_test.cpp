// SPDX-License-Identifier: BSD-3-Clause
// An lcore that puts what it got puts off its puts of one page. Nobody can tell.
#include <cerrno>

#include "test/unit/page_pool/pool_fixture.h"

namespace devmem::test {
namespace {

class PagePoolPutOff : public testing::Test {
protected:
    static constexpr std::uint32_t kPages = 4;
    PoolMemory pool{{"late", kPages * 64, 64, 2}};
    std::vector<bool> free = std::vector<bool>(kPages * 64, false);

    void SetUp() override
    {
        fill(*pool);
        std::vector<FragmentRun> runs(kPages * 64);
        ASSERT_EQ(kPages, pool->alloc_runs(0, kPages * 64, runs.data()));
    }
    void put(std::uint32_t caller, FragmentRun run)
    {
        ASSERT_EQ(0, pool->free_run(caller, run));
        for (std::uint32_t i = 0; i < run.count; ++i)
            free[run.first + i] = true;
    }
    /// A page is put half by an lcore, half by a caller that is none. @return whether the lcore put
    /// it off: then nobody has seen yet that the page is idle
    bool puts_off(std::uint32_t lcore, std::uint32_t page)
    {
        pool->divert(1);
        put(lcore, {page * 64, 32});
        put(kNoLcore, {page * 64 + 32, 32});
        if (one_was_diverted()) {
            EXPECT_EQ(0, pool->insert(1, page));
            return false;
        }
        pool->divert(0);
        return true;
    }
    /// Whether a page has become idle for the provider, who wanted one.
    bool one_was_diverted()
    {
        PagePool::Diverted page{};
        return pool->fetch_diverted(&page);
    }
};

TEST_F(PagePoolPutOff, WordsAndCountersAreExact)
{
    for (const FragmentRun run : {FragmentRun{3, 1},
                                  {10, 5},
                                  {64, 60},
                                  {0, 3},
                                  {130, 1},
                                  {4, 6},
                                  {124, 4},
                                  {15, 49},
                                  {131, 2}}) {
        put(0, run);
        ASSERT_NO_FATAL_FAILURE(expect_free(*pool, free));
    }
    EXPECT_EQ(0U, pool->stats().double_free);
}

TEST_F(PagePoolPutOff, IsRefusedASecondTime)
{
    put(0, {5, 10});
    std::uint64_t refusals = 0;
    std::uint32_t edge = 15;
    for (const std::uint32_t caller : {0U, 1U, kNoLcore, caller_of_process(9)}) {
        RefusedFree refused{};
        EXPECT_EQ(-EALREADY, pool->free_run(caller, {7, 1}, &refused)) << caller;
        EXPECT_EQ(0U, refused.page);
        EXPECT_EQ(7U, refused.fragment);
        EXPECT_EQ(++refusals, pool->stats().double_free);
        expect_free(*pool, free);
        // One is free, one is not: that is put, and the next one put off again.
        EXPECT_EQ(-EALREADY, pool->free_run(caller, {edge - 1, 2}, &refused));
        EXPECT_EQ(edge - 1, refused.fragment);
        EXPECT_EQ(++refusals, pool->stats().double_free);
        free[edge] = true;
        put(0, {edge + 1, 1});
        edge += 2;
        expect_free(*pool, free);
    }
}

// A second free that got through would set a fragment free under its next owner.
TEST_F(PagePoolPutOff, CannotBePutUnderTheNextOwner)
{
    for (const std::uint32_t twice : {1U, kNoLcore}) {
        put(0, {5, 1});
        EXPECT_EQ(-EALREADY, pool->free_run(twice, {5, 1}));
        std::uint32_t owned = 0;
        ASSERT_EQ(0, pool->alloc(1, 1, &owned));
        ASSERT_EQ(5U, owned);
        pool->flush(0);
        EXPECT_EQ(1U, pool->holders(5));
        EXPECT_EQ(0U, pool->free_count());
        std::uint32_t none;
        EXPECT_EQ(-ENOBUFS, pool->alloc(kNoLcore, 1, &none));
        // From now on pages are scarce; once there is one again, puts are put off as before.
        put(0, {64, 64});
        FragmentRun run;
        ASSERT_EQ(1U, pool->alloc_runs(0, 64, &run));
    }
}

TEST_F(PagePoolPutOff, CannotBeHeld)
{
    put(0, {5, 10});
    EXPECT_EQ(-ENOENT, pool->hold_run({7, 1}));
    EXPECT_EQ(-ENOENT, pool->hold_run({14, 2}));
    EXPECT_EQ(0, pool->hold_run({15, 1}));
    put(0, {6 + 10, 4});
    EXPECT_EQ(2U, pool->holders(15));
    EXPECT_EQ(0U, pool->holders(16));
    ASSERT_EQ(0, pool->free_run(0, {15, 1}));
    expect_free(*pool, free);
}

TEST_F(PagePoolPutOff, IsFoundByOthers)
{
    for (const std::uint32_t getting : {1U, kNoLcore, 0U}) {
        put(0, {5, 10});
        put(0, {70, 3});
        std::uint32_t taken[13];
        ASSERT_EQ(0, pool->alloc(getting, 13, taken)) << getting;
        EXPECT_EQ(0U, pool->free_count());
        for (const std::uint32_t f : taken)
            put(1, {f, 1});
        ASSERT_EQ(0, pool->alloc(0, 13, taken));
    }
}

TEST_F(PagePoolPutOff, EndsWithTheLastFragment)
{
    pool->divert(1);
    put(0, {0, 32});
    put(0, {32, 31});
    EXPECT_FALSE(one_was_diverted());
    put(0, {63, 1});
    EXPECT_TRUE(one_was_diverted());

    // Likewise if others put a part of it first.
    pool->divert(1);
    put(1, {64, 20});
    put(0, {64 + 20, 44});
    EXPECT_TRUE(one_was_diverted());
}

// While pages are scarce a put is seen by all at once.
TEST_F(PagePoolPutOff, IsNotWhilePagesAreScarce)
{
    EXPECT_TRUE(puts_off(0, 0));
    std::uint32_t many[65];
    ASSERT_EQ(-ENOBUFS, pool->alloc(1, 65, many));
    ASSERT_EQ(0, pool->alloc(1, 64, many));
    for (std::uint32_t f = 0; f < 64; ++f)
        free[f] = false;
    EXPECT_EQ(-ENOBUFS, pool->alloc(1, 1, many));
    EXPECT_FALSE(puts_off(0, 2));
    // Until there is a page again.
    std::uint32_t one;
    ASSERT_EQ(0, pool->alloc(1, 1, &one));
    free[one] = false;
    EXPECT_TRUE(puts_off(0, 3));
    expect_free(*pool, free);
}

TEST_F(PagePoolPutOff, IsDoneByOneLcoreAPage)
{
    std::uint32_t taken[64]; // lcore 1 is one that gets, too
    put(0, {192, 32});
    put(0, {224, 32});
    ASSERT_EQ(0, pool->alloc(1, 64, taken));
    EXPECT_TRUE(puts_off(1, 3)) << "lcore 0 has done with it";

    put(0, {0, 8});
    put(1, {8, 8});
    put(0, {16, 8});
    put(1, {24, 8});
    std::uint64_t refusals = 0;
    for (std::uint32_t f = 0; f < 32; ++f) {
        EXPECT_EQ(-EALREADY, pool->free_run(kNoLcore, {f, 1})) << f;
        EXPECT_EQ(++refusals, pool->stats().double_free);
    }
    put(kNoLcore, {32, 32});
    expect_free(*pool, free);

    // And then by another, of the same page.
    FragmentRun run{};
    for (const std::uint32_t lcore : {1U, 0U, 1U}) {
        pool->flush(0);
        pool->flush(1);
        ASSERT_EQ(0, pool->alloc_adjacent(lcore, 64, &run));
        for (std::uint32_t i = 0; i < 64; ++i)
            free[run.first + i] = false;
        EXPECT_TRUE(puts_off(lcore, run.first / 64)) << lcore;
    }
}

// A fragment that had several holders, or another process's, is as any other when it comes again.
TEST_F(PagePoolPutOff, IsDoneAgainWhenNobodyElseHoldsAFragment)
{
    ASSERT_EQ(0, pool->hold_run({0, 64}));
    ASSERT_EQ(0, pool->free_run(0, {0, 64}));
    put(0, {0, 64});
    FragmentRun run{};
    ASSERT_EQ(0, pool->alloc_adjacent(0, 64, &run));
    ASSERT_EQ(0U, run.first);
    EXPECT_TRUE(puts_off(0, 0));
}

// The sum of what two lcores put in turn is the page.
TEST_F(PagePoolPutOff, ByTwoLcores)
{
    FragmentRun run;
    for (std::uint32_t f = 0; f < 64; f += 4)
        put(0, {f, 4});
    ASSERT_EQ(1U, pool->alloc_runs(1, 64, &run)); // lcore 1 gets, too
    for (std::uint32_t f = 0; f < 64; ++f)
        free[f] = false;
    for (std::uint32_t f = 0; f < 192; f += 2) {
        put(f / 2 % 2, {f, 2});
        ASSERT_NO_FATAL_FAILURE(expect_free(*pool, free));
    }
    EXPECT_EQ(0U, pool->stats().double_free);
    pool->flush(0);
    pool->flush(1);
    std::vector<FragmentRun> runs(192);
    EXPECT_EQ(3U, pool->alloc_runs(kNoLcore, 192, runs.data()));
}

} // namespace
} // namespace devmem::test
