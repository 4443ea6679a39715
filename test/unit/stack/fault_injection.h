// SPDX-License-Identifier: BSD-3-Clause
// Failures by count. The test program has the library's objects in it and puts itself between them
// and whoever gives memory: the linker's --wrap for functions (the list is in meson.build), an
// operator new of its own, the mempool drivers' table, and a memory provider. Production code knows
// nothing of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

struct rte_mempool;

namespace devmem::test {

/// Who may be asked for something, and refuse.
enum Site : std::uint32_t {
    kHeap = 1u << 0,      ///< operator new, realloc()
    kSystem = 1u << 1,    ///< memfd_create(), ftruncate(), mmap(), populating madvise()
    kDpdk = 1u << 2,      ///< memory, mempools, ports and queues of DPDK
    kMempool = 1u << 3,   ///< gets that reach the driver of the mempool being watched
    kHostBytes = 1u << 4, ///< fragments for payload that a port left beside its headers
    kDmaWrite = 1u << 5,  ///< Provider::dma_write of `faulty`
    kReadBack = 1u << 6,  ///< Provider::read_back of `faulty`
    kPopulate = 1u << 7,  ///< Provider::populate of `faulty`
    kCreation = kHeap | kSystem | kDpdk | kPopulate,
};
inline constexpr std::uint64_t kForEver = std::numeric_limits<std::uint64_t>::max();

/// From now on the calling thread's calls of these sites are counted, and those from number `from`
/// (the first is 1) on, `count` of them, fail.
void fail_calls(std::uint32_t sites, std::uint64_t from, std::uint64_t count);
/// No more failures. @return how many there were.
std::uint64_t stop_failing();
/// Calls counted since fail_calls().
std::uint64_t calls_seen();

/// The mempool that kMempool is about. It loses its per-lcore caches, so that each allocation is a
/// get from the driver.
void watch_mempool(rte_mempool* pool);

/// Whether ports offer to split after headers; otherwise stacks split at a byte count.
void offer_header_split(bool offered);

/// Blocks of operator new that were not deleted.
std::int64_t live_blocks();
/// Bytes that the library mapped and did not unmap.
std::int64_t mapped_bytes();

/// Make the provider `faulty` known: memory the CPU cannot reach by its device address and that a
/// software port cannot map, so that each payload byte goes through dma_write. `faulty:size=SIZE`,
/// and with `max=SIZE` it grows.
void register_faulty_provider();

} // namespace devmem::test
