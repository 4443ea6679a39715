// SPDX-License-Identifier: BSD-3-Clause
#include "test/conformance/kernel_peer.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

namespace devmem::conformance {

namespace {

/// Where Linux goes beyond the RFCs that scripts are about, or is tuned to the machine.
constexpr const char* kProfile[][2] = {
    {"net.ipv4.tcp_comp_sack_nr", "0"},           // thins out ACKs with SACK blocks
    {"net.ipv4.tcp_congestion_control", "reno"},  // RFC 5681; some systems have another
    {"net.ipv4.tcp_early_retrans", "0"},          // tail loss probes
    {"net.ipv4.tcp_frto", "0"},                   // probing whether a timeout was spurious
    {"net.ipv4.tcp_recovery", "0"},               // RACK instead of three duplicate ACKs
    {"net.ipv4.tcp_rmem", "4096 131072 6291456"}, // its default; some systems raise it
    {"net.ipv4.tcp_syn_linear_timeouts", "0"},    // the first SYNs are not backed off
    {"net.ipv6.conf.all.accept_dad", "0"},
    {"net.ipv6.conf.default.accept_dad", "0"},
    {"net.ipv6.conf.default.router_solicitations", "0"},
};

Micros monotonic()
{
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1'000'000 + time.tv_nsec / 1000;
}

int device_control(void*, int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void* const argument = va_arg(arguments, void*);
    va_end(arguments);
    return ::ioctl(fd, request, argument);
}

struct Fd {
    int fd;
    ~Fd() { ::close(fd); }
};

} // namespace

std::unique_ptr<KernelPeer> KernelPeer::make(const Endpoints& ends, std::string* error)
{
    std::unique_ptr<KernelPeer> peer(new KernelPeer(ends));
    if (peer->set_up() != 0) {
        *error = std::string("no TUN: ") + std::strerror(errno);
        return nullptr;
    }
    return peer;
}

KernelPeer::KernelPeer(const Endpoints& ends) : SocketPeer(ends)
{
    calls_.socket = [](void*, int domain, int type, int protocol) {
        return ::socket(domain, type, protocol);
    };
    calls_.bind = [](void*, int fd, const sockaddr* address, socklen_t bytes) {
        return ::bind(fd, address, bytes);
    };
    calls_.listen = [](void*, int fd, int backlog) { return ::listen(fd, backlog); };
    calls_.accept = [](void*, int fd, sockaddr* address, socklen_t* bytes) {
        return accept4(fd, address, bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
    };
    calls_.connect = [](void*, int fd, const sockaddr* address, socklen_t bytes) {
        return ::connect(fd, address, bytes);
    };
    calls_.read = [](void*, int fd, void* into, std::size_t bytes) {
        return ::read(fd, into, bytes);
    };
    calls_.send = [](void*, int fd, const void* from, std::size_t bytes, int flags) {
        return ::send(fd, from, bytes, flags);
    };
    calls_.ioctl = device_control;
    calls_.close = [](void*, int fd) { return ::close(fd); };
    calls_.shutdown = [](void*, int fd, int how) { return ::shutdown(fd, how); };
    calls_.getsockopt = [](void*, int fd, int level, int name, void* value, socklen_t* bytes) {
        return ::getsockopt(fd, level, name, value, bytes);
    };
    calls_.setsockopt = [](void*, int fd, int level, int name, const void* value, socklen_t bytes) {
        return ::setsockopt(fd, level, name, value, bytes);
    };
}

KernelPeer::~KernelPeer()
{
    if (tun_ >= 0)
        ::close(tun_);
}

int KernelPeer::set_up()
{
    for (const auto& [name, value] : kProfile)
        sysctl(name, value); // one that this kernel lacks is not in the way either
    tun_ = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    ifreq request{};
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (tun_ < 0 || ioctl(tun_, TUNSETIFF, &request) != 0)
        return -1;
    return set_address(request.ifr_name);
}

int KernelPeer::set_address(const char* interface)
{
    const Fd control{
        ::socket(ends_.family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    ifreq request{};
    std::strncpy(request.ifr_name, interface, sizeof request.ifr_name - 1);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(control.fd, SIOCSIFFLAGS, &request) != 0)
        return -1;
    socklen_t bytes;
    if (ends_.family == 4) {
        const auto set = [&](unsigned long what, const Address& address) {
            const auto storage = socket_address(4, address, 0, &bytes);
            std::memcpy(&request.ifr_addr, &storage, sizeof request.ifr_addr);
            return ioctl(control.fd, what, &request);
        };
        return set(SIOCSIFADDR, ends_.local) != 0 ? -1 : set(SIOCSIFNETMASK, {255, 255, 255, 0});
    }
    in6_ifreq request6{};
    std::memcpy(&request6.ifr6_addr, ends_.local.data(), 16);
    request6.ifr6_prefixlen = 64;
    request6.ifr6_ifindex = static_cast<int>(if_nametoindex(interface));
    if (ioctl(control.fd, SIOCSIFADDR, &request6) != 0)
        return -1;
    // The address is usable when a worker of the kernel has looked at it.
    const auto address = socket_address(6, ends_.local, 0, &bytes);
    for (int i = 0; i < 1000; i++) {
        if (::bind(control.fd, reinterpret_cast<const sockaddr*>(&address), bytes) == 0)
            return 0;
        usleep(1000);
    }
    return -1;
}

bool KernelPeer::sysctl(const std::string& name, const std::string& value)
{
    std::string path = "/proc/sys/" + name;
    std::replace(path.begin() + 10, path.end(), '.', '/');
    std::ofstream file(path);
    file << value << std::flush;
    return file.good();
}

Micros KernelPeer::now() const
{
    return monotonic() - start_;
}

void KernelPeer::run_until(Micros time, bool or_packet)
{
    if (start_ < 0)
        start_ = monotonic();
    std::uint8_t bytes[65536];
    for (;;) {
        const ssize_t n = ::read(tun_, bytes, sizeof bytes);
        if (n > 0) {
            std::string error;
            std::uint16_t port;
            // The kernel has other things to say on a new interface.
            if (decode({bytes, static_cast<std::size_t>(n)}, ends_, &port, &error) ||
                !error.empty())
                sent.push_back({now(), {bytes, bytes + n}});
            continue;
        }
        const Micros left = time - now();
        if (left <= 0 || (or_packet && !sent.empty()))
            return;
        pollfd ready{tun_, POLLIN, 0};
        const timespec wait{left / 1'000'000, left % 1'000'000 * 1000};
        ppoll(&ready, 1, &wait, nullptr);
    }
}

void KernelPeer::inject(std::span<const std::uint8_t> packet)
{
    if (::write(tun_, packet.data(), packet.size()) < 0)
        sent.push_back({now(), {}}); // is reported as malformed
}

} // namespace devmem::conformance
