// SPDX-License-Identifier: BSD-3-Clause
// What mp->pool_data points to. Private to the driver.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <rte_mempool.h>

#include "drivers/mempool/page_pool/page_pool_mempool.h"

namespace devmem {

inline constexpr char kPagePoolOpsName[] = "page_pool";

/// A range of addresses that objects are in. Objects are at least one slot of 2^shift bytes apart,
/// so at most one begins in each slot, however the library laid them out.
struct ObjectExtent {
    std::uintptr_t base;
    std::size_t bytes;
    std::size_t slots;    ///< room in `where`
    std::uint32_t* where; ///< per slot: the object that begins in it, as {page:26, fragment:6}
};

/// In memory shared by the processes that use the mempool; pointers are to such memory, which all
/// of them map at the same address. No function pointers.
/// The pool follows: what a put has to follow to a page word should be few loads.
struct alignas(RTE_CACHE_LINE_SIZE) PagePoolState {
    void** objects;       ///< object i is fragment i of the pool
    ObjectExtent largest; ///< of the extents; mostly there is but one
    unsigned shift;
    std::uint32_t fragments_per_page;
    /// Who made the mempool. Its lcores have stacks of pages; the same lcore number in another
    /// process is another thread.
    std::uint64_t process;
    ObjectExtent* extents; ///< by address
    std::uint32_t extent_count;
    std::atomic<std::uint64_t> refusals; ///< to limit the rate of log lines
    PktmbufPoolLayout layout;            ///< region nullptr if there is none
};

/// The state of a mempool, or nullptr if the mempool is on another driver or not populated.
PagePoolState* page_pool_state(const rte_mempool* mp);

} // namespace devmem
