// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/ack_template.h"

#include "lib/wire/bytes.h"
#include "lib/wire/headers.h"
#include "lib/wire/tcp_options_codec.h"

#include <algorithm>
#include <cstring>

namespace devmem::wire {

namespace {

constexpr std::uint16_t kTimestampsBytes = 12;

std::uint32_t halves(std::uint32_t value)
{
    return (value >> 16) + (value & 0xffff);
}

} // namespace

AckTemplate::AckTemplate(const Flow& flow)
{
    std::array<std::uint8_t, kMaxTcpHeader> frame{};
    const std::size_t bytes = write_tcp(frame, flow, {}, {}, {}, {}, 0);
    const std::size_t l4 = below_bytes(flow.dst);
    l4_ = static_cast<std::uint8_t>(l4);
    std::copy_n(frame.begin(), std::min(bytes, bytes_.size()), bytes_.begin());
    // A checksum is the complement of the sum of the rest.
    constexpr std::uint32_t kOffset = kTcpBytes / 4 << 12; // write() adds its own
    const std::uint32_t sum =
        static_cast<std::uint16_t>(~load16(&frame[l4 + 16])) + std::uint32_t{0xffff} - kOffset;
    tcp_sum_ = halves(sum);
    ip_sum_ = flow.dst.family == 4
                  ? static_cast<std::uint16_t>(~load16(&frame[kEthernetBytes + 10]))
                  : std::uint16_t{0};
}

std::size_t AckTemplate::write(std::uint8_t* out, const TcpHeader& tcp,
                               const Timestamps* timestamps, std::uint16_t ip_id) const
{
    const std::uint16_t more = timestamps != nullptr ? kTimestampsBytes : std::uint16_t{0};
    const bool ipv6 = l4_ != kEthernetBytes + kIpv4Bytes;
    std::memcpy(out, bytes_.data(), kEthernetBytes + kIpv4Bytes + kTcpBytes);
    std::uint8_t* const ip = out + kEthernetBytes;
    if (!ipv6) [[likely]] {
        const std::uint16_t total = static_cast<std::uint16_t>(kIpv4Bytes + kTcpBytes + more);
        store16(ip + 2, total);
        store16(ip + 4, ip_id);
        store16(ip + 10, checksum_fold(std::uint32_t{ip_sum_} + more + ip_id));
    } else {
        std::memcpy(out, bytes_.data(), bytes_.size());
        store16(ip + 4, static_cast<std::uint16_t>(kTcpBytes + more));
    }
    std::uint8_t* const p = out + l4_;
    const std::uint32_t offset_flags = (kTcpBytes + more) / 4 << 12 | tcp.flags;
    store32(p + 4, tcp.seq);
    store32(p + 8, tcp.ack);
    store16(p + 12, static_cast<std::uint16_t>(offset_flags));
    store16(p + 14, tcp.window);
    std::uint32_t sum =
        tcp_sum_ + more + halves(tcp.seq) + halves(tcp.ack) + offset_flags + tcp.window;
    if (timestamps != nullptr) {
        store32(p + kTcpBytes, kTimestampsLead);
        store32(p + kTcpBytes + 4, timestamps->val);
        store32(p + kTcpBytes + 8, timestamps->ecr);
        sum += halves(kTimestampsLead) + halves(timestamps->val) + halves(timestamps->ecr);
    }
    store16(p + 16, checksum_fold(sum));
    return l4_ + kTcpBytes + more;
}

} // namespace devmem::wire
