// SPDX-License-Identifier: BSD-3-Clause
// Pools of mbufs whose buffers are pinned to the fragments of a region.
#include <bit>
#include <cerrno>

#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "drivers/mempool/page_pool/page_pool_state.h"
#include "lib/memory/region.h"
#include "lib/page_pool/page_pool.h"

using namespace devmem;

namespace {

constexpr std::uint32_t kMinFragmentBytes = 64;
constexpr std::uint32_t kMaxFragmentsPerPage = 64;
/// Memory that the kernel maps in smaller pages than this there is none.
constexpr std::uint64_t kSmallestPage = 4096;

/// An mbuf of the pool, as it lies in an object.
struct PinnedMbuf {
    rte_mbuf mbuf;
    rte_mbuf_ext_shared_info shared;
};

/// The buffer's last reference, a clone's, is gone: the mbuf goes home as it was born.
void free_pinned(void*, void* opaque)
{
    auto* mbuf = static_cast<rte_mbuf*>(opaque);
    make_free(*mbuf);
    rte_mbuf_raw_free(mbuf);
}

/// IO addresses of consecutive buffers. Each lookup may cost a system call, and neighbours share
/// pages.
class IovaFinder {
public:
    /// Of `bytes` at `address`, or RTE_BAD_IOVA if they have none, or are not contiguous in IO
    /// space.
    rte_iova_t find(std::uint64_t address, std::uint32_t bytes)
    {
        const rte_iova_t iova = at(address);
        for (std::uint64_t page = (address | (kSmallestPage - 1)) + 1; page < address + bytes;
             page += kSmallestPage) {
            if (iova == RTE_BAD_IOVA || at(page) != iova + (page - address))
                return RTE_BAD_IOVA;
        }
        return iova;
    }

private:
    rte_iova_t at(std::uint64_t address)
    {
        const std::uint64_t page = address & ~(kSmallestPage - 1);
        if (page != page_) {
            page_ = page;
            iova_ = rte_mem_virt2iova(reinterpret_cast<const void*>(page));
        }
        return iova_ == RTE_BAD_IOVA ? RTE_BAD_IOVA : iova_ + (address - page);
    }

    std::uint64_t page_ = UINT64_MAX;
    rte_iova_t iova_ = RTE_BAD_IOVA;
};

struct MbufInit {
    const PktmbufPoolLayout& layout;
    const PagePoolState& state;
    IovaFinder iova;
};

void init_mbuf(rte_mempool* mp, void* opaque, void* object, unsigned index)
{
    auto& init = *static_cast<MbufInit*>(opaque);
    const PktmbufPoolLayout& layout = init.layout;
    const std::uint64_t address =
        layout.base + layout.offset +
        std::uint64_t{index / layout.fragments_per_page} * layout.page_bytes +
        std::uint64_t{index % layout.fragments_per_page} * layout.fragment_bytes;

    std::memset(object, 0, sizeof(PinnedMbuf));
    auto& [mbuf, shared] = *static_cast<PinnedMbuf*>(object);
    mbuf.buf_addr = reinterpret_cast<void*>(address);
    mbuf.buf_iova = (init.state.flags & DEVMEM_POOL_DMA_MAP) != 0
                        ? pool_of(init.state).dma(index / layout.fragments_per_page) +
                              index % layout.fragments_per_page * layout.fragment_bytes
                        : init.iova.find(address, layout.fragment_bytes);
    mbuf.buf_len = static_cast<std::uint16_t>(data_bytes(layout, init.state.flags));
    rte_pktmbuf_reset_headroom(&mbuf);
    mbuf.pool = mp;
    mbuf.nb_segs = 1;
    mbuf.port = RTE_MBUF_PORT_INVALID;
    mbuf.ol_flags = RTE_MBUF_F_EXTERNAL;
    rte_mbuf_refcnt_set(&mbuf, 1);
    mbuf.shinfo = &shared;
    shared.free_cb = free_pinned;
    shared.fcb_opaque = &mbuf;
    rte_mbuf_ext_refcnt_set(&shared, 1);
}

/// @return 0; -EINVAL.
int lay_out(devmem_region* region, std::uint64_t offset, std::uint64_t bytes,
            std::uint32_t page_bytes, std::uint32_t fragment_bytes, PktmbufPoolLayout& layout)
{
    if (region == nullptr || fragment_bytes < kMinFragmentBytes || fragment_bytes > UINT16_MAX)
        return -EINVAL;
    if (page_bytes == 0) {
        page_bytes = region->page_bytes;
        while (page_bytes / fragment_bytes > kMaxFragmentsPerPage)
            page_bytes /= 2;
    }
    const std::uint32_t per_page = page_bytes / fragment_bytes;
    if (!std::has_single_bit(page_bytes) || page_bytes > region->page_bytes || per_page == 0 ||
        per_page > kMaxFragmentsPerPage || offset % page_bytes != 0 || offset >= region->bytes)
        return -EINVAL;
    if (bytes == 0)
        bytes = region->bytes - offset;
    const std::uint64_t fragments = bytes / page_bytes * per_page;
    if (bytes % page_bytes != 0 || bytes > region->bytes - offset || fragments >= UINT32_MAX)
        return -EINVAL;
    layout = {
        .region = region,
        .base = static_cast<std::uint64_t>(region->base),
        .offset = offset,
        .page_bytes = page_bytes,
        .fragment_bytes = fragment_bytes,
        .fragments_per_page = per_page,
        .fragments = static_cast<std::uint32_t>(fragments),
    };
    return 0;
}

/// Set rte_errno and the text. @return nullptr
[[gnu::format(printf, 4, 5)]] rte_mempool* fail(int error, char* text, std::size_t len,
                                                const char* format, ...)
{
    rte_errno = -error;
    if (text != nullptr && len != 0) {
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(text, len, format, arguments);
        va_end(arguments);
    }
    return nullptr;
}

struct FreeMempool {
    void operator()(rte_mempool* mp) const { rte_mempool_free(mp); }
};

/// Know the DMA address of each page. @return 0; -ERANGE.
int map_pages(PagePool& pool, const PktmbufPoolLayout& layout)
{
    const auto shift = static_cast<unsigned>(std::countr_zero(layout.page_bytes));
    const Region& region = *layout.region;
    for (std::uint32_t page = 0; page < pool.pages(); ++page) {
        const std::uint64_t at = layout.offset + std::uint64_t{page} * layout.page_bytes;
        const int rc = pool.set_dma(
            page, dma_address(region, at / region.page_bytes) + at % region.page_bytes, shift);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/// Leave to the provider what the region has no memory for.
void withdraw_holes(PagePoolState& state)
{
    const Region& region = *state.layout.region;
    if (region.populated == region.bytes)
        return;
    PagePool& pool = pool_of(state);
    std::uint32_t page;
    while (pool.withdraw(pool_caller(state), 1, &page) != 0) {
    }
    const std::lock_guard guard(region.pages_lock);
    for (page = pool.pages(); page-- > 0;) {
        const std::uint64_t at =
            state.layout.offset + std::uint64_t{page} * state.layout.page_bytes;
        if (!region.holes[at / region.page_bytes])
            pool.insert(pool_caller(state), page);
    }
}

} // namespace

void devmem::make_free(rte_mbuf& mbuf)
{
    rte_mbuf_refcnt_set(&mbuf, 1);
    rte_mbuf_ext_refcnt_set(mbuf.shinfo, 1);
    mbuf.ol_flags = RTE_MBUF_F_EXTERNAL;
    mbuf.next = nullptr;
    mbuf.nb_segs = 1;
}

rte_mempool* devmem_pool_create(const devmem_pool_config* config, char* text, std::size_t len)
{
    if (config == nullptr || config->size != sizeof(*config))
        return fail(-EINVAL, text, len, "size is not sizeof(struct devmem_pool_config)");
    const char* const name = config->name;
    if (name == nullptr || config->region == nullptr)
        return fail(-EINVAL, text, len, "a pool needs a name and a region");
    if (std::strlen(name) >= RTE_MEMPOOL_NAMESIZE)
        return fail(-ENAMETOOLONG, text, len, "name %s: %zu characters at most", name,
                    std::size_t{RTE_MEMPOOL_NAMESIZE - 1});
    const std::uint32_t flags = config->flags;
    if ((flags & ~(DEVMEM_POOL_DMA_MAP | kGuarded)) != 0)
        return fail(-EINVAL, text, len,
                    "flags %#x: only DEVMEM_POOL_DMA_MAP, _POISON and _RED_ZONE exist", flags);
    for (const auto& [flag, what] : {std::pair{DEVMEM_POOL_POISON, "DEVMEM_POOL_POISON"},
                                     std::pair{DEVMEM_POOL_RED_ZONE, "DEVMEM_POOL_RED_ZONE"}}) {
        if ((flags & flag) != 0 && !config->region->readable)
            return fail(-EOPNOTSUPP, text, len, "%s: the CPU cannot reach memory of %s", what,
                        config->region->provider->name);
    }
    PktmbufPoolLayout layout;
    int rc = lay_out(config->region, config->offset, config->bytes, config->page_bytes,
                     config->fragment_bytes, layout);
    if (rc == 0 && data_bytes(layout, flags) < kMinFragmentBytes)
        rc = -EINVAL;
    if (rc != 0)
        return fail(rc, text, len,
                    "page_bytes %u, fragment_bytes %u, offset %" PRIu64 ", bytes %" PRIu64
                    ": fragments of 64 to 65535 bytes for data, at most 64 in a page that is a "
                    "power of two and divides the rest",
                    config->page_bytes, config->fragment_bytes, config->offset, config->bytes);

    // No cache of the mempool's own: it would hold fragments back and scatter them, and the driver
    // has one of whole pages.
    std::unique_ptr<rte_mempool, FreeMempool> mp(
        rte_mempool_create_empty(name, layout.fragments, sizeof(PinnedMbuf), 0,
                                 sizeof(rte_pktmbuf_pool_private), config->socket_id, 0));
    if (mp == nullptr)
        return fail(-rte_errno, text, len, "mempool %s: %s", name, rte_strerror(rte_errno));
    PagePoolMempoolConfig ops_config{.fragments_per_page = layout.fragments_per_page,
                                     .layout = &layout};
    rc = rte_mempool_set_ops_byname(mp.get(), kPagePoolOpsName, &ops_config);
    if (rc < 0 || page_pool_ops_index() < 0)
        return fail(rc < 0 ? rc : page_pool_ops_index(), text, len, "no mempool driver %s",
                    kPagePoolOpsName);
    rte_pktmbuf_pool_private private_data{
        .mbuf_data_room_size = static_cast<std::uint16_t>(data_bytes(layout, flags)),
        .mbuf_priv_size = 0,
        .flags = RTE_PKTMBUF_POOL_F_PINNED_EXT_BUF,
    };
    rte_pktmbuf_pool_init(mp.get(), &private_data);
    rc = rte_mempool_populate_default(mp.get());
    if (rc < 0) // the library's -ENOBUFS is that the driver had no memory for its index
        return fail(rc == -ENOBUFS ? -ENOMEM : rc, text, len, "mempool %s: no memory for %u mbufs",
                    name, layout.fragments);

    PagePoolState& state = *page_pool_state(mp.get());
    state.flags = flags;
    PagePool& pool = pool_of(state);
    for (std::uint32_t page = 0; page < pool.pages(); ++page)
        pool.set_page_nid(page, layout.region->numa_node);
    if ((flags & DEVMEM_POOL_DMA_MAP) != 0 && map_pages(pool, layout) != 0)
        return fail(-ERANGE, text, len,
                    "DEVMEM_POOL_DMA_MAP: pages of %u bytes at %#" PRIx64
                    " are beyond 32 bits of page number; use larger pages",
                    layout.page_bytes, dma_address(*layout.region, 0));
    withdraw_holes(state);
    state.target = pool.present();
    MbufInit init{.layout = layout, .state = state, .iova = {}};
    rte_mempool_obj_iter(mp.get(), init_mbuf, &init);
    for (std::uint32_t page = 0; page < pool.pages(); ++page) {
        if (pool.view(page).present)
            guard_fill(state, page);
    }
    return mp.release();
}

rte_mempool* devmem_pktmbuf_pool_create(const char* name, devmem_region* region,
                                        std::uint64_t offset, std::uint64_t bytes,
                                        std::uint32_t page_bytes, std::uint32_t fragment_bytes,
                                        int socket_id)
{
    const devmem_pool_config config{
        .size = sizeof(config),
        .name = name,
        .region = region,
        .offset = offset,
        .bytes = bytes,
        .page_bytes = page_bytes,
        .fragment_bytes = fragment_bytes,
        .socket_id = socket_id,
        .flags = 0,
    };
    return devmem_pool_create(&config, nullptr, 0);
}

int devmem_pktmbuf_pool_free(rte_mempool* mp)
{
    const PagePoolState* state = page_pool_state(mp);
    if (state == nullptr || state->layout.region == nullptr || !is_maker(*state))
        return -EINVAL;
    if (pool_of(*state).is_in_use())
        return -EBUSY;
    rte_mempool_free(mp); // the driver drops the reference on the region
    return 0;
}
