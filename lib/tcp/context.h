// SPDX-License-Identifier: BSD-3-Clause
// What the shard lends to every call of the engine.
#pragma once

#include "lib/tcp/run_store.h"
#include "lib/tcp/segment.h"
#include "lib/tcp/time.h"

#include <cstdint>

namespace devmem::tcp {

/// Window credit of one payload pool. The shard refreshes `free_bytes` before a burst (free
/// fragments x fragment size, less a reserve for the port, less `promised_bytes`); the engine moves
/// bytes from free to promised as it advertises them, and takes off what arrives. In true size: a
/// fragment counts whole, however few bytes are in it. See RcvWindow.
struct Credit {
    std::int64_t free_bytes = 0;
    std::int64_t promised_bytes = 0; ///< set aside for what connections were told they may send
    std::uint32_t fragment_bytes = 0;

    /// Memory that so many bytes take, `fill` (> 0) of them to a fragment, and the other way round:
    /// rounded down, for up to 2^30 of either.
    std::uint64_t memory_for(std::uint64_t bytes, std::uint16_t fill) const
    {
        return scaled(bytes, ratios(fill).memory);
    }
    std::uint64_t bytes_for(std::uint64_t memory, std::uint16_t fill) const
    {
        return scaled(memory, ratios(fill).bytes);
    }

private:
    /// Times 2^47: with the quotient rounded up, and a product rounded down of at most 2^30, that
    /// is exact for divisors of 16 bits.
    struct Ratios {
        std::uint16_t fill = 0; ///< 0: not known yet
        std::uint64_t memory, bytes;
    };
    static constexpr unsigned kShift = 47;

    static std::uint64_t scaled(std::uint64_t value, std::uint64_t ratio)
    {
        return static_cast<std::uint64_t>(static_cast<__uint128_t>(value) * ratio >> kShift);
    }
    /// Most connections have the fill of the last one: a division saved for each ACK.
    const Ratios& ratios(std::uint16_t fill) const
    {
        if (fill != ratios_.fill) [[unlikely]] {
            const auto ratio = [](std::uint64_t a, std::uint64_t b) {
                return ((a << kShift) + b - 1) / b;
            };
            ratios_ = {fill, ratio(fragment_bytes, fill), ratio(fill, fragment_bytes)};
        }
        return ratios_;
    }
    mutable Ratios ratios_{};
};

/// What a connection cannot do itself.
class Sink {
public:
    /// Send a segment. @return false: no room now; the engine tries again at its next poll().
    virtual bool emit(const SegmentOut& segment) = 0;
    /// The same of an ACK, which is most of what is sent.
    virtual bool emit_ack(const AckOut& ack)
    {
        SegmentOut segment{};
        segment.seq = ack.seq;
        segment.ack = ack.ack;
        segment.window = ack.window;
        segment.flags = kAck;
        segment.options.timestamps = ack.timestamps;
        segment.options.ts_val = ack.timestamps ? ack.ts_val : 0;
        segment.options.ts_ecr = ack.timestamps ? ack.ts_ecr : 0;
        return emit(segment);
    }
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
    std::uint64_t ce_segments = 0; ///< on the wire, with text in the window
    std::uint64_t after_close = 0;
    std::uint64_t ooo_overlap_bytes = 0;
    std::uint64_t no_memory = 0; ///< segments whose fragments the connection may not have
    std::uint64_t reneged = 0;   ///< times a connection gave up text behind a gap
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
    bool ecn = true;                             ///< accepted of a peer that asks; we do not ask
    std::uint32_t rcv_window = 4u << 20;         ///< largest window of a connection
    std::uint32_t rcv_window_initial = 1u << 16; ///< in the SYN-ACK and until it proves too small
    /// Most a connection may hold or have promised, true size, the application's part included; 0:
    /// as much as it leaves free.
    std::uint32_t held_limit_bytes = 0;
    Time silence = 1'000'000; ///< after which lend() takes what waits for the peer
    std::uint32_t send_buffer = 256u << 10;
    Time delayed_ack = 40'000;    ///< RFC 5681 4.2: below 500 ms
    Time rto_initial = 1'000'000; ///< RFC 6298 2.1
    Time rto_min = 200'000;
    Time rto_max = 60'000'000;
    Time time_wait = 60'000'000; ///< 2 MSL; also how long a closed connection waits for a FIN
    unsigned retries_told = 3;   ///< after which the application is told, RFC 9293 3.8.3 R1
    unsigned syn_retries = 7;    ///< 183 s: RFC 9293 3.8.3 asks for 3 minutes
    unsigned retries = 15;       ///< of data and FIN, RFC 9293 3.8.3 R2
};

/// Handed to every call: the shard's share of the state.
struct Context {
    const Config& config;
    RunStore& runs;
    Credit& credit;
    Sink& sink;
    Counters& counters;
};

} // namespace devmem::tcp
