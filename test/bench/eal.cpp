// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/eal.h"

#include <rte_config.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr std::uint64_t kNeededMiB = 256;

/// For --lcores: lcore i is the ith CPU of the affinity mask.
std::string lcores()
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        CPU_SET(0, &set);
    std::string map;
    for (unsigned cpu = 0, lcore = 0; cpu < CPU_SETSIZE && lcore < RTE_MAX_LCORE; ++cpu) {
        if (!CPU_ISSET(cpu, &set))
            continue;
        if (lcore != 0)
            map += ',';
        map += std::to_string(lcore++) + '@' + std::to_string(cpu);
    }
    return map;
}

} // namespace

std::uint64_t free_hugepage_bytes()
{
    std::uint64_t pages = 0, kib = 0;
    std::ifstream meminfo("/proc/meminfo");
    for (std::string key; meminfo >> key;) {
        if (key == "HugePages_Free:")
            meminfo >> pages;
        else if (key == "Hugepagesize:")
            meminfo >> kib;
    }
    return pages * kib * 1024;
}

void start_eal()
{
    rte_openlog_stream(stderr); // stdout is the report's
    std::vector<std::string> args{"devmem-bench",
                                  "--lcores=" + lcores(),
                                  "--iova-mode=va", // physical addresses take a system call a page
                                  "--no-pci",
                                  "--no-telemetry",
                                  "--file-prefix=devmem-bench-" + std::to_string(getpid()),
                                  "--log-level=warning",
                                  "--log-level=lib.eal:error"};
    // EAL refuses --in-memory together with --no-huge.
    if (free_hugepage_bytes() >= kNeededMiB << 20)
        args.push_back("--in-memory");
    else
        args.insert(args.end(), {"--no-huge", "--no-shconf", "-m", std::to_string(kNeededMiB)});
    std::vector<char*> argv;
    for (std::string& arg : args)
        argv.push_back(arg.data());
    const int argc = static_cast<int>(argv.size());
    argv.push_back(nullptr);
    if (rte_eal_init(argc, argv.data()) < 0)
        throw std::runtime_error(std::string("EAL: ") + rte_strerror(rte_errno));
}

void stop_eal()
{
    rte_eal_cleanup();
    rmdir(rte_eal_get_runtime_dir()); // EAL leaves it, empty, one for each file prefix
}

} // namespace bench
