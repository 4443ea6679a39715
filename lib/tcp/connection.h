// SPDX-License-Identifier: BSD-3-Clause
// The receive engine, one connection: sans-I/O. It knows no clock, no port, no allocator; time and
// memory are arguments, everything it decides comes out as a value or through Sink.
#pragma once

#include "lib/tcp/ack_policy.h"
#include "lib/tcp/congestion.h"
#include "lib/tcp/context.h"
#include "lib/tcp/ooo_store.h"
#include "lib/tcp/rcv_window.h"
#include "lib/tcp/returned.h"
#include "lib/tcp/rtt.h"
#include "lib/tcp/run.h"
#include "lib/tcp/run_queue.h"
#include "lib/tcp/run_store.h"
#include "lib/tcp/sack_list.h"
#include "lib/tcp/segment.h"
#include "lib/tcp/send_buffer.h"
#include "lib/tcp/seq.h"
#include "lib/tcp/time.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace devmem::tcp {

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

/// What process(), poll() and the calls of the application ask of the shard; bits.
enum Actions : std::uint32_t {
    kNothing = 0,
    kPoll = 1u << 0,      ///< call poll() at the end of the burst (something is to be sent)
    kPollNow = 1u << 1,   ///< call poll() before the next segment (an immediate, own ACK)
    kConnected = 1u << 2, ///< the connection reached ESTABLISHED
    kReadable = 1u << 3,  ///< receive queue was empty and is not now, or the end was reached
    kWritable = 1u << 4,  ///< send() had refused bytes and would take some now
    kClosed = 1u << 5,    ///< the connection is over; see error(); the slot may be freed
    kStarved = 1u << 6,   ///< the window is smaller than wanted for want of credit, or because the
                          ///< application holds much: call window_check() when that changes
    kRetrying = 1u << 7,  ///< Config::retries_told retransmissions without an answer (RFC 9293
                          ///< 3.8.3, R1); soft_error() may say why. Again after progress
    kUrgent = 1u << 8,    ///< urgent data is pending where none was, or goes further
};

constexpr Actions operator|(Actions a, Actions b)
{
    return static_cast<Actions>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}
constexpr Actions& operator|=(Actions& a, Actions b)
{
    return a = a | b;
}

/// How long a connection waits for its peer. Zeros: as long as RFC 9293 has it wait.
struct Patience {
    Time keepalive = 0; ///< silence after which the peer is asked whether it is there; 0: never
    Time keepalive_interval = 75'000'000; ///< between unanswered probes
    unsigned keepalive_probes = 9;        ///< unanswered, after which the connection is over
    /// How long data may be unacknowledged (RFC 9293 3.9.1, RFC 5482); 0: Config::retries decides.
    /// A window that is closed is waited for as long as probes of it are answered.
    Time user_timeout = 0;
};

/// What a segment in order reads and writes: two cache lines.
struct HotState {
    Seq rcv_nxt_;
    Seq snd_una_;
    Seq last_ack_sent_; ///< RFC 7323 4.3
    Seq snd_wl1_;
    std::uint32_t ts_recent_;
    std::uint16_t snd_wnd_field_; ///< the peer's window as on the wire
    State state_;
    bool timestamps_ok_;     ///< both sides offered them
    Time ts_recent_time_;    ///< when ts_recent_ was set
    std::uint32_t readable_; ///< bytes; no window is larger than 2^30 (RFC 7323 2.3)
    std::uint32_t ts_offset_;
    RunQueue queue_;
    OooStore ooo_;
    std::uint16_t rcv_mss_; ///< announced
    bool fin_known_;        ///< the peer's FIN arrived, fin_seq_ is its number
    bool fin_reached_;      ///< and RCV.NXT passed it
    bool sack_ok_;
    bool quiet_; ///< ESTABLISHED, and poll() has nothing but ACKs to see to: see poll_quiet()

    alignas(64) RcvWindow window_;
    AckPolicy ack_;
    Time heard_; ///< when the last acceptable segment came
};
static_assert(offsetof(HotState, window_) == 64 && sizeof(HotState) == 128);

/// The rest: handshake, timers, sending.
struct ColdState {
    enum class Timer : std::uint8_t { kNone, kRetransmit, kPersist, kFinWait2, kTimeWait };

    Seq iss_;
    Seq snd_nxt_; ///< next to send; a retransmission timeout takes it back to SND.UNA
    Seq snd_max_; ///< one past the highest sent: the RFC's SND.NXT
    Seq snd_wl2_;
    Seq fin_seq_;
    Seq rcv_up_; ///< if urgent_
    std::uint32_t snd_wnd_;
    std::uint32_t snd_wnd_max_;
    std::uint16_t send_mss_; ///< payload and options
    std::uint8_t snd_scale_;
    bool passive_;
    bool scale_ok_;
    bool fin_queued_; ///< shutdown() was called
    bool fin_acked_;
    bool orphan_;         ///< close() was called
    bool refused_;        ///< send() took less than it was given
    bool retransmit_now_; ///< the segment at SND.UNA counts as lost
    bool rst_pending_;
    bool blocked_; ///< the sink had no room
    bool syn_lost_;
    bool urgent_;   ///< RCV.UP is ahead of what was taken, or was at the last poll()
    bool ecn_ok_;   ///< agreed on (RFC 3168 6.1.1)
    bool ecn_echo_; ///< every ACK has ECE, until a segment with CWR comes
    bool cwr_due_;  ///< the next new data has CWR: we send less

    Timer timer_ = Timer::kNone;
    Time deadline_ = kNever;
    unsigned tries_;  ///< expiries since the peer last answered
    unsigned probes_; ///< of a closed window, in a row

    Patience patience_;
    Time keepalive_deadline_ = kNever;
    unsigned keepalives_; ///< probes sent since anything was heard
    Time probed_;         ///< when the last of them was sent
    Time progress_;       ///< since when what is unacknowledged waits

    Rtt rtt_;
    Time timed_since_ = kNever; ///< a segment is being timed (without timestamps)
    Seq timed_end_;             ///< what acknowledges it
    Time last_data_sent_;
    Congestion congestion_;
    Seq sacked_end_; ///< of the highest block the peer reported
    Time challenge_since_;
    std::uint8_t challenges_;
    int error_;
    int soft_error_; ///< why what is unacknowledged may be so
    SackList sack_;
};

/// One connection. Not thread-safe.
class Connection : private HotState, private ColdState {
public:
    Connection() : HotState{}, ColdState{} {}
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    /// A SYN for a listener: LISTEN -> SYN-RECEIVED. The SYN-ACK goes out at the next poll().
    /// Payload of the SYN is released: the peer sends it again.
    /// @param iss       initial send sequence number (RFC 6528), chosen by the caller
    /// @param mss       MSS to announce
    /// @param send_mss  bound on what we send (path MTU), without options
    /// @param ts_offset added to our timestamps (RFC 7323 7.1)
    /// @param returned  fragments of this connection returned by the application, ever (any thread
    ///                  adds to it); may be nullptr
    Actions open_passive(const Segment& syn, Seq iss, std::uint16_t mss, std::uint16_t send_mss,
                         std::uint32_t ts_offset, const Returned* returned, Time now, Context& ctx);
    /// The ACK that ends a handshake by SYN cookie: -> ESTABLISHED, and what process() does with
    /// it.
    /// @param syn what SynCookies::check() says of the SYN
    Actions open_cookie(const Segment& ack, const wire::TcpOptions& syn, std::uint16_t mss,
                        std::uint16_t send_mss, std::uint32_t ts_offset, const Returned* returned,
                        Time now, Context& ctx);
    /// Active open: CLOSED -> SYN-SENT. The SYN goes out at the next poll().
    Actions open_active(Seq iss, std::uint16_t mss, std::uint16_t send_mss, std::uint32_t ts_offset,
                        const Returned* returned, Time now, Context& ctx);

    /// Whether this connection, in TIME-WAIT, is to make room for the one that `syn` asks for (RFC
    /// 6191 2): nothing of the old one could be taken for the new one's. If so, give_way() ends it,
    /// and the new ISS is to be after sequence_end().
    bool gives_way(const Segment& syn, const Config& config) const;
    Actions give_way(Time now, Context& ctx);
    /// One past the last number sent.
    Seq sequence_end() const { return snd_max_; }

    /// A segment arrives (RFC 9293 3.10.7): header prediction for text in order, the ladder for the
    /// rest. Every fragment of its payload is owned by the engine
    /// from here on: kept, or given to Sink::release().
    Actions process(const Segment& segment, Time now, Context& ctx)
    {
        Actions actions;
        return take_predicted(segment, now, ctx, &actions) ? actions
                                                           : process_any(segment, now, ctx);
    }
    /// The two halves of it, for a caller that has the first inline. @return false: the second is
    /// to be called, nothing has happened
    bool take_predicted(const Segment& segment, Time now, Context& ctx, Actions* actions);
    Actions process_any(const Segment& segment, Time now, Context& ctx);
    /// Run expired timers and send all that is due.
    Actions poll(Time now, Context& ctx)
    {
        return quiet_ ? poll_quiet(now, ctx) : poll_any(now, ctx);
    }
    /// poll() of a connection that is_quiet() where ack_due().
    /// @param sink ctx.sink, by its own class: its emit_ack() may be inline
    template <typename SinkType>
    Actions send_ack(Time now, Context& ctx, SinkType& sink);
    /// When poll() has something to do without further input. kNever if nothing.
    Time next_deadline() const { return quiet_ ? ack_.deadline() : next_of_all_deadlines(); }
    /// Whether poll() would send an ACK.
    bool ack_due() const { return ack_.due(); }
    /// Whether all that poll() would do is to begin the delay of an ACK: rest() does only that.
    bool may_rest(Time now) const { return quiet_ && !ack_.due() && now < ack_.deadline(); }
    void rest(Time now, const Config& config) { ack_.delay(now, config.delayed_ack); }
    /// Whether nothing but ACKs has a deadline.
    bool is_quiet() const { return quiet_; }
    /// Credit or returned fragments may allow a larger window: advance the right edge and ask for
    /// an ACK if the step is worth one (RFC 9293 3.8.6.2.2).
    Actions window_check(Time now, Context& ctx);

    /// Memory is scarce: if nothing has been heard of the peer for Config::silence, give up what is
    /// set aside for it, and text behind a gap, which a sender keeps for this case (RFC 2018 8).
    /// What RCV.NXT has passed stays.
    void lend(Time now, Context& ctx);

    /// Take the next in-order run. The caller owns its fragments. @return false: none.
    bool receive(Run* run, Context& ctx)
    {
        if (!queue_.pop(ctx.runs, run))
            return false;
        readable_ -= run->len;
        return true;
    }
    /// The fragment that the next run begins with, or RunStore::kNone.
    std::uint32_t next_fragment() const { return queue_.front(); }
    /// Bytes that wait in the receive queue.
    std::uint64_t readable_bytes() const { return readable_; }
    /// The peer's FIN was reached in order (the receive queue may still hold bytes).
    bool peer_closed() const { return fin_reached_; }
    /// Bytes from the next one of receive() to RCV.UP, the end of urgent data; 0: none is pending.
    /// Some may be yet to come; what ends the stream ends them.
    std::uint32_t urgent_bytes() const;

    /// Queue bytes; they go out at the next poll(), which the caller is to call. There is no Nagle
    /// delay: a request or a reply comes in one piece. @return bytes taken; 0 the buffer is full
    /// (kWritable follows); -EPIPE; -ENOTCONN; -ENOMEM. The send buffer is allocated by the first
    /// call.
    std::int64_t send(std::span<const std::byte> data, Context& ctx);
    /// CLOSE of RFC 9293 3.10.4: FIN after what is queued. Receiving goes on.
    Actions shutdown(Time now, Context& ctx);
    /// The application is gone: as shutdown(), and data that arrives from now on is refused with a
    /// RST. With unreceived bytes the connection is reset at once (RFC 2525 2.17).
    Actions close(Time now, Context& ctx);
    /// ABORT of RFC 9293 3.10.5: RST, everything released.
    Actions abort(Time now, Context& ctx);
    /// Any time between opening and reset().
    void set_patience(const Patience& patience, Time now);
    /// The next hop does not answer: SYN-SENT fails at once; later states keep trying.
    Actions unreachable(int error, Time now, Context& ctx);
    /// An ICMP error quotes a segment of ours with the number `seq`. It counts only if that is in
    /// flight (RFC 5927 4.1). A hard one ends SYN-SENT; once the peer has answered none ends
    /// anything (RFC 5927 5.2). A connection that times out tells the last one.
    Actions icmp_error(bool hard, Seq seq, int error, Time now, Context& ctx);
    /// Release every fragment still held and forget the send buffer: before the slot is reused.
    void reset(Context& ctx);

    State state() const { return state_; }
    /// 0, or -ECONNRESET, -ETIMEDOUT, -ECONNREFUSED, -EHOSTUNREACH.
    int error() const { return error_; }
    /// What an ICMP error said of what is unacknowledged, or 0.
    int soft_error() const { return soft_error_; }

private:
    /// One call from outside: its time, its context and what it asks for in return.
    struct Call {
        Time now;
        Context& ctx;
        Actions actions = kNothing;
    };
    struct Arrival;

    // connection.cpp: opening and closing
    void open(Seq iss, std::uint16_t mss, std::uint16_t send_mss, std::uint32_t ts_offset,
              const Returned* returned, Context& ctx);
    void take_syn(const Segment& syn, Call& call);
    void establish(const Segment& segment, Call& call);
    void queue_fin(Call& call);
    void enter_closed(int error, Call& call);
    void finish(int error, Call& call);
    void time_out(Call& call);
    void reset_peer(Call& call);
    void release_queue(Context& ctx);
    bool may_receive() const { return state_ >= State::kEstablished && state_ <= State::kFinWait2; }

    // input.cpp: the ladder
    [[gnu::always_inline]] bool predicted(const Segment& segment) const
    {
        return segment.seq == rcv_nxt_ && segment.ack == snd_una_ &&
               state_ == State::kEstablished && (segment.flags & ~kPsh) == kAck &&
               segment.len - 1 < distance(rcv_nxt_, window_.edge()) && ooo_.empty() &&
               segment.window == snd_wnd_field_ && !fin_known_ && !segment.ce &&
               (!timestamps_ok_ ||
                (segment.options->timestamps && Seq(segment.options->ts_val) >= Seq(ts_recent_)));
    }
    void process_syn_sent(Arrival& in);
    bool timestamp_ok(Arrival& in);
    bool sequence_ok(Arrival& in);
    bool no_reset(Arrival& in);
    bool no_syn(Arrival& in);
    bool ack_ok(Arrival& in);
    void take_urgent(Arrival& in);
    void take_text(Arrival& in);
    void take_fin(Arrival& in);
    void repeat_syn_ack(Arrival& in);
    void refuse_sequence(Arrival& in);
    void report_old_text(Arrival& in);
    void note_fin(Arrival& in);
    void note_congestion(Arrival& in);
    void store(Arrival& in);
    void store_in_order(Arrival& in);
    void store_around_gap(Arrival& in);
    void advance(std::uint32_t bytes, Call& call);
    void update_timestamp(const Arrival& in);
    void answer_now(Call& call);
    void challenge(Call& call);

    // send.cpp: what an ACK does to the sending side
    void acknowledged(const Segment& segment, Call& call);
    void acknowledged_new(const Segment& segment, Call& call);
    void fin_acknowledged(Call& call);
    bool echoes_mark(const Segment& segment) const;
    bool duplicate_ack(const Segment& segment) const;
    bool shows_arrival(const Segment& segment);
    void update_send_window(const Segment& segment);
    void sample_rtt(const Segment& segment, const Call& call);
    std::uint32_t smss() const;
    std::uint32_t unsent() const;
    bool fin_unsent() const;

    // output.cpp: what goes out
    Actions poll_quiet(Time now, Context& ctx);
    Actions poll_any(Time now, Context& ctx);
    bool at_rest() const;
    Time next_of_all_deadlines() const;
    void run_timers(Call& call);
    void retransmit_timeout(Call& call);
    void persist_timeout(Call& call);
    void keepalive(Call& call);
    bool out_of_patience(unsigned retries, const Call& call) const;
    void bound_deadline();
    void transmit(Call& call);
    void send_syn(Call& call);
    void send_data(Call& call);
    bool resend_first(Call& call);
    bool send_next(bool forced, Call& call);
    bool send_probe(Call& call);
    std::uint32_t payload_room() const;
    bool send_segment(Seq seq, std::uint8_t flags, std::uint32_t n, Call& call);
    void write_options(std::uint8_t flags, Call& call, wire::TcpOptions* options);
    void send_reset(Call& call);
    static void refuse(Seq seq, Call& call);
    void start_timer(Timer timer, Time delay, Call& call);
    void stop_timer();
    std::uint32_t timestamp(Time now) const;

    SendBuffer buffer_; ///< from SND.UNA on
};

// What a segment in order takes, and the ACK for it.

/// RCV.NXT advances over text.
[[gnu::always_inline]] inline void Connection::advance(std::uint32_t bytes, Call& call)
{
    rcv_nxt_ += bytes;
    readable_ += bytes;
    window_.received(bytes, call.ctx.config);
    call.ctx.counters.payload_bytes += bytes;
}

[[gnu::always_inline]] inline bool Connection::take_predicted(const Segment& segment, Time now,
                                                              Context& ctx, Actions* actions)
{
    if (!predicted(segment)) [[unlikely]]
        return false;
    const std::span<const Run> runs = segment.payload; // one, mostly
    std::uint32_t fragments = runs[0].count;
    for (const Run& run : runs.subspan(1))
        fragments += run.count;
    if (!window_.keep(fragments, segment.len, ctx.config, ctx.credit)) [[unlikely]]
        return false;
    Call call{now, ctx, kPoll};
    if (timestamps_ok_ && segment.seq <= last_ack_sent_) {
        ts_recent_ = segment.options->ts_val;
        ts_recent_time_ = now;
    }
    snd_wl1_ = segment.seq;
    heard_ = now;
    if (queue_.empty())
        call.actions |= kReadable;
    queue_.append(ctx.runs, runs[0]);
    for (const Run& run : runs.subspan(1))
        queue_.append(ctx.runs, run);
    advance(segment.len, call);
    ack_.in_order(segment.wire_segments);
    *actions = call.actions;
    return true;
}

/// Text arrives and nothing else happens: what poll_any() comes to then, without looking at what
/// has not changed since it last found all of that at rest.
inline Actions Connection::poll_quiet(Time now, Context& ctx)
{
    ack_.expire(now);
    if (ack_.due())
        return send_ack(now, ctx, ctx.sink);
    rest(now, ctx.config);
    return kNothing;
}

template <typename SinkType>
inline Actions Connection::send_ack(Time now, Context& ctx, SinkType& sink)
{
    Actions actions = kNothing;
    if (window_.announce_in_ack(rcv_nxt_, rcv_mss_, ctx.config, ctx.credit)) [[unlikely]] {
        ctx.counters.window_limited++;
        actions |= kStarved;
    }
    if (!sink.emit_ack({snd_una_, rcv_nxt_, window_.field(rcv_nxt_, false), timestamps_ok_,
                        timestamp(now), ts_recent_})) [[unlikely]] {
        quiet_ = false;
        blocked_ = true;
        return actions | kPoll;
    }
    ctx.counters.pure_acks++;
    last_ack_sent_ = rcv_nxt_;
    ack_.sent();
    return actions;
}

} // namespace devmem::tcp
