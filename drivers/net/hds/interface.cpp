// SPDX-License-Identifier: BSD-3-Clause
#include "drivers/net/hds/interface.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
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

/// A routing socket serves both netlink and, as any socket does, interface ioctls.
int open_socket()
{
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

/// A thread of its own enters the namespace, so that the caller's is never left in the wrong one.
int open_socket_in(int netns)
{
    int fd = -EXDEV;
    std::thread([&] {
        if (setns(netns, CLONE_NEWNET) == 0)
            fd = open_socket();
    }).join();
    return fd;
}

} // namespace

Interface::~Interface()
{
    if (socket_ >= 0)
        close(socket_);
}

/// Have `socket_` in the namespace the interface is in now.
int Interface::follow()
{
    struct stat there {};
    struct stat here {};
    const int netns = ioctl(tap_, TUNGETDEVNETNS);
    if (netns >= 0)
        fstat(netns, &there);
    if (socket_ < 0 || there.st_ino != namespace_) {
        if (socket_ >= 0)
            close(socket_);
        const bool ours = netns < 0 || (stat("/proc/thread-self/ns/net", &here) == 0 &&
                                        here.st_ino == there.st_ino);
        socket_ = ours ? open_socket() : open_socket_in(netns);
        namespace_ = there.st_ino;
    }
    if (netns >= 0)
        close(netns);
    return socket_ >= 0 ? 0 : socket_ == -1 ? -errno : socket_;
}

int Interface::request(unsigned long code, ifreq& request)
{
    if (const int rc = follow(); rc != 0)
        return rc;
    ifreq name{};
    if (ioctl(tap_, TUNGETIFF, &name) != 0)
        return -errno;
    std::memcpy(request.ifr_name, name.ifr_name, IFNAMSIZ);
    return ioctl(socket_, code, &request) == 0 ? 0 : -errno;
}

std::uint64_t Interface::tx_dropped()
{
    ifreq index{};
    if (request(SIOCGIFINDEX, index) != 0)
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
    if (send(socket_, &ask, sizeof ask, 0) < 0)
        return 0;
    const ssize_t n = recv(socket_, answer.data(), answer.size(), 0);
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
