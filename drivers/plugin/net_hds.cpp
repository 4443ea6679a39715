// SPDX-License-Identifier: BSD-3-Clause
// dpdk-app -d librte_net_hds.so: loads libdevmem, whose constructor registers the driver.
#include "drivers/net/hds/net_hds.h"

// The reference that keeps libdevmem on the link line.
[[gnu::used]] static const char* const keep = devmem_net_hds;

// What dpdk-pmdinfo looks for in a driver's read-only data.
[[gnu::used]] static const char pmd_info[] =
    "PMD_INFO_STRING= {\"name\": \"net_hds\", \"params\": \"iface=<string> lower=<port> "
    "queues=<int> mac=<mac>\", \"pci_ids\": []}";
