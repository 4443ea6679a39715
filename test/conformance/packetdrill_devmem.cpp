// SPDX-License-Identifier: BSD-3-Clause
// The engine as packetdrill loads it: packetdrill --so_filename=packetdrill_devmem.so SCRIPT.pkt.
// It is the peer of our own scripts behind packetdrill's table, with its virtual clock: usleep()
// and waiting for a packet let time pass at once. Calls do not block.
//
// --so_flags=NAME=VALUE;NAME=VALUE... are settings, as by sysctl (EnginePeer::sysctl()).
#include "test/conformance/engine_peer.h"
#include "test/conformance/packetdrill.h"
#include "test/conformance/socket_option.h"
#include "test/conformance/socket_peer.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/sockios.h>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace devmem::conformance {

namespace {

constexpr std::uint32_t kIss = 0x12345678;
constexpr Micros kPatience = 86'400'000'000; // longer than any timer

/// Where a socket connects from that was not bound: RFC 5737 and RFC 3849.
constexpr Address kLocal4{198, 51, 100, 1};
constexpr Address kLocal6{0x20, 0x01, 0x0d, 0xb8, 0x01};
constexpr std::uint16_t kPort = 8080;

struct Name {
    Address address{};
    std::uint16_t port = 0;
};

std::optional<Name> name_of(const sockaddr* address, socklen_t bytes)
{
    Name name;
    if (bytes >= sizeof(sockaddr_in) && address->sa_family == AF_INET) {
        sockaddr_in in;
        std::memcpy(&in, address, sizeof in);
        std::memcpy(name.address.data(), &in.sin_addr, 4);
        name.port = ntohs(in.sin_port);
    } else if (bytes >= sizeof(sockaddr_in6) && address->sa_family == AF_INET6) {
        sockaddr_in6 in6;
        std::memcpy(&in6, address, sizeof in6);
        std::memcpy(name.address.data(), &in6.sin6_addr, 16);
        name.port = ntohs(in6.sin6_port);
    } else {
        return {};
    }
    return name;
}

/// One run of packetdrill. Calls return a negative errno.
class Host {
public:
    explicit Host(const char* flags);
    ~Host();

    long socket(int domain, int type, int protocol);
    long bind(long fd, const sockaddr* address, socklen_t bytes);
    long listen(long fd, int backlog);
    long accept(long fd, sockaddr* address, socklen_t* bytes);
    long connect(long fd, const sockaddr* address, socklen_t bytes);
    long read(long fd, void* into, std::size_t bytes);
    long recv(long fd, void* into, std::size_t bytes, int flags);
    long recvfrom(long fd, void* into, std::size_t bytes, int flags, sockaddr*, socklen_t*);
    long write(long fd, const void* from, std::size_t bytes);
    long send(long fd, const void* from, std::size_t bytes, int flags);
    long sendto(long fd, const void* from, std::size_t bytes, int flags, const sockaddr*,
                socklen_t);
    long ioctl(long fd, unsigned long request, void* argument);
    long close(int fd);
    long shutdown(long fd, int how);
    long getsockopt(long fd, int level, int name, void* value, socklen_t* bytes);
    long setsockopt(long fd, int level, int name, const void* value, socklen_t bytes);
    long netdev_send(const void* packet, std::size_t bytes);
    long netdev_receive(void* packet, std::size_t* bytes, long long* micros);
    long usleep(useconds_t micros);
    long gettimeofday(timeval* time, struct timezone*);
    /// The engine's number of a socket. @return -EBADF: there is no such socket
    long socket_of(int fd) const;

    std::mutex mutex; ///< calls that a script has block come on a thread of their own

private:
    EnginePeer& engine(unsigned family);
    long adopt(long engine_fd);
    void run_until(Micros time);

    std::vector<std::pair<std::string, std::string>> settings_;
    Endpoints ends_{};
    std::unique_ptr<EnginePeer> engine_; ///< when it is known whether it is to be IPv4 or IPv6
    Micros clock_ = 0;
    /// packetdrill closes some descriptors itself and asks the kernel about others, so they are
    /// real ones, of idle sockets.
    std::map<int, long> descriptors_;
};

Host::Host(const char* flags)
{
    for (const char* at = flags ? flags : ""; *at;) {
        const std::string setting(at, std::strcspn(at, ";"));
        at += setting.size() + (at[setting.size()] == ';');
        const std::size_t equals = std::min(setting.find('='), setting.size());
        settings_.emplace_back(setting.substr(0, equals),
                               setting.substr(std::min(equals + 1, setting.size())));
    }
}

Host::~Host()
{
    if (!engine_)
        return;
    if (const std::string leaks = engine_->leaks(); !leaks.empty()) {
        std::fprintf(stderr, "devmem: %s\n", leaks.c_str());
        std::abort(); // there is no other way to fail a script
    }
}

EnginePeer& Host::engine(unsigned family)
{
    if (!engine_) {
        ends_ = {family, family == 4 ? kLocal4 : kLocal6, {}, kPort, 0};
        engine_ = std::make_unique<EnginePeer>(ends_, kIss);
        for (const auto& [name, value] : settings_) {
            if (!engine_->sysctl(name, value)) {
                std::fprintf(stderr, "devmem: there is no %s to set to '%s'\n", name.c_str(),
                             value.c_str());
                std::exit(EXIT_FAILURE);
            }
        }
        engine_->run_until(clock_, false);
    }
    return *engine_;
}

long Host::adopt(long engine_fd)
{
    if (engine_fd < 0)
        return engine_fd;
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    descriptors_[fd] = engine_fd;
    return fd;
}

long Host::socket_of(int fd) const
{
    const auto found = descriptors_.find(fd);
    return found == descriptors_.end() ? -EBADF : found->second;
}

long Host::socket(int domain, int type, int)
{
    const unsigned family = domain == AF_INET ? 4 : domain == AF_INET6 ? 6 : 0;
    if (family == 0 || (engine_ && family != ends_.family))
        return -EAFNOSUPPORT;
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM)
        return -EPROTONOSUPPORT;
    return adopt(engine(family).socket());
}

long Host::bind(long fd, const sockaddr* address, socklen_t bytes)
{
    const auto name = name_of(address, bytes);
    if (!name)
        return -EINVAL;
    ends_.local = name->address;
    ends_.local_port = name->port;
    engine_->set_ends(ends_);
    return engine_->bind(fd);
}

long Host::listen(long fd, int backlog)
{
    return engine_->listen(fd, backlog);
}

long Host::accept(long fd, sockaddr* address, socklen_t* bytes)
{
    const long accepted = adopt(engine_->accept(fd));
    if (accepted >= 0 && address && bytes) {
        socklen_t size;
        const auto remote = socket_address(ends_.family, ends_.remote, ends_.remote_port, &size);
        std::memcpy(address, &remote, std::min(*bytes, size));
        *bytes = size;
    }
    return accepted;
}

long Host::connect(long fd, const sockaddr* address, socklen_t bytes)
{
    const auto name = name_of(address, bytes);
    if (!name)
        return -EINVAL;
    ends_.remote = name->address;
    ends_.remote_port = name->port;
    engine_->set_ends(ends_);
    return engine_->connect(fd);
}

long Host::read(long fd, void* into, std::size_t bytes)
{
    return engine_->read(fd, {static_cast<std::uint8_t*>(into), bytes});
}

long Host::recv(long fd, void* into, std::size_t bytes, int flags)
{
    return (flags & ~MSG_DONTWAIT) != 0 ? -EOPNOTSUPP : read(fd, into, bytes);
}

long Host::recvfrom(long fd, void* into, std::size_t bytes, int flags, sockaddr*, socklen_t*)
{
    return recv(fd, into, bytes, flags);
}

long Host::write(long fd, const void* from, std::size_t bytes)
{
    return engine_->write(fd, {static_cast<const std::uint8_t*>(from), bytes});
}

long Host::send(long fd, const void* from, std::size_t bytes, int flags)
{
    return (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL)) != 0 ? -EOPNOTSUPP : write(fd, from, bytes);
}

long Host::sendto(long fd, const void* from, std::size_t bytes, int flags, const sockaddr*,
                  socklen_t)
{
    return send(fd, from, bytes, flags);
}

long Host::ioctl(long fd, unsigned long request, void* argument)
{
    switch (request) {
    case SIOCINQ:
        return engine_->readable(fd, static_cast<int*>(argument));
    case SIOCATMARK:
        return engine_->at_mark(fd, static_cast<int*>(argument));
    default:
        return -EINVAL;
    }
}

long Host::close(int fd)
{
    const auto found = descriptors_.find(fd);
    if (found == descriptors_.end())
        return -EBADF;
    const long result = engine_->close(found->second);
    descriptors_.erase(found);
    ::close(fd);
    return result;
}

long Host::shutdown(long fd, int how)
{
    return how == SHUT_WR ? engine_->shutdown(fd) : -EINVAL;
}

long Host::getsockopt(long fd, int level, int name, void* value, socklen_t* bytes)
{
    int error = 0;
    if (level != SOL_SOCKET || name != SO_ERROR || *bytes < sizeof error)
        return -ENOPROTOOPT;
    const long result = engine_->pending_error(fd, &error);
    std::memcpy(value, &error, sizeof error);
    *bytes = sizeof error;
    return result;
}

long Host::setsockopt(long fd, int level, int name, const void* value, socklen_t bytes)
{
    linger linger{};
    if (level == SOL_SOCKET && name == SO_LINGER && bytes == sizeof linger) {
        std::memcpy(&linger, value, sizeof linger);
        return linger.l_onoff && linger.l_linger == 0 ? engine_->linger(fd) : -EINVAL;
    }
    int number = 0;
    if (bytes != sizeof number)
        return -EINVAL;
    std::memcpy(&number, value, sizeof number);
    for (const SocketOption& each : kSocketOptions) {
        if (level == each.level && name == each.option)
            return engine_->set_option(fd, std::string(each.name), number);
    }
    return -ENOPROTOOPT;
}

/// Whoever sends a segment is the remote end.
long Host::netdev_send(const void* packet, std::size_t bytes)
{
    const std::span ip(static_cast<const std::uint8_t*>(packet), bytes);
    const unsigned family = bytes == 0 ? 0 : ip[0] >> 4;
    const std::size_t header = family == 4 ? (ip[0] & 0xf) * 4u : 40;
    if ((family != 4 && family != 6) || bytes < header + 4)
        return -EINVAL;
    EnginePeer& engine = this->engine(family);
    if (ip[family == 4 ? 9 : 6] == IPPROTO_TCP) {
        const std::size_t address = family == 4 ? 4 : 16;
        const auto addresses = ip.begin() + (family == 4 ? 12 : 8);
        std::copy_n(addresses, address, ends_.remote.begin());
        std::copy_n(addresses + static_cast<std::ptrdiff_t>(address), address, ends_.local.begin());
        ends_.remote_port = static_cast<std::uint16_t>(ip[header] << 8 | ip[header + 1]);
        ends_.local_port = static_cast<std::uint16_t>(ip[header + 2] << 8 | ip[header + 3]);
        engine.set_ends(ends_);
    }
    engine.inject(ip);
    return 0;
}

long Host::netdev_receive(void* packet, std::size_t* bytes, long long* micros)
{
    const std::size_t room = std::exchange(*bytes, 0);
    if (!engine_)
        return 0;
    if (engine_->sent.empty())
        engine_->run_until(clock_ + kPatience, true);
    if (engine_->sent.empty()) {
        clock_ += kPatience;
        return 0;
    }
    const Peer::Sent sent = std::move(engine_->sent.front());
    engine_->sent.pop_front();
    clock_ = std::max(clock_, sent.time);
    *micros = sent.time;
    *bytes = std::min(room, sent.bytes.size());
    std::memcpy(packet, sent.bytes.data(), *bytes);
    return 0;
}

void Host::run_until(Micros time)
{
    clock_ = time;
    if (engine_)
        engine_->run_until(time, false);
}

long Host::usleep(useconds_t micros)
{
    run_until(clock_ + micros);
    return 0;
}

/// packetdrill spins to be on time: a clock that stands still would keep it for ever.
long Host::gettimeofday(timeval* time, struct timezone*)
{
    run_until(clock_ + 1);
    *time = {clock_ / 1'000'000, clock_ % 1'000'000};
    return 0;
}

/// As system calls have it.
template <class Result>
Result result_of(long result)
{
    if (result < 0)
        errno = static_cast<int>(-result);
    return static_cast<Result>(std::max(result, -1L));
}

/// The table's entry for a call, ...
template <auto Call, class Result, class... Arguments>
Result entry(void* self, Arguments... arguments)
{
    auto& host = *static_cast<Host*>(self);
    const std::scoped_lock lock(host.mutex);
    return result_of<Result>((host.*Call)(arguments...));
}

/// ... and for one that is about a socket.
template <auto Call, class Result, class... Arguments>
Result on_socket(void* self, int fd, Arguments... arguments)
{
    auto& host = *static_cast<Host*>(self);
    const std::scoped_lock lock(host.mutex);
    const long socket = host.socket_of(fd);
    return result_of<Result>(socket < 0 ? socket : (host.*Call)(socket, arguments...));
}

template <class Result, class... Arguments>
Result unknown(void*, Arguments...)
{
    return result_of<Result>(-ENOSYS);
}

int control(void*, int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    const long argument = va_arg(arguments, long);
    va_end(arguments);
    return fcntl(fd, command, argument);
}

int device_control(void* self, int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void* const argument = va_arg(arguments, void*);
    va_end(arguments);
    return on_socket<&Host::ioctl, int>(self, fd, request, argument);
}

} // namespace

} // namespace devmem::conformance

extern "C" [[gnu::visibility("default")]] void
packetdrill_interface_init(const char* flags, devmem::conformance::PacketdrillInterface* table)
{
    using namespace devmem::conformance;
    *table = {
        .userdata = new Host(flags),
        .free = [](void* self) { delete static_cast<Host*>(self); },
        .socket = entry<&Host::socket>,
        .bind = on_socket<&Host::bind>,
        .listen = on_socket<&Host::listen>,
        .accept = on_socket<&Host::accept>,
        .connect = on_socket<&Host::connect>,
        .read = on_socket<&Host::read>,
        .readv = unknown,
        .recv = on_socket<&Host::recv>,
        .recvfrom = on_socket<&Host::recvfrom>,
        .recvmsg = unknown,
        .write = on_socket<&Host::write>,
        .writev = unknown,
        .send = on_socket<&Host::send>,
        .sendto = on_socket<&Host::sendto>,
        .sendmsg = unknown,
        .fcntl = control,
        .ioctl = device_control,
        .close = entry<&Host::close>,
        .shutdown = on_socket<&Host::shutdown>,
        .getsockopt = on_socket<&Host::getsockopt>,
        .setsockopt = on_socket<&Host::setsockopt>,
        .poll = unknown,
        .netdev_send = entry<&Host::netdev_send>,
        .netdev_receive = entry<&Host::netdev_receive>,
        .usleep = entry<&Host::usleep>,
        .gettimeofday = entry<&Host::gettimeofday>,
    };
}
