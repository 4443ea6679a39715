// SPDX-License-Identifier: BSD-3-Clause
// Pages of up to 64 fragments, recycled. No DPDK in here: fragments are indices, memory is the
// caller's. How it works and why it is safe: doc/page_pool.md.
#pragma once

#include "lib/memory/divider.h"
#include "lib/page_pool/sync.h"

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

/// A caller of another process (1 to kMaxProcess), which must not use lcore numbers: they are those
/// of the process that made the pool. What it takes is marked as its own. @see
/// PagePool::reclaim()
inline constexpr std::uint32_t kMaxProcess = 254;
constexpr std::uint32_t caller_of_process(std::uint32_t process)
{
    return kNoLcore - process;
}

/// Adjacent fragments of one page.
struct FragmentRun {
    std::uint32_t first;
    std::uint32_t count;
};

/// Counters, named as the kernel's page_pool names them. @see devmem_pool_stats
struct PagePoolStats {
    std::uint64_t alloc_fast, alloc_slow, alloc_slow_high_order, alloc_empty, alloc_refill,
        alloc_waive, alloc_failed;
    std::uint64_t recycle_cached, recycle_cache_full, recycle_ring, recycle_ring_full,
        recycle_released_refcnt;
    std::uint64_t salvaged, stolen, double_free, foreign_free;
    std::uint64_t hold, release;
};

/// A refused free, for the log: which pool, which page, which fragment of it.
struct RefusedFree {
    const char* pool;
    std::uint32_t page;
    std::uint32_t fragment;
};

/// A page at one moment; bit f of each word stands for fragment f.
struct PageView {
    std::uint64_t out;      ///< in somebody's hands
    std::uint64_t shared;   ///< of these, those with several holders
    std::uint64_t foreign;  ///< of these, those taken by other processes
    std::uint32_t since_ms; ///< how long ago the page was last wholly free; 0 if it is
    bool present;           ///< the pool's, and not the provider's
};

/// The pool is one relocatable block: indices, no pointers, so that a second process can attach.
/// All functions but create() are safe from any thread; a thread that passes an lcore number must
/// be the only one that does, and of the process that made the pool.
class PagePool {
public:
    /// Bytes of the block, to be aligned to a cache line. 0 if the configuration is wrong.
    static std::size_t bytes(const PagePoolConfig& config);
    /// Lay a pool out in a block. All fragments start out taken: free_run() puts them in.
    /// @return the pool, at the block's address; nullptr if bytes() is 0 or the block is
    /// misaligned.
    static PagePool* create(void* block, const PagePoolConfig& config);

    // ---- fragments

    /// Take `n` fragments as runs, ascending within a page. All or nothing.
    /// @param runs     receives the runs; room for `n` of them always suffices
    /// @return number of runs; 0 if fewer than `n` fragments are free. It never fails while they
    /// are.
    unsigned alloc_runs(std::uint32_t caller, std::uint32_t n, FragmentRun* runs);

    /// Take `n` fragments, all or nothing. @return 0; -ENOBUFS.
    int alloc(std::uint32_t caller, std::uint32_t n, std::uint32_t* fragments);

    /// Take one run of `n` fragments, as the kernel's page_pool_alloc() takes bytes: what is left
    /// of the page behind it is given along if another such run would not fit there.
    /// @param run receives the run, of `n` fragments or more
    /// @return 0; -EINVAL n is 0 or more than a page has; -ENOBUFS no page has so many in a row.
    int alloc_adjacent(std::uint32_t caller, std::uint32_t n, FragmentRun* run);

    /// Put back adjacent fragments of one page. A fragment with several holders loses one.
    /// @return 0; -EINVAL outside the pool or across a page (counted as one foreign free);
    /// -EALREADY
    ///   some were free already: those are counted and reported, the others are put back.
    int free_run(std::uint32_t caller, FragmentRun run, RefusedFree* refused = nullptr);

    /// Put back any fragments of one page, one bit each, with one atomic operation.
    /// @pre page < pages(), and no bit set beyond the page's fragments; n is the number of bits.
    /// @return the bits that were free already: counted, and refused.
    std::uint64_t free_mask(std::uint32_t caller, std::uint32_t page, std::uint64_t mask,
                            std::uint32_t n);

    /// Count a free that named no fragment of this pool.
    void count_foreign_free(std::uint32_t caller);

    /// Give each fragment of a run one more holder, each of which must free it. The caller holds
    /// the run. @return 0; -EINVAL outside the pool or across a page; -ENOENT one of them is free;
    ///   -EOVERFLOW one of them has 65,536 holders. Nothing has changed then.
    int hold_run(FragmentRun run);
    /// Take one holder from each of these fragments that has several. @return the others, which are
    /// out still: free_mask() puts them, and the caller is the last to have them until then.
    std::uint64_t drop_holders(std::uint32_t caller, std::uint32_t page, std::uint64_t mask);
    /// Holders of a fragment; 0 if it is free.
    std::uint32_t holders(std::uint32_t fragment) const;

    /// Put the lcore's stack and current page back where others find them first.
    void flush(std::uint32_t lcore);

    // ---- pages and their provider

    /// Take up to `n` wholly free pages out of the pool: they become the provider's, and frees of
    /// their fragments are refused. @return how many
    std::uint32_t withdraw(std::uint32_t caller, std::uint32_t n, std::uint32_t* pages);
    /// Withdraw `n` pages more, each as soon as it becomes wholly free. Replaces what is left of an
    /// earlier demand.
    void divert(std::uint32_t n) { diverted_wanted_.store(n); }
    /// How many of them are still to come.
    std::uint32_t diverted_wanted() const { return diverted_wanted_.load(); }
    struct Diverted {
        std::uint32_t index;
        bool waived; ///< it was on another node
    };
    /// Fetch a page that was diverted, or passed over because of its node: it is the provider's
    /// then. @return false: there is none.
    bool fetch_diverted(Diverted* page);
    /// Give a page back that was withdrawn. @return 0; -EINVAL no such page; -EEXIST it is the
    /// pool's.
    int insert(std::uint32_t caller, std::uint32_t page);
    /// Pages that are the pool's.
    std::uint32_t present() const { return present_.load(); }

    /// The node pages should be on; those found to be on another are diverted, few at a time. -1:
    /// any.
    void update_nid(int node) { node_.store(node); }
    int nid() const { return node_.load(); }
    /// The node a page is on. Set it while the page is withdrawn, or before it is put in.
    void set_page_nid(std::uint32_t page, int node);

    /// Record the DMA address of a page, page-shifted into 32 bits: the same on 32-bit hosts.
    /// @param shift of all pages of the pool, 12 to 63: with 12 they can reach 16 TiB
    /// @return 0; -EINVAL no such page; -ERANGE the address would lose bits, or no such shift.
    int set_dma(std::uint32_t page, std::uint64_t address, unsigned shift);
    /// The DMA address of a page, 0 if none was set.
    std::uint64_t dma(std::uint32_t page) const;

    /// Nothing can be taken any more, and all pages become the provider's: the idle ones now,
    /// others when they become idle, which takes another call where an lcore kept some of their
    /// fragments. An lcore that is in the middle of a get meanwhile may keep a page, and take from
    /// it until that other call.
    /// @return whether all pages are the provider's
    bool retire(std::uint32_t caller);

    // ---- what other processes left behind

    /// Put back what a process took, after its death. @return the number of fragments.
    std::uint32_t reclaim(std::uint32_t caller, std::uint32_t process);

    // ---- state

    /// Free fragments; exact when nothing runs, and never less than the truth during a call.
    std::uint32_t free_count() const;
    /// Whether a fragment is out.
    bool is_in_use() const;
    /// Exact when nothing runs; hold >= release at any time.
    PagePoolStats stats() const;
    const char* name() const { return name_; }
    std::uint32_t pages() const { return pages_; }
    std::uint32_t fragments() const { return fragments_; }
    std::uint32_t fragments_per_page() const { return fragments_per_page_; }
    /// One bit per fragment of the page, set while it is free.
    std::uint64_t page_word(std::uint32_t page) const;
    PageView view(std::uint32_t page) const;
    /// The process that took a fragment; 0: the one that made the pool, or the fragment is free.
    std::uint32_t process_of(std::uint32_t fragment) const;
    /// The page a fragment is in.
    std::uint32_t page_of(std::uint32_t fragment) const { return by_page_.quotient(fragment); }
    /// What page_of() divides by, for those who have many to divide.
    Divider by_page() const { return by_page_; }

    PagePool(const PagePool&) = delete;
    PagePool& operator=(const PagePool&) = delete;

private:
    struct Page;
    struct Slot;
    struct Taken;
    /// Whole pages, last in, first out: {tag:32, first page:32}.
    struct alignas(64) List {
        sync::Atomic<std::uint64_t> head{UINT32_MAX};
    };

    PagePool() = default;

    Slot& slot(std::uint32_t caller) const;
    Page& page(std::uint32_t index) const;
    sync::Atomic<std::uint32_t>& side(std::uint32_t fragment) const;
    bool contains(FragmentRun run) const;
    std::uint64_t mask_of(std::uint32_t index, FragmentRun run) const;
    FragmentRun run_of(std::uint32_t index, std::uint64_t sel) const;

    bool enter(Slot& slot);
    static void leave(Slot& slot);
    bool revoke(Slot& victim, std::uint32_t caller);
    void begin_using(Slot& slot);
    Slot& used_slot(std::uint32_t caller);
    void set_allocates(Slot& slot, bool allocates);

    void list_push(List& list, const std::uint32_t* pages, std::uint32_t count);
    std::uint32_t list_pop(List& list, std::uint32_t* pages, std::uint32_t max);

    bool waive(Slot& slot, std::uint32_t index);
    bool waive_now(Slot& slot, std::uint32_t index);
    std::uint32_t pop_pages(Slot& slot, std::uint32_t* pages, std::uint32_t max, std::uint32_t n);
    bool refill(Slot& slot, std::uint32_t n);
    std::uint32_t next_shared_page(Slot& slot, std::uint32_t n);
    bool next_page(Slot& slot, std::uint32_t n, std::uint32_t now);
    static void keep(Slot& slot, Page& page, std::uint64_t reserve);
    void take_current(Slot& slot, Taken& taken);
    void open_to_all(Slot& slot, std::uint32_t index, std::uint64_t sel);
    template <typename Pick>
    static std::uint64_t take_stray(Page& page, Pick pick);
    static std::uint64_t take_stray(Page& page, std::uint32_t n);
    static std::uint64_t take_stray_adjacent(Page& page, std::uint32_t n);
    void take_shared(Slot& slot, Taken& taken);
    void take_in_order(Slot& slot, Taken& taken);
    bool alloc(std::uint32_t caller, Taken& taken);
    bool salvage(Slot& slot, Taken& taken, std::uint32_t caller);
    void begin_scarcity(Slot& slot);
    void sweep(Slot& slot, Taken& taken);
    void sweep_and_take(Slot& slot, Taken& taken);
    bool evict(std::uint32_t lcore, Slot& own, std::uint32_t caller);
    void put_back(Slot& slot, const Taken& taken);
    bool take_adjacent(Slot& slot, std::uint32_t n, FragmentRun& run);
    bool sweep_adjacent(Slot& slot, std::uint32_t n, FragmentRun& run);

    std::uint64_t put(Slot& slot, std::uint32_t index, std::uint64_t mask);
    void settle_if_put_off(std::uint32_t caller, std::uint32_t index, std::uint64_t mask);
    bool put_off(Slot& slot, std::uint32_t index, std::uint64_t mask, std::uint32_t n);
    void settle(Slot& owner, Slot& own);
    void recycle(Slot& slot, std::uint32_t index);
    void queue(Slot& slot, std::uint32_t index);
    void spill(Slot& owner, Slot& own, std::uint32_t count);
    void close(Slot& owner, Slot& own);
    std::uint64_t drop_holders(Slot& slot, std::uint32_t index, std::uint64_t mask);
    void mark_foreign(std::uint32_t process, FragmentRun run);
    unsigned unseen_releases(std::uint32_t slot_index) const;
    void withdraw_page(Slot& slot, std::uint32_t index, std::uint8_t owner);

    char name_[32]{};
    std::uint32_t fragments_ = 0;
    std::uint32_t fragments_per_page_ = 0;
    std::uint32_t pages_ = 0;
    std::uint32_t lcores_ = 0;
    Divider by_page_;            ///< fragments_per_page_
    std::uint32_t pages_at_ = 0; ///< offset of the pages from this
    std::uint32_t side_at_ = 0;  ///< offset, in cache lines, of the fragments' side table
    bool asymmetric_ = false;    ///< owners of slots rely on heavy_fence() of those who are not
    unsigned dma_shift_ = 0;

    // Read often, written seldom.
    alignas(64) sync::Atomic<std::uint32_t> used_slots_{1}; ///< slots from here on were never used
    sync::Atomic<std::uint32_t> allocators_{0};             ///< lcores that get
    sync::Atomic<std::uint32_t> stack_limit_{0};            ///< pages an lcore keeps at most
    sync::Atomic<std::uint32_t> diverted_wanted_{0};
    sync::Atomic<std::int32_t> node_{-1};
    sync::Atomic<std::uint32_t> waived_{0}; ///< diverted because of their node, not yet fetched
    sync::Atomic<std::uint32_t> present_{0};
    sync::Atomic<bool> retired_{false};
    sync::Atomic<bool> scarce_{false}; ///< the last page that was looked for was not to be had

    List recycled_; ///< pages that were used
    List fresh_;    ///< pages the provider gave, not used yet
    List short_;    ///< the last page, if it is shorter than others
    List returned_; ///< pages diverted to the provider
    /// The page whose fragments callers that are no lcore look at first.
    alignas(64) sync::Atomic<std::uint32_t> shared_page_{0};
    /// Fragments that count as free and could not be found, however long one looked: those of a
    /// process that died in the middle of a call. Who finds one all the same resets it.
    sync::Atomic<std::uint32_t> lost_{0};
    /// Process + 1 of who keeps what it has found while it looks for more; 0: nobody.
    sync::Atomic<std::uint32_t> salvaging_{0};
};

} // namespace devmem
