// SPDX-License-Identifier: BSD-3-Clause
// The receive engine, one connection: sans-I/O. It knows no clock, no port, no allocator; time and
// memory are arguments, everything it decides comes out as a value or through Sink.
#pragma once

#include "lib/tcp/run.h"
#include "lib/tcp/run_store.h"
#include "lib/tcp/seq.h"
#include "lib/wire/tcp_options.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace devmem::tcp {

/// Microseconds on a monotonic clock.
using Time = std::uint64_t;
inline constexpr Time kNever = UINT64_MAX;

/// Control bits (RFC 9293 3.1).
enum Flags : std::uint8_t {
    kFin = 0x01,
    kSyn = 0x02,
    kRst = 0x04,
    kPsh = 0x08,
    kAck = 0x10,
    kUrg = 0x20,
};

/// States of RFC 9293 3.3.2; LISTEN is the shard's.
enum class State : std::uint8_t {
    kClosed,
    kSynSent,
    kSynReceived,
    kEstablished,
    kFinWait1,
    kFinWait2,
    kCloseWait,
    kClosing,
    kLastAck,
    kTimeWait,
};

/// What came in. Checksum and header lengths were checked by the caller.
struct Segment {
    Seq seq;
    Seq ack;
    std::uint16_t window; ///< as on the wire, unscaled
    std::uint8_t flags;
    std::uint16_t wire_segments; ///< segments on the wire this stands for (a super-frame: several); 1
    std::uint32_t len;           ///< payload bytes: the sum over `payload`
    std::span<const Run> payload;
    const wire::TcpOptions* options; ///< never nullptr
};

/// What is to go out.
struct SegmentOut {
    Seq seq;
    Seq ack;
    std::uint16_t window; ///< as on the wire, scaled
    std::uint8_t flags;
    wire::TcpOptions options;
    /// Payload: bytes of host memory, valid during Sink::emit(). In two parts where the send buffer
    /// wraps.
    std::span<const std::byte> payload[2];
};

/// Window credit of one payload pool. The shard refreshes `free_bytes` before a burst (free
/// fragments x fragment size, less a reserve for the port, less `promised_bytes`); the engine moves
/// bytes from free to promised as it advertises them and back as they arrive.
struct Credit {
    std::int64_t free_bytes = 0;
    std::int64_t promised_bytes = 0; ///< sum over connections of right edge - RCV.NXT
    std::uint32_t fragment_bytes = 0;
};

/// What a connection cannot do itself.
class Sink {
public:
    /// Send a segment. @return false: no room now; the engine tries again at its next poll().
    virtual bool emit(const SegmentOut& segment) = 0;
    /// Fragments of which no byte is wanted any more (duplicates, trimmed parts, data after close).
    virtual void release(std::uint32_t first, std::uint32_t count) = 0;

protected:
    ~Sink() = default;
};

/// What the engine counts. The shard adds them to its statistics.
struct Counters {
    std::uint64_t ooo_segments = 0;
    std::uint64_t duplicate_bytes = 0;
    std::uint64_t out_of_window = 0;
    std::uint64_t paws = 0;
    std::uint64_t after_close = 0;
    std::uint64_t ooo_overlap_bytes = 0;
    std::uint64_t retransmits = 0;
    std::uint64_t pure_acks = 0;
    std::uint64_t window_limited = 0;
    std::uint64_t payload_bytes = 0; ///< delivered in order to a receive queue
};

/// Constants of a shard.
struct Config {
    bool timestamps = true;
    bool sack = true;
    bool window_scale = true;
    std::uint32_t rcv_window = 4u << 20;      ///< largest window of a connection
    std::uint32_t rcv_window_initial = 1u << 16; ///< in the SYN-ACK and until it proves too small
    std::uint32_t held_limit_bytes = 0;       ///< most a connection may hold, true size; 0: no limit
    std::uint32_t send_buffer = 256u << 10;
    Time delayed_ack = 40'000;                ///< RFC 5681 4.2: below 500 ms
    Time rto_initial = 1'000'000;             ///< RFC 6298 2.1
    Time rto_min = 200'000;
    Time rto_max = 60'000'000;
    Time time_wait = 60'000'000;              ///< 2 MSL
    unsigned syn_retries = 6;
    unsigned retries = 15;                    ///< of data and FIN, RFC 9293 3.8.3 R2
};

/// Handed to every call: the shard's share of the state.
struct Context {
    const Config& config;
    RunStore& runs;
    Credit& credit;
    Sink& sink;
    Counters& counters;
};

/// What process(), poll() and the calls of the application ask of the shard; bits.
enum Actions : std::uint32_t {
    kNothing = 0,
    kPoll = 1u << 0,        ///< call poll() at the end of the burst (something is to be sent)
    kPollNow = 1u << 1,     ///< call poll() before the next segment (an immediate, own ACK)
    kConnected = 1u << 2,   ///< the connection reached ESTABLISHED
    kReadable = 1u << 3,    ///< receive queue was empty and is not now, or the end was reached
    kWritable = 1u << 4,    ///< send() had refused bytes and would take some now
    kClosed = 1u << 5,      ///< the connection is over; see error(); the slot may be freed
    kStarved = 1u << 6,     ///< the window is smaller than wanted for want of credit: call
                            ///< window_check() when credit comes back
};

/// One connection.
class Connection {
public:
    Connection() = default;
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    /// A SYN for a listener: LISTEN -> SYN-RECEIVED. The SYN-ACK goes out at the next poll().
    /// @param iss       initial send sequence number (RFC 6528), chosen by the caller
    /// @param mss       MSS to announce
    /// @param send_mss  bound on what we send (path MTU), without options
    /// @param ts_offset added to our timestamps (RFC 7323 7.1)
    /// @param returned  fragments of this connection returned by the application, ever (any thread
    ///                  adds to it); may be nullptr
    Actions open_passive(const Segment& syn, Seq iss, std::uint16_t mss, std::uint16_t send_mss,
                         std::uint32_t ts_offset, const std::atomic<std::uint32_t>* returned,
                         Time now, Context& ctx);
    /// Active open: CLOSED -> SYN-SENT. The SYN goes out at the next poll().
    Actions open_active(Seq iss, std::uint16_t mss, std::uint16_t send_mss, std::uint32_t ts_offset,
                        const std::atomic<std::uint32_t>* returned, Time now, Context& ctx);

    /// A segment arrives (RFC 9293 3.10.7). Every fragment of its payload is owned by the engine
    /// from here on: kept, or given to Sink::release().
    Actions process(const Segment& segment, Time now, Context& ctx);
    /// Run expired timers and send all that is due.
    Actions poll(Time now, Context& ctx);
    /// When poll() has something to do without further input. kNever if nothing.
    Time next_deadline() const;
    /// Credit or returned fragments may allow a larger window: advance the right edge and ask for an
    /// ACK if the step is worth one (RFC 9293 3.8.6.2.2).
    Actions window_check(Time now, Context& ctx);

    /// Take the next in-order run. The caller owns its fragments. @return false: none.
    bool receive(Run* run, Context& ctx);
    /// Bytes that wait in the receive queue.
    std::uint64_t readable_bytes() const;
    /// The peer's FIN was reached in order (the receive queue may still hold bytes).
    bool peer_closed() const;

    /// Queue bytes. @return bytes taken; 0 the buffer is full (kWritable follows); -EPIPE; -ENOTCONN;
    /// -ENOMEM. The send buffer is allocated by the first call.
    std::int64_t send(std::span<const std::byte> data, Context& ctx);
    /// CLOSE of RFC 9293 3.10.4: FIN after what is queued. Receiving goes on.
    Actions shutdown(Time now, Context& ctx);
    /// The application is gone: as shutdown(), and data that arrives from now on is refused with a
    /// RST. With unreceived bytes the connection is reset at once (RFC 2525 2.17).
    Actions close(Time now, Context& ctx);
    /// ABORT of RFC 9293 3.10.5: RST, everything released.
    Actions abort(Time now, Context& ctx);
    /// The network reports the peer cannot be reached. SYN-SENT fails at once (RFC 9293 3.9.2.2);
    /// later states keep trying.
    Actions unreachable(int error, Time now, Context& ctx);
    /// Release every fragment still held and forget the send buffer: before the slot is reused.
    void reset(Context& ctx);

    State state() const;
    /// 0, or -ECONNRESET, -ETIMEDOUT, -ECONNREFUSED, -EHOSTUNREACH.
    int error() const;
};

/// The RST that answers a segment for no connection (RFC 9293 3.10.7.1).
/// @return false: none is to be sent (the segment was a RST itself).
bool reset_for(const Segment& segment, SegmentOut* out);

} // namespace devmem::tcp
