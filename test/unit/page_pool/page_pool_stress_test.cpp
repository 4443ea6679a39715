// SPDX-License-Identifier: BSD-3-Clause
// The page pool under threads. Every fragment has an owner word outside the pool: a fragment handed
// out twice meets itself there.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "test/unit/page_pool/pool_fixture.h"

namespace devmem::test {
namespace {

using namespace std::chrono_literals;

class Owners {
public:
    explicit Owners(std::uint32_t fragments) : owner_(fragments) {}

    void take(const FragmentRun& run, unsigned who)
    {
        for (std::uint32_t f = run.first; f < run.first + run.count; ++f)
            ASSERT_EQ(0U, owner_[f].exchange(who, std::memory_order_relaxed));
    }
    void drop(const FragmentRun& run, unsigned who)
    {
        for (std::uint32_t f = run.first; f < run.first + run.count; ++f)
            ASSERT_EQ(who, owner_[f].exchange(0, std::memory_order_relaxed));
    }

private:
    std::vector<std::atomic<unsigned>> owner_;
};

struct Role {
    std::uint32_t lcore;
    std::uint32_t most; ///< fragments it has at a time
};

/// Threads that each get up to `most` fragments in gets of all sizes and put them back in pieces
/// and out of order. As all the `most` together are at most the pool, no get may ever fail.
void exercise(PagePool& pool, const std::vector<Role>& roles, std::chrono::milliseconds how_long)
{
    Owners owners{pool.fragments()};
    std::uint32_t demand = 0;
    for (const Role& role : roles)
        demand += role.most;
    const bool may_fail = demand > pool.fragments();
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> rounds{0};
    std::vector<std::thread> threads;
    for (unsigned who = 1; who <= roles.size(); ++who) {
        threads.emplace_back([&, who, role = roles[who - 1]] {
            std::mt19937 random{who};
            const auto below = [&](std::size_t n) {
                return static_cast<std::uint32_t>(random() % n);
            };
            std::vector<FragmentRun> held;
            std::vector<FragmentRun> runs(role.most);
            std::uint32_t have = 0;
            std::uint64_t done = 0;
            for (; !stop.load(std::memory_order_relaxed); ++done) {
                if (have < role.most && below(2) == 0) {
                    const std::uint32_t n = 1 + below(role.most - have);
                    const unsigned count = pool.alloc_runs(role.lcore, n, runs.data());
                    if (count == 0) {
                        ASSERT_TRUE(may_fail) << "lcore " << role.lcore << " wanted " << n;
                        continue;
                    }
                    for (unsigned i = 0; i < count; ++i) {
                        owners.take(runs[i], who);
                        held.push_back(runs[i]);
                    }
                    have += n;
                } else if (!held.empty()) {
                    std::swap(held[below(held.size())], held.back());
                    FragmentRun& run = held.back();
                    const FragmentRun part{run.first, 1 + below(run.count)};
                    owners.drop(part, who);
                    ASSERT_EQ(0, pool.free_run(role.lcore, part));
                    have -= part.count;
                    run = {run.first + part.count, run.count - part.count};
                    if (run.count == 0)
                        held.pop_back();
                }
            }
            for (const FragmentRun& run : held) {
                owners.drop(run, who);
                ASSERT_EQ(0, pool.free_run(role.lcore, run));
            }
            rounds += done;
        });
    }
    std::this_thread::sleep_for(how_long);
    stop = true;
    for (std::thread& thread : threads)
        thread.join();

    EXPECT_GT(rounds, 1000U);
    expect_free(pool, std::vector<bool>(pool.fragments(), true));
    const PagePoolStats before = pool.stats();
    EXPECT_EQ(0U, before.double_free + before.foreign_free);
    // No page was lost from the lists: they yield all of them, and nothing need be salvaged.
    for (const Role& role : roles)
        pool.flush(role.lcore);
    std::vector<FragmentRun> all(pool.fragments());
    EXPECT_EQ(pool.pages(), pool.alloc_runs(kNoLcore, pool.fragments(), all.data()));
    EXPECT_EQ(before.salvaged, pool.stats().salvaged);
}

TEST(PagePoolStress, PlentyOfPages)
{
    PoolMemory pool{{"plenty", 64 * 64, 64, 4}};
    fill(*pool);
    exercise(*pool, {{0, 500}, {1, 500}, {2, 500}, {3, 500}}, 500ms);
}

TEST(PagePoolStress, EveryFragmentInUse)
{
    PoolMemory pool{{"tight", 4 * 45 * 16, 45, 3}};
    fill(*pool);
    const std::uint32_t quarter = pool->fragments() / 4;
    exercise(*pool, {{0, quarter}, {1, quarter}, {2, quarter}, {kNoLcore, quarter}}, 500ms);
    EXPECT_GT(pool->stats().salvaged, 0U);
}

// Gets that find only a part of what they want, all the time, and give it back to each other.
TEST(PagePoolStress, MoreWantedThanThereIs)
{
    PoolMemory pool{{"scarce", 240, 6, 3}};
    fill(*pool);
    exercise(*pool, {{0, 120}, {1, 120}, {2, 120}, {kNoLcore, 120}, {kNoLcore, 120}}, 500ms);
    EXPECT_GT(pool->stats().alloc_failed, 0U);
}

TEST(PagePoolStress, OnePage)
{
    PoolMemory pool{{"one", 64, 64, 2}};
    fill(*pool);
    exercise(*pool, {{0, 16}, {1, 16}, {kNoLcore, 16}, {kNoLcore, 16}}, 300ms);
}

TEST(PagePoolStress, OneFragmentPages)
{
    PoolMemory pool{{"ones", 48, 1, 3}};
    fill(*pool);
    exercise(*pool, {{0, 12}, {1, 12}, {2, 12}, {kNoLcore, 12}}, 300ms);
}

TEST(PagePoolStress, NoLcores)
{
    PoolMemory pool{{"anyone", 1000, 10, 0}};
    fill(*pool);
    exercise(*pool, {{kNoLcore, 333}, {kNoLcore, 333}, {kNoLcore, 334}}, 300ms);
}

// A receiver and a returner: the usual traffic. Pages must reach the receiver whole.
TEST(PagePoolStress, OneGetsAnotherPuts)
{
    PoolMemory pool{{"pipe", 64 * 64, 64, 2}};
    fill(*pool);
    std::array<std::atomic<std::uint64_t>, 64> pipe{}; // {first:32, count:32}; 0: empty
    constexpr std::uint64_t kEnd = UINT64_MAX;
    std::uint64_t moved = 0;

    std::thread getter{[&] {
        const auto end = std::chrono::steady_clock::now() + 400ms;
        std::size_t at = 0;
        const auto send = [&](std::uint64_t value) {
            while (pipe[at].load(std::memory_order_acquire) != 0)
                std::this_thread::yield();
            pipe[at].store(value, std::memory_order_release);
            at = (at + 1) % pipe.size();
        };
        std::vector<FragmentRun> runs(32);
        while (std::chrono::steady_clock::now() < end) {
            const unsigned count = pool->alloc_runs(0, 32, runs.data());
            EXPECT_NE(0U, count);
            for (unsigned i = 0; i < count; ++i) {
                send(std::uint64_t{runs[i].first} << 32 | runs[i].count);
                moved += runs[i].count;
            }
        }
        send(kEnd);
    }};
    for (std::size_t at = 0;; at = (at + 1) % pipe.size()) {
        std::uint64_t run;
        while ((run = pipe[at].exchange(0, std::memory_order_acq_rel)) == 0)
            std::this_thread::yield();
        if (run == kEnd)
            break;
        EXPECT_EQ(0, pool->free_run(1, {static_cast<std::uint32_t>(run >> 32),
                                        static_cast<std::uint32_t>(run)}));
    }
    getter.join();
    EXPECT_GT(moved, 10000U);
    expect_free(*pool, std::vector<bool>(pool->fragments(), true));
    EXPECT_EQ(0U, pool->stats().salvaged);
    EXPECT_EQ(0U, pool->stats().recycle_cached) << "an lcore that only puts keeps no pages";
}

/// Gets of both kinds, second holders, and puts in pieces, of whatever there is.
void come_and_go(PagePool& pool, Owners& owners, std::uint32_t lcore, unsigned who,
                 const std::atomic<bool>& stop)
{
    std::mt19937 random{who};
    const auto below = [&](std::size_t n) { return static_cast<std::uint32_t>(random() % n); };
    struct Held {
        FragmentRun run;
        bool twice;
    };
    std::vector<Held> held;
    std::vector<FragmentRun> runs(64);
    const auto put = [&](FragmentRun run, bool twice) {
        if (twice) {
            ASSERT_EQ(0, pool.free_run(lcore, run));
        }
        owners.drop(run, who);
        ASSERT_EQ(0, pool.free_run(lcore, run));
    };
    while (!stop.load(std::memory_order_relaxed)) {
        const std::uint32_t what = below(8);
        if (what < 4 && held.size() < 64) {
            unsigned count = 1;
            if (what == 0)
                count = pool.alloc_adjacent(lcore, 1 + below(pool.fragments_per_page()),
                                            runs.data()) == 0;
            else
                count = pool.alloc_runs(lcore, 1 + below(64), runs.data());
            for (unsigned i = 0; i < count; ++i) {
                owners.take(runs[i], who);
                const bool twice = below(4) == 0;
                if (twice) {
                    ASSERT_EQ(0, pool.hold_run(runs[i]));
                }
                held.push_back({runs[i], twice});
            }
        } else if (!held.empty()) {
            std::swap(held[below(held.size())], held.back());
            FragmentRun& run = held.back().run;
            const FragmentRun part{run.first, 1 + below(run.count)};
            put(part, held.back().twice);
            run = {run.first + part.count, run.count - part.count};
            if (run.count == 0)
                held.pop_back();
        }
    }
    for (const Held& each : held)
        put(each.run, each.twice);
}

// Under that traffic pages leave by every way there is, move to another node, and come back.
TEST(PagePoolStress, PagesComeAndGo)
{
    PoolMemory pool{{"moving", 40 * 16 - 5, 16, 3}};
    fill(*pool);
    Owners owners{pool->fragments()};
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (const std::uint32_t lcore : {0U, 1U, kNoLcore}) {
        threads.emplace_back(
            [&, lcore] { come_and_go(*pool, owners, lcore, 1 + std::min(lcore, 2U), stop); });
    }

    std::mt19937 random{99};
    std::vector<std::uint32_t> away;
    std::array<std::uint64_t, 3> ways{}; // withdrawn, diverted, waived
    const auto give = [&](std::uint32_t page) {
        pool->set_page_nid(page, static_cast<int>(random() % 2));
        ASSERT_EQ(0, pool->set_dma(page, (page + 1) * std::uint64_t{1} << 40 >> 10, 16));
        ASSERT_EQ(0, pool->insert(2, page));
    };
    const auto own = [&](std::uint32_t page) {
        // It is the provider's alone.
        owners.take({page * 16, page == 39 ? 11U : 16U}, 9);
        owners.drop({page * 16, page == 39 ? 11U : 16U}, 9);
        away.push_back(page);
    };
    const auto start = std::chrono::steady_clock::now();
    const auto took = [&] { return std::chrono::steady_clock::now() - start; };
    while (took() < 500ms || (std::ranges::min(ways) < 10 && took() < 10s)) {
        std::uint32_t pages[4];
        const std::uint32_t n = pool->withdraw(2, static_cast<std::uint32_t>(random() % 4), pages);
        for (std::uint32_t i = 0; i < n; ++i)
            own(pages[i]);
        ways[0] += n;
        PagePool::Diverted diverted{};
        while (pool->fetch_diverted(&diverted)) {
            ++ways[diverted.waived ? 2 : 1];
            own(diverted.index);
        }
        pool->update_nid(static_cast<int>(random() % 3) - 1);
        pool->divert(static_cast<std::uint32_t>(random() % 3));
        while (away.size() > 20 || (!away.empty() && random() % 4 != 0)) {
            std::swap(away[random() % away.size()], away.back());
            give(away.back());
            away.pop_back();
        }
    }
    stop = true;
    for (std::thread& thread : threads)
        thread.join();
    for (const std::uint64_t n : ways)
        EXPECT_GE(n, 10U);
    pool->update_nid(-1);
    pool->divert(0);
    PagePool::Diverted diverted{};
    while (pool->fetch_diverted(&diverted))
        own(diverted.index);
    for (const std::uint32_t page : away)
        give(page);
    EXPECT_EQ(40U, pool->present());
    expect_free(*pool, std::vector<bool>(pool->fragments(), true));
    EXPECT_EQ(0U, pool->stats().double_free + pool->stats().foreign_free);
    for (const std::uint32_t lcore : {0U, 1U, 2U})
        pool->flush(lcore);
    const std::uint64_t salvaged = pool->stats().salvaged;
    std::vector<FragmentRun> all(pool->fragments());
    EXPECT_EQ(40U, pool->alloc_runs(kNoLcore, pool->fragments(), all.data()));
    EXPECT_EQ(salvaged, pool->stats().salvaged);
}

// Retired again and again, as one does who waits: soon nothing can be taken, and with what is put
// then all pages have left.
TEST(PagePoolStress, RetiresUnderTraffic)
{
    for (int round = 0; round < 30; ++round) {
        PoolMemory pool{{"retired", 32 * 16, 16, 2}};
        fill(*pool);
        Owners owners{pool->fragments()};
        std::vector<std::thread> threads;
        std::atomic<int> running{3};
        for (const std::uint32_t lcore : {0U, 1U, kNoLcore}) {
            threads.emplace_back([&, lcore, who = 1 + std::min(lcore, 2U)] {
                std::mt19937 random{who};
                std::vector<FragmentRun> runs(20);
                for (int failed = 0; failed < 100;) { // in a row
                    const auto n = static_cast<std::uint32_t>(1 + random() % 20);
                    const unsigned count = pool->alloc_runs(lcore, n, runs.data());
                    failed = count == 0 ? failed + 1 : 0;
                    for (unsigned i = 0; i < count; ++i) {
                        owners.take(runs[i], who);
                        owners.drop(runs[i], who);
                        ASSERT_EQ(0, pool->free_run(lcore, runs[i]));
                    }
                }
                --running;
            });
        }
        std::this_thread::sleep_for(std::chrono::microseconds{200 * (round % 10)});
        do
            pool->retire(kNoLcore);
        while (running != 0);
        for (std::thread& thread : threads)
            thread.join();
        EXPECT_TRUE(pool->retire(kNoLcore));
        ASSERT_EQ(0U, pool->present());
        ASSERT_EQ(0U, pool->free_count());
        ASSERT_EQ(pool->stats().hold, pool->stats().release);
    }
}

// While others work, the count is never below the truth, and no page is released before it is held.
TEST(PagePoolStress, CountersNeverUndershoot)
{
    PoolMemory pool{{"counters", 16 * 64, 64, 2}};
    fill(*pool);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (std::uint32_t lcore = 0; lcore < 2; ++lcore) {
        threads.emplace_back([&, lcore] {
            std::uint32_t taken[200];
            while (!stop.load(std::memory_order_relaxed)) {
                ASSERT_EQ(0, pool->alloc(lcore, 200, taken));
                for (const std::uint32_t f : taken)
                    ASSERT_EQ(0, pool->free_run(lcore, {f, 1}));
            }
        });
    }
    const auto end = std::chrono::steady_clock::now() + 300ms;
    while (std::chrono::steady_clock::now() < end) {
        ASSERT_GE(pool->free_count(), 16 * 64U - 400U);
        const PagePoolStats stats = pool->stats();
        ASSERT_GE(stats.hold, stats.release);
    }
    stop = true;
    for (std::thread& thread : threads)
        thread.join();
}

} // namespace
} // namespace devmem::test
