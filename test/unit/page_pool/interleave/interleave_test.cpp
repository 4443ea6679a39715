// SPDX-License-Identifier: BSD-3-Clause
// The page pool under every interleaving of a few calls, and what must be true after each: the
// history is linearizable, the pool's figures are what its callers know, nothing is lost. A test
// prints how many schedules that took; if they become few, it no longer tests what it says.
#include <cstdio>
#include <cstdlib>

#include <gtest/gtest.h>

#include "test/unit/page_pool/interleave/pool_scenario.h"

namespace devmem::test {
namespace {

using interleave::Outcome;
using Callers = std::vector<Caller>;

/// The bound on waits, and how many schedules must be found within it. A floor of 0: too many for
/// every day.
struct Effort {
    unsigned waits;
    std::uint64_t floor;
};

/// DEVMEM_INTERLEAVE_WAITS=n: wait n times more often, and leave out nothing. Hours from 2 on.
unsigned more_waits()
{
    const char* text = std::getenv("DEVMEM_INTERLEAVE_WAITS");
    return text == nullptr ? 0 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

/// How far a build that is not optimised goes, as those with sanitizers are.
#ifdef __OPTIMIZE__
constexpr std::uint64_t kLimit = UINT64_MAX;
#else
constexpr std::uint64_t kLimit = 1000;
#endif

void explore(PoolScenario& scenario, const Effort& effort, bool tso = false)
{
    const char* const name = testing::UnitTest::GetInstance()->current_test_info()->name();
    const char* const memory = !tso                     ? "sequential consistency"
                               : sync::have_heavy_fence ? "TSO"
                                                        : "TSO, no heavy fence";
    if (effort.floor == 0 && std::getenv("DEVMEM_INTERLEAVE_WAITS") == nullptr)
        return;
    const Outcome outcome =
        scenario.explore({.tso = tso, .waits = effort.waits + more_waits(), .limit = kLimit});
    const auto number = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
    std::printf("%s, %s: %llu schedules of up to %zu steps, %llu given up as redundant, %llu "
                "abandoned; %zu histories\n",
                name, memory, number(outcome.complete), outcome.longest, number(outcome.redundant),
                number(outcome.abandoned), scenario.histories());
    ASSERT_EQ("", outcome.failure);
    if (kLimit == UINT64_MAX) {
        EXPECT_TRUE(outcome.exhausted);
        EXPECT_GE(outcome.complete, effort.floor);
    }
}

/// With sequential consistency, with store buffers, and with these where there is no membarrier.
void explore_all(PoolScenario& scenario, const Effort& sequential, const Effort& tso,
                 const Effort& no_heavy_fence)
{
    explore(scenario, sequential);
    explore(scenario, tso, true);
    sync::have_heavy_fence = false;
    explore(scenario, no_heavy_fence, true);
    sync::have_heavy_fence = true;
}

void get_and_put(Caller& caller)
{
    caller.get(1);
    caller.put_all();
}

// ---- one page

TEST(Interleave, TwoLcoresHaveOnePage)
{
    PoolScenario scenario{{.pages = 1, .per_page = 2, .lcores = 2}};
    scenario.thread(0, get_and_put).thread(1, get_and_put);
    explore_all(scenario, {1, 20000}, {0, 0}, {0, 50000});
}

// The page that its owner uses up, and so gives up, is completed by another meanwhile.
TEST(Interleave, APageIsCompletedWhenItsOwnerDropsIt)
{
    PoolScenario scenario{{.pages = 2, .per_page = 2, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(1);
            callers[0].hand_to(callers[1]);
        })
        .thread(0,
                [](Caller& caller) {
                    caller.get(1);
                    caller.put_all();
                    caller.get(2);
                })
        .thread(1, [](Caller& caller) { caller.put_all(); });
    explore_all(scenario, {3, 4}, {3, 60}, {3, 20});
}

// Three who put have the parts of a page: one of them completes it, and no other.
TEST(Interleave, APageInThreeHands)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 3}};
    scenario
        .prepare([](Callers& callers) {
            for (Caller& caller : callers)
                caller.get(1);
        })
        .thread(0, [](Caller& caller) { caller.put_all(); })
        .thread(1, [](Caller& caller) { caller.put_all(); })
        .thread(kNoLcore, [](Caller& caller) { caller.put_all(); });
    explore_all(scenario, {3, 4}, {3, 4}, {3, 4});
}

// It comes back as a whole while it is still open: its owner starts over.
TEST(Interleave, AnOpenPageComesBack)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(1);
            callers[0].hand_to(callers[1]);
        })
        .thread(0,
                [](Caller& caller) {
                    caller.get(1);
                    caller.put_all();
                    caller.get(2);
                })
        .thread(1, [](Caller& caller) { caller.put_all(); });
    explore_all(scenario, {3, 30}, {3, 300}, {3, 30});
}

// ---- refusal

TEST(Interleave, TheLastTwoForOneOfTwo)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 2}};
    const auto body = [](Caller& caller) { caller.get(2); };
    scenario.thread(0, body).thread(1, body);
    explore_all(scenario, {1, 200}, {1, 2000}, {1, 900});
}

/// Salvage goes on where the last one ended: make the next of `caller` begin at page 1 of 2, and
/// leave one fragment of either page free.
void begin_at_page_1(Callers& callers, Caller& caller)
{
    for (Caller& other : callers)
        if (&other != &caller)
            other.hand_to(caller);
    caller.put(0b0100);
    caller.get(1);
    caller.put(0b0001);
    caller.put(0b0100);
}

// Each finds one of the two first, and wants the other's.
TEST(Interleave, TheLastTwoAreInDifferentPages)
{
    PoolScenario scenario{{.pages = 2, .per_page = 2, .lcores = 2}};
    const auto body = [](Caller& caller) { caller.get(2); };
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(4);
            begin_at_page_1(callers, callers[1]);
        })
        .thread(0, body)
        .thread(1, body);
    explore_all(scenario, {2, 300}, {2, 300}, {2, 400});
}

// A second one is put before the one that is free is taken, so there is one at any moment: but they
// pass by the one who looks for them, and while he counts, too.
TEST(Interleave, OneIsAlwaysFree)
{
    PoolScenario scenario{{.pages = 2, .per_page = 2, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(4);
            begin_at_page_1(callers, callers[1]);
            callers[0].get(1);
            callers[0].hand_to(callers[1]);
        })
        .thread(0,
                [](Caller& caller) {
                    if (caller.get(1) == 0)
                        interleave::fail("refused");
                })
        .thread(1, [](Caller& caller) {
            caller.put(0b0001);
            caller.get(1);
            caller.put(0b0010);
            caller.get(1);
        });
    explore_all(scenario, {1, 20000}, {0, 8000}, {0, 1000});
}

TEST(Interleave, AGetWhoseFragmentsArrive)
{
    PoolScenario scenario{{.pages = 2, .per_page = 1, .lcores = 2}};
    scenario.prepare([](Callers& callers) { callers[1].get(2); })
        .thread(0, [](Caller& caller) { caller.get(2); })
        .thread(1, [](Caller& caller) { caller.put_lowest(2); });
    explore_all(scenario, {3, 80}, {0, 40000}, {1, 6000});
}

TEST(Interleave, OneForTwoThatAreNoLcores)
{
    PoolScenario scenario{{.pages = 1, .per_page = 1, .lcores = 0}};
    scenario.thread(kNoLcore, get_and_put).thread(kNoLcore, get_and_put);
    explore_all(scenario, {3, 4000}, {3, 10000}, {2, 3000});
}

// ---- the list

/// Pages that are new are in a list to which they do not come back: have all of them used, and in
/// the other list, the last one on top.
void use_all(Callers& callers)
{
    while (callers[0].get(1) != 0) {
    }
    callers[0].put_all();
    callers[0].flush();
}

// One is about to pop page 0; another pops it, a third pops the next one, and page 0 is back.
TEST(Interleave, ThreeOnTheList)
{
    PoolScenario scenario{{.pages = 3, .per_page = 1, .lcores = 0}};
    const auto get = [](Caller& caller) { caller.get(1); };
    scenario.prepare(use_all)
        .thread(kNoLcore, get)
        .thread(kNoLcore, get_and_put)
        .thread(kNoLcore, get);
    explore(scenario, {3, 1000});
}

TEST(Interleave, PoppedOnceAndTwice)
{
    PoolScenario scenario{{.pages = 2, .per_page = 1, .lcores = 0}};
    scenario.prepare(use_all)
        .thread(kNoLcore, [](Caller& caller) { caller.get(1); })
        .thread(kNoLcore, [](Caller& caller) {
            caller.get(2);
            caller.put_lowest(1);
        });
    explore_all(scenario, {2, 4000}, {2, 8000}, {2, 8000});
}

// And then the other one comes back too, of which the list must know only once.
TEST(Interleave, AllComeBackToTheList)
{
    PoolScenario scenario{{.pages = 2, .per_page = 1, .lcores = 1}};
    scenario.prepare(use_all).thread(0, get_and_put).thread(kNoLcore, [](Caller& caller) {
        if (caller.get(2) == 0)
            return;
        // Page 1 was on top: it is there again, but page 0 is not below it.
        caller.put(0b10);
        caller.put(0b01);
    });
    explore_all(scenario, {1, 5000}, {0, 10000}, {0, 1000});
}

// ---- partly free pages

TEST(Interleave, SalvageWhileThePageIsCompleted)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[1].get(3);
            callers[1].put(0b001);
        })
        .thread(0,
                [](Caller& caller) {
                    caller.get(1);
                    caller.put_all();
                })
        .thread(1, [](Caller& caller) { caller.put_all(); });
    explore_all(scenario, {2, 100}, {1, 4000}, {2, 1000});
}

TEST(Interleave, TwoSalvageFromOnePage)
{
    PoolScenario scenario{{.pages = 1, .per_page = 4, .lcores = 3}};
    scenario
        .prepare([](Callers& callers) {
            callers[2].get(4);
            callers[2].put(0b0101);
        })
        .thread(0, [](Caller& caller) { caller.get(1); })
        .thread(1, [](Caller& caller) { caller.get(1); })
        .thread(2, [](Caller& caller) { caller.put_all(); });
    explore(scenario, {0, 20000});
}

TEST(Interleave, ALcoreAndAnotherSalvage)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 1}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(3);
            callers[0].put(0b011);
        })
        .thread(0,
                [](Caller& caller) {
                    caller.get(1);
                    caller.put_all();
                })
        .thread(kNoLcore, [](Caller& caller) {
            caller.get(1);
            caller.put_all();
        });
    explore_all(scenario, {1, 30000}, {0, 2000}, {0, 800});
}

// ---- what another lcore keeps

/// All that is free is in lcore 0's open page and on its stack.
void open_a_page(Callers& callers)
{
    callers[0].get(1);
    callers[0].put_all();
}

TEST(Interleave, StealingWhileTheOwnerGets)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 2}};
    scenario.prepare(open_a_page)
        .thread(0, [](Caller& caller) { caller.get(1); })
        .thread(1, [](Caller& caller) { caller.get(2); });
    explore_all(scenario, {0, 900}, {0, 90000}, {0, 3000});
}

// What it steals it puts back, with what it had of the page, while the owner gives the page up.
TEST(Interleave, AStolenPageIsCompletedWhenItsOwnerDropsIt)
{
    PoolScenario scenario{{.pages = 1, .per_page = 2, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(1);
            callers[0].hand_to(callers[1]);
        })
        .thread(0, get_and_put)
        .thread(1, get_and_put);
    explore_all(scenario, {1, 2000}, {0, 3000}, {1, 10000});
}

TEST(Interleave, StealingWhileTheOwnerPuts)
{
    PoolScenario scenario{{.pages = 2, .per_page = 2, .lcores = 2}};
    scenario.prepare([](Callers& callers) { callers[0].get(3); })
        .thread(0, [](Caller& caller) { caller.put_all(); })
        .thread(1, [](Caller& caller) {
            caller.get(1);
            caller.get(2);
        });
    explore_all(scenario, {1, 3000}, {0, 0}, {0, 0});
}

TEST(Interleave, StealingWhileTheOwnerFlushes)
{
    PoolScenario scenario{{.pages = 1, .per_page = 2, .lcores = 2}};
    scenario.prepare(open_a_page)
        .thread(0, [](Caller& caller) { caller.flush(); })
        .thread(1, [](Caller& caller) {
            caller.get(2);
            caller.put_all();
        });
    explore_all(scenario, {2, 30}, {1, 600}, {2, 100});
}

TEST(Interleave, StealingFromAStack)
{
    PoolScenario scenario{{.pages = 2, .per_page = 1, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(2);
            callers[0].put_lowest(2);
        })
        .thread(0,
                [](Caller& caller) {
                    caller.get(1);
                    caller.put_all();
                })
        .thread(1, [](Caller& caller) { caller.get(1); });
    explore_all(scenario, {3, 3}, {3, 100}, {3, 40});
}

TEST(Interleave, TwoStealFromOne)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 3}};
    const auto get = [](Caller& caller) { caller.get(1); };
    scenario.prepare(open_a_page).thread(0, [](Caller&) {}).thread(1, get).thread(2, get);
    explore_all(scenario, {1, 40000}, {0, 0}, {0, 3000});
}

// ---- puts that are put off

TEST(Interleave, StealingWhatTheOwnerPutsOff)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 2}};
    scenario.prepare([](Callers& callers) { callers[0].get(2); })
        .thread(0, [](Caller& caller) { caller.put_lowest(2); })
        .thread(1, [](Caller& caller) { caller.get(2); });
    explore_all(scenario, {1, 200}, {0, 700}, {0, 200});
}

// Both have a part of a page, and only the one that opened it may put off its puts of it.
TEST(Interleave, OneOfTwoMayPutOff)
{
    PoolScenario scenario{{.pages = 3, .per_page = 3, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(2);
            callers[0].hand_to(callers[1]);
            callers[0].get(1);
            callers[1].get(1);
        })
        .thread(0, [](Caller& caller) { caller.put_all(); })
        .thread(1, [](Caller& caller) { caller.put_all(); });
    explore_all(scenario, {1, 3}, {1, 12}, {1, 3});
}

// The last of a page is put by one while another's part of it is put off.
TEST(Interleave, APageWhosePartsArePutOff)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(1);
            callers[0].hand_to(callers[1]);
            callers[0].get(2);
        })
        .thread(0, [](Caller& caller) { caller.put_lowest(2); })
        .thread(1, [](Caller& caller) {
            caller.put_all();
            caller.get(1);
        });
    explore_all(scenario, {1, 60}, {0, 400}, {0, 100});
}

// ---- flush, and double frees

TEST(Interleave, FlushWhileAnotherCompletesThePage)
{
    PoolScenario scenario{{.pages = 1, .per_page = 2, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(1);
            callers[0].hand_to(callers[1]);
        })
        .thread(0, [](Caller& caller) { caller.flush(); })
        .thread(1, [](Caller& caller) { caller.put_all(); });
    explore_all(scenario, {3, 2}, {3, 2}, {3, 2});
}

TEST(Interleave, ADoubleFreeBesideOthers)
{
    PoolScenario scenario{{.pages = 1, .per_page = 3, .lcores = 2}};
    scenario
        .prepare([](Callers& callers) {
            callers[0].get(2);
            callers[0].hand_to(callers[1]);
            callers[1].put(0b001);
        })
        .thread(0, [](Caller& caller) { caller.flush(); })
        .thread(1, [](Caller& caller) {
            if (caller.put(0b011) != 0b001)
                interleave::fail("a double free was not refused");
        });
    explore_all(scenario, {3, 2}, {3, 2}, {3, 2});
}

} // namespace
} // namespace devmem::test
