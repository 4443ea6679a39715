// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/ack_template.h"

#include "lib/wire/headers.h"
#include "lib/wire/tcp_options_codec.h"

#include <algorithm>
#include <bit>
#include <span>

namespace devmem::wire {

AckTemplate::AckTemplate(const Flow& flow) : l4_(flow.dst.family == 4 ? kTcp4 : kTcp6)
{
    constexpr std::uint8_t kAck = 0x10;
    TcpOptions options;
    options.timestamps = true;
    std::array<std::uint8_t, kMaxTcpHeader> frame{};
    write_tcp(frame, flow, {0, 0, 0, kAck, kNotEct}, options, {}, {}, 0);
    std::copy_n(frame.begin(), bytes_.size(), bytes_.begin());
    lay_out(true);
}

/// Lengths, and the sums that depend on them.
[[gnu::cold]] void AckTemplate::lay_out(bool timestamps)
{
    timestamps_ = timestamps;
    const std::uint32_t l4_bytes = kTcpBytes + (timestamps ? kTimestampsBytes : 0);
    const bool ipv6 = l4_ == kTcp6;
    std::uint8_t* const ip = bytes_.data() + kEthernetBytes;
    std::uint8_t* const tcp = bytes_.data() + l4_;
    if (ipv6) {
        store16(ip + 4, static_cast<std::uint16_t>(l4_bytes));
    } else {
        constexpr std::uint16_t kDontFragment = 0x4000;
        store16(ip + 2, static_cast<std::uint16_t>(kIpv4Bytes + l4_bytes));
        store16(ip + 6, kDontFragment);
        store16(ip + 10, 0);
        store16(ip + 10, checksum_fold(checksum_add(0, {ip, kIpv4Bytes})));
    }
    tcp[12] = static_cast<std::uint8_t>(l4_bytes / 4 << 4);
    store16(tcp + 16, 0);
    // The pseudo header: addresses, protocol, length (RFC 9293 3.1, RFC 8200 8.1).
    const std::size_t address_bytes = ipv6 ? 32 : 8;
    std::uint32_t sum = checksum_add(kProtocolTcp + l4_bytes, {tcp - address_bytes, address_bytes});
    sum = checksum_add(sum, {tcp, kTcpBytes + (timestamps ? kLeadBytes : 0)});
    const auto folded = static_cast<std::uint16_t>(~checksum_fold(sum));
    tcp_sum_ = std::endian::native == std::endian::little ? __builtin_bswap16(folded) : folded;
}

} // namespace devmem::wire
