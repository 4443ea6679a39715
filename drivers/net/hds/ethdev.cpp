// SPDX-License-Identifier: BSD-3-Clause
// The vdev `net_hds`: what the ethdev layer calls.
#include "drivers/net/hds/end.h"
#include "drivers/net/hds/log.h"
#include "drivers/net/hds/net_hds.h"
#include "drivers/net/hds/stats.h"

#include <cerrno>
#include <cinttypes>
#include <cstring>
#include <new>
#include <rte_eal.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_malloc.h>

namespace devmem::hds {

RTE_LOG_REGISTER(logtype, pmd.net.hds, NOTICE)

namespace {

constexpr const char* kDriver = "net_hds";

/// Lives in memory the ethdev layer frees after dev_close.
struct Port {
    End* end;
    rte_ether_addr mac;
    std::uint64_t missed_before; ///< at the last stats_reset
    std::uint16_t hds_thresh;
};

Port& port_of(const rte_eth_dev* dev)
{
    return *static_cast<Port*>(dev->data->dev_private);
}
End& end_of(const rte_eth_dev* dev)
{
    return *port_of(dev).end;
}
RxQueue& rx_of(const rte_eth_dev* dev, std::uint16_t q)
{
    return *static_cast<RxQueue*>(dev->data->rx_queues[q]);
}
TxQueue& tx_of(const rte_eth_dev* dev, std::uint16_t q)
{
    return *static_cast<TxQueue*>(dev->data->tx_queues[q]);
}

/// Queues are C++ objects with a bounce buffer behind them, in DPDK memory of their lcore's node.
template <typename Queue>
Queue* make_queue(unsigned socket)
{
    void* memory = rte_zmalloc_socket(kDriver, sizeof(Queue) + kMaxFrame, alignof(Queue),
                                      static_cast<int>(socket));
    if (memory == nullptr)
        return nullptr;
    auto* queue = new (memory) Queue;
    queue->bounce = static_cast<std::byte*>(memory) + sizeof(Queue);
    return queue;
}

/// What the ethdev layer calls is C, which no exception may pass through.
template <typename Call>
int contained(Call call)
{
    try {
        return call();
    } catch (const std::bad_alloc&) {
        return -ENOMEM;
    }
}

template <typename Queue>
void free_queue(void*& slot)
{
    if (slot == nullptr)
        return;
    static_cast<Queue*>(slot)->~Queue();
    rte_free(slot);
    slot = nullptr;
}

std::uint32_t largest_frame(std::uint64_t offloads, std::uint16_t mtu)
{
    return (offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO) != 0 ? kMaxFrame : mtu + kFrameOverhead;
}

/// Every receive queue's need for this MTU; nothing changes unless all queues can meet it.
int follow_mtu(const rte_eth_dev* dev, std::uint16_t mtu)
{
    for (const bool apply : {false, true}) {
        for (std::uint16_t q = 0; q < dev->data->nb_rx_queues; ++q) {
            auto* queue = static_cast<RxQueue*>(dev->data->rx_queues[q]);
            std::uint32_t fragments;
            if (queue == nullptr)
                continue;
            if (const int rc =
                    rx_queue_fragments(*queue, largest_frame(queue->offloads, mtu), &fragments);
                rc != 0)
                return rc;
            if (apply)
                queue->max_fragments = fragments;
        }
    }
    return 0;
}

int dev_configure(rte_eth_dev* dev)
{
    return contained([dev] { return end_of(dev).configure(*dev->data); });
}

void run_rx(rte_eth_dev* dev, std::uint16_t q, bool run)
{
    rx_of(dev, q).running = run;
    if (!run)
        rx_queue_drain(rx_of(dev, q));
    dev->data->rx_queue_state[q] = run ? RTE_ETH_QUEUE_STATE_STARTED : RTE_ETH_QUEUE_STATE_STOPPED;
}

void run_tx(rte_eth_dev* dev, std::uint16_t q, bool run)
{
    tx_of(dev, q).running = run;
    dev->data->tx_queue_state[q] = run ? RTE_ETH_QUEUE_STATE_STARTED : RTE_ETH_QUEUE_STATE_STOPPED;
}

int rx_queue_start(rte_eth_dev* dev, std::uint16_t q)
{
    end_of(dev).discard(q);
    run_rx(dev, q, true);
    return 0;
}
int rx_queue_stop(rte_eth_dev* dev, std::uint16_t q)
{
    run_rx(dev, q, false);
    return 0;
}
int tx_queue_start(rte_eth_dev* dev, std::uint16_t q)
{
    run_tx(dev, q, true);
    return 0;
}
int tx_queue_stop(rte_eth_dev* dev, std::uint16_t q)
{
    run_tx(dev, q, false);
    return 0;
}

int refuse_start(const char* kind, std::uint16_t q)
{
    HDS_LOG(ERR, "%s queue %u was configured but not set up", kind, q);
    return -EINVAL;
}

void stop_queues(rte_eth_dev* dev)
{
    for (std::uint16_t q = 0; q < dev->data->nb_rx_queues; ++q)
        if (dev->data->rx_queues[q] != nullptr) // not if setting it up again has failed
            run_rx(dev, q, false);
    for (std::uint16_t q = 0; q < dev->data->nb_tx_queues; ++q)
        run_tx(dev, q, false);
}

int dev_start(rte_eth_dev* dev)
{
    for (std::uint16_t q = 0; q < dev->data->nb_rx_queues; ++q)
        if (dev->data->rx_queues[q] == nullptr)
            return refuse_start("receive", q);
    for (std::uint16_t q = 0; q < dev->data->nb_tx_queues; ++q)
        if (dev->data->tx_queues[q] == nullptr)
            return refuse_start("transmit", q);
    for (std::uint16_t q = 0; q < dev->data->nb_rx_queues; ++q)
        if (rx_of(dev, q).conf.rx_deferred_start == 0)
            rx_queue_start(dev, q);
    for (std::uint16_t q = 0; q < dev->data->nb_tx_queues; ++q)
        if (tx_of(dev, q).conf.tx_deferred_start == 0)
            run_tx(dev, q, true);
    const int rc = end_of(dev).start();
    if (rc != 0)
        stop_queues(dev);
    return rc;
}

int dev_stop(rte_eth_dev* dev)
{
    const int rc = end_of(dev).stop();
    stop_queues(dev);
    return rc;
}

int dev_close(rte_eth_dev* dev)
{
    for (std::uint16_t q = 0; q < dev->data->nb_rx_queues; ++q)
        free_queue<RxQueue>(dev->data->rx_queues[q]);
    for (std::uint16_t q = 0; q < dev->data->nb_tx_queues; ++q)
        free_queue<TxQueue>(dev->data->tx_queues[q]);
    delete port_of(dev).end;
    port_of(dev).end = nullptr;
    dev->data->mac_addrs = nullptr; // inside dev_private, which the ethdev layer frees
    return 0;
}

int rx_queue_setup(rte_eth_dev* dev, std::uint16_t q, std::uint16_t descriptors, unsigned socket,
                   const rte_eth_rxconf* conf, rte_mempool* pool)
{
    auto* queue = make_queue<RxQueue>(socket);
    if (queue == nullptr)
        return -ENOMEM;
    queue->port_id = dev->data->port_id;
    queue->queue_id = q;
    queue->descriptors = descriptors;
    queue->hds_thresh = port_of(dev).hds_thresh;
    // The ethdev layer takes offloads set for the whole port out of the queue's.
    const std::uint64_t offloads = conf->offloads | dev->data->dev_conf.rxmode.offloads;
    std::uint32_t fragments = 0;
    int rc = rx_queue_configure(*queue, *conf, pool, offloads);
    if (rc == 0)
        rc = rx_queue_fragments(*queue, largest_frame(offloads, dev->data->mtu), &fragments);
    if (rc == 0)
        rc = contained([&] {
            queue->stats = end_of(dev).rx_before[q];
            return end_of(dev).set_up_rx(*queue, *conf, socket);
        });
    queue->max_fragments = fragments;
    dev->data->rx_queues[q] = queue;
    if (rc != 0)
        free_queue<RxQueue>(dev->data->rx_queues[q]);
    else if (fragments != 0)
        dev->data->scattered_rx = 1;
    return rc;
}

int tx_queue_setup(rte_eth_dev* dev, std::uint16_t q, std::uint16_t descriptors, unsigned socket,
                   const rte_eth_txconf* conf)
{
    auto* queue = make_queue<TxQueue>(socket);
    if (queue == nullptr)
        return -ENOMEM;
    queue->port_id = dev->data->port_id;
    queue->queue_id = q;
    queue->descriptors = descriptors;
    queue->conf = *conf;
    const int rc = contained([&] { return end_of(dev).set_up_tx(*queue, *conf, socket); });
    dev->data->tx_queues[q] = queue;
    if (rc != 0)
        free_queue<TxQueue>(dev->data->tx_queues[q]);
    return rc;
}

void rx_queue_release(rte_eth_dev* dev, std::uint16_t q)
{
    if (dev->data->rx_queues[q] == nullptr)
        return;
    rx_queue_drain(rx_of(dev, q));
    end_of(dev).rx_before[q] = rx_of(dev, q).stats;
    free_queue<RxQueue>(dev->data->rx_queues[q]);
}
void tx_queue_release(rte_eth_dev* dev, std::uint16_t q)
{
    free_queue<TxQueue>(dev->data->tx_queues[q]);
}

int dev_infos_get(rte_eth_dev* dev, rte_eth_dev_info* info)
{
    info->max_mac_addrs = 1;
    info->min_rx_bufsize = 0;
    info->rx_seg_capa.multi_pools = 1;
    info->rx_seg_capa.offset_allowed = 1;
    info->rx_seg_capa.offset_align_log2 = 0;
    info->rx_seg_capa.max_nseg = 2;
    info->default_rxportconf = {.burst_size = 32, .ring_size = 256, .nb_queues = 1};
    info->default_txportconf = {.burst_size = 32, .ring_size = 256, .nb_queues = 1};
    info->dev_capa = RTE_ETH_DEV_CAPA_RUNTIME_RX_QUEUE_SETUP;
    return end_of(dev).info(*info);
}

int link_update(rte_eth_dev* dev, int)
{
    rte_eth_link link{};
    if (const int rc = end_of(dev).link(&link); rc != 0)
        return rc;
    // One 8-byte store: readers load it whole.
    std::uint64_t now;
    static_assert(sizeof link == sizeof now);
    std::memcpy(&now, &link, sizeof now);
    auto* shared = reinterpret_cast<std::uint64_t*>(&dev->data->dev_link);
    const std::uint64_t before = __atomic_exchange_n(shared, now, __ATOMIC_SEQ_CST);
    rte_eth_link old;
    std::memcpy(&old, &before, sizeof old);
    return old.link_status == link.link_status ? -1 : 0;
}

int set_link_up(rte_eth_dev* dev)
{
    return end_of(dev).set_link(true);
}
int set_link_down(rte_eth_dev* dev)
{
    return end_of(dev).set_link(false);
}
int promiscuous_enable(rte_eth_dev* dev)
{
    return end_of(dev).set_promiscuous(true);
}
int promiscuous_disable(rte_eth_dev* dev)
{
    return end_of(dev).set_promiscuous(false);
}
int allmulticast_enable(rte_eth_dev* dev)
{
    return end_of(dev).set_allmulticast(true);
}
int allmulticast_disable(rte_eth_dev* dev)
{
    return end_of(dev).set_allmulticast(false);
}
int mac_addr_set(rte_eth_dev* dev, rte_ether_addr* mac)
{
    return end_of(dev).set_mac(*mac);
}

int mtu_set(rte_eth_dev* dev, std::uint16_t mtu)
{
    const std::uint16_t before = dev->data->mtu;
    if (const int rc = follow_mtu(dev, mtu); rc != 0)
        return rc;
    const int rc = end_of(dev).set_mtu(mtu);
    if (rc != 0)
        follow_mtu(dev, before);
    return rc;
}

int stats_get(rte_eth_dev* dev, rte_eth_stats* stats)
{
    const rte_eth_dev_data& data = *dev->data;
    sum_stats(data, stats);
    stats->imissed = end_of(dev).missed() - port_of(dev).missed_before;
    return 0;
}

int stats_reset(rte_eth_dev* dev)
{
    reset_stats(*dev->data);
    for (auto& [queue, before] : end_of(dev).rx_before)
        before = {};
    port_of(dev).missed_before = end_of(dev).missed();
    return 0;
}

int xstats_get(rte_eth_dev* dev, rte_eth_xstat* values, unsigned n)
{
    return get_xstats(*dev->data, values, n);
}
int xstats_get_names(rte_eth_dev*, rte_eth_xstat_name* names, unsigned n)
{
    return get_xstats_names(names, n);
}

void rxq_info_get(rte_eth_dev* dev, std::uint16_t q, rte_eth_rxq_info* info)
{
    const RxQueue& queue = rx_of(dev, q);
    info->mp = queue.head_pool;
    info->conf = queue.conf;
    info->scattered_rx = dev->data->scattered_rx;
    info->nb_desc = queue.descriptors;
    info->rx_buf_size = queue.split == Split::kNone ? queue.head_room : queue.payload_room;
}

void txq_info_get(rte_eth_dev* dev, std::uint16_t q, rte_eth_txq_info* info)
{
    info->conf = tx_of(dev, q).conf;
    info->nb_desc = tx_of(dev, q).descriptors;
}

const char* split_name(Split split)
{
    switch (split) {
    case Split::kNone:
        return "no split";
    case Split::kLength:
        return "split by length";
    case Split::kIpv4Tcp:
        return "split after ipv4-tcp";
    case Split::kIpv6Tcp:
        return "split after ipv6-tcp";
    case Split::kAnyTcp:
        return "split after tcp";
    }
    return "";
}

int rx_burst_mode_get(rte_eth_dev* dev, std::uint16_t q, rte_eth_burst_mode* mode)
{
    std::snprintf(mode->info, sizeof mode->info, "%s, %s", end_of(dev).mode,
                  split_name(rx_of(dev, q).split));
    return 0;
}
int tx_burst_mode_get(rte_eth_dev* dev, std::uint16_t, rte_eth_burst_mode* mode)
{
    std::snprintf(mode->info, sizeof mode->info, "%s", end_of(dev).mode);
    return 0;
}

const std::uint32_t* supported_ptypes_get(rte_eth_dev*)
{
    static constexpr std::uint32_t kTypes[] = {
        RTE_PTYPE_L2_ETHER,      RTE_PTYPE_L2_ETHER_ARP, RTE_PTYPE_L2_ETHER_VLAN,
        RTE_PTYPE_L2_ETHER_QINQ, RTE_PTYPE_L3_IPV4,      RTE_PTYPE_L3_IPV4_EXT,
        RTE_PTYPE_L3_IPV6,       RTE_PTYPE_L3_IPV6_EXT,  RTE_PTYPE_L4_TCP,
        RTE_PTYPE_L4_UDP,        RTE_PTYPE_L4_SCTP,      RTE_PTYPE_L4_ICMP,
        RTE_PTYPE_L4_FRAG,       RTE_PTYPE_L4_NONFRAG,   RTE_PTYPE_UNKNOWN,
    };
    return kTypes;
}

const std::uint32_t* split_headers_get(rte_eth_dev*)
{
    return kSplitHeaders;
}

int priv_dump(rte_eth_dev* dev, FILE* out)
{
    end_of(dev).dump(out);
    for (std::uint16_t q = 0; q < dev->data->nb_rx_queues; ++q) {
        if (dev->data->rx_queues[q] == nullptr)
            continue;
        const RxQueue& queue = rx_of(dev, q);
        const Region* region = queue.payload_map.region();
        std::fprintf(out,
                     "rx queue %u: %s, predicted header %u, segment 0: %u bytes of %s, payload: "
                     "%u bytes of %s in %s%s, fragments: %u ready, %u a frame at most\n",
                     q, split_name(queue.split), queue.predicted, queue.head_room,
                     queue.head_pool->name, queue.payload_room, queue.payload_pool->name,
                     region != nullptr ? region->spec.c_str() : "host memory",
                     queue.payload_map.reachable() ? "" : " (written by its provider)",
                     queue.fragments, queue.max_fragments.load());
    }
    return 0;
}

constexpr eth_dev_ops make_ops()
{
    eth_dev_ops ops{};
    ops.dev_configure = dev_configure;
    ops.dev_start = dev_start;
    ops.dev_stop = dev_stop;
    ops.dev_set_link_up = set_link_up;
    ops.dev_set_link_down = set_link_down;
    ops.dev_close = dev_close;
    ops.link_update = link_update;
    ops.promiscuous_enable = promiscuous_enable;
    ops.promiscuous_disable = promiscuous_disable;
    ops.allmulticast_enable = allmulticast_enable;
    ops.allmulticast_disable = allmulticast_disable;
    ops.mac_addr_set = mac_addr_set;
    ops.mtu_set = mtu_set;
    ops.stats_get = stats_get;
    ops.stats_reset = stats_reset;
    ops.xstats_get = xstats_get;
    ops.xstats_reset = stats_reset;
    ops.xstats_get_names = xstats_get_names;
    ops.dev_infos_get = dev_infos_get;
    ops.rxq_info_get = rxq_info_get;
    ops.txq_info_get = txq_info_get;
    ops.rx_burst_mode_get = rx_burst_mode_get;
    ops.tx_burst_mode_get = tx_burst_mode_get;
    ops.dev_supported_ptypes_get = supported_ptypes_get;
    ops.rx_queue_start = rx_queue_start;
    ops.rx_queue_stop = rx_queue_stop;
    ops.tx_queue_start = tx_queue_start;
    ops.tx_queue_stop = tx_queue_stop;
    ops.rx_queue_setup = rx_queue_setup;
    ops.rx_queue_release = rx_queue_release;
    ops.tx_queue_setup = tx_queue_setup;
    ops.tx_queue_release = tx_queue_release;
    ops.buffer_split_supported_hdr_ptypes_get = split_headers_get;
    ops.eth_dev_priv_dump = priv_dump;
    return ops;
}

constinit const eth_dev_ops kOps = make_ops();

/// A fresh port as the layout in ethdev_abi.h says it must look, before anything is written to it.
bool fresh_as_expected(const rte_eth_dev* dev, const char* name)
{
    const rte_eth_dev_data* data = dev->data;
    return rte_version_year() == RTE_VER_YEAR && rte_version_month() == RTE_VER_MONTH &&
           data->port_id < RTE_MAX_ETHPORTS && dev == &rte_eth_devices[data->port_id] &&
           std::strcmp(data->name, name) == 0 && data->mtu == RTE_ETHER_MTU &&
           data->backer_port_id == RTE_MAX_ETHPORTS && data->dev_private == nullptr &&
           data->mac_addrs == nullptr && dev->dev_ops == nullptr;
}

/// What public calls report is what was written.
bool reported_as_written(const rte_eth_dev* dev, const char* name)
{
    const std::uint16_t id = dev->data->port_id;
    char reported[RTE_ETH_NAME_MAX_LEN];
    std::uint16_t by_name;
    std::uint16_t mtu;
    rte_ether_addr mac;
    return rte_eth_dev_get_name_by_port(id, reported) == 0 && std::strcmp(reported, name) == 0 &&
           rte_eth_dev_get_port_by_name(name, &by_name) == 0 && by_name == id &&
           rte_eth_dev_get_mtu(id, &mtu) == 0 && mtu == dev->data->mtu &&
           rte_eth_macaddr_get(id, &mac) == 0 &&
           rte_is_same_ether_addr(&mac, dev->data->mac_addrs) &&
           rte_eth_dev_socket_id(id) == dev->data->numa_node;
}

int refuse_abi()
{
    HDS_LOG(ERR,
            "%s is not laid out as the DPDK this driver was built for (%d.%02d): rebuild it "
            "against the DPDK that runs, which must be 22.11 or have its driver headers "
            "installed (-Denable_driver_sdk=true)",
            rte_version(), RTE_VER_YEAR, RTE_VER_MONTH);
    return -ENOTSUP;
}

int make_end(rte_vdev_device* vdev, const char* name, Args& args, std::unique_ptr<End>& end)
{
    const char* text = vdev->device.devargs != nullptr ? vdev->device.devargs->args : nullptr;
    std::string error;
    if (int rc = parse_args(text != nullptr ? text : "", &args, error); rc != 0) {
        HDS_LOG(ERR, "%s: %s", name, error.c_str());
        return rc;
    }
    int rc = 0;
    end = args.lower.empty() ? make_tap(args, &rc) : make_lower(args, name, &rc);
    return rc;
}

int probe(rte_vdev_device* vdev)
{
    const char* name = rte_dev_name(&vdev->device);
    if (rte_eal_process_type() != RTE_PROC_PRIMARY) {
        HDS_LOG(ERR,
                "%s: the port belongs to the primary process, with its file descriptors: use "
                "it there",
                name);
        return -ENOTSUP;
    }
    Args args;
    std::unique_ptr<End> end;
    if (const int rc = contained([&] { return make_end(vdev, name, args, end); }); rc != 0)
        return rc;

    const int node =
        vdev->device.numa_node >= 0 ? vdev->device.numa_node : static_cast<int>(rte_socket_id());
    rte_eth_dev* dev = rte_eth_dev_allocate(name);
    if (dev == nullptr)
        return -ENOMEM; // of all codes not -EEXIST, with which EAL takes a probe to have succeeded
    if (!fresh_as_expected(dev, name))
        return refuse_abi(); // nothing is known of the port, so it is not even released
    auto* port = static_cast<Port*>(rte_zmalloc_socket(kDriver, sizeof(Port), 0, node));
    if (port == nullptr) {
        rte_eth_dev_release_port(dev);
        return -ENOMEM;
    }
    dev->data->dev_private = port;
    dev->data->mac_addrs = &port->mac;
    end->identify(&port->mac, &dev->data->mtu);
    if (args.has_mac) {
        port->mac = args.mac;
        end->set_mac(port->mac);
    }
    port->end = end.release();
    port->hds_thresh = args.hds_thresh;
    port->missed_before = port->end->missed();
    vdev->device.numa_node = node;
    dev->device = &vdev->device;
    dev->data->numa_node = node;
    dev->data->dev_flags |= RTE_ETH_DEV_AUTOFILL_QUEUE_XSTATS;
    dev->data->promiscuous = 1; // a TAP delivers all there is; a lower port is told so at start
    dev->dev_ops = &kOps;
    dev->rx_pkt_burst = port->end->rx_burst;
    dev->tx_pkt_burst = port->end->tx_burst;
    rte_eth_dev_probing_finish(dev);
    if (!reported_as_written(dev, name)) {
        dev_close(dev);
        rte_eth_dev_release_port(dev);
        return refuse_abi();
    }
    return 0;
}

int remove(rte_vdev_device* vdev)
{
    rte_eth_dev* dev = rte_eth_dev_allocated(rte_dev_name(&vdev->device));
    if (dev == nullptr) // closed already
        return 0;
    const std::uint16_t id = dev->data->port_id;
    if (dev->data->dev_started)
        rte_eth_dev_stop(id);
    return rte_eth_dev_close(id);
}

rte_vdev_driver driver = [] {
    rte_vdev_driver made{};
    made.driver.name = kDriver;
    made.probe = probe;
    made.remove = remove;
    return made;
}();

RTE_INIT(register_driver)
{
    rte_vdev_register(&driver);
}
RTE_FINI(unregister_driver)
{
    rte_vdev_unregister(&driver);
}

} // namespace
} // namespace devmem::hds

const char devmem_net_hds[] = "net_hds";
