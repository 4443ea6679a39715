// SPDX-License-Identifier: BSD-3-Clause
#include "lib/page_pool/page_pool.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <limits>
#include <new>

namespace devmem {
namespace {

constexpr std::uint32_t kNone = UINT32_MAX;
constexpr std::size_t kCacheLine = 64;

/// Pages an lcore keeps at most. 16 pages of 64 KiB fill a typical L2 cache: more would not be hot.
constexpr std::uint32_t kStackDepth = 16;
/// All stacks together hold at most this part of the pages, so that a get seldom has to take from
/// another lcore's.
constexpr std::uint32_t kStackShare = 2;
/// Pages of the wrong node that wait for the provider at any time, as a part of all: a pool that
/// nobody tends must not drain.
constexpr std::uint32_t kWaiveShare = 16;
/// Looks through the whole pool before a get gives up although the count says that enough is free:
/// other threads are then in the middle of a call. A bound, so that a process that died there
/// cannot hang the others; generous, so that one that was merely preempted there is waited for.
#ifndef DEVMEM_PAGE_POOL_ATTEMPTS
#define DEVMEM_PAGE_POOL_ATTEMPTS 10000
#endif
constexpr unsigned kAttempts = DEVMEM_PAGE_POOL_ATTEMPTS;
/// Of these, how many without giving way to such a thread.
constexpr unsigned kBusyAttempts = 16;
/// Looks at an lcore that is in the middle of a call, and how many of them without giving way.
#ifndef DEVMEM_PAGE_POOL_PATIENCE
#define DEVMEM_PAGE_POOL_PATIENCE 96
#endif
constexpr unsigned kPatience = DEVMEM_PAGE_POOL_PATIENCE;
constexpr unsigned kBusyPatience = 64;

/// Who has a page. A wholly free page of the pool is in one list or stack, or in the hands of the
/// thread that is about to put it there.
enum Owner : std::uint8_t {
    kPool,
    kReturned, ///< withdrawn, waits to be fetched
    kProvider,
};

/// Where a wholly free page waits.
enum Home : std::uint8_t {
    kRecycled, ///< in a stack, or in the list of pages that were used
    kFresh,    ///< among those the provider gave, until it is used
    kShort,    ///< the last page, if it has fewer fragments, is apart: runs should not end in it
};

/// A fragment's entry in the side table: {process:16, holders beyond the first:16}.
constexpr unsigned kProcessShift = 16;
constexpr std::uint32_t kHolderMask = (1U << kProcessShift) - 1;

constexpr std::uint64_t ones(unsigned n)
{
    return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
}

std::uint32_t bits(std::uint64_t word)
{
    return static_cast<std::uint32_t>(std::popcount(word));
}

/// The lowest `n` bits that are set.
std::uint64_t lowest(std::uint64_t word, std::uint32_t n)
{
    if (bits(word) <= n)
        return word;
    const std::uint64_t run = ones(n) << std::countr_zero(word);
    if ((word & run) == run)
        return run;
    std::uint64_t rest = word;
    while (n-- > 0)
        rest &= rest - 1;
    return word ^ rest;
}

/// Where the lowest `n` adjacent set bits begin; 64 if there are none. 1 <= n <= 64.
unsigned find_adjacent(std::uint64_t word, unsigned n)
{
    for (unsigned have = 1; have < n;) {
        const unsigned step = std::min(have, n - have);
        word &= word >> step;
        have += step;
    }
    return static_cast<unsigned>(std::countr_zero(word));
}

/// The lowest `n` adjacent bits, and those that follow if no other `n` are left. 0: there are none.
std::uint64_t adjacent(std::uint64_t word, unsigned n)
{
    const unsigned at = find_adjacent(word, n);
    if (at == 64)
        return 0;
    std::uint64_t run = ones(n) << at;
    if (find_adjacent(word & ~run, n) == 64)
        run = ones(static_cast<unsigned>(std::countr_one(word >> at))) << at;
    return run;
}

constexpr std::uint64_t list_head(std::uint64_t previous, std::uint32_t page)
{
    return ((previous >> 32) + 1) << 32 | page;
}

constexpr std::uint32_t list_first(std::uint64_t head)
{
    return static_cast<std::uint32_t>(head);
}

/// Milliseconds, wrapping; cheap and coarse.
std::uint32_t now_ms()
{
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<std::uint32_t>(std::uint64_t(now.tv_sec) * 1000 +
                                      std::uint64_t(now.tv_nsec) / 1000000);
}

/// The process of a caller: 0 is the one that made the pool.
std::uint32_t process_of_caller(std::uint32_t caller)
{
    const std::uint32_t process = kNoLcore - caller;
    return process <= kMaxProcess ? process : 0;
}

} // namespace

/// A cache line each, as the kernel's struct page: neighbours belong to different lcores.
struct alignas(kCacheLine) PagePool::Page {
    /// Bit f set: fragment f is in somebody's hands, or in `reserve`. 0: wholly free; then the page
    /// has one owner, and nobody else changes the word.
    sync::Atomic<std::uint64_t> out{0};
    /// Which of the `out` bits the lcore whose current page this is has still to hand out. Written
    /// by the page's owner alone.
    sync::Atomic<std::uint64_t> reserve{0};
    sync::Atomic<std::uint64_t> special{0}; ///< fragments with an entry in the side table
    std::uint64_t full = 0;                 ///< the word of a page all of which is out
    sync::Atomic<std::uint32_t> next{kNone};
    sync::Atomic<std::uint32_t> since_ms{0};
    std::uint32_t dma = 0; ///< address, page-shifted
    /// Slot of the lcore that opened the page last: it alone may put off puts of it. 0: none may.
    sync::Atomic<std::uint32_t> opener{0};
    sync::Atomic<Owner> owner{kPool};
    std::int8_t nid = -1;
    Home home = kFresh; ///< the page's owner's
    bool waived = false;
};

/// What one lcore owns. The first slot is that of all callers that are no lcore; of it only the
/// counters are used.
///
/// A slot is biased to its lcore, which says that it is busy with it by a plain store. Another
/// thread that wants the pages in there revokes the slot, and has all CPUs run a fence: from then
/// on the lcore sees that, and acts as a thread that is no lcore; and if it was busy, that is seen.
struct alignas(kCacheLine) PagePool::Slot {
    using Counter = sync::Atomic<std::uint64_t>;

    /// Fragments taken, counted after they are, and put, counted before they are: the difference
    /// can only be too high. @see free_count()
    Counter gets{0}, puts{0};
    sync::Atomic<std::uint32_t> busy{0};
    sync::Atomic<std::uint32_t> revoked{0}; ///< process + 1 of who did
    // The lcore's, and atomic for those who only look.
    sync::Atomic<std::uint64_t> reserve{0}; ///< of `current`; 0: there is no current page
    sync::Atomic<std::uint64_t> pending{0}; ///< put, but not yet in the word of `pending_page`
    sync::Atomic<std::uint32_t> current{0}; ///< the page whose fragments are handed out
    sync::Atomic<std::uint32_t> pending_page{0};
    sync::Atomic<std::uint32_t> depth{0}; ///< of `stack`
    sync::Atomic<std::uint32_t> scan{0};  ///< page where the search for stray fragments goes on
    std::uint32_t index = 0;              ///< among the slots
    bool shared = false;
    bool used = false;
    bool allocates = false; ///< an lcore that only frees has no use for a stack

    alignas(kCacheLine) std::uint32_t stack[kStackDepth];

    alignas(kCacheLine) Counter alloc_fast{0}, alloc_slow{0}, alloc_slow_high_order{0},
        alloc_empty{0}, alloc_refill{0}, alloc_waive{0}, alloc_failed{0};
    Counter recycle_cached{0}, recycle_cache_full{0}, recycle_ring{0}, recycle_ring_full{0},
        recycle_released_refcnt{0};
    Counter salvaged{0}, stolen{0}, double_free{0}, foreign_free{0};
    Counter hold{0}, release{0};

    void count(Counter& counter, std::uint64_t n = 1)
    {
        if (shared) [[unlikely]]
            counter.fetch_add(n, std::memory_order_release);
        else
            counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
    }
};

/// What a get has taken so far: it becomes the caller's when it is complete.
struct PagePool::Taken {
    std::uint32_t wanted;
    FragmentRun* runs;        ///< either this,
    std::uint32_t* fragments; ///< or that
    std::uint32_t run_count = 0;
    std::uint32_t got = 0;
    std::uint32_t salvaged = 0;

    std::uint32_t missing() const { return wanted - got; }

    void add(std::uint32_t base, std::uint64_t taken)
    {
        while (taken != 0) {
            const auto skip = static_cast<unsigned>(std::countr_zero(taken));
            const auto length = static_cast<unsigned>(std::countr_one(taken >> skip));
            taken &= ~(ones(length) << skip);
            if (runs != nullptr) {
                runs[run_count++] = {base + skip, length};
                got += length;
            } else {
                for (unsigned i = 0; i < length; ++i)
                    fragments[got++] = base + skip + i;
            }
        }
    }
    void clear() { run_count = got = salvaged = 0; }
    /// Call f with each run.
    template <typename F>
    void for_each(F f) const
    {
        if (runs != nullptr) {
            for (std::uint32_t i = 0; i < run_count; ++i)
                f(runs[i]);
        } else {
            for (std::uint32_t i = 0; i < got; ++i)
                f(FragmentRun{fragments[i], 1});
        }
    }
};

// ---- layout

std::size_t PagePool::bytes(const PagePoolConfig& config)
{
    static_assert(sizeof(Page) == kCacheLine);
    if (config.fragments == 0 || config.fragments == UINT32_MAX || config.fragments_per_page == 0 ||
        config.fragments_per_page > 64 || config.lcores >= kNoLcore - kMaxProcess)
        return 0;
    const std::uint64_t pages = (std::uint64_t{config.fragments} + config.fragments_per_page - 1) /
                                config.fragments_per_page;
    const std::uint64_t pages_at =
        sizeof(PagePool) + (std::uint64_t{config.lcores} + 1) * sizeof(Slot);
    const std::uint64_t size =
        pages_at + pages * sizeof(Page) + std::uint64_t{config.fragments} * sizeof(std::uint32_t);
    return pages_at > UINT32_MAX || size > std::numeric_limits<std::size_t>::max() / 2
               ? 0
               : static_cast<std::size_t>(size);
}

PagePool* PagePool::create(void* block, const PagePoolConfig& config)
{
    static_assert(sync::Atomic<std::uint64_t>::is_always_lock_free, "processes share the words");
    if (bytes(config) == 0 || reinterpret_cast<std::uintptr_t>(block) % kCacheLine != 0)
        return nullptr;
    auto* pool = new (block) PagePool;
    if (config.name != nullptr)
        std::memcpy(pool->name_, config.name, strnlen(config.name, sizeof(pool->name_) - 1));
    pool->fragments_ = config.fragments;
    pool->fragments_per_page_ = config.fragments_per_page;
    pool->pages_ = (config.fragments - 1) / config.fragments_per_page + 1;
    pool->lcores_ = config.lcores;
    pool->by_page_ = Divider(config.fragments_per_page);
    pool->pages_at_ =
        static_cast<std::uint32_t>(sizeof(PagePool) + (config.lcores + 1) * sizeof(Slot));
    pool->side_at_ = pool->pages_at_ / static_cast<std::uint32_t>(kCacheLine) + pool->pages_;
    pool->asymmetric_ = sync::asymmetric_fences();
    pool->present_ = pool->pages_;

    for (std::uint32_t i = 0; i <= config.lcores; ++i)
        (new (reinterpret_cast<Slot*>(pool + 1) + i) Slot)->index = i;
    Slot& shared = pool->slot(kNoLcore);
    shared.shared = shared.used = true;
    // Until they are put in for the first time, all pages are in flight.
    shared.hold = pool->pages_;

    for (std::uint32_t i = 0; i < pool->pages_; ++i) {
        const std::uint32_t left = config.fragments - i * config.fragments_per_page;
        Page& page = *new (&pool->page(i)) Page;
        page.full = ones(std::min(left, config.fragments_per_page));
        if (left < config.fragments_per_page)
            page.home = kShort;
        page.out = page.full;
        page.since_ms = now_ms();
    }
    for (std::uint32_t f = 0; f < config.fragments; ++f)
        new (&pool->side(f)) sync::Atomic<std::uint32_t>{0};
    return pool;
}

inline PagePool::Slot& PagePool::slot(std::uint32_t caller) const
{
    auto* slots = reinterpret_cast<Slot*>(const_cast<PagePool*>(this) + 1);
    return slots[caller < lcores_ ? caller + 1 : 0];
}

inline PagePool::Page& PagePool::page(std::uint32_t index) const
{
    auto* block = reinterpret_cast<std::byte*>(const_cast<PagePool*>(this));
    return reinterpret_cast<Page*>(block + pages_at_)[index];
}

inline sync::Atomic<std::uint32_t>& PagePool::side(std::uint32_t fragment) const
{
    auto* block = reinterpret_cast<std::byte*>(const_cast<PagePool*>(this));
    auto* table = block + std::size_t{side_at_} * kCacheLine;
    return reinterpret_cast<sync::Atomic<std::uint32_t>*>(table)[fragment];
}

// ---- slots

/// Be busy with one's own slot. @return false: it is revoked; then one is not.
inline bool PagePool::enter(Slot& slot)
{
    if (asymmetric_) [[likely]] {
        slot.busy.store(1, std::memory_order_relaxed);
        sync::light_fence();
    } else {
        slot.busy.exchange(1, std::memory_order_seq_cst);
    }
    if (slot.revoked.load(std::memory_order_seq_cst) == 0) [[likely]]
        return true;
    leave(slot);
    return false;
}

inline void PagePool::leave(Slot& slot)
{
    slot.busy.store(0, std::memory_order_release);
}

/// Have another's slot to oneself until `revoked` is 0 again. Not to be called while busy: two that
/// wait for each other would wait in vain.
bool PagePool::revoke(Slot& victim, std::uint32_t caller)
{
    std::uint32_t nobody = 0;
    if (!victim.revoked.compare_exchange_strong(nobody, process_of_caller(caller) + 1,
                                                std::memory_order_seq_cst))
        return false;
    if (!asymmetric_ || sync::heavy_fence()) {
        for (unsigned i = 0; i < kPatience; ++i) {
            if (victim.busy.load(std::memory_order_seq_cst) == 0)
                return true;
            i < kBusyPatience ? sync::relax() : sync::yield();
        }
    }
    victim.revoked.store(0, std::memory_order_release);
    return false;
}

/// The first use of an lcore's slot: from now on it is one of those that are looked at.
[[gnu::cold]] void PagePool::begin_using(Slot& slot)
{
    const std::uint32_t index = slot.index;
    std::uint32_t used = used_slots_.load(std::memory_order_relaxed);
    while (used <= index && !used_slots_.compare_exchange_weak(used, index + 1)) {
    }
    slot.used = true;
}

/// The slot of a caller, in use from now on.
inline PagePool::Slot& PagePool::used_slot(std::uint32_t caller)
{
    Slot& s = slot(caller);
    if (!s.used) [[unlikely]]
        begin_using(s);
    return s;
}

void PagePool::set_allocates(Slot& slot, bool allocates)
{
    if (slot.allocates == allocates)
        return;
    slot.allocates = allocates;
    const std::uint32_t n = allocates ? allocators_.fetch_add(1) + 1 : allocators_.fetch_sub(1) - 1;
    stack_limit_ = std::min(kStackDepth, pages_ / (kStackShare * std::max(n, 1U)));
}

// ---- lists of pages

// A list and not a ring, for three reasons. Last in, first out hands out the page that is still in
// somebody's cache, which on a port that copies is worth a factor of 1.8; it is never full, so a
// free cannot fail; and a batch of pages moves with one compare-exchange. Only the head is
// contended. The tag makes a head that was read once unequal to a later one with the same page in
// front.

/// Push pages, the last of which will be the first to be popped.
void PagePool::list_push(List& list, const std::uint32_t* pages, std::uint32_t count)
{
    for (std::uint32_t i = 1; i < count; ++i)
        page(pages[i]).next.store(pages[i - 1], std::memory_order_relaxed);
    std::uint64_t head = list.head.load(std::memory_order_relaxed);
    do
        page(pages[0]).next.store(list_first(head), std::memory_order_relaxed);
    while (!list.head.compare_exchange_weak(head, list_head(head, pages[count - 1]),
                                            std::memory_order_release, std::memory_order_relaxed));
}

/// Pop up to `max` pages; the one on top of the list comes last. @return how many.
std::uint32_t PagePool::list_pop(List& list, std::uint32_t* pages, std::uint32_t max)
{
    std::uint64_t head = list.head.load(std::memory_order_acquire);
    std::uint32_t count;
    std::uint32_t next;
    do {
        // What is read here may be outdated, but is always a page or kNone; if it is outdated, the
        // head has changed, and the exchange fails.
        for (count = 0, next = list_first(head); count < max && next != kNone; ++count) {
            pages[count] = next;
            next = page(next).next.load(std::memory_order_relaxed);
        }
        if (count == 0)
            return 0;
    } while (!list.head.compare_exchange_weak(
        head, list_head(head, next), std::memory_order_acquire, std::memory_order_acquire));
    std::reverse(pages, pages + count);
    return count;
}

// ---- get

/// Withdraw a whole page that is on another node than it should be, unless many wait already.
inline bool PagePool::waive(Slot& slot, std::uint32_t index)
{
    const std::int32_t node = node_.load(std::memory_order_relaxed);
    return node >= 0 && page(index).nid >= 0 && page(index).nid != node && waive_now(slot, index);
}

bool PagePool::waive_now(Slot& slot, std::uint32_t index)
{
    Page& p = page(index);
    if (waived_.fetch_add(1) >= std::max(pages_ / kWaiveShare, 1U)) {
        waived_.fetch_sub(1);
        return false;
    }
    p.waived = true;
    slot.count(slot.alloc_waive);
    withdraw_page(slot, index, kReturned);
    list_push(returned_, &index, 1);
    return true;
}

/// Pop pages for a get: those that were used before first, the short one last.
/// @param n fragments in a row they must have, or 0
std::uint32_t PagePool::pop_pages(Slot& slot, std::uint32_t* pages, std::uint32_t max,
                                  std::uint32_t n)
{
    if (retired_.load(std::memory_order_relaxed)) [[unlikely]]
        return 0;
    std::uint32_t count = list_pop(recycled_, pages, max);
    if (count != 0) {
        slot.count(slot.alloc_refill);
    } else {
        count = list_pop(fresh_, pages, max);
        if (count == 0 && n <= bits(page(pages_ - 1).full))
            count = list_pop(short_, pages, 1);
        if (count == 0)
            return 0;
        slot.count(2 * n > fragments_per_page_ ? slot.alloc_slow_high_order : slot.alloc_slow);
    }
    if (scarce_.load(std::memory_order_relaxed))
        scarce_.store(false, std::memory_order_relaxed);
    return count;
}

/// A whole page for a caller that is no lcore, which then owns it; or kNone.
std::uint32_t PagePool::next_shared_page(Slot& slot, std::uint32_t n)
{
    std::uint32_t index;
    do {
        if (pop_pages(slot, &index, 1, n) == 0)
            return kNone;
    } while (waive(slot, index));
    return index;
}

/// Have pages in an lcore's stack. @return false: there are none.
[[gnu::noinline]] bool PagePool::refill(Slot& slot, std::uint32_t n)
{
    const std::uint32_t batch = std::max(stack_limit_.load(std::memory_order_relaxed) / 2, 1U);
    const std::uint32_t depth = pop_pages(slot, slot.stack, batch, n);
    slot.depth.store(depth, std::memory_order_relaxed);
    return depth != 0;
}

/// Make a whole page current: the hottest of the lcore's own, else one from the lists.
/// @return false: there is none.
inline bool PagePool::next_page(Slot& slot, std::uint32_t n, std::uint32_t now)
{
    std::uint32_t index;
    do {
        std::uint32_t depth = slot.depth.load(std::memory_order_relaxed);
        if (depth != 0) [[likely]]
            slot.count(slot.alloc_fast);
        else if (refill(slot, n))
            depth = slot.depth.load(std::memory_order_relaxed);
        else
            return false;
        index = slot.stack[--depth];
        slot.depth.store(depth, std::memory_order_relaxed);
    } while (waive(slot, index));
    slot.count(slot.hold);
    Page& p = page(index);
    if (p.home == kFresh)
        p.home = kRecycled;
    p.opener.store(slot.index, std::memory_order_relaxed);
    p.since_ms.store(now, std::memory_order_relaxed);
    p.reserve.store(p.full, std::memory_order_relaxed);
    p.out.store(p.full, std::memory_order_release);
    slot.current.store(index, std::memory_order_relaxed);
    slot.reserve.store(p.full, std::memory_order_relaxed);
    return true;
}

/// Keep `reserve` of the current page; none left: there is no current page any more.
inline void PagePool::keep(Slot& slot, Page& page, std::uint64_t reserve)
{
    // Before anybody can free what was taken.
    page.reserve.store(reserve, std::memory_order_relaxed);
    slot.reserve.store(reserve, std::memory_order_relaxed);
}

/// Take from the lcore's current page, ascending. What comes back behind the point reached waits
/// for the page to come back whole, or is salvaged: going back for it would cut the runs that
/// follow to pieces.
void PagePool::take_current(Slot& slot, Taken& taken)
{
    const std::uint32_t index = slot.current.load(std::memory_order_relaxed);
    const std::uint64_t reserve = slot.reserve.load(std::memory_order_relaxed);
    const std::uint64_t sel = lowest(reserve, taken.missing());
    keep(slot, page(index), reserve & ~sel);
    taken.add(index * fragments_per_page_, sel);
}

/// Take `sel` of a page that one owns, and leave the rest to everybody.
void PagePool::open_to_all(Slot& slot, std::uint32_t index, std::uint64_t sel)
{
    Page& p = page(index);
    slot.count(slot.hold);
    if (p.home == kFresh)
        p.home = kRecycled;
    p.opener.store(0, std::memory_order_relaxed);
    p.since_ms.store(now_ms(), std::memory_order_relaxed);
    p.out.store(sel, std::memory_order_release);
    shared_page_.store(index, std::memory_order_relaxed);
}

/// Take free fragments of a page that is not whole: those that `pick` picks of them. @return which.
template <typename Pick>
std::uint64_t PagePool::take_stray(Page& page, Pick pick)
{
    std::uint64_t out = page.out.load(std::memory_order_relaxed);
    while (out != 0) {
        const std::uint64_t sel = pick(page.full & ~out);
        if (sel == 0)
            return 0;
        if (page.out.compare_exchange_weak(out, out | sel, std::memory_order_acq_rel,
                                           std::memory_order_relaxed))
            return sel;
    }
    return 0;
}

/// Up to `n` of them.
std::uint64_t PagePool::take_stray(Page& page, std::uint32_t n)
{
    return take_stray(page, [n](std::uint64_t free) { return lowest(free, n); });
}

/// Take for a caller that is no lcore. All of them hand out the fragments of one page at a time,
/// but nobody owns it: a page each would leave the pool full of holes.
void PagePool::take_shared(Slot& slot, Taken& taken)
{
    std::uint32_t index = shared_page_.load(std::memory_order_relaxed);
    if (retired_.load(std::memory_order_relaxed)) [[unlikely]]
        return;
    taken.add(index * fragments_per_page_, take_stray(page(index), taken.missing()));
    while (taken.missing() != 0 && (index = next_shared_page(slot, 0)) != kNone) {
        const std::uint64_t sel = lowest(page(index).full, taken.missing());
        open_to_all(slot, index, sel);
        taken.add(index * fragments_per_page_, sel);
    }
}

/// Take as long as there are whole pages.
void PagePool::take_in_order(Slot& slot, Taken& taken)
{
    if (slot.shared || !enter(slot)) [[unlikely]]
        return take_shared(slot, taken);
    set_allocates(slot, true);
    if (slot.reserve.load(std::memory_order_relaxed) != 0)
        take_current(slot, taken);
    if (taken.missing() != 0) {
        const std::uint32_t now = now_ms();
        while (taken.missing() != 0 && next_page(slot, 0, now))
            take_current(slot, taken);
    }
    leave(slot);
}

/// A run, as bits of its page's word.
inline std::uint64_t PagePool::mask_of(std::uint32_t index, FragmentRun run) const
{
    return ones(run.count) << (run.first - index * fragments_per_page_);
}

/// Adjacent bits of a page's word, as a run.
inline FragmentRun PagePool::run_of(std::uint32_t index, std::uint64_t sel) const
{
    return {index * fragments_per_page_ + static_cast<std::uint32_t>(std::countr_zero(sel)),
            bits(sel)};
}

bool PagePool::alloc(std::uint32_t caller, Taken& taken)
{
    Slot& s = used_slot(caller);
    take_in_order(s, taken);
    if (taken.missing() != 0 && !salvage(s, taken, caller)) [[unlikely]] {
        s.count(s.alloc_failed);
        return false;
    }
    s.count(s.gets, taken.wanted);
    if (const std::uint32_t process = process_of_caller(caller); process != 0) [[unlikely]]
        taken.for_each([&](FragmentRun run) { mark_foreign(process, run); });
    return true;
}

unsigned PagePool::alloc_runs(std::uint32_t caller, std::uint32_t n, FragmentRun* runs)
{
    // The usual get: the next `n` fragments of the lcore's current page, or of the next one.
    if (caller < lcores_ && n - 1 < 64) [[likely]] {
        Slot& s = slot(caller);
        if (s.allocates && enter(s)) [[likely]] {
            if (s.reserve.load(std::memory_order_relaxed) != 0 ||
                (s.depth.load(std::memory_order_relaxed) != 0 && next_page(s, 0, now_ms())))
                [[likely]] {
                const std::uint64_t reserve = s.reserve.load(std::memory_order_relaxed);
                const auto first = static_cast<unsigned>(std::countr_zero(reserve));
                const std::uint64_t sel = ~std::uint64_t{0} >> (64 - n);
                if ((reserve >> first & sel) == sel) [[likely]] {
                    const std::uint32_t index = s.current.load(std::memory_order_relaxed);
                    keep(s, page(index), reserve & ~(sel << first));
                    leave(s);
                    s.count(s.gets, n);
                    *runs = {index * fragments_per_page_ + first, n};
                    return 1;
                }
            }
            leave(s);
        }
    }
    Taken taken{.wanted = n, .runs = runs, .fragments = nullptr};
    return n != 0 && alloc(caller, taken) ? taken.run_count : 0;
}

int PagePool::alloc(std::uint32_t caller, std::uint32_t n, std::uint32_t* fragments)
{
    Taken taken{.wanted = n, .runs = nullptr, .fragments = fragments};
    return alloc(caller, taken) ? 0 : -ENOBUFS;
}

// ---- get, when no whole page is to be had

/// Complete a get with the free fragments of pages whose other fragments are out and, where that
/// does not do, with what other lcores keep.
bool PagePool::salvage(Slot& slot, Taken& taken, std::uint32_t caller)
{
    slot.count(slot.alloc_empty);
    // Two gets that each have half of the rest would fail both. So only one at a time keeps what it
    // has found from one look to the next.
    bool alone = false;
    bool hopeless = false;
    unsigned attempt = 0;
    for (; attempt < kAttempts; ++attempt) {
        const std::uint32_t free = free_count();
        if (free < taken.wanted || retired_.load(std::memory_order_relaxed))
            break;
        // What could not be found before is looked for once, and no longer.
        hopeless = free - std::min(free, lost_.load(std::memory_order_relaxed)) < taken.wanted;
        if (hopeless && attempt != 0)
            break;
        begin_scarcity(slot);
        sweep_and_take(slot, taken);
        const std::uint32_t used = used_slots_.load(std::memory_order_relaxed);
        for (std::uint32_t lcore = 0; lcore + 1 < used; ++lcore) {
            while (taken.missing() != 0 && evict(lcore, slot, caller))
                sweep_and_take(slot, taken);
        }
        if (taken.missing() == 0)
            break;
        std::uint32_t nobody = 0;
        if (!alone && !(alone = salvaging_.compare_exchange_strong(
                            nobody, process_of_caller(caller) + 1, std::memory_order_acquire))) {
            put_back(slot, taken);
            taken.clear();
        }
        attempt < kBusyAttempts ? sync::relax() : sync::yield();
    }
    const bool complete = taken.missing() == 0;
    if (complete) {
        slot.count(slot.salvaged, taken.salvaged);
        if (hopeless)
            lost_.store(0, std::memory_order_relaxed);
    } else {
        if (alone && attempt == kAttempts) {
            const std::uint32_t free = free_count();
            lost_.store(free - std::min(free, taken.got), std::memory_order_relaxed);
        }
        put_back(slot, taken);
    }
    if (alone)
        salvaging_.store(0, std::memory_order_release);
    return complete;
}

/// While pages are scarce, puts are not put off: what is free shall be found.
void PagePool::begin_scarcity(Slot& slot)
{
    if (!scarce_.load(std::memory_order_relaxed))
        scarce_.store(true, std::memory_order_relaxed);
    if (slot.pending.load(std::memory_order_relaxed) != 0 && enter(slot)) {
        settle(slot, slot);
        leave(slot);
    }
}

void PagePool::sweep_and_take(Slot& slot, Taken& taken)
{
    sweep(slot, taken);
    if (taken.missing() != 0)
        take_in_order(slot, taken);
}

/// Take stray fragments, once around the pool at most. The search goes on where the last one ended,
/// so that pages are looked at in turn, and each look at one that has none is paid for once a
/// round.
void PagePool::sweep(Slot& slot, Taken& taken)
{
    std::uint32_t index = slot.scan.load(std::memory_order_relaxed);
    for (std::uint32_t left = pages_; left != 0 && taken.missing() != 0; --left) {
        const std::uint64_t sel = take_stray(page(index), taken.missing());
        taken.salvaged += bits(sel);
        taken.add(index * fragments_per_page_, sel);
        if (taken.missing() != 0)
            index = index + 1 == pages_ ? 0 : index + 1;
    }
    slot.scan.store(index, std::memory_order_relaxed);
}

/// Have another lcore's fragments go where all find them: what it has put off and the colder half
/// of its stack or, where there is none, its current page. @return false: it has none, or cannot be
/// disturbed now.
bool PagePool::evict(std::uint32_t lcore, Slot& own, std::uint32_t caller)
{
    Slot& victim = slot(lcore);
    const auto empty = [&] {
        return victim.depth.load(std::memory_order_relaxed) == 0 &&
               victim.reserve.load(std::memory_order_relaxed) == 0 &&
               victim.pending.load(std::memory_order_relaxed) == 0;
    };
    if (&victim == &own || empty() || !revoke(victim, caller))
        return false;
    const bool found = !empty();
    settle(victim, own);
    const std::uint32_t depth = victim.depth.load(std::memory_order_relaxed);
    if (depth != 0) {
        own.count(own.stolen, (depth + 1) / 2);
        spill(victim, own, (depth + 1) / 2);
    } else if (victim.reserve.load(std::memory_order_relaxed) != 0) {
        own.count(own.stolen);
        close(victim, own);
    }
    victim.revoked.store(0, std::memory_order_release);
    return found;
}

/// Undo an incomplete get. Neither a get nor a put: it is not counted as one.
void PagePool::put_back(Slot& slot, const Taken& taken)
{
    taken.for_each([&](FragmentRun run) {
        const std::uint32_t index = page_of(run.first);
        put(slot, index, mask_of(index, run));
    });
}

// ---- get of adjacent fragments

int PagePool::alloc_adjacent(std::uint32_t caller, std::uint32_t n, FragmentRun* run)
{
    if (n == 0 || n > fragments_per_page_)
        return -EINVAL;
    Slot& s = used_slot(caller);
    bool found = take_adjacent(s, n, *run);
    if (!found) {
        s.count(s.alloc_empty);
        begin_scarcity(s); // which may have made a page whole
        found = take_adjacent(s, n, *run) || sweep_adjacent(s, n, *run);
        const std::uint32_t used = used_slots_.load(std::memory_order_relaxed);
        for (std::uint32_t lcore = 0; !found && lcore + 1 < used; ++lcore) {
            while (!found && evict(lcore, s, caller))
                found = take_adjacent(s, n, *run) || sweep_adjacent(s, n, *run);
        }
    }
    if (!found) {
        s.count(s.alloc_failed);
        return -ENOBUFS;
    }
    s.count(s.gets, run->count);
    if (const std::uint32_t process = process_of_caller(caller); process != 0) [[unlikely]]
        mark_foreign(process, *run);
    return 0;
}

/// `n` of them in a row, and the tail.
std::uint64_t PagePool::take_stray_adjacent(Page& page, std::uint32_t n)
{
    return take_stray(page, [n](std::uint64_t free) { return adjacent(free, n); });
}

/// Take a run from the current page, or else from the next one.
bool PagePool::take_adjacent(Slot& slot, std::uint32_t n, FragmentRun& run)
{
    std::uint32_t index;
    std::uint64_t sel = 0;
    if (slot.shared || !enter(slot)) {
        index = shared_page_.load(std::memory_order_relaxed);
        if (!retired_.load(std::memory_order_relaxed)) [[likely]]
            sel = take_stray_adjacent(page(index), n);
        if (sel == 0 && (index = next_shared_page(slot, n)) != kNone) {
            sel = adjacent(page(index).full, n);
            open_to_all(slot, index, sel);
        }
    } else {
        set_allocates(slot, true);
        std::uint64_t reserve = slot.reserve.load(std::memory_order_relaxed);
        if (reserve != 0 && (sel = adjacent(reserve, n)) == 0)
            close(slot, slot);
        if (sel == 0 && next_page(slot, n, now_ms())) {
            reserve = slot.reserve.load(std::memory_order_relaxed);
            sel = adjacent(reserve, n);
        }
        index = slot.current.load(std::memory_order_relaxed);
        if (sel != 0)
            keep(slot, page(index), reserve & ~sel);
        leave(slot);
    }
    run = run_of(index, sel);
    return sel != 0;
}

/// Take a run of stray fragments, once around the pool at most.
bool PagePool::sweep_adjacent(Slot& slot, std::uint32_t n, FragmentRun& run)
{
    if (retired_.load(std::memory_order_relaxed))
        return false;
    std::uint32_t index = slot.scan.load(std::memory_order_relaxed);
    for (std::uint32_t left = pages_; left != 0; --left) {
        if (const std::uint64_t sel = take_stray_adjacent(page(index), n); sel != 0) {
            slot.scan.store(index, std::memory_order_relaxed);
            run = run_of(index, sel);
            slot.count(slot.salvaged, run.count);
            return true;
        }
        index = index + 1 == pages_ ? 0 : index + 1;
    }
    return false;
}

// ---- put

/// Make fragments free. @return those that were.
inline std::uint64_t PagePool::put(Slot& slot, std::uint32_t index, std::uint64_t mask)
{
    const std::uint64_t out = page(index).out.fetch_and(~mask, std::memory_order_acq_rel);
    if ((out & ~mask) == 0 && out != 0) {
        if (!slot.shared && slot.allocates && enter(slot)) {
            recycle(slot, index);
            leave(slot);
        } else {
            slot.count(slot.release);
            queue(slot, index);
        }
    }
    return mask & ~out;
}

/// Keep a page that has become wholly free. Whoever put in the last fragment owns it.
void PagePool::recycle(Slot& slot, std::uint32_t index)
{
    slot.count(slot.release);
    const std::uint32_t limit = stack_limit_.load(std::memory_order_relaxed);
    std::uint32_t depth = slot.depth.load(std::memory_order_relaxed);
    if (limit == 0 || page(index).home != kRecycled ||
        diverted_wanted_.load(std::memory_order_relaxed) != 0) [[unlikely]]
        return queue(slot, index);
    if (depth >= limit) [[unlikely]] {
        slot.count(slot.recycle_cache_full, (depth + 1) / 2);
        spill(slot, slot, (depth + 1) / 2);
        depth = slot.depth.load(std::memory_order_relaxed);
    }
    slot.count(slot.recycle_cached);
    slot.stack[depth] = index;
    slot.depth.store(depth + 1, std::memory_order_relaxed);
}

/// Queue a wholly free page where all find it, or give it to the provider, who asked for it.
void PagePool::queue(Slot& slot, std::uint32_t index)
{
    std::uint32_t wanted = diverted_wanted_.load(std::memory_order_relaxed);
    while (wanted != 0) {
        if (diverted_wanted_.compare_exchange_weak(wanted, wanted - 1)) {
            slot.count(slot.recycle_ring_full);
            withdraw_page(slot, index, kReturned);
            return list_push(returned_, &index, 1);
        }
    }
    if (page(index).home != kRecycled)
        return list_push(page(index).home == kFresh ? fresh_ : short_, &index, 1);
    slot.count(slot.recycle_ring);
    list_push(recycled_, &index, 1);
}

/// Send the coldest pages of a stack to the list.
void PagePool::spill(Slot& owner, Slot& own, std::uint32_t count)
{
    own.count(own.recycle_ring, count);
    list_push(recycled_, owner.stack, count);
    const std::uint32_t depth = owner.depth.load(std::memory_order_relaxed) - count;
    owner.depth.store(depth, std::memory_order_relaxed);
    std::memmove(owner.stack, owner.stack + count, depth * sizeof(owner.stack[0]));
}

/// Leave what remains of a current page to everybody.
void PagePool::close(Slot& owner, Slot& own)
{
    const std::uint32_t index = owner.current.load(std::memory_order_relaxed);
    const std::uint64_t reserve = owner.reserve.load(std::memory_order_relaxed);
    Page& p = page(index);
    keep(owner, p, 0);
    const std::uint64_t out = p.out.fetch_and(~reserve, std::memory_order_acq_rel);
    if ((out & ~reserve) == 0) {
        own.count(own.release);
        queue(own, index);
    }
}

/// Put what an lcore has put off.
void PagePool::settle(Slot& owner, Slot& own)
{
    const std::uint64_t mask = owner.pending.load(std::memory_order_relaxed);
    if (mask == 0)
        return;
    const std::uint32_t index = owner.pending_page.load(std::memory_order_relaxed);
    owner.pending.store(0, std::memory_order_relaxed);
    const std::uint64_t out = page(index).out.fetch_and(~mask, std::memory_order_acq_rel);
    // Freed by another thread, too, after put_off() looked.
    if (const std::uint64_t twice = mask & ~out; twice != 0) [[unlikely]] {
        own.count(own.puts, -std::uint64_t{bits(twice)});
        own.count(own.double_free, bits(twice));
    }
    if ((out & ~mask) != 0 || out == 0)
        return;
    if (&owner == &own)
        return recycle(own, index);
    own.count(own.release);
    queue(own, index);
}

/// Before one relies on these fragments being out: if an lcore has put one of them, but put that
/// off, put it now.
inline void PagePool::settle_if_put_off(std::uint32_t caller, std::uint32_t index,
                                        std::uint64_t mask)
{
    const std::uint32_t by = page(index).opener.load(std::memory_order_relaxed);
    if (by == 0)
        return;
    // Where it is in the middle of a call this may be out of date, and settling needless.
    Slot& owner = (&slot(kNoLcore))[by];
    if (owner.pending_page.load(std::memory_order_relaxed) == index &&
        (owner.pending.load(std::memory_order_relaxed) & mask) != 0 && revoke(owner, caller)) {
        settle(owner, slot(caller));
        owner.revoked.store(0, std::memory_order_release);
    }
}

/// Put fragments without an atomic operation: an lcore that puts what it got puts a page piece by
/// piece, and its word need not change for each of them. Of pages that it opened itself, so that
/// others know whom to ask whether a fragment is free. @return false: nothing was done
inline bool PagePool::put_off(Slot& slot, std::uint32_t index, std::uint64_t mask, std::uint32_t n)
{
    Page& p = page(index);
    // An lcore that allocates no longer opens no page, and should keep nothing.
    if (p.opener.load(std::memory_order_relaxed) != slot.index || !slot.allocates ||
        scarce_.load(std::memory_order_relaxed) || !enter(slot))
        return false;
    std::uint64_t pending = slot.pending.load(std::memory_order_relaxed);
    const bool another = slot.pending_page.load(std::memory_order_relaxed) != index;
    const std::uint64_t mine = another ? 0 : pending;
    const std::uint64_t out = p.out.load(std::memory_order_acquire);
    // A fragment that was handed out is not in the reserve any more, and who frees it knows that.
    const std::uint64_t odd = p.reserve.load(std::memory_order_relaxed) |
                              p.special.load(std::memory_order_relaxed) | mine | ~out;
    if ((odd & mask) != 0) [[unlikely]] {
        settle(slot, slot);
        leave(slot);
        return false;
    }
    slot.count(slot.puts, n);
    if (another && pending != 0)
        settle(slot, slot);
    pending = mine | mask;
    if (pending == p.full) {
        // Nobody else has a fragment of it, or finds one to take: no one changes the word.
        slot.pending.store(0, std::memory_order_relaxed);
        p.out.store(0, std::memory_order_relaxed);
        recycle(slot, index);
    } else {
        slot.pending.store(pending, std::memory_order_relaxed);
        slot.pending_page.store(index, std::memory_order_relaxed);
        if (pending == out)
            settle(slot, slot);
    }
    leave(slot);
    return true;
}

std::uint64_t PagePool::free_mask(std::uint32_t caller, std::uint32_t index, std::uint64_t mask,
                                  std::uint32_t n)
{
    Slot& s = slot(caller);
    if (put_off(s, index, mask, n)) [[likely]]
        return 0;
    if (!s.used) [[unlikely]]
        begin_using(s);
    settle_if_put_off(caller, index, mask);
    const Page& p = page(index);
    std::uint64_t refused = p.reserve.load(std::memory_order_relaxed) & mask;
    mask = drop_holders(s, index, mask & ~refused);
    if (mask != 0) {
        s.count(s.puts, bits(mask));
        const std::uint64_t twice = put(s, index, mask);
        if (twice != 0) [[unlikely]]
            s.count(s.puts, -std::uint64_t{bits(twice)});
        refused |= twice;
    }
    if (refused != 0) [[unlikely]]
        s.count(s.double_free, bits(refused));
    return refused;
}

int PagePool::free_run(std::uint32_t caller, FragmentRun run, RefusedFree* refused)
{
    const std::uint32_t index = page_of(run.first);
    const std::uint32_t offset = run.first - index * fragments_per_page_;
    if (!contains(run)) [[unlikely]] {
        count_foreign_free(caller);
        if (refused != nullptr)
            *refused = {name_, index, offset};
        return -EINVAL;
    }
    const std::uint64_t twice = free_mask(caller, index, mask_of(index, run), run.count);
    if (twice == 0) [[likely]]
        return 0;
    if (refused != nullptr)
        *refused = {name_, index, static_cast<std::uint32_t>(std::countr_zero(twice))};
    return -EALREADY;
}

/// Whether a run is one: in the pool, and in one page.
bool PagePool::contains(FragmentRun run) const
{
    const std::uint32_t offset = run.first - page_of(run.first) * fragments_per_page_;
    return run.first < fragments_ && run.count != 0 && run.count <= fragments_ - run.first &&
           run.count <= fragments_per_page_ - offset;
}

void PagePool::count_foreign_free(std::uint32_t caller)
{
    Slot& s = used_slot(caller);
    s.count(s.foreign_free);
}

void PagePool::flush(std::uint32_t lcore)
{
    Slot& s = slot(lcore);
    if (s.shared || !enter(s)) // who revoked it does the same
        return;
    set_allocates(s, false);
    settle(s, s);
    if (const std::uint32_t depth = s.depth.load(std::memory_order_relaxed); depth != 0)
        spill(s, s, depth);
    if (s.reserve.load(std::memory_order_relaxed) != 0)
        close(s, s);
    leave(s);
}

// ---- several holders; other processes

int PagePool::hold_run(FragmentRun run)
{
    if (!contains(run))
        return -EINVAL;
    const std::uint32_t index = page_of(run.first);
    Page& p = page(index);
    const std::uint64_t mask = mask_of(index, run);
    settle_if_put_off(kNoLcore, index, mask);
    const std::uint64_t held =
        p.out.load(std::memory_order_relaxed) & ~p.reserve.load(std::memory_order_relaxed);
    if ((held & mask) != mask)
        return -ENOENT;
    for (std::uint32_t i = 0; i < run.count; ++i) {
        sync::Atomic<std::uint32_t>& entry = side(run.first + i);
        std::uint32_t value = entry.load(std::memory_order_relaxed);
        while ((value & kHolderMask) != kHolderMask &&
               !entry.compare_exchange_weak(value, value + 1, std::memory_order_relaxed)) {
        }
        if ((value & kHolderMask) == kHolderMask) {
            while (i-- > 0)
                side(run.first + i).fetch_sub(1, std::memory_order_relaxed);
            return -EOVERFLOW;
        }
    }
    p.special.fetch_or(mask, std::memory_order_release);
    return 0;
}

/// Take one holder from each of these fragments. @return those that have no other.
std::uint64_t PagePool::drop_holders(Slot& slot, std::uint32_t index, std::uint64_t mask)
{
    Page& p = page(index);
    std::uint64_t special = p.special.load(std::memory_order_acquire) & mask;
    for (; special != 0; special &= special - 1) {
        const auto f = static_cast<std::uint32_t>(std::countr_zero(special));
        const std::uint64_t bit = std::uint64_t{1} << f;
        sync::Atomic<std::uint32_t>& entry = side(index * fragments_per_page_ + f);
        std::uint32_t value = entry.load(std::memory_order_relaxed);
        while ((value & kHolderMask) != 0 &&
               !entry.compare_exchange_weak(value, value - 1, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
        }
        if ((value & kHolderMask) != 0) {
            slot.count(slot.recycle_released_refcnt);
            mask &= ~bit;
        } else {
            entry.store(0, std::memory_order_relaxed);
            p.special.fetch_and(~bit, std::memory_order_relaxed);
        }
    }
    return mask;
}

std::uint32_t PagePool::holders(std::uint32_t fragment) const
{
    if (fragment >= fragments_)
        return 0;
    const std::uint32_t index = page_of(fragment);
    const std::uint64_t bit = std::uint64_t{1} << (fragment - index * fragments_per_page_);
    const PageView now = view(index);
    if ((now.out & bit) == 0)
        return 0;
    return (now.shared & bit) == 0
               ? 1
               : (side(fragment).load(std::memory_order_relaxed) & kHolderMask) + 1;
}

std::uint64_t PagePool::drop_holders(std::uint32_t caller, std::uint32_t index, std::uint64_t mask)
{
    return drop_holders(used_slot(caller), index, mask);
}

void PagePool::mark_foreign(std::uint32_t process, FragmentRun run)
{
    const std::uint32_t index = page_of(run.first);
    for (std::uint32_t i = 0; i < run.count; ++i)
        side(run.first + i).store(process << kProcessShift, std::memory_order_relaxed);
    page(index).special.fetch_or(mask_of(index, run), std::memory_order_release);
}

std::uint32_t PagePool::process_of(std::uint32_t fragment) const
{
    return fragment < fragments_ ? side(fragment).load(std::memory_order_relaxed) >> kProcessShift
                                 : 0;
}

std::uint32_t PagePool::reclaim(std::uint32_t caller, std::uint32_t process)
{
    if (process == 0 || process > kMaxProcess)
        return 0;
    std::uint32_t count = 0;
    for (std::uint32_t f = 0; f < fragments_; ++f) {
        // Whatever the page says: it may have died between the two.
        if (process_of(f) != process)
            continue;
        side(f).fetch_and(kHolderMask, std::memory_order_relaxed);
        free_run(caller, {f, 1});
        ++count;
    }
    // What it may have been doing when it died.
    std::uint32_t self = process + 1;
    salvaging_.compare_exchange_strong(self, 0);
    for (std::uint32_t i = 0; i < lcores_; ++i) {
        self = process + 1;
        slot(i).revoked.compare_exchange_strong(self, 0);
    }
    return count;
}

// ---- pages and their provider

/// A whole page that one owns is the pool's no longer.
void PagePool::withdraw_page(Slot& slot, std::uint32_t index, std::uint8_t owner)
{
    Page& p = page(index);
    // All of it is reserved, so every free is refused.
    p.reserve.store(p.full, std::memory_order_relaxed);
    p.out.store(p.full, std::memory_order_release);
    p.owner.store(static_cast<Owner>(owner), std::memory_order_release);
    present_.fetch_sub(1);
    slot.count(slot.gets, bits(p.full));
}

bool PagePool::fetch_diverted(Diverted* diverted)
{
    if (list_pop(returned_, &diverted->index, 1) == 0)
        return false;
    Page& p = page(diverted->index);
    diverted->waived = p.waived;
    if (p.waived)
        waived_.fetch_sub(1);
    p.waived = false;
    p.owner.store(kProvider, std::memory_order_release);
    return true;
}

std::uint32_t PagePool::withdraw(std::uint32_t caller, std::uint32_t n, std::uint32_t* pages)
{
    Slot& s = used_slot(caller);
    std::uint32_t got = 0;
    const auto take = [&] {
        while (got < n &&
               (list_pop(fresh_, pages + got, 1) != 0 || list_pop(recycled_, pages + got, 1) != 0 ||
                list_pop(short_, pages + got, 1) != 0))
            withdraw_page(s, pages[got++], kProvider);
    };
    take();
    if (got < n) {
        flush(caller);
        take();
    }
    const std::uint32_t used = used_slots_.load(std::memory_order_relaxed);
    for (std::uint32_t lcore = 0; lcore + 1 < used; ++lcore) {
        while (got < n && evict(lcore, s, caller))
            take();
    }
    return got;
}

bool PagePool::retire(std::uint32_t caller)
{
    retired_.store(true);
    divert(UINT32_MAX);
    Diverted diverted;
    std::uint32_t index;
    while (fetch_diverted(&diverted) || withdraw(caller, 1, &index) != 0) {
    }
    return present() == 0;
}

int PagePool::insert(std::uint32_t caller, std::uint32_t index)
{
    if (index >= pages_)
        return -EINVAL;
    Slot& s = used_slot(caller);
    Page& p = page(index);
    Owner provider = kProvider;
    if (!p.owner.compare_exchange_strong(provider, kPool, std::memory_order_acq_rel))
        return -EEXIST;
    p.reserve.store(0, std::memory_order_relaxed);
    s.count(s.puts, bits(p.full));
    present_.fetch_add(1);
    p.out.store(0, std::memory_order_release);
    list_push(p.home == kShort ? short_ : fresh_, &index, 1);
    return 0;
}

void PagePool::set_page_nid(std::uint32_t index, int node)
{
    page(index).nid = static_cast<std::int8_t>(node);
}

int PagePool::set_dma(std::uint32_t index, std::uint64_t address, unsigned shift)
{
    if (index >= pages_)
        return -EINVAL;
    if (shift < 12 || shift > 63)
        return -ERANGE;
    const auto shifted = static_cast<std::uint32_t>(address >> shift);
    if (std::uint64_t{shifted} << shift != address)
        return -ERANGE;
    page(index).dma = shifted;
    if (dma_shift_ != shift)
        dma_shift_ = shift;
    return 0;
}

std::uint64_t PagePool::dma(std::uint32_t index) const
{
    return index < pages_ ? std::uint64_t{page(index).dma} << dma_shift_ : 0;
}

// ---- counters

bool PagePool::is_in_use() const
{
    for (std::uint32_t i = 0; i < pages_; ++i) {
        if (view(i).out != 0)
            return true;
    }
    return false;
}

std::uint32_t PagePool::free_count() const
{
    // Gets first: every get that is seen took fragments whose put is then seen too, and the slot it
    // was counted in.
    const Slot* const slots = &slot(kNoLcore);
    std::uint64_t gets = 0;
    std::uint64_t puts = 0;
    for (std::uint32_t i = 0, n = used_slots_.load(std::memory_order_acquire); i < n; ++i)
        gets += slots[i].gets.load(std::memory_order_acquire);
    for (std::uint32_t i = 0, n = used_slots_.load(std::memory_order_acquire); i < n; ++i)
        puts += slots[i].puts.load(std::memory_order_acquire);
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(puts - gets, fragments_));
}

PagePoolStats PagePool::stats() const
{
    const Slot* const slots = &slot(kNoLcore);
    const std::uint32_t used = used_slots_.load(std::memory_order_acquire);
    PagePoolStats sum{};
    // A page is held before it is released: releases are read first.
    for (std::uint32_t i = 0; i < used; ++i)
        sum.release += slots[i].release.load(std::memory_order_acquire) + unseen_releases(i);
    for (std::uint32_t i = 0; i < used; ++i) {
        const Slot& s = slots[i];
        sum.alloc_fast += s.alloc_fast;
        sum.alloc_slow += s.alloc_slow;
        sum.alloc_slow_high_order += s.alloc_slow_high_order;
        sum.alloc_empty += s.alloc_empty;
        sum.alloc_refill += s.alloc_refill;
        sum.alloc_waive += s.alloc_waive;
        sum.alloc_failed += s.alloc_failed;
        sum.recycle_cached += s.recycle_cached;
        sum.recycle_cache_full += s.recycle_cache_full;
        sum.recycle_ring += s.recycle_ring;
        sum.recycle_ring_full += s.recycle_ring_full;
        sum.recycle_released_refcnt += s.recycle_released_refcnt;
        sum.salvaged += s.salvaged;
        sum.stolen += s.stolen;
        sum.double_free += s.double_free;
        sum.foreign_free += s.foreign_free;
        sum.hold += s.hold;
    }
    return sum;
}

/// Pages that are wholly free and not in a list or stack: an lcore hands them out, or has put off
/// their last fragments. @return those of a slot, less those of slots before it
unsigned PagePool::unseen_releases(std::uint32_t slot_index) const
{
    const Slot* const slots = &slot(kNoLcore);
    const auto has = [&](std::uint32_t i, std::uint32_t index) {
        return (slots[i].reserve.load(std::memory_order_relaxed) != 0 &&
                slots[i].current.load(std::memory_order_relaxed) == index) ||
               (slots[i].pending.load(std::memory_order_relaxed) != 0 &&
                slots[i].pending_page.load(std::memory_order_relaxed) == index);
    };
    const std::uint32_t current = slots[slot_index].current.load(std::memory_order_relaxed);
    const std::uint32_t pending = slots[slot_index].pending_page.load(std::memory_order_relaxed);
    unsigned count = 0;
    for (const std::uint32_t index : {current, pending}) {
        bool first = has(slot_index, index);
        for (std::uint32_t i = 0; first && i < slot_index; ++i)
            first = !has(i, index);
        if (first && page_word(index) == page(index).full)
            ++count;
        if (pending == current)
            break;
    }
    return count;
}

std::uint64_t PagePool::page_word(std::uint32_t index) const
{
    const Page& p = page(index);
    if (p.owner.load(std::memory_order_acquire) != kPool)
        return 0;
    std::uint64_t word = p.reserve.load(std::memory_order_relaxed);
    const Slot* const slots = &slot(kNoLcore);
    for (std::uint32_t i = 0, n = used_slots_.load(std::memory_order_relaxed); i < n; ++i) {
        if (slots[i].pending_page.load(std::memory_order_relaxed) == index)
            word |= slots[i].pending.load(std::memory_order_relaxed);
    }
    return p.full & (word | ~p.out.load(std::memory_order_acquire));
}

PageView PagePool::view(std::uint32_t index) const
{
    const Page& p = page(index);
    PageView view{};
    view.present = p.owner.load(std::memory_order_acquire) == kPool;
    if (!view.present)
        return view;
    view.out = p.full & ~page_word(index);
    if (view.out != 0)
        view.since_ms = now_ms() - p.since_ms.load(std::memory_order_relaxed);
    std::uint64_t special = p.special.load(std::memory_order_acquire) & view.out;
    for (; special != 0; special &= special - 1) {
        const auto f = static_cast<std::uint32_t>(std::countr_zero(special));
        const std::uint32_t entry =
            side(index * fragments_per_page_ + f).load(std::memory_order_relaxed);
        const std::uint64_t bit = std::uint64_t{1} << f;
        view.shared |= (entry & kHolderMask) != 0 ? bit : 0;
        view.foreign |= entry >> kProcessShift != 0 ? bit : 0;
    }
    return view;
}

} // namespace devmem
