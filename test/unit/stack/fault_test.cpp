// SPDX-License-Identifier: BSD-3-Clause
// Two stacks that talk while something fails: the n-th allocation, the device's memory, a queue,
// the link, whoever polls. What was acknowledged arrives, byte for byte; an application is told
// what it has to know; afterwards all goes on, and nothing is missing.

#include "test/unit/stack/fault_injection.h"
#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_cycles.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>

#include <array>
#include <cerrno>
#include <functional>
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
    std::uint64_t bytes = 24'000;
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
    RecordProperty("gets_failed",
                   std::to_string(fail_each(kMempool, shortage.count, shortage.bytes)));
    expect_all_home();
}

INSTANTIATE_TEST_SUITE_P(
    Pools, FaultMempool,
    testing::Values(Shortage{"SenderTx", false, "tx", 1},
                    Shortage{"SenderTxForAWhile", false, "tx", 100},
                    Shortage{"ReceiverTx", true, "tx", 1},
                    Shortage{"ReceiverTxForAWhile", true, "tx", 100},
                    Shortage{"ReceiverHeaders", true, "hdr", 2, 300'000},
                    Shortage{"ReceiverHeadersForAWhile", true, "hdr", 100, 300'000},
                    Shortage{"ReceiverPayload", true, "dev", 2, 300'000},
                    Shortage{"ReceiverPayloadForAWhile", true, "dev", 100, 300'000}),
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

/* ------------------------------------------------------- what stops, and starts again */

namespace {

/// Something that can be stopped and started.
struct Outage {
    const char* name;
    int (*stop)(WirePair&);
    int (*start)(WirePair&);
    unsigned stride = 1; ///< in polls; what loses packets takes a retransmission timeout each time
};
void PrintTo(const Outage& outage, std::ostream* out)
{
    *out << outage.name;
}

struct FaultOutage : Faults, testing::WithParamInterface<Outage> {
    /// Poll so often, whatever happens.
    void poll(Conversation& talk, unsigned times)
    {
        for (unsigned i = 0; i < times; i++) {
            wires->poll();
            step(talk);
        }
    }
};

} // namespace

// At any point of a connection's life, for a moment.
TEST_P(FaultOutage, Passes)
{
    open({.max_connections = 500}, {.max_connections = 500});
    talk();
    unsigned visited = 0;
    for (bool within = true; within; visited++) {
        SCOPED_TRACE(visited * GetParam().stride);
        Conversation made = begin(200'000, 4'000);
        poll(made, visited * GetParam().stride);
        within = !made.over();
        ASSERT_EQ(GetParam().stop(*wires), 0);
        poll(made, 20);
        ASSERT_EQ(GetParam().start(*wires), 0);
        finish(made);
        if (HasFatalFailure())
            return;
    }
    RecordProperty("points", static_cast<int>(visited));
    expect_all_home();
}

// For longer than an application cares to wait: it is told, and what is opened afterwards works.
TEST_P(FaultOutage, IsToldAfterTheUserTimeout)
{
    open({}, {});
    talk();
    Conversation made = begin(8u << 20, 0);
    const devmem_conn_config patience{.size = sizeof(patience),
                                      .keepalive_ms = 0,
                                      .keepalive_interval_ms = 0,
                                      .keepalive_probes = 0,
                                      .user_timeout_ms = 250};
    ASSERT_EQ(devmem_conn_set(wires->a.shard, made.a.conn, &patience), 0);
    ASSERT_TRUE(wires->run_until([&] {
        step(made);
        return made.b.received > 100'000;
    }));
    ASSERT_EQ(GetParam().stop(*wires), 0);
    devmem_event event{};
    ASSERT_TRUE(
        wires->run_until([&] { return wires->take(wires->a, DEVMEM_EVENT_CLOSED, &event); }, 2));
    EXPECT_EQ(event.error, -ETIMEDOUT);
    EXPECT_EQ(event.conn, made.a.conn);
    ASSERT_EQ(GetParam().start(*wires), 0);
    EXPECT_EQ(devmem_close(wires->a.shard, made.a.conn), 0);
    EXPECT_EQ(devmem_abort(wires->b.shard, made.b.conn), 0);
    talk();
    expect_all_home();
}

namespace {

int link_of(const End& end)
{
    rte_eth_link link;
    return rte_eth_link_get_nowait(end.port.port_id, &link) == 0 ? link.link_status : -1;
}

} // namespace

INSTANTIATE_TEST_SUITE_P(
    Of, FaultOutage,
    testing::Values(
        Outage{"ReceiveQueue",
               [](WirePair& w) { return rte_eth_dev_rx_queue_stop(w.b.port.port_id, 0); },
               [](WirePair& w) { return rte_eth_dev_rx_queue_start(w.b.port.port_id, 0); }},
        Outage{"TransmitQueue",
               [](WirePair& w) { return rte_eth_dev_tx_queue_stop(w.a.port.port_id, 0); },
               [](WirePair& w) { return rte_eth_dev_tx_queue_start(w.a.port.port_id, 0); }},
        Outage{"Link",
               [](WirePair& w) {
                   w.cut = true;
                   const int rc = rte_eth_dev_set_link_down(w.b.port.port_id);
                   return rc != 0 ? rc : link_of(w.b) - RTE_ETH_LINK_DOWN;
               },
               [](WirePair& w) {
                   w.cut = false;
                   const int rc = rte_eth_dev_set_link_up(w.b.port.port_id);
                   return rc != 0 ? rc : link_of(w.b) - RTE_ETH_LINK_UP;
               },
               8}),
    [](const auto& info) { return std::string(info.param.name); });

// The lcore of a shard is busy elsewhere for half a second: its peer waits, and retransmits.
TEST_F(Faults, NobodyPollsForAWhile)
{
    open({}, {});
    Conversation made = begin(4u << 20, 4'000);
    for (unsigned times = 0; times < 3; times++) {
        ASSERT_TRUE(wires->run_until([&, more = made.b.received + 500'000] {
            step(made);
            return made.b.received >= more || HasFatalFailure();
        }));
        devmem_shard* const idle = std::exchange(wires->b.shard, nullptr);
        wires->run_until(
            [&] {
                made.a.step();
                return false;
            },
            0.3);
        wires->b.shard = idle;
    }
    finish(made);
    expect_all_home();
}

namespace {

/// A stack of two shards. Queue i of one end is wired to queue i of the other.
struct TwoShards {
    static constexpr std::uint16_t kQueues = 2;

    TwoShards(const char* name, const char* address)
    {
        std::array<rte_ring*, kQueues> in, out;
        for (unsigned q = 0; q < kQueues; q++) {
            const std::string id = name + std::to_string(q);
            rx[q] = in[q] = rte_ring_create((id + "rx").c_str(), 4096, SOCKET_ID_ANY, 0);
            tx[q] = out[q] = rte_ring_create((id + "tx").c_str(), 4096, SOCKET_ID_ANY, 0);
        }
        ring_port = static_cast<std::uint16_t>(
            rte_eth_from_rings(name, in.data(), kQueues, out.data(), kQueues, 0));
        make(address);
    }
    void make(const char* address)
    {
        char port_name[RTE_ETH_NAME_MAX_LEN];
        char error[256] = "";
        ASSERT_EQ(rte_eth_dev_get_name_by_port(ring_port, port_name), 0);
        ASSERT_EQ(devmem_port_open(port_name, kQueues, &port, error, sizeof(error)), 0) << error;
        rte_ether_addr mac{{0x02, 0, 0, 0, 1, static_cast<std::uint8_t>(ring_port)}};
        ASSERT_EQ(rte_eth_dev_default_mac_addr_set(port.port_id, &mac), 0);
        ASSERT_EQ(devmem_region_create("opaque:size=16M", &region, error, sizeof(error)), 0)
            << error;
        ASSERT_EQ(devmem_addr_parse(address, &addr), 0);
        devmem_stack_config config{};
        config.size = sizeof(config);
        config.port_id = port.port_id;
        config.shards = kQueues;
        config.region = region;
        config.addrs = &addr;
        config.naddrs = 1;
        config.host_bytes = 1u << 20;
        ASSERT_EQ(devmem_stack_create(&config, &stack, error, sizeof(error)), 0) << error;
        for (unsigned q = 0; q < kQueues; q++)
            shards[q].shard = devmem_stack_shard(stack, q);
    }
    ~TwoShards()
    {
        for (rte_ring* ring : rx)
            carry(ring, nullptr);
        devmem_stack_destroy(stack);
        devmem_port_close(&port);
        rte_eth_dev_close(ring_port);
        for (unsigned q = 0; q < kQueues; q++) {
            carry(tx[q], nullptr);
            rte_ring_free(rx[q]);
            rte_ring_free(tx[q]);
        }
        devmem_region_release(region);
    }
    /// @param to nullptr: nowhere
    static void carry(rte_ring* from, rte_ring* to)
    {
        for (void* m = nullptr; rte_ring_dequeue(from, &m) == 0;) {
            if (to == nullptr || rte_ring_enqueue(to, m) != 0)
                rte_pktmbuf_free(static_cast<rte_mbuf*>(m));
        }
    }

    std::array<rte_ring*, kQueues> rx{}, tx{};
    std::uint16_t ring_port = 0;
    devmem_port port{};
    devmem_region* region = nullptr;
    devmem_stack* stack = nullptr;
    devmem_addr addr{};
    std::array<End, kQueues> shards; ///< only `shard` and `events`
};

} // namespace

// One shard's lcore stops for good, with bytes received and not taken, tokens out and a connection
// open. The other's traffic does not notice; the peer is told; all memory comes back.
TEST_F(Faults, AShardStopsForGood)
{
    start_eal();
    std::vector<devmem_token> kept;
    {
        TwoShards a("tsa", "10.0.0.1/24"), b("tsb", "10.0.0.2/24");
        bool stopped = false;
        const auto poll = [&](End& end) {
            std::array<devmem_event, 16> events;
            const unsigned n = devmem_shard_poll(end.shard, events.data(), events.size(), nullptr);
            end.events.insert(end.events.end(), events.begin(), events.begin() + n);
        };
        const auto until = [&](const std::function<bool()>& done) {
            const std::uint64_t deadline = rte_rdtsc() + 5 * rte_get_tsc_hz();
            bool is = false;
            while (!(is = done()) && rte_rdtsc() < deadline && !HasFatalFailure()) {
                for (unsigned q = 0; q < TwoShards::kQueues; q++) {
                    poll(a.shards[q]);
                    if (q == 0 || !stopped)
                        poll(b.shards[q]);
                    TwoShards::carry(a.tx[q], b.rx[q]);
                    TwoShards::carry(b.tx[q], a.rx[q]);
                }
            }
            return is;
        };

        std::array<Conversation, TwoShards::kQueues> talks;
        for (unsigned q = 0; q < TwoShards::kQueues; q++) {
            devmem_listener_t listening = 0;
            ASSERT_EQ(devmem_listen(b.shards[q].shard, kPort, 4, &listening), 0);
            talks[q].a = {.end = &a.shards[q], .to_send = 4u << 20};
            talks[q].b = {.end = &b.shards[q], .to_send = 4'000};
            const devmem_endpoint remote{b.addr, kPort};
            ASSERT_EQ(devmem_connect(a.shards[q].shard, &remote, &talks[q].a.conn), 0);
            ASSERT_TRUE(until([&] {
                return devmem_accept(b.shards[q].shard, listening, &talks[q].b.conn) == 0;
            }));
        }
        const devmem_conn_config patience{.size = sizeof(patience),
                                          .keepalive_ms = 0,
                                          .keepalive_interval_ms = 0,
                                          .keepalive_probes = 0,
                                          .user_timeout_ms = 250};
        ASSERT_EQ(devmem_conn_set(a.shards[1].shard, talks[1].a.conn, &patience), 0);
        kept.resize(8);
        ASSERT_TRUE(until([&] {
            talks[1].a.step();
            return stats(b.shards[1]).rx_payload_bytes > 200'000;
        }));
        const int n = devmem_recv(b.shards[1].shard, talks[1].b.conn, kept.data(), 8);
        ASSERT_GT(n, 0);
        kept.resize(static_cast<std::size_t>(n));

        stopped = true;
        ASSERT_TRUE(until([&] {
            talks[0].step();
            return talks[0].over() || talks[0].failed();
        })) << talks[0].b.received;
        EXPECT_EQ(talks[0].b.received, 4u << 20);
        EXPECT_EQ(talks[0].a.received, 4'000u);
        EXPECT_EQ(stats(a.shards[0]).tx_retransmits, 0u);
        devmem_event event{};
        ASSERT_TRUE(
            until([&] { return WirePair::take(a.shards[1], DEVMEM_EVENT_CLOSED, &event); }));
        EXPECT_EQ(event.error, -ETIMEDOUT);
    }
    // The bytes of a token are as they were, whoever is gone.
    Talker reader;
    for (const devmem_token& token : kept)
        reader.check(token);
    EXPECT_EQ(devmem_token_return(kept.data(), static_cast<unsigned>(kept.size())),
              static_cast<int>(kept.size()));
    unsigned mempools = 0;
    rte_mempool_walk([](rte_mempool*, void* count) { ++*static_cast<unsigned*>(count); },
                     &mempools);
    EXPECT_EQ(mempools, 0u);
    EXPECT_EQ(devmem_pool_zombies(), 0u);
}
