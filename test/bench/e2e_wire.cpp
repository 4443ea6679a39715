// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/e2e_wire.h"

#include "test/bench/e2e_process.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace bench {
namespace {

[[noreturn]] void fail(const std::string& what)
{
    throw std::runtime_error(what + ": " + std::strerror(errno));
}

int open_current()
{
    const int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail("/proc/thread-self/ns/net");
    return fd;
}

} // namespace

Namespace::Namespace()
{
    const int before = open_current();
    if (unshare(CLONE_NEWNET) != 0)
        fail("a network namespace (that takes root)");
    fd_ = open_current();
    ip({"link", "set", kLo, "up"});
    setns(before, CLONE_NEWNET);
    close(before);
}

Namespace::~Namespace()
{
    close(fd_);
}

std::string Namespace::path() const
{
    return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd_);
}

Inside::Inside(const Namespace& space) : before_(open_current())
{
    if (setns(space.fd_, CLONE_NEWNET) != 0)
        fail("entering a network namespace");
}

Inside::~Inside()
{
    setns(before_, CLONE_NEWNET);
    close(before_);
}

void ip(const std::vector<std::string>& words)
{
    std::vector<std::string> command{"ip"};
    command.insert(command.end(), words.begin(), words.end());
    Process(command, {}).wait();
}

void set_tso(const std::string& iface, bool on)
{
    ethtool_value value{.cmd = ETHTOOL_STSO, .data = on};
    ifreq request{};
    iface.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_data = reinterpret_cast<char*>(&value);
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int rc = fd < 0 ? -1 : ioctl(fd, SIOCETHTOOL, &request);
    if (fd >= 0)
        close(fd);
    if (rc != 0)
        fail("TSO of " + iface);
}

Wires::Wires()
{
    {
        const Inside inside(near);
        ip({"link", "add", kVeth, "type", "veth", "peer", "name", kVeth, "netns", far.path()});
        ip({"addr", "add", "10.1.0.1/24", "dev", kVeth});
        ip({"link", "set", kVeth, "up"});
    }
    const Inside inside(far);
    ip({"addr", "add", std::string(kVethAddress) + "/24", "dev", kVeth});
    ip({"link", "set", kVeth, "up"});
}

void Wires::set_veth(unsigned mtu, bool tso) const
{
    for (const Namespace* end : {&near, &far}) {
        const Inside inside(*end);
        ip({"link", "set", kVeth, "mtu", std::to_string(mtu)});
        set_tso(kVeth, tso);
    }
}

void Wires::bring_tap_up(bool tso) const
{
    const Inside inside(near);
    // The queue is longer than a window, so that nothing is lost in it.
    ip({"link", "set", kTap, "txqueuelen", "10000", "up"});
    ip({"addr", "add", "10.0.0.1/24", "dev", kTap});
    set_tso(kTap, tso);
}

} // namespace bench
