// SPDX-License-Identifier: BSD-3-Clause
// The port's life: arguments, capabilities, link, MTU, namespaces, closing.
#include "test/unit/hds/port_fixture.h"

#include <cerrno>
#include <fcntl.h>
#include <rte_errno.h>
#include <sched.h>
#include <sys/wait.h>
#include <thread>

namespace hds_test {
namespace {

class Life : public Port {};
INSTANTIATE_TEST_SUITE_P(Memory, Life, testing::Values(Memory::kMbufs));

TEST_P(Life, WrongArgumentsAreRefused)
{
    for (const char* args :
         {"", "iface=", "iface=a,lower=b", "iface=way_too_long_a_name", "iface=a/b",
          "iface=x,colour=red", "iface=x,queues=0", "iface=x,queues=2x", "iface=x,queues=300",
          "iface=x,hds_thresh=", "iface=x,hds_thresh=-1", "iface=x,hds_thresh=65536",
          "iface=x,mac=1:2", "lower=nosuch", "iface=x,mac=01:00:00:00:00:01"})
        EXPECT_LT(rte_vdev_init(vdev_.c_str(), args), 0) << args;
    EXPECT_EQ(rte_eth_dev_count_avail(), 0);
    EXPECT_EQ(if_nametoindex("x"), 0u);
}

TEST_P(Life, ProbingTwiceIsRefusedAndHarmless)
{
    start({});
    EXPECT_LT(rte_vdev_init(vdev_.c_str(), ("iface=" + iface_).c_str()), 0);
    EXPECT_LT(rte_vdev_init("net_hds_twin", ("iface=" + iface_).c_str()), 0); // interface in use
    const Made made = make_frame({.payload = 10});
    peer_->send(made.bytes);
    expect_split(receive(), made.bytes, made.header);
}

TEST_P(Life, SaysWhatItIs)
{
    start({});
    rte_eth_dev_info info;
    ASSERT_EQ(rte_eth_dev_info_get(port_, &info), 0);
    EXPECT_STREQ(info.driver_name, "net_hds");
    EXPECT_NE(info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT, 0u);
    EXPECT_EQ(info.rx_seg_capa.multi_pools, 1u);
    EXPECT_EQ(info.rx_seg_capa.offset_allowed, 1u);
    EXPECT_EQ(info.rx_seg_capa.max_nseg, 2);
    EXPECT_EQ(info.max_mtu, 65521);
    std::uint32_t types[8];
    ASSERT_EQ(rte_eth_buffer_split_get_supported_hdr_ptypes(port_, types, 8), 3);
    EXPECT_EQ(types[0], 0x191u);
    EXPECT_EQ(types[1], 0x1e1u);
    EXPECT_EQ(types[2], 0x101u);
    rte_eth_rxq_info rxq;
    ASSERT_EQ(rte_eth_rx_queue_info_get(port_, 0, &rxq), 0);
    EXPECT_EQ(rxq.conf.rx_nseg, 2);
    EXPECT_EQ(rxq.conf.rx_seg[1].split.mp, payload_pool_);
    rte_eth_burst_mode mode;
    ASSERT_EQ(rte_eth_rx_burst_mode_get(port_, 0, &mode), 0);
    EXPECT_NE(std::string(mode.info).find("split after tcp"), std::string::npos);
    char* text = nullptr;
    std::size_t size = 0;
    FILE* out = open_memstream(&text, &size);
    EXPECT_EQ(rte_eth_dev_priv_dump(port_, out), 0);
    fclose(out);
    EXPECT_NE(std::string(text).find("iface: " + iface_), std::string::npos) << text;
    free(text);
    EXPECT_EQ(peer_->queue_length(), 10000);
}

int link_of(std::uint16_t port)
{
    rte_eth_link link;
    EXPECT_EQ(rte_eth_link_get_nowait(port, &link), 0);
    return link.link_status;
}

TEST_P(Life, LinkIsUpWhenBothEndsAre)
{
    start({});
    EXPECT_EQ(link_of(port_), RTE_ETH_LINK_UP);
    peer_->set_up(false);
    EXPECT_EQ(link_of(port_), RTE_ETH_LINK_DOWN);
    peer_->set_up(true);
    EXPECT_EQ(link_of(port_), RTE_ETH_LINK_UP);
    EXPECT_EQ(rte_eth_dev_set_link_down(port_), 0);
    EXPECT_EQ(link_of(port_), RTE_ETH_LINK_DOWN);
    EXPECT_EQ(rte_eth_dev_set_link_up(port_), 0);
    EXPECT_EQ(link_of(port_), RTE_ETH_LINK_UP);
}

TEST_P(Life, TheMtuIsTheInterfaces)
{
    start({.mtu = 1400});
    EXPECT_EQ(peer_->mtu(), 1400);
    EXPECT_EQ(rte_eth_dev_set_mtu(port_, 9000), 0);
    EXPECT_EQ(peer_->mtu(), 9000);
    const Made made = make_frame({.payload = 8900});
    peer_->send(made.bytes);
    expect_split(receive(), made.bytes, made.header);
    EXPECT_LT(rte_eth_dev_set_mtu(port_, 65522), 0);
    EXPECT_EQ(peer_->mtu(), 9000);
    EXPECT_EQ(rte_eth_dev_set_mtu(port_, 65521), 0);
    const Made large = make_frame({.payload = 65521 - 40});
    peer_->send(large.bytes);
    expect_split(receive(), large.bytes, large.header);
}

TEST_P(Life, AnMtuTheBuffersCannotHoldIsRefused)
{
    start({.fragments = 64, .fragment_bytes = 128});
    EXPECT_LT(rte_eth_dev_set_mtu(port_, 9000), 0);
    EXPECT_EQ(peer_->mtu(), 1500);
}

TEST_P(Life, WrongPoolsAreRefused)
{
    start({});
    ASSERT_EQ(rte_eth_dev_stop(port_), 0);
    rte_eth_rxseg segments[2]{};
    rte_eth_rxconf rx{};
    rx.offloads = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT;
    rx.rx_seg = segments;
    rx.rx_nseg = 2;
    const auto set_up = [&](rte_mempool* head, rte_mempool* payload, std::uint32_t proto) {
        segments[0].split = {.mp = head, .length = 0, .offset = 0, .proto_hdr = proto};
        segments[1].split = {.mp = payload, .length = 0, .offset = 0, .proto_hdr = 0};
        return rte_eth_rx_queue_setup(port_, 0, 256, kAnySocket, &rx, nullptr);
    };
    EXPECT_LT(set_up(host_pool(64, 200), payload_pool_, 0x101), 0); // no room for headers
    EXPECT_LT(set_up(head_pool_, host_pool(8, 128), 0x101), 0);     // no room for a frame
    EXPECT_LT(set_up(head_pool_, payload_pool_, 0x291), 0);         // UDP
    char error[128];
    devmem_region* region;
    ASSERT_EQ(devmem_region_create("opaque:size=1M", &region, error, sizeof error), 0);
    rte_mempool* opaque =
        devmem_pktmbuf_pool_create("opaque_head", region, 0, 0, 65536, 1024, SOCKET_ID_ANY);
    ASSERT_NE(opaque, nullptr);
    EXPECT_LT(set_up(opaque, payload_pool_, 0x101), 0); // headers must be readable
    EXPECT_EQ(set_up(head_pool_, payload_pool_, 0x101), 0);
    EXPECT_EQ(devmem_pktmbuf_pool_free(opaque), 0);
    devmem_region_release(region);
    ASSERT_EQ(rte_eth_dev_start(port_), 0);
}

TEST_P(Life, StoppedTheInterfaceHasNoCarrierAndNothingStaleIsDelivered)
{
    start({});
    const Made stale = make_frame({.payload = 1});
    const Made fresh = make_frame({.payload = 2});
    peer_->send(stale.bytes);
    ASSERT_EQ(rte_eth_dev_stop(port_), 0);
    EXPECT_EQ(rte_mempool_avail_count(payload_pool_), payload_pool_->size);
    ASSERT_EQ(rte_eth_dev_start(port_), 0);
    peer_->send(fresh.bytes);
    expect_split(receive(), fresh.bytes, fresh.header);
}

TEST_P(Life, QueuesStopAndStart)
{
    start({});
    const Made made = make_frame({.payload = 100});
    ASSERT_EQ(rte_eth_dev_rx_queue_stop(port_, 0), 0);
    EXPECT_EQ(rte_mempool_avail_count(payload_pool_), payload_pool_->size);
    peer_->send(made.bytes);
    EXPECT_EQ(receive(), nullptr);
    ASSERT_EQ(rte_eth_dev_rx_queue_start(port_, 0), 0);
    peer_->send(made.bytes);
    expect_split(receive(), made.bytes, made.header);
    EXPECT_EQ(receive(), nullptr);
    ASSERT_EQ(rte_eth_dev_tx_queue_stop(port_, 0), 0);
    rte_mbuf* m = rte_pktmbuf_alloc(head_pool_);
    EXPECT_EQ(rte_eth_tx_burst(port_, 0, &m, 1), 0);
    rte_pktmbuf_free(m);
    ASSERT_EQ(rte_eth_dev_tx_queue_start(port_, 0), 0);
}

TEST_P(Life, AQueueChangesItsPayloadPoolWhileThePortRuns)
{
    start({.queues = 2});
    rte_mempool* other = host_pool(256, 1448);
    unsigned by_queue[2] = {}, changed = 0;
    // The kernel chooses the queue by flow.
    for (std::uint16_t flow = 0; flow < 64; ++flow) {
        const Made made = make_frame({.payload = 300, .src_port = flow});
        if (flow == 32) {
            change_payload(other);
            EXPECT_GT(by_queue[0], 0u);
        }
        peer_->send(made.bytes);
        rte_mbuf* packet = nullptr;
        std::uint16_t queue = 0;
        for (int tries = 0; rte_eth_rx_burst(port_, queue, &packet, 1) == 0; ++tries) {
            ASSERT_LT(tries, 1'000'000);
            queue ^= 1;
        }
        ++by_queue[queue];
        if (flow < 32 || queue == 1) {
            expect_split(packet, made.bytes, made.header);
            continue;
        }
        ++changed;
        ASSERT_NE(packet->next, nullptr);
        EXPECT_EQ(packet->next->pool, other);
        EXPECT_EQ(
            payload_bytes(packet),
            Frame(made.bytes.begin() + static_cast<std::ptrdiff_t>(made.header), made.bytes.end()));
        rte_pktmbuf_free(packet);
    }
    EXPECT_GT(changed, 0u);
    rte_eth_stats stats;
    ASSERT_EQ(rte_eth_stats_get(port_, &stats), 0);
    EXPECT_EQ(stats.q_ipackets[0], by_queue[0]) << "the count went back";
    EXPECT_EQ(stats.q_ipackets[1], by_queue[1]);
    EXPECT_EQ(stats.ipackets, 64u);
}

TEST_P(Life, StatisticsAddUpAndReset)
{
    start({});
    const Made made = make_frame({.payload = 100});
    peer_->send(made.bytes);
    expect_split(receive(), made.bytes, made.header);
    rte_eth_stats stats;
    ASSERT_EQ(rte_eth_stats_get(port_, &stats), 0);
    EXPECT_EQ(stats.ipackets, 1u);
    EXPECT_EQ(stats.ibytes, made.bytes.size());
    EXPECT_EQ(stats.q_ipackets[0], 1u);
    EXPECT_EQ(xstat("rx_payload_bytes"), 100u);
    EXPECT_EQ(xstat("rx_header_bytes"), made.header);
    EXPECT_EQ(xstat("rx_q0_packets"), 1u);
    ASSERT_EQ(rte_eth_stats_reset(port_), 0);
    ASSERT_EQ(rte_eth_stats_get(port_, &stats), 0);
    EXPECT_EQ(stats.ipackets, 0u);
    EXPECT_EQ(xstat("rx_payload_bytes"), 0u);
}

TEST_P(Life, WhatTheKernelDropsForUsIsMissed)
{
    start({});
    rte_eth_dev_set_link_down(port_); // without carrier nothing is queued
    rte_eth_dev_set_link_up(port_);
    const Made made = make_frame({.payload = 1});
    for (int i = 0; i < 10100; ++i)
        peer_->send(made.bytes);
    rte_eth_stats stats;
    ASSERT_EQ(rte_eth_stats_get(port_, &stats), 0);
    EXPECT_GT(stats.imissed, 0u);
    ASSERT_EQ(rte_eth_stats_reset(port_), 0);
    ASSERT_EQ(rte_eth_stats_get(port_, &stats), 0);
    EXPECT_EQ(stats.imissed, 0u);
}

TEST_P(Life, MacAddress)
{
    start({}, "iface=" + iface_ + ",mac=02:00:00:00:00:77");
    rte_ether_addr mac;
    ASSERT_EQ(rte_eth_macaddr_get(port_, &mac), 0);
    EXPECT_EQ(mac.addr_bytes[5], 0x77);
    mac.addr_bytes[5] = 0x78;
    EXPECT_EQ(rte_eth_dev_default_mac_addr_set(port_, &mac), 0);
    EXPECT_EQ(rte_eth_promiscuous_enable(port_), 0);
    EXPECT_EQ(rte_eth_allmulticast_enable(port_), 0);
}

/// The interface is renamed and moved into another namespace; the port still governs it.
TEST_P(Life, TheInterfaceMayMove)
{
    start({});
    peer_.reset();
    int ready[2];
    int done[2];
    ASSERT_EQ(pipe(ready), 0);
    ASSERT_EQ(pipe(done), 0);
    const pid_t child = fork();
    if (child == 0) { // holds the other namespace
        char c = unshare(CLONE_NEWNET) == 0 ? 'y' : 'n';
        if (write(ready[1], &c, 1) != 1 || read(done[0], &c, 1) != 1)
            _exit(1);
        _exit(0);
    }
    char made = 'n';
    ASSERT_EQ(read(ready[0], &made, 1), 1);
    ASSERT_EQ(made, 'y');
    const std::string move = "ip link set " + iface_ + " down && ip link set " + iface_ +
                             " netns " + std::to_string(child) + " name moved0";
    ASSERT_EQ(system(move.c_str()), 0);
    EXPECT_EQ(link_of(port_), RTE_ETH_LINK_DOWN);
    EXPECT_EQ(rte_eth_dev_set_mtu(port_, 2000), 0);
    const std::string enter = "nsenter -t " + std::to_string(child) + " -n ";
    ASSERT_EQ(system((enter + "ip link set moved0 up").c_str()), 0);
    EXPECT_EQ(link_of(port_), RTE_ETH_LINK_UP);
    EXPECT_EQ(system((enter + "ip link show moved0 | grep -q 'mtu 2000'").c_str()), 0);
    EXPECT_EQ(if_nametoindex("moved0"), 0u) << "the caller's own namespace must not have changed";
    ASSERT_EQ(write(done[1], "x", 1), 1);
    waitpid(child, nullptr, 0);
    for (const int fd : {ready[0], ready[1], done[0], done[1]})
        close(fd);
    // The namespace goes, in its own time, and the interface with it.
    for (int tries = 0; tries < 500 && link_of(port_) == RTE_ETH_LINK_UP; ++tries)
        usleep(10000);
    EXPECT_EQ(link_of(port_), RTE_ETH_LINK_DOWN);
}

TEST_P(Life, ClosedBeforeItIsRemoved)
{
    start({});
    peer_.reset();
    ASSERT_EQ(rte_eth_dev_stop(port_), 0);
    ASSERT_EQ(rte_eth_dev_close(port_), 0);
    EXPECT_EQ(if_nametoindex(iface_.c_str()), 0u);
    EXPECT_EQ(rte_vdev_uninit(vdev_.c_str()), 0);
    port_ = RTE_MAX_ETHPORTS;
    start({}); // and again
    const Made made = make_frame({.payload = 10});
    peer_->send(made.bytes);
    expect_split(receive(), made.bytes, made.header);
}

} // namespace
} // namespace hds_test
