// SPDX-License-Identifier: BSD-3-Clause
// What the kernel sends to the interface, and where the port puts it.
#include "test/unit/hds/port_fixture.h"

namespace hds_test {
namespace {

class Rx : public Port {};

std::string memory_name(const testing::TestParamInfo<Memory>& info)
{
    const char* const names[] = {"Mbufs", "Opaque", "Unmapped"};
    return names[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(Memory, Rx,
                         testing::Values(Memory::kMbufs, Memory::kOpaque, Memory::kUnmapped),
                         memory_name);

/// A TSO super-frame as the kernel's TCP hands it to the interface.
VirtioHeader super_frame(Made& made, const Shape& shape, std::uint16_t mss)
{
    checksum_l4(made, shape, true);
    return {.flags = 1,
            .gso_type = static_cast<std::uint8_t>(shape.ipv6 ? 4 : 1),
            .hdr_len = static_cast<std::uint16_t>(made.header),
            .gso_size = mss,
            .csum_start = static_cast<std::uint16_t>(made.l4),
            .csum_offset = 16};
}

TEST_P(Rx, PayloadBeginsAtItsFirstByte)
{
    start({});
    std::vector<Made> sent;
    unsigned early = 0;
    unsigned late = 0;
    unsigned predicted = 66;
    const auto send = [&](const Shape& shape) {
        sent.push_back(make_frame(shape));
        peer_->send(sent.back().bytes);
        early += sent.back().header > predicted;
        late += sent.back().header < predicted;
        predicted = static_cast<unsigned>(sent.back().header);
    };
    for (unsigned options : {12u, 12u, 0u, 0u, 40u, 12u, 40u, 0u})
        for (unsigned payload : {1u, 2u, 13u, 700u, 1400u})
            send({.tcp_options = options, .payload = payload, .seed = 9});
    send({.ip_options = 40, .payload = 300});
    send({.ipv6 = true, .tcp_options = 12, .payload = 1000});
    send({.ipv6 = true, .extensions = {0, 60, 60, 43}, .payload = 1000});
    send({.vlans = 1, .payload = 1000});
    send({.vlans = 2, .ipv6 = true, .tcp_options = 40, .payload = 20});
    send({.payload = 1460});
    for (const Made& made : sent)
        expect_split(receive(), made.bytes, made.header);
    EXPECT_EQ(xstat("rx_split_packets"), sent.size());
    EXPECT_EQ(xstat("rx_header_only_packets"), 0u);
    if (GetParam() != Memory::kUnmapped) {
        EXPECT_EQ(xstat("rx_split_early_gaps"), early);
        EXPECT_EQ(xstat("rx_split_late_moves"), late);
        EXPECT_EQ(xstat("rx_copied_packets"), 0u);
    } else {
        EXPECT_EQ(xstat("rx_copied_packets"), sent.size());
    }
}

TEST_P(Rx, ConsecutiveSegmentsFillAdjacentFragments)
{
    start({.fragment_bytes = 1024});
    const std::byte* next = nullptr;
    for (int i = 0; i < 8; ++i) {
        const Made made = make_frame({.tcp_options = 12, .payload = 1024});
        peer_->send(made.bytes);
        rte_mbuf* packet = receive();
        ASSERT_NE(packet, nullptr);
        ASSERT_EQ(packet->nb_segs, 2);
        EXPECT_EQ(packet->next->data_off, 0);
        const auto* data = static_cast<const std::byte*>(packet->next->buf_addr);
        if (i > 0 && GetParam() != Memory::kMbufs) {
            EXPECT_EQ(data, next);
        }
        next = data + 1024;
        expect_split(packet, made.bytes, made.header);
    }
}

TEST_P(Rx, TinyFragmentsThatHoldOnlyHeader)
{
    // The first fragment of a header longer than predicted by more than it holds is not consumed.
    start({.fragments = 512, .fragment_bytes = 64});
    for (const Shape& shape :
         {Shape{
              .ipv6 = true, .extensions = {60, 60, 60, 60, 60}, .tcp_options = 40, .payload = 200},
          Shape{.payload = 1400}, Shape{.tcp_options = 12, .payload = 1},
          Shape{.ipv6 = true, .extensions = {60, 60, 60, 60, 60}, .tcp_options = 40, .payload = 1},
          Shape{.payload = 3}}) {
        const Made made = make_frame(shape);
        peer_->send(made.bytes);
        expect_split(receive(), made.bytes, made.header);
    }
}

TEST_P(Rx, PacketsWithoutTcpPayloadStayWhole)
{
    start({});
    std::vector<Frame> sent;
    sent.push_back(make_frame({.payload = 0}).bytes);
    sent.push_back(make_frame({.tcp_options = 40, .payload = 0}).bytes);
    sent.push_back(make_frame({.protocol = 17, .payload = 1400}).bytes);
    sent.push_back(make_frame({.payload = 1400, .fragment = 0x2000}).bytes);
    sent.push_back(make_frame({.payload = 1000, .fragment = 64}).bytes);
    sent.push_back(make_frame({.ipv6 = true, .extensions = {44}, .payload = 500}).bytes);
    Frame padded = make_frame({.payload = 0}).bytes;
    padded.resize(60, 0xaa);
    sent.push_back(padded);
    Frame lying = make_frame({.payload = 900}).bytes;
    put16(lying, 16, 1400);
    sent.push_back(lying);
    Frame arp(42, 3);
    put16(arp, 12, 0x0806);
    sent.push_back(arp);
    for (const Frame& frame : sent)
        peer_->send(frame);
    for (const Frame& frame : sent)
        expect_whole(receive(), frame);
    EXPECT_EQ(xstat("rx_header_only_packets"), sent.size());
    EXPECT_EQ(xstat("rx_payload_bytes"), 0u);
}

TEST_P(Rx, OtherFamilyStaysWhole)
{
    start({.proto_hdr = 0x191});
    const Made v4 = make_frame({.payload = 500});
    const Made v6 = make_frame({.ipv6 = true, .payload = 1400});
    peer_->send(v6.bytes);
    peer_->send(v4.bytes);
    expect_whole(receive(), v6.bytes);
    expect_split(receive(), v4.bytes, v4.header);
}

// The frame's length decides, whatever headers it is made of.
TEST_P(Rx, FramesUpToTheThresholdStayWhole)
{
    constexpr unsigned kThreshold = 256;
    start({.hds_thresh = kThreshold});
    std::vector<Made> sent;
    for (Shape shape : {Shape{}, Shape{.tcp_options = 40}, Shape{.ip_options = 40},
                        Shape{.vlans = 1, .tcp_options = 12}, Shape{.vlans = 2, .ipv6 = true},
                        Shape{.ipv6 = true, .extensions = {0, 60}, .tcp_options = 12}}) {
        const auto headers = static_cast<unsigned>(make_frame(shape).header);
        for (const unsigned length : {headers + 1, kThreshold, kThreshold + 1, 1400u}) {
            shape.payload = length - headers;
            sent.push_back(make_frame(shape));
        }
    }
    for (const Made& made : sent)
        peer_->send(made.bytes);
    std::size_t split = 0;
    for (const Made& made : sent) {
        if (made.bytes.size() > kThreshold) {
            ++split;
            expect_split(receive(), made.bytes, made.header);
        } else {
            expect_whole(receive(), made.bytes);
        }
    }
    EXPECT_EQ(split, sent.size() / 2);
    EXPECT_EQ(xstat("rx_split_packets"), split);
    EXPECT_EQ(xstat("rx_header_only_packets"), split);
}

TEST_P(Rx, UpToTheThresholdNoPayloadMbufIsWanted)
{
    start({.hds_thresh = 256, .fragments = 8});
    std::vector<void*> taken;
    for (void* m = nullptr; rte_mempool_get(payload_pool_, &m) == 0;)
        taken.push_back(m);
    const Made small = make_frame({.tcp_options = 12, .payload = 100});
    for (int i = 0; i < 20; ++i) {
        peer_->send(small.bytes);
        expect_whole(receive(), small.bytes);
    }
    for (void* m : taken)
        rte_mempool_put(payload_pool_, m);
}

TEST_P(Rx, LengthSplitCutsWhateverIsThere)
{
    start({.length = 96});
    for (const Shape& shape : {Shape{.payload = 1}, Shape{.payload = 42}, Shape{.payload = 1460},
                               Shape{.vlans = 1, .ipv6 = true, .tcp_options = 40, .payload = 100},
                               Shape{.protocol = 17, .payload = 1400}}) {
        const Made made = make_frame(shape);
        peer_->send(made.bytes);
        rte_mbuf* packet = receive();
        ASSERT_NE(packet, nullptr);
        EXPECT_EQ(packet->l2_len + packet->l3_len + packet->l4_len, made.header);
        if (made.bytes.size() <= 96)
            expect_whole(packet, made.bytes);
        else
            expect_split(packet, made.bytes, 96);
    }
    EXPECT_EQ(xstat("rx_split_late_moves") + xstat("rx_split_early_gaps"), 0u);
}

TEST_P(Rx, OffsetsAreHonoured)
{
    start({.head_offset = 32, .payload_offset = 64});
    for (unsigned options : {12u, 0u, 40u}) {
        const Made made = make_frame({.tcp_options = options, .payload = 1400});
        peer_->send(made.bytes);
        expect_split(receive(), made.bytes, made.header);
    }
}

TEST_P(Rx, SuperFramesArriveWhole)
{
    start({.offloads = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_TCP_LRO |
                       RTE_ETH_RX_OFFLOAD_TCP_CKSUM});
    for (const Shape& shape :
         {Shape{.tcp_options = 12, .payload = 44 * 1448}, Shape{.payload = 44 * 1448 + 1},
          Shape{.ipv6 = true, .tcp_options = 12, .payload = 45 * 1428},
          Shape{.tcp_options = 12, .payload = 3 * 1448 + 17}}) {
        Made made = make_frame(shape);
        const std::uint16_t mss = shape.ipv6 ? 1428 : 1448;
        peer_->send(made.bytes, super_frame(made, shape, mss));
        rte_mbuf* packet = receive();
        ASSERT_NE(packet, nullptr);
        EXPECT_NE(packet->ol_flags & RTE_MBUF_F_RX_LRO, 0u);
        EXPECT_EQ(packet->tso_segsz, mss);
        EXPECT_EQ(packet->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_NONE);
        EXPECT_EQ(packet->nb_segs, 1 + (shape.payload + 1447) / 1448);
        expect_split(packet, made.bytes, made.header);
    }
    EXPECT_EQ(xstat("rx_lro_packets"), 4u);
}

TEST_P(Rx, ABurstEndsWhereASenderWouldWait)
{
    start({.offloads = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_TCP_LRO |
                       RTE_ETH_RX_OFFLOAD_TCP_CKSUM,
           .fragments = 2048});
    constexpr unsigned kFrames = 20;
    constexpr std::size_t kMost = 512 << 10;
    const Shape shape{.tcp_options = 12, .payload = 44 * 1448};
    Made made = make_frame(shape);
    for (unsigned i = 0; i < kFrames; ++i)
        peer_->send(made.bytes, super_frame(made, shape, 1448));
    for (unsigned left = kFrames; left != 0;) {
        rte_mbuf* packets[32];
        const std::uint16_t n = rte_eth_rx_burst(port_, 0, packets, 32);
        EXPECT_EQ(n, std::min<std::size_t>(left, kMost / made.bytes.size() + 1));
        for (std::uint16_t i = 0; i < n; ++i)
            expect_split(packets[i], made.bytes, made.header);
        ASSERT_GT(n, 0u);
        left -= n;
    }
}

TEST_P(Rx, WithoutLroTheKernelSegments)
{
    start({.offloads = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT});
    const Shape shape{.tcp_options = 12, .payload = 5 * 1448};
    Made made = make_frame(shape);
    peer_->send(made.bytes, super_frame(made, shape, 1448));
    for (unsigned i = 0; i < 5; ++i) {
        rte_mbuf* packet = receive();
        ASSERT_NE(packet, nullptr);
        EXPECT_EQ(packet->pkt_len, made.header + 1448);
        EXPECT_EQ(packet->ol_flags & RTE_MBUF_F_RX_LRO, 0u);
        const auto from = made.bytes.begin() + static_cast<std::ptrdiff_t>(made.header + i * 1448);
        EXPECT_EQ(payload_bytes(packet), Frame(from, from + 1448));
        // The checksum is complete: nothing was asked to be left to us.
        Made segment{.bytes = bytes(packet), .l3 = made.l3, .l4 = made.l4, .header = made.header};
        const Frame payload = payload_bytes(packet);
        segment.bytes.insert(segment.bytes.end(), payload.begin(), payload.end());
        const Frame as_received = segment.bytes;
        checksum_l4(segment, shape);
        EXPECT_EQ(segment.bytes, as_received);
        rte_pktmbuf_free(packet);
    }
    EXPECT_EQ(receive(), nullptr);
}

TEST_P(Rx, ChecksumsAreVerified)
{
    start({.offloads = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_TCP_CKSUM |
                       RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_IPV4_CKSUM});
    const auto flags = [&](const Frame& frame) {
        peer_->send(frame);
        rte_mbuf* packet = receive();
        EXPECT_NE(packet, nullptr);
        const std::uint64_t f = packet == nullptr ? 0 : packet->ol_flags;
        rte_pktmbuf_free(packet);
        return f & (RTE_MBUF_F_RX_L4_CKSUM_MASK | RTE_MBUF_F_RX_IP_CKSUM_MASK);
    };
    constexpr std::uint64_t kGood = RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_GOOD;
    // Every header length and parity: checksums do not depend on where the frame was split.
    for (unsigned options : {0u, 12u, 40u, 4u})
        for (unsigned payload : {0u, 1u, 2u, 1399u, 1400u}) {
            const Made made = make_frame({.tcp_options = options, .payload = payload});
            EXPECT_EQ(flags(made.bytes), kGood);
            for (std::size_t at : {made.l4 + 4, made.bytes.size() - 1}) {
                Frame bad = made.bytes;
                bad[at] ^= 0x10;
                EXPECT_EQ(flags(bad), RTE_MBUF_F_RX_L4_CKSUM_BAD | RTE_MBUF_F_RX_IP_CKSUM_GOOD);
            }
        }
    const Made v6 = make_frame({.ipv6 = true, .extensions = {60}, .payload = 77});
    EXPECT_EQ(flags(v6.bytes), RTE_MBUF_F_RX_L4_CKSUM_GOOD);
    Made udp = make_frame({.protocol = 17, .payload = 501});
    EXPECT_EQ(flags(udp.bytes), kGood);
    udp.bytes.back() ^= 1;
    EXPECT_EQ(flags(udp.bytes), RTE_MBUF_F_RX_L4_CKSUM_BAD | RTE_MBUF_F_RX_IP_CKSUM_GOOD);
    put16(udp.bytes, udp.l4 + 6, 0); // no checksum (RFC 768)
    EXPECT_EQ(flags(udp.bytes), RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN | RTE_MBUF_F_RX_IP_CKSUM_GOOD);
    Made ip = make_frame({.payload = 10});
    ip.bytes[ip.l3 + 8] -= 1;
    EXPECT_EQ(flags(ip.bytes), RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_BAD);
    Made padded = make_frame({.payload = 2});
    padded.bytes.resize(60, 0xaa);
    EXPECT_EQ(flags(padded.bytes), kGood);
    // Completed by the sender's NIC, which is us.
    const Shape shape{.payload = 100};
    Made partial = make_frame(shape);
    VirtioHeader header = super_frame(partial, shape, 0);
    header.gso_type = 0;
    peer_->send(partial.bytes, header);
    rte_mbuf* packet = receive();
    ASSERT_NE(packet, nullptr);
    EXPECT_EQ(packet->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_NONE);
    expect_split(packet, partial.bytes, partial.header);
}

TEST_P(Rx, APoolThatRunsDryLosesNothing)
{
    start({.fragments = 128});
    std::vector<void*> hoard;
    for (void* object; rte_mempool_get(payload_pool_, &object) == 0;)
        hoard.push_back(object);
    const Made data = make_frame({.payload = 800});
    const Made ack = make_frame({.payload = 0});
    peer_->send(ack.bytes);
    for (int i = 0; i < 3; ++i)
        peer_->send(data.bytes);
    peer_->send(ack.bytes);
    expect_whole(receive(), ack.bytes); // needs no payload mbuf
    EXPECT_EQ(receive(), nullptr);
    EXPECT_GT(xstat("rx_no_payload_mbuf"), 0u);
    rte_eth_stats stats;
    rte_eth_stats_get(port_, &stats);
    EXPECT_GT(stats.rx_nombuf, 0u);
    rte_mempool_put(payload_pool_, hoard.back());
    hoard.pop_back();
    expect_split(receive(), data.bytes, data.header); // one at a time
    expect_split(receive(), data.bytes, data.header);
    rte_mempool_put_bulk(payload_pool_, hoard.data(), static_cast<unsigned>(hoard.size()));
    expect_split(receive(), data.bytes, data.header);
    expect_whole(receive(), ack.bytes);
}

TEST_P(Rx, ADryHeaderPoolLosesNothing)
{
    start({});
    std::vector<void*> hoard;
    for (void* object; rte_mempool_get(head_pool_, &object) == 0;)
        hoard.push_back(object);
    const Made data = make_frame({.payload = 800});
    peer_->send(data.bytes);
    EXPECT_EQ(receive(), nullptr);
    EXPECT_GT(xstat("rx_no_header_mbuf"), 0u);
    rte_mempool_put_bulk(head_pool_, hoard.data(), static_cast<unsigned>(hoard.size()));
    expect_split(receive(), data.bytes, data.header);
}

TEST_P(Rx, LongerFramesThanTheMtuAreCounted)
{
    start({.fragment_bytes = 1024});
    peer_->set_mtu(9000); // behind the driver's back
    peer_->send(make_frame({.payload = 8000}).bytes);
    const Made made = make_frame({.payload = 900});
    peer_->send(made.bytes);
    expect_split(receive(), made.bytes, made.header);
    EXPECT_EQ(xstat("rx_truncated"), 1u);
    rte_eth_stats stats;
    rte_eth_stats_get(port_, &stats);
    EXPECT_EQ(stats.ierrors, 1u);
}

TEST_P(Rx, WithoutSplitAPacketSpillsIntoItsPool)
{
    start({.offloads = RTE_ETH_RX_OFFLOAD_SCATTER});
    for (unsigned payload : {0u, 100u, 1460u}) {
        const Made made = make_frame({.payload = payload});
        peer_->send(made.bytes);
        expect_whole(receive(), made.bytes);
    }
    EXPECT_EQ(xstat("rx_split_packets") + xstat("rx_header_only_packets"), 0u);
}

TEST_P(Rx, QueuesShareTheFlows)
{
    start({.queues = 2});
    std::map<std::uint16_t, unsigned> flows;
    for (std::uint16_t flow = 0; flow < 64; ++flow)
        peer_->send(make_frame({.payload = 100, .src_port = flow}).bytes);
    unsigned received[2] = {};
    for (std::uint16_t q = 0; q < 2; ++q)
        while (rte_mbuf* packet = receive(q)) {
            const Frame header = bytes(packet);
            ++flows[static_cast<std::uint16_t>(header[34] << 8 | header[35])];
            ++received[q];
            rte_pktmbuf_free(packet);
        }
    EXPECT_EQ(flows.size(), 64u);
    EXPECT_EQ(received[0] + received[1], 64u);
    EXPECT_GT(received[0], 0u);
    EXPECT_GT(received[1], 0u);
}

TEST_P(Rx, OnlyConfiguredQueuesGetFrames)
{
    start({.queues = 1, .queues_made = 4});
    for (std::uint16_t flow = 0; flow < 64; ++flow) {
        const Made made = make_frame({.payload = 100, .src_port = flow});
        peer_->send(made.bytes);
        expect_split(receive(), made.bytes, made.header);
    }
}

} // namespace
} // namespace hds_test
