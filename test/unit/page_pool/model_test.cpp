// SPDX-License-Identifier: BSD-3-Clause
// All that can be asked of a pool, at random, by one thread in the role of several callers, against
// the model. After every step the two are equal.
#include <optional>
#include <random>

#include "test/unit/page_pool/pool_model.h"

namespace devmem::test {
namespace {

constexpr std::uint32_t kLcores = 3;
constexpr std::uint32_t kProcesses = 2;

struct Case {
    std::uint32_t fragments;
    std::uint32_t per_page;
};

void PrintTo(const Case& shape, std::ostream* out)
{
    *out << shape.fragments << " by " << shape.per_page;
}

class PagePoolModel : public testing::TestWithParam<Case> {
protected:
    using Page = PoolModel::Page;

    const PagePoolConfig config{"model", GetParam().fragments, GetParam().per_page, kLcores};
    PoolMemory memory{config};
    PagePool& pool = *memory;
    PoolModel model{config};
    std::mt19937 random{GetParam().fragments * 64 + GetParam().per_page};
    std::uint64_t double_frees = 0;

    std::uint32_t below(std::size_t n) { return static_cast<std::uint32_t>(random() % n); }
    std::uint32_t any_caller()
    {
        const std::uint32_t who = below(kLcores + 2 + kProcesses);
        return who < kLcores ? who : caller_of_process(who < kLcores + 2 ? 0 : who - kLcores - 1);
    }
    static std::uint32_t process_of(std::uint32_t caller)
    {
        return caller < kLcores ? 0 : kNoLcore - caller;
    }
    /// A random run of fragments in one page.
    FragmentRun any_run()
    {
        const std::uint32_t page = below(model.pages());
        const std::uint32_t offset = below(model.size(page));
        const std::uint32_t most = model.size(page) - offset;
        return {model.first(page) + offset, 1 + below(std::min(most, 1 + below(most)))};
    }
    /// A random run of fragments that are out.
    std::optional<FragmentRun> any_out()
    {
        for (int i = 0; i < 20; ++i) {
            FragmentRun run = any_run();
            std::uint32_t n = 0;
            while (n < run.count && model.is_out(run.first + n))
                ++n;
            if (n != 0)
                return FragmentRun{run.first, n};
        }
        return std::nullopt;
    }

    /// Pages that were diverted in this step: that may happen whenever a page becomes idle.
    void see_diverted()
    {
        const std::uint32_t wanted = pool.diverted_wanted();
        ASSERT_LE(wanted, wanted_);
        for (std::uint32_t page = 0; page < model.pages(); ++page) {
            if (model.present(page) && !pool.view(page).present) {
                ASSERT_NO_FATAL_FAILURE(model.move(page, Page::kReturned));
                --wanted_;
                ++diverted_;
            }
        }
        ASSERT_EQ(wanted, wanted_);
        ASSERT_EQ(diverted_, pool.stats().recycle_ring_full);
    }

    void get()
    {
        const std::uint32_t caller = any_caller();
        const std::uint32_t n = 1 + below(below(8) == 0 ? model.fragments() + 1 : 40);
        const std::uint32_t before = model.free_count();
        runs_.resize(n);
        runs_.resize(pool.alloc_runs(caller, n, runs_.data()));
        see_diverted();
        std::uint32_t got = 0;
        for (const FragmentRun& run : runs_) {
            ASSERT_NO_FATAL_FAILURE(model.take(run, process_of(caller)));
            got += run.count;
        }
        if (got == 0) {
            ASSERT_GT(n, model.free_count());
        } else {
            ASSERT_EQ(n, got);
            ASSERT_GE(before, n);
        }
    }

    void get_adjacent()
    {
        const std::uint32_t caller = any_caller();
        const std::uint32_t n = 1 + below(below(2) == 0 ? GetParam().per_page : 4);
        FragmentRun run{};
        if (n > GetParam().per_page) {
            ASSERT_EQ(-EINVAL, pool.alloc_adjacent(caller, n, &run));
            return;
        }
        const int result = pool.alloc_adjacent(caller, n, &run);
        ASSERT_NO_FATAL_FAILURE(see_diverted());
        if (result != 0) {
            ASSERT_EQ(-ENOBUFS, result);
            ASSERT_LT(model.adjacent(), n);
            return;
        }
        ASSERT_NO_FATAL_FAILURE(model.take(run, process_of(caller)));
        ASSERT_GE(run.count, n);
        ASSERT_LT(run.count, 2 * n) << "another run would have fit there";
    }

    void put()
    {
        const std::optional<FragmentRun> run = any_out();
        if (!run)
            return;
        ASSERT_EQ(0, pool.free_run(any_caller(), *run));
        model.drop(*run);
    }

    void hold()
    {
        const FragmentRun run = any_run();
        bool all_out = true;
        for (std::uint32_t f = run.first; f < run.first + run.count; ++f)
            all_out = all_out && model.is_out(f);
        ASSERT_EQ(all_out ? 0 : -ENOENT, pool.hold_run(run));
        if (all_out)
            model.hold(run);
    }

    /// Put fragments some of which are free, or the provider's: those are refused, others put.
    void put_twice()
    {
        const FragmentRun run = any_run();
        std::uint32_t refused = 0;
        std::uint32_t first = 0;
        for (std::uint32_t i = run.count; i-- > 0;) {
            if (!model.is_out(run.first + i)) {
                ++refused;
                first = run.first + i;
            }
        }
        RefusedFree report{};
        ASSERT_EQ(refused == 0 ? 0 : -EALREADY, pool.free_run(any_caller(), run, &report));
        double_frees += refused;
        ASSERT_EQ(double_frees, pool.stats().double_free);
        if (refused != 0) {
            ASSERT_EQ(first, model.first(report.page) + report.fragment);
        }
        for (std::uint32_t f = run.first; f < run.first + run.count; ++f) {
            if (model.is_out(f))
                model.drop({f, 1});
        }
    }

    void withdraw()
    {
        std::uint32_t pages[4];
        const std::uint32_t n = 1 + below(std::size(pages));
        const std::uint32_t got = pool.withdraw(any_caller(), n, pages);
        ASSERT_LE(got, n);
        for (std::uint32_t i = 0; i < got; ++i)
            ASSERT_NO_FATAL_FAILURE(model.move(pages[i], Page::kProvider));
        ASSERT_NO_FATAL_FAILURE(see_diverted());
        if (got < n) {
            ASSERT_EQ(0U, model.whole_pages());
        }
    }

    void insert()
    {
        const std::uint32_t page = below(model.pages());
        const bool provider = model.where(page) == Page::kProvider;
        ASSERT_EQ(provider ? 0 : -EEXIST, pool.insert(any_caller(), page));
        if (provider) {
            ASSERT_NO_FATAL_FAILURE(model.move(page, Page::kPool));
        }
    }

    void divert()
    {
        wanted_ = below(4);
        pool.divert(wanted_);
    }

    void fetch()
    {
        std::uint32_t waiting = 0;
        for (std::uint32_t page = 0; page < model.pages(); ++page)
            waiting += model.where(page) == Page::kReturned;
        PagePool::Diverted diverted{};
        ASSERT_EQ(waiting != 0, pool.fetch_diverted(&diverted));
        if (waiting != 0) {
            ASSERT_EQ(Page::kReturned, model.where(diverted.index));
            ASSERT_FALSE(diverted.waived);
            model.move(diverted.index, Page::kProvider);
        }
    }

    void step()
    {
        switch (below(32)) {
        case 0:
            return pool.flush(below(kLcores));
        case 1:
            return withdraw();
        case 2:
        case 3:
            return insert();
        case 4:
            return below(4) == 0 ? divert() : fetch();
        case 5:
            return put_twice();
        case 6:
        case 7:
            return hold();
        case 8: {
            const std::uint32_t process = 1 + below(kProcesses);
            const std::uint32_t want = model.reclaim(process);
            ASSERT_EQ(want, pool.reclaim(any_caller(), process));
            return;
        }
        case 9:
        case 10:
        case 11:
        case 12:
            return get_adjacent();
        case 13:
        case 14:
        case 15:
        case 16:
        case 17:
        case 18:
            return get();
        default:
            return put();
        }
    }

    void run(int steps)
    {
        for (int i = 0; i < steps; ++i) {
            ASSERT_NO_FATAL_FAILURE(step()) << "step " << i;
            ASSERT_NO_FATAL_FAILURE(see_diverted()) << "step " << i;
            ASSERT_NO_FATAL_FAILURE(model.expect(pool)) << "step " << i;
        }
    }

private:
    std::uint32_t wanted_ = 0;
    std::uint64_t diverted_ = 0;
    std::vector<FragmentRun> runs_;
};

INSTANTIATE_TEST_SUITE_P(Shapes, PagePoolModel,
                         testing::Values(Case{1, 1}, Case{7, 1}, Case{64, 64}, Case{65, 64},
                                         Case{300, 64}, Case{45 * 5, 45}, Case{200, 63},
                                         Case{100, 3}, Case{40, 64}, Case{17 * 16, 16}));

TEST_P(PagePoolModel, IsEqual)
{
    fill(pool, 1);
    for (std::uint32_t f = 0; f < model.fragments(); ++f)
        model.drop({f, 1});
    ASSERT_NO_FATAL_FAILURE(model.expect(pool));
    ASSERT_NO_FATAL_FAILURE(run(6000));

    // Then all comes to an end: nothing can be taken, and all pages leave with their last fragment.
    pool.retire(kNoLcore);
    std::uint32_t one;
    for (std::uint32_t f = 0; f < model.fragments(); ++f) {
        while (pool.holders(f) != 0) {
            ASSERT_EQ(0, pool.free_run(any_caller(), {f, 1}));
            ASSERT_EQ(-ENOBUFS, pool.alloc(any_caller(), 1, &one));
        }
    }
    EXPECT_TRUE(pool.retire(any_caller()));
    EXPECT_EQ(0U, pool.present());
    EXPECT_EQ(0U, pool.free_count());
    const PagePoolStats stats = pool.stats();
    EXPECT_EQ(stats.hold, stats.release);
    EXPECT_EQ(double_frees, stats.double_free);
    EXPECT_EQ(0U, stats.foreign_free);
}

} // namespace
} // namespace devmem::test
