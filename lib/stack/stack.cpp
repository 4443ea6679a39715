// SPDX-License-Identifier: BSD-3-Clause

#include "lib/stack/stack.h"

#include "lib/memory/region.h"
#include "lib/stack/log.h"

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

using namespace devmem;

namespace devmem {

wire::Ip to_ip(const devmem_addr& addr)
{
    wire::Ip ip;
    ip.family = addr.family;
    std::copy_n(addr.bytes, addr.family == 4 ? 4 : 16, ip.bytes.begin());
    return ip;
}

devmem_addr to_addr(const wire::Ip& ip)
{
    devmem_addr addr{};
    addr.family = ip.family;
    addr.prefix_len = ip.family == 4 ? 32 : 128;
    std::copy(ip.bytes.begin(), ip.bytes.end(), addr.bytes);
    return addr;
}

bool is_host(const wire::Ip& ip)
{
    constexpr std::uint8_t kMulticast4 = 224, kMulticast6 = 0xff;
    if (ip.family == 4)
        return ip.bytes[0] != 0 && ip.bytes[0] < kMulticast4; // above it: class E and broadcast
    return ip.bytes[0] != kMulticast6 && ip != wire::Ip{.family = 6};
}

} // namespace devmem

namespace {

/// Ethernet, IPv4 or IPv6, TCP with timestamps: where the header of a data segment ends, for ports
/// that can only split at a byte count.
constexpr std::uint16_t kHeaderBytes4 = 14 + 20 + 20, kHeaderBytes6 = 14 + 40 + 20;
constexpr std::uint16_t kTimestampBytes = 12;

/// Split after the TCP header, whatever the IP version: what net_hds offers beyond the two exact
/// stacks that hardware does.
constexpr std::uint32_t kSplitAnyTcp = RTE_PTYPE_L2_ETHER | RTE_PTYPE_L4_TCP;
constexpr std::uint32_t kSplitIpv4Tcp =
    RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4_EXT_UNKNOWN | RTE_PTYPE_L4_TCP;
constexpr std::uint32_t kSplitIpv6Tcp =
    RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV6_EXT_UNKNOWN | RTE_PTYPE_L4_TCP;

bool same_prefix(const wire::Ip& ip, const devmem_addr& local)
{
    if (ip.family != local.family)
        return false;
    unsigned bits = local.prefix_len;
    for (std::size_t i = 0; bits != 0; i++) {
        const unsigned take = std::min(bits, 8u);
        const auto mask = static_cast<std::uint8_t>(0xff << (8 - take));
        if (((ip.bytes[i] ^ local.bytes[i]) & mask) != 0)
            return false;
        bits -= take;
    }
    return true;
}

} // namespace

int devmem_stack::local_address(const wire::Ip& ip) const
{
    for (std::size_t i = 0; i < ips.size(); i++) {
        if (ips[i] == ip)
            return static_cast<int>(i);
    }
    return -1;
}

bool devmem_stack::route(const wire::Ip& remote, wire::Ip* local, wire::Ip* next_hop) const
{
    *local = {};
    for (std::size_t i = 0; i < addrs.size(); i++) {
        if (same_prefix(remote, addrs[i])) {
            *local = ips[i];
            *next_hop = remote;
            return true;
        }
        if (ips[i].family == remote.family && local->family == 0)
            *local = ips[i];
    }
    if (local->family == 0)
        return false;
    for (const devmem_addr& gateway : gateways) {
        if (gateway.family == remote.family) {
            *next_hop = to_ip(gateway);
            return true;
        }
    }
    return false;
}

int devmem_stack::create(const devmem_stack_config& config, devmem_stack** out, std::string& error)
{
    if (config.size != sizeof(config)) {
        error =
            "devmem_stack_config.size is not sizeof(struct devmem_stack_config): the program was "
            "built for another version of this library";
        return -EINVAL;
    }
    if (config.region == nullptr || config.naddrs == 0) {
        error =
            config.region == nullptr ? "a stack needs a region" : "a stack needs a local address";
        return -EINVAL;
    }
    if (config.dscp > kLargestDscp) {
        error = "DSCP " + std::to_string(config.dscp) + " is more than 63";
        return -EINVAL;
    }
    std::unique_ptr<devmem_stack> stack(new devmem_stack);
    stack->port_id = config.port_id;
    stack->addrs.assign(config.addrs, config.addrs + config.naddrs);
    stack->gateways.assign(config.gateways, config.gateways + config.ngateways);
    for (const devmem_addr& addr : stack->addrs)
        stack->ips.push_back(to_ip(addr));
    if (getrandom(stack->secret.data(), sizeof(stack->secret), 0) !=
        static_cast<ssize_t>(sizeof(stack->secret))) {
        error = "the system gives no random numbers";
        return -EIO;
    }
    stack->tcp.timestamps = (config.flags & DEVMEM_STACK_NO_TIMESTAMPS) == 0;
    stack->tcp.sack = (config.flags & DEVMEM_STACK_NO_SACK) == 0;
    stack->tcp.window_scale = (config.flags & DEVMEM_STACK_NO_WSCALE) == 0;
    stack->tcp.ecn = (config.flags & DEVMEM_STACK_NO_ECN) == 0;
    if (config.rcv_window != 0)
        stack->tcp.rcv_window = config.rcv_window;
    stack->tcp.held_limit_bytes = config.held_limit;
    stack->dscp = config.dscp;
    stack->hop_limit = config.ttl != 0 ? config.ttl : wire::kDefaultHopLimit;

    if (const int rc = stack->configure_port(config, error); rc != 0)
        return rc;
    if (const int rc = stack->make_shards(config, error); rc != 0)
        return rc;
    if (const int rc = stack->setup_queues(error); rc != 0)
        return rc;
    *out = stack.release();
    return 0;
}

int devmem_stack::configure_port(const devmem_stack_config& config, std::string& error)
{
    rte_eth_dev_info info;
    int rc = rte_eth_dev_info_get(port_id, &info);
    if (rc != 0) {
        error = "port " + std::to_string(port_id) + " does not exist";
        return rc;
    }
    const std::string name = info.driver_name;
    if ((info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT) == 0) {
        error =
            "the port (driver " + name +
            ") cannot split headers from payload: open it with devmem_port_open(), which wraps it";
        return -ENOTSUP;
    }
    if ((info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_CKSUM) == 0) {
        error =
            "the port (driver " + name +
            ") cannot check TCP checksums, and the CPU cannot where payload is unreadable: wrap "
            "it with --vdev=net_hds0,lower=PORT";
        return -ENOTSUP;
    }
    const std::uint16_t queues = std::max<std::uint16_t>(config.shards, 1);
    if (queues > info.max_rx_queues || queues > info.max_tx_queues) {
        error = std::to_string(queues) + " queues asked for; the port (driver " + name + ") has " +
                std::to_string(std::min(info.max_rx_queues, info.max_tx_queues));
        return -EINVAL;
    }

    const auto has = [&](std::uint8_t family) {
        return std::any_of(addrs.begin(), addrs.end(),
                           [&](const devmem_addr& a) { return a.family == family; });
    };
    std::array<std::uint32_t, 64> offered;
    const int count = rte_eth_buffer_split_get_supported_hdr_ptypes(
        port_id, offered.data(), static_cast<int>(offered.size()));
    const auto offers = [&](std::uint32_t ptype) {
        return std::find(offered.begin(), offered.begin() + std::max(count, 0), ptype) !=
               offered.begin() + std::max(count, 0);
    };
    const std::uint32_t exact = has(6) ? kSplitIpv6Tcp : kSplitIpv4Tcp;
    if (offers(kSplitAnyTcp))
        split_ = kSplitAnyTcp;
    else if (offers(exact) && !(has(4) && has(6)))
        split_ = exact;
    else
        split_bytes_ = static_cast<std::uint16_t>((has(6) ? kHeaderBytes6 : kHeaderBytes4) +
                                                  (tcp.timestamps ? kTimestampBytes : 0));

    rte_eth_conf conf{};
    conf.rxmode.offloads =
        RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_TCP_CKSUM |
        (info.rx_offload_capa &
         (RTE_ETH_RX_OFFLOAD_SCATTER | RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_LRO));
    conf.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    conf.rxmode.max_lro_pkt_size = info.max_lro_pkt_size;
    rc = rte_eth_dev_get_mtu(port_id, &mtu);
    if (rc != 0) {
        error = "the port (driver " + name + ") does not tell its MTU";
        return rc;
    }
    conf.rxmode.mtu = mtu;
    if (queues > 1 && (info.flow_type_rss_offloads & RTE_ETH_RSS_TCP) != 0) {
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & RTE_ETH_RSS_TCP;
    }
    rc = rte_eth_dev_configure(port_id, queues, queues, &conf);
    if (rc != 0) {
        error = "the port (driver " + name + ") refuses its configuration: " + rte_strerror(-rc);
        return rc;
    }
    rte_ether_addr addr;
    rte_eth_macaddr_get(port_id, &addr);
    std::copy_n(addr.addr_bytes, mac.size(), mac.begin());

    // With both families on one port the smaller payload decides: its segments fill fragments, and
    // the other family's MSS is brought down to it.
    rc = devmem_fit(mtu, has(6), tcp.timestamps, config.region->page_bytes, 1, &fit);
    if (rc != 0) {
        error = "MTU " + std::to_string(mtu) + " does not suit " + (has(6) ? "IPv6" : "IPv4") +
                " in pages of " + std::to_string(config.region->page_bytes) + " bytes";
        return rc;
    }
    payload_per_fragment = fit.mss - (tcp.timestamps ? kTimestampBytes : 0u);
    if (config.fragment_bytes != 0) {
        fit.fragment_bytes = config.fragment_bytes;
        fit.page_bytes = config.region->page_bytes;
        constexpr std::uint32_t kMostPerPage = 64;
        while (fit.page_bytes / fit.fragment_bytes > kMostPerPage)
            fit.page_bytes /= 2;
        fit.fragments_per_page = fit.page_bytes / fit.fragment_bytes;
        if (fit.fragments_per_page == 0) {
            error = "a fragment of " + std::to_string(config.fragment_bytes) +
                    " bytes does not fit a page of " + std::to_string(fit.page_bytes);
            return -EINVAL;
        }
    }

    constexpr std::uint16_t kDescriptors = 1024;
    descriptors_ = std::clamp(kDescriptors, std::max<std::uint16_t>(info.rx_desc_lim.nb_min, 1),
                              info.rx_desc_lim.nb_max);
    return 0;
}

int devmem_stack::make_shards(const devmem_stack_config& config, std::string& error)
{
    // Names of mempools are global to the process: number the stacks.
    static std::atomic<unsigned> stacks{0};
    const unsigned number = stacks++;
    const unsigned count = std::max<std::uint16_t>(config.shards, 1);
    const auto share_of = [&](std::uint64_t all) {
        return all / config.region->page_bytes / count * config.region->page_bytes;
    };
    const std::uint64_t bytes = share_of(config.region->bytes);
    const std::uint64_t populated = share_of(config.region->populated);
    const auto fragments =
        static_cast<std::uint32_t>(populated / fit.page_bytes * fit.fragments_per_page);

    // What a port may keep posted: a descriptor each, or room for the largest frame.
    constexpr std::uint32_t kLargestPayload = 65535;
    const std::uint32_t largest_frame = kLargestPayload / fit.fragment_bytes + 1;
    const bool small = fragments / 4 < descriptors_;
    if (small)
        descriptors_ = static_cast<std::uint16_t>(std::max(fragments / 4, 32u));
    const std::uint32_t reserve = std::max<std::uint32_t>(descriptors_, 2 * largest_frame);
    if (fragments <= reserve) {
        error = "the region gives each shard " + std::to_string(fragments) + " fragments of " +
                std::to_string(fit.fragment_bytes) + " bytes; the port alone keeps " +
                std::to_string(reserve) + ": make the region larger";
        return -EINVAL;
    }
    constexpr std::uint64_t kHostBytes = 16u << 20;
    constexpr std::uint32_t kConnections = 4096;
    const int socket = rte_eth_dev_socket_id(port_id);
    for (unsigned i = 0; i < count; i++) {
        const std::string name = "dm" + std::to_string(number) + "_" + std::to_string(i);
        const std::uint32_t connections =
            config.max_connections != 0 ? config.max_connections : kConnections;
        std::unique_ptr<devmem_shard> shard;
        const int rc = devmem_shard::create(
            {
                .stack = this,
                .queue = static_cast<std::uint16_t>(i),
                .shards = static_cast<std::uint16_t>(count),
                .connections = connections,
                .reserve = reserve,
                .payload = {.name = name,
                            .region = config.region,
                            .offset = i * bytes,
                            .bytes = bytes,
                            .populated = populated,
                            .host_bytes = config.host_bytes != 0 ? config.host_bytes : kHostBytes,
                            .fit = fit,
                            .socket_id = socket,
                            .returns = nullptr,
                            .token_flags = 0},
            },
            &shard, error);
        if (rc != 0)
            return rc;
        shards.push_back(std::move(shard));
    }
    return 0;
}

int devmem_stack::setup_rx(const devmem_shard& shard, rte_mempool* payload, std::string& error)
{
    rte_eth_dev_info info;
    int rc = rte_eth_dev_info_get(port_id, &info);
    std::array<rte_eth_rxseg, 2> segments{};
    segments[0].split.mp = shard.header_pool();
    segments[0].split.length = split_bytes_;
    segments[0].split.proto_hdr = split_;
    segments[1].split.mp = payload;
    rte_eth_rxconf rx = info.default_rxconf;
    rx.rx_seg = segments.data();
    rx.rx_nseg = static_cast<std::uint16_t>(segments.size());
    rx.offloads = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT;
    if (rc == 0)
        rc = rte_eth_rx_queue_setup(port_id, shard.queue(), descriptors_,
                                    static_cast<unsigned>(rte_eth_dev_socket_id(port_id)), &rx,
                                    nullptr);
    if (rc != 0)
        error = "the port refuses to split on receive queue " + std::to_string(shard.queue()) +
                ": " + rte_strerror(-rc);
    return rc;
}

int devmem_stack::can_restart_rx(std::string& error) const
{
    rte_eth_dev_info info;
    const int rc = rte_eth_dev_info_get(port_id, &info);
    if (rc != 0 || (info.dev_capa & RTE_ETH_DEV_CAPA_RUNTIME_RX_QUEUE_SETUP) != 0)
        return rc;
    error = std::string("the port (driver ") + info.driver_name +
            ") cannot set a receive queue up while it runs "
            "(RTE_ETH_DEV_CAPA_RUNTIME_RX_QUEUE_SETUP): wrap it with --vdev=net_hds0,lower=PORT";
    return -ENOTSUP;
}

int devmem_stack::start_rx(const devmem_shard& shard, rte_mempool* payload, std::string& error)
{
    int rc = setup_rx(shard, payload, error);
    if (rc != 0)
        return rc;
    rc = rte_eth_dev_rx_queue_start(port_id, shard.queue());
    if (rc != 0)
        error = "the port does not start receive queue " + std::to_string(shard.queue()) + ": " +
                rte_strerror(-rc);
    return rc;
}

int devmem_stack::setup_queues(std::string& error)
{
    rte_eth_dev_info info;
    int rc = rte_eth_dev_info_get(port_id, &info);
    const std::uint16_t tx_descriptors = std::clamp<std::uint16_t>(
        512, std::max<std::uint16_t>(info.tx_desc_lim.nb_min, 1), info.tx_desc_lim.nb_max);
    for (std::uint16_t q = 0; rc == 0 && q < shards.size(); q++) {
        rc = setup_rx(*shards[q], shards[q]->payload_mempool(), error);
        if (rc != 0)
            return rc;
        rc = rte_eth_tx_queue_setup(port_id, q, tx_descriptors,
                                    static_cast<unsigned>(rte_eth_dev_socket_id(port_id)), nullptr);
        if (rc != 0)
            error =
                "the port refuses transmit queue " + std::to_string(q) + ": " + rte_strerror(-rc);
    }
    if (rc != 0)
        return rc;
    rc = rte_eth_dev_start(port_id);
    if (rc != 0) {
        error = std::string("the port does not start: ") + rte_strerror(-rc);
        return rc;
    }
    started_ = true;
    // Neighbor Discovery comes by multicast (RFC 4861 7.2.2). Not every port filters.
    rte_eth_allmulticast_enable(port_id);
    return 0;
}

devmem_stack::~devmem_stack()
{
    if (started_) {
        for (const auto& shard : shards)
            shard->abort_all();
        // A stopped port holds no mbufs; the pools may go.
        rte_eth_dev_stop(port_id);
    }
}
