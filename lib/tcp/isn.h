// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/seq.h"
#include "lib/tcp/time.h"

#include <array>
#include <cstdint>

namespace devmem::tcp {

/// A connection's name. IPv4 addresses are padded with zeros.
struct FlowName {
    std::array<std::uint8_t, 16> local;
    std::array<std::uint8_t, 16> remote;
    std::uint16_t local_port;
    std::uint16_t remote_port;
};

/// Numbers that a connection starts from and an outsider cannot guess.
class IsnGenerator {
public:
    /// @param secret random, once a process
    explicit IsnGenerator(const std::array<std::uint64_t, 2>& secret) : secret_(secret) {}

    /// ISN = M + F(name, secret), M a 4 µs clock, F SipHash-2-4 (RFC 6528 3).
    Seq isn(const FlowName& flow, Time now) const;
    /// Offset of the timestamps of a connection (RFC 7323 7.1); constant for a name, so that PAWS
    /// holds from one incarnation to the next.
    std::uint32_t timestamp_offset(const FlowName& flow) const;

private:
    std::uint64_t hash(const FlowName& flow) const;

    std::array<std::uint64_t, 2> secret_;
};

/// SipHash-2-4 (Aumasson, Bernstein 2012) of `n` 64-bit words, little-endian.
std::uint64_t siphash(const std::array<std::uint64_t, 2>& key, const std::uint64_t* words,
                      std::size_t n);

} // namespace devmem::tcp
