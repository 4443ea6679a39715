// SPDX-License-Identifier: BSD-3-Clause
// What the rest of devmem may ask of a mempool on the `page_pool` driver.
#pragma once

#include <cstdint>

struct rte_mempool;
struct devmem_region;

namespace devmem {

class PagePool;

/// The pool behind a mempool, or nullptr if the mempool is on another driver. Object i of the
/// mempool (in the order of rte_mempool_obj_iter()) is fragment i of the pool.
PagePool* page_pool_of(const rte_mempool* mp);

/// Where the buffers of a pool made by devmem_pktmbuf_pool_create() are: fragment f begins at
/// region offset `offset + (f / fragments_per_page) * page_bytes + (f % fragments_per_page) *
/// fragment_bytes`.
struct PktmbufPoolLayout {
    devmem_region* region;
    std::uint64_t offset;
    std::uint32_t page_bytes;
    std::uint32_t fragment_bytes;
    std::uint32_t fragments_per_page;
    std::uint32_t fragments;
};

/// The layout, or nullptr if the mempool was not made by devmem_pktmbuf_pool_create().
const PktmbufPoolLayout* pktmbuf_pool_layout(const rte_mempool* mp);

/// Put fragments back without touching their mbufs, which must be as a free mbuf is (refcnt 1,
/// next NULL, nb_segs 1). Bypasses the mempool's caches. Any thread. Refused frees are logged.
/// @return as PagePool::free_run().
int page_pool_put_run(rte_mempool* mp, std::uint32_t first, std::uint32_t count);

} // namespace devmem
