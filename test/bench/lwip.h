// SPDX-License-Identifier: BSD-3-Clause
// The peer of `rx`: lwIP as it is packaged, driven by the same traffic.
#pragma once

#include "test/bench/traffic.h"

#include <cstdint>
#include <memory>

namespace bench {

/// nullptr: the bench was built without lwIP, and none of what follows works.
const char* lwip_version();

/// A receiver of `load` behind lwIP's raw API, all connections established.
///
/// Everything happens in the caller's thread, always the same one: frames go into netif->input,
/// and timers are looked at once per receive(). lwIP has no thread here (lwip_init(), not
/// tcpip_init()), so its core lock has nobody to keep out and is never taken; the locks of its
/// allocators are, as it is built. Its lists are global, so there is one Lwip at a time.
class Lwip {
public:
    /// Throws std::runtime_error.
    explicit Lwip(const Load& load);
    ~Lwip();

    /// Receive the next `segments` of the traffic in bursts of 32. All is delivered and its window
    /// reopened within the call, except what waits for a late segment.
    /// @param wire_cycles TSC cycles that went into writing headers are added to it
    /// @return false if bytes are missing
    bool receive(unsigned segments, std::uint64_t* wire_cycles);

    /// Payload bytes, of all connections.
    std::uint64_t delivered() const;

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

/// TSC cycles that lwIP takes to verify the checksums of one segment without options, IPv4 header
/// included, in memory as warm as receive() has it. Throws std::runtime_error.
double lwip_checksum_cycles(std::uint32_t payload, double seconds);

} // namespace bench
