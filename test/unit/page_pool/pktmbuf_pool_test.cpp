// SPDX-License-Identifier: BSD-3-Clause
// Mbufs pinned to the fragments of a region that this process cannot read or write.
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "lib/memory/region.h"
#include "lib/page_pool/page_pool.h"
#include "test/unit/page_pool/eal.h"

namespace devmem::test {
namespace {

constexpr std::uint32_t kPage = 65536;

class PktmbufPool : public testing::Test {
protected:
    void SetUp() override
    {
        std::string error;
        ASSERT_EQ(0, region_create("opaque:size=4M,page=64K", &region, error)) << error;
    }
    void TearDown() override
    {
        if (pool != nullptr) {
            EXPECT_EQ(0, devmem_pktmbuf_pool_free(pool)) << "mbufs leaked";
        }
        EXPECT_EQ(1U, region->references) << "a reference on the region leaked";
        region_release(region);
    }

    void create(std::uint32_t fragment_bytes, std::uint32_t page_bytes = 0,
                std::uint64_t offset = 0, std::uint64_t bytes = 0)
    {
        pool = devmem_pktmbuf_pool_create("pinned", region, offset, bytes, page_bytes,
                                          fragment_bytes, SOCKET_ID_ANY);
        ASSERT_NE(nullptr, pool) << rte_strerror(rte_errno);
    }
    int create_fails(const char* name, std::uint64_t offset, std::uint64_t bytes,
                     std::uint32_t page_bytes, std::uint32_t fragment_bytes)
    {
        rte_errno = 0;
        EXPECT_EQ(nullptr, devmem_pktmbuf_pool_create(name, region, offset, bytes, page_bytes,
                                                      fragment_bytes, SOCKET_ID_ANY));
        return rte_errno;
    }
    std::uint64_t base() const { return static_cast<std::uint64_t>(region->base); }
    devmem_pool_stats stats() const
    {
        devmem_pool_stats s;
        EXPECT_EQ(0, devmem_pool_stats_get(pool, &s));
        return s;
    }

    Region* region = nullptr;
    rte_mempool* pool = nullptr;
};

/// Every mbuf is whole, free, and at its place: the formula of the layout, written out.
void expect_mbufs_in_place(rte_mempool* pool, std::uint64_t first, std::uint32_t page_bytes,
                           std::uint32_t fragment_bytes, std::uint32_t per_page)
{
    struct Expected {
        std::uint64_t first;
        std::uint32_t page_bytes, fragment_bytes, per_page;
    } expected{first, page_bytes, fragment_bytes, per_page};
    rte_mempool_obj_iter(
        pool,
        [](rte_mempool* mp, void* opaque, void* object, unsigned i) {
            const auto& e = *static_cast<Expected*>(opaque);
            const auto* m = static_cast<const rte_mbuf*>(object);
            std::uint64_t address = e.first;
            for (unsigned page = 0; page < i / e.per_page; ++page)
                address += e.page_bytes;
            address += i % e.per_page * e.fragment_bytes;
            ASSERT_EQ(address, reinterpret_cast<std::uintptr_t>(m->buf_addr)) << "mbuf " << i;
            ASSERT_EQ(rte_mem_virt2iova(m->buf_addr), m->buf_iova);
            ASSERT_EQ(e.fragment_bytes, m->buf_len);
            ASSERT_EQ(mp, m->pool);
            ASSERT_EQ(1, rte_mbuf_refcnt_read(m));
            ASSERT_EQ(1, m->nb_segs);
            ASSERT_EQ(nullptr, m->next);
            ASSERT_EQ(std::uint64_t{RTE_MBUF_F_EXTERNAL}, m->ol_flags);
            ASSERT_TRUE(RTE_MBUF_HAS_PINNED_EXTBUF(m));
            const char* reason = "";
            ASSERT_EQ(0, rte_mbuf_check(m, 0, &reason)) << reason;
        },
        &expected);
}

TEST_F(PktmbufPool, PutsMbufsOnFragments)
{
    create(1448); // 45 of them, and 376 bytes of nothing
    const PktmbufPoolLayout* layout = pktmbuf_pool_layout(pool);
    ASSERT_NE(nullptr, layout);
    EXPECT_EQ(region, layout->region);
    EXPECT_EQ(0U, layout->offset);
    EXPECT_EQ(kPage, layout->page_bytes);
    EXPECT_EQ(1448U, layout->fragment_bytes);
    EXPECT_EQ(45U, layout->fragments_per_page);
    EXPECT_EQ(64 * 45U, layout->fragments);
    EXPECT_EQ(64 * 45U, pool->size);
    EXPECT_EQ(1448, rte_pktmbuf_data_room_size(pool));
    expect_mbufs_in_place(pool, base(), kPage, 1448, 45);
    EXPECT_EQ(64U, stats().pages);
    EXPECT_EQ(stats().hold, stats().release);
}

TEST_F(PktmbufPool, CoversAPartOfTheRegion)
{
    create(2048, 32768, 3 * 32768, 5 * 32768);
    EXPECT_EQ(5 * 16U, pool->size);
    expect_mbufs_in_place(pool, base() + 3 * 32768, 32768, 2048, 16);
}

TEST_F(PktmbufPool, ChoosesAPageOfAtMost64Fragments)
{
    create(128); // 512 of them would be in 64 KiB
    EXPECT_EQ(8192U, pktmbuf_pool_layout(pool)->page_bytes);
    EXPECT_EQ(64U, pktmbuf_pool_layout(pool)->fragments_per_page);
    EXPECT_EQ(512 * 64U, pool->size);
    expect_mbufs_in_place(pool, base(), 8192, 128, 64);
}

// Two pools on one region, which lives as long as the last of them.
TEST_F(PktmbufPool, HoldsTheRegion)
{
    create(2048, 0, 0, 32 * kPage);
    EXPECT_EQ(2U, region->references);
    rte_mempool* second =
        devmem_pktmbuf_pool_create("second", region, 32 * kPage, 0, 0, 2048, SOCKET_ID_ANY);
    ASSERT_NE(nullptr, second);
    EXPECT_EQ(3U, region->references);
    rte_mempool_free(second); // the plain way does too
    EXPECT_EQ(2U, region->references);
}

TEST_F(PktmbufPool, LivesThroughTheMbufLifeCycle)
{
    create(2048);
    const unsigned n = pool->size;
    std::vector<rte_mbuf*> mbufs(n);
    for (int round = 0; round < 3; ++round) {
        ASSERT_EQ(0, rte_pktmbuf_alloc_bulk(pool, mbufs.data(), n));
        EXPECT_EQ(nullptr, rte_pktmbuf_alloc(pool));
        for (rte_mbuf* m : mbufs) {
            rte_mbuf_sanity_check(m, 1);
            ASSERT_EQ(RTE_PKTMBUF_HEADROOM, m->data_off);
            m->data_off = 0;
            ASSERT_NE(nullptr, rte_pktmbuf_append(m, 2048));
        }
        EXPECT_EQ(-EBUSY, devmem_pktmbuf_pool_free(pool));
        // As chains, as single mbufs, and in bulk.
        for (unsigned i = 0; i + 1 < n / 2; i += 2)
            ASSERT_EQ(0, rte_pktmbuf_chain(mbufs[i], mbufs[i + 1]));
        for (unsigned i = 0; i + 1 < n / 2; i += 2)
            rte_pktmbuf_free(mbufs[i]);
        rte_pktmbuf_free_bulk(&mbufs[n / 2], n - n / 2);
        EXPECT_EQ(n, rte_mempool_avail_count(pool));
        expect_mbufs_in_place(pool, base(), kPage, 2048, 32);
    }
    EXPECT_EQ(0U, stats().double_free + stats().foreign_free);
}

TEST_F(PktmbufPool, KeepsAFragmentUntilItsLastClone)
{
    create(2048);
    rte_mempool* clones = rte_pktmbuf_pool_create("clones", 64, 0, 0, 0, SOCKET_ID_ANY);
    ASSERT_NE(nullptr, clones);
    rte_mbuf* m = rte_pktmbuf_alloc(pool);
    ASSERT_NE(nullptr, m);
    m->data_off = 0;
    ASSERT_NE(nullptr, rte_pktmbuf_append(m, 100));
    rte_mbuf* first = rte_pktmbuf_clone(m, clones);
    rte_mbuf* second = rte_pktmbuf_clone(first, clones);
    ASSERT_NE(nullptr, first);
    ASSERT_NE(nullptr, second);
    EXPECT_EQ(m->buf_addr, second->buf_addr);

    rte_pktmbuf_free(m);
    EXPECT_EQ(pool->size - 1, rte_mempool_avail_count(pool));
    rte_pktmbuf_free(first);
    EXPECT_EQ(pool->size - 1, rte_mempool_avail_count(pool));
    rte_pktmbuf_free(second);
    EXPECT_EQ(pool->size, rte_mempool_avail_count(pool));
    EXPECT_EQ(64U, rte_mempool_avail_count(clones));
    expect_mbufs_in_place(pool, base(), kPage, 2048, 32);
    rte_mempool_free(clones);
}

// A token's way home: fragments without their mbufs.
TEST_F(PktmbufPool, TakesRunsBack)
{
    create(2048);
    PagePool& fragments = *page_pool_of(pool);
    std::vector<rte_mbuf*> mbufs(32);
    ASSERT_EQ(0, rte_pktmbuf_alloc_bulk(pool, mbufs.data(), 32));
    const auto first = static_cast<std::uint32_t>(
        (reinterpret_cast<std::uintptr_t>(mbufs[0]->buf_addr) - base()) / 2048);
    for (std::uint32_t i = 0; i < 32; ++i)
        EXPECT_EQ(base() + (first + i) * 2048, reinterpret_cast<std::uintptr_t>(mbufs[i]->buf_addr))
            << "one page is one run";
    EXPECT_EQ(0U, fragments.page_word(first / 32));
    EXPECT_EQ(0, page_pool_put_run(pool, first, 32));
    EXPECT_EQ(pool->size, rte_mempool_avail_count(pool));

    CapturedLog log;
    EXPECT_EQ(-EALREADY, page_pool_put_run(pool, first + 31, 1));
    EXPECT_NE(std::string::npos,
              log.text().find("page_pool pinned: double free of fragment 31 of page " +
                              std::to_string(first / 32)))
        << log.text();
}

TEST_F(PktmbufPool, RefusesWrongArguments)
{
    EXPECT_EQ(ENAMETOOLONG, create_fails("a name of twenty-six chars", 0, 0, 0, 2048));
    EXPECT_EQ(EINVAL, create_fails(nullptr, 0, 0, 0, 2048));
    EXPECT_EQ(EINVAL, create_fails("p", 0, 0, 0, 63));
    EXPECT_EQ(EINVAL, create_fails("p", 0, 0, 0, 65536));
    EXPECT_EQ(EINVAL, create_fails("p", 0, 0, 2 * kPage, 2048)) << "larger than the region's";
    EXPECT_EQ(EINVAL, create_fails("p", 0, 0, 3 * 4096, 2048)) << "no power of two";
    EXPECT_EQ(EINVAL, create_fails("p", 0, 0, 1024, 2048)) << "no fragment fits";
    EXPECT_EQ(EINVAL, create_fails("p", 0, 0, kPage, 1000)) << "65 fragments";
    EXPECT_EQ(EINVAL, create_fails("p", 4096, 0, 0, 2048)) << "offset within a page";
    EXPECT_EQ(EINVAL, create_fails("p", 0, kPage + 4096, 0, 2048));
    EXPECT_EQ(EINVAL, create_fails("p", region->bytes, 0, 0, 2048));
    EXPECT_EQ(EINVAL, create_fails("p", kPage, region->bytes, 0, 2048));
    EXPECT_EQ(EINVAL, create_fails("p", UINT64_MAX - kPage + 1, kPage, 0, 2048));
    create(2048);
    EXPECT_EQ(EEXIST, create_fails("pinned", 0, 0, 0, 2048));
    EXPECT_EQ(2U, region->references);
    EXPECT_EQ(nullptr, devmem_pktmbuf_pool_create("p", nullptr, 0, 0, 0, 2048, SOCKET_ID_ANY));
}

} // namespace
} // namespace devmem::test
