// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/measure.h"

#include <rte_cycles.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_pause.h>
#include <sys/resource.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace bench {
namespace {

/// Shorter than what a scheduler gives a competitor for the CPU, so that some slices are
/// undisturbed on a busy machine; long against what it takes to start one.
constexpr double kSliceSeconds = 500e-6;
/// For an lcore to wake up.
constexpr double kStartSeconds = 100e-6;

Slices counted;

struct Lane {
    const Turn* turn;
    unsigned index;
    const std::uint64_t* excluded;
    std::uint64_t begin, end; ///< TSC
    std::uint64_t cycles = 0, turns = 0;
    bool disturbed = false, failed = false;
};

long preemptions()
{
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

int run_lane(void* opaque)
{
    Lane& lane = *static_cast<Lane*>(opaque);
    const long before = preemptions();
    lane.disturbed = rte_rdtsc() > lane.begin + (lane.end - lane.begin) / 16;
    while (rte_rdtsc() < lane.begin)
        rte_pause();
    const std::uint64_t excluded = lane.excluded != nullptr ? *lane.excluded : 0;
    const std::uint64_t begin = rte_rdtsc();
    std::uint64_t now;
    do {
        lane.failed |= !(*lane.turn)(lane.index);
        ++lane.turns;
        now = rte_rdtsc();
    } while (now < lane.end && !lane.failed);
    lane.cycles = now - begin;
    if (lane.excluded != nullptr)
        lane.cycles -= *lane.excluded - excluded;
    lane.disturbed |= preemptions() != before;
    return 0;
}

struct Sum {
    std::uint64_t cycles = 0, turns = 0;

    double mean() const { return static_cast<double>(cycles) / static_cast<double>(turns); }
};

/// @return whether it was undisturbed
bool run_slice(const Turn& turn, unsigned lanes, const std::uint64_t* excluded, std::uint64_t start,
               std::uint64_t length, Sum& sum)
{
    std::vector<Lane> all(lanes);
    const std::uint64_t begin = rte_rdtsc() + start;
    unsigned lcore = rte_get_main_lcore();
    for (unsigned i = 0; i < lanes; ++i)
        all[i] = {
            .turn = &turn, .index = i, .excluded = excluded, .begin = begin, .end = begin + length};
    for (unsigned i = 1; i < lanes; ++i) {
        lcore = rte_get_next_lcore(i == 1 ? UINT32_MAX : lcore, 1, 0);
        rte_eal_remote_launch(run_lane, &all[i], lcore);
    }
    run_lane(&all[0]);
    if (lanes > 1)
        rte_eal_mp_wait_lcore();

    bool undisturbed = true;
    for (const Lane& lane : all) {
        if (lane.failed)
            throw std::runtime_error("a turn failed: the pool had less than it should");
        undisturbed &= !lane.disturbed;
        sum.cycles += lane.cycles;
        sum.turns += lane.turns;
    }
    return undisturbed;
}

} // namespace

const Slices& slices()
{
    return counted;
}

double measure(const Turn& turn, unsigned lanes, double seconds, const std::uint64_t* excluded)
{
    const auto hz = static_cast<double>(rte_get_tsc_hz());
    const auto start = static_cast<std::uint64_t>(lanes == 1 ? 0 : kStartSeconds * hz);
    const auto length = static_cast<std::uint64_t>(std::min(kSliceSeconds, seconds) * hz);

    Sum warm_up;
    run_slice(turn, lanes, excluded, start, length, warm_up);
    Sum undisturbed, disturbed;
    const std::uint64_t end = rte_rdtsc() + static_cast<std::uint64_t>(seconds * hz);
    do {
        Sum sum;
        const bool good = run_slice(turn, lanes, excluded, start, length, sum);
        Sum& to = good ? undisturbed : disturbed;
        to.cycles += sum.cycles;
        to.turns += sum.turns;
        ++counted.all;
        counted.disturbed += good ? 0 : 1;
    } while (rte_rdtsc() < end);
    return undisturbed.turns != 0 ? undisturbed.mean() : disturbed.mean();
}

} // namespace bench
