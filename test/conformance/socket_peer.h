// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "test/conformance/packetdrill.h"
#include "test/conformance/peer.h"

#include <string>

namespace devmem::conformance {

/// A host whose calls are those of sockets: what derives from it says whose, and has the wire and
/// the clock.
class SocketPeer : public Peer {
public:
    long socket() override;
    long bind(long fd) override;
    long listen(long fd, int backlog) override;
    long accept(long fd) override;
    long connect(long fd) override;
    long read(long fd, std::span<std::uint8_t> into) override;
    long write(long fd, std::span<const std::uint8_t> bytes) override;
    long shutdown(long fd) override;
    long close(long fd) override;
    long linger(long fd) override;
    long pending_error(long fd, int* error) override;
    long readable(long fd, int* bytes) override;
    long at_mark(long fd, int* whether) override;
    long set_option(long fd, const std::string& name, int value) override;
    long extension(const std::string& name, std::span<const long> arguments) override;

protected:
    explicit SocketPeer(const Endpoints& ends) : ends_(ends) {}

    const Endpoints ends_;
    PacketdrillInterface calls_{};
};

/// An address as sockets have it. @param bytes receives its size
sockaddr_storage socket_address(unsigned family, const Address& address, std::uint16_t port,
                                socklen_t* bytes);

} // namespace devmem::conformance
