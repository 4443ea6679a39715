// SPDX-License-Identifier: BSD-3-Clause
// lower=PORT: any other DPDK port. It receives into host mbufs of ours; each packet is checked and
// copied once, split. What is transmitted passes through.
#include "drivers/net/hds/end.h"
#include "drivers/net/hds/log.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <vector>

namespace devmem::hds {

std::uint16_t rx_burst_lower(void* rx_queue, rte_mbuf** packets, std::uint16_t n)
{
    auto& queue = *static_cast<RxQueue*>(rx_queue);
    constexpr VirtioHeader kNoHeader{};
    std::uint16_t received = 0;
    if (!queue.running)
        return 0;
    while (received < n) {
        if (queue.lower_count == 0) {
            queue.lower_first = 0;
            queue.lower_count = rte_eth_rx_burst(
                queue.lower_port, queue.queue_id, queue.lower,
                static_cast<std::uint16_t>(std::min<std::uint32_t>(n - received, kLowerBurst)));
            if (queue.lower_count == 0)
                break;
        }
        rte_mbuf* below = queue.lower[queue.lower_first];
        Placed placed = Placed::kDropped;
        if (below->nb_segs <= IOV_MAX) {
            iovec* part = queue.parts;
            for (const rte_mbuf* m = below; m != nullptr; m = m->next)
                *part++ = {rte_pktmbuf_mtod(m, void*), m->data_len};
            placed = rx_place(queue, Bytes(queue.parts, below->pkt_len), 0, kNoHeader,
                              &packets[received]);
        } else {
            ++queue.stats.truncated;
        }
        if (placed == Placed::kWait)
            break; // the packet stays with us, those behind it in the lower port's ring
        received = static_cast<std::uint16_t>(received + (placed == Placed::kDelivered));
        rte_pktmbuf_free(below);
        ++queue.lower_first;
        --queue.lower_count;
    }
    return received;
}

namespace {

/// The lower port's driver would read the packet with the CPU, or could not be told how to reach
/// it.
bool unreadable(TxQueue& queue, const rte_mbuf* packet)
{
    for (const rte_mbuf* m = packet; m != nullptr; m = m->next) {
        if (!RTE_MBUF_HAS_EXTBUF(m))
            continue;
        if (!queue.map.contains(m->buf_addr))
            queue.map.find(m->buf_addr);
        if (queue.map.region() != nullptr && !queue.map.region()->readable)
            return true;
    }
    return false;
}

std::uint16_t pass(TxQueue& queue, rte_mbuf** packets, std::uint16_t n)
{
    std::uint64_t bytes[kLowerBurst + 1]; // before packet i; the lower port may free what it took
    bytes[0] = 0;
    for (std::uint16_t i = 0; i < n; ++i)
        bytes[i + 1] = bytes[i] + packets[i]->pkt_len;
    const std::uint16_t sent = rte_eth_tx_burst(queue.lower_port, queue.queue_id, packets, n);
    queue.stats.packets += sent;
    queue.stats.bytes += bytes[sent];
    return sent;
}

} // namespace

std::uint16_t tx_burst_lower(void* tx_queue, rte_mbuf** packets, std::uint16_t n)
{
    auto& queue = *static_cast<TxQueue*>(tx_queue);
    if (!queue.running)
        return 0;
    std::uint16_t done = 0;
    while (done < n) {
        std::uint16_t run = 0;
        while (done + run < n && run < kLowerBurst && !unreadable(queue, packets[done + run]))
            ++run;
        if (run != 0) {
            const std::uint16_t sent = pass(queue, packets + done, run);
            done = static_cast<std::uint16_t>(done + sent);
            if (sent < run) {
                ++queue.stats.busy;
                break;
            }
        } else {
            rte_pktmbuf_free(packets[done++]);
            ++queue.stats.refused_packets;
        }
    }
    return done;
}

namespace {

class Lower final : public End {
public:
    explicit Lower(std::uint16_t queues) : queues_(queues)
    {
        rx_burst = rx_burst_lower;
        tx_burst = tx_burst_lower;
        mode = "over another port, one copy";
    }
    ~Lower() override
    {
        if (owner_.id == RTE_ETH_DEV_NO_OWNER)
            return;
        free_pools();
        rte_eth_dev_owner_unset(port_, owner_.id);
    }

    int open(const Args& args, const char* name)
    {
        if (rte_eth_dev_get_port_by_name(args.lower.c_str(), &port_) != 0) {
            HDS_LOG(ERR,
                    "lower=%s: no such port; it must be probed before this one (name it "
                    "earlier on the command line)",
                    args.lower.c_str());
            return -ENODEV;
        }
        rte_eth_dev_owner owner{};
        if (rte_eth_dev_owner_new(&owner.id) != 0)
            return -EAGAIN;
        std::snprintf(owner.name, sizeof owner.name, "%s", name);
        if (const int rc = rte_eth_dev_owner_set(port_, &owner); rc != 0) {
            HDS_LOG(ERR, "lower=%s: the port belongs to someone else: %s", args.lower.c_str(),
                    std::strerror(-rc));
            return rc;
        }
        owner_ = owner;
        name_ = args.lower;
        return 0;
    }

    void identify(rte_ether_addr* mac, std::uint16_t* mtu) override
    {
        rte_eth_macaddr_get(port_, mac);
        rte_eth_dev_get_mtu(port_, mtu);
    }

    int info(rte_eth_dev_info& info) override
    {
        rte_eth_dev_info below;
        if (const int rc = rte_eth_dev_info_get(port_, &below); rc != 0)
            return rc;
        info.max_rx_queues = std::min(queues_, below.max_rx_queues);
        info.max_tx_queues = std::min(queues_, below.max_tx_queues);
        info.min_mtu = below.min_mtu;
        // The ethdev layer takes the difference of these two for a frame's overhead.
        info.max_mtu = static_cast<std::uint16_t>(
            std::min<std::uint32_t>(below.max_mtu, kMaxFrame - kFrameOverhead));
        const std::uint32_t overhead =
            below.max_mtu != UINT16_MAX && below.max_rx_pktlen > below.max_mtu
                ? below.max_rx_pktlen - below.max_mtu
                : RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;
        info.max_rx_pktlen = info.max_mtu + overhead;
        info.rx_offload_capa = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_SCATTER |
                               RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM |
                               RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
        info.tx_offload_capa = below.tx_offload_capa;
        info.tx_queue_offload_capa = below.tx_queue_offload_capa;
        info.flow_type_rss_offloads = below.flow_type_rss_offloads;
        info.hash_key_size = below.hash_key_size;
        info.reta_size = below.reta_size;
        info.default_txconf = below.default_txconf;
        info.rx_desc_lim = below.rx_desc_lim;
        info.tx_desc_lim = below.tx_desc_lim;
        info.speed_capa = below.speed_capa;
        info.default_rxportconf = below.default_rxportconf;
        info.default_txportconf = below.default_txportconf;
        return 0;
    }

    int configure(const rte_eth_dev_data& data) override
    {
        rte_eth_dev_info below;
        if (const int rc = rte_eth_dev_info_get(port_, &below); rc != 0)
            return rc;
        rte_eth_conf conf = data.dev_conf;
        conf.rxmode.offloads = below.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER;
        conf.rxmode.mtu = data.mtu;
        conf.rxmode.max_lro_pkt_size = 0;
        mtu_ = data.mtu;
        min_rx_buffer_ = below.min_rx_bufsize;
        scatter_ = conf.rxmode.offloads != 0;
        return said(rte_eth_dev_configure(port_, data.nb_rx_queues, data.nb_tx_queues, &conf),
                    "configuring");
    }

    int set_up_rx(RxQueue& queue, const rte_eth_rxconf&, unsigned socket) override
    {
        queue.lower_port = port_;
        // While the port runs only what lies above changes: the lower queue receives as before.
        if (running_)
            return 0;
        std::uint16_t descriptors = queue.descriptors;
        std::uint16_t ignored = 0;
        rte_eth_dev_adjust_nb_rx_tx_desc(port_, &descriptors, &ignored);
        const std::uint32_t frame =
            scatter_ ? 2048 : std::max<std::uint32_t>(mtu_ + kFrameOverhead, 2048);
        const auto room = static_cast<std::uint16_t>(std::min<std::uint32_t>(
            std::max(frame, min_rx_buffer_) + RTE_PKTMBUF_HEADROOM, UINT16_MAX));
        pools_.reserve(pools_.size() + 1);
        char name[RTE_MEMPOOL_NAMESIZE];
        std::snprintf(name, sizeof name, "net_hds_%u_%u_%u", queue.port_id, queue.queue_id,
                      generation_++);
        rte_mempool* pool = rte_pktmbuf_pool_create(name, descriptors + kSparePackets, kPoolCache,
                                                    0, room, static_cast<int>(socket));
        if (pool == nullptr)
            return said(-rte_errno, "making a pool for");
        const int rc =
            said(rte_eth_rx_queue_setup(port_, queue.queue_id, descriptors, socket, nullptr, pool),
                 "setting up a receive queue of");
        free_pools(queue.queue_id); // of earlier set-ups
        pools_.emplace_back(queue.queue_id, pool);
        return rc;
    }

    int set_up_tx(TxQueue& queue, const rte_eth_txconf& conf, unsigned socket) override
    {
        queue.lower_port = port_;
        return said(rte_eth_tx_queue_setup(port_, queue.queue_id, queue.descriptors, socket, &conf),
                    "setting up a transmit queue of");
    }

    int start() override
    {
        const int rc = said(rte_eth_dev_start(port_), "starting");
        running_ = rc == 0;
        return rc;
    }
    int stop() override
    {
        running_ = false;
        return said(rte_eth_dev_stop(port_), "stopping");
    }
    void discard(std::uint16_t) override {}

    int link(rte_eth_link* link) override { return rte_eth_link_get_nowait(port_, link); }
    int set_link(bool up) override
    {
        return up ? rte_eth_dev_set_link_up(port_) : rte_eth_dev_set_link_down(port_);
    }
    int set_mtu(std::uint16_t mtu) override { return tolerate(rte_eth_dev_set_mtu(port_, mtu)); }
    int set_mac(rte_ether_addr& mac) override
    {
        return tolerate(rte_eth_dev_default_mac_addr_set(port_, &mac));
    }
    int set_promiscuous(bool on) override
    {
        return tolerate(on ? rte_eth_promiscuous_enable(port_)
                           : rte_eth_promiscuous_disable(port_));
    }
    int set_allmulticast(bool on) override
    {
        return tolerate(on ? rte_eth_allmulticast_enable(port_)
                           : rte_eth_allmulticast_disable(port_));
    }
    std::uint64_t missed() override
    {
        rte_eth_stats stats{};
        return rte_eth_stats_get(port_, &stats) == 0 ? stats.imissed + stats.rx_nombuf : 0;
    }
    void dump(FILE* out) override
    {
        std::fprintf(out, "lower: %s, port %u, owner %" PRIu64 "\n", name_.c_str(), port_,
                     owner_.id);
    }

private:
    /// Free the pools of a queue, or all, that the lower port has nothing of. One that it has
    /// receive buffers from stays: only the port's next owner can make it let go of them.
    void free_pools(int queue = -1)
    {
        std::erase_if(pools_, [queue](const auto& entry) {
            const bool idle =
                (queue < 0 || entry.first == queue) && rte_mempool_full(entry.second) != 0;
            if (idle)
                rte_mempool_free(entry.second);
            return idle;
        });
    }

    /// Ports in software often lack these operations because they need nothing done.
    static int tolerate(int rc) { return rc == -ENOTSUP ? 0 : rc; }

    int said(int rc, const char* doing) const
    {
        if (rc != 0)
            HDS_LOG(ERR, "%s lower port %s: %s", doing, name_.c_str(), std::strerror(-rc));
        return rc;
    }

    static constexpr unsigned kSparePackets = 256; ///< beside the descriptors: in bursts, in caches
    static constexpr unsigned kPoolCache = 64;

    std::uint16_t queues_;
    std::vector<std::pair<std::uint16_t, rte_mempool*>> pools_; ///< by queue
    unsigned generation_ = 0;
    std::uint16_t port_ = 0;
    rte_eth_dev_owner owner_{};
    std::string name_;
    std::uint16_t mtu_ = RTE_ETHER_MTU;
    std::uint32_t min_rx_buffer_ = 0;
    bool scatter_ = false;
    bool running_ = false;
};

} // namespace

std::unique_ptr<End> make_lower(const Args& args, const char* name, int* error)
{
    auto lower = std::make_unique<Lower>(args.queues);
    *error = lower->open(args, name);
    return *error == 0 ? std::move(lower) : nullptr;
}

} // namespace devmem::hds
