// SPDX-License-Identifier: BSD-3-Clause
// Peers and third parties that mean harm, each with its figure (--gtest_output=xml: properties).

#include "test/unit/stack/flow.h"

#include <random>

using namespace devmem;
using namespace devmem::test;

namespace {

constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16;

struct Attack : FlowTest {
    /// Frames as the other end of a connection would send them: by the last that it did send.
    static wire::Flow as_sender(const wire::Packet& packet)
    {
        return {packet.src,      packet.dst,     packet.src_port,
                packet.dst_port, packet.src_mac, packet.dst_mac};
    }
    void forge(End& to, const wire::Packet& like, const wire::TcpHeader& tcp,
               std::span<const std::uint8_t> text = {})
    {
        if (!wires->inject(to, as_sender(like), tcp, {}, text)) {
            wires->poll();
            ASSERT_TRUE(wires->inject(to, as_sender(like), tcp, {}, text));
        }
    }
    void expect_alive(Flow& flow)
    {
        devmem_event event;
        EXPECT_FALSE(WirePair::take(wires->b, DEVMEM_EVENT_CLOSED, &event)) << event.error;
        transfer(*wires, flow, 1u << 20);
    }

    std::mt19937_64 random{7};
};

/// Without timestamps an attacker has to guess less.
const EndConfig kPlain{.flags = DEVMEM_STACK_NO_TIMESTAMPS, .rcv_window = 65535};

} // namespace

// RFC 5961: the attacker knows addresses and ports, and guesses the numbers.
TEST_F(Attack, AMillionBlindSegmentsHitNothing)
{
    constexpr unsigned kTries = 1'000'000;
    open(kPlain, 1, kPlain);
    transfer(*wires, flows[0], 1000);
    const wire::Packet peer = wires->seen_a.last;
    const std::uint64_t answers = wires->seen_b.segments;
    const std::uint64_t begin = rte_rdtsc();
    const std::array<std::uint8_t, 8> text{'f', 'o', 'r', 'g', 'e', 'r', 'y', '!'};
    for (unsigned i = 0; i < kTries; i++) {
        const auto seq = static_cast<std::uint32_t>(random());
        const auto ack = static_cast<std::uint32_t>(random());
        switch (i % 4) {
        case 0:
            forge(wires->b, peer, {seq, 0, 0, kRst});
            break;
        case 1:
            forge(wires->b, peer, {seq, 0, 65535, kSyn});
            break;
        case 2:
            forge(wires->b, peer, {seq, ack, 65535, kAck | kPsh}, text);
            break;
        case 3:
            forge(wires->b, peer, {seq, ack, 65535, kFin | kAck});
            break;
        }
        if (i % 1024 == 0)
            wires->poll();
    }
    RecordProperty("segments_per_second", std::to_string(kTries / seconds_since(begin)));
    RecordProperty("answers", std::to_string(wires->seen_b.segments - answers));
    expect_alive(flows[0]);
}

// RFC 5961 3.2, 4.2: one who knows the window resets nothing unless it names RCV.NXT itself.
TEST_F(Attack, ResetsAllOverTheWindowAreChallengedAFewTimes)
{
    open(kPlain, 1, kPlain);
    transfer(*wires, flows[0], 1000);
    const wire::Packet peer = wires->seen_a.last;
    const std::uint32_t next = peer.seq + peer.payload_bytes;
    const std::uint64_t answers = wires->seen_b.segments;
    for (std::uint32_t offset = 1; offset < 65535; offset++) {
        forge(wires->b, peer, {next + offset, 0, 0, kRst});
        forge(wires->b, peer, {next + offset, 0, 0, kSyn});
    }
    wires->poll();
    EXPECT_LE(wires->seen_b.segments - answers, 20u) << "10 in 5 s";
    RecordProperty("challenges", std::to_string(wires->seen_b.segments - answers));
    expect_alive(flows[0]);
}

// RFC 9293 3.10.7.4: who is told of bytes it never sent answers; two such ends must not go on for
// ever.
TEST_F(Attack, EndsThatDisagreeDoNotAnswerEachOtherForEver)
{
    open(kPlain, 1, kPlain);
    transfer(*wires, flows[0], 1000);
    const wire::Packet from_a = wires->seen_a.last, from_b = wires->seen_b.last;
    // Text that a did not send, and that b takes for a's.
    const std::array<std::uint8_t, 100> text{};
    forge(wires->b, from_a, {from_a.seq + from_a.payload_bytes, from_a.ack, 65535, kAck | kPsh},
          text);
    forge(wires->a, from_b, {from_b.seq, from_b.ack + 1'000'000, 65535, kAck});
    const std::uint64_t before = wires->seen_a.segments + wires->seen_b.segments;
    wires->run_until([] { return false; }, 1);
    const std::uint64_t storm = wires->seen_a.segments + wires->seen_b.segments - before;
    EXPECT_LE(storm, 50u);
    RecordProperty("segments_in_a_second", std::to_string(storm));
}

// Slowloris: requests that begin and never end. Every other one leaves out its first byte.
TEST_F(Attack, TenThousandHalfSentRequestsLeaveRoom)
{
    constexpr unsigned kSlow = 10'000;
    open({.region = "opaque:size=16M",
          .flags = DEVMEM_STACK_NO_TIMESTAMPS,
          .max_connections = kSlow + 10},
         1, {.max_connections = kSlow + 10});
    const double alone = transfer(*wires, flows[0], 16u << 20);
    const std::uint32_t free_at_first = pool_of(wires->b).fragments_free;
    flows.resize(1 + kSlow);
    for (unsigned i = 1; i <= kSlow; i++) {
        Flow& flow = flows[i];
        ASSERT_TRUE(wires->establish(80, &flow.client, &flow.server));
        const wire::Packet peer = wires->seen_a.last;
        const std::array<std::uint8_t, 1> text{stream_byte(i % 2)};
        forge(wires->b, peer, {peer.seq + i % 2, peer.ack, 65535, kAck | kPsh}, text);
        if (i % 2 == 0) {
            wires->poll();
            flow.receive(*wires, false);
        }
    }
    wires->run_until([] { return false; }, 0.1);
    const std::uint32_t left = pool_of(wires->b).fragments_free;
    const double beside = transfer(*wires, flows[0], 16u << 20);
    RecordProperty("fragments_left", std::to_string(left) + " of " + std::to_string(free_at_first));
    RecordProperty("slower", std::to_string(beside / alone));
    // And somebody new is served.
    Flow fresh;
    ASSERT_TRUE(wires->establish(80, &fresh.client, &fresh.server));
    RecordProperty("seconds_for_a_new_one", std::to_string(transfer(*wires, fresh, 1u << 20)));
}

// Gaps that are never closed, in more connections than the pool has fragments.
TEST_F(Attack, GapsThatStayOpenDoNotTakeThePool)
{
    constexpr unsigned kGaps = 1'000;
    open({.region = "opaque:size=256K,page=64K",
          .flags = DEVMEM_STACK_NO_TIMESTAMPS,
          .max_connections = 1'100,
          .fragment_bytes = 4096},
         1);
    ASSERT_EQ(pool_of(wires->b).fragments, 64u);
    flows.resize(1 + kGaps);
    for (unsigned i = 1; i <= kGaps; i++) {
        ASSERT_TRUE(wires->establish(80, &flows[i].client, &flows[i].server));
        const wire::Packet peer = wires->seen_a.last;
        const std::array<std::uint8_t, 1> text{stream_byte(1)};
        forge(wires->b, peer, {peer.seq + 1, peer.ack, 65535, kAck | kPsh}, text);
        wires->poll();
    }
    wires->run_until([] { return false; }, 0.1);
    RecordProperty("fragments_left", std::to_string(pool_of(wires->b).fragments_free));
    RecordProperty("seconds_beside", std::to_string(transfer(*wires, flows[0], 1u << 20)));
    Flow fresh;
    ASSERT_TRUE(wires->establish(80, &fresh.client, &fresh.server));
    RecordProperty("seconds_for_a_new_one", std::to_string(transfer(*wires, fresh, 1u << 18)));
}

// ARP for and from everybody: only who was asked is remembered.
TEST_F(Attack, ArpFromEverywhereReplacesNobody)
{
    constexpr std::uint32_t kFrames = 200'000;
    open({}, 1);
    const std::uint64_t begin = rte_rdtsc();
    std::array<std::uint8_t, 128> frame;
    const wire::Mac evil{2, 0, 0, 0, 0, 99};
    for (std::uint32_t i = 0; i < kFrames; i++) {
        wire::Ip claimed{4, {10, 0, 0, 3}};
        if (i % 2 != 0) {
            claimed.bytes[1] = static_cast<std::uint8_t>(i >> 16);
            claimed.bytes[2] = static_cast<std::uint8_t>(i >> 8);
            claimed.bytes[3] = static_cast<std::uint8_t>(i);
        }
        const std::size_t n = wire::write_arp(frame, i % 4 < 2 ? 1 : 2, evil, claimed,
                                              {2, 0, 0, 0, 0, 2}, {4, {10, 0, 0, 2}});
        ASSERT_TRUE(wires->inject(wires->b, std::span(frame).first(n)));
        if (i % 64 == 63)
            wires->poll();
    }
    RecordProperty("frames_per_second", std::to_string(kFrames / seconds_since(begin)));
    expect_alive(flows[0]);
    // The other way a connection needs the neighbour's true address.
    devmem_listener_t listener;
    ASSERT_EQ(devmem_listen(wires->a.shard, 81, 4, &listener), 0);
    const devmem_endpoint remote{wires->a.addr, 81};
    devmem_conn_t conn;
    ASSERT_EQ(devmem_connect(wires->b.shard, &remote, &conn), 0);
    devmem_event event;
    EXPECT_TRUE(wires->run_until(
        [&] { return WirePair::take(wires->b, DEVMEM_EVENT_CONNECTED, &event); }, 5));
}

TEST_F(Attack, NeighbourSolicitationsFromEverywhereReplaceNobody)
{
    constexpr std::uint32_t kFrames = 100'000;
    wires = std::make_unique<WirePair>(EndConfig{}, EndConfig{}, true);
    flows.resize(1);
    ASSERT_TRUE(wires->establish(80, &flows[0].client, &flows[0].server));
    const std::uint64_t begin = rte_rdtsc();
    std::array<std::uint8_t, 256> frame;
    const wire::Mac evil{2, 0, 0, 0, 0, 99};
    for (std::uint32_t i = 0; i < kFrames; i++) {
        wire::Ip claimed{6, {0xfd}};
        for (unsigned byte = 0; byte < 4; byte++)
            claimed.bytes[12 + byte] = static_cast<std::uint8_t>((i + 16) >> 8 * byte);
        const wire::Ip ours{6, {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};
        const std::size_t n = i % 2 == 0 ? wire::write_nd_solicitation(frame, evil, claimed, ours)
                                         : wire::write_nd_advertisement(frame, evil, claimed, ours,
                                                                        {2, 0, 0, 0, 0, 2});
        ASSERT_TRUE(wires->inject(wires->b, std::span(frame).first(n)));
        if (i % 64 == 63)
            wires->poll();
    }
    RecordProperty("frames_per_second", std::to_string(kFrames / seconds_since(begin)));
    expect_alive(flows[0]);
}
