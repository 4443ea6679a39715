// SPDX-License-Identifier: BSD-3-Clause
// The sending ends of many connections, for receivers that are driven packet by packet: headers as
// they would come, with all their checksums. Payload is zeros, which no checksum notices.
#pragma once

#include "lib/wire/frame.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bench {

/// What arrives.
struct Load {
    unsigned connections = 1;
    std::uint32_t payload = 1448; ///< bytes of a segment
    unsigned run = 1;             ///< segments of one connection in a row
    bool zipf = false;            ///< connections by Zipf's law (s = 1), else each in turn
    /// By Zipf's law: of 32 segments in a row, so many at most are of one connection, the others of
    /// one chosen without preference. The senders do not look at windows.
    unsigned most_of_one = 32;
    unsigned late_percent = 0;    ///< of segments: these come after the one that follows them
};

class Traffic {
public:
    /// Ethernet, IPv4, TCP with timestamps.
    static constexpr std::size_t kMaxHeader = 14 + 20 + 32;

    /// @param mac, ip, port of the receiver; ip is of IPv4
    Traffic(const Load& load, const devmem::wire::Mac& mac, const devmem::wire::Ip& ip,
            std::uint16_t port);

    /// Write the SYN of a connection. @return its bytes
    std::size_t syn(unsigned connection, std::uint8_t* frame) const;
    /// Write the ACK that answers a SYN-ACK of the receiver's.
    /// @return its bytes; 0: `frame` is something else
    std::size_t answer(std::span<const std::uint8_t> frame, std::uint8_t* ack);

    struct Next {
        unsigned connection;
        std::uint16_t header_bytes; ///< written
    };
    /// Write the headers of the next segment. Room for kMaxHeader.
    Next next(std::uint8_t* frame);

    const Load& load() const { return load_; }

private:
    struct Connection {
        std::uint32_t seq = 0; ///< of the next segment
        std::uint32_t ack = 0; ///< the receiver's ISS + 1
        std::uint32_t ts_ecr = 0;
        bool timestamps = false;
        bool late = false; ///< the segment at `seq` is, the one behind it has been sent
    };

    devmem::wire::Flow flow(unsigned connection) const;
    unsigned pick();
    bool is_late();

    const Load load_;
    devmem::wire::Mac mac_;
    devmem::wire::Ip ip_;
    std::uint16_t port_;
    std::vector<Connection> connections_;
    std::vector<std::uint32_t> schedule_; ///< connections in the order they send, over and over
    std::size_t at_ = 0;
    unsigned left_in_run_ = 0;
    std::uint32_t random_ = 1;
};

} // namespace bench
