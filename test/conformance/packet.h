// SPDX-License-Identifier: BSD-3-Clause
// TCP segments as scripts name them, and as they are on the wire. The codec is this folder's own:
// what it writes is checked by lib/wire, and the other way round.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace devmem::conformance {

enum Flag : std::uint8_t {
    kFin = 0x01,
    kSyn = 0x02,
    kRst = 0x04,
    kPsh = 0x08,
    kAck = 0x10,
    kUrg = 0x20,
    kEce = 0x40,
    kCwr = 0x80,
};

enum OptionKind : std::uint8_t {
    kEol = 0,
    kNop = 1,
    kMss = 2,
    kWindowScale = 3,
    kSackPermitted = 4,
    kSack = 5,
    kTimestamps = 8,
};

/// One option as on the wire: kind, length, value.
using Option = std::vector<std::uint8_t>;

/// A segment. In a script numbers are relative to the first SYN's; on the wire they are not.
struct Packet {
    std::uint8_t flags = 0;
    std::uint8_t ecn = 0; ///< of the IP header, RFC 3168 5
    std::uint32_t seq = 0;
    std::uint32_t len = 0; ///< payload bytes
    std::uint32_t ack = 0;
    std::optional<std::uint16_t> window; ///< as on the wire; in a script, absent: any
    std::uint16_t urgent = 0;
    std::vector<Option> options;
    bool any_options = false; ///< a script's `<...>`
    std::vector<std::uint8_t> payload;
    std::string icmp; ///< not empty: an ICMP error of this name instead, about ours of seq and len
};

/// Codepoints of the ECN field by their names; the first is not written.
inline constexpr std::array<std::string_view, 4> kEcnNames{"noecn", "ect1", "ect0", "ce"};

/// Whether there is such an error.
bool is_icmp(const std::string& name);

/// As a script would write it.
std::string to_string(const Packet& packet);

using Address = std::array<std::uint8_t, 16>; ///< IPv4 in the first four bytes

/// Both ends. `local` is the side under test.
struct Endpoints {
    unsigned family; ///< 4 or 6
    Address local, remote;
    std::uint16_t local_port, remote_port;
};

/// A packet from the remote end, IP header first, checksums valid.
std::vector<std::uint8_t> encode(const Packet& packet, const Endpoints& ends);
/// A packet of the local end, whatever its port. @param error receives what is wrong with it
/// @return nothing: malformed (`*error` says how), or not TCP between the two (`*error` is empty)
std::optional<Packet> decode(std::span<const std::uint8_t> bytes, const Endpoints& ends,
                             std::uint16_t* local_port, std::string* error);

/// Big-endian fields of options.
std::uint32_t load32(const std::uint8_t* p);
void store32(std::uint8_t* p, std::uint32_t value);

} // namespace devmem::conformance
