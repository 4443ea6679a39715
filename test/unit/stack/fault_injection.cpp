// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/stack/fault_injection.h"

#include "lib/memory/region.h"
#include "lib/page_pool/page_pool.h"

#include <devmem/devmem.h>

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace devmem::test {
namespace {

struct Plan {
    std::uint32_t sites = 0;
    std::uint64_t from = 0, count = 0;
    std::uint64_t seen = 0, failed = 0;
};
thread_local Plan plan;
std::atomic<std::int64_t> blocks{0};
std::int64_t mapped = 0;
const rte_mempool* watched = nullptr;
bool header_split = true;
std::array<rte_mempool_dequeue_t, RTE_MEMPOOL_MAX_OPS_IDX> dequeues{};

bool fails(Site site)
{
    if ((plan.sites & site) == 0)
        return false;
    const std::uint64_t number = ++plan.seen;
    if (number < plan.from || number - plan.from >= plan.count)
        return false;
    plan.failed++;
    return true;
}

void* try_allocate(std::size_t bytes, std::size_t alignment)
{
    void* p = nullptr;
    if (fails(kHeap) || posix_memalign(&p, std::max(alignment, sizeof(void*)), bytes) != 0)
        return nullptr;
    blocks.fetch_add(1, std::memory_order_relaxed);
    return p;
}

void* allocate(std::size_t bytes, std::size_t alignment)
{
    void* p = try_allocate(bytes, alignment);
    if (p == nullptr)
        throw std::bad_alloc();
    return p;
}

void deallocate(void* p)
{
    blocks.fetch_sub(p != nullptr ? 1 : 0, std::memory_order_relaxed);
    std::free(p);
}

int watched_dequeue(rte_mempool* mp, void** objects, unsigned n)
{
    if (mp == watched && fails(kMempool))
        return -ENOBUFS;
    return dequeues[static_cast<std::size_t>(mp->ops_index)](mp, objects, n);
}

// ---- the provider

struct Faulty {
    std::unique_ptr<std::byte[]> bytes;
    void* device = nullptr; ///< an address range that nothing can be read in
    std::size_t device_bytes = 0;
};

constexpr const char* kKeys[][2] = {
    {"size", "bytes backed at first"}, {"max", "bytes it can grow to"}, {nullptr, nullptr}};
constexpr std::uint32_t kPage = 65536;

std::byte* memory_of(const Region& region)
{
    return static_cast<Faulty*>(region.state)->bytes.get();
}

int create(const SpecKeys& keys, Region& region, std::string&)
{
    std::uint64_t size = 0;
    if (!keys.contains("size") || parse_size(keys.find("size")->second, &size) != 0)
        return -EINVAL;
    region.bytes = size;
    if (keys.contains("max"))
        parse_size(keys.find("max")->second, &region.bytes);
    region.populated = size;
    region.flags = region.bytes != size ? DEVMEM_REGION_GROW : 0;
    region.page_bytes = kPage;
    auto made = std::make_unique<Faulty>();
    made->bytes = std::make_unique<std::byte[]>(region.bytes);
    made->device_bytes = region.bytes + kPage;
    made->device = mmap(nullptr, made->device_bytes, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made->device == MAP_FAILED)
        return -ENOMEM;
    region.base = DeviceAddress{(reinterpret_cast<std::uintptr_t>(made->device) + kPage - 1) &
                                -std::uintptr_t{kPage}};
    region.state = made.release();
    region.dmabuf_fd = -1;
    return 0;
}

void destroy(Region& region)
{
    const std::unique_ptr<Faulty> state(static_cast<Faulty*>(region.state));
    munmap(state->device, state->device_bytes);
}

const Provider kFaulty{
    .name = "faulty",
    .keys = kKeys,
    .flags = DEVMEM_REGION_GROW,
    .create = create,
    .destroy = destroy,
    .dma_write =
        [](const Region& region, std::span<const Transfer> transfers) {
            if (fails(kDmaWrite))
                return -EIO;
            for (const Transfer& t : transfers)
                std::memcpy(memory_of(region) + t.offset, t.host, t.len);
            return 0;
        },
    .read_back =
        [](const Region& region, std::span<const Transfer> transfers) {
            if (fails(kReadBack))
                return -EIO;
            for (const Transfer& t : transfers)
                std::memcpy(t.host, memory_of(region) + t.offset, t.len);
            return 0;
        },
    .map_for_port = [](const Region&) -> std::byte* { return nullptr; },
    .export_dmabuf = [](const Region&) { return -EOPNOTSUPP; },
    .populate = [](const Region&, std::uint64_t,
                   std::uint64_t) { return fails(kPopulate) ? -ENOMEM : 0; },
    .depopulate = [](const Region&, std::uint64_t, std::uint64_t) { return 0; },
};

} // namespace

void fail_calls(std::uint32_t sites, std::uint64_t from, std::uint64_t count)
{
    plan = {.sites = sites, .from = from, .count = count};
}

std::uint64_t stop_failing()
{
    plan.sites = 0;
    return plan.failed;
}

std::uint64_t calls_seen()
{
    return plan.seen;
}

void watch_mempool(rte_mempool* pool)
{
    for (unsigned lcore = 0; pool->cache_size != 0 && lcore < RTE_MAX_LCORE; lcore++)
        rte_mempool_cache_flush(&pool->local_cache[lcore], pool);
    pool->cache_size = 0;
    auto& ops = rte_mempool_ops_table.ops[pool->ops_index];
    if (ops.dequeue != watched_dequeue) {
        dequeues[static_cast<std::size_t>(pool->ops_index)] = ops.dequeue;
        ops.dequeue = watched_dequeue;
    }
    watched = pool;
}

void offer_header_split(bool offered)
{
    header_split = offered;
}

std::int64_t live_blocks()
{
    return blocks.load(std::memory_order_relaxed);
}

std::int64_t mapped_bytes()
{
    return mapped;
}

void register_faulty_provider()
{
    provider_register(kFaulty);
}

} // namespace devmem::test

using namespace devmem::test;

// All forms in use: a sanitizer's would not call each other, as the C++ library's do.
void* operator new(std::size_t bytes)
{
    return allocate(bytes, 0);
}
void* operator new(std::size_t bytes, std::align_val_t alignment)
{
    return allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept
{
    return try_allocate(bytes, 0);
}
void operator delete(void* p) noexcept
{
    deallocate(p);
}
void operator delete(void* p, std::size_t) noexcept
{
    deallocate(p);
}
void operator delete(void* p, const std::nothrow_t&) noexcept
{
    deallocate(p);
}
void operator delete(void* p, std::align_val_t) noexcept
{
    deallocate(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept
{
    deallocate(p);
}
void* operator new[](std::size_t bytes)
{
    return allocate(bytes, 0);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment)
{
    return allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept
{
    return try_allocate(bytes, 0);
}
void operator delete[](void* p) noexcept
{
    deallocate(p);
}
void operator delete[](void* p, std::size_t) noexcept
{
    deallocate(p);
}
void operator delete[](void* p, const std::nothrow_t&) noexcept
{
    deallocate(p);
}
void operator delete[](void* p, std::align_val_t) noexcept
{
    deallocate(p);
}
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept
{
    deallocate(p);
}

// What the linker has the library's objects call in place of NAME; __real_NAME is NAME.
#define WRAP(site, failure, result, name, parameters, arguments)                                   \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        if (!fails(site))                                                                          \
            return __real_##name arguments;                                                        \
        errno = ENOMEM;                                                                            \
        rte_errno = ENOMEM;                                                                        \
        return failure;                                                                            \
    }

extern "C" {
WRAP(kHeap, nullptr, void*, aligned_alloc, (std::size_t alignment, std::size_t bytes),
     (alignment, bytes))
WRAP(kHeap, nullptr, void*, realloc, (void* p, std::size_t bytes), (p, bytes))

WRAP(kSystem, -1, int, memfd_create, (const char* name, unsigned flags), (name, flags))
WRAP(kSystem, -1, int, ftruncate64, (int fd, off_t bytes), (fd, bytes))

void* __real_mmap64(void* address, std::size_t bytes, int prot, int flags, int fd, off_t offset);
void* __wrap_mmap64(void* address, std::size_t bytes, int prot, int flags, int fd, off_t offset);
void* __wrap_mmap64(void* address, std::size_t bytes, int prot, int flags, int fd, off_t offset)
{
    errno = ENOMEM;
    void* p = fails(kSystem) ? MAP_FAILED : __real_mmap64(address, bytes, prot, flags, fd, offset);
    mapped += p != MAP_FAILED ? static_cast<std::int64_t>(bytes) : 0;
    return p;
}
int __real_munmap(void* address, std::size_t bytes);
int __wrap_munmap(void* address, std::size_t bytes);
int __wrap_munmap(void* address, std::size_t bytes)
{
    mapped -= static_cast<std::int64_t>(bytes);
    return __real_munmap(address, bytes);
}

int __real_madvise(void* address, std::size_t bytes, int advice);
int __wrap_madvise(void* address, std::size_t bytes, int advice);
int __wrap_madvise(void* address, std::size_t bytes, int advice)
{
    if (advice != MADV_POPULATE_WRITE || !fails(kSystem))
        return __real_madvise(address, bytes, advice);
    errno = ENOMEM;
    return -1;
}

WRAP(kDpdk, nullptr, void*, rte_zmalloc_socket,
     (const char* type, std::size_t bytes, unsigned align, int socket),
     (type, bytes, align, socket))
WRAP(kDpdk, nullptr, void*, rte_realloc_socket,
     (void* p, std::size_t bytes, unsigned align, int socket), (p, bytes, align, socket))
WRAP(kDpdk, nullptr, rte_mempool*, rte_mempool_create_empty,
     (const char* name, unsigned n, unsigned element, unsigned cache, unsigned private_bytes,
      int socket, unsigned flags),
     (name, n, element, cache, private_bytes, socket, flags))
WRAP(kDpdk, -ENOMEM, int, rte_mempool_populate_default, (rte_mempool * mp), (mp))
WRAP(kDpdk, nullptr, rte_mempool*, rte_pktmbuf_pool_create,
     (const char* name, unsigned n, unsigned cache, std::uint16_t private_bytes, std::uint16_t room,
      int socket),
     (name, n, cache, private_bytes, room, socket))
WRAP(kDpdk, -ENOMEM, int, rte_eal_hotplug_add,
     (const char* bus, const char* device, const char* arguments), (bus, device, arguments))
WRAP(kDpdk, nullptr, rte_eth_dev*, rte_eth_dev_allocate, (const char* name), (name))
WRAP(kDpdk, -ENOMEM, int, rte_eth_dev_configure,
     (std::uint16_t port, std::uint16_t rx, std::uint16_t tx, const rte_eth_conf* conf),
     (port, rx, tx, conf))
WRAP(kDpdk, -ENOMEM, int, rte_eth_rx_queue_setup,
     (std::uint16_t port, std::uint16_t queue, std::uint16_t descriptors, unsigned socket,
      const rte_eth_rxconf* conf, rte_mempool* mp),
     (port, queue, descriptors, socket, conf, mp))
WRAP(kDpdk, -ENOMEM, int, rte_eth_tx_queue_setup,
     (std::uint16_t port, std::uint16_t queue, std::uint16_t descriptors, unsigned socket,
      const rte_eth_txconf* conf),
     (port, queue, descriptors, socket, conf))
WRAP(kDpdk, -ENOMEM, int, rte_eth_dev_start, (std::uint16_t port), (port))

int __real_rte_eth_buffer_split_get_supported_hdr_ptypes(std::uint16_t port, std::uint32_t* types,
                                                         int n);
int __wrap_rte_eth_buffer_split_get_supported_hdr_ptypes(std::uint16_t port, std::uint32_t* types,
                                                         int n);
int __wrap_rte_eth_buffer_split_get_supported_hdr_ptypes(std::uint16_t port, std::uint32_t* types,
                                                         int n)
{
    return header_split ? __real_rte_eth_buffer_split_get_supported_hdr_ptypes(port, types, n) : 0;
}

// devmem::PagePool::alloc(): the stack takes fragments of its host pool by it. The object is the
// first parameter, as the C++ ABI has it.
WRAP(kHostBytes, -ENOBUFS, int, _ZN6devmem8PagePool5allocEjjPj,
     (devmem::PagePool * pool, std::uint32_t caller, std::uint32_t n, std::uint32_t* fragments),
     (pool, caller, n, fragments))
}
