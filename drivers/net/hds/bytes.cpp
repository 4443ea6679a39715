// SPDX-License-Identifier: BSD-3-Clause
#include "drivers/net/hds/bytes.h"

#include <cstring>
#include <rte_byteorder.h>
#include <rte_ip.h>

namespace devmem::hds {

void Bytes::copy(std::uint32_t offset, void* to, std::uint32_t len) const
{
    auto* out = static_cast<std::byte*>(to);
    each(offset, len, [&](const std::byte* from, std::size_t n) {
        std::memcpy(out, from, n);
        out += n;
    });
}

std::uint64_t Bytes::sum(std::uint32_t offset, std::uint32_t len) const
{
    std::uint64_t total = 0;
    bool odd = false;
    each(offset, len, [&](const std::byte* from, std::size_t n) {
        const std::uint16_t piece = rte_raw_cksum(from, n);
        // A piece that starts at an odd byte has its words the other way round (RFC 1071 2 (B)).
        total += odd ? rte_bswap16(piece) : piece;
        odd ^= (n & 1) != 0;
    });
    return total;
}

std::uint16_t fold(std::uint64_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(sum);
}

std::uint64_t pseudo_sum(const Bytes& frame, std::uint32_t l3, bool ipv6, std::uint8_t protocol,
                         std::uint32_t l4_bytes)
{
    const std::uint64_t addresses = ipv6 ? frame.sum(l3 + 8, 32) : frame.sum(l3 + 12, 8);
    const auto word = [](std::uint32_t value) {
        return rte_cpu_to_be_16(static_cast<std::uint16_t>(value));
    };
    return addresses + word(protocol) + word(l4_bytes >> 16) + word(l4_bytes & 0xffff);
}

} // namespace devmem::hds
