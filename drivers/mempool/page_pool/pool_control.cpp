// SPDX-License-Identifier: BSD-3-Clause
// What is done to a pool while others use it: resize it, say who holds what, take back what a dead
// process had, and let it go.
#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cinttypes>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include <numa.h>
#include <rte_alarm.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "drivers/mempool/page_pool/page_pool_state.h"
#include "lib/memory/region.h"

using namespace devmem;

namespace {

struct TokenMask {
    std::uint64_t (*mask)(const void* arg, std::uint32_t page);
    const void* arg;
};
std::mutex token_masks_lock;
std::map<const rte_mempool*, TokenMask> token_masks;

/// The state of a pool of mbufs in a region, or nullptr.
PagePoolState* region_pool(rte_mempool* mp)
{
    PagePoolState* state = page_pool_state(mp);
    return state == nullptr || state->layout.region == nullptr ? nullptr : state;
}

/// The same, if this process made it.
PagePoolState* own_pool(rte_mempool* mp)
{
    PagePoolState* state = region_pool(mp);
    return state == nullptr || !is_maker(*state) ? nullptr : state;
}

// ---- holders

class Holders {
public:
    void add(devmem_holder_kind kind, int pid, bool alive, std::uint64_t fragments,
             std::uint32_t age_ms)
    {
        if (fragments == 0)
            return;
        auto at = std::ranges::find_if(
            list_, [&](const devmem_pool_holder& h) { return h.kind == kind && h.pid == pid; });
        if (at == list_.end())
            at = list_.insert(
                at, {.kind = kind, .pid = pid, .alive = alive, .fragments = 0, .oldest_ms = 0});
        at->fragments += static_cast<std::uint32_t>(std::popcount(fragments));
        at->oldest_ms = std::max(at->oldest_ms, age_ms);
    }
    const std::vector<devmem_pool_holder>& list() const { return list_; }

private:
    std::vector<devmem_pool_holder> list_;
};

/// Whether an mbuf's buffer has several references: mbufs attached to it.
bool is_cloned(const void* object)
{
    const auto& mbuf = *static_cast<const rte_mbuf*>(object);
    return rte_mbuf_refcnt_read(&mbuf) > 1 ||
           (mbuf.shinfo != nullptr && rte_mbuf_ext_refcnt_read(mbuf.shinfo) > 1);
}

void find_holders(const rte_mempool* mp, const PagePoolState& state, Holders& holders)
{
    const PagePool& pool = pool_of(state);
    TokenMask tokens{};
    std::unique_lock lock(token_masks_lock);
    if (const auto it = token_masks.find(mp); it != token_masks.end())
        tokens = it->second;
    else
        lock.unlock(); // what would be used under it does not exist

    std::array<std::optional<bool>, kMaxPoolProcess> alive; // asked once each: it is a file
    for (std::uint32_t page = 0; page < pool.pages(); ++page) {
        const PageView view = pool.view(page);
        if (view.out == 0)
            continue;
        const std::uint32_t first = page * pool.fragments_per_page();
        for (std::uint64_t rest = view.foreign; rest != 0; rest &= rest - 1) {
            const std::uint32_t process =
                pool.process_of(first + static_cast<std::uint32_t>(std::countr_zero(rest)));
            if (process == 0 || process > kMaxPoolProcess)
                continue;
            const PoolProcess& who = state.processes[process - 1];
            std::optional<bool>& lives = alive[process - 1];
            if (!lives)
                lives = is_alive(who);
            holders.add(DEVMEM_HOLDER_PROCESS, who.pid, *lives, rest & -rest, view.since_ms);
        }
        std::uint64_t rest = view.out & ~view.foreign;
        const std::uint64_t token =
            tokens.mask == nullptr ? 0 : rest & tokens.mask(tokens.arg, page);
        holders.add(DEVMEM_HOLDER_TOKEN, 0, true, token, view.since_ms);
        rest &= ~token;
        std::uint64_t cloned = view.shared & rest;
        for (std::uint64_t left = state.layout.region == nullptr ? 0 : rest; left != 0;
             left &= left - 1) {
            if (is_cloned(
                    state.objects[first + static_cast<std::uint32_t>(std::countr_zero(left))]))
                cloned |= left & -left;
        }
        holders.add(DEVMEM_HOLDER_CLONE, 0, true, cloned, view.since_ms);
        holders.add(DEVMEM_HOLDER_MBUF, 0, true, rest & ~cloned, view.since_ms);
    }
}

// ---- pools to be freed

constexpr std::uint64_t kReapUs = 1000000;
/// The kernel's page_pool warns after so many seconds, too.
constexpr unsigned kWarnAfter = 60;

struct Zombie {
    rte_mempool* mp;
    unsigned seconds = 0;
    unsigned warn_at = kWarnAfter;
    bool empty = false; ///< a second ago
};
std::mutex zombies_lock;
std::vector<Zombie> zombies;

void warn(const Zombie& zombie)
{
    static constexpr std::array kKinds{"mbufs", "clones", "tokens", "other processes"};
    const PagePoolState& state = *page_pool_state(zombie.mp);
    Holders holders;
    find_holders(zombie.mp, state, holders);
    for (const devmem_pool_holder& holder : holders.list())
        POOL_LOG(WARNING,
                 "page_pool %s: waits for its last fragment for %u s: %" PRIu32
                 " are held by %s, for up to %" PRIu32 " ms\n",
                 zombie.mp->name, zombie.seconds, holder.fragments, kKinds[holder.kind],
                 holder.oldest_ms);
}

void reap(void*)
{
    const std::lock_guard guard(zombies_lock);
    std::erase_if(zombies, [](Zombie& zombie) {
        PagePoolState& state = *page_pool_state(zombie.mp);
        ++zombie.seconds;
        // Whoever put the last fragment a second ago has left the pool by now.
        if (zombie.empty) {
            rte_mempool_free(zombie.mp);
            return true;
        }
        zombie.empty = pool_of(state).retire(pool_caller(state));
        if (!zombie.empty && zombie.seconds >= zombie.warn_at) {
            warn(zombie);
            zombie.warn_at *= 2;
        }
        return false;
    });
    if (!zombies.empty())
        rte_eal_alarm_set(kReapUs, reap, nullptr);
}

// ---- pages of the region

/// Offset of the region page that a page of the pool is in.
std::uint64_t region_offset(const PagePoolState& state, std::uint32_t page)
{
    const std::uint64_t at = state.layout.offset + std::uint64_t{page} * state.layout.page_bytes;
    return at / state.layout.region->page_bytes * state.layout.region->page_bytes;
}

/// Whether pages of the pool are pages of the region. Of smaller ones, those that are idle seldom
/// make up one that could be given back.
bool has_region_pages(const PagePoolState& state)
{
    return state.layout.page_bytes == state.layout.region->page_bytes;
}

/// Give the memory of a withdrawn page back.
int give_back(const PagePoolState& state, std::uint32_t page)
{
    return region_depopulate(*state.layout.region, region_offset(state, page),
                             state.layout.page_bytes);
}

/// Put a withdrawn page in, with memory behind it. @return 0; -EEXIST it is not withdrawn.
int put_in(PagePoolState& state, std::uint32_t page)
{
    Region& region = *state.layout.region;
    const int rc = region_populate(region, region_offset(state, page), region.page_bytes);
    if (rc != 0)
        return rc;
    guard_fill(state, page);
    return pool_of(state).insert(pool_caller(state), page);
}

/// Put another page in the place of one on the wrong node.
int replace(PagePoolState& state, std::uint32_t page)
{
    const int node = pool_of(state).nid();
    numa_set_preferred(node);
    pool_of(state).set_page_nid(page, node);
    const int rc = put_in(state, page);
    numa_set_preferred(-1);
    return rc;
}

/// Get nearer to having as many pages as the pool should have.
/// @return the pages that are too many, but in use
int approach_target(PagePoolState& state)
{
    PagePool& pool = pool_of(state);
    // What is idle, but not in the lists, would not pass by where pages are diverted: look for it.
    pool.divert(0);
    for (PagePool::Diverted page; pool.fetch_diverted(&page);) {
        int rc = give_back(state, page.index);
        if (rc == 0 && page.waived)
            rc = replace(state, page.index);
        if (rc != 0)
            return rc;
    }
    for (std::uint32_t page = 0; page < pool.pages() && pool.present() < state.target; ++page) {
        if (pool.view(page).present)
            continue;
        const int rc = put_in(state, page);
        if (rc != 0 && rc != -EEXIST)
            return rc;
    }
    const std::uint32_t present = pool.present();
    std::uint32_t surplus = present - std::min(present, state.target);
    for (std::uint32_t page; surplus != 0 && pool.withdraw(pool_caller(state), 1, &page) != 0;
         --surplus) {
        if (const int rc = give_back(state, page); rc != 0)
            return rc;
    }
    pool.divert(surplus);
    return static_cast<int>(surplus);
}

} // namespace

namespace devmem {

void page_pool_set_token_mask(const rte_mempool* mp,
                              std::uint64_t (*token_mask)(const void* arg, std::uint32_t page),
                              const void* arg)
{
    const std::lock_guard guard(token_masks_lock);
    if (token_mask == nullptr)
        token_masks.erase(mp);
    else
        token_masks[mp] = {token_mask, arg};
}

} // namespace devmem

int devmem_pool_holders_get(const rte_mempool* mp, devmem_pool_holder* list, unsigned n)
{
    const PagePoolState* state = page_pool_state(mp);
    if (state == nullptr)
        return -EINVAL;
    Holders holders;
    find_holders(mp, *state, holders);
    std::copy_n(holders.list().begin(), std::min<std::size_t>(n, holders.list().size()), list);
    return static_cast<int>(holders.list().size());
}

int devmem_pool_reclaim(rte_mempool* mp, int pid)
{
    PagePoolState* state = page_pool_state(mp);
    if (state == nullptr || !is_maker(*state))
        return -EINVAL;
    PagePool& pool = pool_of(*state);
    std::uint32_t count = 0;
    bool known = false;
    for (std::uint32_t i = 0; i < kMaxPoolProcess; ++i) {
        PoolProcess& process = state->processes[i];
        if (process.key == 0 || process.pid != pid)
            continue;
        if (is_alive(process))
            return -EBUSY;
        known = true;
        for (std::uint32_t f = 0; state->layout.region != nullptr && f < pool.fragments(); ++f) {
            if (pool.process_of(f) == i + 1)
                make_free(*static_cast<rte_mbuf*>(state->objects[f]));
        }
        count += pool.reclaim(pool_caller(*state), i + 1);
        process.pid = 0;
        process.key = 0;
    }
    return known ? static_cast<int>(count) : -ENOENT;
}

int devmem_pool_alloc(rte_mempool* mp, std::uint32_t size, devmem_fragment* fragment)
{
    PagePoolState* state = region_pool(mp);
    if (state == nullptr || size == 0 || size > state->layout.page_bytes)
        return -EINVAL;
    const PktmbufPoolLayout& layout = state->layout;
    const std::uint32_t room = data_bytes(layout, state->flags);
    if (room < layout.fragment_bytes && size > room) // a red zone would be in the middle
        return -EINVAL;
    PagePool& pool = pool_of(*state);
    FragmentRun run;
    const int rc = pool.alloc_adjacent(
        pool_caller(*state), (size + layout.fragment_bytes - 1) / layout.fragment_bytes, &run);
    if (rc != 0)
        return rc;
    guard_get(*state, run);
    const std::uint32_t page = pool.page_of(run.first);
    const std::uint64_t in_page =
        std::uint64_t{run.first - page * layout.fragments_per_page} * layout.fragment_bytes;
    const std::uint64_t offset = layout.offset + std::uint64_t{page} * layout.page_bytes + in_page;
    *fragment = {
        .offset = offset,
        .address = layout.base + offset,
        .dma = (state->flags & DEVMEM_POOL_DMA_MAP) != 0 ? pool.dma(page) + in_page : 0,
        .size = run.count * room,
        .first = run.first,
        .count = run.count,
    };
    return 0;
}

int devmem_pool_hold(rte_mempool* mp, const devmem_fragment* fragment)
{
    PagePoolState* state = page_pool_state(mp);
    return state == nullptr ? -EINVAL
                            : pool_of(*state).hold_run({fragment->first, fragment->count});
}

int devmem_pool_put(rte_mempool* mp, const devmem_fragment* fragment)
{
    return page_pool_state(mp) == nullptr ? -EINVAL
                                          : page_pool_put_run(mp, fragment->first, fragment->count);
}

int devmem_pool_resize(rte_mempool* mp, std::uint64_t bytes)
{
    PagePoolState* state = own_pool(mp);
    if (state == nullptr || bytes % state->layout.region->page_bytes != 0)
        return -EINVAL;
    const std::uint64_t target = bytes / state->layout.page_bytes;
    if (target > pool_of(*state).pages())
        return -ERANGE;
    if ((state->layout.region->flags & DEVMEM_REGION_GROW) == 0 ||
        (target < state->target && !has_region_pages(*state)))
        return -EOPNOTSUPP;
    state->target = static_cast<std::uint32_t>(target);
    return approach_target(*state);
}

int devmem_pool_scrub(rte_mempool* mp)
{
    PagePoolState* state = own_pool(mp);
    return state == nullptr ? -EINVAL : approach_target(*state);
}

int devmem_pool_update_nid(rte_mempool* mp, int node)
{
    PagePoolState* state = own_pool(mp);
    if (state == nullptr || node < -1 || node > INT8_MAX)
        return -EINVAL;
    if ((state->layout.region->flags & DEVMEM_REGION_GROW) == 0 || !has_region_pages(*state))
        return -EOPNOTSUPP;
    pool_of(*state).update_nid(node);
    return 0;
}

int devmem_pool_destroy(rte_mempool* mp)
{
    PagePoolState* state = own_pool(mp);
    if (state == nullptr)
        return -EINVAL;
    const std::lock_guard guard(zombies_lock);
    if (std::ranges::any_of(zombies, [mp](const Zombie& z) { return z.mp == mp; }))
        return -EINVAL;
    if (pool_of(*state).retire(pool_caller(*state))) {
        rte_mempool_free(mp);
        return 0;
    }
    if (zombies.empty())
        rte_eal_alarm_set(kReapUs, reap, nullptr);
    zombies.push_back({.mp = mp});
    return 1;
}

unsigned devmem_pool_zombies(void)
{
    const std::lock_guard guard(zombies_lock);
    return static_cast<unsigned>(zombies.size());
}
