// SPDX-License-Identifier: BSD-3-Clause
#include "drivers/net/hds/interface.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

namespace devmem::hds {
namespace {

/// A socket in the namespace the interface is in now, closed after use: kept, it would keep the
/// namespace alive.
class Socket {
public:
    explicit Socket(int tap)
    {
        struct stat there {};
        struct stat here {};
        const int netns = ioctl(tap, TUNGETDEVNETNS);
        if (netns < 0 || fstat(netns, &there) != 0 ||
            stat("/proc/thread-self/ns/net", &here) != 0 || here.st_ino == there.st_ino)
            open();
        else // a thread of its own enters, so that the caller's is never left in the wrong one
            std::thread([this, netns] {
                fd_ = -EXDEV;
                if (setns(netns, CLONE_NEWNET) == 0)
                    open();
            }).join();
        if (netns >= 0)
            close(netns);
    }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    ~Socket()
    {
        if (fd_ >= 0)
            close(fd_);
    }

    /// The socket, or a negative errno.
    int fd() const { return fd_; }

private:
    /// A routing socket serves netlink and, as any socket does, interface ioctls.
    void open()
    {
        fd_ = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (fd_ < 0)
            fd_ = -errno;
    }

    int fd_ = -1;
};

int request_on(const Socket& socket, int tap, unsigned long code, ifreq& request)
{
    ifreq name{};
    if (socket.fd() < 0)
        return socket.fd();
    if (ioctl(tap, TUNGETIFF, &name) != 0)
        return -errno;
    std::memcpy(request.ifr_name, name.ifr_name, IFNAMSIZ);
    return ioctl(socket.fd(), code, &request) == 0 ? 0 : -errno;
}

} // namespace

int Interface::request(unsigned long code, ifreq& request) const
{
    return request_on(Socket(tap_), tap_, code, request);
}

std::uint64_t Interface::tx_dropped() const
{
    const Socket socket(tap_);
    ifreq index{};
    if (request_on(socket, tap_, SIOCGIFINDEX, index) != 0)
        return 0;
    struct {
        nlmsghdr header;
        ifinfomsg info;
    } ask{};
    ask.header.nlmsg_len = sizeof ask;
    ask.header.nlmsg_type = RTM_GETLINK;
    ask.header.nlmsg_flags = NLM_F_REQUEST;
    ask.info.ifi_index = index.ifr_ifindex;
    alignas(nlmsghdr) std::array<std::byte, 16384> answer;
    if (send(socket.fd(), &ask, sizeof ask, 0) < 0)
        return 0;
    const ssize_t n = recv(socket.fd(), answer.data(), answer.size(), 0);
    const auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
    if (n < 0 || !NLMSG_OK(header, static_cast<std::size_t>(n)) ||
        header->nlmsg_type != RTM_NEWLINK)
        return 0;
    const auto* info = static_cast<const ifinfomsg*>(NLMSG_DATA(header));
    auto left = static_cast<unsigned>(IFLA_PAYLOAD(header));
    for (const rtattr* a = IFLA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type != IFLA_STATS64)
            continue;
        rtnl_link_stats64 stats{};
        std::memcpy(&stats, RTA_DATA(a), std::min<std::size_t>(sizeof stats, RTA_PAYLOAD(a)));
        return stats.tx_dropped;
    }
    return 0;
}

} // namespace devmem::hds
