// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/measure.h"

#include <rte_cycles.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_pause.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
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
    // Of a lane that is not the main lcore's.
    std::atomic<unsigned> asked{0}, done{0}; ///< slices
    std::atomic<bool> over{false};
};

long preemptions()
{
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

void run_lane(Lane& lane)
{
    const long before = preemptions();
    lane.disturbed = rte_rdtsc() > lane.begin + (lane.end - lane.begin) / 16;
    while (rte_rdtsc() < lane.begin)
        rte_pause();
    const std::uint64_t excluded = lane.excluded != nullptr ? *lane.excluded : 0;
    const std::uint64_t begin = rte_rdtsc();
    lane.turns = 0;
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
}

/// Slices as they are asked for. In between it is busy: a virtual CPU that slept may wake up beside
/// another on one core, and both are slower then.
int serve_slices(void* opaque)
{
    Lane& lane = *static_cast<Lane*>(opaque);
    for (unsigned slice = 1;; ++slice) {
        while (lane.asked.load(std::memory_order_acquire) < slice) {
            if (lane.over.load(std::memory_order_acquire))
                return 0;
            rte_pause();
        }
        run_lane(lane);
        lane.done.store(slice, std::memory_order_release);
    }
}

/// All lanes, the first on this lcore.
class Lanes {
public:
    Lanes(const Turn& turn, unsigned n, std::span<const std::uint64_t* const> excluded) : lanes_(n)
    {
        unsigned lcore = UINT32_MAX;
        for (unsigned i = 0; i < n; ++i) {
            lanes_[i].turn = &turn;
            lanes_[i].index = i;
            lanes_[i].excluded = excluded.empty() ? nullptr : excluded[i];
            if (i == 0)
                continue;
            lcore = rte_get_next_lcore(lcore, 1, 0);
            rte_eal_remote_launch(serve_slices, &lanes_[i], lcore);
        }
    }
    ~Lanes()
    {
        for (Lane& lane : lanes_)
            lane.over.store(true, std::memory_order_release);
        if (lanes_.size() > 1)
            rte_eal_mp_wait_lcore();
    }
    Lanes(const Lanes&) = delete;
    Lanes& operator=(const Lanes&) = delete;

    const std::vector<Lane>& run(std::uint64_t start, std::uint64_t length)
    {
        const std::uint64_t begin = rte_rdtsc() + start;
        ++slice_;
        for (Lane& lane : lanes_) {
            lane.begin = begin;
            lane.end = begin + length;
            lane.asked.store(slice_, std::memory_order_release);
        }
        run_lane(lanes_[0]);
        for (std::size_t i = 1; i < lanes_.size(); ++i) {
            while (lanes_[i].done.load(std::memory_order_acquire) < slice_)
                rte_pause();
        }
        return lanes_;
    }

private:
    std::vector<Lane> lanes_;
    unsigned slice_ = 0;
};

struct Sum {
    std::uint64_t cycles = 0, turns = 0;

    double mean() const { return static_cast<double>(cycles) / static_cast<double>(turns); }
};

/// @return whether it was undisturbed
bool run_slice(Lanes& lanes, std::uint64_t start, std::uint64_t length, Sum& sum)
{
    bool undisturbed = true;
    for (const Lane& lane : lanes.run(start, length)) {
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

double measure(const Turn& turn, unsigned lanes, double seconds,
               std::span<const std::uint64_t* const> excluded)
{
    const auto hz = static_cast<double>(rte_get_tsc_hz());
    const auto start = static_cast<std::uint64_t>(lanes == 1 ? 0 : kStartSeconds * hz);
    const auto length = static_cast<std::uint64_t>(std::min(kSliceSeconds, seconds) * hz);

    Lanes all(turn, lanes, excluded);
    Sum warm_up;
    run_slice(all, start, length, warm_up);
    Sum undisturbed, disturbed;
    const std::uint64_t end = rte_rdtsc() + static_cast<std::uint64_t>(seconds * hz);
    do {
        Sum sum;
        const bool good = run_slice(all, start, length, sum);
        Sum& to = good ? undisturbed : disturbed;
        to.cycles += sum.cycles;
        to.turns += sum.turns;
        ++counted.all;
        counted.disturbed += good ? 0 : 1;
    } while (rte_rdtsc() < end);
    return undisturbed.turns != 0 ? undisturbed.mean() : disturbed.mean();
}

} // namespace bench
