// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "drivers/net/hds/ethdev_abi.h"

namespace devmem::hds {

/// All of rte_eth_stats but imissed.
void sum_stats(const rte_eth_dev_data& data, rte_eth_stats* stats);
void reset_stats(const rte_eth_dev_data& data);
/// @return the number of xstats; nothing is written if `n` is less.
int get_xstats(const rte_eth_dev_data& data, rte_eth_xstat* values, unsigned n);
int get_xstats_names(rte_eth_xstat_name* names, unsigned n);

} // namespace devmem::hds
