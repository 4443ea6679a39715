// SPDX-License-Identifier: BSD-3-Clause
// A port over another: net_ring, which gives back what it is sent, and net_pcap, which plays a
// file.
#include "test/unit/hds/port_fixture.h"

#include <cstdio>

namespace hds_test {
namespace {

class Lower : public Port {
protected:
    void TearDown() override
    {
        Port::TearDown();
        if (!below_.empty()) {
            EXPECT_EQ(rte_vdev_uninit(below_.c_str()), 0);
        }
        if (!file_.empty())
            unlink(file_.c_str());
    }

    void over_ring(const Config& config)
    {
        below_ = "net_ring" + std::to_string(serial_);
        ASSERT_EQ(rte_vdev_init(below_.c_str(), ""), 0);
        start(config, "lower=" + below_);
    }

    void over_pcap(const std::vector<Frame>& frames, const Config& config)
    {
        file_ = "hds_lower_" + std::to_string(getpid()) + ".pcap";
        FILE* out = fopen(file_.c_str(), "wb");
        ASSERT_NE(out, nullptr);
        const std::uint32_t head[6] = {0xa1b2c3d4, 0x00040002, 0, 0, 65535, 1};
        fwrite(head, sizeof head, 1, out);
        for (const Frame& frame : frames) {
            const auto n = static_cast<std::uint32_t>(frame.size());
            const std::uint32_t record[4] = {0, 0, n, n};
            fwrite(record, sizeof record, 1, out);
            fwrite(frame.data(), n, 1, out);
        }
        fclose(out);
        below_ = "net_pcap" + std::to_string(serial_);
        ASSERT_EQ(rte_vdev_init(below_.c_str(), ("rx_pcap=" + file_).c_str()), 0);
        start(config, "lower=" + below_);
    }

    /// Through our transmit side and the ring back into our receive side.
    void loop(const Frame& frame, unsigned segment = 256)
    {
        rte_mbuf* first = nullptr;
        rte_mbuf* last = nullptr;
        for (std::size_t at = 0; at < frame.size(); at += segment) {
            const auto n =
                static_cast<std::uint16_t>(std::min<std::size_t>(segment, frame.size() - at));
            rte_mbuf* m = rte_pktmbuf_alloc(head_pool_);
            ASSERT_NE(m, nullptr);
            std::memcpy(rte_pktmbuf_append(m, n), &frame[at], n);
            if (first == nullptr) {
                first = m;
            } else {
                last->next = m;
                ++first->nb_segs;
                first->pkt_len += n;
            }
            last = m;
        }
        ASSERT_EQ(rte_eth_tx_burst(port_, 0, &first, 1), 1);
    }

    std::string below_;
    std::string file_;
};

INSTANTIATE_TEST_SUITE_P(Memory, Lower,
                         testing::Values(Memory::kMbufs, Memory::kOpaque, Memory::kUnmapped));

constexpr std::uint64_t kChecked = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;

TEST_P(Lower, PacketsOfARingAreSplitAndChecked)
{
    over_ring({.offloads = kChecked});
    for (unsigned segment : {7u, 60u, 256u})
        for (unsigned options : {12u, 0u, 40u})
            for (unsigned payload : {1u, 555u, 1400u}) {
                Made made = make_frame({.tcp_options = options, .payload = payload});
                loop(made.bytes, segment);
                rte_mbuf* packet = receive();
                ASSERT_NE(packet, nullptr);
                EXPECT_EQ(packet->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK,
                          RTE_MBUF_F_RX_L4_CKSUM_GOOD);
                expect_split(packet, made.bytes, made.header);
                made.bytes.back() ^= 1;
                loop(made.bytes, segment);
                packet = receive();
                ASSERT_NE(packet, nullptr);
                EXPECT_EQ(packet->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK,
                          RTE_MBUF_F_RX_L4_CKSUM_BAD);
                expect_split(packet, made.bytes, made.header);
            }
    const Made udp = make_frame({.protocol = 17, .payload = 1000});
    loop(udp.bytes);
    expect_whole(receive(), udp.bytes);
}

TEST_P(Lower, TheThresholdHolds)
{
    over_ring({.offloads = kChecked, .hds_thresh = 200});
    for (const unsigned length : {55u, 200u, 201u, 1000u}) {
        const Made made = make_frame({.payload = length - 54});
        ASSERT_EQ(made.bytes.size(), length);
        loop(made.bytes);
        if (length > 200)
            expect_split(receive(), made.bytes, made.header);
        else
            expect_whole(receive(), made.bytes);
    }
}

TEST_P(Lower, LengthSplit)
{
    over_ring({.length = 96});
    const Made made = make_frame({.payload = 1400});
    loop(made.bytes);
    expect_split(receive(), made.bytes, 96);
}

TEST_P(Lower, TheLowerQueueRunsOnWhileThePayloadPoolChanges)
{
    over_ring({});
    const Made made = make_frame({.payload = 900});
    loop(made.bytes);
    expect_split(receive(), made.bytes, made.header);
    rte_mempool* other = host_pool(256, 1448);
    loop(made.bytes); // waits in the ring meanwhile
    change_payload(other);
    EXPECT_EQ(rte_mempool_avail_count(payload_pool_), payload_pool_->size);
    if (region_ != nullptr) {
        EXPECT_EQ(region_->references, 2u) << "the test's and the pool's";
    }
    rte_mbuf* packet = receive();
    ASSERT_NE(packet, nullptr);
    ASSERT_NE(packet->next, nullptr);
    EXPECT_EQ(packet->next->pool, other);
    EXPECT_EQ(
        payload_bytes(packet),
        Frame(made.bytes.begin() + static_cast<std::ptrdiff_t>(made.header), made.bytes.end()));
    rte_pktmbuf_free(packet);
    rte_eth_stats stats;
    ASSERT_EQ(rte_eth_stats_get(port_, &stats), 0);
    EXPECT_EQ(stats.ipackets, 2u);
}

TEST_P(Lower, ADryPoolHoldsTheLowerPortBack)
{
    over_ring({.fragments = 128});
    std::vector<void*> hoard;
    for (void* object; rte_mempool_get(payload_pool_, &object) == 0;)
        hoard.push_back(object);
    const Made made = make_frame({.payload = 900});
    for (int i = 0; i < 40; ++i)
        loop(made.bytes);
    EXPECT_EQ(receive(), nullptr);
    rte_mempool_put_bulk(payload_pool_, hoard.data(), static_cast<unsigned>(hoard.size()));
    for (int i = 0; i < 40; ++i)
        expect_split(receive(), made.bytes, made.header);
}

TEST_P(Lower, PayloadOfARegionIsNotPassedToIt)
{
    over_ring({});
    const Made made = make_frame({.payload = 900});
    loop(made.bytes);
    rte_mbuf* packet = receive();
    ASSERT_NE(packet, nullptr);
    ASSERT_EQ(rte_eth_tx_burst(port_, 0, &packet, 1), 1);
    if (GetParam() == Memory::kMbufs) {
        expect_split(receive(), made.bytes, made.header);
    } else {
        EXPECT_EQ(receive(), nullptr);
        EXPECT_EQ(xstat("tx_refused_packets"), 1u);
    }
}

TEST_P(Lower, PacketsOfAFileAreSplit)
{
    std::vector<Made> made;
    std::vector<Frame> frames;
    for (unsigned payload : {10u, 1460u, 700u, 3000u}) {
        made.push_back(make_frame({.vlans = 1, .tcp_options = 8, .payload = payload}));
        frames.push_back(made.back().bytes);
    }
    over_pcap(frames, {.mtu = 4000});
    for (const Made& m : made)
        expect_split(receive(), m.bytes, m.header);
}

TEST_P(Lower, ThePortBelowIsOwned)
{
    over_ring({});
    EXPECT_LT(rte_vdev_init("net_hds_second", ("lower=" + below_).c_str()), 0);
    std::uint16_t port;
    ASSERT_EQ(rte_eth_dev_get_port_by_name(below_.c_str(), &port), 0);
    std::uint16_t free_port;
    for (free_port = 0; free_port < RTE_MAX_ETHPORTS; ++free_port) {
        if (rte_eth_find_next_owned_by(free_port, RTE_ETH_DEV_NO_OWNER) == free_port) {
            EXPECT_NE(free_port, port);
        }
    }
    rte_eth_link link;
    EXPECT_EQ(rte_eth_link_get_nowait(port_, &link), 0);
    EXPECT_EQ(link.link_status, RTE_ETH_LINK_UP);
}

/// The port below disappears first.
TEST_P(Lower, EitherMayGoFirst)
{
    over_ring({});
    ASSERT_EQ(rte_eth_dev_stop(port_), 0);
    EXPECT_EQ(rte_vdev_uninit(below_.c_str()), 0);
    below_.clear();
    EXPECT_EQ(rte_eth_dev_start(port_) == 0, false);
    EXPECT_EQ(rte_vdev_uninit(vdev_.c_str()), 0);
    port_ = RTE_MAX_ETHPORTS;
}

} // namespace
} // namespace hds_test
