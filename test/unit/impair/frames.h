// SPDX-License-Identifier: BSD-3-Clause
// Frames for the wire, as a kernel sends them.
#pragma once

#include "test/tools/wire/frame.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

/// RFC 1071 over whole 16-bit words, as it stands there.
inline std::uint32_t ones_complement(const std::uint8_t* data, std::size_t len,
                                     std::uint32_t sum = 0)
{
    for (std::size_t i = 0; i < len; ++i)
        sum += static_cast<std::uint32_t>(data[i]) << (i % 2 == 0 ? 8 : 0);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/// The one's complement sum that a receiver checks: 0xffff if the checksum is right.
inline std::uint32_t sum4(const wire::Frame& frame, std::uint8_t protocol)
{
    const std::size_t length = frame.size() - 34;
    return ones_complement(&frame[34], length,
                           ones_complement(&frame[26], 8) + protocol +
                               static_cast<std::uint32_t>(length));
}
inline std::uint32_t sum6(const wire::Frame& frame, std::uint8_t protocol)
{
    const std::size_t length = frame.size() - 54;
    return ones_complement(&frame[54], length,
                           ones_complement(&frame[22], 32) + protocol +
                               static_cast<std::uint32_t>(length));
}

inline wire::Frame ethernet(std::uint16_t type, std::size_t bytes)
{
    wire::Frame frame(14 + bytes);
    for (std::uint8_t i = 0; i < 6; ++i) {
        frame[i] = static_cast<std::uint8_t>(0x10 + i);
        frame[6 + i] = static_cast<std::uint8_t>(0x20 + i);
    }
    frame[12] = static_cast<std::uint8_t>(type >> 8);
    frame[13] = static_cast<std::uint8_t>(type);
    return frame;
}

/// A TCP segment 10.0.0.1 -> 10.0.0.2 of `bytes` IP bytes, `number` in its sequence number.
inline wire::Frame tcp4(std::size_t bytes, std::uint8_t number = 0)
{
    wire::Frame frame = ethernet(0x0800, bytes);
    const std::uint8_t ip[] = {0x45,
                               0,
                               static_cast<std::uint8_t>(bytes >> 8),
                               static_cast<std::uint8_t>(bytes),
                               0,
                               0,
                               0x40,
                               0,
                               64,
                               6,
                               0,
                               0,
                               10,
                               0,
                               0,
                               1,
                               10,
                               0,
                               0,
                               2};
    std::copy(std::begin(ip), std::end(ip), frame.begin() + 14);
    frame[34 + 7] = number;
    const std::uint32_t sum = ~sum4(frame, 6);
    frame[34 + 16] = static_cast<std::uint8_t>(sum >> 8);
    frame[34 + 17] = static_cast<std::uint8_t>(sum);
    return frame;
}

/// fd00::1 -> fd00::2
inline wire::Frame tcp6(std::size_t bytes)
{
    wire::Frame frame = ethernet(0x86dd, bytes);
    frame[14] = 0x60;
    frame[18] = static_cast<std::uint8_t>((bytes - 40) >> 8);
    frame[19] = static_cast<std::uint8_t>(bytes - 40);
    frame[20] = 6;
    frame[21] = 64;
    frame[22] = frame[38] = 0xfd;
    frame[37] = 1;
    frame[53] = 2;
    return frame;
}
