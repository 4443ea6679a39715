// SPDX-License-Identifier: BSD-3-Clause
// Random events against the model of a connection. What fails is shrunk to the events that matter
// and printed, with the line that plays it again.
#include "test/unit/tcp/model.h"

#include "test/unit/tcp/harness.h"

#include <gtest/gtest.h>

#include <iterator>

namespace devmem::tcp::model {
namespace {

using test::Random;

std::uint16_t below(Random& random, std::uint32_t n)
{
    return static_cast<std::uint16_t>(random() % n);
}

/// Mostly an honest exchange, so that there is a state to disturb.
/// @param longest bound on what a segment brings
Event random_event(Random& random, std::uint32_t longest)
{
    const auto byte = [&] { return static_cast<std::uint8_t>(random()); };
    const std::uint32_t dice = random() % 1000;
    const auto layout =
        static_cast<std::uint8_t>(random() % 3 ? 0 : byte() & (kLayoutMask | kInHost));
    const auto delayed = static_cast<std::uint8_t>(random() % 3 ? 0 : kDelayed);
    const auto marks = static_cast<std::uint16_t>(random() % 4 ? 0 : random() & (kHasCe | kHasCwr));
    const auto text = [&] { return static_cast<std::uint16_t>(below(random, longest) | marks); };
    if (dice < 250) {
        const auto obeys = static_cast<std::uint8_t>(random() % 8 ? kObeys : 0);
        const auto fin = static_cast<std::uint8_t>(random() % 60 ? 0 : kWithFin);
        return {Kind::kNext, static_cast<std::uint8_t>(obeys | fin | layout | delayed),
                below(random, 8), text()};
    }
    if (dice < 450) {
        const auto place = static_cast<std::uint8_t>(random() % 3 ? 0 : random() % 4);
        const auto fin = static_cast<std::uint8_t>(random() % 40 ? 0 : kWithFin);
        const auto old = static_cast<std::uint8_t>(random() % 30 ? 0 : kOldClock);
        return {Kind::kText, static_cast<std::uint8_t>(place | fin | layout | delayed | old),
                static_cast<std::uint16_t>(random() % 4000 - 500), text()};
    }
    if (dice < 550)
        return {Kind::kArrive, static_cast<std::uint8_t>(random() % 5 == 0), below(random, 32), 0};
    if (dice < 570)
        return {Kind::kLose, 0, below(random, 32), 0};
    if (dice < 620) {
        const auto what =
            static_cast<std::uint8_t>((random() % 4 ? 0 : random() % 4) | (random() % 4 ? 0 : 4));
        const std::uint16_t windows[] = {65535, 0, 100, below(random, 65536)};
        return {Kind::kAck, what, below(random, 2000), windows[random() % 4]};
    }
    if (dice < 650) {
        // An exact RST ends all: rarely.
        const auto any = static_cast<std::uint8_t>(byte() & (random() % 10 ? 0xfb : 0xff));
        const auto flags = random() % 3 ? any : std::uint8_t{kAck | kUrg};
        return {Kind::kControl, flags, static_cast<std::uint16_t>(random() % 64 - 32),
                below(random, 65536)};
    }
    if (dice < 750)
        return {Kind::kTime, static_cast<std::uint8_t>(random() % 8), below(random, 65536), 0};
    if (dice < 830)
        return {Kind::kReceive, 0, below(random, 64), 0};
    if (dice < 910)
        return {Kind::kReturn, static_cast<std::uint8_t>(random() % 2), below(random, 64), 0};
    if (dice < 940)
        return {Kind::kSend, 0, below(random, 4000), 0};
    if (dice < 975)
        return {Kind::kSink, static_cast<std::uint8_t>(random() % 4 == 0), 0, 0};
    if (dice < 983)
        return {Kind::kLend, 0, 0, 0};
    if (dice < 993)
        return {Kind::kOthers, 0, below(random, 256), 0};
    constexpr Kind kEnds[] = {Kind::kShutdown, Kind::kClose, Kind::kAbort, Kind::kUnreachable,
                              Kind::kReopen};
    return {kEnds[random() % std::size(kEnds)], 0, 0, 0};
}

Scenario random_scenario(std::uint64_t seed)
{
    Random random(seed);
    Scenario scenario;
    Setup& setup = scenario.setup;
    setup.options = static_cast<std::uint8_t>(random() % 4 ? random() & random() & random() : 0);
    setup.sizes = static_cast<std::uint8_t>(random());
    setup.peer = static_cast<std::uint8_t>(random());
    setup.wrap = static_cast<std::uint8_t>(random() % 2 ? random() : 0);
    setup.window = static_cast<std::uint16_t>(random() % 4 ? 65535 : random());
    const std::uint32_t events = 1 + random() % 200;
    constexpr std::uint32_t kLongest[] = {700, 500, 1500, 20};
    const std::uint32_t longest = kLongest[random() % std::size(kLongest)];
    for (std::uint32_t i = 0; i < events; i++)
        scenario.events.push_back(random_event(random, longest));
    return scenario;
}

void expect_holds(const Scenario& scenario)
{
    if (!run(scenario).empty())
        ADD_FAILURE() << report(shrink(scenario));
}

class Model : public ::testing::TestWithParam<unsigned> {};

/// Seeds a test case has; so many that one takes a second at most. The fuzzer plays the model with
/// sanitizers, too.
#ifdef __SANITIZE_ADDRESS__
constexpr unsigned kSeeds = 50;
#else
constexpr unsigned kSeeds = 500;
#endif

TEST_P(Model, Holds)
{
    for (unsigned i = 0; i < kSeeds && !HasFailure(); i++)
        expect_holds(random_scenario(GetParam() * kSeeds + i));
}
INSTANTIATE_TEST_SUITE_P(Seeds, Model, ::testing::Range(0u, 20u));

/// Random events get somewhere: bytes are delivered, gaps are reported, streams end.
TEST(Model, GetsSomewhere)
{
    coverage = {};
    for (unsigned seed = 0; seed < 500; seed++)
        EXPECT_EQ(run(random_scenario(seed)), "");
    EXPECT_GT(coverage.delivered / coverage.scenarios, 1000u);
    EXPECT_GT(coverage.out_of_order / coverage.scenarios, 1u);
    EXPECT_GT(coverage.sacked / coverage.scenarios, 3u);
    EXPECT_GT(coverage.finished * 4, coverage.scenarios);
    EXPECT_GT(coverage.urgent * 4, coverage.scenarios);
}

} // namespace
} // namespace devmem::tcp::model
