// SPDX-License-Identifier: BSD-3-Clause
// Pages of up to 64 fragments, recycled. No DPDK in here: fragments are indices, memory is the caller's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace devmem {

/// Shape of a pool.
struct PagePoolConfig {
    const char* name;                 ///< for messages; kept, truncated to 31 bytes
    std::uint32_t fragments;          ///< in all; the last page may be short
    std::uint32_t fragments_per_page; ///< 1 to 64
    std::uint32_t lcores;             ///< callers with a stack of their own: 0 to lcores - 1
};

/// A caller that is no lcore. Slower, but as correct: no stack of pages of its own.
inline constexpr std::uint32_t kNoLcore = UINT32_MAX;

/// Adjacent fragments of one page.
struct FragmentRun {
    std::uint32_t first;
    std::uint32_t count;
};

/// Counters, named as the kernel's page_pool names them. @see devmem_pool_stats
struct PagePoolStats {
    std::uint64_t alloc_fast, alloc_slow, alloc_empty, alloc_failed;
    std::uint64_t recycle_cached, recycle_cache_full, recycle_ring;
    std::uint64_t salvaged, double_free, foreign_free;
    std::uint64_t hold, release;
};

/// A refused free, for the log: which pool, which page, which fragment of it.
struct RefusedFree {
    const char* pool;
    std::uint32_t page;
    std::uint32_t fragment;
};

/// The pool is one relocatable block: indices, no pointers, so that a second process can attach.
/// All functions but create() are safe from any thread; a thread that passes an lcore number must be
/// the only one that does.
class PagePool {
public:
    /// Bytes of the block, to be aligned to a cache line. 0 if the configuration is wrong.
    static std::size_t bytes(const PagePoolConfig& config);
    /// Lay a pool out in a block. All fragments start out taken: free_run() puts them in.
    static PagePool* create(void* block, const PagePoolConfig& config);

    /// Take `n` fragments as runs, ascending within a page. All or nothing.
    /// @param runs     receives the runs; room for `n` of them always suffices
    /// @return number of runs; 0 if fewer than `n` fragments are free. It never fails while they are.
    unsigned alloc_runs(std::uint32_t lcore, std::uint32_t n, FragmentRun* runs);

    /// Take `n` fragments, all or nothing. @return 0; -ENOBUFS.
    int alloc(std::uint32_t lcore, std::uint32_t n, std::uint32_t* fragments);

    /// Put back adjacent fragments of one page.
    /// @return 0; -EINVAL outside the pool or across a page; -EALREADY some were free already: those
    ///   are counted and reported, the others are put back.
    int free_run(std::uint32_t lcore, FragmentRun run, RefusedFree* refused = nullptr);

    /// Put the lcore's stack and current page back where other lcores find them first.
    void flush(std::uint32_t lcore);

    /// Free fragments; exact when nothing runs, and never less than the truth during a call.
    std::uint32_t free_count() const;
    PagePoolStats stats() const;
    const char* name() const;
    std::uint32_t pages() const;
    std::uint32_t fragments() const;
    std::uint32_t fragments_per_page() const;
    /// One bit per fragment of the page, set while it is free.
    std::uint64_t page_word(std::uint32_t page) const;

    PagePool(const PagePool&) = delete;
    PagePool& operator=(const PagePool&) = delete;

private:
    PagePool() = default;
};

} // namespace devmem
