// SPDX-License-Identifier: BSD-3-Clause
// The page pool against a bitmap, by one thread in the role of several callers.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <random>

#include "test/unit/page_pool/pool_fixture.h"

namespace devmem::test {
namespace {

using Free = std::vector<bool>;

/// Take runs and check them against the model: inside a page, ascending, and free until now.
unsigned take(PagePool& pool, Free& free, std::uint32_t lcore, std::uint32_t n,
              std::vector<FragmentRun>& runs)
{
    runs.resize(n);
    const unsigned count = pool.alloc_runs(lcore, n, runs.data());
    runs.resize(count);
    std::uint32_t total = 0;
    for (const FragmentRun& run : runs) {
        EXPECT_GT(run.count, 0U);
        const std::uint32_t per_page = pool.fragments_per_page();
        EXPECT_EQ(run.first / per_page, (run.first + run.count - 1) / per_page);
        for (std::uint32_t f = run.first; f < run.first + run.count; ++f) {
            EXPECT_TRUE(free.at(f)) << "fragment " << f << " handed out twice";
            free[f] = false;
        }
        total += run.count;
    }
    EXPECT_EQ(count == 0 ? 0 : n, total);
    return count;
}

struct Shape {
    std::uint32_t fragments;
    std::uint32_t per_page;
};

void PrintTo(const Shape& shape, std::ostream* out)
{
    *out << shape.fragments << " by " << shape.per_page;
}

class PagePoolShape : public testing::TestWithParam<Shape> {
protected:
    static constexpr std::uint32_t kLcores = 3;
    PoolMemory pool{{.name = "shape",
                     .fragments = GetParam().fragments,
                     .fragments_per_page = GetParam().per_page,
                     .lcores = kLcores}};
    Free free = Free(GetParam().fragments, false);
};

INSTANTIATE_TEST_SUITE_P(Shapes, PagePoolShape,
                         testing::Values(Shape{1, 1}, Shape{7, 1}, Shape{64, 64}, Shape{65, 64},
                                         Shape{1000, 64}, Shape{45 * 40, 45}, Shape{2000, 63},
                                         Shape{300, 3}, Shape{40, 64}, Shape{33 * 64, 64}));

TEST_P(PagePoolShape, StartsWithEverythingTaken)
{
    expect_free(*pool, free);
    FragmentRun run;
    EXPECT_EQ(0U, pool->alloc_runs(0, 1, &run));
    fill(*pool);
    free.assign(free.size(), true);
    expect_free(*pool, free);
}

TEST_P(PagePoolShape, FragmentsKnowTheirPage)
{
    for (std::uint32_t f = 0; f < pool->fragments(); ++f)
        ASSERT_EQ(f / pool->fragments_per_page(), pool->page_of(f));
}

// page_of() is a division, for any number and any shape.
TEST(PagePoolDivision, IsExact)
{
    std::mt19937 random{1};
    for (std::uint32_t per_page = 1; per_page <= 64; ++per_page) {
        PoolMemory pool{{"division", per_page, per_page, 0}};
        for (int i = 0; i < 1000; ++i) {
            const auto f = static_cast<std::uint32_t>(random());
            const std::uint32_t edge = f - f % per_page;
            for (const std::uint32_t each : {f, edge, edge - 1, UINT32_MAX - f % 4096})
                ASSERT_EQ(each / per_page, pool->page_of(each)) << each << " by " << per_page;
        }
    }
}

// Random gets and puts by three lcores and by callers that are none: the words equal the model
// after every step, and a get is refused exactly if fewer fragments are free than it asks for.
TEST_P(PagePoolShape, BehavesAsABitmap)
{
    std::mt19937 random{GetParam().fragments * 64 + GetParam().per_page};
    const auto below = [&](std::size_t n) { return static_cast<std::uint32_t>(random() % n); };
    const auto any_lcore = [&] {
        const std::uint32_t lcore = below(kLcores + 1);
        return lcore == kLcores ? kNoLcore : lcore;
    };
    fill(*pool, 1);
    free.assign(free.size(), true);
    std::vector<FragmentRun> out;
    std::vector<FragmentRun> runs;

    for (int step = 0; step < 4000; ++step) {
        const auto now_free = static_cast<std::uint32_t>(std::ranges::count(free, true));
        if (below(100) == 0) {
            pool->flush(below(kLcores));
        } else if (below(2) == 0 || out.empty()) {
            const std::uint32_t most = below(8) == 0 ? pool->fragments() + 1 : 40;
            const std::uint32_t n = 1 + below(most);
            const unsigned count = take(*pool, free, any_lcore(), n, runs);
            ASSERT_EQ(now_free >= n, count != 0) << n << " of " << now_free;
            out.insert(out.end(), runs.begin(), runs.end());
        } else {
            // Put back a part of a run.
            std::swap(out[below(out.size())], out.back());
            FragmentRun& run = out.back();
            const std::uint32_t n = 1 + below(run.count);
            ASSERT_EQ(0, pool->free_run(any_lcore(), {run.first, n}));
            for (std::uint32_t i = 0; i < n; ++i)
                free[run.first + i] = true;
            run = {run.first + n, run.count - n};
            if (run.count == 0)
                out.pop_back();
        }
        if (step % 16 == 0 || pool->fragments() < 100) {
            ASSERT_NO_FATAL_FAILURE(expect_free(*pool, free));
        }
    }
    for (const FragmentRun& run : out)
        ASSERT_EQ(0, pool->free_run(0, run));
    free.assign(free.size(), true);
    expect_free(*pool, free);
    const PagePoolStats stats = pool->stats();
    EXPECT_EQ(0U, stats.double_free + stats.foreign_free);
}

// The same through alloc(), one fragment at a time: exactly all of them, each once.
TEST_P(PagePoolShape, GivesOutEveryFragmentOnce)
{
    for (const std::uint32_t lcore : {0U, kNoLcore}) {
        if (lcore == 0)
            fill(*pool);
        std::vector<std::uint32_t> taken(pool->fragments());
        for (std::uint32_t& f : taken)
            ASSERT_EQ(0, pool->alloc(lcore, 1, &f));
        std::uint32_t none;
        EXPECT_EQ(-ENOBUFS, pool->alloc(lcore, 1, &none));
        EXPECT_EQ(1U, pool->stats().alloc_failed - (lcore == 0 ? 0 : 1));
        std::vector<std::uint32_t> sorted = taken;
        std::ranges::sort(sorted);
        for (std::uint32_t f = 0; f < pool->fragments(); ++f)
            ASSERT_EQ(f, sorted[f]);
        for (const std::uint32_t f : taken)
            ASSERT_EQ(0, pool->free_run(lcore, {f, 1}));
        free.assign(free.size(), true);
        expect_free(*pool, free);
    }
}

// One random fragment of every page is held for ever: all others can still be had, by a caller of
// any kind, in gets of any size.
TEST_P(PagePoolShape, AHeldFragmentBlocksNoOther)
{
    std::mt19937 random{GetParam().fragments};
    fill(*pool);
    std::vector<std::uint32_t> all(pool->fragments());
    ASSERT_EQ(0, pool->alloc(0, pool->fragments(), all.data()));
    Free held(pool->fragments(), false);
    for (std::uint32_t page = 0; page < pool->pages(); ++page) {
        const std::uint32_t first = page * pool->fragments_per_page();
        const std::uint32_t size = std::min(pool->fragments_per_page(), pool->fragments() - first);
        held[first + random() % size] = true;
    }
    for (const std::uint32_t f : all) {
        if (!held[f]) {
            ASSERT_EQ(0, pool->free_run(f % 2, {f, 1}));
        }
    }
    const std::uint32_t rest = pool->fragments() - pool->pages();
    for (const std::uint32_t lcore : {1U, 2U, kNoLcore}) {
        std::vector<std::uint32_t> taken(rest);
        for (std::uint32_t n, got = 0; got < rest; got += n) {
            n = std::min(1 + static_cast<std::uint32_t>(random() % 33), rest - got);
            ASSERT_EQ(0, pool->alloc(lcore, n, &taken[got]));
        }
        EXPECT_EQ(0U, pool->free_count());
        Free seen = held;
        for (const std::uint32_t f : taken) {
            ASSERT_FALSE(seen[f]);
            seen[f] = true;
            ASSERT_EQ(0, pool->free_run(lcore, {f, 1}));
        }
        EXPECT_EQ(rest, pool->free_count());
    }
    EXPECT_GE(pool->stats().salvaged, rest);
}

TEST_P(PagePoolShape, RefusesADoubleFree)
{
    fill(*pool);
    std::mt19937 random{7};
    std::vector<std::uint32_t> out(1 + pool->fragments() / 2);
    ASSERT_EQ(0, pool->alloc(0, static_cast<std::uint32_t>(out.size()), out.data()));
    Free now(pool->fragments(), true);
    for (const std::uint32_t f : out)
        now[f] = false;

    std::uint64_t refusals = 0;
    for (std::uint32_t f = 0; f < pool->fragments(); ++f) {
        if (!now[f])
            continue;
        RefusedFree refused{};
        ASSERT_EQ(-EALREADY, pool->free_run(f % 3, {f, 1}, &refused));
        EXPECT_STREQ("shape", refused.pool);
        EXPECT_EQ(f / pool->fragments_per_page(), refused.page);
        EXPECT_EQ(f % pool->fragments_per_page(), refused.fragment);
        EXPECT_EQ(++refusals, pool->stats().double_free);
    }
    expect_free(*pool, now);
}

// ---- named situations

class PagePoolTest : public testing::Test {
protected:
    static constexpr std::uint32_t kPages = 64;
    PoolMemory pool{
        {.name = "named", .fragments = kPages * 64, .fragments_per_page = 64, .lcores = 2}};
};

TEST_F(PagePoolTest, RejectsWrongConfigurations)
{
    const PagePoolConfig good{.name = "x", .fragments = 1, .fragments_per_page = 1, .lcores = 0};
    EXPECT_NE(0U, PagePool::bytes(good));
    for (const std::uint32_t per_page : {0U, 65U, UINT32_MAX}) {
        PagePoolConfig bad = good;
        bad.fragments_per_page = per_page;
        EXPECT_EQ(0U, PagePool::bytes(bad));
        EXPECT_EQ(nullptr, PagePool::create(this, bad));
    }
    PagePoolConfig none = good;
    none.fragments = 0;
    EXPECT_EQ(0U, PagePool::bytes(none));

    // The largest: what does not fit into the address space is refused, and never wraps.
    for (const std::uint32_t fragments : {UINT32_MAX - 1, 1U << 31, (1U << 30) + 1, 1U << 30}) {
        PagePoolConfig large = good;
        large.fragments = fragments;
        large.fragments_per_page = 64;
        const std::size_t bytes = PagePool::bytes(large);
        const std::uint64_t needed = std::uint64_t{fragments} * 5; // an entry each, a line a page
        EXPECT_TRUE(bytes == 0 || bytes >= needed) << fragments;
        EXPECT_EQ(needed > SIZE_MAX / 2, bytes == 0) << fragments;
    }
    for (const std::uint32_t lcores : {UINT32_MAX, UINT32_MAX - kMaxProcess, 1U << 30}) {
        PagePoolConfig crowded = good;
        crowded.lcores = lcores;
        EXPECT_EQ(0U, PagePool::bytes(crowded)) << lcores;
    }

    alignas(64) std::byte misaligned[8192];
    ASSERT_LT(PagePool::bytes(good) + 8, sizeof(misaligned));
    EXPECT_EQ(nullptr, PagePool::create(misaligned + 8, good));
}

TEST_F(PagePoolTest, TruncatesItsName)
{
    const std::string name(100, 'n');
    PoolMemory named{{name.c_str(), 1, 1, 0}};
    EXPECT_EQ(std::string(31, 'n'), named->name());
}

TEST_F(PagePoolTest, HandsOutAPageAscending)
{
    fill(*pool);
    std::uint32_t next[64];
    for (std::uint32_t& f : next)
        ASSERT_EQ(0, pool->alloc(0, 1, &f));
    for (std::uint32_t i = 0; i < 64; ++i)
        EXPECT_EQ(next[0] + i, next[i]);
    EXPECT_EQ(0U, next[0] % 64);
}

// What comes back behind the point reached in a page does not cut up the runs that follow.
TEST_F(PagePoolTest, DoesNotTurnBackInAPage)
{
    fill(*pool);
    FragmentRun run;
    FragmentRun next;
    ASSERT_EQ(1U, pool->alloc_runs(0, 20, &run));
    ASSERT_EQ(0, pool->free_run(1, {run.first + 3, 1}));
    ASSERT_EQ(0, pool->free_run(1, {run.first + 7, 5}));
    ASSERT_EQ(1U, pool->alloc_runs(0, 44, &next));
    EXPECT_EQ(run.first + 20, next.first);
    EXPECT_EQ(44U, next.count);
}

// When all of it has come back the page is the next one again: it is cache-hot.
TEST_F(PagePoolTest, TakesThePageThatIsWholeAgain)
{
    fill(*pool);
    FragmentRun first;
    ASSERT_EQ(1U, pool->alloc_runs(0, 32, &first));
    ASSERT_EQ(0, pool->free_run(0, first));
    for (std::uint32_t i = 1; i < 20; ++i) {
        FragmentRun again;
        ASSERT_EQ(1U, pool->alloc_runs(0, 32, &again));
        EXPECT_EQ(first.first + 32 * (i % 2), again.first);
        ASSERT_EQ(0, pool->free_run(0, again));
    }
}

// Last in, first out: through an lcore's own stack, and through the list, where another lcore
// frees.
TEST_F(PagePoolTest, TakesTheLastPageFirst)
{
    fill(*pool);
    for (const std::uint32_t freeing : {0U, 1U, kNoLcore}) {
        FragmentRun a;
        FragmentRun b;
        FragmentRun c;
        pool->flush(0);
        ASSERT_EQ(1U, pool->alloc_runs(0, 64, &a));
        ASSERT_EQ(1U, pool->alloc_runs(0, 64, &b));
        if (freeing != 0)
            pool->flush(0);
        ASSERT_EQ(0, pool->free_run(freeing, a));
        ASSERT_EQ(0, pool->free_run(freeing, b));
        ASSERT_EQ(1U, pool->alloc_runs(0, 64, &c));
        EXPECT_EQ(b.first, c.first);
        ASSERT_EQ(0, pool->free_run(freeing, c));
    }
}

TEST_F(PagePoolTest, RefusesPartOfAFree)
{
    fill(*pool);
    FragmentRun run;
    ASSERT_EQ(1U, pool->alloc_runs(0, 10, &run));
    ASSERT_EQ(0, pool->free_run(0, {run.first + 4, 1}));
    RefusedFree refused;
    EXPECT_EQ(-EALREADY, pool->free_run(0, run, &refused));
    EXPECT_EQ(run.first / 64, refused.page);
    EXPECT_EQ(4U, refused.fragment);
    EXPECT_EQ(1U, pool->stats().double_free);
    expect_free(*pool, Free(kPages * 64, true));
}

TEST_F(PagePoolTest, RefusesAForeignFree)
{
    fill(*pool);
    FragmentRun run;
    ASSERT_EQ(1U, pool->alloc_runs(0, 64, &run));
    Free free(kPages * 64, true);
    for (std::uint32_t i = 0; i < 64; ++i)
        free[run.first + i] = false;
    const FragmentRun wrong[] = {
        {kPages * 64, 1},        // beyond
        {UINT32_MAX, 1},         // far beyond
        {kPages * 64 - 1, 2},    // over the end
        {run.first + 60, 5},     // across a page
        {run.first, 0},          // nothing
        {run.first, UINT32_MAX}, // wraps
        {run.first + 1, 64},     // longer than what is left of the page
    };
    std::uint64_t count = 0;
    for (const FragmentRun& bad : wrong) {
        EXPECT_EQ(-EINVAL, pool->free_run(0, bad));
        EXPECT_EQ(++count, pool->stats().foreign_free);
    }
    expect_free(*pool, free);
}

// A get that cannot be served leaves no trace but its count.
TEST_F(PagePoolTest, TakesAllOrNothing)
{
    fill(*pool);
    std::vector<FragmentRun> runs(kPages * 64 + 1);
    ASSERT_EQ(1U, pool->alloc_runs(1, 5, runs.data()));
    const FragmentRun held = runs[0];
    Free free(kPages * 64, true);
    for (std::uint32_t i = 0; i < held.count; ++i)
        free[held.first + i] = false;
    for (const std::uint32_t lcore : {0U, 1U, kNoLcore}) {
        EXPECT_EQ(0U, pool->alloc_runs(lcore, kPages * 64 - 4, runs.data()));
        EXPECT_EQ(0U, pool->alloc_runs(lcore, UINT32_MAX, runs.data()));
        expect_free(*pool, free);
    }
    EXPECT_EQ(6U, pool->stats().alloc_failed);
    EXPECT_NE(0U, pool->alloc_runs(0, kPages * 64 - 5, runs.data()));
    EXPECT_EQ(0U, pool->free_count());
}

// Whole pages in another lcore's stack and the page it hands out are a last resort, but no less
// free.
TEST_F(PagePoolTest, ReachesWhatOtherLcoresKeep)
{
    fill(*pool);
    std::vector<std::uint32_t> all(kPages * 64);
    ASSERT_EQ(0, pool->alloc(0, kPages * 64, all.data()));
    for (const std::uint32_t f : all)
        ASSERT_EQ(0, pool->free_run(0, {f, 1}));
    std::uint32_t one;
    ASSERT_EQ(0, pool->alloc(0, 1, &one)); // makes a page current
    EXPECT_EQ(0, pool->alloc(1, kPages * 64 - 1, all.data()));
    EXPECT_EQ(0U, pool->free_count());
    // Lcore 0 copes with having been robbed.
    for (std::uint32_t i = 0; i < kPages * 64 - 1; ++i)
        ASSERT_EQ(0, pool->free_run(1, {all[i], 1}));
    ASSERT_EQ(0, pool->free_run(1, {one, 1}));
    expect_free(*pool, Free(kPages * 64, true));
    EXPECT_EQ(0, pool->alloc(0, kPages * 64, all.data()));
}

// After flush() another lcore finds whole pages, and need not salvage.
TEST_F(PagePoolTest, FlushGivesPagesBack)
{
    fill(*pool);
    std::vector<FragmentRun> runs(kPages * 64);
    const unsigned n = pool->alloc_runs(0, kPages * 64, runs.data());
    for (unsigned i = 0; i < n; ++i)
        ASSERT_EQ(0, pool->free_run(0, runs[i]));
    FragmentRun run;
    ASSERT_EQ(1U, pool->alloc_runs(0, 1, &run));
    ASSERT_EQ(0, pool->free_run(0, run));
    pool->flush(0);
    EXPECT_EQ(kPages, pool->alloc_runs(1, kPages * 64, runs.data()));
    EXPECT_EQ(0U, pool->stats().salvaged);
}

TEST_F(PagePoolTest, CountsWherePagesCameFromAndWentTo)
{
    fill(*pool); // new pages are the provider's
    PagePoolStats s = pool->stats();
    EXPECT_EQ(0U, s.recycle_ring + s.recycle_cached);
    EXPECT_EQ(s.hold, s.release);

    std::vector<FragmentRun> runs(40 * 64);
    ASSERT_EQ(40U, pool->alloc_runs(0, 40 * 64, runs.data()));
    s = pool->stats();
    EXPECT_EQ(40U, s.alloc_fast + s.alloc_slow); // each page once,
    EXPECT_EQ(5U, s.alloc_slow);                 // eight at a time
    EXPECT_EQ(0U, s.alloc_refill + s.alloc_slow_high_order);
    EXPECT_EQ(40U, s.hold - s.release);
    for (unsigned i = 0; i < 40; ++i)
        ASSERT_EQ(0, pool->free_run(0, runs[i]));
    s = pool->stats();
    EXPECT_EQ(40U, s.recycle_cached);
    EXPECT_EQ(24U, s.recycle_cache_full); // the stack has room for 16
    EXPECT_EQ(24U, s.recycle_ring);
    EXPECT_EQ(s.hold, s.release);
    ASSERT_EQ(17U, pool->alloc_runs(0, 17 * 64, runs.data()));
    s = pool->stats();
    EXPECT_EQ(35U + 16U, s.alloc_fast);
    EXPECT_EQ(1U, s.alloc_refill);
    EXPECT_EQ(0U, s.alloc_empty + s.salvaged + s.alloc_failed + s.stolen);
}

// The block can be moved: nothing in it is a pointer.
TEST_F(PagePoolTest, CanBeRelocated)
{
    fill(*pool);
    std::uint32_t taken[100];
    ASSERT_EQ(0, pool->alloc(0, 100, taken));
    const PagePoolConfig config{"moved", kPages * 64, 64, 2};
    PoolMemory moved{config};
    std::memcpy(static_cast<void*>(&*moved), static_cast<const void*>(&*pool),
                PagePool::bytes(config));
    PagePool& copy = *moved;
    std::memset(static_cast<void*>(&*pool), 0xa5, PagePool::bytes(config));
    for (const std::uint32_t f : taken)
        ASSERT_EQ(0, copy.free_run(0, {f, 1}));
    expect_free(copy, Free(kPages * 64, true));
    std::vector<std::uint32_t> all(kPages * 64);
    EXPECT_EQ(0, copy.alloc(1, kPages * 64, all.data()));
}

} // namespace
} // namespace devmem::test
