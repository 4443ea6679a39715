// SPDX-License-Identifier: BSD-3-Clause
// One direction of the wire, without clock and ports.
#pragma once

#include "test/tools/wire/frame.h"
#include "test/tools/wire/random.h"

#include <cstdint>
#include <map>
#include <vector>

namespace wire {

/// Nanoseconds of a clock of the caller's.
using Time = std::int64_t;

/// The MTU from the TCP packet with this number on.
struct MtuStep {
    std::uint64_t packet = 0;
    std::uint16_t mtu = 0;
};

/// Probabilities are from 0 to 1, and of one packet.
struct Impairments {
    std::uint64_t from = 0; ///< packets with lower numbers fare well: a handshake, say
    double loss = 0;
    /// Gilbert-Elliott: from good to bad, from bad to good, loss while bad.
    double burst_enter = 0, burst_leave = 1, burst_loss = 1;
    double corrupt = 0;
    double duplicate = 0;
    double reorder = 0;
    Time reorder_by = 0; ///< how long a reordered packet is held back
    Time delay = 0;
    Time jitter = 0;          ///< up to so much more delay; order is kept
    double rate = 0;          ///< bytes a second; 0: no bound
    double bucket = 0;        ///< bytes that may go at once after a rest
    double queue = 0;         ///< bytes that may wait for the rate
    std::vector<MtuStep> mtu; ///< ascending; none: no bound. Nothing is ever fragmented
};

/// What happened to frames; all but `frames` and `passed_by` are of TCP packets.
struct Counters {
    std::uint64_t frames = 0;    ///< that came, of any kind
    std::uint64_t passed_by = 0; ///< delayed at most
    std::uint64_t packets = 0;
    std::uint64_t too_big = 0;
    std::uint64_t lost = 0;
    std::uint64_t lost_in_bursts = 0;
    std::uint64_t queue_full = 0;
    std::uint64_t corrupted = 0;
    std::uint64_t duplicated = 0;
    std::uint64_t reordered = 0;
    std::uint64_t delivered = 0; ///< copies included
    std::uint64_t delivered_bytes = 0;
};

/// Frames enter, and leave when their time has come, if at all. What it does to the TCP packet
/// number n depends on seed and n only, but for the queue, which depends on when packets come. All
/// else (ARP, ICMP) is delayed only, so that the start does not depend on luck, and not counted.
///
///     put() -> MTU -> loss -> corruption -> rate, queue -> duplication -> delay -> take()
class Link {
public:
    Link(Impairments impairments, std::uint64_t seed);

    /// @return a frame to be sent back: the MTU is exceeded. Empty: none.
    Frame put(Frame frame, Time now);
    /// When the next frame leaves; INT64_MAX: there is none.
    Time next() const;
    /// The next frame, which next() has found.
    Frame take();

    const Counters& counters() const { return counters_; }

private:
    struct Fate;
    Fate draw();
    void deliver(Frame frame, Time at);
    bool through_queue(std::size_t bytes, Time now, Time* departure);
    std::uint16_t mtu() const;

    const Impairments impairments_;
    const std::uint64_t seed_;
    bool bad_ = false;   ///< state of the Gilbert-Elliott chain
    double free_at_ = 0; ///< when the rate allows the next byte
    Time last_ = 0;      ///< when the last packet in order arrives
    std::multimap<Time, Frame> in_flight_;
    Counters counters_;
};

} // namespace wire
