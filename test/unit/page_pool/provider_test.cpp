// SPDX-License-Identifier: BSD-3-Clause
// Pages that come from a provider and go back to it, and what is known about them.
#include <cerrno>
#include <chrono>
#include <set>
#include <thread>

#include "test/unit/page_pool/pool_model.h"

namespace devmem::test {
namespace {

class PagePoolProvider : public testing::Test {
protected:
    using Page = PoolModel::Page;

    static constexpr std::uint32_t kPages = 40;
    static constexpr PagePoolConfig kConfig{"given", kPages * 8 - 3, 8, 2};
    PoolMemory pool{kConfig};
    PoolModel model{kConfig};

    void SetUp() override
    {
        fill(*pool);
        model.drop({0, kConfig.fragments});
    }
    std::vector<FragmentRun> get_all(std::uint32_t caller)
    {
        const std::uint32_t n = pool->free_count();
        std::vector<FragmentRun> runs(n);
        runs.resize(pool->alloc_runs(caller, n, runs.data()));
        EXPECT_FALSE(runs.empty() && n != 0);
        for (const FragmentRun& run : runs)
            model.take(run);
        return runs;
    }
    void put(std::uint32_t caller, const std::vector<FragmentRun>& runs)
    {
        for (const FragmentRun& run : runs) {
            ASSERT_EQ(0, pool->free_run(caller, run));
            model.drop(run);
        }
    }
    bool fetch(bool waived = false)
    {
        PagePool::Diverted page{};
        if (!pool->fetch_diverted(&page))
            return false;
        EXPECT_EQ(waived, page.waived);
        model.move(page.index, Page::kProvider);
        return true;
    }
};

// Wherever a page waits: new, in the list, in any lcore's stack, with an lcore that has handed out
// nothing of it that is not back.
TEST_F(PagePoolProvider, WithdrawsEveryIdlePage)
{
    for (const std::uint32_t caller : {0U, 1U, kNoLcore}) {
        put(0, get_all(0)); // now lcore 0 has a stack, and the list has pages
        FragmentRun run{};
        ASSERT_EQ(1U, pool->alloc_runs(1, 5, &run));
        ASSERT_EQ(0, pool->free_run(1, run));
        ASSERT_EQ(1U, pool->alloc_runs(0, 5, &run));
        ASSERT_EQ(0, pool->free_run(0, {run.first + 1, 4}));
        model.take({run.first, 1});
        model.expect(*pool);

        std::vector<std::uint32_t> pages(kPages);
        ASSERT_EQ(10U, pool->withdraw(caller, 10, pages.data()));
        ASSERT_EQ(kPages - 11, pool->withdraw(caller, kPages, pages.data() + 10));
        for (std::uint32_t i = 0; i < kPages - 1; ++i)
            model.move(pages[i], Page::kProvider);
        model.expect(*pool);
        EXPECT_EQ(1U, pool->present());
        EXPECT_EQ(7U, pool->free_count());
        EXPECT_EQ(0U, pool->withdraw(caller, 1, pages.data()));
        std::uint32_t many[8];
        EXPECT_EQ(-ENOBUFS, pool->alloc(0, 8, many));

        for (std::uint32_t i = 0; i < kPages - 1; ++i) {
            ASSERT_EQ(0, pool->insert(caller, pages[i]));
            model.move(pages[i], Page::kPool);
        }
        put(1, {{run.first, 1}});
        model.expect(*pool);
    }
    EXPECT_EQ(0U, pool->stats().double_free);
}

TEST_F(PagePoolProvider, HasNothingToDoWithItsPagesMeanwhile)
{
    std::uint32_t page;
    ASSERT_EQ(1U, pool->withdraw(kNoLcore, 1, &page));
    model.move(page, Page::kProvider);
    std::uint64_t refusals = 0;
    for (const std::uint32_t caller : {0U, 1U, kNoLcore}) {
        std::vector<FragmentRun> all = get_all(caller); // 0 and 1 get, and so put off puts
        RefusedFree refused{};
        EXPECT_EQ(-EALREADY, pool->free_run(caller, {page * 8 + 2, 3}, &refused));
        EXPECT_EQ(page, refused.page);
        EXPECT_EQ(2U, refused.fragment);
        EXPECT_EQ(refusals += 3, pool->stats().double_free);
        EXPECT_EQ(-EALREADY, pool->free_run(caller, {page * 8, 8}));
        EXPECT_EQ(refusals += 8, pool->stats().double_free);
        EXPECT_EQ(0U, pool->page_word(page));
        EXPECT_FALSE(pool->view(page).present);
        EXPECT_EQ(0U, pool->view(page).out);
        put(caller, all);
        model.expect(*pool);
    }
}

TEST_F(PagePoolProvider, InsertsAPageOnce)
{
    EXPECT_EQ(-EINVAL, pool->insert(0, kPages));
    EXPECT_EQ(-EINVAL, pool->insert(0, UINT32_MAX));
    EXPECT_EQ(-EEXIST, pool->insert(0, 0));
    pool->divert(1);
    put(kNoLcore, get_all(kNoLcore));
    EXPECT_EQ(kPages - 1, pool->present());
    for (std::uint32_t page = 0; page < kPages; ++page)
        EXPECT_EQ(-EEXIST, pool->insert(0, page)) << "it is not fetched yet";
    PagePool::Diverted diverted{};
    ASSERT_TRUE(pool->fetch_diverted(&diverted));
    EXPECT_EQ(0, pool->insert(0, diverted.index));
    EXPECT_EQ(-EEXIST, pool->insert(0, diverted.index));
    model.expect(*pool);
}

// A page that comes back from the provider counts as new.
TEST_F(PagePoolProvider, InsertedPagesAreNew)
{
    put(kNoLcore, get_all(kNoLcore));
    put(kNoLcore, get_all(kNoLcore));
    // Twice in the list; the short page is apart, and so always new.
    EXPECT_EQ(2U * (kPages - 1), pool->stats().recycle_ring);
    EXPECT_EQ(kPages - 1, pool->stats().alloc_refill);
    EXPECT_EQ(kPages + 1, pool->stats().alloc_slow);
    std::vector<std::uint32_t> pages(kPages);
    ASSERT_EQ(kPages, pool->withdraw(kNoLcore, kPages, pages.data()));
    EXPECT_EQ(0U, pool->present());
    for (const std::uint32_t page : pages)
        ASSERT_EQ(0, pool->insert(1, page));
    const PagePoolStats before = pool->stats();
    get_all(kNoLcore);
    EXPECT_EQ(kPages, pool->stats().alloc_slow - before.alloc_slow);
    EXPECT_EQ(before.alloc_refill, pool->stats().alloc_refill);
}

TEST_F(PagePoolProvider, DivertsPagesThatBecomeIdle)
{
    for (const std::uint32_t caller : {0U, 1U, kNoLcore}) {
        const std::vector<FragmentRun> all = get_all(0);
        const std::uint64_t before = pool->stats().recycle_ring_full;
        pool->divert(7);
        pool->divert(3); // instead
        EXPECT_EQ(3U, pool->diverted_wanted());
        EXPECT_FALSE(fetch());
        put(caller, {all[0]});
        EXPECT_EQ(2U, pool->diverted_wanted());
        EXPECT_EQ(kPages - 1, pool->present());
        EXPECT_TRUE(fetch());
        model.expect(*pool);
        put(caller, {all.begin() + 1, all.end()});
        EXPECT_EQ(0U, pool->diverted_wanted());
        EXPECT_EQ(kPages - 3, pool->present());
        EXPECT_EQ(3U, pool->stats().recycle_ring_full - before);
        EXPECT_TRUE(fetch());
        EXPECT_TRUE(fetch());
        EXPECT_FALSE(fetch());
        model.expect(*pool);
        for (std::uint32_t page = 0; page < kPages; ++page) {
            if (!model.present(page)) {
                ASSERT_EQ(0, pool->insert(caller, page));
                model.move(page, Page::kPool);
            }
        }
        model.expect(*pool);
        pool->flush(caller);
    }
}

// Retired while all kinds of callers have something: nothing can be taken from then on.
TEST_F(PagePoolProvider, RetiresWithItsLastFragment)
{
    for (const std::uint32_t caller : {0U, 1U, kNoLcore}) {
        PoolMemory own{kConfig};
        fill(*own);
        FragmentRun held[3];
        for (const std::uint32_t lcore : {0U, 1U}) { // each has a stack, a current page, a put
            std::vector<FragmentRun> runs(40);
            const unsigned n = own->alloc_runs(lcore, 40, runs.data());
            for (unsigned i = 0; i < n; ++i)
                ASSERT_EQ(0, own->free_run(lcore, runs[i]));
            ASSERT_EQ(1U, own->alloc_runs(lcore, 5, &held[lcore]));
            ASSERT_EQ(0, own->free_run(lcore, {held[lcore].first, 2}));
        }
        ASSERT_EQ(1U, own->alloc_runs(kNoLcore, 1, &held[2]));

        EXPECT_FALSE(own->retire(caller));
        const auto nothing = [&] {
            for (const std::uint32_t who : {0U, 1U, kNoLcore, caller_of_process(1)}) {
                FragmentRun run{};
                EXPECT_EQ(0U, own->alloc_runs(who, 1, &run)) << who;
                EXPECT_EQ(-ENOBUFS, own->alloc_adjacent(who, 1, &run)) << who;
            }
        };
        nothing();
        EXPECT_EQ(3U, own->present());
        ASSERT_EQ(0, own->free_run(0, {held[0].first + 2, 3}));
        ASSERT_EQ(0, own->free_run(0, {held[1].first + 2, 2}));
        ASSERT_EQ(0, own->free_run(1, {held[1].first + 4, 1}));
        nothing();
        EXPECT_FALSE(own->retire(caller));
        EXPECT_EQ(1U, own->present());
        // Not even a page that comes too late.
        std::uint32_t late = 0;
        while (own->insert(kNoLcore, late) != 0)
            ++late;
        nothing();
        ASSERT_EQ(0, own->free_run(kNoLcore, held[2]));
        EXPECT_TRUE(own->retire(caller));
        EXPECT_EQ(0U, own->present());
        EXPECT_EQ(0U, own->free_count());
        EXPECT_FALSE(own->is_in_use());
        nothing();
    }
}

TEST_F(PagePoolProvider, TellsHowLongAPageHasBeenInUse)
{
    using namespace std::chrono;
    EXPECT_EQ(0U, pool->view(0).since_ms);
    for (const std::uint32_t caller : {0U, kNoLcore}) {
        FragmentRun run{};
        const auto before = steady_clock::now();
        ASSERT_EQ(0, pool->alloc_adjacent(caller, 2, &run));
        std::this_thread::sleep_for(60ms);
        ASSERT_EQ(0, pool->free_run(caller, {run.first, 1}));
        const std::uint32_t since = pool->view(run.first / 8).since_ms;
        const auto most = duration_cast<milliseconds>(steady_clock::now() - before).count();
        EXPECT_GE(since, 40U) << "the clock is coarse, but not that coarse";
        EXPECT_LE(since, most + 20);
        ASSERT_EQ(0, pool->free_run(caller, {run.first + 1, run.count - 1}));
        EXPECT_EQ(0U, pool->view(run.first / 8).since_ms);
    }
}

// ---- nodes

TEST_F(PagePoolProvider, PassesOverPagesOfAnotherNodeAFewAtATime)
{
    constexpr std::uint32_t kMost = kPages / 16;
    for (std::uint32_t page = 0; page < kPages; ++page)
        pool->set_page_nid(page, page % 4 == 3 ? -1 : page % 4); // -1: not known, good anywhere
    pool->update_nid(1);
    EXPECT_EQ(1, pool->nid());
    const std::uint32_t wrong = kPages / 2;

    // Nobody fetches: a few wait, and the traffic goes on with all the others.
    for (int round = 0; round < 5; ++round) {
        for (const std::uint32_t caller : {0U, 1U, kNoLcore}) {
            std::vector<FragmentRun> runs((kPages - kMost) * 8 - 8);
            runs.resize(pool->alloc_runs(caller, (kPages - kMost) * 8 - 8, runs.data()));
            ASSERT_FALSE(runs.empty());
            ASSERT_GE(pool->present(), kPages - kMost);
            for (const FragmentRun& run : runs)
                ASSERT_EQ(0, pool->free_run(caller, run));
            FragmentRun run{};
            ASSERT_EQ(0, pool->alloc_adjacent(caller, 3, &run));
            ASSERT_EQ(0, pool->free_run(caller, run));
        }
    }
    EXPECT_EQ(kMost, pool->stats().alloc_waive);
    EXPECT_EQ(kPages - kMost, pool->present());

    // The provider moves them.
    std::set<std::uint32_t> moved;
    for (int round = 0; round < 20; ++round) {
        PagePool::Diverted page{};
        while (pool->fetch_diverted(&page)) {
            EXPECT_TRUE(page.waived);
            EXPECT_TRUE(page.index % 4 == 0 || page.index % 4 == 2) << page.index;
            EXPECT_TRUE(moved.insert(page.index).second);
            pool->set_page_nid(page.index, 1);
            ASSERT_EQ(0, pool->insert(1, page.index));
        }
        ASSERT_EQ(kPages, pool->present());
        std::vector<FragmentRun> runs;
        FragmentRun run{};
        while (pool->alloc_adjacent(0, 5, &run) == 0)
            runs.push_back(run);
        ASSERT_EQ(runs.size(), pool->present());
        ASSERT_GE(pool->present(), kPages - kMost);
        for (const FragmentRun& each : runs)
            ASSERT_EQ(0, pool->free_run(1, each));
    }
    EXPECT_EQ(wrong, moved.size());
    EXPECT_EQ(wrong, pool->stats().alloc_waive);
    model.expect(*pool);

    // -1: pages may be anywhere.
    pool->update_nid(-1);
    put(0, get_all(0));
    EXPECT_EQ(wrong, pool->stats().alloc_waive);
    // A diverted page is not a waived one.
    pool->divert(1);
    put(kNoLcore, get_all(kNoLcore));
    EXPECT_TRUE(fetch());
    model.expect(*pool);
}

TEST(PagePoolNode, ASmallPoolPassesOverOneAtATime)
{
    PoolMemory pool{{"small", 32, 8, 1}};
    for (std::uint32_t page = 0; page < 4; ++page)
        pool->set_page_nid(page, 1);
    fill(*pool);
    pool->update_nid(0);
    std::uint32_t all[24];
    ASSERT_EQ(0, pool->alloc(0, 24, all));
    EXPECT_EQ(1U, pool->stats().alloc_waive);
    EXPECT_EQ(3U, pool->present());
    EXPECT_EQ(0U, pool->free_count());
}

// ---- DMA addresses

TEST(PagePoolDma, AddressesFitTheirPages)
{
    constexpr std::uint64_t kTiB = std::uint64_t{1} << 40;
    for (const unsigned shift : {12U, 14U, 16U, 21U}) {
        PoolMemory pool{{"dma", 256, 64, 0}};
        const std::uint64_t page = std::uint64_t{1} << shift;
        const std::uint64_t end = 16 * kTiB << (shift - 12);
        EXPECT_EQ(0U, pool->dma(1));
        for (const std::uint64_t address : {page, 3 * page, std::uint64_t{1} << 36,
                                            std::uint64_t{1} << 43, end / 2 + page, end - page}) {
            EXPECT_EQ(0, pool->set_dma(1, address, shift));
            EXPECT_EQ(address, pool->dma(1));
        }
        for (const std::uint64_t address :
             {end, end + page, end * 2, ~(page - 1), page + 1, page / 2, end - 1, page * 3 / 2})
            EXPECT_EQ(-ERANGE, pool->set_dma(1, address, shift)) << address;
        EXPECT_EQ(end - page, pool->dma(1)) << "it stays";
        EXPECT_EQ(0U, pool->dma(0));
        EXPECT_EQ(-EINVAL, pool->set_dma(4, page, shift));
        EXPECT_EQ(0U, pool->dma(4));
        EXPECT_EQ(0, pool->set_dma(1, 0, shift));
        EXPECT_EQ(0U, pool->dma(1));
    }
}

TEST(PagePoolDma, SmallAndAbsurdPagesAreRefused)
{
    PoolMemory pool{{"dma", 256, 64, 0}};
    for (const unsigned shift : {0U, 11U, 64U, 76U, UINT32_MAX})
        EXPECT_EQ(-ERANGE, pool->set_dma(1, std::uint64_t{1} << 21, shift)) << shift;
    EXPECT_EQ(0U, pool->dma(1));
}

} // namespace
} // namespace devmem::test
