// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/conditions.h"

#include "test/bench/measure.h"

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_spinlock.h>
#include <rte_version.h>

#include <atomic>
#include <cstdlib>
#include <fstream>

namespace bench {
namespace {

std::string cpu_model()
{
    std::ifstream cpuinfo("/proc/cpuinfo");
    for (std::string line; std::getline(cpuinfo, line);) {
        if (line.starts_with("model name"))
            return line.substr(line.find(':') + 2);
    }
    return "unknown";
}

/// Each lcore has one CPU: see start_eal().
Json lcore_cpus()
{
    Json cpus = Json::array();
    unsigned lcore;
    RTE_LCORE_FOREACH(lcore)
    {
        const rte_cpuset_t set = rte_lcore_cpuset(lcore);
        int cpu = 0;
        while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &set))
            ++cpu;
        cpus.push_back(cpu);
    }
    return cpus;
}

template <typename Operation>
double cycles_of(const Options& options, Operation operation)
{
    constexpr unsigned kPerTurn = 4096;
    const Turn turn = [&](unsigned) {
        for (unsigned i = 0; i < kPerTurn; ++i) {
            operation();
            asm volatile("" ::: "memory"); // an operation must not be folded into the next
        }
        return true;
    };
    std::vector<double> rounds(options.rounds);
    for (double& cycles : rounds)
        cycles = measure(turn, 1, options.seconds) / kPerTurn;
    return summarize(rounds).median;
}

} // namespace

Json conditions(const Options& options)
{
    double load = 0;
    getloadavg(&load, 1);
    return {
        {"cpu", cpu_model()},
        {"tsc_hz", rte_get_tsc_hz()},
        {"lcores", rte_lcore_count()},
        {"lcore_cpus", lcore_cpus()},
        {"hugepages", rte_eal_has_hugepages() != 0},
        {"dpdk", rte_version()},
        {"compiler", __VERSION__},
        {"load_average", load},
        {"rounds", options.rounds},
        {"seconds_per_cell", options.seconds},
    };
}

Json baselines(const Options& options)
{
    std::atomic<std::uint64_t> counter{0};
    rte_spinlock_t lock = RTE_SPINLOCK_INITIALIZER;
    return {
        {"loop", cycles_of(options, [] {})},
        {"atomic_fetch_add",
         cycles_of(options, [&] { counter.fetch_add(1, std::memory_order_relaxed); })},
        {"spinlock_pair", cycles_of(options,
                                    [&] {
                                        rte_spinlock_lock(&lock);
                                        rte_spinlock_unlock(&lock);
                                    })},
    };
}

} // namespace bench
