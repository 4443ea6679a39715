// SPDX-License-Identifier: BSD-3-Clause
// A net_hds port in a network namespace of the test's own, and the kernel's side of its TAP.
#pragma once

#include "lib/memory/region.h"
#include "test/unit/hds/frames.h"

#include <devmem/devmem.h>

#include <cstring>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <map>
#include <memory>
#include <net/if.h>
#include <poll.h>
#include <rte_bus_vdev.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace hds_test {

/// SOCKET_ID_ANY where the ethdev layer takes it unsigned.
inline constexpr unsigned kAnySocket = static_cast<unsigned>(SOCKET_ID_ANY);

/// As the virtio specification has it.
struct VirtioHeader {
    std::uint8_t flags = 0;
    std::uint8_t gso_type = 0;
    std::uint16_t hdr_len = 0;
    std::uint16_t gso_size = 0;
    std::uint16_t csum_start = 0;
    std::uint16_t csum_offset = 0;
};

/// The kernel's end of the cable: frames put in as the kernel would send them, frames received.
class Peer {
public:
    explicit Peer(std::string name) : name_(std::move(name))
    {
        fd_ = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
        set_up(true); // before bind(): a socket bound to an interface that is down reports that
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_protocol = htons(ETH_P_ALL);
        address.sll_ifindex = static_cast<int>(if_nametoindex(name_.c_str()));
        EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        const int on = 1;
        EXPECT_EQ(setsockopt(fd_, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on), 0);
        EXPECT_EQ(setsockopt(fd_, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on), 0);
    }
    ~Peer() { close(fd_); }

    void set_up(bool up)
    {
        ifreq request = named();
        EXPECT_EQ(ioctl(fd_, SIOCGIFFLAGS, &request), 0);
        request.ifr_flags =
            static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
        EXPECT_EQ(ioctl(fd_, SIOCSIFFLAGS, &request), 0);
    }
    void set_mtu(int mtu)
    {
        ifreq request = named();
        request.ifr_mtu = mtu;
        EXPECT_EQ(ioctl(fd_, SIOCSIFMTU, &request), 0);
    }
    int mtu()
    {
        ifreq request = named();
        EXPECT_EQ(ioctl(fd_, SIOCGIFMTU, &request), 0);
        return request.ifr_mtu;
    }
    int queue_length()
    {
        ifreq request = named();
        EXPECT_EQ(ioctl(fd_, SIOCGIFTXQLEN, &request), 0);
        return request.ifr_qlen;
    }

    void send(const Frame& frame, VirtioHeader header = {})
    {
        const iovec parts[] = {{&header, sizeof header},
                               {const_cast<std::uint8_t*>(frame.data()), frame.size()}};
        ASSERT_EQ(writev(fd_, parts, 2), static_cast<ssize_t>(sizeof header + frame.size()))
            << strerror(errno);
    }

    /// The next frame that came out of the TAP; empty if none comes.
    Frame receive(VirtioHeader* header)
    {
        pollfd wait{fd_, POLLIN, 0};
        if (poll(&wait, 1, 500) != 1)
            return {};
        Frame frame(70000);
        const iovec parts[] = {{header, sizeof *header}, {frame.data(), frame.size()}};
        const ssize_t n = readv(fd_, parts, 2);
        frame.resize(n < 10 ? 0 : static_cast<std::size_t>(n) - sizeof *header);
        return frame;
    }

private:
    ifreq named()
    {
        ifreq request{};
        name_.copy(request.ifr_name, IFNAMSIZ - 1);
        return request;
    }

    std::string name_;
    int fd_;
};

/// Where payload goes.
enum class Memory {
    kMbufs,    ///< ordinary mbufs
    kOpaque,   ///< a region mapped PROT_NONE, written through the port mapping
    kUnmapped, ///< a region only its provider can write
};

class Port : public testing::TestWithParam<Memory> {
protected:
    void SetUp() override;
    void TearDown() override;

    struct Config {
        std::uint64_t offloads = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT;
        std::uint32_t proto_hdr = 0x101;
        std::uint16_t length = 0;
        std::uint16_t head_offset = 0;
        std::uint16_t payload_offset = 0;
        std::uint16_t queues = 1;
        std::uint16_t queues_made = 0; ///< queues=; 0: as many as are used
        std::uint16_t mtu = 1500;
        std::uint16_t hds_thresh = 0;
        unsigned fragments = 256;
        unsigned fragment_bytes = 1448;
    };

    /// Probe, configure, set up and start a port; the interface is up. `args` replaces iface=.
    void start(const Config& config, const std::string& args = {});
    /// A payload pool on the memory under test.
    rte_mempool* payload_pool(unsigned fragments, unsigned fragment_bytes);
    rte_mempool* host_pool(unsigned n, unsigned room);

    /// Set receive queue 0 up again, with other payload mbufs of `fragment_bytes`, while the port
    /// runs.
    void change_payload(rte_mempool* pool);
    /// The next packet, or nullptr if none comes.
    rte_mbuf* receive(std::uint16_t queue = 0);
    /// All bytes of a segment, wherever it lies.
    Frame bytes(const rte_mbuf* segment);
    Frame payload_bytes(const rte_mbuf* packet);
    std::uint64_t xstat(const char* name);
    /// Check that the packet is the frame, split at `cut`, every segment in its pool; free it.
    void expect_split(rte_mbuf* packet, const Frame& frame, std::size_t cut);
    /// Check that the packet is the frame, whole in segment 0's pool; free it.
    void expect_whole(rte_mbuf* packet, const Frame& frame);

    static int serial_;
    std::string iface_;
    std::string vdev_;
    rte_eth_rxseg segments_[2]{};
    std::uint16_t port_ = RTE_MAX_ETHPORTS;
    Config config_;
    rte_mempool* head_pool_ = nullptr;
    rte_mempool* payload_pool_ = nullptr;
    devmem_region* region_ = nullptr;
    std::unique_ptr<Peer> peer_;
    std::vector<rte_mempool*> host_pools_;
};

/// A region mapped PROT_NONE for the process, that no port can map: `unmapped:size=N`.
extern const devmem::Provider kUnmappedProvider;

} // namespace hds_test
