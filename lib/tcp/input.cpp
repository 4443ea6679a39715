// SPDX-License-Identifier: BSD-3-Clause
// SEGMENT ARRIVES (RFC 9293 3.10.7): the ladder, for what connection.h did not predict.
#include "lib/tcp/connection.h"

#include "lib/tcp/payload.h"

#include <algorithm>
#include <cerrno>

namespace devmem::tcp {

namespace {

/// A timestamp older than this says nothing: the peer's clock may have wrapped (RFC 7323 5.5).
constexpr Time kTimestampOutdated = Time{24} * 24 * 3600 * 1'000'000;

/// ACKs that answer what may be forged or may be answered in turn: at most so many in that time
/// (RFC 5961 7). Each connection has its own count. One for all would tell an attacker who spends
/// what is left of it on a connection of his own whether his guess at another's numbers had cost
/// one (CVE-2016-5696); a bound on all of them together there need not be, for each answers a
/// segment that came, and is no longer.
constexpr std::uint8_t kChallenges = 10;
constexpr Time kChallengeTime = 5'000'000;

} // namespace

/// A segment on its way up the ladder. What no rung takes of its payload is released at the end.
struct Connection::Arrival : Call {
    Arrival(const Segment& s, Time time, Context& context)
        : Call{time, context}, segment(s), syn(s.flags & kSyn), fin(s.flags & kFin), seq(s.seq),
          payload(s.seq + (syn ? 1u : 0u), s.len, s.payload, context.runs, context.sink)
    {
    }
    bool has(Flags flag) const { return (segment.flags & flag) != 0; }
    /// SEG.LEN: SYN and FIN count.
    std::uint32_t length() const { return segment.len + (syn ? 1u : 0u) + (fin ? 1u : 0u); }

    const Segment& segment;
    bool syn, fin;
    Seq seq;
    Payload payload;
};

Actions Connection::process_any(const Segment& segment, Time now, Context& ctx)
{
    quiet_ = false;
    Arrival in(segment, now, ctx);
    if (state_ == State::kClosed) {
        SegmentOut rst;
        if (reset_for(segment, &rst))
            ctx.sink.emit(rst);
    } else if (state_ == State::kSynSent) {
        process_syn_sent(in);
    } else if (timestamp_ok(in) && sequence_ok(in) && no_reset(in) && no_syn(in) && ack_ok(in)) {
        take_urgent(in);
        take_text(in);
        take_fin(in);
    }
    return in.actions;
}

/// SYN-SENT (3.10.7.3).
void Connection::process_syn_sent(Arrival& in)
{
    const Segment& segment = in.segment;
    const bool acks_syn = in.has(kAck) && snd_una_ < segment.ack && segment.ack <= snd_max_;
    if (in.has(kAck) && !acks_syn) {
        if (!in.has(kRst))
            refuse(segment.ack, in);
        return;
    }
    if (in.has(kRst)) {
        if (acks_syn)
            finish(-ECONNREFUSED, in);
        return;
    }
    if (!in.syn)
        return;
    take_syn(segment, in);
    if (acks_syn) {
        establish(segment, in);
        ack_.immediately();
    } else { // simultaneous open: our SYN goes again, with an ACK
        state_ = State::kSynReceived;
        snd_nxt_ = iss_;
        in.actions |= kPoll;
    }
}

/// Protection against wrapped sequence numbers, part of the first check (RFC 7323 5.3). RST is
/// exempt.
///
/// Once timestamps were agreed on, a segment without one is dropped silently, as RFC 7323 3.2 says
/// it SHOULD be. Linux takes it, for the sake of middleboxes that strip options in mid-stream; but
/// what an option's absence gets past PAWS is what PAWS is there to stop, and nothing is lost: the
/// connection goes on (it MUST NOT be aborted), and a peer that never sends another timestamp times
/// out as it would behind a path that lost its segments.
///
/// TS.Recent is not believed after 24 days (5.5): of a peer idle for so long the clock, at 1 ms a
/// tick, may have gone half way round and seem to lie in the past.
bool Connection::timestamp_ok(Arrival& in)
{
    if (!timestamps_ok_ || in.has(kRst))
        return true;
    if (!in.segment.options->timestamps) {
        in.ctx.counters.paws++;
        return false;
    }
    if (Seq(in.segment.options->ts_val) >= Seq(ts_recent_) ||
        in.now - ts_recent_time_ > kTimestampOutdated)
        return true;
    in.ctx.counters.paws++;
    report_old_text(in);
    if (in.length() != 0)
        answer_now(in);
    else
        challenge(in);
    return false;
}

/// First, check sequence number: some part of the segment lies in the window.
///
///     ---RCV.NXT=======edge-----   length 0: RCV.NXT <= SEQ <= edge
///     --[   ]                 no   otherwise: SEQ <= edge and RCV.NXT < SEQ + length
///     -----[   ]             yes
///     ---------------------[  ]no
///
/// SEQ == edge is what a sender that filled the window acknowledges with, and what a closed window
/// is probed with: its ACK counts, its text is cut off later.
bool Connection::sequence_ok(Arrival& in)
{
    if (state_ == State::kSynReceived && in.syn && in.seq + 1 == rcv_nxt_) {
        repeat_syn_ack(in);
        if (!in.has(kAck))
            return false;
        in.syn = false; // simultaneous open: the SYN is known, the ACK is news
        in.seq += 1;
    }
    const std::uint32_t length = in.length();
    if (in.seq <= window_.edge() && (length == 0 ? in.seq >= rcv_nxt_ : in.seq + length > rcv_nxt_))
        return true;
    if (!in.has(kRst))
        refuse_sequence(in);
    return false;
}

/// The peer has not seen our SYN-ACK. It hears its latest timestamp: with that of the first SYN it
/// would take all its waiting for the round trip, and wait as long when an ACK is lost. If it no
/// longer asks for ECN there is none (RFC 3168 6.1.1.1).
void Connection::repeat_syn_ack(Arrival& in)
{
    if (in.has(kAck))
        return;
    update_timestamp(in);
    ecn_ok_ = ecn_ok_ && asks_ecn(in.segment);
    snd_nxt_ = iss_;
    in.actions |= kPollNow;
}

/// Not acceptable: an ACK, so that the peer learns where we are.
void Connection::refuse_sequence(Arrival& in)
{
    const bool old = in.length() != 0 && in.seq + in.length() <= rcv_nxt_;
    if (old)
        report_old_text(in);
    else if (in.seq + in.length() > rcv_nxt_)
        in.ctx.counters.out_of_window++;
    if (old && in.fin && state_ == State::kTimeWait)
        start_timer(Timer::kTimeWait, in.ctx.config.time_wait, in);
    if (in.length() != 0 && !in.syn)
        answer_now(in);
    else
        challenge(in);
}

/// Text that came before (RFC 2883 4). It is refused for its number or, if it was overtaken by its
/// own retransmission, for its timestamp; either way a sender that hears of it learns that nothing
/// was lost.
void Connection::report_old_text(Arrival& in)
{
    const Payload& payload = in.payload;
    if (payload.empty() || payload.seq() >= rcv_nxt_)
        return;
    const Seq end = min(payload.end(), rcv_nxt_);
    in.ctx.counters.duplicate_bytes += distance(payload.seq(), end);
    sack_.duplicate(payload.seq(), end);
    ack_.quick();
}

/// Second, check the RST bit (RFC 5961 3.2). @return there is none.
bool Connection::no_reset(Arrival& in)
{
    if (!in.has(kRst))
        return true;
    if (in.seq != rcv_nxt_) {
        challenge(in);
        return false;
    }
    switch (state_) {
    case State::kSynReceived:
        finish(passive_ ? -ECONNRESET : -ECONNREFUSED, in);
        break;
    case State::kClosing:
    case State::kLastAck:
    case State::kTimeWait:
        finish(0, in);
        break;
    default:
        finish(-ECONNRESET, in);
    }
    return false;
}

/// Fourth, check the SYN bit (RFC 5961 4.2). The third, security, is no longer. @return there is
/// none.
bool Connection::no_syn(Arrival& in)
{
    if (in.syn)
        challenge(in);
    return !in.syn;
}

/// Fifth, check the ACK field (RFC 5961 5.2).
///
///     SND.UNA - MAX.SND.WND       SND.UNA          SND.NXT
///     ---------|---------------------|----------------|------
///     challenge|     old, no news    |      news      | challenge
bool Connection::ack_ok(Arrival& in)
{
    if (!in.has(kAck))
        return false;
    const Seq ack = in.segment.ack;
    if (state_ == State::kSynReceived) {
        if (ack <= snd_una_ || ack > snd_max_) {
            refuse(ack, in);
            return false;
        }
        establish(in.segment, in);
    } else if (ack > snd_max_ || ack < snd_una_ - snd_wnd_max_) {
        challenge(in);
        return false;
    }
    heard_ = in.now;
    update_timestamp(in);
    acknowledged(in.segment, in);
    return state_ != State::kClosed;
}

/// RFC 7323 4.3: the segment that reaches Last.ACK.sent is the one to echo.
void Connection::update_timestamp(const Arrival& in)
{
    if (timestamps_ok_ && in.seq <= last_ack_sent_) {
        ts_recent_ = in.segment.options->ts_val;
        ts_recent_time_ = in.now;
    }
}

/// Sixth, check the URG bit: RCV.UP = max(RCV.UP, SEG.UP). The pointer names the byte behind urgent
/// data (3.8.5), which may not have come yet, or not fit in the window. What was taken is urgent no
/// more, so that a segment sent again tells nothing.
void Connection::take_urgent(Arrival& in)
{
    if (!in.has(kUrg) || !may_receive())
        return;
    const Seq up = in.segment.seq + in.segment.urgent;
    if (up <= rcv_nxt_ - readable_ || (urgent_ && up <= rcv_up_))
        return;
    rcv_up_ = up;
    urgent_ = true;
    in.actions |= kUrgent;
}

/// Seventh, process the segment text. Urgent data is in line (RFC 6093 6).
void Connection::take_text(Arrival& in)
{
    if (!may_receive())
        return;
    Counters& counters = in.ctx.counters;
    Payload& payload = in.payload;
    note_fin(in);
    if (payload.empty()) {
        if (in.fin)
            answer_now(in);
        return;
    }

    if (payload.seq() < rcv_nxt_) {
        const Seq end = min(payload.end(), rcv_nxt_);
        const std::uint32_t old = distance(payload.seq(), end);
        counters.duplicate_bytes += old;
        sack_.duplicate(payload.seq(), end);
        payload.skip(old);
        answer_now(in);
    }
    const Seq limit = fin_known_ ? min(fin_seq_, window_.edge()) : window_.edge();
    if (payload.end() > limit) {
        counters.out_of_window++;
        payload.truncate(limit);
        answer_now(in);
    }
    if (payload.empty())
        return;
    if (orphan_) {
        counters.after_close++;
        reset_peer(in);
        return;
    }
    if (ecn_ok_)
        note_congestion(in);
    store(in);
}

/// Text in the window, kept or not, may tell of congestion on its way, and that what we told of is
/// known (RFC 3168 6.1.3); other segments do not (6.1.5). A sender that goes by either has a small
/// window, for which a delayed ACK is a long time.
void Connection::note_congestion(Arrival& in)
{
    if (in.has(kCwr)) {
        ecn_echo_ = false;
        ack_.quick();
    }
    if (in.segment.ce) {
        in.ctx.counters.ce_segments += in.segment.wire_segments;
        if (!ecn_echo_)
            ack_.quick();
        ecn_echo_ = true;
    }
}

/// Remember where the stream ends. A FIN beyond the window comes again; one that contradicts an
/// earlier FIN or bytes that are held is ignored.
void Connection::note_fin(Arrival& in)
{
    const Seq seq = in.payload.end();
    if (!in.fin || fin_known_ || seq > window_.edge())
        return;
    if (!ooo_.empty() && seq < ooo_.end(in.ctx.runs))
        return;
    fin_known_ = true;
    fin_seq_ = seq;
}

/// Keep text that lies in the window, if there is memory for the fragments it is in. Otherwise it
/// was not received, and comes again.
void Connection::store(Arrival& in)
{
    if (!window_.admits(in.payload.fragments(), in.ctx.config, in.ctx.credit)) {
        in.ctx.counters.no_memory++;
        in.actions |= kStarved;
        answer_now(in);
        return;
    }
    const bool was_empty = queue_.empty();
    if (ooo_.empty() && in.payload.seq() == rcv_nxt_)
        store_in_order(in);
    else
        store_around_gap(in);
    if (was_empty && !queue_.empty())
        in.actions |= kReadable;
}

void Connection::store_in_order(Arrival& in)
{
    const std::uint32_t bytes = in.payload.left();
    while (!in.payload.empty()) {
        std::uint32_t dropped; // none: the whole rest is wanted
        const Run run = in.payload.take(in.payload.left(), &dropped);
        queue_.append(in.ctx.runs, run);
        window_.kept(run.count, run.len, in.ctx.credit);
    }
    advance(bytes, in);
    ack_.in_order(in.segment.wire_segments);
    in.actions |= kPoll;
}

/// Ahead of a gap, or filling one.
void Connection::store_around_gap(Arrival& in)
{
    RunStore& runs = in.ctx.runs;
    const Seq seq = in.payload.seq();
    if (seq > rcv_nxt_)
        in.ctx.counters.ooo_segments++;
    const OooStore::Inserted inserted = ooo_.insert(runs, in.payload);
    in.ctx.counters.duplicate_bytes += inserted.duplicate;
    in.ctx.counters.ooo_overlap_bytes += inserted.shared;
    if (inserted.fragments != 0)
        window_.kept(inserted.fragments, inserted.bytes, in.ctx.credit);
    if (inserted.duplicate != 0)
        sack_.duplicate(inserted.duplicate_seq, inserted.duplicate_end);
    if (const std::uint32_t bytes = ooo_.drain(runs, rcv_nxt_, queue_); bytes != 0)
        advance(bytes, in);
    sack_.changed(runs, ooo_, seq);
    if (inserted.fragments != 0)
        sack_.changed(runs, ooo_, inserted.last);
    ack_.quick();
    answer_now(in);
}

/// Eighth, check the FIN bit: that of this segment or one that came ahead of its time.
void Connection::take_fin(Arrival& in)
{
    if (!fin_known_ || fin_reached_ || rcv_nxt_ != fin_seq_ || !may_receive())
        return;
    fin_reached_ = true;
    rcv_nxt_ += 1;
    window_.received_fin(rcv_nxt_);
    window_.close(in.ctx.credit);
    ack_.immediately();
    in.actions |= kReadable | kPoll;
    if (state_ == State::kEstablished) {
        state_ = State::kCloseWait;
    } else if (state_ == State::kFinWait1) {
        state_ = State::kClosing;
    } else {
        state_ = State::kTimeWait;
        start_timer(Timer::kTimeWait, in.ctx.config.time_wait, in);
    }
}

/// An ACK of its own for this segment (RFC 5681 4.2).
void Connection::answer_now(Call& call)
{
    ack_.immediately();
    call.actions |= kPollNow;
}

void Connection::challenge(Call& call)
{
    if (call.now - challenge_since_ >= kChallengeTime) {
        challenge_since_ = call.now;
        challenges_ = 0;
    }
    if (challenges_ >= kChallenges)
        return;
    challenges_++;
    answer_now(call);
}

} // namespace devmem::tcp
