// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/wire/bytes.h"
#include "lib/wire/frame.h"
#include "lib/wire/layout.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace devmem::wire {

/// The headers of a connection's ACKs, made once: what differs from one to the next is filled in,
/// and the checksum is completed rather than computed. One cache line for IPv4, two for IPv6.
///
/// Over IPv4 they are atomic datagrams: DF is set, which no path minds of a packet that is shorter
/// than every MTU (RFC 791 3.2: 68 bytes), and hence the identification may be anything (RFC 6864
/// 4.1), which is 0.
class alignas(64) AckTemplate {
public:
    AckTemplate() = default;
    explicit AckTemplate(const Flow& flow);

    /// Room that write() needs, whatever it writes.
    static constexpr std::size_t kRoom = 96;

    /// As write_tcp() with no flag but ACK, no payload, no options but timestamps, and Not-ECT; but
    /// for DF.
    /// @param timestamps whether there are ts_val and ts_ecr
    /// @return bytes written
    [[gnu::always_inline]] std::size_t write(std::uint8_t* out, std::uint32_t seq,
                                             std::uint32_t ack, std::uint16_t window,
                                             bool timestamps, std::uint32_t ts_val,
                                             std::uint32_t ts_ecr)
    {
        if (timestamps != timestamps_) [[unlikely]]
            lay_out(timestamps);
        std::memcpy(out, bytes_.data(), kTcp4 + kTcpBytes + kLeadBytes);
        if (l4_ != kTcp4) [[unlikely]]
            std::memcpy(out, bytes_.data(), bytes_.size());
        std::uint8_t* const tcp = out + l4_;
        // Sums are of words as they lie in memory: a checksum comes out as it is to lie there (RFC
        // 1071 2.B).
        std::uint64_t sum = tcp_sum_;
        const auto put = [&](std::size_t at, std::uint32_t value) {
            store32(tcp + at, value);
            std::memcpy(&value, tcp + at, sizeof value);
            sum += value;
        };
        put(4, seq);
        put(8, ack);
        store16(tcp + 14, window);
        std::memcpy(&window, tcp + 14, sizeof window);
        sum += window;
        std::size_t bytes = l4_ + kTcpBytes;
        if (timestamps) [[likely]] {
            put(kTcpBytes + kLeadBytes, ts_val);
            put(kTcpBytes + kLeadBytes + 4, ts_ecr);
            bytes += kTimestampsBytes;
        }
        // The halves added, with the carry, in the upper one: first of 64 bits, then of 32.
        sum = (sum + (sum >> 32 | sum << 32)) >> 32;
        auto half = static_cast<std::uint32_t>(sum);
        half = ~((half + (half >> 16 | half << 16)) >> 16);
        const auto checksum = static_cast<std::uint16_t>(half);
        std::memcpy(tcp + 16, &checksum, sizeof checksum);
        return bytes;
    }

private:
    static constexpr std::uint8_t kTcp4 = kEthernetBytes + kIpv4Bytes;
    static constexpr std::uint8_t kTcp6 = kEthernetBytes + kIpv6Bytes;
    static constexpr std::size_t kLeadBytes = 4; ///< what comes before the times
    static constexpr std::size_t kTimestampsBytes = 12;
    static constexpr std::size_t kMostBytes = kTcp6 + kTcpBytes + kLeadBytes;

    void lay_out(bool timestamps);

    std::uint16_t tcp_sum_; ///< of all that is summed and always the same, as in memory
    bool timestamps_;       ///< bytes_ are of ACKs with them
    std::uint8_t l4_;       ///< where the TCP header lies
    std::array<std::uint8_t, kMostBytes> bytes_; ///< of which IPv4 uses 58
};

} // namespace devmem::wire
