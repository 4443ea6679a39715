// SPDX-License-Identifier: BSD-3-Clause
// Poison and red zones: who writes where he should not is found, and nobody else.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include <rte_pause.h>

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "test/unit/page_pool/region_pool.h"

namespace devmem::test {
namespace {

constexpr char kReadable[] = "host:size=1M,page=64K,huge=no";
constexpr std::uint32_t kFragment = 2048;
constexpr std::uint32_t kPerPage = 65536 / kFragment;
constexpr std::uint32_t kBoth = DEVMEM_POOL_POISON | DEVMEM_POOL_RED_ZONE;

unsigned char* bytes_of(const rte_mbuf* m)
{
    return static_cast<unsigned char*>(m->buf_addr);
}

class Guard : public RegionPool {
protected:
    /// Take everything and put it back: who takes looks for damage.
    void take_all() const
    {
        std::vector<rte_mbuf*> all(pool->size);
        ASSERT_EQ(0, rte_pktmbuf_alloc_bulk(pool, all.data(), pool->size));
        rte_pktmbuf_free_bulk(all.data(), pool->size);
    }
    rte_mbuf* get() const
    {
        rte_mbuf* m = rte_pktmbuf_alloc(pool);
        EXPECT_NE(nullptr, m);
        return m;
    }
    std::string line_about(const rte_mbuf* m, const char* what) const
    {
        const std::uint32_t first = fragment_of(m, kFragment).first;
        return "page_pool pool: fragment " + std::to_string(first % kPerPage) + " of page " +
               std::to_string(first / kPerPage) + " was written to " + what + "\n";
    }
};

TEST_F(Guard, IsRefusedByNameWhereTheCpuCannotReach)
{
    ASSERT_NO_FATAL_FAILURE(make_region("opaque:size=1M"));
    for (const auto& [flags, name] : {std::pair{DEVMEM_POOL_POISON, "DEVMEM_POOL_POISON"},
                                      std::pair{DEVMEM_POOL_RED_ZONE, "DEVMEM_POOL_RED_ZONE"}}) {
        const auto [error, text] = refusal(config(kFragment, flags | DEVMEM_POOL_DMA_MAP));
        EXPECT_EQ(EOPNOTSUPP, error);
        EXPECT_NE(std::string::npos, text.find(name)) << text;
    }
    EXPECT_EQ(1U, region->references);
}

TEST_F(Guard, TakesTheRedZoneFromTheRoom)
{
    ASSERT_NO_FATAL_FAILURE(make_region(kReadable));
    // 64 bytes are the least that an mbuf has for data.
    EXPECT_EQ(EINVAL, refusal(config(64 + DEVMEM_RED_ZONE_BYTES - 1, DEVMEM_POOL_RED_ZONE)).first);
    ASSERT_NO_FATAL_FAILURE(make_pool(config(kFragment, DEVMEM_POOL_RED_ZONE)));
    EXPECT_EQ(kFragment - DEVMEM_RED_ZONE_BYTES, rte_pktmbuf_data_room_size(pool));
    rte_mbuf* m = get();
    EXPECT_EQ(kFragment - DEVMEM_RED_ZONE_BYTES, m->buf_len);
    rte_pktmbuf_free(m);
    EXPECT_EQ(0U, stats().red_zone_damaged);
}

TEST_F(Guard, FillsWhatIsFree)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, kBoth));
    const auto is_poisoned = [](const rte_mbuf* m) {
        return std::count(bytes_of(m), bytes_of(m) + m->buf_len, DEVMEM_POISON) == m->buf_len;
    };
    rte_mbuf* m = get();
    EXPECT_TRUE(is_poisoned(m)) << "a new one";
    std::memset(bytes_of(m), 0, m->buf_len);
    rte_pktmbuf_free(m);
    EXPECT_TRUE(is_poisoned(m)) << "one that was put";
}

/// Ways to put a fragment.
enum class Put { kMbufFree, kMbufFreeBulk, kMempoolPut, kMempoolPutMixed, kPoolPut, kPutRun };

void PrintTo(Put put, std::ostream* out)
{
    *out << std::array{"rte_pktmbuf_free",     "rte_pktmbuf_free_bulk",
                       "rte_mempool_put_bulk", "rte_mempool_put_bulk of several pages",
                       "devmem_pool_put",      "page_pool_put_run"}[static_cast<std::size_t>(put)];
}

class GuardedPut : public Guard, public testing::WithParamInterface<Put> {
protected:
    void SetUp() override { ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, kBoth)); }

    void put(rte_mbuf* m) const
    {
        const devmem_fragment fragment = fragment_of(m, kFragment);
        void* object = m;
        switch (GetParam()) {
        case Put::kMbufFree:
            return rte_pktmbuf_free(m);
        case Put::kMbufFreeBulk:
            return rte_pktmbuf_free_bulk(&m, 1);
        case Put::kMempoolPut:
            return rte_mempool_put_bulk(pool, &object, 1);
        case Put::kMempoolPutMixed:
            return put_among_others(m);
        case Put::kPoolPut:
            EXPECT_EQ(0, devmem_pool_put(pool, &fragment));
            return;
        case Put::kPutRun:
            EXPECT_EQ(0, page_pool_put_run(pool, fragment.first, 1));
            return;
        }
    }
    /// In the middle of a table in no order.
    void put_among_others(rte_mbuf* m) const
    {
        std::vector<rte_mbuf*> others(3 * kPerPage);
        ASSERT_EQ(0, rte_pktmbuf_alloc_bulk(pool, others.data(), 3 * kPerPage));
        std::rotate(others.begin(), others.begin() + 5, others.end());
        std::swap(others[2], others[2 * kPerPage]);
        others.insert(others.begin() + 40, m);
        rte_mempool_put_bulk(pool, reinterpret_cast<void**>(others.data()),
                             static_cast<unsigned>(others.size()));
    }
};

INSTANTIATE_TEST_SUITE_P(Ways, GuardedPut,
                         testing::Values(Put::kMbufFree, Put::kMbufFreeBulk, Put::kMempoolPut,
                                         Put::kMempoolPutMixed, Put::kPoolPut, Put::kPutRun));

TEST_P(GuardedPut, FindsAWriteAfterIt)
{
    // The first and the last byte, and one that no word begins at.
    for (const std::uint32_t at : {0U, 1001U, kFragment - DEVMEM_RED_ZONE_BYTES - 1}) {
        const std::uint64_t before = stats().poison_damaged;
        rte_mbuf* m = get();
        std::memset(bytes_of(m), 0xff, m->buf_len);
        put(m);
        bytes_of(m)[at] ^= 1;
        CapturedLog log;
        take_all();
        EXPECT_EQ(before + 1, stats().poison_damaged) << "byte " << at;
        EXPECT_EQ(line_about(m, "while it was free"), log.text());
        take_all();
        EXPECT_EQ(before + 1, stats().poison_damaged) << "it was put again, and is as new";
    }
    EXPECT_EQ(0U, stats().red_zone_damaged);
}

TEST_P(GuardedPut, FindsAWriteBeyondTheEnd)
{
    for (const std::uint32_t at : {0U, DEVMEM_RED_ZONE_BYTES - 1}) {
        const std::uint64_t before = stats().red_zone_damaged;
        rte_mbuf* m = get();
        std::memset(bytes_of(m), 0xff, m->buf_len); // all of its own
        bytes_of(m)[m->buf_len + at] ^= 0x80;
        CapturedLog log;
        put(m);
        EXPECT_EQ(before + 1, stats().red_zone_damaged) << "byte " << at;
        EXPECT_EQ(line_about(m, "beyond its end"), log.text());
        put(get());
        EXPECT_EQ(before + 1, stats().red_zone_damaged) << "it is whole again";
    }
    take_all();
    EXPECT_EQ(0U, stats().poison_damaged);
}

TEST_P(GuardedPut, SaysNothingOfWhatIsInOrder)
{
    CapturedLog log;
    for (int round = 0; round < 100; ++round) {
        rte_mbuf* m = get();
        std::memset(bytes_of(m), round, m->buf_len);
        put(m);
    }
    take_all();
    EXPECT_EQ("", log.text());
    EXPECT_EQ(0U, stats().poison_damaged + stats().red_zone_damaged + stats().double_free);
}

TEST_F(Guard, LooksAtFragmentsTakenWithoutMbufs)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, DEVMEM_POOL_POISON));
    rte_mbuf* m = get();
    rte_pktmbuf_free(m);
    *bytes_of(m) = 0;
    std::vector<devmem_fragment> taken(pool->size / kPerPage);
    for (devmem_fragment& fragment : taken)
        ASSERT_EQ(0, devmem_pool_alloc(pool, kPerPage * kFragment, &fragment));
    EXPECT_EQ(1U, stats().poison_damaged);
    for (const devmem_fragment& fragment : taken)
        EXPECT_EQ(0, devmem_pool_put(pool, &fragment));
    take_all();
    EXPECT_EQ(1U, stats().poison_damaged);
}

// Between adjacent fragments there is a red zone, so with them a piece ends where a fragment does.
TEST_F(Guard, LeavesNoRoomForPiecesLargerThanAFragment)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, kBoth));
    devmem_fragment fragment;
    EXPECT_EQ(-EINVAL, devmem_pool_alloc(pool, kFragment - DEVMEM_RED_ZONE_BYTES + 1, &fragment));
    ASSERT_EQ(0, devmem_pool_alloc(pool, kFragment - DEVMEM_RED_ZONE_BYTES, &fragment));
    EXPECT_EQ(kFragment - DEVMEM_RED_ZONE_BYTES, fragment.size);
    EXPECT_EQ(1U, fragment.count);
    std::memset(reinterpret_cast<void*>(fragment.address), 0xff, fragment.size);
    EXPECT_EQ(0, devmem_pool_put(pool, &fragment));
    EXPECT_EQ(0U, stats().red_zone_damaged);
    take_all();
    EXPECT_EQ(0U, stats().poison_damaged);
}

TEST_F(Guard, LeavesOtherPoolsAlone)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment));
    rte_mbuf* m = get();
    std::memset(bytes_of(m), 0x11, kFragment);
    rte_pktmbuf_free(m);
    EXPECT_EQ(kFragment, std::count(bytes_of(m), bytes_of(m) + kFragment, 0x11));
    take_all();
    EXPECT_EQ(0U, stats().poison_damaged + stats().red_zone_damaged);
}

TEST_F(Guard, OfOneKindIsNotTheOther)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, DEVMEM_POOL_RED_ZONE));
    rte_mbuf* m = get();
    std::memset(bytes_of(m), 0x11, m->buf_len);
    rte_pktmbuf_free(m);
    EXPECT_EQ(m->buf_len, std::count(bytes_of(m), bytes_of(m) + m->buf_len, 0x11));
    take_all();
    EXPECT_EQ(0U, stats().poison_damaged + stats().red_zone_damaged);
}

// The one free fragment is as it was; its neighbours, whose owners write on, are not looked at.
TEST_F(Guard, TouchesNothingForADoubleFree)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, kBoth));
    CapturedLog log;
    rte_mbuf* owned = get();
    rte_mbuf* freed = get();
    std::memset(bytes_of(owned), 0x22, owned->buf_len);
    rte_pktmbuf_free(freed);
    void* table[] = {freed, freed};
    for (int i = 0; i < 3; ++i) {
        rte_mempool_put_bulk(pool, table, 2);
        const devmem_fragment fragment = fragment_of(freed, kFragment);
        EXPECT_EQ(-EALREADY, devmem_pool_put(pool, &fragment));
    }
    EXPECT_EQ(9U, stats().double_free);
    EXPECT_EQ(owned->buf_len, std::count(bytes_of(owned), bytes_of(owned) + owned->buf_len, 0x22));
    // Never handed out, though its page is in use: refused too, and left alone.
    devmem_fragment never = fragment_of(freed, kFragment);
    ++never.first;
    EXPECT_EQ(-EALREADY, devmem_pool_put(pool, &never));
    // Nor does it make good what was done to the free one.
    *bytes_of(freed) ^= 1;
    rte_mempool_put(pool, freed);
    rte_pktmbuf_free(owned);
    take_all();
    EXPECT_EQ(1U, stats().poison_damaged);
    EXPECT_EQ(0U, stats().red_zone_damaged);
}

TEST_F(Guard, WaitsForTheLastHolder)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, kBoth));
    rte_mempool* clones = rte_pktmbuf_pool_create("clones", 64, 0, 0, 0, SOCKET_ID_ANY);
    ASSERT_NE(nullptr, clones);
    rte_mbuf* m = get();
    m->data_off = 0;
    const std::uint16_t room = m->buf_len;
    std::memset(rte_pktmbuf_append(m, room), 0x33, room);
    rte_mbuf* clone = rte_pktmbuf_clone(m, clones);
    ASSERT_NE(nullptr, clone);
    const unsigned char* bytes = bytes_of(m);
    rte_pktmbuf_free(m);
    EXPECT_EQ(room, std::count(bytes, bytes + room, 0x33)) << "the clone's";
    rte_pktmbuf_free(clone);
    EXPECT_EQ(room, std::count(bytes, bytes + room, DEVMEM_POISON));
    rte_mempool_free(clones);

    devmem_fragment fragment;
    ASSERT_EQ(0, devmem_pool_alloc(pool, room, &fragment));
    auto* held = reinterpret_cast<unsigned char*>(fragment.address);
    std::memset(held, 0x44, room);
    ASSERT_EQ(0, devmem_pool_hold(pool, &fragment));
    ASSERT_EQ(0, devmem_pool_put(pool, &fragment));
    EXPECT_EQ(room, std::count(held, held + room, 0x44)) << "the other holder's";
    held[room] = 0; // found when the last holder puts
    CapturedLog log;
    ASSERT_EQ(0, devmem_pool_put(pool, &fragment));
    EXPECT_EQ(1U, stats().red_zone_damaged);
    EXPECT_EQ(room, std::count(held, held + room, DEVMEM_POISON));
    take_all();
    EXPECT_EQ(0U, stats().poison_damaged);
}

/// Without giving the CPU away at once: who waits is to go on as soon as he may.
void wait_for(const std::atomic<int>& at, int round)
{
    for (int i = 0; at.load() < round; ++i)
        i < 1000 ? rte_pause() : std::this_thread::yield();
}

// Whoever of two threads comes to be the last one leaves it as a free fragment is.
TEST_F(Guard, HasOneLastHolderAmongThreads)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, kBoth));
    constexpr int kRounds = 10'000;
    devmem_fragment fragment{};
    std::atomic<int> begun{0};
    std::atomic<int> ended{0};
    std::thread other([&] {
        for (int round = 1; round <= kRounds; ++round) {
            wait_for(begun, round);
            EXPECT_EQ(0, devmem_pool_put(pool, &fragment));
            ended = round;
        }
    });
    for (int round = 1; round <= kRounds; ++round) {
        ASSERT_EQ(0, devmem_pool_alloc(pool, 100, &fragment));
        *reinterpret_cast<volatile unsigned char*>(fragment.address) = 0;
        ASSERT_EQ(0, devmem_pool_hold(pool, &fragment));
        begun = round;
        for (int i = 0; i < round % 64; ++i)
            rte_pause(); // to meet at different points
        EXPECT_EQ(0, devmem_pool_put(pool, &fragment));
        wait_for(ended, round);
    }
    other.join();
    take_all();
    EXPECT_EQ(0U, stats().poison_damaged);
    EXPECT_EQ(0U, stats().red_zone_damaged);
    EXPECT_EQ(0U, stats().double_free);
}

TEST_F(Guard, FillsPagesThatComeBack)
{
    ASSERT_NO_FATAL_FAILURE(make("host:size=256K,max=1M,page=64K,huge=no", kFragment, kBoth));
    for (const unsigned bytes : {1U << 20, 128U << 10, 512U << 10, 0U, 1U << 20}) {
        ASSERT_EQ(0, devmem_pool_resize(pool, bytes));
        std::vector<rte_mbuf*> all(stats().fragments_free);
        ASSERT_EQ(bytes / kFragment, all.size());
        if (all.empty())
            continue;
        ASSERT_EQ(0, rte_pktmbuf_alloc_bulk(pool, all.data(), static_cast<unsigned>(all.size())));
        for (rte_mbuf* m : all)
            std::memset(bytes_of(m), 0x55, m->buf_len);
        rte_pktmbuf_free_bulk(all.data(), static_cast<unsigned>(all.size()));
    }
    take_all();
    EXPECT_EQ(0U, stats().poison_damaged + stats().red_zone_damaged);
}

TEST_F(Guard, WatchesThreadsAtWork)
{
    ASSERT_NO_FATAL_FAILURE(make(kReadable, kFragment, kBoth));
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            if (t % 2 == 0) {
                ASSERT_EQ(0, rte_thread_register());
            }
            rte_mbuf* taken[48];
            for (int round = 0; round < 2000; ++round) {
                const auto n = static_cast<unsigned>(1 + (round * 7 + t) % 48);
                ASSERT_EQ(0, rte_pktmbuf_alloc_bulk(pool, taken, n));
                for (unsigned i = 0; i < n; ++i)
                    std::memset(bytes_of(taken[i]), t, taken[i]->buf_len);
                for (unsigned i = 0; i < n; ++i)
                    ASSERT_EQ(t, bytes_of(taken[i])[i]);
                rte_pktmbuf_free_bulk(taken, n);
            }
            rte_thread_unregister();
        });
    }
    for (std::thread& thread : threads)
        thread.join();
    take_all();
    EXPECT_EQ(0U, stats().poison_damaged + stats().red_zone_damaged + stats().double_free);
}

} // namespace
} // namespace devmem::test
