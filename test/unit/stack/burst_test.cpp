// SPDX-License-Identifier: BSD-3-Clause
// Bursts of packets as a port that splits may deliver them: of several connections, both families,
// in order and not, split, not split, split wrongly. However many come between two polls, every
// connection's bytes are those that were sent to it.
#include "lib/stack/shard.h"
#include "test/bench/split_ring.h"
#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_mbuf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

using namespace devmem;
using namespace devmem::test;

namespace {

constexpr std::uint16_t kPort = 80;
constexpr std::uint8_t kFin = 0x01, kSyn = 0x02, kPsh = 0x08, kAck = 0x10, kEce = 0x40, kCwr = 0x80;
constexpr std::uint32_t kMostText = 1428; ///< of IPv6 with timestamps: one fragment

struct Peer {
    wire::Flow flow{};
    bool timestamps = true;
    bool ecn = true;
    std::uint32_t iss = 0, irs = 0;
    std::uint64_t sent = 0, received = 0; ///< bytes of the stream
    std::uint32_t ts_val = 1000;
    std::uint16_t window = 5000;
    devmem_conn_t conn = 0;
};

struct Burst : testing::TestWithParam<unsigned> {
    void open(const char* spec, std::uint32_t flags = 0)
    {
        start_eal();
        ring = std::make_unique<bench::SplitRing>(std::uint16_t{1500});
        char error[256] = "";
        ASSERT_EQ(devmem_region_create(spec, &region, error, sizeof error), 0) << error;
        std::array<devmem_addr, 2> addresses{};
        ASSERT_EQ(devmem_addr_parse("10.0.0.2/24", &addresses[0]), 0);
        ASSERT_EQ(devmem_addr_parse("fd00::2/64", &addresses[1]), 0);
        devmem_stack_config config{};
        config.size = sizeof config;
        config.port_id = ring->port_id();
        config.region = region;
        config.flags = flags;
        config.addrs = addresses.data();
        config.naddrs = addresses.size();
        config.max_connections = 16;
        config.host_bytes = 1u << 20;
        ASSERT_EQ(devmem_stack_create(&config, &stack, error, sizeof error), 0) << error;
        shard = devmem_stack_shard(stack, 0);
        ASSERT_EQ(devmem_listen(shard, kPort, 8, &listener), 0);
        for (unsigned i = 0; i < peers.size(); i++)
            establish(peers[i], i, flags);
    }
    ~Burst() override
    {
        drop_transmitted();
        if (stack != nullptr)
            devmem_stack_destroy(stack);
        if (region != nullptr)
            devmem_region_release(region);
    }

    static wire::Ip ip(const char* text)
    {
        devmem_addr address{};
        EXPECT_EQ(devmem_addr_parse(text, &address), 0);
        wire::Ip made{address.family, {}};
        std::copy_n(address.bytes, 16, made.bytes.begin());
        return made;
    }

    rte_mbuf* header(const Peer& peer, std::uint8_t flags, std::uint64_t at, std::uint32_t text,
                     wire::Ecn ecn = wire::kNotEct)
    {
        wire::TcpOptions options;
        options.timestamps = peer.timestamps;
        options.ts_val = peer.ts_val;
        const bool syn = (flags & kSyn) != 0;
        if (syn) {
            options.mss = 1460;
            options.window_scale = 7;
        }
        rte_mbuf* m = rte_pktmbuf_alloc(shard->header_pool());
        const std::vector<std::uint8_t> none(text);
        const std::size_t bytes = wire::write_tcp(
            {rte_pktmbuf_mtod(m, std::uint8_t*), rte_pktmbuf_tailroom(m)}, peer.flow,
            {static_cast<std::uint32_t>(peer.iss + (syn ? 0 : 1 + at)), syn ? 0 : peer.irs + 1,
             peer.window, flags, ecn},
            options, none, {}, static_cast<std::uint16_t>(at));
        rte_pktmbuf_append(m, static_cast<std::uint16_t>(bytes));
        m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_GOOD;
        return m;
    }

    /// Bytes of a peer's stream.
    std::uint8_t byte(const Peer& peer, std::uint64_t at) const
    {
        return stream_byte(at + peer.flow.src_port * 0x100000000ull);
    }
    void append_text(const Peer& peer, rte_mbuf* m, std::uint64_t at, std::uint32_t n) const
    {
        auto* to =
            reinterpret_cast<std::uint8_t*>(rte_pktmbuf_append(m, static_cast<std::uint16_t>(n)));
        for (std::uint32_t i = 0; i < n; i++)
            to[i] = byte(peer, at + i);
    }

    void send(rte_mbuf* m)
    {
        ASSERT_EQ(rte_ring_enqueue(ring->rx[0], m), 0);
        if (++waiting == GetParam())
            poll();
    }

    /// Text [at, at + n) of a peer's stream, in one of the ways that it may lie. New text may be
    /// marked on its way, or say that an earlier mark was heard of.
    void send_text(const Peer& peer, std::uint64_t at, std::uint32_t n, bool news = true)
    {
        const bool mark = news && random() % 8 == 0;
        const bool heard = news && random() % 8 == 0;
        marked += mark && peer.ecn ? 1 : 0;
        rte_mbuf* const m = header(
            peer,
            static_cast<std::uint8_t>(kAck | (random() % 4 == 0 ? kPsh : 0) | (heard ? kCwr : 0)),
            at, n,
            mark   ? wire::kCe
            : news ? wire::kEct0
                   : wire::kNotEct);
        const unsigned way = random() % 16;
        if (way == 0 && n <= rte_pktmbuf_tailroom(m)) { // not split
            append_text(peer, m, at, n);
        } else if (way == 1) { // whole in the payload pool, if it fits
            rte_mbuf* whole = rte_pktmbuf_alloc(shard->payload_mempool());
            whole->data_off = 0;
            if (rte_pktmbuf_data_len(m) + n <= whole->buf_len) {
                std::memcpy(rte_pktmbuf_append(whole, rte_pktmbuf_data_len(m)),
                            rte_pktmbuf_mtod(m, void*), rte_pktmbuf_data_len(m));
                append_text(peer, whole, at, n);
                whole->ol_flags |= m->ol_flags;
                rte_pktmbuf_free(m);
                send(whole);
                return;
            }
            rte_pktmbuf_free(whole);
            split(peer, m, at, n);
        } else if (way == 2 && n > 20) { // split too late
            append_text(peer, m, at, 20);
            split(peer, m, at + 20, n - 20);
        } else {
            split(peer, m, at, n);
        }
        send(m);
    }
    void split(const Peer& peer, rte_mbuf* m, std::uint64_t at, std::uint32_t n)
    {
        rte_mbuf* const text = rte_pktmbuf_alloc(shard->payload_mempool());
        const std::uint32_t spare = text->buf_len - n;
        text->data_off = static_cast<std::uint16_t>(random() % 8 == 0 ? spare : 0);
        append_text(peer, text, at, n);
        ASSERT_EQ(rte_pktmbuf_chain(m, text), 0);
    }

    void poll()
    {
        waiting = 0;
        std::array<devmem_event, 64> events;
        const bool all_at_once = readable && random() % 2 == 0;
        devmem_shard_poll(shard, events.data(), all_at_once ? 0 : events.size(), nullptr);
        if (all_at_once) {
            receive_all();
            EXPECT_EQ(devmem_shard_events(shard, events.data(), events.size()), 0u);
        }
        for (Peer& peer : peers)
            receive(peer);
        drop_transmitted();
    }
    /// Without being told who has something.
    void receive_all()
    {
        std::array<devmem_conn_t, 16> conns;
        std::array<devmem_token, 16> tokens;
        const auto room = 1 + static_cast<unsigned>(random() % tokens.size());
        while (const unsigned n = devmem_recv_burst(shard, conns.data(), tokens.data(), room)) {
            ASSERT_LE(n, room);
            for (unsigned i = 0; i < n; i++) {
                Peer* const peer = std::ranges::find(peers, conns[i], &Peer::conn);
                ASSERT_NE(peer, peers.end());
                for (const std::uint8_t got : bytes_of(tokens[i]))
                    ASSERT_EQ(got, byte(*peer, peer->received++));
            }
            ASSERT_EQ(devmem_token_return(tokens.data(), n), static_cast<int>(n));
        }
    }
    void receive(Peer& peer)
    {
        std::array<devmem_token, 16> tokens;
        int n;
        while (readable && (n = devmem_recv(shard, peer.conn, tokens.data(), tokens.size())) > 0) {
            for (int i = 0; i < n; i++) {
                for (const std::uint8_t got : bytes_of(tokens[static_cast<std::size_t>(i)]))
                    ASSERT_EQ(got, byte(peer, peer.received++));
            }
            ASSERT_EQ(devmem_token_return(tokens.data(), static_cast<unsigned>(n)), n);
        }
    }
    void drop_transmitted()
    {
        void* item;
        while (ring != nullptr && rte_ring_dequeue(ring->tx[0], &item) == 0)
            rte_pktmbuf_free(static_cast<rte_mbuf*>(item));
    }

    void establish(Peer& peer, unsigned number, std::uint32_t flags)
    {
        const bool ipv6 = number % 2 != 0;
        peer.flow.src = ip(ipv6 ? "fd00::1" : "10.0.0.1");
        peer.flow.dst = ip(ipv6 ? "fd00::2" : "10.0.0.2");
        peer.flow.src_port = static_cast<std::uint16_t>(40000 + number);
        peer.flow.dst_port = kPort;
        peer.flow.src_mac = {2, 0, 0, 0, 0, 9};
        peer.flow.dst_mac = ring->mac();
        peer.timestamps = number < 3;
        const bool asks = number != 2;
        peer.ecn = asks && (flags & DEVMEM_STACK_NO_ECN) == 0;
        peer.iss = static_cast<std::uint32_t>(random()) | 0xfff00000; // it wraps
        const auto syn = static_cast<std::uint8_t>(kSyn | (asks ? kEce | kCwr : 0));
        ASSERT_EQ(rte_ring_enqueue(ring->rx[0], header(peer, syn, 0, 0)), 0);
        std::array<devmem_event, 8> events;
        devmem_shard_poll(shard, events.data(), events.size(), nullptr);
        void* item = nullptr;
        ASSERT_EQ(rte_ring_dequeue(ring->tx[0], &item), 0);
        auto* const answer = static_cast<rte_mbuf*>(item);
        wire::Packet packet;
        ASSERT_EQ(wire::parse(
                      {rte_pktmbuf_mtod(answer, const std::uint8_t*), rte_pktmbuf_data_len(answer)},
                      rte_pktmbuf_pkt_len(answer), &packet),
                  wire::Verdict::kOk);
        rte_pktmbuf_free(answer);
        ASSERT_EQ(packet.flags, kSyn | kAck | (peer.ecn ? kEce : 0));
        peer.irs = packet.seq;
        ASSERT_EQ(rte_ring_enqueue(ring->rx[0], header(peer, kAck, 0, 0)), 0);
        devmem_shard_poll(shard, events.data(), events.size(), nullptr);
        ASSERT_EQ(devmem_accept(shard, listener, &peer.conn), 0);
    }

    std::unique_ptr<bench::SplitRing> ring;
    devmem_region* region = nullptr;
    devmem_stack* stack = nullptr;
    devmem_shard* shard = nullptr;
    devmem_listener_t listener = 0;
    std::array<Peer, 4> peers; ///< of either family, with timestamps but for the last
    bool readable = true;
    unsigned waiting = 0;
    std::uint64_t marked = 0; ///< segments, of connections that agreed on ECN
    std::mt19937 random{GetParam()};
};

} // namespace

TEST_P(Burst, DeliversWhatWasSent)
{
    open("host:size=16M,huge=no");
    for (int i = 0; i < 20'000 && !HasFatalFailure(); i++) {
        Peer& peer = peers[random() % peers.size()];
        if (random() % 50 == 0)
            peer.ts_val++;
        if (random() % 50 == 0)
            peer.window++;
        const auto size = [&] {
            return random() % 3 == 0 ? 1 + static_cast<std::uint32_t>(random() % kMostText)
                                     : kMostText;
        };
        const unsigned run = random() % 8;
        for (unsigned k = 0; k < run; k++) {
            const std::uint32_t n = size();
            send_text(peer, peer.sent, n);
            peer.sent += n;
        }
        if (random() % 8 == 0) { // two change places
            const std::uint32_t first = size(), second = size();
            send_text(peer, peer.sent + first, second);
            send_text(peer, peer.sent, first);
            peer.sent += first + second;
        }
        if (random() % 8 == 0 && peer.sent != 0) { // again
            const auto n = static_cast<std::uint32_t>(std::min<std::uint64_t>(size(), peer.sent));
            send_text(peer, peer.sent - n, n, false);
        }
    }
    poll();
    devmem_shard_stats stats;
    devmem_shard_stats_get(shard, &stats);
    std::uint64_t sent = 0;
    for (const Peer& peer : peers) {
        EXPECT_EQ(peer.received, peer.sent);
        sent += peer.sent;
    }
    EXPECT_EQ(stats.rx_payload_bytes, sent);
    EXPECT_EQ(stats.rx_ce_segments, marked);
    EXPECT_GT(stats.split_late, 0u);
    EXPECT_GT(stats.split_early, 0u);
    EXPECT_GT(stats.rx_ooo_segments, 0u);
    EXPECT_EQ(stats.stale_returns, 0u);
}

// The handshakes have no ECE (see establish()), and a mark says nothing.
TEST_P(Burst, EcnCanBeOff)
{
    open("host:size=16M,huge=no", DEVMEM_STACK_NO_ECN);
    Peer& peer = peers[0];
    rte_mbuf* const text = header(peer, kAck, 0, 100, wire::kCe);
    split(peer, text, 0, 100);
    peer.sent = 100;
    send(text);
    poll();
    EXPECT_EQ(peer.received, peer.sent);
    devmem_shard_stats stats;
    devmem_shard_stats_get(shard, &stats);
    EXPECT_EQ(stats.rx_ce_segments, 0u);
}

// Of what recv_burst() finds, events say what it does not: that a stream has ended.
TEST_P(Burst, TheEndOfAStreamRemainsAnEvent)
{
    open("host:size=16M,huge=no");
    Peer& peer = peers[0];
    rte_mbuf* const text = header(peer, kAck, 0, 100);
    split(peer, text, 0, 100);
    ASSERT_EQ(rte_ring_enqueue(ring->rx[0], text), 0);
    ASSERT_EQ(rte_ring_enqueue(ring->rx[0], header(peer, kAck | kFin, 100, 0)), 0);
    devmem_shard_poll(shard, nullptr, 0, nullptr);

    std::array<devmem_conn_t, 4> conns;
    std::array<devmem_token, 4> tokens;
    ASSERT_EQ(devmem_recv_burst(shard, conns.data(), tokens.data(), 4), 1u);
    EXPECT_EQ(conns[0], peer.conn);
    EXPECT_EQ(tokens[0].length, 100u);
    EXPECT_EQ(devmem_token_return(tokens.data(), 1), 1);
    EXPECT_EQ(devmem_recv_burst(shard, conns.data(), tokens.data(), 4), 0u);

    devmem_event event{};
    ASSERT_EQ(devmem_shard_events(shard, &event, 1), 1u);
    EXPECT_EQ(event.type, DEVMEM_EVENT_READABLE);
    EXPECT_EQ(event.conn, peer.conn);
    EXPECT_EQ(devmem_recv(shard, peer.conn, tokens.data(), 4), 0);
    EXPECT_EQ(devmem_shard_events(shard, &event, 1), 0u);
}

// What lies whole in a region that the CPU must not touch is read through its provider only.
TEST_P(Burst, LeavesUnreadablePacketsToTheProvider)
{
    open("opaque:size=16M");
    readable = false; // nor was it written
    for (int i = 0; i < 200; i++) {
        rte_mbuf* const plain = header(peers[0], kAck, peers[0].sent, 66);
        rte_mbuf* const text = rte_pktmbuf_alloc(shard->payload_mempool());
        text->data_off = 0;
        rte_pktmbuf_append(text, 66);
        ASSERT_EQ(rte_pktmbuf_chain(plain, text), 0);
        peers[0].sent += 66;
        send(plain);
        rte_mbuf* const whole = rte_pktmbuf_alloc(shard->payload_mempool());
        whole->data_off = 0;
        rte_pktmbuf_append(whole, 66); // zeros
        whole->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_GOOD;
        send(whole);
    }
    poll();
    devmem_shard_stats stats;
    devmem_shard_stats_get(shard, &stats);
    EXPECT_EQ(stats.rx_payload_bytes, peers[0].sent);
    EXPECT_EQ(stats.drop_ethertype, 200u);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Burst, testing::Values(1, 5, 32, 64));
