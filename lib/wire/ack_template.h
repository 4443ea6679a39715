// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/wire/frame.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace devmem::wire {

/// The headers of a connection's segments without text, made once: what differs from one ACK to the
/// next is filled in, and the checksums are completed rather than computed. One cache line for
/// IPv4, two for IPv6.
class alignas(64) AckTemplate {
public:
    AckTemplate() = default;
    explicit AckTemplate(const Flow& flow);

    /// Room that write() needs, whatever it writes.
    static constexpr std::size_t kRoom = 96;

    struct Timestamps {
        std::uint32_t val, ecr;
    };
    /// As write_tcp() with no payload, no options but timestamps, and Not-ECT.
    /// @param timestamps nullptr: none
    /// @return bytes written
    std::size_t write(std::uint8_t* out, const TcpHeader& tcp, const Timestamps* timestamps,
                      std::uint16_t ip_id) const;

private:
    static constexpr std::size_t kMostBytes = 14 + 40 + 20;

    /// Of the pseudo header, for a header without options, and the ports. As words lie in memory.
    std::uint16_t tcp_sum_;
    std::uint16_t ip_sum_; ///< of the IPv4 header without length and identification, likewise
    std::uint8_t l4_;      ///< offset of the TCP header
    std::array<std::uint8_t, kMostBytes> bytes_; ///< of which IPv4 uses 54
};

} // namespace devmem::wire
