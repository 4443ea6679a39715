// SPDX-License-Identifier: BSD-3-Clause
// What a pool should be: an entry per fragment, an entry per page, and nothing clever.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "test/unit/page_pool/pool_fixture.h"

namespace devmem::test {

class PoolModel {
public:
    enum class Page { kPool, kReturned, kProvider };

    explicit PoolModel(const PagePoolConfig& config)
        : holders_(config.fragments, 1), process_(config.fragments, 0),
          pages_((config.fragments + config.fragments_per_page - 1) / config.fragments_per_page,
                 Page::kPool),
          per_page_(config.fragments_per_page)
    {
    }

    std::uint32_t pages() const { return static_cast<std::uint32_t>(pages_.size()); }
    std::uint32_t fragments() const { return static_cast<std::uint32_t>(holders_.size()); }
    std::uint32_t first(std::uint32_t page) const { return page * per_page_; }
    std::uint32_t size(std::uint32_t page) const
    {
        return std::min(per_page_, fragments() - first(page));
    }
    Page where(std::uint32_t page) const { return pages_.at(page); }
    bool present(std::uint32_t page) const { return where(page) == Page::kPool; }
    std::uint32_t holders(std::uint32_t f) const { return holders_.at(f); }
    std::uint32_t process(std::uint32_t f) const { return process_.at(f); }
    bool is_free(std::uint32_t f) const { return present(f / per_page_) && holders(f) == 0; }
    bool is_out(std::uint32_t f) const { return present(f / per_page_) && holders(f) != 0; }

    std::uint32_t free_count() const
    {
        std::uint32_t n = 0;
        for (std::uint32_t f = 0; f < fragments(); ++f)
            n += is_free(f);
        return n;
    }
    bool whole(std::uint32_t page) const { return adjacent(page) == size(page); }
    std::uint32_t whole_pages() const
    {
        std::uint32_t n = 0;
        for (std::uint32_t page = 0; page < pages(); ++page)
            n += whole(page);
        return n;
    }
    /// The most free fragments in a row.
    std::uint32_t adjacent(std::uint32_t page) const
    {
        std::uint32_t most = 0;
        for (std::uint32_t i = 0, row = 0; i < size(page); ++i) {
            row = is_free(first(page) + i) ? row + 1 : 0;
            most = std::max(most, row);
        }
        return most;
    }
    std::uint32_t adjacent() const
    {
        std::uint32_t most = 0;
        for (std::uint32_t page = 0; page < pages(); ++page)
            most = std::max(most, adjacent(page));
        return most;
    }

    void take(FragmentRun run, std::uint32_t process = 0)
    {
        ASSERT_GT(run.count, 0U);
        ASSERT_EQ(run.first / per_page_, (run.first + run.count - 1) / per_page_);
        for (std::uint32_t f = run.first; f < run.first + run.count; ++f) {
            ASSERT_TRUE(is_free(f)) << "fragment " << f << " was handed out while it was not free";
            holders_[f] = 1;
            process_[f] = process;
        }
    }
    void hold(FragmentRun run)
    {
        for (std::uint32_t f = run.first; f < run.first + run.count; ++f)
            ++holders_.at(f);
    }
    void drop(FragmentRun run)
    {
        for (std::uint32_t f = run.first; f < run.first + run.count; ++f)
            drop(f);
    }
    std::uint32_t reclaim(std::uint32_t process)
    {
        std::uint32_t n = 0;
        for (std::uint32_t f = 0; f < fragments(); ++f) {
            if (process_[f] == process && is_out(f)) {
                ++n;
                process_[f] = 0;
                drop(f);
            }
        }
        return n;
    }
    void move(std::uint32_t page, Page to)
    {
        ASSERT_TRUE(to == Page::kPool || !present(page) || whole(page))
            << "page " << page << " was withdrawn while somebody had a fragment of it";
        ASSERT_NE(to, where(page));
        pages_[page] = to;
    }

    std::uint64_t released_refcnt = 0; ///< frees after which somebody still held the fragment

    /// The pool says the same wherever it can be asked.
    void expect(const PagePool& pool) const
    {
        std::uint64_t in_flight = 0;
        std::uint32_t here = 0;
        for (std::uint32_t page = 0; page < pages(); ++page) {
            std::uint64_t word = 0;
            PageView want{};
            want.present = present(page);
            for (std::uint32_t i = 0; i < size(page) && want.present; ++i) {
                const std::uint32_t f = first(page) + i;
                const std::uint64_t bit = std::uint64_t{1} << i;
                if (is_free(f))
                    word |= bit;
                else
                    want.out |= bit;
                if (holders(f) > 1)
                    want.shared |= bit;
                if (is_out(f) && process(f) != 0)
                    want.foreign |= bit;
                ASSERT_EQ(is_out(f) ? process(f) : 0, pool.process_of(f)) << "fragment " << f;
                ASSERT_EQ(holders(f), pool.holders(f)) << "fragment " << f;
            }
            const PageView got = pool.view(page);
            ASSERT_EQ(word, pool.page_word(page)) << "page " << page;
            ASSERT_EQ(want.present, got.present) << "page " << page;
            ASSERT_EQ(want.out, got.out) << "page " << page;
            ASSERT_EQ(want.shared, got.shared) << "page " << page;
            ASSERT_EQ(want.foreign, got.foreign) << "page " << page;
            in_flight += want.out != 0;
            here += want.present;
        }
        ASSERT_EQ(free_count(), pool.free_count());
        ASSERT_EQ(here, pool.present());
        ASSERT_EQ(in_flight != 0, pool.is_in_use());
        const PagePoolStats stats = pool.stats();
        ASSERT_EQ(in_flight, stats.hold - stats.release);
        ASSERT_EQ(released_refcnt, stats.recycle_released_refcnt);
    }

private:
    void drop(std::uint32_t f)
    {
        ASSERT_TRUE(is_out(f));
        if (--holders_[f] == 0)
            process_[f] = 0;
        else
            ++released_refcnt;
    }

    std::vector<std::uint32_t> holders_; ///< 0: free
    std::vector<std::uint32_t> process_;
    std::vector<Page> pages_;
    std::uint32_t per_page_;
};

} // namespace devmem::test
