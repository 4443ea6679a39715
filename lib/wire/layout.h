// SPDX-License-Identifier: BSD-3-Clause
// Numbers of the headers that more than one file here needs.
#pragma once

#include <cstdint>

namespace devmem::wire {

inline constexpr std::uint32_t kEthernetBytes = 14;
inline constexpr std::uint32_t kIpv4Bytes = 20; ///< without options
inline constexpr std::uint32_t kIpv6Bytes = 40; ///< without extension headers
inline constexpr std::uint32_t kTcpBytes = 20;  ///< without options
inline constexpr std::uint32_t kIcmpBytes = 8;  ///< the fixed part of every message, v4 and v6
inline constexpr std::uint32_t kArpBytes = 28;  ///< IPv4 on Ethernet

inline constexpr std::uint16_t kEthertypeIpv4 = 0x0800;
inline constexpr std::uint16_t kEthertypeArp = 0x0806;
inline constexpr std::uint16_t kEthertypeVlan = 0x8100;
inline constexpr std::uint16_t kEthertypeIpv6 = 0x86dd;
inline constexpr std::uint16_t kEthertypeServiceVlan = 0x88a8;

inline constexpr std::uint8_t kProtocolIcmp4 = 1;
inline constexpr std::uint8_t kProtocolTcp = 6;
inline constexpr std::uint8_t kProtocolIcmp6 = 58;

/// More-fragments flag and fragment offset of IPv4: any of them set is a fragment.
inline constexpr std::uint16_t kIpv4FragmentMask = 0x3fff;
inline constexpr std::uint16_t kIpv4OffsetMask = 0x1fff;

} // namespace devmem::wire
