// SPDX-License-Identifier: BSD-3-Clause
// A pool in memory of its own, and the set of fragments that must be free in it.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include <gtest/gtest.h>

#include "lib/page_pool/page_pool.h"

namespace devmem::test {

class PoolMemory {
public:
    explicit PoolMemory(const PagePoolConfig& config)
        : block_(::operator new (PagePool::bytes(config), std::align_val_t{64})),
          pool_(PagePool::create(block_.get(), config))
    {
    }

    PagePool& operator*() const { return *pool_; }
    PagePool* operator->() const { return pool_; }

private:
    struct Delete {
        void operator()(void* block) const { ::operator delete (block, std::align_val_t{64}); }
    };
    std::unique_ptr<void, Delete> block_;
    PagePool* pool_;
};

/// Put every fragment in, page by page.
inline void fill(PagePool& pool, std::uint32_t lcore = kNoLcore)
{
    const std::uint32_t n = pool.fragments_per_page();
    for (std::uint32_t first = 0; first < pool.fragments(); first += n)
        ASSERT_EQ(0, pool.free_run(lcore, {first, std::min(n, pool.fragments() - first)}));
}

/// What the pool says page by page is what the model says, and the counters agree.
inline void expect_free(const PagePool& pool, const std::vector<bool>& free)
{
    std::uint32_t count = 0;
    std::uint64_t in_flight = 0;
    for (std::uint32_t page = 0; page < pool.pages(); ++page) {
        const std::uint32_t first = page * pool.fragments_per_page();
        bool whole = true;
        for (std::uint32_t i = 0; i < 64; ++i) {
            const bool exists = i < pool.fragments_per_page() && first + i < pool.fragments();
            const bool is_free = exists && free[first + i];
            ASSERT_EQ(is_free, (pool.page_word(page) >> i & 1) != 0)
                << "page " << page << " fragment " << i;
            count += is_free ? 1 : 0;
            whole = whole && (is_free || !exists);
        }
        in_flight += whole ? 0 : 1;
    }
    ASSERT_EQ(count, pool.free_count());
    const PagePoolStats stats = pool.stats();
    ASSERT_EQ(in_flight, stats.hold - stats.release);
}

} // namespace devmem::test
