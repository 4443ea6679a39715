// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "apps/devmem-ncat/options.h"

#include <devmem/devmem.h>

#include <cstdint>
#include <string>
#include <vector>

namespace ncat {

/// What the choice of EAL arguments depends on.
struct Machine {
    std::vector<unsigned> cpus;       ///< of the affinity mask, ascending
    std::uint64_t hugepage_bytes = 0; ///< free
    int pid = 0;

    static Machine look();
};

/// Whether a port spec is a PCI address, with or without devargs.
bool is_pci_address(const std::string& spec);

/// Host memory DPDK will need: mbufs, connections, payload that was not split off. An upper
/// estimate.
std::uint64_t host_bytes_needed(const Options& options, const devmem_region_info& region);

/// The command line of EAL: what the user gave after `--`, else what suits the machine.
std::vector<std::string> eal_arguments(const Options& options, const Machine& machine,
                                       std::uint64_t needed_bytes);

} // namespace ncat
