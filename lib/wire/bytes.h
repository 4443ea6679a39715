// SPDX-License-Identifier: BSD-3-Clause
// Loads and stores of network-order integers at any alignment.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace devmem::wire {

inline std::uint16_t load16(const std::uint8_t* p)
{
    std::uint16_t value;
    std::memcpy(&value, p, sizeof value);
    return std::endian::native == std::endian::little ? __builtin_bswap16(value) : value;
}

inline std::uint32_t load32(const std::uint8_t* p)
{
    std::uint32_t value;
    std::memcpy(&value, p, sizeof value);
    return std::endian::native == std::endian::little ? __builtin_bswap32(value) : value;
}

inline void store16(std::uint8_t* p, std::uint16_t value)
{
    if constexpr (std::endian::native == std::endian::little)
        value = __builtin_bswap16(value);
    std::memcpy(p, &value, sizeof value);
}

inline void store32(std::uint8_t* p, std::uint32_t value)
{
    if constexpr (std::endian::native == std::endian::little)
        value = __builtin_bswap32(value);
    std::memcpy(p, &value, sizeof value);
}

} // namespace devmem::wire
