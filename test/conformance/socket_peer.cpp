// SPDX-License-Identifier: BSD-3-Clause
#include "test/conformance/socket_peer.h"

#include "test/conformance/socket_option.h"

#include <cerrno>
#include <cstring>
#include <linux/sockios.h>
#include <sys/ioctl.h>

namespace devmem::conformance {

namespace {

long result_of(long result)
{
    return result < 0 ? -errno : result;
}

} // namespace

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

long SocketPeer::socket()
{
    return result_of(calls_.socket(calls_.userdata, ends_.family == 4 ? AF_INET : AF_INET6,
                                   SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

long SocketPeer::bind(long fd)
{
    socklen_t bytes;
    const auto address = socket_address(ends_.family, ends_.local, ends_.local_port, &bytes);
    return result_of(calls_.bind(calls_.userdata, static_cast<int>(fd),
                                 reinterpret_cast<const sockaddr*>(&address), bytes));
}

long SocketPeer::listen(long fd, int backlog)
{
    return result_of(calls_.listen(calls_.userdata, static_cast<int>(fd), backlog));
}

long SocketPeer::accept(long fd)
{
    return result_of(calls_.accept(calls_.userdata, static_cast<int>(fd), nullptr, nullptr));
}

long SocketPeer::connect(long fd)
{
    socklen_t bytes;
    const auto address = socket_address(ends_.family, ends_.remote, ends_.remote_port, &bytes);
    return result_of(calls_.connect(calls_.userdata, static_cast<int>(fd),
                                    reinterpret_cast<const sockaddr*>(&address), bytes));
}

long SocketPeer::read(long fd, std::span<std::uint8_t> into)
{
    return result_of(calls_.read(calls_.userdata, static_cast<int>(fd), into.data(), into.size()));
}

long SocketPeer::write(long fd, std::span<const std::uint8_t> bytes)
{
    return result_of(calls_.send(calls_.userdata, static_cast<int>(fd), bytes.data(), bytes.size(),
                                 MSG_NOSIGNAL));
}

long SocketPeer::shutdown(long fd)
{
    return result_of(calls_.shutdown(calls_.userdata, static_cast<int>(fd), SHUT_WR));
}

long SocketPeer::close(long fd)
{
    return result_of(calls_.close(calls_.userdata, static_cast<int>(fd)));
}

long SocketPeer::linger(long fd)
{
    const ::linger now{1, 0};
    return result_of(calls_.setsockopt(calls_.userdata, static_cast<int>(fd), SOL_SOCKET, SO_LINGER,
                                       &now, sizeof now));
}

long SocketPeer::pending_error(long fd, int* error)
{
    socklen_t bytes = sizeof *error;
    return result_of(calls_.getsockopt(calls_.userdata, static_cast<int>(fd), SOL_SOCKET, SO_ERROR,
                                       error, &bytes));
}

long SocketPeer::readable(long fd, int* bytes)
{
    return result_of(calls_.ioctl(calls_.userdata, static_cast<int>(fd), SIOCINQ, bytes));
}

long SocketPeer::at_mark(long fd, int* whether)
{
    return result_of(calls_.ioctl(calls_.userdata, static_cast<int>(fd), SIOCATMARK, whether));
}

long SocketPeer::set_option(long fd, const std::string& name, int value)
{
    for (const SocketOption& each : kSocketOptions) {
        if (name == each.name)
            return result_of(calls_.setsockopt(calls_.userdata, static_cast<int>(fd), each.level,
                                               each.option, &value, sizeof value));
    }
    return -ENOPROTOOPT;
}

long SocketPeer::extension(const std::string&, std::span<const long>)
{
    return -ENOSYS;
}

} // namespace devmem::conformance
