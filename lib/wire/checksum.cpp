// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/bytes.h"
#include "lib/wire/frame.h"

namespace devmem::wire {

// The sum is the same in either byte order but for a swap of the result (RFC 1071 2.B), so words
// are added as they lie in memory, 16 bytes a turn into 64 bits that no length here can overflow,
// and swapped once.
std::uint32_t checksum_add(std::uint32_t sum, std::span<const std::uint8_t> bytes)
{
    const std::uint8_t* p = bytes.data();
    std::size_t left = bytes.size();
    std::uint64_t even = 0;
    std::uint64_t odd = 0;
    for (; left >= 16; p += 16, left -= 16) {
        std::uint64_t word[2];
        std::memcpy(word, p, sizeof word);
        even += (word[0] & 0xffffffff) + (word[0] >> 32);
        odd += (word[1] & 0xffffffff) + (word[1] >> 32);
    }
    for (; left >= 4; p += 4, left -= 4) {
        std::uint32_t word;
        std::memcpy(&word, p, sizeof word);
        even += word;
    }
    if (left >= 2) {
        std::uint16_t word;
        std::memcpy(&word, p, sizeof word);
        odd += word;
        p += 2;
        left -= 2;
    }
    if (left != 0) {
        std::uint16_t word = 0;
        std::memcpy(&word, p, 1);
        odd += word;
    }
    std::uint64_t total = even + odd;
    while (total >> 16 != 0)
        total = (total & 0xffff) + (total >> 16);
    auto folded = static_cast<std::uint16_t>(total);
    if constexpr (std::endian::native == std::endian::little)
        folded = __builtin_bswap16(folded);
    return sum + folded;
}

std::uint16_t checksum_fold(std::uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

// One form for both families (RFC 9293 3.1, RFC 8200 8.1): the unused bytes of an IPv4 address are
// zero, as is the upper half of its length.
std::uint32_t checksum_pseudo(const Ip& src, const Ip& dst, std::uint8_t protocol,
                              std::uint32_t l4_bytes)
{
    const std::uint32_t sum = protocol + (l4_bytes >> 16) + (l4_bytes & 0xffff);
    return checksum_add(checksum_add(sum, src.bytes), dst.bytes);
}

} // namespace devmem::wire
