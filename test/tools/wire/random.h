// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace wire {

/// The numbers that decide the fate of one packet: a function of seed and packet number alone, so
/// that the fate of a packet does not depend on how many numbers earlier ones took, nor on time.
class Random {
public:
    Random(std::uint64_t seed, std::uint64_t packet) : state_(mix(mix(seed) ^ packet)) {}

    std::uint64_t next() { return mix(state_++); }
    /// In [0, 1).
    double fraction() { return static_cast<double>(next() >> 11) * 0x1p-53; }

private:
    /// The finaliser of splitmix64.
    static std::uint64_t mix(std::uint64_t z)
    {
        z += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

    std::uint64_t state_;
};

} // namespace wire
