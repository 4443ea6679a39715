// SPDX-License-Identifier: BSD-3-Clause
// Poison and red zones: finding those who write where they should not.
#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstring>

#include "drivers/mempool/page_pool/page_pool_state.h"
#include "lib/memory/region.h"

namespace devmem {
namespace {

/// Not the poison, so that a fill that runs on is seen.
constexpr unsigned char kRedZone = 0xbb;

struct Fragment {
    unsigned char* data;
    std::size_t room;     ///< for data
    std::size_t red_zone; ///< bytes behind it
};

Fragment fragment_at(const PagePoolState& state, std::uint32_t page, std::uint32_t fragment)
{
    const PktmbufPoolLayout& layout = state.layout;
    const std::uint64_t at = layout.base + layout.offset + std::uint64_t{page} * layout.page_bytes +
                             std::uint64_t{fragment} * layout.fragment_bytes;
    const std::size_t room = data_bytes(layout, state.flags);
    return {reinterpret_cast<unsigned char*>(at), room, layout.fragment_bytes - room};
}

bool is_filled(const unsigned char* bytes, std::size_t n, unsigned char with)
{
    return std::all_of(bytes, bytes + n, [with](unsigned char byte) { return byte == with; });
}

/// Have a fragment look as a free one does.
void fill(const PagePoolState& state, const Fragment& fragment)
{
    std::memset(fragment.data + fragment.room, kRedZone, fragment.red_zone);
    if ((state.flags & DEVMEM_POOL_POISON) != 0)
        std::memset(fragment.data, DEVMEM_POISON, fragment.room);
}

} // namespace

void guard_fill(PagePoolState& state, std::uint32_t page)
{
    if ((state.flags & kGuarded) == 0)
        return;
    const PagePool& pool = pool_of(state);
    const std::uint32_t first = page * pool.fragments_per_page();
    const std::uint32_t n = std::min(pool.fragments_per_page(), pool.fragments() - first);
    for (std::uint32_t f = 0; f < n; ++f)
        fill(state, fragment_at(state, page, f));
}

std::uint64_t guard_put(PagePoolState& state, std::uint32_t caller, std::uint32_t page,
                        std::uint64_t mask)
{
    if (!is_maker(state))
        return mask;
    PagePool& pool = pool_of(state);
    // What has other holders, or is free already, is not the caller's to write to.
    const std::uint64_t last = pool.drop_holders(caller, page, mask);
    for (mask = last & pool.view(page).out; mask != 0; mask &= mask - 1) {
        const auto f = static_cast<std::uint32_t>(std::countr_zero(mask));
        const Fragment fragment = fragment_at(state, page, f);
        if (!is_filled(fragment.data + fragment.room, fragment.red_zone, kRedZone)) {
            state.red_zone_damaged.fetch_add(1, std::memory_order_relaxed);
            if (worth_a_line(state))
                POOL_LOG(ERR,
                         "page_pool %s: fragment %" PRIu32 " of page %" PRIu32
                         " was written to beyond its end\n",
                         pool.name(), f, page);
        }
        fill(state, fragment);
    }
    return last;
}

void guard_get(PagePoolState& state, FragmentRun run)
{
    if ((state.flags & DEVMEM_POOL_POISON) == 0 ||
        state.poison_lost.load(std::memory_order_relaxed))
        return;
    const PagePool& pool = pool_of(state);
    const std::uint32_t page = pool.page_of(run.first);
    const std::uint32_t first = run.first - page * pool.fragments_per_page();
    for (std::uint32_t f = first; f < first + run.count; ++f) {
        const Fragment fragment = fragment_at(state, page, f);
        if (is_filled(fragment.data, fragment.room, DEVMEM_POISON))
            continue;
        state.poison_damaged.fetch_add(1, std::memory_order_relaxed);
        if (worth_a_line(state))
            POOL_LOG(ERR,
                     "page_pool %s: fragment %" PRIu32 " of page %" PRIu32
                     " was written to while it was free\n",
                     pool.name(), f, page);
    }
}

void guard_end(PagePoolState& state)
{
    if ((state.flags & DEVMEM_POOL_POISON) != 0 && !state.poison_lost.exchange(true))
        POOL_LOG(NOTICE,
                 "page_pool %s: used by another process, which cannot fill what it puts: poison is "
                 "looked for no longer\n",
                 pool_of(state).name());
}

} // namespace devmem
