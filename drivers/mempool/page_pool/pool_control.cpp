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
            holders.add(DEVMEM_HOLDER_PROCESS, who.pid, is_alive(who), rest & -rest, view.since_ms);
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

/// Pages of the pool in a page of the region, and the other way round.
struct Pages {
    explicit Pages(const PagePoolState& state)
        : pool(pool_of(state)), layout(state.layout), region(*layout.region),
          per_region_page(region.page_bytes / layout.page_bytes)
    {
    }
    const PagePool& pool;
    const PktmbufPoolLayout& layout;
    Region& region;
    std::uint32_t per_region_page;

    /// Offset of the region page that a page of the pool is in.
    std::uint64_t region_offset(std::uint32_t page) const
    {
        const std::uint64_t at = layout.offset + std::uint64_t{page} * layout.page_bytes;
        return at / region.page_bytes * region.page_bytes;
    }
    /// Whether the pool has no page in that region page any more, and the region page is all its
    /// own.
    bool is_idle(std::uint64_t region_offset) const
    {
        if (region_offset < layout.offset ||
            region_offset + region.page_bytes >
                layout.offset + std::uint64_t{pool.pages()} * layout.page_bytes)
            return false;
        const auto first =
            static_cast<std::uint32_t>((region_offset - layout.offset) / layout.page_bytes);
        for (std::uint32_t page = first; page < first + per_region_page; ++page) {
            if (pool.view(page).present)
                return false;
        }
        return true;
    }
};

/// Give back what pages that were withdrawn leave unused.
int give_back(const Pages& pages, const std::vector<std::uint32_t>& withdrawn)
{
    for (const std::uint32_t page : withdrawn) {
        const std::uint64_t offset = pages.region_offset(page);
        if (!pages.is_idle(offset))
            continue;
        const int rc = region_depopulate(pages.region, offset, pages.region.page_bytes);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/// Put a withdrawn page in, with memory behind it. @return 0; -EEXIST it is not withdrawn.
int put_in(const Pages& pages, PagePoolState& state, std::uint32_t page)
{
    const int rc =
        region_populate(pages.region, pages.region_offset(page), pages.region.page_bytes);
    if (rc != 0)
        return rc;
    guard_fill(state, page);
    return pool_of(state).insert(pool_caller(state), page);
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
    if (state == nullptr)
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
        .address = static_cast<std::uint64_t>(layout.region->base) + offset,
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
    PagePoolState* state = region_pool(mp);
    if (state == nullptr)
        return -EINVAL;
    const Pages pages(*state);
    PagePool& pool = pool_of(*state);
    if (bytes % pages.region.page_bytes != 0)
        return -EINVAL;
    if (bytes / pages.layout.page_bytes > pool.pages())
        return -ERANGE;
    if ((pages.region.flags & DEVMEM_REGION_GROW) == 0)
        return -EOPNOTSUPP;
    const auto target = static_cast<std::uint32_t>(bytes / pages.layout.page_bytes);

    pool.divert(0);
    if (const int rc = devmem_pool_scrub(mp); rc < 0)
        return rc;
    for (std::uint32_t page = 0; page < pool.pages() && pool.present() < target; ++page) {
        if (pool.view(page).present)
            continue;
        const int rc = put_in(pages, *state, page);
        if (rc != 0 && rc != -EEXIST)
            return rc;
    }
    if (pool.present() <= target)
        return 0;
    std::vector<std::uint32_t> idle(pool.present() - target);
    idle.resize(
        pool.withdraw(pool_caller(*state), static_cast<std::uint32_t>(idle.size()), idle.data()));
    const std::uint32_t owed = pool.present() - target;
    pool.divert(owed);
    const int rc = give_back(pages, idle);
    return rc != 0 ? rc : static_cast<int>(owed);
}

int devmem_pool_scrub(rte_mempool* mp)
{
    PagePoolState* state = region_pool(mp);
    if (state == nullptr)
        return -EINVAL;
    const Pages pages(*state);
    PagePool& pool = pool_of(*state);
    const int node = pool.nid();
    std::vector<std::uint32_t> back;
    for (PagePool::Diverted page; pool.fetch_diverted(&page);) {
        back.push_back(page.index);
        if (!page.waived)
            continue;
        // Another page in its place, from where pages are wanted now.
        if (const int rc = give_back(pages, {page.index}); rc != 0)
            return rc;
        numa_set_preferred(node);
        pool.set_page_nid(page.index, node);
        const int rc = put_in(pages, *state, page.index);
        numa_set_preferred(-1);
        if (rc != 0)
            return rc;
        back.pop_back();
    }
    const int rc = give_back(pages, back);
    return rc != 0 ? rc : static_cast<int>(pool.diverted_wanted());
}

int devmem_pool_update_nid(rte_mempool* mp, int node)
{
    PagePoolState* state = region_pool(mp);
    if (state == nullptr || node < -1 || node > INT8_MAX)
        return -EINVAL;
    if ((state->layout.region->flags & DEVMEM_REGION_GROW) == 0)
        return -EOPNOTSUPP;
    pool_of(*state).update_nid(node);
    return 0;
}

int devmem_pool_destroy(rte_mempool* mp)
{
    PagePoolState* state = region_pool(mp);
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
