// SPDX-License-Identifier: BSD-3-Clause
// Pools of mbufs whose buffers are pinned to the fragments of a region.
#include <bit>
#include <cerrno>
#include <cstring>

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
    rte_mbuf_ext_refcnt_set(mbuf->shinfo, 1);
    mbuf->ol_flags = RTE_MBUF_F_EXTERNAL;
    mbuf->next = nullptr;
    mbuf->nb_segs = 1;
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
    IovaFinder iova;
};

void init_mbuf(rte_mempool* mp, void* opaque, void* object, unsigned index)
{
    auto& init = *static_cast<MbufInit*>(opaque);
    const PktmbufPoolLayout& layout = init.layout;
    const std::uint64_t address =
        static_cast<std::uint64_t>(layout.region->base) + layout.offset +
        std::uint64_t{index / layout.fragments_per_page} * layout.page_bytes +
        std::uint64_t{index % layout.fragments_per_page} * layout.fragment_bytes;

    std::memset(object, 0, sizeof(PinnedMbuf));
    auto& [mbuf, shared] = *static_cast<PinnedMbuf*>(object);
    mbuf.buf_addr = reinterpret_cast<void*>(address);
    mbuf.buf_iova = init.iova.find(address, layout.fragment_bytes);
    mbuf.buf_len = static_cast<std::uint16_t>(layout.fragment_bytes);
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
        .offset = offset,
        .page_bytes = page_bytes,
        .fragment_bytes = fragment_bytes,
        .fragments_per_page = per_page,
        .fragments = static_cast<std::uint32_t>(fragments),
    };
    return 0;
}

rte_mempool* fail(int error, rte_mempool* mp = nullptr)
{
    rte_mempool_free(mp);
    rte_errno = -error;
    return nullptr;
}

} // namespace

rte_mempool* devmem_pktmbuf_pool_create(const char* name, devmem_region* region,
                                        std::uint64_t offset, std::uint64_t bytes,
                                        std::uint32_t page_bytes, std::uint32_t fragment_bytes,
                                        int socket_id)
{
    PktmbufPoolLayout layout;
    if (name == nullptr)
        return fail(-EINVAL);
    if (std::strlen(name) >= RTE_MEMPOOL_NAMESIZE)
        return fail(-ENAMETOOLONG);
    if (const int rc = lay_out(region, offset, bytes, page_bytes, fragment_bytes, layout); rc != 0)
        return fail(rc);

    // No cache of the mempool's own: it would hold fragments back and scatter them, and the driver
    // has one of whole pages.
    rte_mempool* mp = rte_mempool_create_empty(name, layout.fragments, sizeof(PinnedMbuf), 0,
                                               sizeof(rte_pktmbuf_pool_private), socket_id, 0);
    if (mp == nullptr)
        return fail(-rte_errno);
    PagePoolMempoolConfig config{.fragments_per_page = layout.fragments_per_page,
                                 .layout = &layout};
    int rc = rte_mempool_set_ops_byname(mp, kPagePoolOpsName, &config);
    if (rc < 0 || page_pool_ops_index() < 0)
        return fail(rc < 0 ? rc : page_pool_ops_index(), mp);
    rte_pktmbuf_pool_private private_data{
        .mbuf_data_room_size = static_cast<std::uint16_t>(fragment_bytes),
        .mbuf_priv_size = 0,
        .flags = RTE_PKTMBUF_POOL_F_PINNED_EXT_BUF,
    };
    rte_pktmbuf_pool_init(mp, &private_data);
    rc = rte_mempool_populate_default(mp);
    if (rc < 0)
        return fail(rc, mp);
    MbufInit init{.layout = layout, .iova = {}};
    rte_mempool_obj_iter(mp, init_mbuf, &init);
    return mp;
}

int devmem_pktmbuf_pool_free(rte_mempool* mp)
{
    if (pktmbuf_pool_layout(mp) == nullptr)
        return -EINVAL;
    const PagePool& pool = *page_pool_of(mp);
    if (pool.free_count() != pool.fragments())
        return -EBUSY;
    rte_mempool_free(mp); // the driver drops the reference on the region
    return 0;
}
