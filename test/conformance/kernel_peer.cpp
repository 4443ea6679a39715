// SPDX-License-Identifier: BSD-3-Clause
#include "test/conformance/kernel_peer.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/tcp.h>
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
    {"net.ipv4.tcp_early_retrans", "0"},          // tail loss probes
    {"net.ipv4.tcp_ecn", "0"},                    // the engine has none
    {"net.ipv4.tcp_frto", "0"},                   // probing whether a timeout was spurious
    {"net.ipv4.tcp_recovery", "0"},               // RACK instead of three duplicate ACKs
    {"net.ipv4.tcp_rmem", "4096 131072 6291456"}, // its default; some systems raise it
    {"net.ipv4.tcp_syn_linear_timeouts", "0"},    // the first SYNs are not backed off
    {"net.ipv6.conf.all.accept_dad", "0"},
    {"net.ipv6.conf.default.accept_dad", "0"},
    {"net.ipv6.conf.default.router_solicitations", "0"},
};

long result_of(long result)
{
    return result < 0 ? -errno : result;
}

sockaddr_storage socket_address(unsigned family, const Address& address, std::uint16_t port,
                                socklen_t* bytes)
{
    sockaddr_storage storage{};
    if (family == 4) {
        auto& in = reinterpret_cast<sockaddr_in&>(storage);
        in.sin_family = AF_INET;
        in.sin_port = htons(port);
        std::memcpy(&in.sin_addr, address.data(), 4);
        *bytes = sizeof in;
    } else {
        auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
        in6.sin6_family = AF_INET6;
        in6.sin6_port = htons(port);
        std::memcpy(&in6.sin6_addr, address.data(), 16);
        *bytes = sizeof in6;
    }
    return storage;
}

Micros monotonic()
{
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1'000'000 + time.tv_nsec / 1000;
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

long KernelPeer::socket()
{
    return result_of(::socket(ends_.family == 4 ? AF_INET : AF_INET6,
                              SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

long KernelPeer::bind(long fd)
{
    socklen_t bytes;
    const auto address = socket_address(ends_.family, ends_.local, ends_.local_port, &bytes);
    return result_of(
        ::bind(static_cast<int>(fd), reinterpret_cast<const sockaddr*>(&address), bytes));
}

long KernelPeer::listen(long fd, int backlog)
{
    return result_of(::listen(static_cast<int>(fd), backlog));
}

long KernelPeer::accept(long fd)
{
    return result_of(accept4(static_cast<int>(fd), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

long KernelPeer::connect(long fd)
{
    socklen_t bytes;
    const auto address = socket_address(ends_.family, ends_.remote, ends_.remote_port, &bytes);
    return result_of(
        ::connect(static_cast<int>(fd), reinterpret_cast<const sockaddr*>(&address), bytes));
}

long KernelPeer::read(long fd, std::span<std::uint8_t> into)
{
    return result_of(::read(static_cast<int>(fd), into.data(), into.size()));
}

long KernelPeer::write(long fd, std::span<const std::uint8_t> bytes)
{
    return result_of(::send(static_cast<int>(fd), bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

long KernelPeer::shutdown(long fd)
{
    return result_of(::shutdown(static_cast<int>(fd), SHUT_WR));
}

long KernelPeer::close(long fd)
{
    return result_of(::close(static_cast<int>(fd)));
}

long KernelPeer::linger(long fd)
{
    const ::linger now{1, 0};
    return result_of(setsockopt(static_cast<int>(fd), SOL_SOCKET, SO_LINGER, &now, sizeof now));
}

long KernelPeer::pending_error(long fd, int* error)
{
    socklen_t bytes = sizeof *error;
    return result_of(getsockopt(static_cast<int>(fd), SOL_SOCKET, SO_ERROR, error, &bytes));
}

long KernelPeer::readable(long fd, int* bytes)
{
    return result_of(ioctl(static_cast<int>(fd), SIOCINQ, bytes));
}

long KernelPeer::set_option(long fd, const std::string& name, int value)
{
    static constexpr struct {
        const char* name;
        int level, option;
    } kOptions[] = {
        {"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF},
        {"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR},
        {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY},
    };
    for (const auto& each : kOptions) {
        if (name == each.name)
            return result_of(
                setsockopt(static_cast<int>(fd), each.level, each.option, &value, sizeof value));
    }
    return -ENOPROTOOPT;
}

long KernelPeer::extension(const std::string&, std::span<const long>)
{
    return -ENOSYS;
}

} // namespace devmem::conformance
