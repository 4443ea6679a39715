// SPDX-License-Identifier: BSD-3-Clause
// The mempool driver `page_pool`: which object is which fragment. All else is in lib/page_pool.
#include "drivers/mempool/page_pool/page_pool_mempool.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <new>

#include <unistd.h>

#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mempool.h>

#include "drivers/mempool/page_pool/page_pool_state.h"
#include "lib/memory/region.h"
#include "lib/page_pool/page_pool.h"

namespace devmem {
namespace {

constexpr std::uint32_t kDefaultFragmentsPerPage = 64;
constexpr std::uint64_t kRefusalsLogged = 32;

int g_ops_index = -EAGAIN;
std::uint64_t g_process;

// ---- callers

/// Jiffies after boot at which a process began, its state; 0 if there is none.
std::uint64_t start_of(int pid, char* run_state)
{
    char path[32];
    std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    std::FILE* file = std::fopen(path, "re");
    if (file == nullptr)
        return 0;
    char line[512] = "";
    const bool read = std::fgets(line, sizeof(line), file) != nullptr;
    std::fclose(file);
    // The name, in brackets, may hold anything. State is the third field, the start the 22nd.
    const char* const fields = read ? std::strrchr(line, ')') : nullptr;
    unsigned long long start = 0;
    if (fields == nullptr ||
        std::sscanf(fields,
                    ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                    "%llu",
                    run_state, &start) != 2)
        return 0;
    return start;
}

/// The entry of this process, which is not the one that made the mempool; made at its first call.
[[gnu::cold, gnu::noinline]] std::uint32_t caller_of_this_process(PagePoolState& state)
{
    for (std::uint32_t i = 0; i < kMaxPoolProcess; ++i) {
        PoolProcess& entry = state.processes[i];
        std::uint64_t key = entry.key.load(std::memory_order_acquire);
        if (key == 0 && entry.key.compare_exchange_strong(key, g_process)) {
            char run_state;
            entry.pid = getpid();
            entry.start = start_of(getpid(), &run_state);
            key = g_process;
            guard_end(state);
        }
        if (key == g_process)
            return caller_of_process(i + 1);
    }
    guard_end(state);
    return kNoLcore; // too many of them: what it takes is taken to be the maker's
}

inline std::uint32_t caller(PagePoolState& state)
{
    static_assert(kNoLcore == LCORE_ID_ANY && kMaxPoolProcess <= kMaxProcess);
    return state.process == g_process ? rte_lcore_id() : caller_of_this_process(state);
}

// ---- objects and addresses

/// An object, as page and fragment: what a put needs, without a division.
struct Where {
    static constexpr unsigned kFragmentBits = 6;
    static constexpr std::uint32_t kMaxPages = (1U << (32 - kFragmentBits)) - 1;

    std::uint32_t packed;

    std::uint32_t page() const { return packed >> kFragmentBits; }
    std::uint32_t fragment() const { return packed & ((1U << kFragmentBits) - 1); }
    bool operator==(const Where&) const = default;
};
/// In page kMaxPages, which no pool has.
constexpr Where kNowhere{UINT32_MAX};

/// The extent an address is in, or nullptr.
[[gnu::noinline]] const ObjectExtent* find_extent(const PagePoolState& state, std::uintptr_t at)
{
    const ObjectExtent* const begin = state.extents;
    const ObjectExtent* const end = begin + state.extent_count;
    const ObjectExtent* extent =
        std::upper_bound(begin, end, at, [](std::uintptr_t a, const ObjectExtent& e) {
            return a < e.base + e.bytes;
        });
    return extent != end && at >= extent->base ? extent : nullptr;
}

/// The object at an address, or kNowhere.
inline Where object_at(const PagePoolState& state, const void* address)
{
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    const ObjectExtent* extent = &state.largest;
    if (at - extent->base >= extent->bytes) [[unlikely]] {
        extent = find_extent(state, at);
        if (extent == nullptr)
            return kNowhere;
    }
    const Where where{extent->where[(at - extent->base) >> state.shift]};
    if (where == kNowhere ||
        state.objects[where.page() * state.fragments_per_page + where.fragment()] != address)
        [[unlikely]]
        return kNowhere;
    return where;
}

/// Give an extent room for `bytes`. @return false: no memory.
bool resize(const rte_mempool* mp, const PagePoolState& state, ObjectExtent& extent,
            std::size_t bytes)
{
    const std::size_t slots = (bytes >> state.shift) + 1;
    if (slots > extent.slots) {
        // A mempool in many small chunks, each next to the last, must not copy the table each time.
        const std::size_t room = std::max(slots, 2 * extent.slots);
        void* grown =
            rte_realloc_socket(extent.where, room * sizeof(*extent.where), 0, mp->socket_id);
        if (grown == nullptr)
            return false;
        extent.where = static_cast<std::uint32_t*>(grown);
        std::fill(extent.where + extent.slots, extent.where + room, kNowhere.packed);
        extent.slots = room;
    }
    extent.bytes = bytes;
    return true;
}

/// Make addresses known before objects are put there. @return false: no memory.
bool cover(const rte_mempool* mp, PagePoolState& state, std::uintptr_t base, std::size_t bytes)
{
    ObjectExtent* end = state.extents + state.extent_count;
    ObjectExtent* before = std::find_if(
        state.extents, end, [&](const ObjectExtent& e) { return e.base + e.bytes == base; });
    if (before != end)
        return resize(mp, state, *before, before->bytes + bytes);

    ObjectExtent extent{.base = base, .bytes = 0, .slots = 0, .where = nullptr};
    void* grown = rte_realloc_socket(state.extents, (state.extent_count + 1) * sizeof(extent), 0,
                                     mp->socket_id);
    if (grown == nullptr)
        return false;
    state.extents = static_cast<ObjectExtent*>(grown);
    if (!resize(mp, state, extent, bytes))
        return false;
    end = state.extents + state.extent_count++;
    ObjectExtent* at =
        std::find_if(state.extents, end, [&](const ObjectExtent& e) { return e.base > base; });
    std::copy_backward(at, end, end + 1);
    *at = extent;
    return true;
}

void forget_extents(PagePoolState& state)
{
    for (std::uint32_t i = 0; i < state.extent_count; ++i)
        rte_free(state.extents[i].where);
    rte_free(state.extents);
    state.extents = nullptr;
    state.extent_count = 0;
    state.largest = {};
}

// ---- refused frees

[[gnu::cold, gnu::noinline]] void report_double_free(PagePoolState& state, std::uint32_t page,
                                                     std::uint64_t refused)
{
    for (; refused != 0; refused &= refused - 1) {
        const auto fragment = static_cast<std::uint32_t>(std::countr_zero(refused));
        if (worth_a_line(state))
            POOL_LOG(ERR,
                     "page_pool %s: double free of fragment %" PRIu32 " of page %" PRIu32
                     " (object %p) refused\n",
                     pool_of(state).name(), fragment, page,
                     state.objects[page * pool_of(state).fragments_per_page() + fragment]);
    }
}

[[gnu::cold, gnu::noinline]] void report_foreign_free(PagePoolState& state, const void* object)
{
    pool_of(state).count_foreign_free(caller(state));
    if (worth_a_line(state))
        POOL_LOG(ERR, "page_pool %s: free of %p, no object of this pool, refused\n",
                 pool_of(state).name(), object);
}

/// Put fragments of a page, `n` of them. @return those that were refused, which are reported.
inline std::uint64_t put(PagePoolState& state, std::uint32_t lcore, std::uint32_t page,
                         std::uint64_t mask, std::uint32_t n)
{
    if ((state.flags & kGuarded) != 0) [[unlikely]] {
        mask = guard_put(state, lcore, page, mask);
        if (mask == 0)
            return 0;
        n = static_cast<std::uint32_t>(std::popcount(mask));
    }
    const std::uint64_t refused = pool_of(state).free_mask(lcore, page, mask, n);
    if (refused != 0) [[unlikely]]
        report_double_free(state, page, refused);
    return refused;
}

// ---- ops

int alloc(rte_mempool* mp)
{
    static constexpr PagePoolMempoolConfig kDefaults{};
    const auto& config = mp->pool_config == nullptr
                             ? kDefaults
                             : *static_cast<const PagePoolMempoolConfig*>(mp->pool_config);
    const PagePoolConfig shape{
        .name = mp->name,
        .fragments = mp->size,
        .fragments_per_page =
            config.fragments_per_page == 0 ? kDefaultFragmentsPerPage : config.fragments_per_page,
        .lcores = RTE_MAX_LCORE,
    };
    const std::size_t pool_bytes = RTE_ALIGN_CEIL(PagePool::bytes(shape), alignof(void*));
    if (pool_bytes == 0 || shape.fragments / shape.fragments_per_page >= Where::kMaxPages) {
        POOL_LOG(ERR,
                 "page_pool %s: %u objects, %u a page: need 1 to 64, and less than 2^26 pages\n",
                 shape.name, shape.fragments, shape.fragments_per_page);
        return -EINVAL;
    }
    // One block: state, pool, objects.
    auto* block = static_cast<std::byte*>(rte_zmalloc_socket(
        "page_pool", sizeof(PagePoolState) + pool_bytes + mp->size * sizeof(void*),
        RTE_CACHE_LINE_SIZE, mp->socket_id));
    if (block == nullptr)
        return -ENOMEM;
    auto* state = new (block) PagePoolState{};
    PagePool::create(&pool_of(*state), shape);
    state->objects = reinterpret_cast<void**>(block + sizeof(PagePoolState) + pool_bytes);
    state->shift = static_cast<unsigned>(
        std::bit_width(std::size_t{mp->header_size} + mp->elt_size + mp->trailer_size) - 1);
    state->fragments_per_page = shape.fragments_per_page;
    state->process = g_process;
    if (config.layout != nullptr) {
        state->layout = *config.layout;
        region_acquire(*state->layout.region);
    }
    mp->pool_data = state;
    POOL_LOG(DEBUG, "page_pool %s: %u objects, %u a page\n", shape.name, shape.fragments,
             shape.fragments_per_page);
    return 0;
}

void free(rte_mempool* mp)
{
    auto* state = static_cast<PagePoolState*>(mp->pool_data);
    if (state == nullptr)
        return;
    if (state->layout.region != nullptr)
        region_release(state->layout.region);
    forget_extents(*state);
    rte_free(state);
}

constexpr std::uint64_t run_mask(std::uint32_t first, std::uint32_t count)
{
    return (~std::uint64_t{0} >> (64 - count)) << first;
}

/// How many of up to `n` pointers, the first of which are the same, are so in a row; `step` is 1 to
/// compare with the ones that follow, -1 with those before. Four at a time: this is what a put of
/// many costs.
template <std::ptrdiff_t step>
std::uint32_t count_same(void* const* x, void* const* y, std::uint32_t n)
{
    const auto differ = [&](std::uint32_t i) {
        return reinterpret_cast<std::uintptr_t>(x[i]) ^
               reinterpret_cast<std::uintptr_t>(y[step * static_cast<std::ptrdiff_t>(i)]);
    };
    std::uint32_t i = 1;
    while (i + 4 <= n && (differ(i) | differ(i + 1) | differ(i + 2) | differ(i + 3)) == 0)
        i += 4;
    while (i < n && differ(i) == 0)
        ++i;
    return i;
}

/// Whether `n` pointers, the first of which are the same, all are.
bool same(void* const* x, void* const* y, std::uint32_t n)
{
    constexpr std::uint32_t kCallWorthwhile = 8;
    if (n > kCallWorthwhile)
        return std::memcmp(x, y, n * sizeof(*x)) == 0;
    bool differ = false;
    for (std::uint32_t i = 1; i < n; ++i)
        differ |= x[i] != y[i];
    return !differ;
}

/// Collect the objects from table[i] on, as long as they are of one page, whose objects are given.
/// The first of them is known; most often runs follow, up, or down as from a mempool's cache.
/// @return the fragments
std::uint64_t gather(const PagePoolState& state, void* const* table, unsigned n, unsigned& i,
                     Where first, void* const* objects, std::uint32_t size)
{
    std::uint64_t mask = 0;
    for (Where at = first; at.page() == first.page(); at = object_at(state, table[i])) {
        const std::uint32_t fragment = at.fragment();
        std::uint32_t run = std::min(n - i, size - fragment);
        if (!same(table + i, objects + fragment, run))
            run = count_same<1>(table + i, objects + fragment, run);
        std::uint64_t bits = run_mask(fragment, run);
        if (run == 1) {
            run = count_same<-1>(table + i, objects + fragment, std::min(n - i, fragment + 1));
            bits = run_mask(fragment + 1 - run, run);
        }
        if ((mask & bits) != 0) // twice in one table: the second is for the next round to refuse
            break;
        mask |= bits;
        i += run;
        if (i == n)
            break;
    }
    return mask;
}

/// Put objects of any pages, in any order.
[[gnu::noinline]] void put_any(rte_mempool* mp, PagePoolState& state, void* const* table,
                               unsigned n)
{
    const std::uint32_t lcore = caller(state);
    for (unsigned i = 0; i < n;) {
        const Where where = object_at(state, table[i]);
        if (where == kNowhere) [[unlikely]] {
            report_foreign_free(state, table[i++]);
            continue;
        }
        const std::uint32_t first = where.page() * state.fragments_per_page;
        const std::uint32_t size = std::min(state.fragments_per_page, mp->size - first);
        const std::uint64_t mask = gather(state, table, n, i, where, state.objects + first, size);
        put(state, lcore, where.page(), mask, static_cast<std::uint32_t>(std::popcount(mask)));
    }
}

int enqueue(rte_mempool* mp, void* const* table, unsigned n)
{
    PagePoolState& state = *static_cast<PagePoolState*>(mp->pool_data);
    if (n == 0) [[unlikely]]
        return 0;
    // What was taken as a run most often comes back as one.
    const Where where = object_at(state, *table);
    const std::uint32_t first = where.page() * state.fragments_per_page + where.fragment();
    if (where == kNowhere || n > state.fragments_per_page - where.fragment() ||
        n > mp->size - first || !same(table, state.objects + first, n)) {
        put_any(mp, state, table, n);
        return 0; // the library would not look
    }
    put(state, caller(state), where.page(), run_mask(where.fragment(), n), n);
    return 0;
}

int dequeue(rte_mempool* mp, void** table, unsigned n)
{
    // The runs are kept where the pointers will be: n of either have the same size. From the end of
    // the table they are read no later than the pointers overtake them.
    static_assert(sizeof(FragmentRun) == sizeof(void*));
    PagePoolState& state = *static_cast<PagePoolState*>(mp->pool_data);
    const unsigned runs =
        pool_of(state).alloc_runs(caller(state), n, reinterpret_cast<FragmentRun*>(table));
    if (runs == 0) [[unlikely]]
        return n == 0 ? 0 : -ENOBUFS;
    FragmentRun run;
    std::memcpy(&run, table, sizeof(run));
    if ((state.flags & kGuarded) != 0) [[unlikely]] {
        for (unsigned i = 0; i < runs; ++i) {
            std::memcpy(&run, table + i, sizeof(run));
            guard_get(state, run);
        }
        std::memcpy(&run, table, sizeof(run));
    }
    if (runs == 1) [[likely]] {
        void* const* const objects = state.objects + run.first;
        if (n == 1)
            *table = *objects;
        else
            std::memcpy(table, objects, n * sizeof(*table));
        return 0;
    }
    void** const from = table + n - runs;
    std::memmove(from, table, runs * sizeof(FragmentRun));
    for (unsigned i = 0; i < runs; ++i) {
        std::memcpy(&run, from + i, sizeof(run));
        std::memcpy(table, state.objects + run.first, run.count * sizeof(*table));
        table += run.count;
    }
    return 0;
}

unsigned get_count(const rte_mempool* mp)
{
    return pool_of(*static_cast<const PagePoolState*>(mp->pool_data)).free_count();
}

struct Populate {
    const PagePoolState& state;
    const ObjectExtent& extent;
    rte_mempool_populate_obj_cb_t* obj_cb;
    void* obj_cb_arg;
};

void add_object(rte_mempool* mp, void* opaque, void* object, rte_iova_t iova)
{
    const auto& populate = *static_cast<const Populate*>(opaque);
    const PagePoolState& state = populate.state;
    const ObjectExtent& extent = populate.extent;
    const std::uint32_t index = mp->populated_size;
    const std::uint32_t page = pool_of(state).page_of(index);
    const std::uint32_t fragment = index - page * state.fragments_per_page;
    state.objects[index] = object;
    extent.where[(reinterpret_cast<std::uintptr_t>(object) - extent.base) >> state.shift] =
        page << Where::kFragmentBits | fragment;
    populate.obj_cb(mp, populate.obj_cb_arg, object, iova);
}

int populate(rte_mempool* mp, unsigned max_objs, void* vaddr, rte_iova_t iova, std::size_t len,
             rte_mempool_populate_obj_cb_t* obj_cb, void* obj_cb_arg)
{
    PagePoolState& state = *static_cast<PagePoolState*>(mp->pool_data);
    if (mp->populated_size == 0) // an earlier attempt may have failed half-way
        forget_extents(state);
    const auto base = reinterpret_cast<std::uintptr_t>(vaddr);
    if (!cover(mp, state, base, len)) {
        POOL_LOG(ERR, "page_pool %s: no memory for the index of objects\n", pool_of(state).name());
        return 0; // no objects: the library does not take a negative number for an error
    }
    const ObjectExtent* const begin = state.extents;
    const ObjectExtent* const end = begin + state.extent_count;
    state.largest = *std::max_element(
        begin, end, [](const ObjectExtent& x, const ObjectExtent& y) { return x.bytes < y.bytes; });
    Populate context{state, *find_extent(state, base), obj_cb, obj_cb_arg};
    return rte_mempool_op_populate_default(mp, max_objs, vaddr, iova, len, add_object, &context);
}

RTE_INIT(register_page_pool)
{
    g_process = rte_rdtsc() << 16 ^ static_cast<std::uint64_t>(getpid());
    page_pool_logtype = rte_log_register_type_and_pick_level("mempool.page_pool", RTE_LOG_NOTICE);
    if (page_pool_logtype < 0)
        page_pool_logtype = RTE_LOGTYPE_MEMPOOL;

    for (std::uint32_t i = 0; i < rte_mempool_ops_table.num_ops; ++i) {
        if (std::strcmp(rte_mempool_ops_table.ops[i].name, kPagePoolOpsName) == 0) {
            g_ops_index = -EEXIST;
            POOL_LOG(DEBUG, "page_pool: mempool ops of this name are there, at %u\n", i);
            return;
        }
    }
    rte_mempool_ops ops{};
    std::memcpy(ops.name, kPagePoolOpsName, sizeof(kPagePoolOpsName));
    ops.alloc = alloc;
    ops.free = free;
    ops.enqueue = enqueue;
    ops.dequeue = dequeue;
    ops.get_count = get_count;
    ops.populate = populate;
    g_ops_index = rte_mempool_register_ops(&ops);
    if (g_ops_index < 0)
        POOL_LOG(ERR, "page_pool: cannot register mempool ops: %s\n", std::strerror(-g_ops_index));
    else
        POOL_LOG(DEBUG, "page_pool: mempool ops %d\n", g_ops_index);
}

} // namespace

// ---- interface

int page_pool_logtype;

bool worth_a_line(PagePoolState& state)
{
    const std::uint64_t n = state.refusals.fetch_add(1, std::memory_order_relaxed) + 1;
    return n <= kRefusalsLogged || std::has_single_bit(n);
}

std::uint32_t pool_caller(PagePoolState& state)
{
    return caller(state);
}

bool is_maker(const PagePoolState& state)
{
    return state.process == g_process;
}

bool is_alive(const PoolProcess& process)
{
    char run_state = 'X';
    const std::uint64_t start = start_of(process.pid, &run_state);
    return start != 0 && start == process.start && run_state != 'Z' && run_state != 'X';
}

int page_pool_ops_index()
{
    return g_ops_index;
}

PagePoolState* page_pool_state(const rte_mempool* mp)
{
    return mp != nullptr && mp->ops_index == g_ops_index
               ? static_cast<PagePoolState*>(mp->pool_data)
               : nullptr;
}

PagePool* page_pool_of(const rte_mempool* mp)
{
    PagePoolState* state = page_pool_state(mp);
    return state == nullptr ? nullptr : &pool_of(*state);
}

const PktmbufPoolLayout* pktmbuf_pool_layout(const rte_mempool* mp)
{
    const PagePoolState* state = page_pool_state(mp);
    return state == nullptr || state->layout.region == nullptr ? nullptr : &state->layout;
}

int page_pool_put_run(rte_mempool* mp, std::uint32_t first, std::uint32_t count)
{
    PagePoolState& state = *static_cast<PagePoolState*>(mp->pool_data);
    PagePool& pool = pool_of(state);
    const std::uint32_t page = pool.page_of(first);
    const std::uint32_t offset = first - page * pool.fragments_per_page();
    const std::uint32_t room = std::min(pool.fragments_per_page() - offset,
                                        first < pool.fragments() ? pool.fragments() - first : 0);
    if (count == 0 || count > room) [[unlikely]] {
        pool.count_foreign_free(caller(state));
        if (worth_a_line(state))
            POOL_LOG(ERR,
                     "page_pool %s: free of %" PRIu32 " fragments from %" PRIu32
                     " on, no run of this pool, refused\n",
                     pool.name(), count, first);
        return -EINVAL;
    }
    return put(state, caller(state), page, run_mask(offset, count), count) == 0 ? 0 : -EALREADY;
}

void page_pool_put_mask(rte_mempool* mp, std::uint32_t page, std::uint64_t mask)
{
    PagePoolState& state = *static_cast<PagePoolState*>(mp->pool_data);
    put(state, caller(state), page, mask, static_cast<std::uint32_t>(std::popcount(mask)));
}

} // namespace devmem

using namespace devmem;

int devmem_pool_stats_get(const rte_mempool* mp, devmem_pool_stats* stats)
{
    const PagePoolState* state = page_pool_state(mp);
    if (state == nullptr)
        return -EINVAL;
    const PagePool* pool = &pool_of(*state);
    const PagePoolStats s = pool->stats();
    *stats = {
        .alloc_fast = s.alloc_fast,
        .alloc_slow = s.alloc_slow,
        .alloc_slow_high_order = s.alloc_slow_high_order,
        .alloc_empty = s.alloc_empty,
        .alloc_refill = s.alloc_refill,
        .alloc_waive = s.alloc_waive,
        .alloc_failed = s.alloc_failed,
        .recycle_cached = s.recycle_cached,
        .recycle_cache_full = s.recycle_cache_full,
        .recycle_ring = s.recycle_ring,
        .recycle_ring_full = s.recycle_ring_full,
        .recycle_released_refcnt = s.recycle_released_refcnt,
        .salvaged = s.salvaged,
        .stolen = s.stolen,
        .double_free = s.double_free,
        .foreign_free = s.foreign_free,
        .poison_damaged = state->poison_damaged,
        .red_zone_damaged = state->red_zone_damaged,
        .hold = s.hold,
        .release = s.release,
        .pages = pool->pages(),
        .pages_present = pool->present(),
        .fragments_per_page = pool->fragments_per_page(),
        .fragments = pool->fragments(),
        .fragments_free = pool->free_count(),
    };
    return 0;
}
