// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/eal.h"

#include <rte_config.h>
#include <rte_pci.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace ncat {

Machine Machine::look()
{
    Machine machine;
    machine.pid = getpid();

    // As many CPUs as a static set holds; beyond that the call fails and CPU 0 must do.
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        CPU_SET(0, &set);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(cpu, &set))
            machine.cpus.push_back(cpu);
    }

    std::uint64_t free = 0, reserved = 0, kib = 0;
    std::ifstream meminfo("/proc/meminfo");
    for (std::string key; meminfo >> key;) {
        if (key == "HugePages_Free:")
            meminfo >> free;
        else if (key == "HugePages_Rsvd:")
            meminfo >> reserved;
        else if (key == "Hugepagesize:")
            meminfo >> kib;
    }
    machine.hugepage_bytes = (free - std::min(free, reserved)) * kib * 1024;
    return machine;
}

bool is_pci_address(const std::string& spec)
{
    rte_pci_addr address;
    return rte_pci_addr_parse(spec.substr(0, spec.find(',')).c_str(), &address) == 0;
}

std::uint64_t host_bytes_needed(const Options& options, const devmem_region_info& region)
{
    // An mbuf takes 256 bytes with its mempool header; a fragment is half a KiB at the least (MTU
    // 576). Per shard: header mbufs, connections, 16 MiB for payload that was not split off.
    // Leaving a region takes as many mbufs again.
    constexpr std::uint64_t kMiB = 1 << 20;
    const std::uint64_t mbufs = region.bytes / 512 * 256;
    return (options.unbind_after != 0 ? 2 : 1) * mbufs + options.queues * 64 * kMiB + 64 * kMiB;
}

std::vector<std::string> eal_arguments(const Options& options, const Machine& machine,
                                       std::uint64_t needed_bytes)
{
    std::vector<std::string> args{"devmem-ncat"};
    if (!options.eal.empty()) {
        args.insert(args.end(), options.eal.begin(), options.eal.end());
        return args;
    }
    // The last CPUs: the first ones are where interrupts and everybody else's programs are.
    const std::size_t lcores =
        std::min({machine.cpus.size(), std::size_t{options.queues}, std::size_t{RTE_MAX_LCORE}});
    std::string map;
    for (std::size_t i = 0; i < lcores; ++i) {
        if (i != 0)
            map += ',';
        map += std::to_string(i) + '@';
        map += std::to_string(machine.cpus[machine.cpus.size() - lcores + i]);
    }
    // EAL warns of every size of hugepage there is none of.
    args.insert(args.end(), {"--lcores=" + map, "--no-telemetry",
                             "--file-prefix=devmem-ncat-" + std::to_string(machine.pid),
                             "--log-level=warning", "--log-level=lib.eal:error"});
    if (is_pci_address(options.port))
        args.push_back("--allow=" + options.port);
    else
        args.push_back("--no-pci");
    // EAL refuses --in-memory together with --no-huge.
    if (machine.hugepage_bytes >= needed_bytes)
        args.push_back("--in-memory");
    else
        args.insert(args.end(),
                    {"--no-huge", "--no-shconf", "-m", std::to_string(needed_bytes >> 20)});
    return args;
}

} // namespace ncat
