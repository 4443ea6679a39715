// SPDX-License-Identifier: BSD-3-Clause
// Two stacks that talk while something fails: the n-th allocation, the device's memory, a queue,
// the link, whoever polls. What was acknowledged arrives, byte for byte; an application is told
// what it has to know; afterwards all goes on, and nothing is missing.

#include "test/unit/stack/fault_injection.h"
#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_ethdev.h>
#include <rte_mempool.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace devmem::test;

namespace {

constexpr std::uint16_t kPort = 80;

/// One end of a connection: sends its stream, checks the other's.
struct Talker {
    End* end = nullptr;
    devmem_conn_t conn = 0;
    std::uint64_t to_send = 0, sent = 0, received = 0;
    bool shut = false, at_end = false;
    int error = 0;
    unsigned unreadable = 0; ///< times that a token's bytes could not be read back

    bool done() const { return at_end && shut; }

    void step()
    {
        std::array<std::uint8_t, 8192> chunk;
        while (sent < to_send && error == 0) {
            const auto n = std::min<std::uint64_t>(chunk.size(), to_send - sent);
            for (std::uint64_t i = 0; i < n; i++)
                chunk[i] = stream_byte(sent + i);
            const std::int64_t taken = devmem_send(end->shard, conn, chunk.data(), n);
            if (taken <= 0)
                break;
            sent += static_cast<std::uint64_t>(taken);
        }
        if (sent == to_send && !shut)
            shut = devmem_shutdown(end->shard, conn) == 0;
        devmem_token token;
        for (int n = 0; (n = devmem_recv(end->shard, conn, &token, 1)) != -EAGAIN;) {
            if (n <= 0) {
                at_end = n == 0;
                error = n;
                break;
            }
            check(token);
            ASSERT_EQ(devmem_token_return(&token, 1), 1);
        }
    }

    void check(const devmem_token& token)
    {
        std::vector<std::uint8_t> bytes(token.length);
        int rc = 0;
        while ((rc = devmem_region_read(token.region, token.offset, bytes.data(), bytes.size())) !=
               0) {
            ASSERT_EQ(rc, -EIO);
            ASSERT_LT(++unreadable, 1000u);
        }
        for (const std::uint8_t byte : bytes)
            ASSERT_EQ(byte, stream_byte(received++));
    }
};

/// A connection from a to b, and what both say.
struct Conversation {
    Talker a, b;

    void step()
    {
        a.step();
        if (b.conn != 0)
            b.step();
    }
    bool over() const { return a.done() && b.done(); }
    bool failed() const { return a.error != 0 || b.error != 0; }
};

struct Faults : testing::Test {
    static void SetUpTestSuite()
    {
        start_eal();
        register_faulty_provider();
    }
    void TearDown() override { offer_header_split(true); }

    void open(const EndConfig& a, const EndConfig& b)
    {
        wires = std::make_unique<WirePair>(a, b);
        ASSERT_EQ(devmem_listen(wires->b.shard, kPort, 16, &listener), 0);
    }

    Conversation begin(std::uint64_t a_sends, std::uint64_t b_sends)
    {
        Conversation made;
        made.a = {.end = &wires->a, .to_send = a_sends};
        made.b = {.end = &wires->b, .to_send = b_sends};
        const devmem_endpoint remote{wires->b.addr, kPort};
        EXPECT_EQ(devmem_connect(wires->a.shard, &remote, &made.a.conn), 0);
        return made;
    }
    void step(Conversation& talk)
    {
        if (talk.b.conn == 0)
            devmem_accept(wires->b.shard, listener, &talk.b.conn);
        talk.step();
    }
    void finish(Conversation& talk, double seconds = 10)
    {
        ASSERT_TRUE(wires->run_until(
            [&] {
                step(talk);
                return talk.over() || talk.failed() || HasFatalFailure();
            },
            seconds))
            << "a has " << talk.a.received << " of " << talk.b.to_send << ", b " << talk.b.received
            << " of " << talk.a.to_send;
        ASSERT_EQ(talk.a.error, 0);
        ASSERT_EQ(talk.b.error, 0);
        ASSERT_EQ(talk.a.received, talk.b.to_send);
        ASSERT_EQ(talk.b.received, talk.a.to_send);
        ASSERT_EQ(devmem_close(wires->a.shard, talk.a.conn), 0);
        ASSERT_EQ(devmem_close(wires->b.shard, talk.b.conn), 0);
    }
    void talk(std::uint64_t a_sends = 24'000, std::uint64_t b_sends = 4'000, double seconds = 10)
    {
        Conversation made = begin(a_sends, b_sends);
        finish(made, seconds);
    }

    /// A mempool of an end's shard: `dev`, `host`, `hdr`, `tx`.
    static rte_mempool* pool_of(const End& end, const std::string& which)
    {
        std::string name = devmem_shard_pool(end.shard)->name;
        name.resize(name.rfind('_'));
        if (which == "hdr" || which == "tx") // of the shard, whatever its payload is in
            name = name.substr(0, name.find('_', name.find('_') + 1));
        return rte_mempool_lookup((name + "_" + which).c_str());
    }

    /// All fragments and mbufs are where they were born, once the ports have put back what they
    /// keep at hand.
    void expect_all_home()
    {
        wires->run_until([] { return false; }, 0.06); // delayed ACKs
        for (End* end : {&wires->a, &wires->b}) {
            ASSERT_EQ(rte_eth_dev_rx_queue_stop(end->port.port_id, 0), 0);
            for (const char* which : {"dev", "host", "hdr", "tx"}) {
                const rte_mempool* pool = pool_of(*end, which);
                EXPECT_EQ(rte_mempool_in_use_count(pool), 0u) << pool->name;
            }
            ASSERT_EQ(rte_eth_dev_rx_queue_start(end->port.port_id, 0), 0);
            EXPECT_EQ(devmem_pool_zombies(), 0u) << "fragments of a pool that was left";
            devmem_pool_stats pool;
            devmem_pool_stats_get(devmem_shard_pool(end->shard), &pool);
            EXPECT_EQ(pool.double_free + pool.foreign_free, 0u);
            devmem_shard_stats shard;
            devmem_shard_stats_get(end->shard, &shard);
            EXPECT_EQ(shard.stale_returns, 0u);
        }
    }

    /// Talk with the first, the second, ... call of a site failing, with those that follow it,
    /// `count` in all, until it is not called so often any more.
    std::uint64_t fail_each(std::uint32_t site, std::uint64_t count, std::uint64_t bytes = 24'000)
    {
        for (std::uint64_t n = 1;; n++) {
            SCOPED_TRACE("call " + std::to_string(n) + " fails, " + std::to_string(count) +
                         " in all");
            fail_calls(site, n, count);
            talk(bytes);
            if (stop_failing() == 0 || HasFatalFailure())
                return n - 1;
        }
    }

    devmem_shard_stats stats(const End& end)
    {
        devmem_shard_stats stats;
        devmem_shard_stats_get(end.shard, &stats);
        return stats;
    }

    std::unique_ptr<WirePair> wires;
    devmem_listener_t listener = 0;
};

/// Which mempool, of which end, and how many gets in a row fail.
struct Shortage {
    const char* name;
    bool at_b;
    const char* pool;
    std::uint64_t count;
};
void PrintTo(const Shortage& shortage, std::ostream* out)
{
    *out << shortage.name;
}

struct FaultMempool : Faults, testing::WithParamInterface<Shortage> {};

} // namespace

TEST_P(FaultMempool, GetsFail)
{
    const Shortage& shortage = GetParam();
    open({.max_connections = 1000}, {.max_connections = 1000});
    talk();
    watch_mempool(pool_of(shortage.at_b ? wires->b : wires->a, shortage.pool));
    RecordProperty("gets_failed", std::to_string(fail_each(kMempool, shortage.count)));
    expect_all_home();
}

INSTANTIATE_TEST_SUITE_P(Pools, FaultMempool,
                         testing::Values(Shortage{"SenderTx", false, "tx", 1},
                                         Shortage{"SenderTxForAWhile", false, "tx", 100},
                                         Shortage{"ReceiverTx", true, "tx", 1},
                                         Shortage{"ReceiverTxForAWhile", true, "tx", 100},
                                         Shortage{"ReceiverHeaders", true, "hdr", 2},
                                         Shortage{"ReceiverHeadersForAWhile", true, "hdr", 100},
                                         Shortage{"ReceiverPayload", true, "dev", 2},
                                         Shortage{"ReceiverPayloadForAWhile", true, "dev", 100}),
                         [](const auto& info) { return std::string(info.param.name); });

// The first connection asks for the peer's MAC first: a request that finds no mbuf is made again,
// as is one whose answer finds none.
TEST_F(Faults, NoMbufForNeighbours)
{
    for (const bool answer : {false, true}) {
        open({}, {});
        watch_mempool(pool_of(answer ? wires->b : wires->a, "tx"));
        fail_calls(kMempool, 1, answer ? 1 : 3);
        talk();
        EXPECT_EQ(stop_failing(), answer ? 1u : 3u);
        expect_all_home();
    }
}

// The port splits at a byte count that suits headers with timestamps. Without them each segment's
// first bytes come beside the header, and go to host memory: two allocations in a page each.
TEST_F(Faults, NoMemoryForPayloadBesideHeaders)
{
    offer_header_split(false);
    open({.flags = DEVMEM_STACK_NO_TIMESTAMPS, .max_connections = 500}, {.max_connections = 500});
    talk();
    ASSERT_GT(stats(wires->b).split_late, 0u);
    const devmem_shard_stats before = stats(wires->b);
    const std::uint64_t visited = fail_each(kHostBytes, 1, 10'000);
    const devmem_shard_stats after = stats(wires->b);
    EXPECT_EQ(after.drop_no_host_fragment - before.drop_no_host_fragment, visited);
    EXPECT_EQ(after.drop_truncated, before.drop_truncated);
    RecordProperty("allocations_failed", std::to_string(visited));
    expect_all_home();
}

// A port that writes through the provider: what cannot be written is not acknowledged.
TEST_F(Faults, WritesToTheDeviceFail)
{
    open({.max_connections = 500}, {.region = "faulty:size=4M", .max_connections = 500});
    talk();
    RecordProperty("writes_failed", std::to_string(fail_each(kDmaWrite, 1, 8'000)));
    RecordProperty("bursts_of_writes_failed", std::to_string(fail_each(kDmaWrite, 2, 3'000)));
    expect_all_home();
    rte_eth_stats port;
    ASSERT_EQ(rte_eth_stats_get(wires->b.port.port_id, &port), 0);
    EXPECT_GT(port.ierrors, 0u) << "the port says so";
}

// The device is lost for good in mid-stream: its memory is left for the host's, and the stream goes
// on.
TEST_F(Faults, TheDeviceIsLost)
{
    open({}, {.region = "faulty:size=4M"});
    Conversation made = begin(400'000, 4'000);
    ASSERT_TRUE(wires->run_until([&] {
        step(made);
        return made.b.received > 100'000;
    }));
    fail_calls(kDmaWrite, 1, kForEver);
    const std::uint64_t before = stats(wires->b).rx_payload_bytes;
    wires->run_until(
        [&] {
            step(made);
            return false;
        },
        0.1);
    EXPECT_FALSE(made.failed());
    EXPECT_EQ(stats(wires->b).rx_payload_bytes, before) << "nothing more was acknowledged";
    char error[256] = "";
    ASSERT_EQ(devmem_shard_rebind(wires->b.shard, nullptr, error, sizeof(error)), 0) << error;
    finish(made);
    EXPECT_GT(stop_failing(), 0u);
    EXPECT_GT(stats(wires->b).rx_host_bytes, 0u);
    expect_all_home();
}

// Headers that reach into the region are read back through the provider; so is payload, by tools
// and tests. A failure is said, and changes nothing.
TEST_F(Faults, ReadsFromTheDeviceFail)
{
    offer_header_split(false);
    open({.max_connections = 500},
         {.region = "faulty:size=4M", .flags = DEVMEM_STACK_NO_TIMESTAMPS, .max_connections = 500});
    talk();
    RecordProperty("reads_failed", std::to_string(fail_each(kReadBack, 1, 10'000)));
    expect_all_home();
}

// An attempt to change the memory under a stream fails at any allocation, and changes nothing.
TEST_F(Faults, NoMemoryToRebind)
{
    open({}, {.region = "faulty:size=4M"});
    devmem_region* other = nullptr;
    ASSERT_EQ(devmem_region_create("faulty:size=4M", &other, nullptr, 0), 0);
    Conversation made = begin(8u << 20, 4'000);
    unsigned visited = 0;
    for (std::uint64_t n = 1, failed = 1; failed != 0; n++) {
        ASSERT_TRUE(wires->run_until([&, more = made.b.received + 10'000] {
            step(made);
            return made.b.received >= more || HasFatalFailure();
        }));
        char error[256] = "";
        fail_calls(kCreation, n, 1);
        const int rc = devmem_shard_rebind(wires->b.shard, other, error, sizeof(error));
        failed = stop_failing();
        visited += failed != 0 ? 1 : 0;
        if (rc == 0) // it is over, or there was another way
            std::swap(other, wires->b.region);
        ASSERT_TRUE(rc == 0 || (rc == -ENOMEM && failed != 0)) << n << ": " << rc;
        ASSERT_EQ(error[0] == '\0', rc == 0) << n;
    }
    finish(made);
    RecordProperty("allocations_failed", static_cast<int>(visited));
    expect_all_home();
    devmem_region_release(other);
}
