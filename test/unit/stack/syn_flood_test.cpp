// SPDX-License-Identifier: BSD-3-Clause
// SYNs from addresses that nobody answers at (RFC 4987).

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_cycles.h>

#include <array>
#include <cerrno>

using namespace devmem;
using namespace devmem::test;

namespace {

struct SynFlood : testing::Test {
    void forge(std::uint32_t number)
    {
        wire::Flow flow{};
        flow.src = {4, {10, 1}};
        for (unsigned i = 0; i < 2; i++)
            flow.src.bytes[2 + i] = static_cast<std::uint8_t>(number >> 8 * i);
        flow.src_port = static_cast<std::uint16_t>(1024 + (number >> 16));
        flow.dst = {4, {10, 0, 0, 2}};
        flow.dst_port = 80;
        flow.src_mac = {2, 0, 0, 0, 0, 99};
        flow.dst_mac = {2, 0, 0, 0, 0, 2};
        wire::TcpOptions options;
        options.mss = 1460;
        wires.inject(wires.b, flow, {number * 2654435761u, 0, 65535, 0x02}, options);
    }
    /// What goes out to the forged addresses arrives nowhere.
    void flood(std::uint32_t syns)
    {
        for (std::uint32_t i = 0; i < syns; i++) {
            forge(next++);
            if (i % 64 == 63)
                wires.poll();
        }
        wires.poll();
    }

    static constexpr unsigned kConnections = 512;
    WirePair wires{{}, {.max_connections = kConnections}};
    std::uint32_t next = 0;
};

/// Bytes that are the process's own.
long resident_kib()
{
    long kib = 0;
    if (std::FILE* f = std::fopen("/proc/self/statm", "r"); f != nullptr) {
        long total = 0, resident = 0, shared = 0;
        if (std::fscanf(f, "%ld %ld %ld", &total, &resident, &shared) == 3)
            kib = (resident - shared) * 4;
        std::fclose(f);
    }
    return kib;
}

} // namespace

TEST_F(SynFlood, AMillionSpoofedSynsKeepNobodyOut)
{
    constexpr std::uint32_t kSyns = 1'000'000;
    wires.listen(80, 64);
    flood(10'000); // whatever is touched for the first time
    const long before = resident_kib();
    const devmem_shard_stats first = stats_of(wires.b);
    const std::uint64_t begin = rte_rdtsc();
    unsigned connected = 0;
    for (std::uint32_t round = 0; round < 20; round++) {
        flood(kSyns / 40);
        // One that answers connects in the middle of it, and its data arrives.
        const devmem_endpoint remote{wires.b.addr, 80};
        devmem_conn_t client = 0, server = 0;
        ASSERT_EQ(devmem_connect(wires.a.shard, &remote, &client), 0);
        devmem_event event;
        flood(kSyns / 80);
        ASSERT_TRUE(wires.run_until(
            [&] { return WirePair::take(wires.a, DEVMEM_EVENT_CONNECTED, &event); }));
        ASSERT_EQ(devmem_send(wires.a.shard, client, "hello", 5), 5);
        flood(kSyns / 80);
        ASSERT_TRUE(wires.run_until([&] { return devmem_accept(wires.b.shard, 0, &server) == 0; }));
        devmem_token token;
        ASSERT_TRUE(
            wires.run_until([&] { return devmem_recv(wires.b.shard, server, &token, 1) == 1; }));
        EXPECT_EQ(token.length, 5u);
        ASSERT_EQ(devmem_token_return(&token, 1), 1);
        ASSERT_EQ(devmem_abort(wires.b.shard, server), 0);
        ASSERT_EQ(devmem_close(wires.a.shard, client), 0);
        connected++;
    }
    const double seconds = seconds_since(begin);
    const devmem_shard_stats s = stats_of(wires.b);
    EXPECT_EQ(connected, 20u);
    EXPECT_GT(s.syn_cookies_sent - first.syn_cookies_sent, kSyns * 9 / 10);
    EXPECT_EQ(s.syn_cookies_accepted, 20u);
    EXPECT_EQ(s.drop_listen_overflow, 0u);
    EXPECT_LT(resident_kib() - before, 4'096);
    RecordProperty("syns_per_second", std::to_string(kSyns / seconds));
    RecordProperty("kib_more", std::to_string(resident_kib() - before));
}

// A backlog as large as the table does not let half-open connections take all of it.
TEST_F(SynFlood, HalfTheSlotsAreForThoseThatAnswer)
{
    wires.listen(80, kConnections);
    flood(2 * kConnections);
    const devmem_shard_stats s = stats_of(wires.b);
    EXPECT_EQ(s.syn_cookies_sent, 2u * kConnections - kConnections / 2);
    devmem_conn_t conn = 0;
    const devmem_endpoint remote{wires.a.addr, 9};
    EXPECT_EQ(devmem_connect(wires.b.shard, &remote, &conn), 0) << "there is room for our own";
}

TEST_F(SynFlood, NothingIsSentByCookieWithoutNeed)
{
    wires.listen(80, 64);
    flood(64);
    EXPECT_EQ(stats_of(wires.b).syn_cookies_sent, 0u);
    flood(1);
    EXPECT_EQ(stats_of(wires.b).syn_cookies_sent, 1u);
}
