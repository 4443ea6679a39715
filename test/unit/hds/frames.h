// SPDX-License-Identifier: BSD-3-Clause
// Frames made from the RFCs, independently of the driver: what goes in, and where its payload
// begins.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

namespace hds_test {

using Frame = std::vector<std::uint8_t>;

inline void put16(Frame& f, std::size_t at, std::uint32_t value)
{
    f[at] = static_cast<std::uint8_t>(value >> 8);
    f[at + 1] = static_cast<std::uint8_t>(value);
}

/// RFC 1071 over big-endian words, one at a time.
inline std::uint32_t add_words(std::uint32_t sum, const std::uint8_t* p, std::size_t n)
{
    for (std::size_t i = 0; i < n; ++i)
        sum += i % 2 == 0 ? p[i] * 256u : p[i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

struct Shape {
    int vlans = 0;
    bool ipv6 = false;
    unsigned ip_options = 0;                   ///< IPv4: bytes, a multiple of 4
    std::vector<std::uint8_t> extensions = {}; ///< IPv6: next-header values, 8 bytes each
    std::uint8_t protocol = 6;                 ///< 6 TCP, 17 UDP
    unsigned tcp_options = 0;                  ///< bytes, a multiple of 4
    unsigned payload = 0;
    std::uint16_t fragment = 0; ///< IPv4: flags and offset
    std::uint8_t seed = 1;      ///< of the payload's bytes
    std::uint16_t src_port = 1000;
};

struct Made {
    Frame bytes;
    std::size_t l3 = 0;
    std::size_t l4 = 0;
    std::size_t header = 0; ///< offset of the first payload byte
};

/// Complete the TCP or UDP checksum; only the pseudo header's sum if `partial`.
inline void checksum_l4(Made& made, const Shape& shape, bool partial = false)
{
    Frame& f = made.bytes;
    const std::size_t field = made.l4 + (shape.protocol == 6 ? 16 : 6);
    const std::size_t len = f.size() - made.l4;
    put16(f, field, 0);
    std::uint32_t sum =
        shape.ipv6 ? add_words(0, &f[made.l3 + 8], 32) : add_words(0, &f[made.l3 + 12], 8);
    const std::uint8_t tail[4] = {static_cast<std::uint8_t>(len >> 8),
                                  static_cast<std::uint8_t>(len), 0, shape.protocol};
    sum = add_words(sum, tail, 4);
    if (!partial)
        sum = ~add_words(sum, &f[made.l4], len) & 0xffff;
    put16(f, field, sum);
}

inline Made make_frame(const Shape& shape)
{
    Made made;
    Frame& f = made.bytes;
    f = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};
    for (int i = 0; i < shape.vlans; ++i)
        f.insert(f.end(), {static_cast<std::uint8_t>(i + 1 < shape.vlans ? 0x88 : 0x81),
                           static_cast<std::uint8_t>(i + 1 < shape.vlans ? 0xa8 : 0x00), 0, 5});
    if (shape.ipv6)
        f.insert(f.end(), {0x86, 0xdd});
    else
        f.insert(f.end(), {0x08, 0x00});
    made.l3 = f.size();

    const std::size_t l4_header = shape.protocol == 6 ? 20 + shape.tcp_options : 8;
    if (shape.ipv6) {
        f.resize(made.l3 + 40 + 8 * shape.extensions.size());
        f[made.l3] = 0x60;
        put16(f, made.l3 + 4,
              static_cast<std::uint32_t>(8 * shape.extensions.size() + l4_header + shape.payload));
        f[made.l3 + 7] = 64;
        f[made.l3 + 8 + 15] = 1;
        f[made.l3 + 24 + 15] = 2;
        std::size_t link = made.l3 + 6;
        for (std::size_t i = 0; i < shape.extensions.size(); ++i) {
            f[link] = shape.extensions[i];
            link = made.l3 + 40 + 8 * i;
            f[link + 2] = 1; // PadN
            f[link + 3] = 4;
        }
        f[link] = shape.protocol;
    } else {
        const std::size_t ip = 20 + shape.ip_options;
        f.resize(made.l3 + ip, 1); // options are No-Operation
        f[made.l3] = static_cast<std::uint8_t>(0x40 | ip / 4);
        f[made.l3 + 1] = 0;
        put16(f, made.l3 + 2, static_cast<std::uint32_t>(ip + l4_header + shape.payload));
        put16(f, made.l3 + 4, 7);
        put16(f, made.l3 + 6, shape.fragment);
        f[made.l3 + 8] = 64;
        f[made.l3 + 9] = shape.protocol;
        put16(f, made.l3 + 10, 0);
        const std::uint8_t addresses[8] = {10, 0, 0, 1, 10, 0, 0, 2};
        std::copy(addresses, addresses + 8, f.begin() + static_cast<std::ptrdiff_t>(made.l3) + 12);
        put16(f, made.l3 + 10, ~add_words(0, &f[made.l3], ip) & 0xffff);
    }
    made.l4 = f.size();
    f.resize(made.l4 + l4_header, 1); // TCP options are No-Operation
    put16(f, made.l4, shape.src_port);
    put16(f, made.l4 + 2, 2000);
    if (shape.protocol == 6) {
        f[made.l4 + 12] = static_cast<std::uint8_t>(l4_header / 4 << 4);
        f[made.l4 + 13] = 0x18;
    } else {
        put16(f, made.l4 + 4, static_cast<std::uint32_t>(8 + shape.payload));
    }
    made.header = f.size();
    for (unsigned i = 0; i < shape.payload; ++i)
        f.push_back(static_cast<std::uint8_t>(i * 7 + i / 251 + shape.seed));
    checksum_l4(made, shape);
    return made;
}

} // namespace hds_test
