// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "test/conformance/packet.h"
#include "test/conformance/script.h"

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

namespace devmem::conformance {

/// What a script is played against: a host with sockets, on one end of a wire. Calls return what
/// the system call would, or a negative errno; none blocks.
class Peer {
public:
    virtual ~Peer() = default;

    /// Before the first call. @return false: there is no such setting here.
    virtual bool sysctl(const std::string& name, const std::string& value) = 0;
    /// How late or early this peer may be, at something it does after `waiting`, without being
    /// wrong.
    virtual Micros tolerance(Micros waiting) const = 0;
    /// Whether it may set PSH where a script does not: that is left to the sender but for the last
    /// segment of what is queued (RFC 9293 3.9.1.2, MUST-61).
    virtual bool pushes_more() const { return false; }

    /// Let time pass until `time`, or only until a packet is out.
    virtual void run_until(Micros time, bool or_packet) = 0;
    /// A packet arrives, IP header first.
    virtual void inject(std::span<const std::uint8_t> packet) = 0;

    virtual long socket() = 0;
    virtual long bind(long fd) = 0;
    virtual long listen(long fd, int backlog) = 0;
    virtual long accept(long fd) = 0;
    virtual long connect(long fd) = 0;
    virtual long read(long fd, std::span<std::uint8_t> into) = 0;
    virtual long write(long fd, std::span<const std::uint8_t> bytes) = 0;
    virtual long shutdown(long fd) = 0; ///< SHUT_WR
    virtual long close(long fd) = 0;
    virtual long linger(long fd) = 0; ///< SO_LINGER, on, 0 s: close() aborts
    virtual long pending_error(long fd, int* error) = 0;
    virtual long readable(long fd, int* bytes) = 0;
    virtual long at_mark(long fd, int* whether) = 0; ///< the next byte is the last of urgent data
    /// An integer option. @return -ENOPROTOOPT: not one of this peer
    virtual long set_option(long fd, const std::string& name, int value) = 0;
    /// Calls that are no system calls.
    /// @return -ENOSYS: not a call of this peer
    virtual long extension(const std::string& name, std::span<const long> arguments) = 0;

    /// What is wrong at the end whatever the script says; empty: nothing.
    virtual std::string leaks() { return {}; }

    struct Sent {
        Micros time;
        std::vector<std::uint8_t> bytes;
    };
    /// Packets that came out and were not looked at yet.
    std::deque<Sent> sent;
};

} // namespace devmem::conformance
