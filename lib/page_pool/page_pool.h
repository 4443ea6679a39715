// SPDX-License-Identifier: BSD-3-Clause
// Pages of up to 64 fragments, recycled. No DPDK in here: fragments are indices, memory is the
// caller's. How it works and why it is safe: doc/page_pool.md.
#pragma once

#include <atomic>
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
/// All functions but create() are safe from any thread; a thread that passes an lcore number must
/// be the only one that does.
class PagePool {
public:
    /// Bytes of the block, to be aligned to a cache line. 0 if the configuration is wrong.
    static std::size_t bytes(const PagePoolConfig& config);
    /// Lay a pool out in a block. All fragments start out taken: free_run() puts them in.
    /// @return the pool, at the block's address; nullptr if bytes() is 0 or the block is
    /// misaligned.
    static PagePool* create(void* block, const PagePoolConfig& config);

    /// Take `n` fragments as runs, ascending within a page. All or nothing.
    /// @param runs     receives the runs; room for `n` of them always suffices
    /// @return number of runs; 0 if fewer than `n` fragments are free. It never fails while they
    /// are.
    unsigned alloc_runs(std::uint32_t lcore, std::uint32_t n, FragmentRun* runs);

    /// Take `n` fragments, all or nothing. @return 0; -ENOBUFS.
    int alloc(std::uint32_t lcore, std::uint32_t n, std::uint32_t* fragments);

    /// Put back adjacent fragments of one page.
    /// @return 0; -EINVAL outside the pool or across a page (counted as one foreign free);
    /// -EALREADY
    ///   some were free already: those are counted and reported, the others are put back.
    int free_run(std::uint32_t lcore, FragmentRun run, RefusedFree* refused = nullptr);

    /// Put back any fragments of one page, one bit each, with one atomic operation.
    /// @pre page < pages(), and no bit set beyond the page's fragments.
    /// @return the bits that were free already: counted, and refused.
    std::uint64_t free_mask(std::uint32_t lcore, std::uint32_t page, std::uint64_t mask);

    /// Count a free that named no fragment of this pool.
    void count_foreign_free(std::uint32_t lcore);

    /// Put the lcore's stack and current page back where other lcores find them first.
    void flush(std::uint32_t lcore);

    /// Free fragments; exact when nothing runs, and never less than the truth during a call.
    std::uint32_t free_count() const;
    /// Exact when nothing runs; hold >= release at any time.
    PagePoolStats stats() const;
    const char* name() const { return name_; }
    std::uint32_t pages() const { return pages_; }
    std::uint32_t fragments() const { return fragments_; }
    std::uint32_t fragments_per_page() const { return fragments_per_page_; }
    /// One bit per fragment of the page, set while it is free.
    std::uint64_t page_word(std::uint32_t page) const;
    /// The page a fragment is in.
    std::uint32_t page_of(std::uint32_t fragment) const
    {
        // fragment / fragments_per_page_ by multiplication: the estimate is at most one too high.
        const auto q = static_cast<std::uint32_t>(fragment * reciprocal_ >> 32);
        return q - (std::uint64_t{q} * fragments_per_page_ > fragment ? 1 : 0);
    }

    PagePool(const PagePool&) = delete;
    PagePool& operator=(const PagePool&) = delete;

private:
    struct Page;
    struct Slot;
    struct Taken;

    PagePool() = default;

    const Slot* slots() const;
    const Page* page_array() const;
    Slot& slot(std::uint32_t lcore);
    Page& page(std::uint32_t index);

    std::uint64_t take(Slot& slot, Page& page, std::uint64_t sel);
    std::uint64_t put(Slot& slot, std::uint32_t index, std::uint64_t mask);
    void put_back(Slot& slot, const Taken& taken);
    void take_current(Slot& slot, Taken& taken);
    void take_shared(Slot& slot, Taken& taken);
    bool take_next(Slot& slot, std::uint32_t n, FragmentRun* run);
    bool next_page(Slot& slot);
    std::uint64_t leave(Slot& slot, std::uint32_t index, std::uint64_t sel);
    void recycle(Slot& slot, std::uint32_t index);
    void spill(Slot& slot, std::uint32_t count);
    bool salvage(Slot& slot, Taken& taken);
    void sweep(Slot& slot, Taken& taken, std::uint32_t span, bool owned_too);
    bool alloc(Slot& slot, Taken& taken);

    void list_push(const std::uint32_t* pages, std::uint32_t count);
    std::uint32_t list_pop(std::uint32_t* pages, std::uint32_t max);

    char name_[32]{};
    std::uint32_t fragments_ = 0;
    std::uint32_t fragments_per_page_ = 0;
    std::uint32_t pages_ = 0;
    std::uint32_t lcores_ = 0;
    std::uint32_t stack_depth_ = 0; ///< pages an lcore keeps at most
    std::uint64_t reciprocal_ = 0;  ///< 2^32 / fragments_per_page, rounded up

    alignas(64) std::atomic<std::uint64_t> list_{}; ///< whole pages: {tag:32, first page:32}
    alignas(64)
        std::atomic<std::uint32_t> shared_page_{}; ///< where callers that are no lcore look first
    std::atomic<bool> salvaging_{}; ///< somebody keeps what it has found while it looks for more
};

} // namespace devmem
