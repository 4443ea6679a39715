// SPDX-License-Identifier: BSD-3-Clause
#include "lib/page_pool/page_pool.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>
#include <thread>

namespace devmem {
namespace {

constexpr std::uint32_t kNone = UINT32_MAX;
constexpr std::size_t kCacheLine = 64;

/// Pages an lcore keeps at most. 16 pages of 64 KiB fill a typical L2 cache: more would not be hot.
constexpr std::uint32_t kStackDepth = 16;
/// All stacks together should not hold a pool: an lcore keeps at most this part of it.
constexpr std::uint32_t kStackShare = 16;
/// Pages to look at for stray fragments before summing up how many are free at all.
constexpr std::uint32_t kPeek = 16;
/// Looks through the whole pool before a get gives up although the count says that enough is free:
/// other threads are then in the middle of a call. A bound, so that a process that died there
/// cannot hang the others; generous, so that one that was merely preempted there is waited for.
constexpr unsigned kAttempts = 10000;
/// Of these, how many without giving way to such a thread.
constexpr unsigned kBusyAttempts = 16;

/// Where a page is. Only the thread that moves a page out of kNowhere needs an atomic exchange: in
/// the other two places the page has one owner.
enum Place : std::uint8_t {
    kNowhere, ///< fragments are out, and whoever puts in the last one queues the page
    kQueued,  ///< in a stack or in the list
    kCurrent, ///< an lcore hands out its fragments
};

constexpr std::uint64_t ones(unsigned n)
{
    return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
}

/// The lowest `n` bits that are set.
std::uint64_t lowest(std::uint64_t word, std::uint32_t n)
{
    if (static_cast<std::uint32_t>(std::popcount(word)) <= n)
        return word;
    const std::uint64_t run = ones(n) << std::countr_zero(word);
    if ((word & run) == run)
        return run;
    std::uint64_t rest = word;
    while (n-- > 0)
        rest &= rest - 1;
    return word ^ rest;
}

constexpr std::uint64_t list_head(std::uint64_t previous, std::uint32_t page)
{
    return ((previous >> 32) + 1) << 32 | page;
}

constexpr std::uint32_t list_first(std::uint64_t head)
{
    return static_cast<std::uint32_t>(head);
}

} // namespace

/// A cache line each, as the kernel's struct page: neighbours belong to different lcores.
struct alignas(kCacheLine) PagePool::Page {
    std::atomic<std::uint64_t> word{0}; ///< bit f set: fragment f is free
    std::uint64_t full = 0;             ///< the word of a wholly free page
    std::atomic<std::uint32_t> next{kNone};
    std::atomic<Place> place{kNowhere};
};

/// What one lcore owns. The last slot is that of all callers that are no lcore; of it only the
/// atomics are used.
struct alignas(kCacheLine) PagePool::Slot {
    using Counter = std::atomic<std::uint64_t>;

    /// Fragments taken, counted after their bits are cleared, and put, counted before they are set:
    /// the difference can only be too high. @see free_count()
    Counter gets{0}, puts{0};
    std::uint32_t current = kNone; ///< the page whose fragments are handed out
    std::uint32_t cursor = 0;      ///< the first of them still to be handed out
    std::uint32_t depth = 0;
    std::atomic<std::uint32_t> scan{0}; ///< page where the search for stray fragments goes on
    bool shared = false;
    bool allocates = false; ///< an lcore that only frees has no use for a stack

    alignas(kCacheLine) std::uint32_t stack[kStackDepth];

    alignas(kCacheLine) Counter alloc_fast{0};
    Counter alloc_slow{0}, alloc_empty{0}, alloc_failed{0};
    Counter recycle_cached{0}, recycle_cache_full{0}, recycle_ring{0};
    Counter salvaged{0}, double_free{0}, foreign_free{0};
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

    void add(std::uint32_t base, std::uint64_t bits)
    {
        while (bits != 0) {
            const auto skip = static_cast<unsigned>(std::countr_zero(bits));
            const auto length = static_cast<unsigned>(std::countr_one(bits >> skip));
            bits &= ~(ones(length) << skip);
            if (runs != nullptr) {
                runs[run_count++] = {base + skip, length};
                got += length;
            } else {
                for (unsigned i = 0; i < length; ++i)
                    fragments[got++] = base + skip + i;
            }
        }
    }
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "processes share the words");

// ---- layout

std::size_t PagePool::bytes(const PagePoolConfig& config)
{
    static_assert(sizeof(Page) == kCacheLine);
    if (config.fragments == 0 || config.fragments == UINT32_MAX || config.fragments_per_page == 0 ||
        config.fragments_per_page > 64 || config.lcores == kNoLcore)
        return 0;
    const std::uint64_t pages = (std::uint64_t{config.fragments} + config.fragments_per_page - 1) /
                                config.fragments_per_page;
    const std::uint64_t size =
        sizeof(PagePool) + (std::uint64_t{config.lcores} + 1) * sizeof(Slot) + pages * sizeof(Page);
    return size > std::numeric_limits<std::size_t>::max() / 2 ? 0 : static_cast<std::size_t>(size);
}

PagePool* PagePool::create(void* block, const PagePoolConfig& config)
{
    if (bytes(config) == 0 || reinterpret_cast<std::uintptr_t>(block) % kCacheLine != 0)
        return nullptr;
    auto* pool = new (block) PagePool;
    if (config.name != nullptr)
        std::memcpy(pool->name_, config.name, strnlen(config.name, sizeof(pool->name_) - 1));
    pool->fragments_ = config.fragments;
    pool->fragments_per_page_ = config.fragments_per_page;
    pool->pages_ = (config.fragments - 1) / config.fragments_per_page + 1;
    pool->lcores_ = config.lcores;
    pool->stack_depth_ = std::min(kStackDepth, pool->pages_ / kStackShare);
    pool->reciprocal_ = (std::uint64_t{1} << 32) / config.fragments_per_page + 1;
    pool->list_ = kNone;
    pool->shared_page_ = 0;

    auto* slots = const_cast<Slot*>(pool->slots());
    for (std::uint32_t i = 0; i <= config.lcores; ++i)
        new (slots + i) Slot;
    slots[config.lcores].shared = true;
    // Until they are put in for the first time, all pages are in flight.
    slots[config.lcores].hold = pool->pages_;

    for (std::uint32_t i = 0; i < pool->pages_; ++i) {
        const std::uint32_t left = config.fragments - i * config.fragments_per_page;
        Page& page = *new (&pool->page(i)) Page;
        page.full = ones(std::min(left, config.fragments_per_page));
    }
    return pool;
}

const PagePool::Slot* PagePool::slots() const
{
    return reinterpret_cast<const Slot*>(this + 1);
}

const PagePool::Page* PagePool::page_array() const
{
    return reinterpret_cast<const Page*>(slots() + lcores_ + 1);
}

PagePool::Slot& PagePool::slot(std::uint32_t lcore)
{
    return const_cast<Slot*>(slots())[std::min(lcore, lcores_)];
}

PagePool::Page& PagePool::page(std::uint32_t index)
{
    return const_cast<Page*>(page_array())[index];
}

// ---- page words

/// Take those of `sel` that are still free.
std::uint64_t PagePool::take(Slot& slot, Page& page, std::uint64_t sel)
{
    const std::uint64_t old = page.word.fetch_and(~sel, std::memory_order_acq_rel);
    if (old == page.full)
        slot.count(slot.hold);
    return old & sel;
}

/// Set the bits of fragments. @return those that were set.
inline std::uint64_t PagePool::put(Slot& slot, std::uint32_t index, std::uint64_t mask)
{
    Page& p = page(index);
    const std::uint64_t old = p.word.fetch_or(mask, std::memory_order_acq_rel);
    if ((old | mask) == p.full && old != p.full) {
        slot.count(slot.release);
        if (p.place.load(std::memory_order_relaxed) == kNowhere)
            recycle(slot, index);
    }
    return old & mask;
}

/// Take `sel`, maybe nothing, from a page that this thread owns, and own it no longer.
///
/// The order matters. `place` says kNowhere before the word changes, so whoever completes the page
/// after this change sees that, and queues it. Whoever completed it before saw an owner and did not
/// queue it: then either `sel` breaks the page up again, or it is for this thread to queue it.
std::uint64_t PagePool::leave(Slot& slot, std::uint32_t index, std::uint64_t sel)
{
    Page& p = page(index);
    p.place.store(kNowhere, std::memory_order_relaxed);
    if (sel != 0)
        return take(slot, p, sel);
    if (p.word.fetch_or(0, std::memory_order_acq_rel) == p.full)
        recycle(slot, index);
    return 0;
}

/// Queue a page that has become wholly free, unless it has an owner or is queued.
void PagePool::recycle(Slot& slot, std::uint32_t index)
{
    Page& p = page(index);
    Place place = kNowhere;
    if (!p.place.compare_exchange_strong(place, kQueued, std::memory_order_relaxed))
        return;
    if (slot.shared || !slot.allocates || stack_depth_ == 0) {
        slot.count(slot.recycle_ring);
        list_push(&index, 1);
        return;
    }
    if (slot.depth == stack_depth_) {
        const std::uint32_t half = (slot.depth + 1) / 2;
        slot.count(slot.recycle_cache_full, half);
        spill(slot, half);
    }
    slot.count(slot.recycle_cached);
    slot.stack[slot.depth++] = index;
}

/// Send the coldest pages of a stack to the list.
void PagePool::spill(Slot& slot, std::uint32_t count)
{
    if (count == 0)
        return;
    slot.count(slot.recycle_ring, count);
    list_push(slot.stack, count);
    slot.depth -= count;
    std::memmove(slot.stack, slot.stack + count, slot.depth * sizeof(slot.stack[0]));
}

// ---- the shared list

// A list and not a ring, for three reasons. Last in, first out hands out the page that is still in
// somebody's cache, which on a port that copies is worth a factor of 1.8; it is never full, so a
// free cannot fail; and a batch of pages moves with one compare-exchange. Only the head is
// contended. The tag makes a head that was read once unequal to a later one with the same page in
// front.

/// Push pages, the last of which will be the first to be popped.
void PagePool::list_push(const std::uint32_t* pages, std::uint32_t count)
{
    for (std::uint32_t i = 1; i < count; ++i)
        page(pages[i]).next.store(pages[i - 1], std::memory_order_relaxed);
    std::uint64_t head = list_.load(std::memory_order_relaxed);
    do
        page(pages[0]).next.store(list_first(head), std::memory_order_relaxed);
    while (!list_.compare_exchange_weak(head, list_head(head, pages[count - 1]),
                                        std::memory_order_release, std::memory_order_relaxed));
}

/// Pop up to `max` pages; the one on top of the list comes last. @return how many.
std::uint32_t PagePool::list_pop(std::uint32_t* pages, std::uint32_t max)
{
    std::uint64_t head = list_.load(std::memory_order_acquire);
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
    } while (!list_.compare_exchange_weak(head, list_head(head, next), std::memory_order_acquire,
                                          std::memory_order_acquire));
    std::reverse(pages, pages + count);
    return count;
}

// ---- get

/// Make a whole page current: the hottest of the lcore's own, else from the list.
bool PagePool::next_page(Slot& slot)
{
    if (slot.depth != 0) {
        slot.count(slot.alloc_fast);
    } else {
        slot.depth = list_pop(slot.stack, std::max(stack_depth_ / 2, 1U));
        if (slot.depth == 0)
            return false;
        slot.count(slot.alloc_slow);
    }
    slot.current = slot.stack[--slot.depth];
    slot.cursor = 0;
    page(slot.current).place.store(kCurrent, std::memory_order_relaxed);
    return true;
}

/// Take from the lcore's current page, ascending.
void PagePool::take_current(Slot& slot, Taken& taken)
{
    const std::uint32_t index = slot.current;
    Page& p = page(index);
    const std::uint64_t word = p.word.load(std::memory_order_relaxed);
    // Everything came back while the page was current: start over, its first fragments are hot.
    if (word == p.full)
        slot.cursor = 0;
    const std::uint64_t available = word & ~ones(slot.cursor);
    const std::uint64_t sel = lowest(available, taken.missing());
    std::uint64_t got;
    if (sel == available) {
        slot.current = kNone;
        got = leave(slot, index, sel);
    } else {
        // Fragments that come back behind this point wait for the page, or for salvage: going back
        // for them would cut the runs that follow to pieces.
        slot.cursor = static_cast<std::uint32_t>(std::bit_width(sel));
        got = take(slot, p, sel);
    }
    taken.add(index * fragments_per_page_, got);
}

/// The usual get: the next `n` fragments of the current page, which has more of them. @return false
/// if it is not as usual; then nothing was done.
inline bool PagePool::take_next(Slot& slot, std::uint32_t n, FragmentRun* run)
{
    if (slot.current == kNone || n - 1 >= 63)
        return false;
    Page& p = page(slot.current);
    std::uint64_t word = p.word.load(std::memory_order_relaxed);
    const bool whole = word == p.full;
    const std::uint32_t cursor = whole ? 0 : slot.cursor;
    const std::uint64_t ahead = word >> cursor;
    if ((~ahead & ones(n)) != 0 || ahead >> n == 0 ||
        !p.word.compare_exchange_strong(word, word & ~(ones(n) << cursor),
                                        std::memory_order_acq_rel, std::memory_order_relaxed))
        return false;
    if (whole)
        slot.count(slot.hold);
    slot.cursor = cursor + n;
    *run = {slot.current * fragments_per_page_ + cursor, n};
    slot.count(slot.gets, n);
    return true;
}

/// Take for a caller that is no lcore. All of them hand out the fragments of one page at a time,
/// but nobody owns it: a page each would leave the pool full of holes.
void PagePool::take_shared(Slot& slot, Taken& taken)
{
    std::uint32_t index = shared_page_.load(std::memory_order_relaxed);
    if (page(index).place.load(std::memory_order_relaxed) == kNowhere) {
        const std::uint64_t word = page(index).word.load(std::memory_order_relaxed);
        if (word != 0)
            taken.add(index * fragments_per_page_,
                      take(slot, page(index), lowest(word, taken.missing())));
    }
    while (taken.missing() != 0 && list_pop(&index, 1) != 0) {
        slot.count(slot.alloc_slow);
        const std::uint64_t word = page(index).word.load(std::memory_order_relaxed);
        taken.add(index * fragments_per_page_, leave(slot, index, lowest(word, taken.missing())));
        shared_page_.store(index, std::memory_order_relaxed);
    }
}

bool PagePool::alloc(Slot& slot, Taken& taken)
{
    if (slot.shared) [[unlikely]] {
        take_shared(slot, taken);
    } else {
        slot.allocates = true;
        while (taken.missing() != 0 && (slot.current != kNone || next_page(slot)))
            take_current(slot, taken);
    }
    if (taken.missing() != 0 && !salvage(slot, taken)) [[unlikely]] {
        slot.count(slot.alloc_failed);
        return false;
    }
    slot.count(slot.gets, taken.wanted);
    return true;
}

unsigned PagePool::alloc_runs(std::uint32_t lcore, std::uint32_t n, FragmentRun* runs)
{
    Slot& s = slot(lcore);
    if (take_next(s, n, runs)) [[likely]]
        return 1;
    Taken taken{.wanted = n, .runs = runs, .fragments = nullptr};
    return alloc(s, taken) ? taken.run_count : 0;
}

int PagePool::alloc(std::uint32_t lcore, std::uint32_t n, std::uint32_t* fragments)
{
    Taken taken{.wanted = n, .runs = nullptr, .fragments = fragments};
    return alloc(slot(lcore), taken) ? 0 : -ENOBUFS;
}

/// Complete a get when no whole page is to be had: with the free fragments of pages whose other
/// fragments are out and, where that does not do, of pages that other lcores keep.
bool PagePool::salvage(Slot& slot, Taken& taken)
{
    slot.count(slot.alloc_empty);
    sweep(slot, taken, kPeek, false);
    // Two gets that each have half of the rest would fail both. So only one at a time keeps what it
    // has found from one look to the next.
    bool alone = false;
    for (unsigned attempt = 0; taken.missing() != 0 && attempt < kAttempts; ++attempt) {
        if (free_count() < taken.wanted)
            break;
        sweep(slot, taken, pages_, false);
        sweep(slot, taken, pages_, true);
        if (taken.missing() == 0)
            break;
        if (!alone && !(alone = !salvaging_.exchange(true, std::memory_order_acquire))) {
            put_back(slot, taken);
            taken.run_count = taken.got = taken.salvaged = 0;
        }
        if (attempt >= kBusyAttempts)
            std::this_thread::yield();
    }
    const bool complete = taken.missing() == 0;
    if (!complete)
        put_back(slot, taken);
    else
        slot.count(slot.salvaged, taken.salvaged);
    if (alone)
        salvaging_.store(false, std::memory_order_release);
    return complete;
}

/// Take the free fragments of the next `span` pages after the last sweep, as far as they are
/// wanted.
void PagePool::sweep(Slot& slot, Taken& taken, std::uint32_t span, bool owned_too)
{
    std::uint32_t index = slot.scan.load(std::memory_order_relaxed);
    for (span = std::min(span, pages_); span != 0 && taken.missing() != 0; --span) {
        Page& p = page(index);
        const std::uint64_t word = p.word.load(std::memory_order_relaxed);
        if (word != 0 && (owned_too || p.place.load(std::memory_order_relaxed) == kNowhere)) {
            const std::uint64_t got = take(slot, p, lowest(word, taken.missing()));
            taken.salvaged += static_cast<std::uint32_t>(std::popcount(got));
            taken.add(index * fragments_per_page_, got);
        }
        if (taken.missing() != 0)
            index = index + 1 == pages_ ? 0 : index + 1;
    }
    slot.scan.store(index, std::memory_order_relaxed);
}

/// Undo an incomplete get. Neither a get nor a put: it is not counted as one.
void PagePool::put_back(Slot& slot, const Taken& taken)
{
    if (taken.runs != nullptr) {
        for (std::uint32_t i = 0; i < taken.run_count; ++i) {
            const FragmentRun run = taken.runs[i];
            const std::uint32_t index = page_of(run.first);
            put(slot, index, ones(run.count) << (run.first - index * fragments_per_page_));
        }
    } else {
        for (std::uint32_t i = 0; i < taken.got; ++i) {
            const std::uint32_t index = page_of(taken.fragments[i]);
            put(slot, index,
                std::uint64_t{1} << (taken.fragments[i] - index * fragments_per_page_));
        }
    }
}

// ---- put

std::uint64_t PagePool::free_mask(std::uint32_t lcore, std::uint32_t index, std::uint64_t mask)
{
    Slot& s = slot(lcore);
    s.count(s.puts, static_cast<std::uint64_t>(std::popcount(mask)));
    const std::uint64_t refused = put(s, index, mask);
    if (refused != 0) [[unlikely]] {
        const auto n = static_cast<std::uint64_t>(std::popcount(refused));
        s.count(s.puts, -n);
        s.count(s.double_free, n);
    }
    return refused;
}

int PagePool::free_run(std::uint32_t lcore, FragmentRun run, RefusedFree* refused)
{
    const std::uint32_t index = page_of(run.first);
    const std::uint32_t offset = run.first - index * fragments_per_page_;
    if (run.first >= fragments_ || run.count == 0 || run.count > fragments_ - run.first ||
        run.count > fragments_per_page_ - offset) [[unlikely]] {
        count_foreign_free(lcore);
        if (refused != nullptr)
            *refused = {name_, index, offset};
        return -EINVAL;
    }
    const std::uint64_t twice = free_mask(lcore, index, ones(run.count) << offset);
    if (twice == 0) [[likely]]
        return 0;
    if (refused != nullptr)
        *refused = {name_, index, static_cast<std::uint32_t>(std::countr_zero(twice))};
    return -EALREADY;
}

void PagePool::count_foreign_free(std::uint32_t lcore)
{
    Slot& s = slot(lcore);
    s.count(s.foreign_free);
}

void PagePool::flush(std::uint32_t lcore)
{
    Slot& s = slot(lcore);
    if (s.shared)
        return;
    s.allocates = false;
    spill(s, s.depth);
    if (s.current != kNone) {
        leave(s, s.current, 0);
        s.current = kNone;
    }
}

// ---- counters

std::uint32_t PagePool::free_count() const
{
    // Gets first: every get that is seen took fragments whose put is then seen too.
    std::uint64_t gets = 0;
    std::uint64_t puts = 0;
    for (std::uint32_t i = 0; i <= lcores_; ++i)
        gets += slots()[i].gets.load(std::memory_order_acquire);
    for (std::uint32_t i = 0; i <= lcores_; ++i)
        puts += slots()[i].puts.load(std::memory_order_acquire);
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(puts - gets, fragments_));
}

PagePoolStats PagePool::stats() const
{
    PagePoolStats sum{};
    // A page is held before it is released: releases are read first.
    for (std::uint32_t i = 0; i <= lcores_; ++i)
        sum.release += slots()[i].release.load(std::memory_order_acquire);
    for (std::uint32_t i = 0; i <= lcores_; ++i) {
        const Slot& s = slots()[i];
        sum.alloc_fast += s.alloc_fast;
        sum.alloc_slow += s.alloc_slow;
        sum.alloc_empty += s.alloc_empty;
        sum.alloc_failed += s.alloc_failed;
        sum.recycle_cached += s.recycle_cached;
        sum.recycle_cache_full += s.recycle_cache_full;
        sum.recycle_ring += s.recycle_ring;
        sum.salvaged += s.salvaged;
        sum.double_free += s.double_free;
        sum.foreign_free += s.foreign_free;
        sum.hold += s.hold;
    }
    return sum;
}

std::uint64_t PagePool::page_word(std::uint32_t page) const
{
    return page_array()[page].word.load(std::memory_order_acquire);
}

} // namespace devmem
