// SPDX-License-Identifier: BSD-3-Clause
// Opening and ending connections through the API.

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_ethdev.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <vector>

using namespace devmem;
using namespace devmem::test;

namespace {

constexpr std::uint8_t kHost = 1, kPort = 3; ///< unreachable, RFC 792

/// The ICMP message about an IPv4 packet of ours: Ethernet and IPv4 back, then type 3 and the head
/// of the packet. @param number_off added to the sequence number it quotes
std::vector<std::uint8_t> unreachable(std::span<const std::uint8_t> sent, std::uint8_t code,
                                      std::uint8_t number_off)
{
    constexpr std::size_t kEthernet = 14, kIp = 20, kIcmp = 8, kQuote = 28;
    std::vector<std::uint8_t> frame(kEthernet + kIp + kIcmp + kQuote);
    std::copy_n(&sent[6], 6, &frame[0]);
    std::copy_n(&sent[0], 6, &frame[6]);
    frame[12] = 0x08;
    std::uint8_t* ip = &frame[kEthernet];
    ip[0] = 0x45;
    ip[3] = kIp + kIcmp + kQuote;
    ip[8] = 64;
    ip[9] = 1;
    std::copy_n(&sent[kEthernet + 16], 4, &ip[12]);
    std::copy_n(&sent[kEthernet + 12], 4, &ip[16]);
    std::uint8_t* icmp = ip + kIp;
    icmp[0] = 3;
    icmp[1] = code;
    std::copy_n(&sent[kEthernet], kQuote, icmp + kIcmp);
    icmp[kIcmp + kIp + 4] = static_cast<std::uint8_t>(icmp[kIcmp + kIp + 4] + number_off);
    const auto sum = [](std::uint8_t* at, std::span<const std::uint8_t> bytes) {
        const std::uint16_t value = wire::checksum_fold(wire::checksum_add(0, bytes));
        at[0] = static_cast<std::uint8_t>(value >> 8);
        at[1] = static_cast<std::uint8_t>(value);
    };
    sum(ip + 10, {ip, kIp});
    sum(icmp + 2, {icmp, kIcmp + kQuote});
    return frame;
}

} // namespace

TEST(Connection, ClosedPortRefuses)
{
    WirePair wires({}, {});
    devmem_conn_t client = 0;
    const devmem_endpoint remote{wires.b.addr, 81};
    ASSERT_EQ(devmem_connect(wires.a.shard, &remote, &client), 0);
    devmem_event event;
    ASSERT_TRUE(
        wires.run_until([&] { return WirePair::take(wires.a, DEVMEM_EVENT_CLOSED, &event); }));
    EXPECT_EQ(event.error, -ECONNREFUSED);
    EXPECT_EQ(event.conn, client);
    EXPECT_EQ(devmem_close(wires.a.shard, client), 0);
}

TEST(Connection, SilentNeighbourIsUnreachable)
{
    WirePair wires({}, {});
    wires.cut = true;
    devmem_conn_t client = 0;
    const devmem_endpoint remote{wires.b.addr, 80};
    ASSERT_EQ(devmem_connect(wires.a.shard, &remote, &client), 0);
    devmem_event event;
    ASSERT_TRUE(
        wires.run_until([&] { return WirePair::take(wires.a, DEVMEM_EVENT_CLOSED, &event); }, 6));
    EXPECT_EQ(event.error, -EHOSTUNREACH);
}

TEST(Connection, OffLinkWithoutGateway)
{
    WirePair wires({}, {});
    devmem_endpoint remote{};
    ASSERT_EQ(devmem_addr_parse("192.0.2.1", &remote.addr), 0);
    remote.port = 80;
    devmem_conn_t client = 0;
    EXPECT_EQ(devmem_connect(wires.a.shard, &remote, &client), -ENETUNREACH);
    ASSERT_EQ(devmem_addr_parse("2001:db8::1", &remote.addr), 0);
    EXPECT_EQ(devmem_connect(wires.a.shard, &remote, &client), -EADDRNOTAVAIL);
}

TEST(Connection, BacklogIsABound)
{
    WirePair wires({}, {});
    wires.listen(80, 2);
    const devmem_endpoint remote{wires.b.addr, 80};
    devmem_conn_t clients[4];
    devmem_event event;
    unsigned connected = 0;
    for (devmem_conn_t& client : clients) { // one by one: half open they would be told by cookie
        ASSERT_EQ(devmem_connect(wires.a.shard, &remote, &client), 0);
        wires.run_until([] { return false; }, 0.1);
    }
    while (WirePair::take(wires.a, DEVMEM_EVENT_CONNECTED, &event))
        connected++;
    EXPECT_EQ(connected, 2u);
    devmem_shard_stats stats;
    devmem_shard_stats_get(wires.b.shard, &stats);
    EXPECT_GE(stats.drop_listen_overflow, 2u);
}

TEST(Connection, HandlesAreReusedManyTimes)
{
    // More connections in sequence than there are slots; the passive side closes last.
    WirePair wires({.max_connections = 256}, {.max_connections = 4});
    for (unsigned i = 0; i < 32; i++) {
        devmem_conn_t client = 0, server = 0;
        ASSERT_TRUE(wires.establish(80, &client, &server)) << i;
        ASSERT_EQ(devmem_close(wires.a.shard, client), 0);
        devmem_token token;
        ASSERT_TRUE(
            wires.run_until([&] { return devmem_recv(wires.b.shard, server, &token, 1) == 0; }));
        ASSERT_EQ(devmem_close(wires.b.shard, server), 0);
        wires.run_until([] { return false; }, 0.01);
    }
}

TEST(Connection, ResetReachesTheApplication)
{
    WirePair wires({}, {});
    devmem_conn_t client = 0, server = 0;
    ASSERT_TRUE(wires.establish(80, &client, &server));
    ASSERT_EQ(devmem_abort(wires.a.shard, client), 0);
    devmem_event event;
    ASSERT_TRUE(
        wires.run_until([&] { return WirePair::take(wires.b, DEVMEM_EVENT_CLOSED, &event); }));
    EXPECT_EQ(event.error, -ECONNRESET);
    devmem_token token;
    EXPECT_EQ(devmem_recv(wires.b.shard, server, &token, 1), -ECONNRESET);
    EXPECT_EQ(devmem_close(wires.b.shard, server), 0);
}

TEST(Connection, BothWays)
{
    WirePair wires({}, {}, true);
    devmem_conn_t client = 0, server = 0;
    ASSERT_TRUE(wires.establish(80, &client, &server));
    ASSERT_EQ(devmem_send(wires.a.shard, client, "ping", 4), 4);
    devmem_token token;
    ASSERT_TRUE(
        wires.run_until([&] { return devmem_recv(wires.b.shard, server, &token, 1) == 1; }));
    EXPECT_EQ(bytes_of(token), (std::vector<std::uint8_t>{'p', 'i', 'n', 'g'}));
    ASSERT_EQ(devmem_token_return(&token, 1), 1);
    ASSERT_EQ(devmem_send(wires.b.shard, server, "pong!", 5), 5);
    ASSERT_TRUE(
        wires.run_until([&] { return devmem_recv(wires.a.shard, client, &token, 1) == 1; }));
    EXPECT_EQ(bytes_of(token), (std::vector<std::uint8_t>{'p', 'o', 'n', 'g', '!'}));
    ASSERT_EQ(devmem_token_return(&token, 1), 1);
}

TEST(Connection, SilentPeerIsNoticed)
{
    for (const bool keepalive : {true, false}) {
        WirePair wires({}, {});
        devmem_conn_t client = 0, server = 0;
        ASSERT_TRUE(wires.establish(80, &client, &server));
        devmem_conn_config config{};
        EXPECT_EQ(devmem_conn_set(wires.a.shard, client, &config), -EINVAL);
        config.size = sizeof(config);
        EXPECT_EQ(devmem_conn_set(wires.a.shard, ~devmem_conn_t{0}, &config), -EBADF);
        config.keepalive_ms = keepalive ? 100 : 0;
        config.keepalive_interval_ms = 50;
        config.keepalive_probes = 2;
        config.user_timeout_ms = keepalive ? 0 : 200;
        ASSERT_EQ(devmem_conn_set(wires.a.shard, client, &config), 0);
        devmem_event event;
        EXPECT_FALSE(wires.run_until(
            [&] { return WirePair::take(wires.a, DEVMEM_EVENT_CLOSED, &event); }, 0.5))
            << "it answers";
        wires.cut = true;
        ASSERT_EQ(devmem_send(wires.a.shard, client, "x", keepalive ? 0 : 1), keepalive ? 0 : 1);
        ASSERT_TRUE(wires.run_until(
            [&] { return WirePair::take(wires.a, DEVMEM_EVENT_CLOSED, &event); }, 2));
        EXPECT_EQ(event.error, -ETIMEDOUT);
        EXPECT_EQ(devmem_close(wires.a.shard, client), 0);
    }
}

// The same four-tuple again, while the first connection is in TIME-WAIT at the listener's end.
TEST(Connection, TimeWaitMakesRoomForTheNext)
{
    WirePair wires({}, {});
    wires.listen(80);
    wire::Flow flow{};
    flow.src = {4, {10, 0, 0, 1}};
    flow.dst = {4, {10, 0, 0, 2}};
    flow.src_port = 4000;
    flow.dst_port = 80;
    flow.src_mac = {2, 0, 0, 0, 0, 99};
    flow.dst_mac = {2, 0, 0, 0, 0, 2};
    constexpr std::uint8_t kFin = 1, kSyn = 2, kAck = 16;
    wire::Packet packet;
    // Send and look at what comes back.
    const auto exchange = [&](std::uint32_t seq, std::uint32_t ack, std::uint8_t flags,
                              std::uint32_t tsval) {
        wire::TcpOptions options;
        options.timestamps = true;
        options.ts_val = tsval;
        options.ts_ecr = (flags & kAck) != 0 ? packet.options.ts_val : 0;
        ASSERT_TRUE(wires.inject(wires.b, flow, {seq, ack, 65535, flags}, options));
        devmem_event events[4];
        for (int i = 0; i < 3; i++)
            devmem_shard_poll(wires.b.shard, events, 4, nullptr);
        void* item = nullptr;
        while (rte_ring_dequeue(wires.b.tx, &item) == 0) {
            auto* m = static_cast<rte_mbuf*>(item);
            const std::uint8_t* bytes = rte_pktmbuf_mtod(m, const std::uint8_t*);
            EXPECT_EQ(
                wire::parse({bytes, rte_pktmbuf_data_len(m)}, rte_pktmbuf_pkt_len(m), &packet),
                wire::Verdict::kOk);
            rte_pktmbuf_free(m);
        }
    };
    std::uint32_t last = 0;
    for (std::uint32_t round = 0; round < 5; round++) {
        const std::uint32_t isn =
            0x80000000u - round * 0x10000000; // numbers go back, time does not
        const std::uint32_t ts = 1000 + 10 * round;
        exchange(isn, 0, kSyn, ts);
        ASSERT_EQ(packet.flags, kSyn | kAck) << round;
        ASSERT_EQ(packet.ack, isn + 1);
        const std::uint32_t iss = packet.seq;
        EXPECT_TRUE(round == 0 || static_cast<std::int32_t>(iss - last) > 0) << "RFC 9293 3.4.1";
        exchange(isn + 1, iss + 1, kAck, ts);
        devmem_conn_t conn = 0;
        ASSERT_EQ(devmem_accept(wires.b.shard, 0, &conn), 0) << round;
        ASSERT_EQ(devmem_close(wires.b.shard, conn), 0); // our FIN first
        exchange(isn + 1, iss + 1, kAck, ts + 1);
        exchange(isn + 1, iss + 2, kFin | kAck, ts + 2);
        ASSERT_EQ(packet.ack, isn + 2);
        last = packet.seq;
        exchange(isn - 1000, 0, kSyn, ts); // older than what was seen: stays
        EXPECT_EQ(packet.flags, kAck);
    }
    devmem_shard_stats stats;
    devmem_shard_stats_get(wires.b.shard, &stats);
    EXPECT_EQ(stats.time_wait_reused, 4u);
    EXPECT_EQ(stats.conn_opened, 5u);
}

// RFC 9293 3.9.2.3 and RFC 1122 4.2.3.10: only hosts are answered, and connected to.
TEST(Connection, NeitherToNorFromWhatIsNoHost)
{
    WirePair wires({}, {});
    wires.listen(80);
    const auto ip = [](const char* text) {
        devmem_addr addr;
        EXPECT_EQ(devmem_addr_parse(text, &addr), 0) << text;
        return addr;
    };
    for (const char* text :
         {"0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "ff02::1", "::"}) {
        const devmem_endpoint remote{ip(text), 80};
        devmem_conn_t conn;
        EXPECT_EQ(devmem_connect(wires.a.shard, &remote, &conn), -EINVAL) << text;
    }

    wire::Flow flow{};
    flow.src_port = 4000;
    flow.dst_port = 80;
    flow.src_mac = {2, 0, 0, 0, 0, 99};
    flow.dst_mac = {2, 0, 0, 0, 0, 2};
    const auto answers = [&](wire::Ip src, wire::Ip dst) {
        flow.src = src;
        flow.dst = dst;
        constexpr std::uint8_t kSyn = 2;
        EXPECT_TRUE(wires.inject(wires.b, flow, {1, 0, 65535, kSyn}, {}));
        devmem_event events[4];
        for (int i = 0; i < 3; i++)
            devmem_shard_poll(wires.b.shard, events, 4, nullptr);
        unsigned n = 0;
        for (void* item; rte_ring_dequeue(wires.b.tx, &item) == 0; n++)
            rte_pktmbuf_free(static_cast<rte_mbuf*>(item));
        return n;
    };
    const wire::Ip peer{4, {10, 0, 0, 1}}, ours{4, {10, 0, 0, 2}};
    for (const wire::Ip& none : {wire::Ip{4, {}}, wire::Ip{4, {224, 0, 0, 1}},
                                 wire::Ip{4, {240, 0, 0, 1}}, wire::Ip{4, {255, 255, 255, 255}}}) {
        EXPECT_EQ(answers(none, ours), 0u) << int{none.bytes[0]};
        EXPECT_EQ(answers(peer, none), 0u) << int{none.bytes[0]};
    }
    EXPECT_EQ(answers(peer, {4, {10, 0, 0, 255}}), 0u) << "of our network, to all";
    EXPECT_EQ(answers(peer, ours), 1u) << "a host";
}

// An ICMP error reaches the connection it is about, by what it quotes (RFC 792, RFC 5927).
TEST(Connection, IcmpPortUnreachableRefuses)
{
    WirePair wires({}, {});
    devmem_conn_t client = 0, server = 0;
    ASSERT_TRUE(wires.establish(80, &client, &server)); // each knows the other's MAC
    const devmem_endpoint remote{wires.b.addr, 81};
    ASSERT_EQ(devmem_connect(wires.a.shard, &remote, &client), 0);
    devmem_event events[4];
    std::vector<std::uint8_t> syn;
    for (int i = 0; i < 10 && syn.empty(); i++) {
        devmem_shard_poll(wires.a.shard, events, 4, nullptr);
        void* item = nullptr;
        if (rte_ring_dequeue(wires.a.tx, &item) == 0) {
            auto* m = static_cast<rte_mbuf*>(item);
            const auto* bytes = rte_pktmbuf_mtod(m, const std::uint8_t*);
            syn.assign(bytes, bytes + rte_pktmbuf_data_len(m));
            rte_pktmbuf_free(m);
        }
    }
    ASSERT_GE(syn.size(), 14u + 20 + 20);

    wires.cut = true;
    devmem_event event;
    const auto closed = [&] { return WirePair::take(wires.a, DEVMEM_EVENT_CLOSED, &event); };
    ASSERT_TRUE(wires.inject(wires.a, unreachable(syn, kPort, 1)));
    ASSERT_TRUE(wires.inject(wires.a, unreachable(syn, kHost, 0)));
    EXPECT_FALSE(wires.run_until(closed, 0.1)) << "a wrong number; a soft error";
    ASSERT_TRUE(wires.inject(wires.a, unreachable(syn, kPort, 0)));
    ASSERT_TRUE(wires.run_until(closed, 1));
    EXPECT_EQ(event.error, -ECONNREFUSED);
}

// RFC 9293 3.8.3 (SHLD-9): the application is told of R1, and why if that is known.
TEST(Connection, RetryingIsToldWithTheReason)
{
    WirePair wires({}, {});
    devmem_conn_t client = 0, server = 0;
    ASSERT_TRUE(wires.establish(80, &client, &server));
    wires.cut = wires.seen_a.keep = true;
    ASSERT_EQ(devmem_send(wires.a.shard, client, "x", 1), 1);
    ASSERT_TRUE(wires.run_until([&] { return !wires.seen_a.frames.empty(); }));
    ASSERT_TRUE(wires.inject(wires.a, unreachable(wires.seen_a.frames[0], kHost, 0)));
    devmem_event event{};
    ASSERT_TRUE(
        wires.run_until([&] { return WirePair::take(wires.a, DEVMEM_EVENT_RETRYING, &event); }, 5));
    EXPECT_EQ(event.conn, client);
    EXPECT_EQ(event.error, -EHOSTUNREACH);
    EXPECT_EQ(wires.seen_a.frames.size(), 4u) << "the segment, and three times again";
    EXPECT_TRUE(wires.a.events.empty()) << "nothing is given up";
}

TEST(PortOpen, AThresholdIsForAPortMadeForIt)
{
    WirePair wires({}, {.hds_thresh = 256});
    char name[RTE_ETH_NAME_MAX_LEN];
    ASSERT_EQ(rte_eth_dev_get_name_by_port(wires.b.port.port_id, name), 0);
    devmem_port port;
    char error[256] = "";
    devmem_port_config config{.size = sizeof(config), .spec = name, .queues = 1, .hds_thresh = 1};
    EXPECT_EQ(devmem_port_open_config(&config, &port, error, sizeof(error)), -ENOTSUP);
    EXPECT_NE(std::string(error).find("hds_thresh="), std::string::npos) << error;
    config.hds_thresh = 0;
    EXPECT_EQ(devmem_port_open_config(&config, &port, error, sizeof(error)), 0);
    EXPECT_FALSE(port.created || port.wrapped);
    config.size--;
    EXPECT_EQ(devmem_port_open_config(&config, &port, error, sizeof(error)), -EINVAL);
    EXPECT_NE(std::string(error).find("size"), std::string::npos) << error;
}
