// SPDX-License-Identifier: BSD-3-Clause
// A region, a pool on it, and what a test asks of them.
#pragma once

#include <string>

#include <gtest/gtest.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <devmem/devmem.h>

#include "lib/memory/region.h"
#include "test/unit/page_pool/eal.h"

namespace devmem::test {

/// Fails if the pool or a reference on the region is left over.
class RegionPool : public testing::Test {
protected:
    void TearDown() override
    {
        if (pool != nullptr && devmem_pktmbuf_pool_free(pool) != 0) {
            ADD_FAILURE() << "fragments leaked";
            rte_mempool_free(pool); // the next test has one of this name
        }
        if (region == nullptr)
            return;
        EXPECT_EQ(1U, region->references) << "a reference on the region leaked";
        region_release(region);
    }

    void make_region(const char* spec)
    {
        std::string error;
        ASSERT_EQ(0, region_create(spec, &region, error)) << error;
    }
    devmem_pool_config config(std::uint32_t fragment_bytes, std::uint32_t flags = 0) const
    {
        return {.size = sizeof(devmem_pool_config),
                .name = "pool",
                .region = region,
                .offset = 0,
                .bytes = 0,
                .page_bytes = 0,
                .fragment_bytes = fragment_bytes,
                .socket_id = SOCKET_ID_ANY,
                .flags = flags};
    }
    void make_pool(const devmem_pool_config& config)
    {
        char error[256] = "";
        pool = devmem_pool_create(&config, error, sizeof(error));
        ASSERT_NE(nullptr, pool) << error << " (" << rte_strerror(rte_errno) << ")";
        EXPECT_STREQ("", error);
    }
    void make(const char* spec, std::uint32_t fragment_bytes, std::uint32_t flags = 0)
    {
        ASSERT_NO_FATAL_FAILURE(make_region(spec));
        make_pool(config(fragment_bytes, flags));
    }
    /// The error that a pool is refused with, and its text.
    static std::pair<int, std::string> refusal(const devmem_pool_config& config)
    {
        char error[256] = "";
        rte_errno = 0;
        EXPECT_EQ(nullptr, devmem_pool_create(&config, error, sizeof(error)));
        return {rte_errno, error};
    }
    devmem_pool_stats stats() const
    {
        devmem_pool_stats s{};
        EXPECT_EQ(0, devmem_pool_stats_get(pool, &s));
        return s;
    }
    std::uint64_t base() const { return static_cast<std::uint64_t>(region->base); }
    /// The fragment that is an mbuf's buffer.
    devmem_fragment fragment_of(const rte_mbuf* m, std::uint32_t fragment_bytes) const
    {
        const std::uint64_t offset = reinterpret_cast<std::uintptr_t>(m->buf_addr) - base();
        const std::uint32_t page = region->page_bytes;
        return {.offset = offset,
                .address = base() + offset,
                .dma = 0,
                .size = fragment_bytes,
                .first = static_cast<std::uint32_t>(offset / page * (page / fragment_bytes) +
                                                    offset % page / fragment_bytes),
                .count = 1};
    }

    Region* region = nullptr;
    rte_mempool* pool = nullptr;
};

} // namespace devmem::test
