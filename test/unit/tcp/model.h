// SPDX-License-Identifier: BSD-3-Clause
// A whole connection under a hostile peer, a wire that loses, delays and repeats, and an
// application that keeps what it gets: a list of events, and what must hold after each. No
// GoogleTest in it, so that a fuzzer can write such lists too.
//
// Nothing here knows how the engine does it. The model sees what a peer, a port and an application
// see: segments, fragments, tokens.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace devmem::tcp::model {

/// Each means something whatever came before it, so that any event can be left out. `how`, `x` and
/// `y` are read as said here; `here` is a place in the peer's stream, see Place.
enum class Kind : std::uint8_t {
    kText,        ///< y & 2047 bytes at here + x (signed); how: see How; y & 0xc000: see Marks
    kNext,        ///< 1 + (x & 7) segments of y & 2047 bytes, in order; marks likewise
    kArrive,      ///< delayed segment x arrives; how & 1: and once more later
    kLose,        ///< delayed segment x is lost
    kAck,         ///< no text: acknowledges what how & 3 says (Acks), its window is y; how & 4: ECE
    kControl,     ///< flags how at here (y & 3) + x (signed), acknowledges (y >> 2 & 3), urgent: y
    kTime,        ///< x << (how & 15) microseconds pass
    kReceive,     ///< the application takes x & 63 runs
    kReturn,      ///< and returns 1 + (x & 63) tokens; how & 1: the last first
    kSend,        ///< and writes x & 8191 bytes
    kShutdown,    ///< and will write no more
    kClose,       ///< and goes
    kAbort,       ///< or goes with a bang
    kSink,        ///< how & 1: there is no room for what is sent; or there is again
    kOthers,      ///< x & 255 fragments are in the hands of other connections from now on
    kUnreachable, ///< ICMP says so
    kReopen,      ///< the slot is used for another connection
    kLend,        ///< others want memory
    kKinds,
};

/// How a segment is (kText and kNext).
enum How : std::uint8_t {
    kPlaceMask = 3, ///< kText: Place
    kObeys = 1,     ///< kNext: the sender keeps to the window
    kWithFin = 4,   ///< the last byte is followed by a FIN
    kDelayed = 8,   ///< it is on its way until kArrive
    kLayoutMask =
        0x30, ///< how it lies in memory: whole fragments, an offset, scattered, little in each
    kInHost = 0x40,   ///< in host memory
    kOldClock = 0x80, ///< its timestamp is of before; kText with x odd: it has none
};

/// What else text has, of ECN.
enum Marks : std::uint16_t { kHasCwr = 0x4000, kHasCe = 0x8000 };

enum class Place : std::uint8_t { kNext, kEdge, kCursor, kFar };
enum class Acks : std::uint8_t { kAll, kSome, kUnsent, kOld };

struct Event {
    Kind kind;
    std::uint8_t how;
    std::uint16_t x, y;
    bool operator==(const Event&) const = default;
};

/// How the connection is set up.
struct Setup {
    enum Options : std::uint8_t {
        kNoTimestamps = 1,
        kNoSack = 2,
        kNoScale = 4,
        kPeerNoTimestamps = 8,
        kPeerNoSack = 16,
        kPeerNoScale = 32,
        kActive = 64,    ///< we connect
        kHalfOpen = 128, ///< the handshake is left to the events
    };
    std::uint8_t options = 0;
    /// Bits 0-1: of the pool, 2-3: of the window, 4-5: what may be held; 6: no ECN.
    std::uint8_t sizes = 0;
    std::uint8_t peer = 0; ///< bits 0-3: window scale, 4-5: MSS; 6: it asks for ECN
    std::uint8_t wrap = 0; ///< 64-byte steps to the wrap of both sequence spaces; 0: far away
    std::uint16_t window = 65535; ///< of the peer, kAck apart
    bool operator==(const Setup&) const = default;
};

struct Scenario {
    Setup setup;
    std::vector<Event> events;
};

inline constexpr std::size_t kRecordBytes = 6;

/// A scenario as bytes and back: the setup, then the events, kRecordBytes each. Any bytes are a
/// scenario.
std::vector<std::uint8_t> encode(const Scenario& scenario);
Scenario decode(std::span<const std::uint8_t> bytes);
/// What was executed, in all scenarios of this process: says whether random events get anywhere.
struct Coverage {
    std::uint64_t scenarios, events, segments, delivered, out_of_order, sacked, closed, finished,
        urgent;
};
extern Coverage coverage;

/// Play it, and in the end let an honest peer finish the stream. @return empty, or what did not
/// hold and after which event.
std::string run(const Scenario& scenario);
/// The fewest and simplest events that break the same rule as a scenario that breaks one.
Scenario shrink(const Scenario& scenario);
/// What breaks, a line an event, and a command line that plays it again.
std::string report(const Scenario& scenario);

} // namespace devmem::tcp::model
