// SPDX-License-Identifier: BSD-3-Clause
// Fragments with several holders, and fragments that other processes took.
#include <barrier>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/page_pool/pool_model.h"

namespace devmem::test {
namespace {

class PagePoolHolders : public testing::Test {
protected:
    static constexpr PagePoolConfig kConfig{"held", 8 * 16, 16, 2};
    PoolMemory pool{kConfig};
    PoolModel model{kConfig};

    void SetUp() override
    {
        fill(*pool);
        model.drop({0, 8 * 16});
    }
    FragmentRun get(std::uint32_t caller, std::uint32_t n, std::uint32_t process = 0)
    {
        FragmentRun run{};
        EXPECT_EQ(0, pool->alloc_adjacent(caller, n, &run));
        model.take(run, process);
        return run;
    }
    void hold(FragmentRun run)
    {
        ASSERT_EQ(0, pool->hold_run(run));
        model.hold(run);
    }
    void put(std::uint32_t caller, FragmentRun run)
    {
        ASSERT_EQ(0, pool->free_run(caller, run));
        model.drop(run);
    }
};

TEST_F(PagePoolHolders, FreesAtTheLast)
{
    for (const std::uint32_t caller : {0U, 1U, kNoLcore}) {
        const FragmentRun run = get(caller, 8);
        hold(run);
        hold({run.first + 2, 4});
        model.expect(*pool);
        EXPECT_EQ(2U, pool->holders(run.first));
        EXPECT_EQ(3U, pool->holders(run.first + 2));
        EXPECT_EQ(0xffU << run.first % 16, pool->view(run.first / 16).shared);
        put(1, {run.first, 3});
        put(kNoLcore, run);
        model.expect(*pool);
        put(0, {run.first + 3, 5});
        model.expect(*pool);
        put(caller, {run.first + 2, 4});
        model.expect(*pool);
        EXPECT_EQ(0U, pool->holders(run.first + 2));
        EXPECT_FALSE(pool->is_in_use());
    }
    EXPECT_EQ(3U * (8 + 4), pool->stats().recycle_released_refcnt);
}

TEST_F(PagePoolHolders, OneFreeTooManyIsRefused)
{
    std::uint64_t refusals = 0;
    for (const std::uint32_t caller : {0U, 1U, kNoLcore}) {
        const FragmentRun run = get(0, 3);
        const FragmentRun middle{run.first + 1, 1};
        hold(middle);
        put(caller, run);
        RefusedFree refused{};
        EXPECT_EQ(-EALREADY, pool->free_run(caller, run, &refused)); // the middle one goes
        EXPECT_EQ(run.first % 16, refused.fragment);
        model.drop(middle);
        refusals += 2;
        EXPECT_EQ(-EALREADY, pool->free_run(caller, middle, &refused));
        EXPECT_EQ(middle.first % 16, refused.fragment);
        EXPECT_EQ(++refusals, pool->stats().double_free);
        model.expect(*pool);
    }
}

TEST_F(PagePoolHolders, OnlyWhatIsOutCanBeHeld)
{
    const FragmentRun run = get(0, 4);
    for (const FragmentRun wrong : {FragmentRun{8 * 16, 1},
                                    {8 * 16 - 1, 2},
                                    {run.first, 0},
                                    {run.first, 17},
                                    {run.first + 1, 16},
                                    {UINT32_MAX, 1}})
        EXPECT_EQ(-EINVAL, pool->hold_run(wrong)) << wrong.first << ' ' << wrong.count;
    // The rest of the page is lcore 0's, which has not handed it out.
    EXPECT_EQ(-ENOENT, pool->hold_run({run.first + 4, 1}));
    EXPECT_EQ(-ENOENT, pool->hold_run({run.first + 3, 2}));
    put(0, {run.first + 1, 1});
    EXPECT_EQ(-ENOENT, pool->hold_run(run));
    pool->flush(0);
    EXPECT_EQ(-ENOENT, pool->hold_run(run));
    EXPECT_EQ(-ENOENT, pool->hold_run({(run.first + 16) % 128, 1}));
    std::uint32_t page;
    ASSERT_EQ(1U, pool->withdraw(1, 1, &page));
    EXPECT_EQ(-ENOENT, pool->hold_run({page * 16, 1}));
    EXPECT_EQ(0U, pool->holders(page * 16));
    EXPECT_EQ(0U, pool->holders(8 * 16));
    ASSERT_EQ(0, pool->insert(1, page));
    model.expect(*pool);
}

TEST_F(PagePoolHolders, NoMoreThan65536)
{
    const FragmentRun run = get(0, 3);
    const FragmentRun middle{run.first + 1, 1};
    for (int i = 1; i < 65536; ++i)
        hold(middle);
    EXPECT_EQ(65536U, pool->holders(middle.first));
    EXPECT_EQ(-EOVERFLOW, pool->hold_run(middle));
    EXPECT_EQ(-EOVERFLOW, pool->hold_run(run));
    EXPECT_EQ(-EOVERFLOW, pool->hold_run({run.first, 2}));
    model.expect(*pool);
    hold({run.first, 1}); // and so its first has one holder more, and its last one
    model.expect(*pool);
    put(0, {run.first, 1});
    put(0, {run.first, 1});
    put(0, {run.first + 2, 1});
    for (int i = 0; i < 65536; ++i)
        put(i % 2 == 0 ? 0 : kNoLcore, middle);
    model.expect(*pool);
    EXPECT_EQ(-EALREADY, pool->free_run(0, middle));
    EXPECT_EQ(65536U, pool->stats().recycle_released_refcnt);
}

// Holders let go of a run at the same time: each fragment is put exactly once.
TEST_F(PagePoolHolders, LetGoAtTheSameTime)
{
    constexpr unsigned kThreads = 3;
    constexpr int kRounds = 3000;
    FragmentRun run{};
    std::barrier<> turn{kThreads + 1};
    std::vector<std::thread> threads;
    for (unsigned who = 0; who < kThreads; ++who) {
        threads.emplace_back([&, who] {
            std::mt19937 random{who};
            const std::uint32_t caller = who < 2 ? who : kNoLcore;
            for (int round = 0; round < kRounds; ++round) {
                turn.arrive_and_wait();
                // Take some more, and let go of those and one's own in pieces.
                const FragmentRun more{run.first + static_cast<std::uint32_t>(random() % 8),
                                       1 + static_cast<std::uint32_t>(random() % 8)};
                ASSERT_EQ(0, pool->hold_run(more));
                const auto cut = static_cast<std::uint32_t>(1 + random() % 14);
                ASSERT_EQ(0, pool->free_run(caller, {run.first, cut}));
                ASSERT_EQ(0, pool->free_run(caller, {run.first + cut, 15 - cut}));
                ASSERT_EQ(0, pool->free_run(caller, more));
                turn.arrive_and_wait();
            }
        });
    }
    std::uint64_t holders = 0;
    for (int round = 0; round < kRounds; ++round) {
        run = get(kNoLcore, 15); // the page has one fragment more: it is given along
        EXPECT_EQ(0, pool->free_run(kNoLcore, {run.first + 15, 1}));
        for (unsigned i = 1; i < kThreads; ++i)
            ASSERT_EQ(0, pool->hold_run({run.first, 15}));
        holders += 15 * (kThreads - 1);
        turn.arrive_and_wait();
        turn.arrive_and_wait();
        model.drop(run);
        ASSERT_FALSE(pool->is_in_use());
        ASSERT_EQ(8U * 16, pool->free_count());
        ASSERT_EQ(pool->stats().hold, pool->stats().release);
    }
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_EQ(0U, pool->stats().double_free);
    EXPECT_GT(pool->stats().recycle_released_refcnt, holders) << "and what they took themselves";
}

// ---- other processes

TEST_F(PagePoolHolders, OtherProcessesAreNamed)
{
    const FragmentRun ours = get(0, 5);
    const FragmentRun theirs = get(caller_of_process(1), 5, 1);
    const FragmentRun last = get(caller_of_process(kMaxProcess), 3, kMaxProcess);
    std::uint32_t single;
    ASSERT_EQ(0, pool->alloc(caller_of_process(7), 1, &single));
    model.take({single, 1}, 7);
    FragmentRun runs[20];
    const unsigned n = pool->alloc_runs(caller_of_process(2), 20, runs);
    ASSERT_NE(0U, n);
    for (unsigned i = 0; i < n; ++i)
        model.take(runs[i], 2);
    model.expect(*pool);
    EXPECT_EQ(0U, pool->process_of(ours.first));
    EXPECT_EQ(1U, pool->process_of(theirs.first));
    EXPECT_EQ(kMaxProcess, pool->process_of(last.first));
    EXPECT_EQ(7U, pool->process_of(single));
    EXPECT_EQ(0U, pool->process_of(8 * 16));

    // A get that fails leaves no mark, and a fragment that was put has none.
    std::vector<FragmentRun> many(8 * 16);
    EXPECT_EQ(0U, pool->alloc_runs(caller_of_process(3), 8 * 16, many.data()));
    put(0, theirs);
    put(caller_of_process(1), last);
    put(0, ours);
    model.expect(*pool);
    get(1, 16);
    model.expect(*pool);
}

TEST_F(PagePoolHolders, ReclaimGivesBackWhatAProcessTook)
{
    const FragmentRun ours = get(0, 5);
    const FragmentRun other = get(caller_of_process(2), 5, 2);
    const FragmentRun theirs = get(caller_of_process(3), 5, 3);
    hold({theirs.first, 2}); // we hold two of them, too
    hold(ours);
    put(0, {theirs.first + 4, 1});
    for (std::uint32_t f = theirs.first; f < theirs.first + 4; ++f)
        EXPECT_EQ(3U, pool->process_of(f));

    for (const std::uint32_t nobody : {0U, 4U, kMaxProcess + 1, UINT32_MAX})
        EXPECT_EQ(0U, pool->reclaim(0, nobody));
    model.expect(*pool);
    EXPECT_EQ(4U, model.reclaim(3));
    EXPECT_EQ(4U, pool->reclaim(1, 3));
    model.expect(*pool);
    EXPECT_EQ(1U, pool->holders(theirs.first)) << "it is still ours";
    EXPECT_EQ(0U, pool->process_of(theirs.first)) << "and ours alone";
    EXPECT_EQ(0U, pool->holders(theirs.first + 2));
    EXPECT_EQ(0U, pool->reclaim(1, 3));
    EXPECT_EQ(2U, pool->process_of(other.first));

    put(kNoLcore, {theirs.first, 2});
    put(kNoLcore, ours);
    put(kNoLcore, ours);
    model.reclaim(2);
    EXPECT_EQ(5U, pool->reclaim(kNoLcore, 2));
    model.expect(*pool);
    EXPECT_EQ(0U, pool->stats().double_free);
    EXPECT_FALSE(pool->is_in_use());
}

// A real process: it finds what our lcore keeps, and is gone without a word.
TEST(PagePoolProcess, Dies)
{
    const PagePoolConfig config{"both", 8 * 64, 64, 1};
    void* block = mmap(nullptr, PagePool::bytes(config), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(MAP_FAILED, block);
    PagePool* pool = PagePool::create(block, config);
    fill(*pool);
    std::vector<FragmentRun> runs(8 * 64);
    ASSERT_EQ(8U, pool->alloc_runs(0, 8 * 64, runs.data()));
    for (std::uint32_t page = 0; page < 8; ++page)
        ASSERT_EQ(0, pool->free_run(0, {page * 64, page == 0 ? 63U : 64U}));

    const pid_t child = fork();
    ASSERT_NE(-1, child);
    if (child == 0) {
        const std::uint32_t self = caller_of_process(5);
        bool ok = pool->alloc_runs(self, 7 * 64 + 63, runs.data()) != 0;
        ok = ok && pool->free_run(self, {64, 64}) == 0 && pool->free_run(self, {128, 1}) == 0;
        ok = ok && pool->free_run(self, {63, 1}) == 0 && pool->hold_run({129, 1}) == 0;
        _exit(ok ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    ASSERT_EQ(0, status);
    EXPECT_EQ(66U, pool->free_count());
    EXPECT_EQ(5U, pool->process_of(130));
    EXPECT_EQ(7 * 64U + 63 - 65, pool->reclaim(0, 5));
    EXPECT_EQ(8 * 64U - 1, pool->free_count());
    EXPECT_EQ(1U, pool->holders(129)) << "held, nobody knows by whom";
    EXPECT_EQ(0, pool->free_run(0, {129, 1}));
    pool->flush(0);
    EXPECT_EQ(8U, pool->alloc_runs(0, 8 * 64, runs.data()));
    munmap(block, PagePool::bytes(config));
}

// A process is killed in the middle of whatever it does. What it had is given back, but for what
// was on its way; what is ours stays ours; and nobody hangs.
TEST(PagePoolProcess, IsKilled)
{
    constexpr std::uint32_t kFragments = 64 * 16;
    const PagePoolConfig config{"killed", kFragments, 16, 1};
    void* block = mmap(nullptr, PagePool::bytes(config), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(MAP_FAILED, block);
    for (unsigned round = 0; round < 20; ++round) {
        PagePool* pool = PagePool::create(block, config);
        fill(*pool);
        std::vector<FragmentRun> runs(100);
        const pid_t child = fork();
        ASSERT_NE(-1, child);
        if (child == 0) {
            std::mt19937 random{round};
            for (;;) {
                const unsigned n =
                    pool->alloc_runs(caller_of_process(5),
                                     static_cast<std::uint32_t>(1 + random() % 100), runs.data());
                for (unsigned i = 0; i < n; ++i)
                    pool->free_run(caller_of_process(5), runs[i]);
            }
        }
        // Meanwhile we get and put, and keep some.
        std::mt19937 random{round + 100};
        std::vector<bool> ours(kFragments, false);
        std::uint32_t kept = 0;
        const auto end =
            std::chrono::steady_clock::now() + std::chrono::microseconds{500 + 300 * round};
        while (std::chrono::steady_clock::now() < end) {
            const unsigned n =
                pool->alloc_runs(0, static_cast<std::uint32_t>(1 + random() % 40), runs.data());
            for (unsigned i = 0; i < n; ++i) {
                if (kept < 300 && random() % 8 == 0) {
                    for (std::uint32_t f = 0; f < runs[i].count; ++f)
                        ours.at(runs[i].first + f) = true;
                    kept += runs[i].count;
                } else {
                    ASSERT_EQ(0, pool->free_run(0, runs[i]));
                }
            }
        }
        ASSERT_EQ(0, kill(child, SIGKILL));
        ASSERT_EQ(child, waitpid(child, nullptr, 0));
        pool->reclaim(0, 5);
        EXPECT_EQ(0U, pool->reclaim(0, 5));

        std::vector<bool> seen = ours;
        std::uint32_t got = 0;
        for (std::uint32_t f; pool->alloc(0, 1, &f) == 0; ++got) {
            ASSERT_FALSE(seen.at(f)) << "fragment " << f;
            seen[f] = true;
        }
        // One get, or the pages it moved.
        EXPECT_LE(kFragments - kept - got, 100U + 8 * 16);
        for (std::uint32_t f = 0; f < kFragments; ++f) {
            ASSERT_EQ(0U, pool->process_of(f));
            if (seen[f]) {
                ASSERT_EQ(1U, pool->holders(f));
                ASSERT_EQ(0, pool->free_run(0, {f, 1}));
            }
        }
        EXPECT_EQ(0U, pool->stats().double_free);
        std::vector<std::uint32_t> again(kept + got);
        EXPECT_EQ(0, pool->alloc(0, kept + got, again.data()));
    }
    munmap(block, PagePool::bytes(config));
}

} // namespace
} // namespace devmem::test
