// SPDX-License-Identifier: BSD-3-Clause
// Opening, closing and what the application calls. Input is in input.cpp, output in output.cpp.
#include "lib/tcp/connection.h"

#include "lib/tcp/payload.h"
#include "lib/tcp/syn_cookie.h"

#include <algorithm>
#include <cerrno>

namespace devmem::tcp {

namespace {

/// A smaller MSS makes us send almost nothing but headers; some announce it to that end. The least
/// that leaves data beside a full SACK option.
constexpr std::uint16_t kLeastSendMss = 88;
constexpr std::uint8_t kScaleMax = 14; // RFC 7323 2.3

} // namespace

void Connection::open(Seq iss, std::uint16_t mss, std::uint16_t send_mss, std::uint32_t ts_offset,
                      const Returned* returned, Context& ctx)
{
    static_cast<HotState&>(*this) = HotState{};
    static_cast<ColdState&>(*this) = ColdState{};
    buffer_.free();
    iss_ = snd_una_ = snd_nxt_ = snd_max_ = sacked_end_ = iss;
    rcv_mss_ = mss;
    send_mss_ = send_mss;
    ts_offset_ = ts_offset;
    rtt_.open(ctx.config);
    window_.open(ctx.config, ctx.credit, mss, returned);
}

Actions Connection::open_passive(const Segment& syn, Seq iss, std::uint16_t mss,
                                 std::uint16_t send_mss, std::uint32_t ts_offset,
                                 const Returned* returned, Time now, Context& ctx)
{
    const Payload not_taken(syn.seq, syn.len, syn.payload, ctx.runs, ctx.sink);
    Call call{now, ctx};
    open(iss, mss, send_mss, ts_offset, returned, ctx);
    passive_ = true;
    progress_ = now;
    state_ = State::kSynReceived;
    take_syn(syn, call);
    return kPoll;
}

Actions Connection::open_cookie(const Segment& ack, const wire::TcpOptions& options,
                                std::uint16_t mss, std::uint16_t send_mss, std::uint32_t ts_offset,
                                const Returned* returned, Time now, Context& ctx)
{
    Call call{now, ctx};
    open(ack.ack - 1, mss, send_mss, ts_offset, returned, ctx);
    passive_ = true;
    state_ = State::kSynReceived;
    take_syn({ack.seq - 1, Seq(0), ack.window, kSyn, 1, 0, {}, &options}, call);
    window_.announced(SynCookies::window(ctx.config));
    snd_nxt_ = snd_max_ = iss_ + 1;
    return process_any(ack, now, ctx);
}

bool Connection::gives_way(const Segment& syn, const Config& config) const
{
    if (state_ != State::kTimeWait || (syn.flags & (kSyn | kAck | kRst | kFin)) != kSyn)
        return false;
    const bool timestamps = config.timestamps && syn.options->timestamps;
    if (!timestamps)
        return syn.seq >= rcv_nxt_;
    if (!timestamps_ok_)
        return true; // what is old has none, and will be dropped
    const Seq value(syn.options->ts_val), last(ts_recent_);
    return value > last || (value == last && syn.seq >= rcv_nxt_);
}

Actions Connection::give_way(Time now, Context& ctx)
{
    Call call{now, ctx};
    finish(0, call);
    return call.actions;
}

Actions Connection::open_active(Seq iss, std::uint16_t mss, std::uint16_t send_mss,
                                std::uint32_t ts_offset, const Returned* returned, Time now,
                                Context& ctx)
{
    open(iss, mss, send_mss, ts_offset, returned, ctx);
    progress_ = now;
    rcv_nxt_ = Seq(0); // the window is relative to it until the peer's SYN
    state_ = State::kSynSent;
    return kPoll;
}

/// Learn from the peer's SYN (RFC 9293 3.10.7.2 and .3).
void Connection::take_syn(const Segment& syn, Call& call)
{
    const Config& config = call.ctx.config;
    const wire::TcpOptions& options = *syn.options;

    rcv_nxt_ = syn.seq + 1;
    window_.rebase(rcv_nxt_);
    last_ack_sent_ = rcv_nxt_;

    send_mss_ = std::max(kLeastSendMss, std::min(send_mss_, peer_mss(syn)));
    scale_ok_ = config.window_scale && options.window_scale != wire::TcpOptions::kNoScale;
    snd_scale_ = scale_ok_ ? std::min(options.window_scale, kScaleMax) : std::uint8_t{0};
    window_.set_scale(config, scale_ok_);
    sack_ok_ = config.sack && options.sack_permitted;
    timestamps_ok_ = config.timestamps && options.timestamps;
    ecn_ok_ = config.ecn && passive_ && asks_ecn(syn);
    ts_recent_ = options.ts_val;
    ts_recent_time_ = call.now;

    snd_wnd_field_ = syn.window;
    snd_wnd_ = snd_wnd_max_ = syn.window; // not scaled in a SYN
    snd_wl1_ = syn.seq;
    snd_wl2_ = snd_una_;
}

/// Our SYN was acknowledged.
void Connection::establish(const Segment& segment, Call& call)
{
    state_ = State::kEstablished;
    heard_ = call.now;
    set_patience(patience_, call.now);
    sample_rtt(segment, call);
    snd_una_ = snd_nxt_ = snd_wl2_ = snd_max_;
    stop_timer();
    tries_ = 0;
    soft_error_ = 0;
    congestion_.open(iss_, smss(), syn_lost_);
    if (syn_lost_)
        rtt_.restart_after_lost_syn();
    ack_.quick();
    call.actions |= kConnected | kPoll;
    if (fin_queued_)
        state_ = State::kFinWait1;
}

void Connection::queue_fin(Call& call)
{
    quiet_ = false;
    fin_queued_ = true;
    if (state_ == State::kEstablished)
        state_ = State::kFinWait1;
    else if (state_ == State::kCloseWait)
        state_ = State::kLastAck;
    call.actions |= kPoll;
}

/// What was received in order stays to be received.
void Connection::enter_closed(int error, Call& call)
{
    state_ = State::kClosed;
    quiet_ = false;
    error_ = error;
    ooo_.clear(call.ctx.runs, call.ctx.sink);
    window_.close(call.ctx.credit);
    ack_ = AckPolicy{};
    stop_timer();
    keepalive_deadline_ = kNever;
    blocked_ = retransmit_now_ = false;
}

void Connection::finish(int error, Call& call)
{
    enter_closed(error, call);
    call.actions |= kClosed;
}

void Connection::time_out(Call& call)
{
    finish(soft_error_ != 0 ? soft_error_ : -ETIMEDOUT, call);
}

/// With a RST; it is over once that is out.
void Connection::reset_peer(Call& call)
{
    enter_closed(0, call);
    rst_pending_ = true;
    send_reset(call);
}

void Connection::release_queue(Context& ctx)
{
    Run run;
    while (queue_.pop(ctx.runs, &run))
        ctx.sink.release(run.first, run.count);
    readable_ = 0;
}

Actions Connection::window_check(Time now, Context& ctx)
{
    Call call{now, ctx};
    if (state_ == State::kSynReceived)
        return kStarved; // what its SYN-ACK could not announce is due once it is answered
    if (!may_receive() || orphan_)
        return kNothing;
    const RcvWindow::Grant grant = window_.widen(rcv_nxt_, rcv_mss_, ctx.config, ctx.credit);
    if (grant.step != 0) {
        ack_.immediately();
        call.actions |= kPoll;
    }
    if (grant.starved)
        call.actions |= kStarved;
    return call.actions;
}

void Connection::lend(Time now, Context& ctx)
{
    if (!may_receive() || now - heard_ < ctx.config.silence)
        return;
    window_.lend(ctx.credit);
    if (!ooo_.empty()) {
        window_.dropped(ooo_.clear(ctx.runs, ctx.sink));
        sack_ = {}; // a duplicate not yet told of may be of what is gone
        ctx.counters.reneged++;
    }
}

std::uint32_t Connection::urgent_bytes() const
{
    if (!urgent_)
        return 0;
    const Seq text_end = fin_reached_ ? fin_seq_ : rcv_nxt_; // of what has come
    const Seq taken = text_end - readable_;
    const Seq end = may_receive() ? rcv_up_ : min(rcv_up_, text_end);
    return end > taken ? distance(taken, end) : 0;
}

std::int64_t Connection::send(std::span<const std::byte> data, Context& ctx)
{
    if (state_ == State::kSynSent || state_ == State::kSynReceived)
        return -ENOTCONN;
    if (state_ != State::kEstablished && state_ != State::kCloseWait)
        return -EPIPE;
    quiet_ = false;
    const std::int64_t taken = buffer_.write(data, ctx.config.send_buffer);
    refused_ = taken >= 0 && static_cast<std::size_t>(taken) < data.size();
    return taken;
}

Actions Connection::shutdown(Time now, Context& ctx)
{
    Call call{now, ctx};
    if (state_ == State::kSynSent)
        finish(0, call);
    else if (state_ != State::kClosed && !fin_queued_)
        queue_fin(call);
    return call.actions;
}

Actions Connection::close(Time now, Context& ctx)
{
    if (state_ != State::kClosed && (readable_ != 0 || !ooo_.empty()))
        return abort(now, ctx);
    release_queue(ctx);
    Call call{now, ctx, shutdown(now, ctx)};
    quiet_ = false;
    orphan_ = true;
    if (state_ == State::kFinWait2)
        start_timer(Timer::kFinWait2, ctx.config.time_wait, call);
    return call.actions;
}

Actions Connection::abort(Time now, Context& ctx)
{
    Call call{now, ctx};
    const bool with_rst = state_ >= State::kSynReceived && state_ <= State::kCloseWait;
    release_queue(ctx);
    if (with_rst)
        reset_peer(call);
    else if (state_ != State::kClosed)
        finish(0, call);
    return call.actions;
}

void Connection::set_patience(const Patience& patience, Time now)
{
    quiet_ = false;
    patience_ = patience;
    keepalives_ = 0;
    const bool watch = patience.keepalive != 0 && state_ >= State::kEstablished;
    keepalive_deadline_ = watch ? std::max(now, heard_ + patience.keepalive) : kNever;
    bound_deadline();
}

Actions Connection::unreachable(int error, Time now, Context& ctx)
{
    Call call{now, ctx};
    if (state_ == State::kSynSent)
        finish(error, call);
    return call.actions;
}

Actions Connection::icmp_error(bool hard, Seq seq, int error, Time now, Context& ctx)
{
    Call call{now, ctx};
    if (state_ == State::kClosed || seq < snd_una_ || seq >= snd_max_)
        return kNothing;
    if (hard && state_ == State::kSynSent)
        finish(error, call);
    else
        soft_error_ = error;
    return call.actions;
}

void Connection::reset(Context& ctx)
{
    release_queue(ctx);
    ooo_.clear(ctx.runs, ctx.sink);
    if (state_ != State::kClosed)
        window_.close(ctx.credit);
    state_ = State::kClosed;
    quiet_ = false;
    rst_pending_ = blocked_ = false;
    ack_ = AckPolicy{};
    stop_timer();
    keepalive_deadline_ = kNever;
    buffer_.free();
}

} // namespace devmem::tcp
