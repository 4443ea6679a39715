// SPDX-License-Identifier: BSD-3-Clause
// How packetdrill reaches a stack in a shared object (--so_filename): a table of functions that the
// object's packetdrill_interface_init() fills in. Declared from its layout, which is its ABI.
#pragma once

#include <cstddef>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>

namespace devmem::conformance {

/// The part that all versions of packetdrill have. Behind it some have epoll, pipe and splice, and
/// some nothing at all: that is left as it is.
///
/// Calls return what the system's do, with errno; `self` is always `userdata`.
struct PacketdrillInterface {
    void* userdata;
    void (*free)(void* self);
    int (*socket)(void* self, int domain, int type, int protocol);
    int (*bind)(void* self, int fd, const sockaddr* address, socklen_t bytes);
    int (*listen)(void* self, int fd, int backlog);
    int (*accept)(void* self, int fd, sockaddr* address, socklen_t* bytes);
    int (*connect)(void* self, int fd, const sockaddr* address, socklen_t bytes);
    ssize_t (*read)(void* self, int fd, void* into, std::size_t bytes);
    ssize_t (*readv)(void* self, int fd, const iovec* into, int n);
    ssize_t (*recv)(void* self, int fd, void* into, std::size_t bytes, int flags);
    ssize_t (*recvfrom)(void* self, int fd, void* into, std::size_t bytes, int flags,
                        sockaddr* address, socklen_t* address_bytes);
    ssize_t (*recvmsg)(void* self, int fd, msghdr* message, int flags);
    ssize_t (*write)(void* self, int fd, const void* from, std::size_t bytes);
    ssize_t (*writev)(void* self, int fd, const iovec* from, int n);
    ssize_t (*send)(void* self, int fd, const void* from, std::size_t bytes, int flags);
    ssize_t (*sendto)(void* self, int fd, const void* from, std::size_t bytes, int flags,
                      const sockaddr* address, socklen_t address_bytes);
    ssize_t (*sendmsg)(void* self, int fd, const msghdr* message, int flags);
    int (*fcntl)(void* self, int fd, int command, ...);
    int (*ioctl)(void* self, int fd, unsigned long request, ...);
    int (*close)(void* self, int fd);
    int (*shutdown)(void* self, int fd, int how);
    int (*getsockopt)(void* self, int fd, int level, int name, void* value, socklen_t* bytes);
    int (*setsockopt)(void* self, int fd, int level, int name, const void* value, socklen_t bytes);
    int (*poll)(void* self, pollfd* fds, nfds_t n, int timeout);
    /// A packet arrives, IP header first.
    int (*netdev_send)(void* self, const void* packet, std::size_t bytes);
    /// Wait for a packet to go out. 0 in `*bytes`, room before: none will.
    int (*netdev_receive)(void* self, void* packet, std::size_t* bytes, long long* micros);
    int (*usleep)(void* self, useconds_t micros);
    int (*gettimeofday)(void* self, timeval* time, struct timezone*);
};
static_assert(offsetof(PacketdrillInterface, gettimeofday) == 27 * sizeof(void*) &&
              sizeof(PacketdrillInterface) == 28 * sizeof(void*));

/// packetdrill_interface_init(). @param flags --so_flags; may be nullptr
using PacketdrillInit = void(const char* flags, PacketdrillInterface* table);

} // namespace devmem::conformance
