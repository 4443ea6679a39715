// SPDX-License-Identifier: BSD-3-Clause
// dpdk-app -d librte_mempool_page_pool.so: loads libdevmem, whose constructor registers the driver.
#include "drivers/mempool/page_pool/page_pool_mempool.h"

// The reference that keeps libdevmem on the link line.
[[gnu::used]] static int (*const keep)() = devmem::page_pool_ops_index;
