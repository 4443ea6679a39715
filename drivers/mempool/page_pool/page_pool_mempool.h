// SPDX-License-Identifier: BSD-3-Clause
// What the rest of devmem may ask of a mempool on the `page_pool` driver.
#pragma once

#include <cstdint>

#include <devmem/devmem.h>

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
    std::uint64_t base; ///< device address of the region's byte 0
    std::uint64_t offset;
    std::uint32_t page_bytes;
    std::uint32_t fragment_bytes;
    std::uint32_t fragments_per_page;
    std::uint32_t fragments;
};

/// The layout, or nullptr if the mempool was not made by devmem_pktmbuf_pool_create(). `region` is
/// a pointer in the process that made the pool, and in no other.
const PktmbufPoolLayout* pktmbuf_pool_layout(const rte_mempool* mp);

/// Put fragments back without touching their mbufs, which must be as a free mbuf is (refcnt 1,
/// next NULL, nb_segs 1). Bypasses the mempool's caches. Any thread. Refused frees are logged.
/// @return as PagePool::free_run().
int page_pool_put_run(rte_mempool* mp, std::uint32_t first, std::uint32_t count);
/// The same of any fragments of one page, a bit each, at once.
/// @pre page and bits are the pool's
void page_pool_put_mask(rte_mempool* mp, std::uint32_t page, std::uint64_t mask);

/// Have devmem_pool_holders_get() know which fragments tokens stand for. nullptr: none any more.
void page_pool_set_token_mask(const rte_mempool* mp,
                              std::uint64_t (*token_mask)(const void* arg, std::uint32_t page),
                              const void* arg);

/// Argument of rte_mempool_set_ops_byname(mp, "page_pool", config), or NULL for the defaults. Read
/// when the mempool is populated for the first time.
struct PagePoolMempoolConfig {
    std::uint32_t fragments_per_page; ///< 1 to 64; 0: 64
    const PktmbufPoolLayout* layout;  ///< nullptr: the objects are not mbufs of a region
};

/// The driver's place in the table of mempool ops, or a negative errno if it could not register.
DEVMEM_API int page_pool_ops_index();

} // namespace devmem
