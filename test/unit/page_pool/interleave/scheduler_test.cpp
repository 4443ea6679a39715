// SPDX-License-Identifier: BSD-3-Clause
// The scheduler itself: it finds what is wrong with programs that are known to be wrong, and what
// it leaves out as the same is the same.
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "test/unit/page_pool/interleave/interleave_sync.h"

namespace devmem::interleave {
namespace {

using sync::Atomic;
constexpr auto kRelaxed = std::memory_order_relaxed;

// ---- programs known to be wrong, and their right counterparts

/// Treiber's stack of two nodes. One thread pops all; another pops two and pushes the first back.
class Stack {
public:
    explicit Stack(bool tagged) : tag_(tagged ? 0x100 : 0) {}

    void start()
    {
        head_ = 0;
        next_[0] = 1;
        next_[1] = kNone;
        for (auto& owned : owned_)
            owned = 0;
    }
    void take_all()
    {
        for (unsigned node; (node = pop()) != kNone;)
            if (owned_[node]++ != 0)
                fail("a node has two owners");
    }
    void take_two_return_one()
    {
        const unsigned first = pop();
        const unsigned second = first == kNone ? kNone : pop();
        if (second == kNone)
            return;
        if (owned_[second]++ != 0)
            fail("a node has two owners");
        push(first);
    }

private:
    static constexpr unsigned kNone = 0xff;

    unsigned pop()
    {
        unsigned head = head_.load();
        do {
            if ((head & 0xff) == kNone)
                return kNone;
        } while (!head_.compare_exchange_strong(head, ((head & ~0xffU) + tag_) |
                                                          next_[head & 0xff].load()));
        return head & 0xff;
    }
    void push(unsigned node)
    {
        unsigned head = head_.load();
        do
            next_[node].store(head & 0xff);
        while (!head_.compare_exchange_strong(head, ((head & ~0xffU) + tag_) | node));
    }

    const unsigned tag_;
    Atomic<unsigned> head_;
    Atomic<unsigned> next_[2];
    unsigned owned_[2];
};

Outcome explore_stack(bool tagged, unsigned takers)
{
    Stack stack{tagged};
    Program program{.start = [&] { stack.start(); }, .threads = {}, .check = [](bool) {}};
    for (unsigned i = 0; i < takers; ++i)
        program.threads.emplace_back([&] { stack.take_all(); });
    program.threads.emplace_back([&] { stack.take_two_return_one(); });
    return explore(program);
}

TEST(Scheduler, FindsWhatAnUntaggedStackDoes)
{
    EXPECT_NE(std::string::npos, explore_stack(false, 1).failure.find("two owners"));
}

TEST(Scheduler, ATaggedStackIsRight)
{
    const Outcome outcome = explore_stack(true, 2);
    EXPECT_EQ("", outcome.failure);
    EXPECT_TRUE(outcome.exhausted);
    EXPECT_GT(outcome.complete, 10U);
}

void heavy()
{
    sync::heavy_fence();
}

/// Two threads announce themselves and then look for the other: Dekker's entry.
Outcome explore_announcements(void (*first)(), void (*second)(), const Options& options)
{
    Atomic<int> here[2];
    bool alone[2];
    const auto enter = [&](unsigned me, void (*fence)()) {
        here[me].store(1, kRelaxed);
        fence();
        alone[me] = here[1 - me].load(kRelaxed) == 0;
    };
    return explore({.start =
                        [&] {
                            here[0] = here[1] = 0;
                            alone[0] = alone[1] = false;
                        },
                    .threads = {[&] { enter(0, first); }, [&] { enter(1, second); }},
                    .check =
                        [&](bool) {
                            if (alone[0] && alone[1])
                                fail("each believes that it is alone");
                        }},
                   options);
}

TEST(Scheduler, StoreBuffersAreModelled)
{
    const Options tso{.tso = true};
    EXPECT_EQ("", explore_announcements(sync::light_fence, sync::light_fence, {}).failure)
        << "sequential consistency has no buffers";
    EXPECT_NE("", explore_announcements(sync::light_fence, sync::light_fence, tso).failure);
    EXPECT_EQ("", explore_announcements(sync::light_fence, heavy, tso).failure);
    EXPECT_EQ("", explore_announcements(heavy, sync::light_fence, tso).failure);
    EXPECT_EQ("", explore_announcements(heavy, heavy, tso).failure);
}

/// A lock that costs its owner no ordered store; others pay for that with a heavy fence.
Outcome explore_biased_lock(void (*owners)(), void (*others)(), const Options& options)
{
    Atomic<int> busy;
    Atomic<int> revoked;
    Atomic<int> inside;
    const auto critical = [&] {
        if (inside.load(kRelaxed) != 0)
            fail("two are inside");
        inside.store(1, kRelaxed);
        inside.store(0, std::memory_order_release);
    };
    const auto owner = [&] {
        for (int i = 0; i < 2; ++i) {
            busy.store(1, kRelaxed);
            owners();
            if (revoked.load(std::memory_order_acquire) == 0)
                critical();
            busy.store(0, std::memory_order_release);
        }
    };
    const auto other = [&] {
        int nobody = 0;
        if (!revoked.compare_exchange_strong(nobody, 1))
            return;
        others();
        while (busy.load(std::memory_order_acquire) != 0)
            sync::relax();
        critical();
        revoked.store(0, std::memory_order_release);
    };
    return explore({.start = [&] { busy = revoked = inside = 0; },
                    .threads = {owner, other, other},
                    .check = [](bool) {}},
                   options);
}

TEST(Scheduler, ABiasedLockNeedsTheHeavyFence)
{
    const Options tso{.tso = true};
    const Outcome right = explore_biased_lock(sync::light_fence, heavy, tso);
    EXPECT_EQ("", right.failure);
    EXPECT_TRUE(right.exhausted);
    EXPECT_GT(right.complete, 1000U);
    EXPECT_NE("", explore_biased_lock(sync::light_fence, sync::light_fence, tso).failure);
}

TEST(Scheduler, ThreadsThatWaitForEachOtherAreFound)
{
    Atomic<int> flags[2];
    const auto await = [&](unsigned mine, unsigned other) {
        while (flags[other].load() == 0)
            sync::relax();
        flags[mine].store(1);
    };
    const Outcome outcome = explore({.start = [&] { flags[0] = flags[1] = 0; },
                                     .threads = {[&] { await(0, 1); }, [&] { await(1, 0); }},
                                     .check = [](bool) {}});
    EXPECT_NE(std::string::npos, outcome.failure.find("for ever"));
}

TEST(Scheduler, AWaitIsOverWhenSomethingChanged)
{
    Atomic<int> turn;
    int order = 0;
    const auto await = [&](int mine) {
        while (turn.load() != mine)
            sync::yield();
        order = order * 10 + mine;
        turn.store(mine + 1);
    };
    const Outcome outcome =
        explore({.start =
                     [&] {
                         turn = 1;
                         order = 0;
                     },
                 .threads = {[&] { await(3); }, [&] { await(1); }, [&] { await(2); }},
                 .check =
                     [&](bool complete) {
                         if (!complete || order != 123)
                             fail("out of turn");
                     }});
    EXPECT_EQ("", outcome.failure);
    EXPECT_TRUE(outcome.exhausted);
}

// ---- the reduction, against all schedules of random programs

struct Instruction {
    enum Kind { kLoad, kStore, kRelease, kAdd, kCount, kExchangeIf, kHeavy, kAwait } kind;
    unsigned cell;
    int value;
};

using Code = std::vector<std::vector<Instruction>>;
using Results = std::set<std::vector<int>>;

class Machine {
public:
    static constexpr unsigned kCells = 2;

    explicit Machine(const Code& code) : code_(code) {}

    /// What the threads can read, what can be left in memory, and which thread cannot complete.
    Results results(const Options& options, Outcome& outcome)
    {
        Results results;
        Program program{.start = [this] { start(); },
                        .threads = {},
                        .check = [&](bool) { results.insert(result()); }};
        for (unsigned t = 0; t < code_.size(); ++t)
            program.threads.emplace_back([this, t] { run(t); });
        outcome = explore(program, options);
        return results;
    }

private:
    void start()
    {
        for (auto& cell : cells_)
            cell = 0;
        for (auto& reads : reads_)
            for (auto& read : reads)
                read = -1;
    }
    void run(unsigned thread)
    {
        auto& reads = reads_[thread];
        for (std::size_t i = 0; i < code_[thread].size(); ++i) {
            const Instruction& step = code_[thread][i];
            Atomic<int>& cell = cells_[step.cell];
            int expected = step.value - 1;
            switch (step.kind) {
            case Instruction::kLoad:
                reads[i] = cell.load(kRelaxed);
                break;
            case Instruction::kStore:
                cell.store(step.value, kRelaxed);
                break;
            case Instruction::kRelease:
                cell.store(step.value);
                break;
            case Instruction::kAdd:
                reads[i] = cell.fetch_add(step.value);
                break;
            case Instruction::kCount:
                cell.fetch_add(step.value);
                break;
            case Instruction::kExchangeIf:
                cell.compare_exchange_strong(expected, step.value);
                reads[i] = expected;
                break;
            case Instruction::kHeavy:
                sync::heavy_fence();
                break;
            case Instruction::kAwait:
                // Not for ever: it may wait for something that nobody does.
                for (int look = 0; look < 2 && (reads[i] = cell.load(kRelaxed)) == 0; ++look)
                    sync::yield();
                break;
            }
        }
    }
    std::vector<int> result() const
    {
        std::vector<int> all;
        for (const auto& cell : cells_)
            all.push_back(cell);
        for (unsigned t = 0; t < code_.size(); ++t)
            all.insert(all.end(), reads_[t], reads_[t] + code_[t].size());
        return all;
    }

    const Code& code_;
    Atomic<int> cells_[kCells];
    int reads_[kMaxThreads][8];
};

Code random_code(std::mt19937& random, unsigned threads, unsigned steps, bool fences)
{
    Code code(threads);
    for (auto& thread : code) {
        for (unsigned i = 0; i < steps; ++i) {
            const unsigned kinds = Instruction::kAwait + 1;
            auto kind = static_cast<Instruction::Kind>(random() % kinds);
            while (!fences && kind == Instruction::kHeavy)
                kind = static_cast<Instruction::Kind>(random() % kinds);
            thread.push_back({kind, static_cast<unsigned>(random() % Machine::kCells),
                              static_cast<int>(random() % 3)});
        }
    }
    return code;
}

std::string text(const Code& code)
{
    static const char* const names[] = {"load",        "store", "store in order",
                                        "add",         "count", "exchange if one less",
                                        "heavy fence", "await"};
    std::string text;
    for (const auto& thread : code) {
        text += "\n ";
        for (const Instruction& step : thread)
            text += std::string(" ") + names[step.kind] + " " + std::to_string(step.cell) + " " +
                    std::to_string(step.value) + ";";
    }
    return text;
}

/// The reduced search reaches every result that the whole one reaches, with fewer schedules.
void compare(std::mt19937& random, unsigned threads, unsigned steps, Options options, int programs)
{
    std::uint64_t reduced = 0;
    std::uint64_t whole = 0;
    std::size_t different = 0;
    for (int i = 0; i < programs; ++i) {
        const Code code = random_code(random, threads, steps, options.tso);
        Machine machine{code};
        options.waits = 2;
        Outcome outcome;
        options.reduce = false;
        const Results all = machine.results(options, outcome);
        whole += outcome.complete + outcome.abandoned;
        const std::string failure = outcome.failure.substr(0, outcome.failure.find('\n'));
        options.reduce = true;
        const Results found = machine.results(options, outcome);
        reduced += outcome.complete + outcome.abandoned;
        ASSERT_EQ(failure, outcome.failure.substr(0, outcome.failure.find('\n'))) << text(code);
        if (failure.empty()) {
            ASSERT_EQ(all, found) << text(code);
        }
        different += all.size();
    }
    EXPECT_LT(reduced, whole / 2);
    EXPECT_GT(different, static_cast<std::size_t>(programs));
    std::printf("%u threads of %u steps%s: %llu of %llu schedules, %zu results\n", threads, steps,
                options.tso ? ", TSO" : "", static_cast<unsigned long long>(reduced),
                static_cast<unsigned long long>(whole), different);
}

TEST(Scheduler, LeavesOutNothingThatDiffers)
{
    std::mt19937 random{1};
    compare(random, 2, 4, {}, 500);
    compare(random, 3, 2, {}, 500);
    compare(random, 3, 3, {}, 60);
    compare(random, 2, 3, {.tso = true}, 500);
    compare(random, 3, 2, {.tso = true}, 100);
}

} // namespace
} // namespace devmem::interleave
