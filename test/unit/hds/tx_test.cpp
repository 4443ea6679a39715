// SPDX-License-Identifier: BSD-3-Clause
// What the port transmits, as the kernel's side of the TAP receives it.
#include "test/unit/hds/port_fixture.h"

namespace hds_test {
namespace {

class Tx : public Port {
protected:
    /// A packet of a frame in segments of `sizes`, the rest in the last; segments from `from` on
    /// are payload mbufs of the memory under test, if it can be written to.
    rte_mbuf* packet(const Frame& frame, const std::vector<std::size_t>& sizes)
    {
        rte_mbuf* first = nullptr;
        rte_mbuf* last = nullptr;
        std::size_t at = 0;
        for (std::size_t i = 0; at < frame.size(); ++i) {
            const std::size_t n =
                std::min(frame.size() - at, i < sizes.size() ? sizes[i] : std::size_t{256});
            rte_mbuf* m = rte_pktmbuf_alloc(head_pool_);
            std::memcpy(rte_pktmbuf_append(m, static_cast<std::uint16_t>(n)), &frame[at], n);
            at += n;
            if (first == nullptr) {
                first = m;
            } else {
                last->next = m;
                ++first->nb_segs;
                first->pkt_len += static_cast<std::uint32_t>(n);
            }
            last = m;
        }
        return first;
    }

    void transmit(rte_mbuf* m) { ASSERT_EQ(rte_eth_tx_burst(port_, 0, &m, 1), 1); }

    static void offload(rte_mbuf* m, const Made& made, std::uint64_t flags)
    {
        m->l2_len = made.l3 & 0x7f;
        m->l3_len = (made.l4 - made.l3) & 0x1ff;
        m->l4_len = static_cast<std::uint8_t>(made.header - made.l4);
        m->ol_flags |= flags;
    }
};

INSTANTIATE_TEST_SUITE_P(Memory, Tx,
                         testing::Values(Memory::kMbufs, Memory::kOpaque, Memory::kUnmapped));

TEST_P(Tx, SegmentsAreGathered)
{
    start({});
    for (const auto& sizes : std::vector<std::vector<std::size_t>>{{14}, {54}, {1, 1, 1}, {256}}) {
        const Made made = make_frame({.payload = 700});
        transmit(packet(made.bytes, sizes));
        VirtioHeader header;
        EXPECT_EQ(peer_->receive(&header), made.bytes);
        EXPECT_EQ(header.flags & 1, 0);
    }
}

TEST_P(Tx, ChecksumsAreLeftToTheKernelOnACopy)
{
    start({});
    for (const Shape& shape : {Shape{.payload = 300}, Shape{.protocol = 17, .payload = 301},
                               Shape{.ipv6 = true, .tcp_options = 12, .payload = 5}}) {
        const Made made = make_frame(shape);
        Made blank = made;
        const std::size_t field = made.l4 + (shape.protocol == 6 ? 16 : 6);
        put16(blank.bytes, field, 0xdead);
        std::uint64_t flags =
            shape.protocol == 6 ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
        flags |= shape.ipv6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
        if (!shape.ipv6)
            put16(blank.bytes, made.l3 + 10, 0xdead);
        rte_mbuf* m = packet(blank.bytes, {20, 30}); // headers across segments
        offload(m, made, flags);
        rte_mbuf* clone = rte_pktmbuf_clone(m, head_pool_);
        transmit(clone);
        VirtioHeader header;
        Frame got = peer_->receive(&header);
        ASSERT_EQ(got.size(), made.bytes.size());
        ASSERT_NE(header.flags & 1, 0);
        EXPECT_EQ(header.csum_start, made.l4);
        EXPECT_EQ(header.csum_start + header.csum_offset, field);
        Made partial = made;
        checksum_l4(partial, shape, true);
        EXPECT_EQ(got, partial.bytes);
        EXPECT_EQ(bytes(m)[0], blank.bytes[0]);
        Frame untouched = bytes(m);
        const Frame rest = payload_bytes(m);
        untouched.insert(untouched.end(), rest.begin(), rest.end());
        EXPECT_EQ(untouched, blank.bytes);
        rte_pktmbuf_free(m);
    }
}

TEST_P(Tx, SuperFramesPassWhole)
{
    start({.fragments = 256});
    const Shape shape{.tcp_options = 12, .payload = 20 * 1448};
    const Made made = make_frame(shape);
    rte_mbuf* m = packet(made.bytes, {66});
    offload(m, made, RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM);
    m->tso_segsz = 1448;
    transmit(m);
    VirtioHeader header;
    const Frame got = peer_->receive(&header);
    EXPECT_EQ(header.gso_type & 0x7f, 1);
    EXPECT_EQ(header.gso_size, 1448);
    Made partial = made;
    checksum_l4(partial, shape, true);
    EXPECT_EQ(got, partial.bytes);
    EXPECT_EQ(xstat("tx_tso_packets"), 1u);
}

/// What was received into the region is sent back from there.
TEST_P(Tx, PayloadIsSentFromWhereItLies)
{
    start({});
    const Made made = make_frame({.tcp_options = 12, .payload = 1400});
    peer_->send(made.bytes);
    rte_mbuf* m = receive();
    ASSERT_NE(m, nullptr);
    ASSERT_EQ(m->nb_segs, 2);
    transmit(m);
    VirtioHeader header;
    EXPECT_EQ(peer_->receive(&header), made.bytes);
    EXPECT_EQ(xstat("tx_region_packets"), GetParam() == Memory::kMbufs ? 0u : 1u);
}

TEST_P(Tx, RefusedPacketsAreCountedAndFreed)
{
    start({});
    const Made made = make_frame({.payload = 10});
    rte_mbuf* m = packet(made.bytes, {});
    offload(m, made, RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4);
    m->l3_len = 4; // a lie
    transmit(m);
    transmit(packet(Frame(5, 1), {})); // no Ethernet frame
    peer_->set_up(false);
    transmit(packet(made.bytes, {}));
    EXPECT_EQ(xstat("tx_refused_packets"), 3u);
    rte_eth_stats stats;
    rte_eth_stats_get(port_, &stats);
    EXPECT_EQ(stats.oerrors, 3u);
    EXPECT_EQ(stats.opackets, 0u);
}

} // namespace
} // namespace hds_test
