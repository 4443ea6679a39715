// SPDX-License-Identifier: BSD-3-Clause
// What mp->pool_data points to. Private to the driver.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <rte_log.h>
#include <rte_mempool.h>

struct rte_mbuf;

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "lib/page_pool/page_pool.h"

namespace devmem {

inline constexpr char kPagePoolOpsName[] = "page_pool";
/// Other processes than the one that made a mempool that are told apart.
inline constexpr std::uint32_t kMaxPoolProcess = 64;

/// A range of addresses that objects are in. Objects are at least one slot of 2^shift bytes apart,
/// so at most one begins in each slot, however the library laid them out.
struct ObjectExtent {
    std::uintptr_t base;
    std::size_t bytes;
    std::size_t slots;    ///< room in `where`
    std::uint32_t* where; ///< per slot: the object that begins in it, as {page:26, fragment:6}
};

/// A process that did not make the mempool, and took something from it.
struct PoolProcess {
    std::atomic<std::uint64_t> key;   ///< what it calls itself; 0: the entry is free
    std::atomic<std::uint64_t> start; ///< when it began, to tell it from the next of the same pid
    std::atomic<int> pid;
};

/// In memory shared by the processes that use the mempool; pointers are to such memory, which all
/// of them map at the same address. No function pointers.
/// The pool follows: what a put has to follow to a page word should be few loads.
struct alignas(RTE_CACHE_LINE_SIZE) PagePoolState {
    void** objects;       ///< object i is fragment i of the pool
    ObjectExtent largest; ///< of the extents; mostly there is but one
    unsigned shift;
    std::uint32_t fragments_per_page;
    std::uint32_t flags;  ///< DEVMEM_POOL_*, once the pool is complete
    std::uint32_t target; ///< pages that devmem_pool_resize() wants to be the pool's
    /// Who made the mempool. Its lcores have stacks of pages; the same lcore number in another
    /// process is another thread.
    std::uint64_t process;
    std::atomic<bool> poison_lost; ///< others than that process have put fragments
    ObjectExtent* extents;         ///< by address
    std::uint32_t extent_count;
    std::atomic<std::uint64_t> refusals; ///< to limit the rate of log lines
    std::atomic<std::uint64_t> poison_damaged, red_zone_damaged;
    PktmbufPoolLayout layout;               ///< region nullptr if there is none
    PoolProcess processes[kMaxPoolProcess]; ///< caller_of_process(i + 1) is entry i
};

/// The pool behind a state follows it.
inline PagePool& pool_of(PagePoolState& state)
{
    return *reinterpret_cast<PagePool*>(&state + 1);
}
inline const PagePool& pool_of(const PagePoolState& state)
{
    return *reinterpret_cast<const PagePool*>(&state + 1);
}

/// Whether this process made the mempool: no other has the region.
bool is_maker(const PagePoolState& state);
/// What the pool is to take this thread for.
std::uint32_t pool_caller(PagePoolState& state);
/// Whether the entry's process runs.
bool is_alive(const PoolProcess& process);

/// For rte_log().
extern int page_pool_logtype;
#define POOL_LOG(level, ...)                                                                       \
    rte_log(RTE_LOG_##level, static_cast<std::uint32_t>(devmem::page_pool_logtype), __VA_ARGS__)

/// Whether a refusal is worth a line. The first ones are logged one by one; after that, each time
/// their number doubles: a program that does all things wrong must still be able to run on.
bool worth_a_line(PagePoolState& state);

/// An mbuf as it is when free. What follows it in its object is the pool's.
void make_free(rte_mbuf& mbuf);

/// Flags that ask for a look at every fragment that comes or goes.
inline constexpr std::uint32_t kGuarded = DEVMEM_POOL_POISON | DEVMEM_POOL_RED_ZONE;

/// What of a fragment is for data.
inline std::uint32_t data_bytes(const PktmbufPoolLayout& layout, std::uint32_t flags)
{
    return layout.fragment_bytes -
           ((flags & DEVMEM_POOL_RED_ZONE) != 0 ? DEVMEM_RED_ZONE_BYTES : 0);
}

/// With DEVMEM_POOL_POISON or DEVMEM_POOL_RED_ZONE: look at fragments of a page before they are
/// put, and fill them. @return those that are to be put; the others have other holders.
std::uint64_t guard_put(PagePoolState& state, std::uint32_t caller, std::uint32_t page,
                        std::uint64_t mask);
/// Look at a run after it was taken.
void guard_get(PagePoolState& state, FragmentRun run);
/// Another process uses the mempool from now on. It cannot fill what it puts.
void guard_end(PagePoolState& state);
/// A page that is about to be put in, all of it.
void guard_fill(PagePoolState& state, std::uint32_t page);

/// The state of a mempool, or nullptr if the mempool is on another driver or not populated.
PagePoolState* page_pool_state(const rte_mempool* mp);

} // namespace devmem
