// SPDX-License-Identifier: BSD-3-Clause
// What devmem.h says of pools: DMA addresses, pieces of pages, holders, and pools that grow, shrink
// and go while others use them.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include <sys/mman.h>

#include <rte_lcore.h>

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "test/unit/page_pool/region_pool.h"

namespace devmem::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kFragment = 2048;
constexpr std::uint32_t kPage = 65536;
constexpr std::uint32_t kPerPage = kPage / kFragment;

bool within(std::chrono::milliseconds limit, const std::function<bool()>& condition)
{
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        std::this_thread::sleep_for(5ms);
    }
    return true;
}

/// A thread that EAL takes for an lcore, and that does one thing after the other.
class Lcore {
public:
    Lcore() : thread_([this] { run(); }) {}
    ~Lcore()
    {
        (*this)([this] { done_ = true; });
        thread_.join();
    }
    Lcore(const Lcore&) = delete;
    Lcore& operator=(const Lcore&) = delete;

    /// Have it do something, and wait.
    void operator()(const std::function<void()>& what)
    {
        what_ = &what;
        turn_.store(1);
        turn_.notify_all();
        turn_.wait(1);
    }

private:
    void run()
    {
        EXPECT_EQ(0, rte_thread_register());
        while (!done_) {
            turn_.wait(0);
            (*what_)();
            turn_.store(0);
            turn_.notify_all();
        }
        rte_thread_unregister();
    }

    const std::function<void()>* what_ = nullptr;
    std::atomic<int> turn_{0};
    bool done_ = false;
    std::thread thread_;
};

// ---- a provider whose pages are wherever the test says

std::uint64_t probe_dma_base;
std::atomic<int> probe_destroyed;
int probe_populate_result;

const char* const kProbeKeys[][2] = {{"size", "bytes"}, {"page", "bytes"}, {nullptr, nullptr}};

int probe_create(const SpecKeys& keys, Region& region, std::string&)
{
    std::uint64_t page = 0;
    if (parse_size(keys.at("size"), &region.bytes) != 0 || parse_size(keys.at("page"), &page) != 0)
        return -EINVAL;
    // Nothing is ever written there.
    void* memory = mmap(nullptr, region.bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    region.page_bytes = static_cast<std::uint32_t>(page);
    region.readable = true;
    region.base = DeviceAddress{reinterpret_cast<std::uintptr_t>(memory)};
    region.flags = DEVMEM_REGION_READABLE | DEVMEM_REGION_GROW;
    return 0;
}

void probe_destroy(Region& region)
{
    munmap(reinterpret_cast<void*>(region.base), region.bytes);
    ++probe_destroyed;
}

int probe_populate(const Region&, std::uint64_t, std::uint64_t)
{
    return probe_populate_result;
}

int probe_depopulate(const Region&, std::uint64_t, std::uint64_t)
{
    return 0;
}

std::uint64_t probe_dma_address(const Region& region, std::uint64_t page)
{
    return probe_dma_base + page * region.page_bytes;
}

const Provider kProbe{
    .name = "probe",
    .keys = kProbeKeys,
    .flags = DEVMEM_REGION_READABLE | DEVMEM_REGION_GROW,
    .create = probe_create,
    .destroy = probe_destroy,
    .dma_write = nullptr,
    .read_back = nullptr,
    .map_for_port = nullptr,
    .export_dmabuf = nullptr,
    .populate = probe_populate,
    .depopulate = probe_depopulate,
    .dma_address = probe_dma_address,
};

class Control : public RegionPool {
protected:
    static void SetUpTestSuite() { provider_register(kProbe); }
    void SetUp() override
    {
        probe_dma_base = 0;
        probe_destroyed = 0;
        probe_populate_result = 0;
    }
    devmem_region_info info() const
    {
        devmem_region_info i{};
        devmem_region_info_get(region, &i);
        return i;
    }
    unsigned available() const { return rte_mempool_avail_count(pool); }
    std::vector<rte_mbuf*> take(unsigned n) const
    {
        std::vector<rte_mbuf*> mbufs(n);
        EXPECT_EQ(0, rte_pktmbuf_alloc_bulk(pool, mbufs.data(), n));
        return mbufs;
    }
    static void put(std::vector<rte_mbuf*>& mbufs)
    {
        rte_pktmbuf_free_bulk(mbufs.data(), static_cast<unsigned>(mbufs.size()));
        mbufs.clear();
    }
};

// ---- creation

TEST_F(Control, RefusesByError)
{
    ASSERT_NO_FATAL_FAILURE(make_region("host:size=1M,huge=no"));
    struct Case {
        int error;
        const char* what; ///< in the text
        std::function<void(devmem_pool_config&)> change;
    };
    const Case kCases[] = {
        {EINVAL, "sizeof", [](auto& c) { c.size -= 1; }},
        {EINVAL, "name", [](auto& c) { c.name = nullptr; }},
        {EINVAL, "region", [](auto& c) { c.region = nullptr; }},
        {EINVAL, "flags 0xa", [](auto& c) { c.flags = 0x8 | DEVMEM_POOL_POISON; }},
        {EINVAL, "fragment_bytes 63", [](auto& c) { c.fragment_bytes = 63; }},
        {EINVAL, "fragment_bytes 65536", [](auto& c) { c.fragment_bytes = 65536; }},
        {EINVAL, "page_bytes 1000", [](auto& c) { c.page_bytes = 1000; }},
        {EINVAL, "page_bytes 131072", [](auto& c) { c.page_bytes = 2 * kPage; }},
        {EINVAL, "offset 1048576", [](auto& c) { c.offset = 1 << 20; }},
        {EINVAL, "offset 4096", [](auto& c) { c.offset = 4096; }},
        {EINVAL, "bytes 4096", [](auto& c) { c.bytes = 4096; }},
        {EINVAL, "bytes 2097152", [](auto& c) { c.bytes = 2 << 20; }},
        {ENAMETOOLONG, "25", [](auto& c) { c.name = "a name of twenty-six bytes"; }},
    };
    for (const Case& c : kCases) {
        devmem_pool_config wrong = config(kFragment);
        c.change(wrong);
        const auto [error, text] = refusal(wrong);
        EXPECT_EQ(c.error, error) << c.what;
        EXPECT_NE(std::string::npos, text.find(c.what)) << text;
        EXPECT_EQ(std::string::npos, text.find('\n')) << text;
    }
    rte_errno = 0;
    EXPECT_EQ(nullptr, devmem_pool_create(nullptr, nullptr, 0));
    EXPECT_EQ(EINVAL, rte_errno);

    ASSERT_NO_FATAL_FAILURE(make_pool(config(kFragment)));
    const auto [error, text] = refusal(config(kFragment));
    EXPECT_EQ(EEXIST, error);
    EXPECT_NE(std::string::npos, text.find("pool")) << text;
    EXPECT_EQ(2U, region->references) << "what failed holds nothing";
}

TEST_F(Control, RefusesPoolsOfOtherDrivers)
{
    rte_mempool* ring = rte_mempool_create_empty("ring", 64, 64, 0, 0, SOCKET_ID_ANY, 0);
    ASSERT_EQ(0, rte_mempool_set_ops_byname(ring, "ring_mp_mc", nullptr));
    ASSERT_EQ(64, rte_mempool_populate_default(ring));
    rte_mempool* plain = rte_mempool_create_empty("plain", 64, 64, 0, 0, SOCKET_ID_ANY, 0);
    ASSERT_EQ(0, rte_mempool_set_ops_byname(plain, "page_pool", nullptr));
    ASSERT_EQ(64, rte_mempool_populate_default(plain));
    devmem_fragment fragment{};
    fragment.count = 1;
    for (rte_mempool* mp : {ring, static_cast<rte_mempool*>(nullptr)}) {
        EXPECT_EQ(-EINVAL, devmem_pool_hold(mp, &fragment));
        EXPECT_EQ(-EINVAL, devmem_pool_put(mp, &fragment));
        EXPECT_EQ(-EINVAL, devmem_pool_holders_get(mp, nullptr, 0));
        EXPECT_EQ(-EINVAL, devmem_pool_reclaim(mp, 1));
    }
    // On the driver, but not in a region.
    for (rte_mempool* mp : {ring, plain, static_cast<rte_mempool*>(nullptr)}) {
        EXPECT_EQ(-EINVAL, devmem_pool_alloc(mp, 1, &fragment));
        EXPECT_EQ(-EINVAL, devmem_pool_resize(mp, 0));
        EXPECT_EQ(-EINVAL, devmem_pool_scrub(mp));
        EXPECT_EQ(-EINVAL, devmem_pool_update_nid(mp, 0));
        EXPECT_EQ(-EINVAL, devmem_pool_destroy(mp));
        EXPECT_EQ(-EINVAL, devmem_pktmbuf_pool_free(mp));
    }
    rte_mempool_free(ring);
    rte_mempool_free(plain);
}

// ---- DMA addresses

TEST_F(Control, MbufsCarryTheDmaAddress)
{
    // One by one up to the last page that 32 bits of page number reach.
    probe_dma_base = (std::uint64_t{1} << 44) - (1 << 20);
    ASSERT_NO_FATAL_FAILURE(make("probe:size=1M,page=4K", 1000, DEVMEM_POOL_DMA_MAP));
    struct Expected {
        std::uint64_t base;
        std::uint64_t dma;
    } expected{base(), probe_dma_base};
    rte_mempool_obj_iter(
        pool,
        [](rte_mempool*, void* opaque, void* object, unsigned) {
            const auto& e = *static_cast<Expected*>(opaque);
            const auto* m = static_cast<const rte_mbuf*>(object);
            ASSERT_EQ(e.dma + (reinterpret_cast<std::uintptr_t>(m->buf_addr) - e.base),
                      m->buf_iova);
        },
        &expected);
    std::vector<devmem_fragment> pieces(600);
    for (devmem_fragment& piece : pieces) {
        ASSERT_EQ(0, devmem_pool_alloc(pool, 1000, &piece));
        ASSERT_EQ(probe_dma_base + piece.offset, piece.dma);
    }
    for (const devmem_fragment& piece : pieces)
        ASSERT_EQ(0, devmem_pool_put(pool, &piece));
}

TEST_F(Control, DmaAddressesOfSmallerPagesAreInTheirs)
{
    probe_dma_base = std::uint64_t{5} << 32;
    ASSERT_NO_FATAL_FAILURE(make_region("probe:size=1M,page=64K"));
    devmem_pool_config wanted = config(1024, DEVMEM_POOL_DMA_MAP);
    wanted.page_bytes = 16384;
    wanted.offset = 3 * 16384;
    ASSERT_NO_FATAL_FAILURE(make_pool(wanted));
    std::vector<rte_mbuf*> all = take(pool->size);
    for (const rte_mbuf* m : all)
        ASSERT_EQ(probe_dma_base + (reinterpret_cast<std::uintptr_t>(m->buf_addr) - base()),
                  m->buf_iova);
    put(all);
}

TEST_F(Control, DmaAddressesWithoutAnotherAreTheDevices)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=1M", kFragment, DEVMEM_POOL_DMA_MAP));
    std::vector<rte_mbuf*> all = take(pool->size);
    for (const rte_mbuf* m : all)
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(m->buf_addr), m->buf_iova);
    put(all);
}

TEST_F(Control, DmaAddressesThatLoseBitsAreRefused)
{
    struct Case {
        const char* spec;
        std::uint64_t base;
    };
    constexpr std::uint64_t kReach = std::uint64_t{1} << 44;
    for (const auto& [spec, dma_base] :
         {Case{"probe:size=1M,page=4K", kReach - (1 << 20) + 4096},
          Case{"probe:size=1M,page=4K", kReach}, Case{"probe:size=1M,page=64K", 16 * kReach},
          Case{"probe:size=1M,page=64K", 4096}}) {
        probe_dma_base = dma_base;
        ASSERT_NO_FATAL_FAILURE(make_region(spec));
        const auto [error, text] = refusal(config(1000, DEVMEM_POOL_DMA_MAP));
        EXPECT_EQ(ERANGE, error) << spec;
        EXPECT_NE(std::string::npos, text.find("DEVMEM_POOL_DMA_MAP")) << text;
        EXPECT_EQ(1U, region->references);
        region_release(region);
        region = nullptr;
    }
    // Larger pages reach farther.
    probe_dma_base = 16 * kReach - (1 << 20);
    ASSERT_NO_FATAL_FAILURE(make("probe:size=1M,page=64K", kFragment, DEVMEM_POOL_DMA_MAP));
}

// ---- pieces

TEST_F(Control, GivesAsManyBytesAsAskedFor)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=1M", kFragment));
    devmem_fragment fragment;
    EXPECT_EQ(-EINVAL, devmem_pool_alloc(pool, 0, &fragment));
    EXPECT_EQ(-EINVAL, devmem_pool_alloc(pool, kPage + 1, &fragment));
    EXPECT_EQ(-EINVAL, devmem_pool_alloc(pool, UINT32_MAX, &fragment));
    for (std::uint32_t size = 1; size <= kPage; size += size % 3 * 700 + 1) {
        ASSERT_EQ(0, devmem_pool_alloc(pool, size, &fragment));
        ASSERT_GE(fragment.size, size);
        ASSERT_EQ(fragment.count * kFragment, fragment.size);
        ASSERT_EQ(fragment.first * kFragment, fragment.offset);
        ASSERT_EQ(base() + fragment.offset, fragment.address);
        ASSERT_LE(fragment.offset + fragment.size, region->bytes);
        ASSERT_EQ(fragment.offset / kPage, (fragment.offset + fragment.size - 1) / kPage);
        ASSERT_EQ(0U, fragment.dma);
        ASSERT_EQ(pool->size - fragment.count, available());
        // Not more than asked for, unless no second such piece would fit behind it.
        const std::uint32_t needed = (size + kFragment - 1) / kFragment;
        if (fragment.count != needed) {
            ASSERT_EQ(kPage, fragment.offset % kPage + fragment.size);
            ASSERT_LT(fragment.count, 2 * needed);
        }
        ASSERT_EQ(0, devmem_pool_put(pool, &fragment));
        ASSERT_EQ(pool->size, available());
    }
}

TEST_F(Control, GivesTheTailAlong)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=64K", kFragment)); // one page
    const auto pieces = [&](std::uint32_t size) {
        std::vector<std::uint32_t> counts;
        std::vector<devmem_fragment> taken;
        for (devmem_fragment f; devmem_pool_alloc(pool, size, &f) == 0;) {
            counts.push_back(f.count);
            taken.push_back(f);
        }
        for (const devmem_fragment& f : taken)
            EXPECT_EQ(0, devmem_pool_put(pool, &f));
        return counts;
    };
    using Counts = std::vector<std::uint32_t>;
    EXPECT_EQ((Counts{10, 10, 12}), pieces(10 * kFragment));
    EXPECT_EQ((Counts{32}), pieces(17 * kFragment));
    EXPECT_EQ((Counts{16, 16}), pieces(16 * kFragment));
    EXPECT_EQ((Counts{11, 21}), pieces(11 * kFragment - 1));
    EXPECT_EQ((Counts{32}), pieces(kPage));
    EXPECT_EQ(Counts(32, 1), pieces(1));
}

TEST_F(Control, GivesNoPieceWhereNoneIsInOnePiece)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=256K", kFragment));
    std::vector<rte_mbuf*> all = take(pool->size);
    std::vector<rte_mbuf*> odd;
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (fragment_of(all[i], kFragment).first % 2 == 1)
            odd.push_back(all[i]);
        else
            rte_pktmbuf_free(all[i]);
    }
    devmem_fragment fragment;
    EXPECT_EQ(-ENOBUFS, devmem_pool_alloc(pool, kFragment + 1, &fragment));
    EXPECT_EQ(pool->size / 2, available());
    ASSERT_EQ(0, devmem_pool_alloc(pool, kFragment, &fragment));
    rte_pktmbuf_free(odd.back());
    odd.pop_back();
    devmem_fragment pair;
    EXPECT_EQ(0, devmem_pool_alloc(pool, 2 * kFragment, &pair));
    EXPECT_EQ(0, devmem_pool_put(pool, &pair));
    EXPECT_EQ(0, devmem_pool_put(pool, &fragment));
    put(odd);
}

/// A byte of the region belongs to one piece or mbuf at most; a model says to which.
TEST_F(Control, PiecesAndMbufsDoNotOverlap)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=1M", 1448)); // 45 a page, and a rest
    std::minstd_rand random{5};
    std::vector<bool> taken(region->bytes / 8);
    const auto mark = [&](std::uint64_t offset, std::uint32_t size, bool take) {
        for (std::uint64_t i = offset / 8; i < (offset + size) / 8; ++i) {
            ASSERT_NE(take, taken[i]) << "byte " << i * 8;
            taken[i] = take;
        }
    };
    std::vector<devmem_fragment> pieces;
    std::vector<rte_mbuf*> mbufs;
    for (int i = 0; i < 20'000; ++i) {
        devmem_fragment f{};
        switch (random() % 4) {
        case 0:
            if (const auto size = 1 + random() % (i % 8 == 0 ? 45 * 1448 : 5000);
                devmem_pool_alloc(pool, static_cast<std::uint32_t>(size), &f) == 0) {
                ASSERT_NO_FATAL_FAILURE(mark(f.offset, f.size, true));
                pieces.push_back(f);
            }
            break;
        case 1:
            if (rte_mbuf* m = rte_pktmbuf_alloc(pool); m != nullptr) {
                ASSERT_NO_FATAL_FAILURE(
                    mark(reinterpret_cast<std::uintptr_t>(m->buf_addr) - base(), 1448, true));
                mbufs.push_back(m);
            }
            break;
        case 2:
            if (!pieces.empty()) {
                std::swap(pieces[random() % pieces.size()], pieces.back());
                ASSERT_NO_FATAL_FAILURE(mark(pieces.back().offset, pieces.back().size, false));
                ASSERT_EQ(0, devmem_pool_put(pool, &pieces.back()));
                pieces.pop_back();
            }
            break;
        default:
            if (!mbufs.empty()) {
                std::swap(mbufs[random() % mbufs.size()], mbufs.back());
                ASSERT_NO_FATAL_FAILURE(
                    mark(reinterpret_cast<std::uintptr_t>(mbufs.back()->buf_addr) - base(), 1448,
                         false));
                rte_pktmbuf_free(mbufs.back());
                mbufs.pop_back();
            }
        }
    }
    put(mbufs);
    for (const devmem_fragment& f : pieces)
        EXPECT_EQ(0, devmem_pool_put(pool, &f));
    EXPECT_EQ(pool->size, available());
    EXPECT_EQ(0U, stats().double_free + stats().foreign_free);
}

// ---- several holders

TEST_F(Control, EachHolderPutsOnce)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=256K", kFragment));
    CapturedLog log;
    devmem_fragment f;
    ASSERT_EQ(0, devmem_pool_alloc(pool, 5 * kFragment, &f));
    for (int i = 0; i < 3; ++i)
        ASSERT_EQ(0, devmem_pool_hold(pool, &f));
    for (int i = 0; i < 3; ++i) {
        ASSERT_EQ(0, devmem_pool_put(pool, &f));
        ASSERT_EQ(pool->size - 5, available());
    }
    EXPECT_EQ(15U, stats().recycle_released_refcnt);
    // A part of it, and then all: of each fragment the holders are counted by themselves.
    devmem_fragment part = f;
    part.first += 1;
    part.count = 2;
    ASSERT_EQ(0, devmem_pool_hold(pool, &part));
    ASSERT_EQ(0, devmem_pool_put(pool, &f));
    EXPECT_EQ(pool->size - 2, available());
    EXPECT_EQ(-ENOENT, devmem_pool_hold(pool, &f)) << "three are free";
    EXPECT_EQ("", log.text());
    EXPECT_EQ(-EALREADY, devmem_pool_put(pool, &f)) << "three are free, the other two are put";
    EXPECT_EQ(3U, stats().double_free);
    EXPECT_EQ(pool->size, available());
    EXPECT_EQ(3, std::ranges::count(log.text(), '\n')) << log.text();
    EXPECT_EQ(-EALREADY, devmem_pool_put(pool, &f));
    EXPECT_EQ(8U, stats().double_free);
}

TEST_F(Control, WhatIsFreeCannotBeHeld)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=256K", kFragment));
    devmem_fragment f;
    ASSERT_EQ(0, devmem_pool_alloc(pool, 1, &f));
    devmem_fragment other;
    ASSERT_EQ(0, devmem_pool_alloc(pool, 1, &other));
    ASSERT_EQ(0, devmem_pool_put(pool, &f));
    EXPECT_EQ(-ENOENT, devmem_pool_hold(pool, &f)) << "just put";
    f.first = other.first + 1;
    EXPECT_EQ(-ENOENT, devmem_pool_hold(pool, &f)) << "never taken";
    EXPECT_EQ(0, devmem_pool_put(pool, &other));
    EXPECT_EQ(pool->size, available());
    std::vector<rte_mbuf*> all = take(pool->size);
    put(all);
    EXPECT_EQ(0U, stats().recycle_released_refcnt);
    EXPECT_EQ(pool->size, available());
}

TEST_F(Control, WhatIsNotOfThePoolIsRefused)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=256K", kFragment));
    CapturedLog log;
    std::vector<rte_mbuf*> all = take(pool->size);
    std::uint64_t refused = 0;
    for (const auto& [first, count] :
         {std::pair{pool->size, 1U}, std::pair{0U, 0U}, std::pair{0U, 33U}, std::pair{31U, 2U},
          std::pair{UINT32_MAX, 1U}, std::pair{1U, UINT32_MAX}}) {
        devmem_fragment f{};
        f.first = first;
        f.count = count;
        EXPECT_EQ(-EINVAL, devmem_pool_hold(pool, &f)) << first << ", " << count;
        EXPECT_EQ(-EINVAL, devmem_pool_put(pool, &f)) << first << ", " << count;
        EXPECT_EQ(++refused, stats().foreign_free);
    }
    EXPECT_EQ(0U, available());
    put(all);
}

TEST_F(Control, HoldersAreCountedTo65536)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=256K", kFragment));
    devmem_fragment two;
    ASSERT_EQ(0, devmem_pool_alloc(pool, 2 * kFragment, &two));
    devmem_fragment second = two;
    second.first += 1;
    second.count = 1;
    for (int i = 1; i < 65536; ++i)
        ASSERT_EQ(0, devmem_pool_hold(pool, &second));
    EXPECT_EQ(-EOVERFLOW, devmem_pool_hold(pool, &second));
    EXPECT_EQ(-EOVERFLOW, devmem_pool_hold(pool, &two)) << "neither gets one";
    for (int i = 1; i < 65536; ++i)
        ASSERT_EQ(0, devmem_pool_put(pool, &second));
    EXPECT_EQ(pool->size - 2, available());
    EXPECT_EQ(0, devmem_pool_put(pool, &two));
    EXPECT_EQ(pool->size, available());
}

TEST_F(Control, HoldersMayBeThreads)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=256K", kFragment));
    devmem_fragment f;
    ASSERT_EQ(0, devmem_pool_alloc(pool, 3 * kFragment, &f));
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        ASSERT_EQ(0, devmem_pool_hold(pool, &f)); // for the thread
        threads.emplace_back([&, t] {
            if (t % 2 == 0) {
                ASSERT_EQ(0, rte_thread_register());
            }
            for (int i = 0; i < 20'000; ++i) {
                ASSERT_EQ(0, devmem_pool_hold(pool, &f));
                devmem_fragment own;
                ASSERT_EQ(0, devmem_pool_alloc(pool, kFragment, &own));
                ASSERT_TRUE(own.first < f.first || own.first >= f.first + f.count);
                ASSERT_EQ(0, devmem_pool_put(pool, &f));
                ASSERT_EQ(0, devmem_pool_put(pool, &own));
            }
            EXPECT_EQ(0, devmem_pool_put(pool, &f));
            rte_thread_unregister();
        });
    }
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_EQ(pool->size - 3, available());
    EXPECT_EQ(0, devmem_pool_put(pool, &f));
    EXPECT_EQ(pool->size, available());
    EXPECT_EQ(0U, stats().double_free);
}

// ---- who holds what

using Holders = std::vector<devmem_pool_holder>;

class Who : public Control {
protected:
    Holders holders(unsigned n = 16) const
    {
        Holders list(n);
        const int rc = devmem_pool_holders_get(pool, list.data(), n);
        EXPECT_GE(rc, 0);
        list.resize(static_cast<std::size_t>(std::max(rc, 0)));
        return list;
    }
    devmem_pool_holder holder(devmem_holder_kind kind) const
    {
        const Holders all = holders();
        EXPECT_LE(std::ranges::count(all, kind, &devmem_pool_holder::kind), 1);
        const auto at = std::ranges::find(all, kind, &devmem_pool_holder::kind);
        return at == all.end() ? devmem_pool_holder{kind, -1, false, 0, 0} : *at;
    }
};

TEST_F(Who, IsSaidByKind)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=1M", kFragment));
    rte_mempool* clones = rte_pktmbuf_pool_create("clones", 64, 0, 0, 0, SOCKET_ID_ANY);
    ASSERT_NE(nullptr, clones);
    EXPECT_EQ(0U, holders().size());

    std::vector<rte_mbuf*> mbufs = take(40);
    EXPECT_EQ(1U, holders().size());
    EXPECT_EQ(40U, holder(DEVMEM_HOLDER_MBUF).fragments);
    EXPECT_TRUE(holder(DEVMEM_HOLDER_MBUF).alive);
    EXPECT_EQ(0, holder(DEVMEM_HOLDER_MBUF).pid);

    rte_mbuf* clone = rte_pktmbuf_clone(mbufs[0], clones);
    ASSERT_NE(nullptr, clone);
    rte_mbuf_refcnt_update(mbufs[1], 1);
    const devmem_fragment held = fragment_of(mbufs[2], kFragment);
    ASSERT_EQ(0, devmem_pool_hold(pool, &held));
    EXPECT_EQ(37U, holder(DEVMEM_HOLDER_MBUF).fragments);
    EXPECT_EQ(3U, holder(DEVMEM_HOLDER_CLONE).fragments);
    EXPECT_EQ(2U, holders().size());
    EXPECT_TRUE(holder(DEVMEM_HOLDER_CLONE).alive);

    // Every tenth fragment of each page is a token's.
    page_pool_set_token_mask(
        pool,
        [](const void* arg, std::uint32_t) { return *static_cast<const std::uint64_t*>(arg); },
        [] {
            static constexpr std::uint64_t kMask = 1U << 10 | 1U << 20;
            return &kMask;
        }());
    EXPECT_EQ(3U, holders().size());
    EXPECT_EQ(2U, holder(DEVMEM_HOLDER_TOKEN).fragments) << "in the page that all of is out";
    EXPECT_EQ(35U, holder(DEVMEM_HOLDER_MBUF).fragments);
    page_pool_set_token_mask(pool, nullptr, nullptr);
    EXPECT_EQ(2U, holders().size());

    // Fewer entries than there are.
    devmem_pool_holder first{};
    EXPECT_EQ(2, devmem_pool_holders_get(pool, &first, 1));
    EXPECT_NE(0U, first.fragments);
    EXPECT_EQ(2, devmem_pool_holders_get(pool, nullptr, 0));

    // The mbuf's holder is gone, the clone's is not.
    rte_pktmbuf_free(mbufs[0]);
    EXPECT_EQ(39U + 1,
              holder(DEVMEM_HOLDER_MBUF).fragments + holder(DEVMEM_HOLDER_CLONE).fragments);
    rte_pktmbuf_free(clone);
    mbufs.erase(mbufs.begin());
    rte_mbuf_refcnt_update(mbufs[0], -1);
    ASSERT_EQ(0, devmem_pool_put(pool, &held));
    EXPECT_EQ(39U, holder(DEVMEM_HOLDER_MBUF).fragments);
    EXPECT_EQ(1U, holders().size());
    put(mbufs);
    EXPECT_EQ(0U, holders().size());
    rte_mempool_free(clones);
}

TEST_F(Who, IsSaidWithAnAge)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=1M", kFragment));
    std::vector<rte_mbuf*> old = take(1);
    std::this_thread::sleep_for(200ms);
    std::vector<rte_mbuf*> young = take(kPerPage * 2); // of further pages
    devmem_fragment held = fragment_of(young.back(), kFragment);
    ASSERT_EQ(0, devmem_pool_hold(pool, &held));
    const std::uint32_t age = holder(DEVMEM_HOLDER_MBUF).oldest_ms;
    EXPECT_GE(age, 190U);
    EXPECT_LT(age, 5000U);
    EXPECT_LT(holder(DEVMEM_HOLDER_CLONE).oldest_ms, age - 150);
    ASSERT_EQ(0, devmem_pool_put(pool, &held));
    put(young);
    put(old);
    old = take(1);
    EXPECT_LT(holder(DEVMEM_HOLDER_MBUF).oldest_ms, 150U) << "its page was wholly free since";
    put(old);
}

// ---- other processes are the business of test/dpdk/multiprocess.sh

TEST_F(Control, ReclaimsNothingOfTheUnknown)
{
    ASSERT_NO_FATAL_FAILURE(make("opaque:size=1M", kFragment));
    std::vector<rte_mbuf*> mbufs = take(4);
    EXPECT_EQ(-ENOENT, devmem_pool_reclaim(pool, getpid())) << "what this process took is its own";
    EXPECT_EQ(-ENOENT, devmem_pool_reclaim(pool, 1));
    EXPECT_EQ(-ENOENT, devmem_pool_reclaim(pool, 0));
    EXPECT_EQ(-ENOENT, devmem_pool_reclaim(pool, -1));
    put(mbufs);
}

// ---- growing and shrinking

/// Resident bytes of the mapping that holds an address.
std::uint64_t resident(std::uint64_t address)
{
    std::ifstream smaps("/proc/self/smaps");
    bool ours = false;
    for (std::string line; std::getline(smaps, line);) {
        unsigned long long begin = 0;
        unsigned long long end = 0;
        unsigned long long kib = 0;
        if (std::sscanf(line.c_str(), "%llx-%llx ", &begin, &end) == 2)
            ours = address >= begin && address < end;
        else if (ours && std::sscanf(line.c_str(), "Rss: %llu kB", &kib) == 1)
            return kib * 1024;
    }
    ADD_FAILURE() << "not mapped";
    return 0;
}

class Resize : public Control, public testing::WithParamInterface<const char*> {
protected:
    void make(const char* sizes, std::uint32_t fragment_bytes = kFragment)
    {
        RegionPool::make((std::string(GetParam()) + ":huge=no," + sizes).c_str(), fragment_bytes);
    }
    /// What the region says, what the pool says, and what the kernel says.
    void expect_backed(std::uint64_t bytes) const
    {
        EXPECT_EQ(bytes, info().populated);
        EXPECT_EQ(bytes / kPage, stats().pages_present);
        EXPECT_EQ(bytes, resident(reinterpret_cast<std::uintptr_t>(
                             region->provider->map_for_port(*region))));
    }
};

INSTANTIATE_TEST_SUITE_P(Providers, Resize, testing::Values("host", "opaque"));

TEST_P(Resize, BacksAsManyBytesAsAskedFor)
{
    ASSERT_NO_FATAL_FAILURE(make("size=256K,max=4M"));
    EXPECT_EQ(4U << 20, info().bytes);
    EXPECT_EQ(64U, stats().pages);
    EXPECT_EQ(64 * kPerPage, stats().fragments);
    expect_backed(256 << 10);
    EXPECT_EQ(4 * kPerPage, available());
    for (const unsigned bytes :
         {4U << 20, 1U << 20, 1U << 20, 64U << 10, 2U << 20, 0U, 256U << 10}) {
        ASSERT_EQ(0, devmem_pool_resize(pool, bytes));
        expect_backed(bytes);
        EXPECT_EQ(bytes / kFragment, available());
        EXPECT_EQ(0, devmem_pool_scrub(pool));
        std::vector<rte_mbuf*> all = take(available());
        EXPECT_EQ(nullptr, rte_pktmbuf_alloc(pool));
        put(all);
        EXPECT_EQ(bytes / kFragment, available());
        expect_backed(bytes);
    }
    EXPECT_EQ(0U, stats().double_free);
}

TEST_P(Resize, RefusesByError)
{
    ASSERT_NO_FATAL_FAILURE(make("size=256K,max=4M"));
    EXPECT_EQ(-EINVAL, devmem_pool_resize(pool, kPage + 4096));
    EXPECT_EQ(-EINVAL, devmem_pool_resize(pool, 1));
    EXPECT_EQ(-ERANGE, devmem_pool_resize(pool, (4 << 20) + kPage));
    EXPECT_EQ(-ERANGE, devmem_pool_resize(pool, std::uint64_t{1} << 52));
    EXPECT_EQ(-EINVAL, devmem_pool_update_nid(pool, -2));
    EXPECT_EQ(-EINVAL, devmem_pool_update_nid(pool, 128));
    EXPECT_EQ(0, devmem_pool_update_nid(pool, -1));
    expect_backed(256 << 10);
}

TEST_P(Resize, RefusesRegionsThatCannot)
{
    ASSERT_NO_FATAL_FAILURE(make("size=1M"));
    EXPECT_EQ(-EOPNOTSUPP, devmem_pool_resize(pool, kPage));
    EXPECT_EQ(-EOPNOTSUPP, devmem_pool_update_nid(pool, 0));
    EXPECT_EQ(0, devmem_pool_scrub(pool));
    EXPECT_EQ(1U << 20, info().populated);
}

// Of a page of the region that has several of the pool, hardly ever all are idle.
TEST_P(Resize, OfSmallerPagesIsGrowthOnly)
{
    ASSERT_NO_FATAL_FAILURE(make("size=128K,max=1M", 256)); // 16 KiB
    ASSERT_EQ(64U, stats().pages);
    EXPECT_EQ(8U, stats().pages_present);
    ASSERT_EQ(0, devmem_pool_resize(pool, 512 << 10));
    EXPECT_EQ(512U << 10, info().populated);
    EXPECT_EQ(32U, stats().pages_present);
    EXPECT_EQ(-EOPNOTSUPP, devmem_pool_resize(pool, 256 << 10));
    EXPECT_EQ(-EOPNOTSUPP, devmem_pool_update_nid(pool, 0));
    std::vector<rte_mbuf*> all = take(32 * 64);
    put(all);
}

TEST_P(Resize, WaitsForFragmentsThatAreOut)
{
    ASSERT_NO_FATAL_FAILURE(make("size=1M,max=1M,flags=grow"));
    std::vector<rte_mbuf*> all = take(pool->size);
    EXPECT_EQ(10, devmem_pool_resize(pool, 6 * kPage)) << "16 pages are in use";
    EXPECT_EQ(10, devmem_pool_scrub(pool));
    expect_backed(1 << 20);
    // One fragment of each page is missing: none is idle yet.
    std::vector<rte_mbuf*> last;
    for (rte_mbuf* m : all) {
        if (fragment_of(m, kFragment).first % kPerPage == 7)
            last.push_back(m);
        else
            rte_pktmbuf_free(m);
    }
    EXPECT_EQ(10, devmem_pool_scrub(pool));
    expect_backed(1 << 20);
    EXPECT_EQ(pool->size - 16, available());
    rte_pktmbuf_free(last.back());
    last.pop_back();
    EXPECT_EQ(9, devmem_pool_scrub(pool));
    expect_backed(15 * kPage);
    // Asking for other sizes meanwhile replaces the demand.
    EXPECT_EQ(11, devmem_pool_resize(pool, 4 * kPage));
    EXPECT_EQ(0, devmem_pool_resize(pool, 15 * kPage));
    EXPECT_EQ(9, devmem_pool_resize(pool, 6 * kPage));
    put(last);
    EXPECT_EQ(0, devmem_pool_scrub(pool));
    expect_backed(6 * kPage);
    EXPECT_EQ(6 * kPerPage, available());
    EXPECT_EQ(0, devmem_pool_resize(pool, 1 << 20));
    expect_backed(1 << 20);
    EXPECT_EQ(pool->size, available());
    EXPECT_EQ(0U, stats().double_free);
}

// What is idle is not only what somebody has just put: an lcore may have put it and gone to sleep.
TEST_P(Resize, FindsWhatLcoresKeep)
{
    ASSERT_NO_FATAL_FAILURE(make("size=1M,max=1M,flags=grow"));
    Lcore lcore;
    std::vector<rte_mbuf*> first;
    std::vector<rte_mbuf*> second;
    lcore([&] {
        first = take(kPerPage);
        second = take(5 * kPerPage + 3);
    });
    EXPECT_EQ(7, devmem_pool_resize(pool, 0));
    // Half of a page is put off by one lcore, who waits for the rest; that another thread puts.
    lcore([&] {
        for (std::size_t i = 0; i < kPerPage / 2; ++i)
            rte_pktmbuf_free(first[i]);
    });
    std::thread([&] {
        for (std::size_t i = kPerPage / 2; i < kPerPage; ++i)
            rte_pktmbuf_free(first[i]);
    }).join();
    EXPECT_EQ(6, devmem_pool_scrub(pool));
    lcore([&] { put(second); });
    EXPECT_EQ(0, devmem_pool_scrub(pool));
    expect_backed(0);

    ASSERT_EQ(0, devmem_pool_resize(pool, 1 << 20));
    lcore([&] {
        second = take(5 * kPerPage + 3);
        put(second); // a stack, a current page, and what is put off
    });
    EXPECT_EQ(0, devmem_pool_resize(pool, 0));
    expect_backed(0);
    ASSERT_EQ(0, devmem_pool_resize(pool, 1 << 20));
}

TEST_P(Resize, RefusesFreesOfPagesThatAreGone)
{
    ASSERT_NO_FATAL_FAILURE(make("size=256K,max=256K,flags=grow"));
    std::vector<rte_mbuf*> all = take(pool->size);
    std::vector<rte_mbuf*> copy = all;
    put(all);
    ASSERT_EQ(0, devmem_pool_resize(pool, 0));
    CapturedLog log;
    for (rte_mbuf* m : copy) {
        const devmem_fragment f = fragment_of(m, kFragment);
        ASSERT_EQ(-ENOENT, devmem_pool_hold(pool, &f));
        ASSERT_EQ(-EALREADY, devmem_pool_put(pool, &f));
        rte_mempool_put(pool, m);
    }
    EXPECT_EQ(2 * pool->size, stats().double_free);
    EXPECT_EQ(0U, available());
    EXPECT_NE(std::string::npos, log.text().find("double free of fragment")) << log.text();
    ASSERT_EQ(0, devmem_pool_resize(pool, 256 << 10));
    EXPECT_EQ(pool->size, available());
    all = take(pool->size);
    put(all);
}

/// Take and put mbufs, write a pattern as a port does, and find it again.
class Traffic {
public:
    Traffic(rte_mempool* pool, Region* region, bool lcore)
        : thread_([=, this] { run(pool, region, lcore); })
    {
    }
    ~Traffic()
    {
        stop_ = true;
        thread_.join();
        EXPECT_GT(rounds_, 0);
    }
    Traffic(const Traffic&) = delete;
    Traffic& operator=(const Traffic&) = delete;

private:
    struct Packet {
        rte_mbuf* mbuf;
        std::uint64_t stamp;
    };

    void run(rte_mempool* pool, Region* region, bool lcore)
    {
        if (lcore) {
            ASSERT_EQ(0, rte_thread_register());
        }
        std::mt19937 random{lcore ? 1U : 2U};
        std::vector<Packet> held;
        std::uint64_t stamp = lcore ? 1U << 30 : 2U << 30;
        const auto offset_of = [&](const Packet& p) {
            return reinterpret_cast<std::uintptr_t>(p.mbuf->buf_addr) -
                   static_cast<std::uint64_t>(region->base);
        };
        while (!stop_) {
            rte_mbuf* got[32];
            const auto n = static_cast<unsigned>(1 + random() % 32);
            if (held.size() < 400 && rte_pktmbuf_alloc_bulk(pool, got, n) == 0) {
                for (unsigned i = 0; i < n; ++i) {
                    held.push_back({got[i], ++stamp});
                    std::vector<std::uint64_t> pattern(kFragment / 8, stamp);
                    const Transfer write{offset_of(held.back()), pattern.data(), kFragment};
                    ASSERT_EQ(0, region->provider->dma_write(*region, {&write, 1}));
                }
            }
            std::ranges::shuffle(held, random);
            for (std::size_t put = random() % (held.size() + 1); put > 0; --put) {
                std::vector<std::uint64_t> found(kFragment / 8);
                ASSERT_EQ(
                    0, devmem_region_read(region, offset_of(held.back()), found.data(), kFragment));
                ASSERT_EQ(found.size(),
                          static_cast<std::size_t>(std::ranges::count(found, held.back().stamp)))
                    << "payload was lost";
                rte_pktmbuf_free(held.back().mbuf);
                held.pop_back();
            }
            ++rounds_;
        }
        for (const Packet& p : held)
            rte_pktmbuf_free(p.mbuf);
        if (lcore)
            rte_thread_unregister();
    }

    std::atomic<bool> stop_{false};
    std::atomic<int> rounds_{0};
    std::thread thread_;
};

TEST_P(Resize, LosesNothingUnderTraffic)
{
    ASSERT_NO_FATAL_FAILURE(make("size=1M,max=4M"));
    {
        Traffic lcore(pool, region, true);
        Traffic thread(pool, region, false);
        std::mt19937 random{7};
        const auto end = std::chrono::steady_clock::now() + 1s;
        for (int i = 0; std::chrono::steady_clock::now() < end; ++i) {
            const std::uint64_t pages = random() % 65;
            int owed = devmem_pool_resize(pool, pages * kPage);
            ASSERT_GE(owed, 0);
            ASSERT_GE(info().populated, pages * kPage);
            for (int scrubs = 0; scrubs < i % 50; ++scrubs) {
                std::this_thread::yield();
                owed = devmem_pool_scrub(pool);
                ASSERT_GE(owed, 0);
                ASSERT_LE(info().populated, (pages + static_cast<unsigned>(owed)) * kPage);
            }
        }
        // With so much that nobody needs, it is soon given back whatever they do.
        ASSERT_GE(devmem_pool_resize(pool, 4 << 20), 0);
        int owed = devmem_pool_resize(pool, 2 << 20);
        EXPECT_TRUE(within(5s, [&] { return (owed = devmem_pool_scrub(pool)) == 0; })) << owed;
        EXPECT_EQ(2U << 20, info().populated);
    }
    EXPECT_EQ(0, devmem_pool_resize(pool, 1 << 20));
    expect_backed(1 << 20);
    EXPECT_EQ(16 * kPerPage, available());
    std::vector<rte_mbuf*> all = take(available());
    put(all);
    EXPECT_EQ(0, devmem_pool_resize(pool, 4 << 20));
    all = take(pool->size);
    put(all);
    EXPECT_EQ(0U, stats().double_free + stats().foreign_free);
    EXPECT_EQ(stats().hold, stats().release);
}

TEST_F(Control, GrowsLaterIfThereIsNoMemory)
{
    ASSERT_NO_FATAL_FAILURE(make("probe:size=1M,page=64K", kFragment));
    ASSERT_EQ(0, devmem_pool_resize(pool, 0));
    probe_populate_result = -ENOMEM;
    EXPECT_EQ(-ENOMEM, devmem_pool_resize(pool, 2 * kPage));
    EXPECT_EQ(0U, available());
    EXPECT_EQ(-ENOMEM, devmem_pool_scrub(pool));
    probe_populate_result = 0;
    EXPECT_EQ(0, devmem_pool_scrub(pool));
    EXPECT_EQ(2 * kPerPage, available());
    EXPECT_EQ(0, devmem_pool_resize(pool, 1 << 20));
    EXPECT_EQ(pool->size, available());
}

// ---- another node

TEST_F(Control, PassesOverPagesOfAnotherNode)
{
    ASSERT_NO_FATAL_FAILURE(make("probe:size=2M,page=64K", kFragment));
    // As the provider does not say where its pages are, none is passed over.
    ASSERT_EQ(0, devmem_pool_update_nid(pool, 0));
    std::vector<rte_mbuf*> all = take(pool->size);
    put(all);
    EXPECT_EQ(0U, stats().alloc_waive);
    ASSERT_EQ(0, devmem_pktmbuf_pool_free(pool));

    region->numa_node = 1;
    ASSERT_NO_FATAL_FAILURE(make_pool(config(kFragment)));
    all = take(pool->size);
    put(all);
    EXPECT_EQ(0U, stats().alloc_waive) << "node 1 was as good as any";
    ASSERT_EQ(0, devmem_pool_update_nid(pool, 0));
    // Of 32 pages two at a time: a pool that nobody tends must not drain.
    std::uint64_t waived = 0;
    for (int i = 0; i < 40; ++i) {
        all = take(pool->size - 2 * kPerPage);
        put(all);
        EXPECT_LE(stats().alloc_waive, waived + 2);
        EXPECT_GE(stats().pages_present, 30U);
        EXPECT_EQ(0, devmem_pool_scrub(pool));
        EXPECT_EQ(32U, stats().pages_present);
        EXPECT_EQ(pool->size, available());
        waived = stats().alloc_waive;
    }
    EXPECT_EQ(32U, waived) << "each page was replaced, once";
    all = take(pool->size);
    put(all);
    ASSERT_EQ(0, devmem_pool_update_nid(pool, -1));
}

// ---- going

class Destroy : public Control {
protected:
    void SetUp() override
    {
        Control::SetUp();
        ASSERT_EQ(0U, devmem_pool_zombies());
    }
    /// A pool that has the last reference on its region.
    rte_mempool* doomed(const char* name)
    {
        make_region("probe:size=1M,page=64K");
        devmem_pool_config wanted = config(kFragment);
        wanted.name = name;
        rte_mempool* mp = devmem_pool_create(&wanted, nullptr, 0);
        EXPECT_NE(nullptr, mp);
        region_release(std::exchange(region, nullptr));
        return mp;
    }
    static std::vector<rte_mbuf*> take(rte_mempool* mp, unsigned n)
    {
        std::vector<rte_mbuf*> mbufs(n);
        EXPECT_EQ(0, rte_pktmbuf_alloc_bulk(mp, mbufs.data(), n));
        return mbufs;
    }
    static void expect_gone(int pools)
    {
        EXPECT_TRUE(within(3s, [] { return devmem_pool_zombies() == 0; }));
        EXPECT_EQ(pools, probe_destroyed);
    }
};

TEST_F(Destroy, IsImmediateWhenNothingIsOut)
{
    rte_mempool* mp = doomed("idle");
    std::vector<rte_mbuf*> all = take(mp, mp->size);
    put(all);
    EXPECT_EQ(0, devmem_pool_destroy(mp));
    EXPECT_EQ(1, probe_destroyed);
    EXPECT_EQ(0U, devmem_pool_zombies());
    EXPECT_EQ(nullptr, rte_mempool_lookup("idle"));

    mp = doomed("without all of its pages");
    ASSERT_EQ(0, devmem_pool_resize(mp, 3 * kPage));
    EXPECT_EQ(0, devmem_pool_destroy(mp));
    EXPECT_EQ(2, probe_destroyed);
}

TEST_F(Destroy, IsImmediateWithWhatLcoresKeep)
{
    rte_mempool* mp = doomed("kept");
    Lcore lcore;
    lcore([&] {
        std::vector<rte_mbuf*> all = take(mp, 7 * kPerPage + 5);
        put(all);
        all = take(mp, 3);
        put(all);
        EXPECT_EQ(mp->size, rte_mempool_avail_count(mp));
    });
    EXPECT_EQ(0, devmem_pool_destroy(mp));
    EXPECT_EQ(1, probe_destroyed);
}

// Three at once, so that waiting takes no longer than for one: mbufs and a piece are out; a clone;
// fragments of an lcore that puts them off, has a current page, and sleeps then.
TEST_F(Destroy, WaitsForTheLastFragment)
{
    rte_mempool* const pieces = doomed("pieces");
    rte_mempool* const cloned = doomed("cloned");
    rte_mempool* const kept = doomed("kept");
    rte_mempool* const clones = rte_pktmbuf_pool_create("clones", 64, 0, 0, 0, SOCKET_ID_ANY);
    ASSERT_NE(nullptr, clones);
    std::vector<rte_mbuf*> some = take(pieces, 2 * kPerPage + 9);
    devmem_fragment piece;
    ASSERT_EQ(0, devmem_pool_alloc(pieces, 5 * kFragment, &piece));
    rte_mbuf* m = rte_pktmbuf_alloc(cloned);
    rte_mbuf* clone = rte_pktmbuf_clone(m, clones);
    ASSERT_NE(nullptr, clone);
    Lcore lcore;
    std::vector<rte_mbuf*> mine;
    lcore([&] { mine = take(kept, kPerPage + 7); });

    unsigned zombies = 0;
    for (rte_mempool* mp : {pieces, cloned, kept}) {
        EXPECT_EQ(1, devmem_pool_destroy(mp));
        EXPECT_EQ(++zombies, devmem_pool_zombies());
        EXPECT_EQ(-EINVAL, devmem_pool_destroy(mp)) << "it is destroyed already";
        devmem_fragment refused;
        EXPECT_EQ(nullptr, rte_pktmbuf_alloc(mp));
        EXPECT_EQ(-ENOBUFS, devmem_pool_alloc(mp, 1, &refused));
    }
    put(some);
    rte_pktmbuf_free(m);
    lcore([&] {
        for (std::size_t i = 0; i < mine.size(); i += 2)
            rte_pktmbuf_free(mine[i]);
        EXPECT_EQ(nullptr, rte_pktmbuf_alloc(kept)) << "nor what was put since";
    });
    std::thread([&] {
        for (std::size_t i = 3; i < mine.size(); i += 2)
            rte_pktmbuf_free(mine[i]);
        EXPECT_EQ(nullptr, rte_pktmbuf_alloc(kept));
    }).join();

    std::this_thread::sleep_for(2200ms);
    EXPECT_EQ(3U, devmem_pool_zombies());
    EXPECT_EQ(0, probe_destroyed);
    EXPECT_EQ(0, *reinterpret_cast<const volatile unsigned char*>(piece.address));
    EXPECT_EQ(0, devmem_pool_hold(pieces, &piece));
    EXPECT_EQ(0, devmem_pool_put(pieces, &piece));
    devmem_pool_holder holder{};
    EXPECT_EQ(1, devmem_pool_holders_get(pieces, &holder, 1));
    EXPECT_EQ(5U, holder.fragments);

    EXPECT_EQ(0, devmem_pool_put(pieces, &piece));
    EXPECT_TRUE(within(3s, [] { return devmem_pool_zombies() == 2; }));
    EXPECT_EQ(1, probe_destroyed);
    EXPECT_EQ(nullptr, rte_mempool_lookup("pieces"));
    rte_pktmbuf_free(clone);
    rte_pktmbuf_free(mine[1]);
    expect_gone(3);
    rte_mempool_free(clones);
}

TEST_F(Destroy, UnderTrafficWaitsForItsEnd)
{
    rte_mempool* const mp = doomed("busy");
    constexpr int kThreads = 3;
    std::atomic<int> ready{0};
    std::atomic<int> refused{0};
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            if (t != 0) {
                ASSERT_EQ(0, rte_thread_register());
            }
            rte_mbuf* kept = rte_pktmbuf_alloc(mp); // until the end
            ASSERT_NE(nullptr, kept);
            ++ready;
            bool failed = false;
            while (!stop) {
                rte_mbuf* m[40];
                const int rc = rte_pktmbuf_alloc_bulk(mp, m, 40);
                EXPECT_TRUE(rc != 0 || !failed) << "once refused, always refused";
                if (rc == 0)
                    rte_pktmbuf_free_bulk(m, 40);
                else if (!std::exchange(failed, true))
                    ++refused;
            }
            rte_pktmbuf_free(kept);
            rte_thread_unregister();
        });
    }
    EXPECT_TRUE(within(5s, [&] { return ready == kThreads; }));
    EXPECT_EQ(1, devmem_pool_destroy(mp));
    EXPECT_TRUE(within(2s, [&] { return refused == kThreads; }));
    EXPECT_EQ(0, probe_destroyed);
    stop = true;
    for (std::thread& thread : threads)
        thread.join();
    expect_gone(1);
}

} // namespace
} // namespace devmem::test
