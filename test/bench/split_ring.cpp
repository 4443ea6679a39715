// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/split_ring.h"

#include "drivers/net/hds/ethdev_abi.h"

#include <rte_eth_ring.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace bench {
namespace {

const eth_dev_ops* net_ring;
eth_dev_ops splitting; ///< net_ring's, but for two

int info(rte_eth_dev* dev, rte_eth_dev_info* info)
{
    const int rc = net_ring->dev_infos_get(dev, info);
    info->rx_offload_capa |= RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_SCATTER |
                             RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
    info->rx_queue_offload_capa = info->rx_offload_capa;
    info->rx_seg_capa.max_nseg = 2;
    info->rx_seg_capa.multi_pools = 1;
    return rc;
}

const std::uint32_t* headers(rte_eth_dev*)
{
    static constexpr std::uint32_t kTcp[]{
        RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4_EXT_UNKNOWN | RTE_PTYPE_L4_TCP, RTE_PTYPE_UNKNOWN};
    return kTcp;
}

} // namespace

SplitRing::SplitRing(std::uint16_t mtu, unsigned queues)
{
    static unsigned number = 0;
    const std::string name = "bench" + std::to_string(number++);
    constexpr unsigned kOneEach = RING_F_SP_ENQ | RING_F_SC_DEQ;
    const auto make = [&](const char* way, unsigned queue) {
        const std::string ring = name + way + std::to_string(queue);
        return rte_ring_create(ring.c_str(), kSlots, SOCKET_ID_ANY, kOneEach);
    };
    bool made = true;
    for (unsigned q = 0; q < queues; q++) {
        rx.push_back(make("_rx", q));
        tx.push_back(make("_tx", q));
        made &= rx.back() != nullptr && tx.back() != nullptr;
    }
    const int port =
        made ? rte_eth_from_rings(name.c_str(), rx.data(), queues, tx.data(), queues, 0) : -1;
    if (port < 0)
        throw std::runtime_error("cannot make a net_ring port: give it more memory");
    port_ = static_cast<std::uint16_t>(port);
    rte_eth_dev& device = rte_eth_devices[port_];
    if (net_ring == nullptr) {
        net_ring = device.dev_ops;
        splitting = *net_ring;
        splitting.dev_infos_get = info;
        splitting.buffer_split_supported_hdr_ptypes_get = headers;
    }
    device.dev_ops = &splitting;
    device.data->mtu = mtu;
    rte_ether_addr address;
    std::copy_n(mac().begin(), sizeof address, address.addr_bytes);
    rte_eth_dev_default_mac_addr_set(port_, &address);
}

SplitRing::~SplitRing()
{
    rte_eth_dev_close(port_);
    for (const auto& rings : {rx, tx})
        std::ranges::for_each(rings, rte_ring_free);
}

} // namespace bench
