// SPDX-License-Identifier: BSD-3-Clause
// Timers, and what goes out.
#include "lib/tcp/connection.h"

#include <algorithm>
#include <cerrno>

namespace devmem::tcp {

/// Nothing is to be sent, unacknowledged, or to be asked of the peer; neither block nor congestion
/// is to be reported; RCV.UP need not be kept up.
bool Connection::at_rest() const
{
    return state_ == State::kEstablished && snd_una_ == snd_max_ && buffer_.size() == 0 &&
           timer_ == Timer::kNone && keepalive_deadline_ == kNever && !fin_queued_ && !blocked_ &&
           !retransmit_now_ && !urgent_ && !ecn_echo_ && sack_.empty(ooo_);
}

Time Connection::next_of_all_deadlines() const
{
    return blocked_ ? 0 : std::min({deadline_, ack_.deadline(), keepalive_deadline_});
}

Actions Connection::poll_any(Time now, Context& ctx)
{
    Call call{now, ctx};
    blocked_ = false;
    run_timers(call);
    if (state_ != State::kClosed)
        transmit(call);
    else if (rst_pending_)
        send_reset(call);
    urgent_ = urgent_bytes() != 0; // left behind, RCV.UP would seem to lie ahead some day
    quiet_ = at_rest();
    return call.actions;
}

void Connection::run_timers(Call& call)
{
    ack_.expire(call.now);
    if (call.now >= keepalive_deadline_)
        keepalive(call);
    if (call.now < deadline_)
        return;
    switch (timer_) {
    case Timer::kRetransmit:
        retransmit_timeout(call);
        break;
    case Timer::kPersist:
        persist_timeout(call);
        break;
    case Timer::kFinWait2:
    case Timer::kTimeWait:
        finish(0, call);
        break;
    case Timer::kNone:
        break;
    }
}

/// The peer has been silent (RFC 9293 3.8.4): ask with a number it has acknowledged, which it must
/// answer. While something is unacknowledged or a window closed, other timers ask (RFC 1122
/// 4.2.3.6).
void Connection::keepalive(Call& call)
{
    const bool idle =
        state_ == State::kEstablished || state_ == State::kFinWait2 || state_ == State::kCloseWait;
    if (heard_ >= probed_)
        keepalives_ = 0; // answered
    const Time due =
        keepalives_ == 0 ? heard_ + patience_.keepalive : probed_ + patience_.keepalive_interval;
    if (!idle || snd_una_ != snd_max_ || timer_ == Timer::kPersist || call.now < due) {
        keepalive_deadline_ = call.now < due ? due : call.now + patience_.keepalive;
        return;
    }
    if (keepalives_ >= patience_.keepalive_probes) {
        time_out(call);
        return;
    }
    if (!send_segment(snd_una_ - 1, kAck, 0, call))
        return; // the timer stays expired
    keepalives_++;
    probed_ = call.now;
    keepalive_deadline_ = call.now + std::min(patience_.keepalive, patience_.keepalive_interval);
}

/// Whether to give up after another expiry (RFC 9293 3.8.3, R2, or 3.10.8).
bool Connection::out_of_patience(unsigned retries, const Call& call) const
{
    return patience_.user_timeout != 0 ? call.now - progress_ >= patience_.user_timeout
                                       : tries_ >= retries;
}

/// The user timeout is kept to, however far apart tries are.
void Connection::bound_deadline()
{
    if (patience_.user_timeout != 0 && (timer_ == Timer::kRetransmit || timer_ == Timer::kPersist))
        deadline_ = std::min(deadline_, progress_ + patience_.user_timeout);
}

/// RFC 6298 5.4 to 5.7: go back to the first unacknowledged byte, or to the SYN.
void Connection::retransmit_timeout(Call& call)
{
    const Config& config = call.ctx.config;
    const bool syn = state_ <= State::kSynReceived;
    if (out_of_patience(syn ? config.syn_retries : config.retries, call)) {
        time_out(call);
        return;
    }
    if (++tries_ == config.retries_told)
        call.actions |= kRetrying;
    rtt_.back_off(config);
    if (syn) {
        syn_lost_ = true;
    } else {
        congestion_.timed_out(snd_max_, distance(snd_una_, snd_max_), tries_ > 1);
        cwr_due_ = ecn_ok_;
    }
    snd_nxt_ = snd_una_;
    timed_since_ = kNever;
    retransmit_now_ = false;
    stop_timer(); // what is sent again starts it
}

/// The window is too small, or closed: send what there is room for, or a probe (RFC 9293 3.8.6.1).
void Connection::persist_timeout(Call& call)
{
    const Config& config = call.ctx.config;
    if (out_of_patience(config.retries, call)) {
        time_out(call);
        return;
    }
    if (send_next(true, call))
        return;
    const bool probed = !blocked_ && send_probe(call);
    if (blocked_)
        return; // the timer stays expired
    stop_timer();
    if (probed) {
        if (tries_++ == config.retries_told) // the first probe was no retransmission
            call.actions |= kRetrying;
        probes_++;
        start_timer(Timer::kPersist, std::min(rtt_.rto() << std::min(probes_, 16u), config.rto_max),
                    call);
    }
}

void Connection::transmit(Call& call)
{
    if (state_ <= State::kSynReceived) {
        if (snd_nxt_ == iss_)
            send_syn(call);
    } else {
        send_data(call);
    }
    if (blocked_ || state_ == State::kSynSent)
        return;
    if (!ack_.due())
        ack_.delay(call.now, call.ctx.config.delayed_ack);
    else if (send_segment(timer_ == Timer::kPersist ? snd_nxt_ : snd_max_, kAck, 0, call))
        call.ctx.counters.pure_acks++;
}

void Connection::send_syn(Call& call)
{
    const bool again = snd_max_ != iss_;
    const std::uint8_t flags = state_ == State::kSynSent ? kSyn : kSyn | kAck;
    if (!send_segment(iss_, flags, 0, call))
        return;
    snd_nxt_ = snd_max_ = iss_ + 1;
    if (again) {
        call.ctx.counters.retransmits++;
        timed_since_ = kNever;
    } else {
        timed_since_ = call.now;
        timed_end_ = snd_max_;
    }
    if (timer_ == Timer::kNone)
        start_timer(Timer::kRetransmit, rtt_.rto(), call);
}

void Connection::send_data(Call& call)
{
    if (snd_una_ == snd_max_ && call.now - last_data_sent_ > rtt_.rto())
        congestion_.idle();
    if (retransmit_now_ && !resend_first(call))
        return;
    while (send_next(false, call))
        ;
    // Held back with nothing in flight whose ACK would say more: ask.
    if (!blocked_ && timer_ == Timer::kNone && snd_nxt_ == snd_una_ &&
        (unsent() != 0 || fin_unsent())) {
        progress_ = call.now;
        start_timer(Timer::kPersist, rtt_.rto(), call);
    }
}

/// Payload of a segment; SACK blocks, which are rare beside data, are allowed for at their most.
std::uint32_t Connection::payload_room() const
{
    const std::uint32_t sack = !sack_ok_ || sack_.empty(ooo_) ? 0 : (timestamps_ok_ ? 28 : 36);
    return smss() - sack;
}

/// Fast retransmit.
bool Connection::resend_first(Call& call)
{
    const std::uint32_t flight = distance(snd_una_, snd_max_);
    const std::uint32_t n = std::min({flight, buffer_.size(), payload_room()});
    const bool fin = n < flight && n == buffer_.size(); // the FIN was sent and follows these bytes
    const auto flags = static_cast<std::uint8_t>(kAck | (fin ? kFin : 0));
    if (!send_segment(snd_una_, flags, n, call))
        return false;
    call.ctx.counters.retransmits++;
    timed_since_ = kNever;
    retransmit_now_ = false;
    start_timer(Timer::kRetransmit, rtt_.rto(), call);
    return true;
}

/// Send the segment at snd_nxt_ if the windows allow it and it is worth sending (RFC 9293
/// 3.8.6.2.1, without Nagle's condition). @param forced worth sending whatever its size
bool Connection::send_next(bool forced, Call& call)
{
    const std::uint32_t waiting = unsent();
    const bool fin_waits = fin_unsent();
    if (waiting == 0 && !fin_waits)
        return false;
    const std::uint32_t sent = distance(snd_una_, snd_nxt_);
    const std::uint32_t congestion = congestion_.window() - std::min(sent, congestion_.window());
    const std::uint32_t window = snd_wnd_ - std::min(sent, snd_wnd_);
    const std::uint32_t most = payload_room();
    const std::uint32_t n = std::min({waiting, most, congestion, window});
    const bool last = n == waiting;
    const bool fin = fin_waits && last && n < window;
    if (n == 0 && !fin)
        return false;
    if (!last && n != most && n < snd_wnd_max_ / 2 && !forced)
        return false;

    const auto flags =
        static_cast<std::uint8_t>(kAck | (last && n != 0 ? kPsh : 0) | (fin ? kFin : 0));
    if (!send_segment(snd_nxt_, flags, n, call))
        return false;
    const bool again = snd_nxt_ < snd_max_;
    snd_nxt_ += n + (fin ? 1 : 0);
    if (again) {
        call.ctx.counters.retransmits++;
    } else if (timed_since_ == kNever) {
        timed_since_ = call.now;
        timed_end_ = snd_nxt_;
    }
    if (snd_una_ == snd_max_)
        progress_ = call.now;
    snd_max_ = max(snd_max_, snd_nxt_);
    last_data_sent_ = call.now;
    if (timer_ != Timer::kRetransmit)
        start_timer(Timer::kRetransmit, rtt_.rto(), call);
    return true;
}

/// One byte, or the FIN, beyond a closed window. snd_nxt_ stays: it is sent properly when there is
/// room.
bool Connection::send_probe(Call& call)
{
    const std::uint32_t n = std::min(unsent(), 1u);
    if (n == 0 && !fin_unsent())
        return false;
    if (!send_segment(snd_nxt_, static_cast<std::uint8_t>(kAck | (n == 0 ? kFin : 0)), n, call))
        return false;
    snd_max_ = max(snd_max_, snd_nxt_ + 1);
    return true;
}

/// @param n payload bytes, those of the send buffer at `seq`
bool Connection::send_segment(Seq seq, std::uint8_t flags, std::uint32_t n, Call& call)
{
    const Context& ctx = call.ctx;
    const bool syn = flags & kSyn;
    const RcvWindow::Grant grant =
        window_.announce(rcv_nxt_, rcv_mss_, syn, ctx.config, ctx.credit);
    if (grant.starved) {
        ctx.counters.window_limited++;
        call.actions |= kStarved;
    }
    SegmentOut out{};
    out.seq = seq;
    out.ack = flags & kAck ? rcv_nxt_ : Seq(0);
    out.window = window_.field(rcv_nxt_, syn);
    out.flags = flags;
    if (syn ? ecn_ok_ : ecn_echo_)
        out.flags |= kEce;
    // New data, and neither what is sent again (RFC 3168 6.1.5) nor what asks for a window (6.1.6).
    out.ect = ecn_ok_ && n != 0 && seq == snd_max_ && timer_ != Timer::kPersist;
    if (out.ect && cwr_due_)
        out.flags |= kCwr;
    write_options(flags, call, &out.options);
    buffer_.view(distance(snd_una_, seq), n, out.payload);
    if (!ctx.sink.emit(out)) {
        blocked_ = true;
        call.actions |= kPoll;
        return false;
    }
    cwr_due_ = cwr_due_ && !out.ect;
    if (flags & kAck) {
        last_ack_sent_ = rcv_nxt_;
        ack_.sent();
        sack_.sent();
    }
    return true;
}

void Connection::write_options(std::uint8_t flags, Call& call, wire::TcpOptions* options)
{
    const Config& config = call.ctx.config;
    const bool syn = flags & kSyn;
    const bool offer = syn && !(flags & kAck); // otherwise what the peer offered as well
    if (syn) {
        options->mss = rcv_mss_;
        options->sack_permitted = offer ? config.sack : sack_ok_;
        if (offer ? config.window_scale : scale_ok_)
            options->window_scale = RcvWindow::shift_for(config);
    }
    if (offer ? config.timestamps : timestamps_ok_) {
        options->timestamps = true;
        options->ts_val = timestamp(call.now);
        options->ts_ecr = offer ? 0 : ts_recent_;
    }
    if (!syn && sack_ok_ && !sack_.empty(ooo_))
        sack_.write(call.ctx.runs, ooo_, fin_known_ ? &fin_seq_ : nullptr, timestamps_ok_ ? 3 : 4,
                    options);
}

/// RFC 9293 3.10.5.
void Connection::send_reset(Call& call)
{
    SegmentOut out{};
    out.seq = snd_max_;
    out.ack = rcv_nxt_;
    out.flags = kRst | kAck;
    if (call.ctx.sink.emit(out)) {
        rst_pending_ = false;
        call.actions |= kClosed;
    } else {
        blocked_ = true;
        call.actions |= kPoll;
    }
}

/// A RST in answer to an unacceptable ACK. If there is no room for it the next such ACK gets one.
void Connection::refuse(Seq seq, Call& call)
{
    SegmentOut out{};
    out.seq = seq;
    out.ack = Seq(0);
    out.flags = kRst;
    call.ctx.sink.emit(out);
}

void Connection::start_timer(Timer timer, Time delay, Call& call)
{
    timer_ = timer;
    deadline_ = call.now + delay;
    bound_deadline();
}

void Connection::stop_timer()
{
    timer_ = Timer::kNone;
    deadline_ = kNever;
}

std::uint32_t Connection::timestamp(Time now) const
{
    return timestamp_of(now) + ts_offset_;
}

} // namespace devmem::tcp
