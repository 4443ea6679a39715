// SPDX-License-Identifier: BSD-3-Clause
// Threads call a small pool at random, in short rounds; of each round's history it is then decided
// whether a set of fragments could have given it. Also the test for ThreadSanitizer.
#include <array>
#include <atomic>
#include <barrier>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "test/unit/page_pool/interleave/history.h"
#include "test/unit/page_pool/pool_fixture.h"

namespace devmem::test {
namespace {

using namespace std::chrono_literals;

constexpr unsigned kCallsEach = 4; ///< a round

Fragments ones(unsigned n)
{
    return n >= 64 ? ~Fragments{0} : (Fragments{1} << n) - 1;
}

/// A call, and when it was made and returned by a clock that all threads share.
struct Timed {
    Call call;
    unsigned made, returned;
};

class Thread {
public:
    Thread(PagePool& pool, std::atomic<unsigned>& clock, unsigned number, std::uint32_t lcore)
        : pool_(pool), clock_(clock), number_(number), lcore_(lcore), random_(number + 1)
    {
    }

    void round()
    {
        count_ = 0;
        while (count_ < kCallsEach) {
            switch (below(held_ == 0 ? 3 : 7)) {
            case 0:
            case 1:
                get(1 + below(pool_.fragments() / 2));
                break;
            case 2:
                // Leaves no trace in the history: it changes nothing for a caller.
                pool_.flush(lcore_);
                if (below(2) == 0)
                    get(1 + below(pool_.fragments()));
                break;
            case 3:
                put(held_ & -held_);
                break;
            default:
                put_some();
                break;
            }
        }
    }

    Fragments held() const { return held_; }
    unsigned count() const { return count_; }
    const Timed& call(unsigned i) const { return calls_[i]; }

private:
    unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }

    Timed& begin(const Call& call)
    {
        calls_[count_] = {call, clock_.fetch_add(1), 0};
        return calls_[count_++];
    }
    void end(Timed& call, Fragments result)
    {
        call.returned = clock_.fetch_add(1);
        call.call.result = result;
    }

    void get(unsigned n)
    {
        Timed& call = begin({.kind = Call::kGet,
                             .thread = number_,
                             .returned = true,
                             .wanted = n,
                             .fragments = 0,
                             .result = 0});
        std::array<FragmentRun, 64> runs;
        const unsigned count = pool_.alloc_runs(lcore_, n, runs.data());
        Fragments got = 0;
        for (unsigned i = 0; i < count; ++i)
            got |= ones(runs[i].count) << runs[i].first;
        end(call, got);
        held_ |= got;
    }

    /// Some fragments of a page, sometimes all that it has of it.
    void put_some()
    {
        const unsigned per_page = pool_.fragments_per_page();
        const unsigned first = static_cast<unsigned>(std::countr_zero(held_)) / per_page * per_page;
        const Fragments here = held_ & ones(per_page) << first;
        const Fragments some = below(2) == 0 ? here : here & random_();
        put(some != 0 ? some : here);
    }

    void put(Fragments fragments)
    {
        const unsigned per_page = pool_.fragments_per_page();
        const unsigned page = static_cast<unsigned>(std::countr_zero(fragments)) / per_page;
        held_ &= ~fragments;
        Timed& call = begin({.kind = Call::kPut,
                             .thread = number_,
                             .returned = true,
                             .wanted = 0,
                             .fragments = fragments,
                             .result = 0});
        end(call, pool_.free_mask(lcore_, page, fragments >> (page * per_page),
                                  static_cast<unsigned>(std::popcount(fragments)))
                      << (page * per_page));
    }

    PagePool& pool_;
    std::atomic<unsigned>& clock_;
    const unsigned number_;
    const std::uint32_t lcore_;
    std::mt19937_64 random_;
    Fragments held_ = 0;
    unsigned count_ = 0;
    std::array<Timed, kCallsEach> calls_;
};

History history_of(const std::vector<Thread>& threads, Fragments free)
{
    History history{.free = free, .calls = {}, .before = {}};
    std::vector<const Timed*> all;
    for (const Thread& thread : threads)
        for (unsigned i = 0; i < thread.count(); ++i)
            all.push_back(&thread.call(i));
    for (const Timed* call : all) {
        std::uint32_t before = 0;
        for (std::size_t i = 0; i < all.size(); ++i)
            before |= all[i]->returned < call->made ? 1U << i : 0;
        history.calls.push_back(call->call);
        history.before.push_back(before);
    }
    return history;
}

struct Shape {
    unsigned pages, per_page, lcores;
    std::vector<std::uint32_t> threads; ///< their lcores
};

void exercise(const Shape& shape, std::chrono::milliseconds how_long)
{
    PoolMemory pool{{"history", shape.pages * shape.per_page, shape.per_page, shape.lcores}};
    fill(*pool);
    const auto count = static_cast<unsigned>(shape.threads.size());
    std::atomic<unsigned> clock{0};
    std::atomic<bool> stop{false};
    std::barrier barrier{static_cast<std::ptrdiff_t>(count) + 1};
    std::vector<Thread> callers;
    for (unsigned i = 0; i < count; ++i)
        callers.emplace_back(*pool, clock, i, shape.threads[i]);
    std::vector<std::thread> threads;
    for (Thread& caller : callers) {
        threads.emplace_back([&] {
            for (;;) {
                barrier.arrive_and_wait();
                if (stop.load(std::memory_order_relaxed))
                    return;
                caller.round();
                barrier.arrive_and_wait();
            }
        });
    }

    const auto end = std::chrono::steady_clock::now() + how_long;
    std::uint64_t rounds = 0;
    std::uint64_t overlapping = 0;
    std::uint64_t refused = 0;
    bool right = true;
    while (right && std::chrono::steady_clock::now() < end) {
        Fragments free = ones(pool->fragments());
        for (const Thread& caller : callers)
            free &= ~caller.held();
        clock = 0;
        barrier.arrive_and_wait();
        barrier.arrive_and_wait();
        const History history = history_of(callers, free);
        right = history.linearizable();
        EXPECT_TRUE(right) << history.text();
        ++rounds;
        for (std::size_t i = 0; i < history.calls.size(); ++i) {
            const Call& call = history.calls[i];
            refused += call.kind == Call::kGet && call.result == 0 ? 1 : 0;
            for (std::size_t j = 0; j < i; ++j)
                overlapping +=
                    (history.before[i] & 1U << j) == 0 && (history.before[j] & 1U << i) == 0;
        }
    }
    stop = true;
    barrier.arrive_and_wait();
    for (std::thread& thread : threads)
        thread.join();

    std::vector<bool> free(pool->fragments(), true);
    for (const Thread& caller : callers)
        for (std::size_t f = 0; f < free.size(); ++f)
            free[f] = free[f] && (caller.held() >> f & 1) == 0;
    expect_free(*pool, free);
    std::printf("%llu rounds, %llu pairs of calls overlapped, %llu gets refused\n",
                static_cast<unsigned long long>(rounds),
                static_cast<unsigned long long>(overlapping),
                static_cast<unsigned long long>(refused));
    EXPECT_GT(rounds, 100U);
    EXPECT_GT(overlapping, 0U) << "the threads took turns";
    EXPECT_GT(refused, 0U);
}

TEST(PagePoolLinearizability, TwoLcores)
{
    exercise({4, 3, 2, {0, 1}}, 1500ms);
}

TEST(PagePoolLinearizability, TwoLcoresAndTwoOthers)
{
    exercise({4, 4, 2, {0, 1, kNoLcore, kNoLcore}}, 1500ms);
}

TEST(PagePoolLinearizability, OnePage)
{
    exercise({1, 6, 3, {0, 1, 2}}, 1500ms);
}

TEST(PagePoolLinearizability, OneFragmentPages)
{
    exercise({8, 1, 2, {0, 1, kNoLcore}}, 1500ms);
}

// As many pages as it takes for lcores to keep some.
TEST(PagePoolLinearizability, Stacks)
{
    exercise({32, 2, 2, {0, 1, kNoLcore}}, 1500ms);
}

} // namespace
} // namespace devmem::test
