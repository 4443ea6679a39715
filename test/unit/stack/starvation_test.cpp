// SPDX-License-Identifier: BSD-3-Clause
// Connections that hoard, waste or crowd a pool, and those that have to live beside them.

#include "test/unit/stack/flow.h"

#include <gtest/gtest.h>

#include <rte_cycles.h>

#include <algorithm>
#include <vector>

using namespace devmem::test;

namespace {

struct Starvation : FlowTest {
    /// Fragments that are neither free nor the port's.
    std::uint32_t held_fragments() const
    {
        return free_at_first - std::min(free_at_first, pool_of(wires->b).fragments_free);
    }
    void note_free() { free_at_first = pool_of(wires->b).fragments_free; }
    std::uint64_t no_memory() const { return stats_of(wires->b).drop_no_memory; }
    /// Send what the window lets through, in pieces of `piece` bytes, to a consumer that keeps it.
    void hoard(Flow& flow, std::size_t piece, double seconds)
    {
        wires->run_until(
            [&] {
                flow.send(*wires, piece, UINT64_MAX);
                flow.receive(*wires, true);
                return false;
            },
            seconds);
    }

    std::uint32_t free_at_first = 0;
};

} // namespace

TEST_F(Starvation, OneThatReturnsNothingLeavesHalf)
{
    open({.region = "opaque:size=4M"}, 2);
    note_free();
    const double alone = transfer(*wires, flows[1], 8u << 20);
    hoard(flows[0], 16384, 1);
    const std::uint32_t held = held_fragments();
    EXPECT_GT(held, free_at_first / 8) << "what is there may be used; the other has a window";
    EXPECT_LT(held, free_at_first * 6 / 10);
    const double beside = transfer(*wires, flows[1], 8u << 20);
    RecordProperty("fragments_held", std::to_string(held) + " of " + std::to_string(free_at_first));
    RecordProperty("slower", std::to_string(beside / alone));
    // It goes on where it was, when its consumer does.
    flows[0].give_back();
    const std::uint64_t end = flows[0].sent + (1u << 20);
    EXPECT_TRUE(wires->run_until([&] {
        flows[0].send(*wires, 16384, end);
        flows[0].receive(*wires, false);
        return flows[0].received == end;
    }));
}

TEST_F(Starvation, OneThatReturnsOneInAThousandLeavesHalf)
{
    open({.region = "opaque:size=16M"}, 2);
    note_free();
    const double alone = transfer(*wires, flows[1], 8u << 20);
    std::uint64_t tokens = 0;
    wires->run_until(
        [&] {
            flows[0].send(*wires, 1000, UINT64_MAX);
            const std::size_t before = flows[0].held.size();
            flows[0].receive(*wires, true);
            for (std::size_t i = before; i < flows[0].held.size(); i++) {
                if (++tokens % 1000 == 0) {
                    devmem_token_return(&flows[0].held.back(), 1);
                    flows[0].held.pop_back();
                }
            }
            return false;
        },
        1);
    EXPECT_GT(tokens, 1000u);
    const std::uint32_t held = held_fragments();
    EXPECT_LT(held, free_at_first * 6 / 10);
    const double beside = transfer(*wires, flows[1], 8u << 20);
    RecordProperty("fragments_held", std::to_string(held) + " of " + std::to_string(free_at_first));
    RecordProperty("slower", std::to_string(beside / alone));
    flows[0].give_back();
}

TEST_F(Starvation, ManyThatReturnNothingLeaveAShare)
{
    open({.region = "opaque:size=4M"}, 9);
    note_free();
    wires->run_until(
        [&] {
            for (unsigned i = 0; i < 8; i++) {
                flows[i].send(*wires, 4096, UINT64_MAX);
                flows[i].receive(*wires, true);
            }
            return false;
        },
        2);
    EXPECT_LT(held_fragments(), free_at_first * 19 / 20);
    transfer(*wires, flows[8], 8u << 20);
    for (Flow& flow : flows)
        flow.give_back();
}

TEST_F(Starvation, ALimitThatIsSetHolds)
{
    open({.region = "opaque:size=4M", .held_limit = 200'000}, 1);
    note_free();
    hoard(flows[0], 16384, 0.5);
    struct devmem_fit fit;
    devmem_stack_fit(wires->b.stack, &fit);
    std::uint64_t bytes = 0;
    for (const devmem_token& token : flows[0].held)
        bytes += token.length;
    EXPECT_GT(bytes, 150'000u);
    EXPECT_LE(bytes, 200'000u);
    flows[0].give_back();
}

// A byte a segment, each in a fragment of its own, to a consumer that keeps them all.
TEST_F(Starvation, OneByteSegmentsFillNoMoreThanTheirShare)
{
    open({.region = "opaque:size=4M"}, 2);
    note_free();
    const double alone = transfer(*wires, flows[1], 8u << 20);
    hoard(flows[0], 1, 1);
    const std::uint32_t held = held_fragments();
    EXPECT_GT(no_memory(), 0u) << "the flood reached its bound";
    EXPECT_LT(held, free_at_first * 6 / 10);
    const double beside = transfer(*wires, flows[1], 8u << 20);
    RecordProperty("fragments_held", std::to_string(held) + " of " + std::to_string(free_at_first));
    RecordProperty("slower", std::to_string(beside / alone));
    flows[0].give_back();
    const std::uint64_t end = flows[0].sent;
    EXPECT_TRUE(wires->run_until([&] {
        flows[0].receive(*wires, false);
        return flows[0].received == end;
    })) << "what was refused came again";
}

// The same below the threshold: the region is others' as if there were no flood, and of the host
// memory there is some left for the short segments of the rest.
TEST_F(Starvation, OneByteSegmentsBelowTheThresholdLeaveTheRegionAlone)
{
    open({.region = "opaque:size=4M", .hds_thresh = 256}, 3);
    Flow& flood = flows[0];
    Flow& bulk = flows[1];
    Flow& brief = flows[2];
    const double alone = transfer(*wires, bulk, 8u << 20);
    note_free();
    const auto hoard = [&] {
        // What is refused is sent again as one segment: that must be a short one too.
        flood.send(*wires, 1, flood.received + 64);
        flood.receive(*wires, true);
        return false;
    };
    wires->run_until(hoard, 1);
    const std::uint32_t in_region = held_fragments();
    EXPECT_EQ(in_region, 0u);
    EXPECT_GT(stats_of(wires->b).drop_no_host_fragment, 0u) << "the flood reached its bound";
    EXPECT_EQ(stats_of(wires->b).drop_truncated, 0u);
    struct devmem_fit fit;
    devmem_stack_fit(wires->b.stack, &fit);
    const std::size_t host_fragments = (1u << 20) / fit.page_bytes * fit.fragments_per_page;
    EXPECT_GT(flood.held.size(), host_fragments / 3);
    EXPECT_LE(flood.held.size(), host_fragments / 2);
    for (const devmem_token& token : flood.held)
        ASSERT_NE(token.flags & DEVMEM_TOKEN_HOST, 0u);

    const std::uint64_t before = stats_of(wires->b).rx_device_bytes;
    const double beside = transfer(*wires, bulk, 8u << 20);
    EXPECT_GT(stats_of(wires->b).rx_device_bytes - before, (8u << 20) * 99ull / 100);
    std::uint64_t wanted = 0;
    for (int i = 0; i < 100; i++) {
        wanted += 20;
        EXPECT_TRUE(wires->run_until([&] {
            hoard();
            brief.send(*wires, 20, wanted);
            brief.receive(*wires, false);
            return brief.received == wanted;
        })) << wanted;
    }
    devmem_shutdown(wires->a.shard, brief.client);
    devmem_token none;
    EXPECT_TRUE(
        wires->run_until([&] { return devmem_recv(wires->b.shard, brief.server, &none, 1) == 0; }));
    RecordProperty("host_fragments_held",
                   std::to_string(flood.held.size()) + " of " + std::to_string(host_fragments));
    RecordProperty("region_fragments_held", std::to_string(in_region));
    RecordProperty("slower", std::to_string(beside / alone));

    flood.give_back();
    const std::uint64_t end = flood.sent;
    EXPECT_TRUE(wires->run_until([&] {
        flood.receive(*wires, false);
        return flood.received == end;
    })) << "what was refused came again";
}

TEST_F(Starvation, AThousandSendersShare64Fragments)
{
    constexpr std::uint64_t kBytes = 4'000;
    open({.region = "opaque:size=256K,page=64K", .max_connections = 1100, .fragment_bytes = 4096},
         1000);
    ASSERT_EQ(pool_of(wires->b).fragments, 64u);
    std::size_t done = 0;
    const std::uint64_t begin = rte_rdtsc();
    EXPECT_TRUE(wires->run_until(
        [&] {
            for (Flow& flow : flows) {
                if (flow.received == kBytes)
                    continue;
                flow.send(*wires, kBytes, kBytes);
                flow.receive(*wires, false);
                if (flow.received == kBytes) {
                    done++;
                    devmem_shutdown(wires->a.shard, flow.client);
                }
            }
            return done == flows.size();
        },
        60))
        << done << " of 1000";
    RecordProperty("seconds", std::to_string(seconds_since(begin)));
    EXPECT_EQ(pool_of(wires->b).double_free, 0u);
}
