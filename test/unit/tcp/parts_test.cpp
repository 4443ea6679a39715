// SPDX-License-Identifier: BSD-3-Clause
// Sequence numbers, initial sequence numbers, the run store, and what must not happen per packet.
#include "lib/tcp/isn.h"
#include "test/unit/tcp/harness.h"

#include <cerrno>
#include <cstdlib>
#include <new>

namespace {
std::uint64_t allocations;
}

// All of this program's C++ allocations, to show that there are none where there must be none.
void* operator new(std::size_t size)
{
    allocations++;
    void* p = std::malloc(size);
    if (!p)
        throw std::bad_alloc();
    return p;
}
void* operator new[](std::size_t size)
{
    return operator new(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept
{
    allocations++;
    return std::malloc(size);
}
void* operator new[](std::size_t size, const std::nothrow_t& tag) noexcept
{
    return operator new(size, tag);
}
void operator delete(void* p) noexcept
{
    std::free(p);
}
void operator delete[](void* p) noexcept
{
    std::free(p);
}
void operator delete(void* p, std::size_t) noexcept
{
    std::free(p);
}
void operator delete[](void* p, std::size_t) noexcept
{
    std::free(p);
}

namespace devmem::tcp::test {
namespace {

TEST(Seq, OrderWraps)
{
    const Seq high(0xfffffff0), low(0x10);
    EXPECT_LT(high, low);
    EXPECT_GT(low, high);
    EXPECT_EQ(high + 0x20u, low);
    EXPECT_EQ(low - 0x20u, high);
    EXPECT_EQ(distance(high, low), 0x20u);
    EXPECT_EQ(max(high, low), low);
    EXPECT_EQ(min(high, low), high);
    EXPECT_LE(low, low);
    EXPECT_FALSE(low < low);
    EXPECT_LT(Seq(0), Seq(0x7fffffff));
    EXPECT_GT(Seq(0), Seq(0x80000001));
}

// First vectors of the reference implementation: key 00..0f, input 00 01 02 … of 0 and 8 bytes.
TEST(SipHash, ReferenceVectors)
{
    const std::array<std::uint64_t, 2> key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
    const std::uint64_t words[] = {0x0706050403020100};
    EXPECT_EQ(siphash(key, words, 0), 0x726fdb47dd0e0e31u);
    EXPECT_EQ(siphash(key, words, 1), 0x93f5f5799a932462u);
}

TEST(Isn, DiffersByFlowAndSecretAndRisesWithTime)
{
    const IsnGenerator one({1, 2}), two({1, 3});
    FlowName flow{{10, 0, 0, 1}, {10, 0, 0, 2}, 80, 4000};
    const Seq isn = one.isn(flow, 1'000'000);
    EXPECT_EQ(one.isn(flow, 1'000'000), isn);
    EXPECT_EQ(one.isn(flow, 1'004'000), isn + 1000u); // 4 us a tick
    EXPECT_NE(two.isn(flow, 1'000'000), isn);
    const std::uint32_t offset = one.timestamp_offset(flow);
    flow.remote_port++;
    EXPECT_NE(one.isn(flow, 1'000'000), isn);
    EXPECT_NE(one.timestamp_offset(flow), offset);
}

TEST(RunStore, RefusesWhatItCannotIndex)
{
    RunStore store;
    EXPECT_EQ(store.create({8, 100, 65, 0, 0, 0}), -EINVAL);
    EXPECT_EQ(store.create({8, 0, 8, 0, 0, 0}), -EINVAL);
    EXPECT_EQ(store.create({8, 65536, 8, 0, 0, 0}), -EINVAL);
    EXPECT_EQ(store.create({0xffffffff, 100, 8, 8, 100, 8}), -EINVAL);
    EXPECT_EQ(store.create({8, 100, 8, 0, 0, 0}), 0);
}

TEST(RunStore, MergesOnlyWhatIsAdjacentInAPage)
{
    RunStore store;
    ASSERT_EQ(store.create({16, 100, 8, 8, 50, 4}), 0);
    const auto merges = [&](tcp::Run a, tcp::Run b) {
        store.put(a);
        return store.merge(a.first, b);
    };
    EXPECT_TRUE(merges({0, 1, 0, 100}, {1, 2, 0, 150}));
    EXPECT_EQ(store.get(0).count, 3u);
    EXPECT_EQ(store.get(0).len, 250u);
    EXPECT_TRUE(merges({0, 1, 30, 70}, {1, 1, 0, 1}));
    EXPECT_FALSE(merges({0, 1, 0, 99}, {1, 1, 0, 100})) << "ends early";
    EXPECT_FALSE(merges({0, 1, 0, 100}, {1, 1, 1, 99})) << "starts late";
    EXPECT_FALSE(merges({0, 1, 0, 100}, {2, 1, 0, 100})) << "not adjacent";
    EXPECT_FALSE(merges({7, 1, 0, 100}, {8, 1, 0, 100})) << "another page";
    EXPECT_FALSE(merges({15, 1, 0, 100}, {16, 1, 0, 50})) << "another pool";
    EXPECT_TRUE(merges({16, 1, 0, 50}, {17, 1, 0, 50}));
    EXPECT_FALSE(merges({19, 1, 0, 50}, {20, 1, 0, 50}));
}

/// Bytes are not looked at and segments not kept: only the engine can allocate.
class CountingSink : public Sink {
public:
    bool emit(const SegmentOut&) override { return true; }
    void release(std::uint32_t, std::uint32_t) override {}
};

TEST(SteadyState, NothingIsAllocatedPerPacket)
{
    const Config config;
    RunStore runs;
    ASSERT_EQ(runs.create({4096, 1448, 45, 0, 0, 0}), 0);
    Credit credit;
    credit.free_bytes = 1'000'000'000;
    credit.fragment_bytes = 1448;
    Counters counters;
    CountingSink sink;
    Context ctx{config, runs, credit, sink, counters};
    Connection conn;
    wire::TcpOptions options;
    options.mss = 1460;
    options.sack_permitted = true;
    options.window_scale = 7;
    Time now = 1'000'000;
    const Segment syn{Seq(99), Seq(0), 65535, kSyn, 1, 0, {}, &options};
    conn.open_passive(syn, Seq(499), 1460, 1460, 0, nullptr, now, ctx);
    conn.poll(now, ctx);
    const wire::TcpOptions none;
    conn.process({Seq(100), Seq(500), 65535, kAck, 1, 0, {}, &none}, now, ctx);
    ASSERT_EQ(conn.state(), State::kEstablished);

    const std::uint64_t before = allocations;
    std::uint64_t received = 0;
    Seq next(100);
    for (std::uint32_t i = 0; i < 100'000; i++) {
        // Every fourth pair arrives in the wrong order, every eighth segment twice.
        const std::uint32_t step = i % 8 == 2 ? 1 : i % 8 == 3 ? UINT32_MAX : 0;
        const tcp::Run run{(i + step) % 4096, 1, 0, 1448};
        const Segment segment{next + step * 1448u, Seq(500), 65535, kAck, 1, 1448,
                              {&run, 1},           &none};
        Actions actions = conn.process(segment, now, ctx);
        if (i % 8 == 7)
            actions |= conn.process(segment, now, ctx);
        next += 1448u;
        if (actions != kNothing)
            conn.poll(now, ctx);
        tcp::Run got;
        while (conn.receive(&got, ctx))
            received += got.len;
        now += 10;
    }
    EXPECT_EQ(allocations, before);
    EXPECT_EQ(received, 144'800'000u);
    EXPECT_NE(counters.ooo_segments, 0u);
    EXPECT_NE(counters.duplicate_bytes, 0u);
    conn.reset(ctx);
}

} // namespace
} // namespace devmem::tcp::test
