// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/ack_template.h"

#include "lib/wire/bytes.h"
#include "lib/wire/headers.h"
#include "lib/wire/tcp_options_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace devmem::wire {

namespace {

constexpr std::uint16_t kTimestampsBytes = 12;

// Sums are kept in the byte order of the wire, whatever the machine's: a checksum comes out in it
// (RFC 1071 2.B), and each word is added as it is stored.

std::uint32_t wire32(std::uint32_t value)
{
    return std::endian::native == std::endian::little ? __builtin_bswap32(value) : value;
}

/// Two 16-bit words.
std::uint32_t wire16(std::uint16_t first, std::uint16_t second)
{
    return wire32(std::uint32_t{first} << 16 | second);
}

void store(std::uint8_t* at, std::uint32_t word)
{
    std::memcpy(at, &word, sizeof word);
}

/// The checksum that belongs to a sum of words.
std::uint16_t complement(std::uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

void store(std::uint8_t* at, std::uint16_t half)
{
    std::memcpy(at, &half, sizeof half);
}

/// What a checksum field says of all else, without `parts` of it.
std::uint16_t without(const std::uint8_t* field, std::uint32_t part)
{
    std::uint16_t sum;
    std::memcpy(&sum, field, sizeof sum);
    // a - b is a + ~b in ones' complement.
    return static_cast<std::uint16_t>(
        ~complement(std::uint64_t{static_cast<std::uint16_t>(~sum)} + ~part));
}

} // namespace

AckTemplate::AckTemplate(const Flow& flow)
{
    std::array<std::uint8_t, kMaxTcpHeader> frame{};
    write_tcp(frame, flow, {}, {}, {}, {}, 0);
    l4_ = static_cast<std::uint8_t>(below_bytes(flow.dst));
    std::copy_n(frame.begin(), l4_ + kTcpBytes, bytes_.begin());
    constexpr std::uint16_t kOffset = kTcpBytes / 4 << 12;
    tcp_sum_ = without(&frame[l4_ + 16], wire16(kOffset, 0));
    ip_sum_ = without(&frame[kEthernetBytes + 10], wire16(kIpv4Bytes + kTcpBytes, 0));
}

std::size_t AckTemplate::write(std::uint8_t* out, const TcpHeader& tcp,
                               const Timestamps* timestamps, std::uint16_t ip_id) const
{
    const std::uint16_t more = timestamps != nullptr ? kTimestampsBytes : std::uint16_t{0};
    std::memcpy(out, bytes_.data(), kEthernetBytes + kIpv4Bytes + kTcpBytes);
    std::uint8_t* const ip = out + kEthernetBytes;
    if (l4_ == kEthernetBytes + kIpv4Bytes) [[likely]] {
        const std::uint32_t length_id =
            wire16(static_cast<std::uint16_t>(kIpv4Bytes + kTcpBytes + more), ip_id);
        store(ip + 2, length_id);
        store(ip + 10, complement(std::uint64_t{ip_sum_} + length_id));
    } else {
        std::memcpy(out, bytes_.data(), bytes_.size());
        store16(ip + 4, static_cast<std::uint16_t>(kTcpBytes + more));
    }
    std::uint8_t* const p = out + l4_;
    std::uint64_t sum = std::uint64_t{tcp_sum_} + wire16(more, 0);
    const auto put = [&](std::size_t at, std::uint32_t word) {
        store(p + at, word);
        sum += word;
    };
    put(4, wire32(tcp.seq));
    put(8, wire32(tcp.ack));
    put(12,
        wire16(static_cast<std::uint16_t>((kTcpBytes + more) / 4 << 12 | tcp.flags), tcp.window));
    if (timestamps != nullptr) [[likely]] {
        put(kTcpBytes, wire32(kTimestampsLead));
        put(kTcpBytes + 4, wire32(timestamps->val));
        put(kTcpBytes + 8, wire32(timestamps->ecr));
    }
    store(p + 16, complement(sum));
    return l4_ + kTcpBytes + more;
}

} // namespace devmem::wire
