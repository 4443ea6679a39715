// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string_view>
#include <sys/socket.h>

namespace devmem::conformance {

/// An integer option of a socket, as scripts and as system calls name it.
struct SocketOption {
    std::string_view name;
    int level, option;
};

inline constexpr SocketOption kSocketOptions[] = {
    {"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF},
    {"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR},
    {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY},
};

} // namespace devmem::conformance
