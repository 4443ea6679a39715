// SPDX-License-Identifier: BSD-3-Clause
// What an acceptable ACK does to the sending side.
//
//        acknowledged      in flight         not sent
//     ----------------|------------------|---------------|----
//                 SND.UNA             snd_max_      SND.UNA + buffer_.size(), then the FIN
//                           |
//                       snd_nxt_ (between the two after a retransmission timeout)
#include "lib/tcp/connection.h"

#include <algorithm>

namespace devmem::tcp {

namespace {

constexpr std::uint32_t kTimestampOptionBytes = 12; // RFC 7323 A

} // namespace

void Connection::acknowledged(const Segment& segment, Call& call)
{
    if (segment.ack < snd_una_)
        return;
    if (timer_ == Timer::kPersist && !orphan_) {
        progress_ = call.now;
        tries_ = 0; // a probe was answered: an application is not cut off (RFC 9293 3.8.6.1)
    }
    const std::uint32_t flight = distance(snd_una_, snd_max_);
    if (segment.ack > snd_una_) {
        acknowledged_new(segment, call);
    } else if (duplicate_ack(segment) &&
               congestion_.duplicate(snd_una_, snd_max_, flight, shows_arrival(segment))) {
        retransmit_now_ = true;
        cwr_due_ = ecn_ok_;
    }
    if (flight != 0 && echoes_mark(segment) && congestion_.marked(segment.ack, snd_max_, flight))
        cwr_due_ = true;
    update_send_window(segment);
    if (unsent() != 0 || fin_unsent() || retransmit_now_)
        call.actions |= kPoll;
}

void Connection::acknowledged_new(const Segment& segment, Call& call)
{
    const std::uint32_t bytes = distance(snd_una_, segment.ack);
    const std::uint32_t data = std::min(bytes, buffer_.size());
    const bool fin = bytes > data;
    buffer_.consume(data);
    sample_rtt(segment, call);
    snd_una_ = segment.ack;
    snd_nxt_ = max(snd_nxt_, snd_una_);
    sacked_end_ = max(sacked_end_, snd_una_);
    tries_ = 0;
    soft_error_ = 0;
    progress_ = call.now;

    const std::uint32_t flight = distance(snd_una_, snd_max_);
    retransmit_now_ = congestion_.acked(snd_una_, bytes, flight, echoes_mark(segment));
    if (timer_ == Timer::kRetransmit || timer_ == Timer::kPersist) {
        if (flight != 0)
            start_timer(Timer::kRetransmit, rtt_.rto(), call); // RFC 6298 5.3
        else
            stop_timer();
    }
    if (refused_ && data != 0) {
        refused_ = false;
        call.actions |= kWritable;
    }
    if (fin)
        fin_acknowledged(call);
}

void Connection::fin_acknowledged(Call& call)
{
    fin_acked_ = true;
    if (state_ == State::kFinWait1) {
        state_ = State::kFinWait2;
        if (orphan_)
            start_timer(Timer::kFinWait2, call.ctx.config.time_wait, call);
    } else if (state_ == State::kClosing) {
        state_ = State::kTimeWait;
        start_timer(Timer::kTimeWait, call.ctx.config.time_wait, call);
    } else if (state_ == State::kLastAck) {
        finish(0, call);
    }
}

bool Connection::echoes_mark(const Segment& segment) const
{
    return ecn_ok_ && (segment.flags & kEce) != 0;
}

/// RFC 5681 2.
bool Connection::duplicate_ack(const Segment& segment) const
{
    return timer_ == Timer::kRetransmit && segment.len == 0 &&
           (segment.flags & (kSyn | kFin)) == 0 && segment.window == snd_wnd_field_;
}

/// A duplicate ACK does unless blocks are to be expected and it reports nothing new (RFC 3042 2).
bool Connection::shows_arrival(const Segment& segment)
{
    if (!sack_ok_)
        return true;
    const Seq before = sacked_end_;
    for (unsigned i = 0; i < segment.options->sack_count; i++)
        sacked_end_ = max(sacked_end_, min(Seq(segment.options->sack[i].right), snd_max_));
    return sacked_end_ > before;
}

/// From the newest segment only (RFC 9293 3.10.7.4, SND.WL1 and SND.WL2).
void Connection::update_send_window(const Segment& segment)
{
    if (segment.seq < snd_wl1_ || (segment.seq == snd_wl1_ && segment.ack < snd_wl2_))
        return;
    snd_wl1_ = segment.seq;
    snd_wl2_ = segment.ack;
    snd_wnd_field_ = segment.window;
    snd_wnd_ = std::uint32_t{segment.window} << snd_scale_;
    snd_wnd_max_ = std::max(snd_wnd_max_, snd_wnd_);
    if (timer_ == Timer::kPersist && snd_wnd_ != 0) {
        stop_timer();
        probes_ = 0;
    }
}

/// With timestamps from what is echoed, otherwise from the one segment being timed, which is never
/// one that was sent twice (Karn's algorithm, RFC 6298 3).
void Connection::sample_rtt(const Segment& segment, const Call& call)
{
    if (timestamps_ok_ && segment.options->timestamps) {
        const std::uint32_t elapsed = timestamp(call.now) - segment.options->ts_ecr;
        if (elapsed <= INT32_MAX)
            rtt_.sample(Time{elapsed} * 1000, call.ctx.config);
    } else if (timed_since_ != kNever && segment.ack >= timed_end_) {
        rtt_.sample(call.now - timed_since_, call.ctx.config);
    }
    if (segment.ack >= timed_end_)
        timed_since_ = kNever;
}

/// Largest payload of a segment without SACK blocks.
std::uint32_t Connection::smss() const
{
    return send_mss_ - (timestamps_ok_ ? kTimestampOptionBytes : 0);
}

/// Bytes that wait beyond snd_nxt_.
std::uint32_t Connection::unsent() const
{
    const std::uint32_t sent = distance(snd_una_, snd_nxt_); // may include the FIN
    return buffer_.size() - std::min(sent, buffer_.size());
}

bool Connection::fin_unsent() const
{
    return fin_queued_ && !fin_acked_ && snd_nxt_ <= snd_una_ + buffer_.size();
}

} // namespace devmem::tcp
