// SPDX-License-Identifier: BSD-3-Clause
// iface=NAME: a TAP. Think of it as a cable to the local kernel. Our end's link is the carrier the
// kernel sees (on while the port is started); the kernel's end is the interface, which its owner
// brings up, addresses, renames and may move to another network namespace.
#include "drivers/net/hds/end.h"
#include "drivers/net/hds/interface.h"
#include "drivers/net/hds/log.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <optional>
#include <poll.h>
#include <rte_ether.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <vector>

namespace devmem::hds {
namespace {

constexpr const char* kTun = "/dev/net/tun";
/// The kernel drops what does not fit the queue. 10000 packets of an MSS are more than a receive
/// window, so that a sender is held back by the window and not by loss.
constexpr int kQueueLength = 10000;
/// Largest MTU of a TAP: the kernel's IP_MAX_MTU less the Ethernet header.
constexpr std::uint16_t kMaxMtu = 65535 - 14;
constexpr std::uint16_t kMinMtu = 68;

constexpr std::uint64_t kRxOffloads = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT | RTE_ETH_RX_OFFLOAD_SCATTER |
                                      RTE_ETH_RX_OFFLOAD_TCP_LRO | RTE_ETH_RX_OFFLOAD_IPV4_CKSUM |
                                      RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
constexpr std::uint64_t kTxOffloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS |
                                      RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM |
                                      RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_TSO;

const char* open_advice(int error)
{
    switch (error) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return "there is no TUN device: modprobe tun (in a container: pass /dev/net/tun in)";
    case EACCES:
    case EPERM:
        return "not permitted: run with CAP_NET_ADMIN, or let root make the interface yours: ip "
               "tuntap add NAME mode tap user YOU vnet_hdr";
    default:
        return std::strerror(error);
    }
}

const char* attach_advice(int error)
{
    switch (error) {
    case EBUSY:
        return "in use by another program, or made by this one already";
    case EINVAL:
        return "an interface of that name exists and is no TAP, or has the other setting of "
               "multi_queue: remove it, or make it with vnet_hdr and, for queues > 1, multi_queue";
    default:
        return open_advice(error);
    }
}

class Tap final : public End {
public:
    Tap()
    {
        rx_burst = rx_burst_tap;
        tx_burst = tx_burst_tap;
        mode = "TAP, one readv a frame";
    }
    ~Tap() override
    {
        for (const int fd : fds_)
            close(fd);
    }

    int open(const Args& args)
    {
        multi_queue_ = args.queues > 1;
        ifreq request{};
        std::memcpy(request.ifr_name, args.iface.c_str(), args.iface.size() + 1);
        for (unsigned i = 0; i < args.queues; ++i) {
            const int fd = ::open(kTun, O_RDWR | O_NONBLOCK | O_CLOEXEC);
            if (fd < 0)
                return fail(errno, kTun, open_advice(errno));
            fds_.push_back(fd);
            request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
                                                   (multi_queue_ ? IFF_MULTI_QUEUE : 0));
            if (ioctl(fd, TUNSETIFF, &request) != 0)
                return fail(errno, request.ifr_name, attach_advice(errno));
        }
        const int header = sizeof(VirtioHeader);
        if (ioctl(fds_[0], TUNSETVNETHDRSZ, &header) != 0)
            return fail(errno, "TUNSETVNETHDRSZ", std::strerror(errno));
        interface_.emplace(fds_[0]);
        request.ifr_qlen = kQueueLength;
        if (const int rc = interface_->request(SIOCSIFTXQLEN, request); rc != 0)
            HDS_LOG(WARNING, "%s: txqueuelen stays as it is: %s", request.ifr_name,
                    std::strerror(-rc));
        set_carrier(false);
        return 0;
    }

    void identify(rte_ether_addr* mac, std::uint16_t* mtu) override
    {
        // The interface's own address is the kernel's end of the cable: this is the other.
        rte_eth_random_addr(mac->addr_bytes);
        ifreq request{};
        if (interface_->request(SIOCGIFMTU, request) == 0 && request.ifr_mtu <= kMaxMtu)
            *mtu = static_cast<std::uint16_t>(request.ifr_mtu);
    }

    int info(rte_eth_dev_info& info) override
    {
        info.max_rx_queues = info.max_tx_queues = static_cast<std::uint16_t>(fds_.size());
        info.min_mtu = kMinMtu;
        info.max_mtu = kMaxMtu;
        info.max_rx_pktlen = kMaxMtu + kFrameOverhead;
        info.max_lro_pkt_size = kMaxFrame;
        info.rx_offload_capa = kRxOffloads;
        info.tx_offload_capa = kTxOffloads;
        info.tx_desc_lim.nb_seg_max = info.tx_desc_lim.nb_mtu_seg_max = IOV_MAX - 2;
        return 0;
    }

    int configure(const rte_eth_dev_data& data) override
    {
        rx_queues_ = data.nb_rx_queues;
        tx_queues_ = data.nb_tx_queues;
        const std::uint64_t offloads = data.dev_conf.rxmode.offloads;
        // What the application did not ask for, the kernel must do before it hands frames over.
        unsigned long tun = 0;
        if ((offloads & (RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM)) != 0)
            tun |= TUN_F_CSUM;
        if ((offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO) != 0)
            tun |= TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
        if (ioctl(fds_[0], TUNSETOFFLOAD, tun) != 0)
            return fail(errno, "TUNSETOFFLOAD", std::strerror(errno));
        return set_mtu(data.mtu);
    }

    int set_up_rx(RxQueue& queue, const rte_eth_rxconf&, unsigned) override
    {
        queue.fd = fds_[queue.queue_id];
        return 0;
    }
    int set_up_tx(TxQueue& queue, const rte_eth_txconf&, unsigned) override
    {
        // Only queues that receive stay attached, and only an attached one can transmit.
        queue.fd = fds_[rx_queues_ != 0 ? queue.queue_id % rx_queues_ : queue.queue_id];
        return 0;
    }

    int start() override
    {
        const std::size_t attached = rx_queues_ != 0 ? rx_queues_ : tx_queues_;
        for (std::size_t i = 0; multi_queue_ && i < fds_.size(); ++i) {
            ifreq request{};
            request.ifr_flags = i < attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
            // EINVAL: it is so already.
            if (ioctl(fds_[i], TUNSETQUEUE, &request) != 0 && errno != EINVAL)
                return fail(errno, "TUNSETQUEUE", std::strerror(errno));
        }
        set_carrier(true);
        return 0;
    }
    int stop() override
    {
        set_carrier(false);
        return 0;
    }
    void discard(std::uint16_t queue) override
    {
        std::byte scratch[64];
        while (read(fds_[queue], scratch, sizeof scratch) > 0) {
        }
    }

    int link(rte_eth_link* link) override
    {
        link->link_status = carrier_ && interface_up() ? RTE_ETH_LINK_UP : RTE_ETH_LINK_DOWN;
        link->link_speed = RTE_ETH_SPEED_NUM_UNKNOWN;
        link->link_duplex = RTE_ETH_LINK_FULL_DUPLEX;
        link->link_autoneg = RTE_ETH_LINK_FIXED;
        return 0;
    }
    int set_link(bool up) override
    {
        set_carrier(up);
        return 0;
    }
    int set_mtu(std::uint16_t mtu) override
    {
        ifreq request{};
        request.ifr_mtu = mtu;
        const int rc = interface_->request(SIOCSIFMTU, request);
        if (rc == -EXDEV)
            return fail(EXDEV, "setting the MTU",
                        "the interface was moved to a network namespace this process may not "
                        "enter (CAP_SYS_ADMIN): ip link set it there");
        return rc == 0 ? 0 : fail(-rc, "setting the MTU", std::strerror(-rc));
    }
    /// Whatever the kernel sends to the interface arrives: there is nothing to set.
    int set_mac(rte_ether_addr&) override { return 0; }
    int set_promiscuous(bool) override { return 0; }
    int set_allmulticast(bool) override { return 0; }
    std::uint64_t missed() override { return interface_->tx_dropped(); }

    void dump(FILE* out) override
    {
        ifreq name{};
        ioctl(fds_[0], TUNGETIFF, &name);
        std::fprintf(out, "iface: %s, %zu queues, carrier %s, %s\n", name.ifr_name, fds_.size(),
                     carrier_ ? "on" : "off", interface_up() ? "up" : "down (ip link set it up)");
    }

private:
    static int fail(int error, const char* what, const char* why)
    {
        HDS_LOG(ERR, "%s: %s", what, why);
        return -error;
    }

    /// A TAP can be written to exactly while its interface is up, whatever namespace that is in.
    bool interface_up() const
    {
        pollfd writable{.fd = fds_[0], .events = POLLOUT, .revents = 0};
        return poll(&writable, 1, 0) == 1 && (writable.revents & POLLOUT) != 0;
    }

    void set_carrier(bool on)
    {
        const int value = on;
        if (ioctl(fds_[0], TUNSETCARRIER, &value) == 0)
            carrier_ = on;
    }

    std::vector<int> fds_;
    std::optional<Interface> interface_;
    bool multi_queue_ = false;
    bool carrier_ = true;
    std::uint16_t rx_queues_ = 0;
    std::uint16_t tx_queues_ = 0;
};

} // namespace

std::unique_ptr<End> make_tap(const Args& args, int* error)
{
    auto tap = std::make_unique<Tap>();
    *error = tap->open(args);
    return *error == 0 ? std::move(tap) : nullptr;
}

} // namespace devmem::hds
