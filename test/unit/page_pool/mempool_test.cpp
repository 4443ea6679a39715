// SPDX-License-Identifier: BSD-3-Clause
// The driver `page_pool` under mempools of any objects, laid out in any way.
#include "drivers/mempool/page_pool/page_pool_mempool.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <sys/mman.h>

#include <gtest/gtest.h>
#include <rte_lcore.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>

#include "lib/page_pool/page_pool.h"
#include "test/unit/page_pool/eal.h"

namespace devmem::test {
namespace {

const auto* const eal = testing::AddGlobalTestEnvironment(new Eal);

struct FreeMempool {
    void operator()(rte_mempool* mp) const { rte_mempool_free(mp); }
};
using Mempool = std::unique_ptr<rte_mempool, FreeMempool>;

Mempool empty(const char* name, unsigned n, unsigned elt_size, unsigned cache = 0,
              unsigned flags = 0, PagePoolMempoolConfig* config = nullptr)
{
    Mempool mp{rte_mempool_create_empty(name, n, elt_size, cache, 0, SOCKET_ID_ANY, flags)};
    EXPECT_NE(nullptr, mp);
    EXPECT_EQ(0, rte_mempool_set_ops_byname(mp.get(), "page_pool", config));
    return mp;
}

Mempool populated(const char* name, unsigned n, unsigned elt_size, unsigned cache = 0,
                  unsigned flags = 0)
{
    Mempool mp = empty(name, n, elt_size, cache, flags);
    EXPECT_EQ(static_cast<int>(n), rte_mempool_populate_default(mp.get()));
    return mp;
}

/// The objects as the library knows them.
std::vector<void*> objects_of(rte_mempool* mp)
{
    std::vector<void*> objects;
    rte_mempool_obj_iter(
        mp,
        [](rte_mempool*, void* list, void* object, unsigned index) {
            auto& all = *static_cast<std::vector<void*>*>(list);
            EXPECT_EQ(all.size(), index);
            all.push_back(object);
        },
        &objects);
    return objects;
}

/// Take everything, in gets of random sizes: each object of the mempool once. Put it back in the
/// order `shuffle` leaves it in.
template <typename Shuffle>
void cycle(rte_mempool* mp, Shuffle shuffle)
{
    std::mt19937 random{mp->size};
    std::vector<void*> taken(mp->size);
    ASSERT_EQ(mp->size, rte_mempool_avail_count(mp));
    for (std::size_t got = 0; got < taken.size();) {
        const auto n = static_cast<unsigned>(
            std::min(1 + random() % 80, static_cast<unsigned long>(taken.size() - got)));
        ASSERT_EQ(0, rte_mempool_generic_get(mp, &taken[got], n, nullptr));
        got += n;
        ASSERT_EQ(mp->size - got, rte_mempool_avail_count(mp));
    }
    void* none;
    EXPECT_EQ(-ENOBUFS, rte_mempool_generic_get(mp, &none, 1, nullptr));
    std::vector<void*> expected = objects_of(mp);
    std::vector<void*> got = taken;
    std::ranges::sort(expected);
    std::ranges::sort(got);
    ASSERT_EQ(expected, got);

    shuffle(taken, random);
    for (std::size_t put = 0; put < taken.size();) {
        const auto n = static_cast<unsigned>(
            std::min(1 + random() % 80, static_cast<unsigned long>(taken.size() - put)));
        rte_mempool_generic_put(mp, &taken[put], n, nullptr);
        put += n;
        ASSERT_EQ(put, rte_mempool_avail_count(mp));
    }
    devmem_pool_stats stats;
    ASSERT_EQ(0, devmem_pool_stats_get(mp, &stats));
    EXPECT_EQ(stats.hold, stats.release);
    EXPECT_EQ(mp->size, stats.fragments_free);
    EXPECT_EQ(0U, stats.double_free + stats.foreign_free);
}

void cycle_in_all_orders(rte_mempool* mp)
{
    using Taken = std::vector<void*>;
    cycle(mp, [](Taken&, auto&) {});
    cycle(mp, [](Taken& taken, auto&) { std::ranges::reverse(taken); });
    cycle(mp, [](Taken& taken, auto& random) { std::ranges::shuffle(taken, random); });
    cycle(mp, [](Taken& taken, auto&) { std::ranges::sort(taken); });
}

void expect_objects_are_fragments(rte_mempool* mp)
{
    const std::vector<void*> objects = objects_of(mp);
    PagePool& pool = *page_pool_of(mp);
    std::vector<void*> taken(objects.size());
    ASSERT_EQ(0, rte_mempool_generic_get(mp, taken.data(), mp->size, nullptr));
    for (std::uint32_t i = 0; i < objects.size(); ++i) {
        const std::uint32_t page = pool.page_of(i);
        const std::uint32_t fragment = i % pool.fragments_per_page();
        ASSERT_EQ(0U, pool.page_word(page) >> fragment & 1);
        rte_mempool_generic_put(mp, &objects[i], 1, nullptr);
        ASSERT_EQ(1U, pool.page_word(page) >> fragment & 1) << "object " << i;
    }
}

// ---- the life of a pool

TEST(Mempool, TheDriverIsRegistered)
{
    ASSERT_GE(page_pool_ops_index(), 0);
    EXPECT_STREQ("page_pool", rte_mempool_get_ops(page_pool_ops_index())->name);
}

TEST(Mempool, CanBeFreedBeforeItIsPopulated)
{
    Mempool mp = empty("unborn", 100, 64);
    EXPECT_EQ(nullptr, page_pool_of(mp.get()));
}

TEST(Mempool, CanBeFreedWithObjectsOut)
{
    Mempool mp = populated("leaky", 100, 64);
    void* objects[10];
    ASSERT_EQ(0, rte_mempool_generic_get(mp.get(), objects, 10, nullptr));
}

TEST(Mempool, OfAnotherDriverIsNotOurs)
{
    Mempool mp{rte_mempool_create_empty("ring", 64, 64, 0, 0, SOCKET_ID_ANY, 0)};
    ASSERT_NE(nullptr, mp);
    ASSERT_EQ(0, rte_mempool_set_ops_byname(mp.get(), "ring_mp_mc", nullptr));
    ASSERT_EQ(64, rte_mempool_populate_default(mp.get()));
    devmem_pool_stats stats;
    EXPECT_EQ(nullptr, page_pool_of(mp.get()));
    EXPECT_EQ(nullptr, pktmbuf_pool_layout(mp.get()));
    EXPECT_EQ(-EINVAL, devmem_pool_stats_get(mp.get(), &stats));
    EXPECT_EQ(-EINVAL, devmem_pool_stats_get(nullptr, &stats));
    EXPECT_EQ(-EINVAL, devmem_pktmbuf_pool_free(mp.get()));
}

TEST(Mempool, TakesTheFragmentsPerPageFromItsConfiguration)
{
    PagePoolMempoolConfig config{.fragments_per_page = 45, .layout = nullptr};
    Mempool mp = empty("pages45", 450, 64, 0, 0, &config);
    ASSERT_EQ(450, rte_mempool_populate_default(mp.get()));
    devmem_pool_stats stats;
    ASSERT_EQ(0, devmem_pool_stats_get(mp.get(), &stats));
    EXPECT_EQ(10U, stats.pages);
    EXPECT_EQ(45U, stats.fragments_per_page);
    EXPECT_EQ(450U, stats.fragments);
    cycle_in_all_orders(mp.get());
    EXPECT_EQ(nullptr, pktmbuf_pool_layout(mp.get()));
}

TEST(Mempool, RefusesMoreFragmentsThanAWordHasBits)
{
    CapturedLog log;
    PagePoolMempoolConfig config{.fragments_per_page = 65, .layout = nullptr};
    Mempool mp = empty("pages65", 450, 64, 0, 0, &config);
    EXPECT_EQ(-EINVAL, rte_mempool_populate_default(mp.get()));
    EXPECT_NE(std::string::npos, log.text().find("page_pool pages65: 450 objects, 65 a page"));
}

// ---- layouts

struct Objects {
    unsigned n, size, cache, flags;
};

void PrintTo(const Objects& o, std::ostream* out)
{
    *out << o.n << " of " << o.size << " bytes, cache " << o.cache << ", flags " << o.flags;
}

class MempoolObjects : public testing::TestWithParam<Objects> {};

INSTANTIATE_TEST_SUITE_P(
    Shapes, MempoolObjects,
    testing::Values(Objects{1, 8, 0, 0}, Objects{1000, 1, 0, RTE_MEMPOOL_F_NO_CACHE_ALIGN},
                    Objects{1000, 1, 0, RTE_MEMPOOL_F_NO_CACHE_ALIGN | RTE_MEMPOOL_F_NO_SPREAD},
                    Objects{999, 100, 0, RTE_MEMPOOL_F_NO_SPREAD}, Objects{4096, 152, 0, 0},
                    Objects{2000, 2304, 0, 0}, Objects{300, 9000, 0, 0},
                    Objects{2000, 2304, 256, 0},
                    Objects{2000, 2304, 0, RTE_MEMPOOL_F_NO_IOVA_CONTIG},
                    Objects{512, 64, 0, RTE_MEMPOOL_F_SP_PUT | RTE_MEMPOOL_F_SC_GET}));

TEST_P(MempoolObjects, EachIsGivenOutOnceInAnyOrder)
{
    const Objects& o = GetParam();
    Mempool mp = populated("objects", o.n, o.size, o.cache, o.flags);
    cycle_in_all_orders(mp.get());
    expect_objects_are_fragments(mp.get());
}

TEST_P(MempoolObjects, AreNeverWritten)
{
    const Objects& o = GetParam();
    Mempool mp = populated("untouched", o.n, o.size, o.cache, o.flags);
    for (void* object : objects_of(mp.get()))
        std::memset(object, 0x5a, o.size);
    cycle_in_all_orders(mp.get());
    const std::vector<unsigned char> pattern(o.size, 0x5a);
    for (void* object : objects_of(mp.get()))
        ASSERT_EQ(0, std::memcmp(object, pattern.data(), o.size));
}

// With the library's cache in between, and all that it does to the order of objects.
TEST_P(MempoolObjects, PassThroughTheCache)
{
    const Objects& o = GetParam();
    Mempool mp = populated("cached", o.n, o.size, o.cache, o.flags);
    std::mt19937 random{1};
    std::vector<void*> taken;
    for (int i = 0; i < 2000; ++i) {
        const auto n = static_cast<unsigned>(1 + random() % 33);
        if (random() % 2 == 0 && n + taken.size() <= o.n / 2) {
            taken.resize(taken.size() + n);
            ASSERT_EQ(0, rte_mempool_get_bulk(mp.get(), &taken[taken.size() - n], n));
        } else if (n <= taken.size()) {
            rte_mempool_put_bulk(mp.get(), &taken[taken.size() - n], n);
            taken.resize(taken.size() - n);
        }
    }
    EXPECT_EQ(taken.size(), std::set<void*>(taken.begin(), taken.end()).size());
    EXPECT_EQ(o.n - taken.size(), rte_mempool_avail_count(mp.get()));
    if (!taken.empty())
        rte_mempool_put_bulk(mp.get(), taken.data(), static_cast<unsigned>(taken.size()));
    if (o.cache != 0)
        rte_mempool_cache_flush(nullptr, mp.get());
    cycle_in_all_orders(mp.get());
}

/// Memory of our own for a mempool's chunks.
class Memory {
public:
    explicit Memory(std::size_t bytes)
        : bytes_(bytes), base_(static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)))
    {
    }
    ~Memory() { munmap(base_, bytes_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    char* at(std::size_t offset) const { return base_ + offset; }

private:
    std::size_t bytes_;
    char* base_;
};

// Chunks of odd sizes at odd offsets, neither in the order of their addresses nor next to each
// other, some too small for one object, with and without an IO address.
TEST(MempoolChunks, MayLieAnywhere)
{
    Memory memory{4 << 20};
    Mempool mp = empty("scattered", 3000, 300);
    std::mt19937 random{3};
    std::vector<std::size_t> slots(64);
    std::iota(slots.begin(), slots.end(), 0);
    std::ranges::shuffle(slots, random);
    for (const std::size_t slot : slots) {
        if (mp->populated_size == mp->size)
            break;
        const std::size_t offset = random() % 5000;
        const std::size_t bytes = slot % 8 == 0 ? 200 : 20000 + random() % 20000;
        char* chunk = memory.at(slot * 65536 + offset);
        const rte_iova_t iova =
            slot % 2 == 0 ? RTE_BAD_IOVA : reinterpret_cast<std::uintptr_t>(chunk);
        ASSERT_GE(rte_mempool_populate_iova(mp.get(), chunk, iova, bytes, nullptr, nullptr), 0);
    }
    ASSERT_EQ(mp->size, mp->populated_size) << "the chunks were meant to suffice";
    cycle_in_all_orders(mp.get());
    expect_objects_are_fragments(mp.get());
}

// Small pages with IO addresses: objects do not cross them, so their distances vary.
TEST(MempoolChunks, MayHaveGapsAtPages)
{
    Memory memory{8 << 20};
    Mempool mp = empty("gaps", 3000, 1500);
    ASSERT_EQ(3000,
              rte_mempool_populate_virt(mp.get(), memory.at(0), 8 << 20, 4096, nullptr, nullptr));
    std::set<std::ptrdiff_t> strides;
    const std::vector<void*> objects = objects_of(mp.get());
    for (std::size_t i = 1; i < objects.size(); ++i)
        strides.insert(static_cast<char*>(objects[i]) - static_cast<char*>(objects[i - 1]));
    EXPECT_GT(strides.size(), 1U) << "this layout has no gaps: it tests nothing";
    cycle_in_all_orders(mp.get());
    expect_objects_are_fragments(mp.get());
}

TEST(MempoolChunks, MayBeOnePageEach)
{
    Memory memory{4 << 20};
    Mempool mp = empty("pagewise", 900, 1000);
    for (std::size_t at = 0; mp->populated_size < mp->size; at += 4096) {
        char* chunk = memory.at(at);
        ASSERT_GT(
            rte_mempool_populate_iova(mp.get(), chunk, 4096 * (at + 7), 4096, nullptr, nullptr), 0);
    }
    EXPECT_GT(mp->nb_mem_chunks, 200U);
    cycle_in_all_orders(mp.get());
    expect_objects_are_fragments(mp.get());
}

// ---- refused frees

class MempoolRefusal : public testing::Test {
protected:
    Mempool mp = populated("refusing", 640, 64);
    std::vector<void*> objects = objects_of(mp.get());

    devmem_pool_stats stats()
    {
        devmem_pool_stats s;
        EXPECT_EQ(0, devmem_pool_stats_get(mp.get(), &s));
        return s;
    }
};

TEST_F(MempoolRefusal, NamesPoolPageAndFragmentOfADoubleFree)
{
    CapturedLog log;
    rte_mempool_put(mp.get(), objects[64 * 3 + 17]);
    char expected[128];
    std::snprintf(expected, sizeof(expected),
                  "page_pool refusing: double free of fragment 17 of page 3 (object %p) refused\n",
                  objects[64 * 3 + 17]);
    EXPECT_EQ(expected, log.text());
    EXPECT_EQ(1U, stats().double_free);
    EXPECT_EQ(640U, stats().fragments_free);
    EXPECT_EQ(stats().hold, stats().release);
}

TEST_F(MempoolRefusal, CatchesAnObjectTwiceInOnePut)
{
    CapturedLog log;
    void* taken[8];
    ASSERT_EQ(0, rte_mempool_generic_get(mp.get(), taken, 8, nullptr));
    void* put[] = {taken[0], taken[1], taken[0], taken[2], taken[3],
                   taken[4], taken[4], taken[5], taken[6], taken[7]};
    rte_mempool_generic_put(mp.get(), put, 10, nullptr);
    EXPECT_EQ(2U, stats().double_free);
    EXPECT_EQ(640U, stats().fragments_free);
    const std::string text = log.text();
    EXPECT_EQ(2, std::ranges::count(text, '\n')) << text;
}

TEST_F(MempoolRefusal, CatchesWhatIsNoObject)
{
    CapturedLog log;
    Mempool other = populated("other", 100, 64);
    void* taken[4];
    ASSERT_EQ(0, rte_mempool_generic_get(mp.get(), taken, 4, nullptr));
    std::vector<void*> put = {
        taken[0],
        nullptr,
        static_cast<char*>(taken[0]) + 1,
        taken[1],
        static_cast<char*>(objects.front()) - 1,
        static_cast<char*>(objects.back()) + 64,
        objects_of(other.get())[5],
        &put,
        taken[2],
        taken[3],
    };
    rte_mempool_generic_put(mp.get(), put.data(), static_cast<unsigned>(put.size()), nullptr);
    EXPECT_EQ(6U, stats().foreign_free);
    EXPECT_EQ(0U, stats().double_free);
    EXPECT_EQ(640U, stats().fragments_free);
    const std::string text = log.text();
    EXPECT_EQ(6, std::ranges::count(text, '\n')) << text;
    EXPECT_NE(std::string::npos,
              text.find("page_pool refusing: free of (nil), no object of this pool"))
        << text;
    EXPECT_EQ(100U, rte_mempool_avail_count(other.get()));
}

TEST_F(MempoolRefusal, DoesNotFloodTheLog)
{
    CapturedLog log;
    for (int i = 0; i < 100'000; ++i)
        rte_mempool_put(mp.get(), objects[0]);
    EXPECT_EQ(100'000U, stats().double_free);
    const std::string text = log.text();
    const auto lines = std::ranges::count(text, '\n');
    EXPECT_GT(lines, 10);
    EXPECT_LT(lines, 100);
}

TEST_F(MempoolRefusal, OfRunsNamesThemToo)
{
    void* taken[20];
    ASSERT_EQ(0, rte_mempool_generic_get(mp.get(), taken, 20, nullptr));
    const auto first =
        static_cast<std::uint32_t>(std::ranges::find(objects, taken[0]) - objects.begin());
    CapturedLog log;
    EXPECT_EQ(0, page_pool_put_run(mp.get(), first, 10));
    EXPECT_EQ("", log.text());
    EXPECT_EQ(-EALREADY, page_pool_put_run(mp.get(), first + 5, 15));
    EXPECT_EQ(5U, stats().double_free);
    EXPECT_NE(std::string::npos, log.text().find("double free of fragment 5 of page"));
    EXPECT_EQ(-EINVAL, page_pool_put_run(mp.get(), 640, 1));
    EXPECT_EQ(-EINVAL, page_pool_put_run(mp.get(), 60, 5));
    EXPECT_EQ(-EINVAL, page_pool_put_run(mp.get(), UINT32_MAX, 64));
    EXPECT_EQ(-EINVAL, page_pool_put_run(mp.get(), 0, 0));
    EXPECT_EQ(4U, stats().foreign_free);
    EXPECT_NE(std::string::npos, log.text().find("free of 5 fragments from 60 on"));
    EXPECT_EQ(640U, stats().fragments_free);
}

// ---- threads

// Threads that are no lcore, and some that EAL was asked to make lcores, beside this one.
TEST(MempoolThreads, OfAnyKindShareAPool)
{
    Mempool mp = populated("threads", 64 * 40, 64);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
            if (i % 2 == 0) {
                ASSERT_EQ(0, rte_thread_register());
            }
            ASSERT_EQ(i % 2 != 0, rte_lcore_id() == LCORE_ID_ANY);
            std::mt19937 random{static_cast<unsigned>(i)};
            void* taken[640];
            for (int round = 0; round < 20'000; ++round) {
                const auto n = static_cast<unsigned>(1 + random() % (round % 16 == 0 ? 600 : 32));
                ASSERT_EQ(0, rte_mempool_get_bulk(mp.get(), taken, n));
                for (unsigned k = 0; k < n; ++k)
                    *static_cast<unsigned*>(taken[k]) = static_cast<unsigned>(i);
                for (unsigned k = 0; k < n; ++k)
                    ASSERT_EQ(static_cast<unsigned>(i), *static_cast<unsigned*>(taken[k]));
                rte_mempool_put_bulk(mp.get(), taken, n);
            }
            rte_thread_unregister();
        });
    }
    for (std::thread& thread : threads)
        thread.join();
    cycle(mp.get(), [](std::vector<void*>&, auto&) {});
}

} // namespace
} // namespace devmem::test
