// SPDX-License-Identifier: BSD-3-Clause
// Segments as the engine sees them: no addresses, no checksums, no payload bytes on the way in.
#pragma once

#include "lib/tcp/run.h"
#include "lib/tcp/seq.h"
#include "lib/wire/tcp_options.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace devmem::tcp {

/// Control bits (RFC 9293 3.1).
enum Flags : std::uint8_t {
    kFin = 0x01,
    kSyn = 0x02,
    kRst = 0x04,
    kPsh = 0x08,
    kAck = 0x10,
    kUrg = 0x20,
    kEce = 0x40, ///< RFC 3168 6.1
    kCwr = 0x80,
};

/// What came in. Checksum and header lengths were checked by the caller.
struct Segment {
    Seq seq;
    Seq ack;
    std::uint16_t window; ///< as on the wire, unscaled
    std::uint8_t flags;
    std::uint16_t
        wire_segments; ///< segments on the wire this stands for (a super-frame: several); 1
    std::uint32_t len; ///< payload bytes: the sum over `payload`
    std::span<const Run> payload;
    const wire::TcpOptions* options; ///< never nullptr
    bool ipv6 = false;               ///< means something in a SYN
    std::uint16_t urgent = 0;        ///< pointer, with kUrg
    bool ce = false;                 ///< marked on its way: congestion experienced (RFC 3168 5)
};

/// The MSS that a SYN announces, or has by saying nothing (RFC 9293 3.7.1, MUST-15).
std::uint16_t peer_mss(const Segment& syn);

/// Whether a SYN asks for ECN (RFC 3168 6.1.1).
inline bool asks_ecn(const Segment& syn)
{
    constexpr std::uint8_t kSetup = kEce | kCwr;
    return (syn.flags & kSetup) == kSetup;
}

/// What is to go out.
struct SegmentOut {
    Seq seq;
    Seq ack;
    std::uint16_t window; ///< as on the wire, scaled
    std::uint8_t flags;
    bool ect; ///< may be marked instead of dropped: ECT(0)
    wire::TcpOptions options;
    /// Payload: bytes of host memory, valid during Sink::emit(). In two parts where the send buffer
    /// wraps.
    std::span<const std::byte> payload[2];
};

/// An ACK and nothing else.
struct AckOut {
    Seq seq;
    Seq ack;
    std::uint16_t window; ///< as on the wire, scaled
    bool timestamps;
    std::uint32_t ts_val, ts_ecr;
};

/// The RST that answers a segment for no connection (RFC 9293 3.10.7.1).
/// @return false: none is to be sent (the segment was a RST itself).
bool reset_for(const Segment& segment, SegmentOut* out);

} // namespace devmem::tcp
