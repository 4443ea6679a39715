// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/seq.h"

#include <algorithm>
#include <cstdint>

namespace devmem::tcp {

/// Congestion control of what we send, requests and replies: slow start, congestion avoidance, fast
/// retransmit (RFC 5681), limited transmit (RFC 3042), NewReno recovery (RFC 6582), and a mark for
/// a loss (RFC 3168).
class Congestion {
public:
    static constexpr unsigned kDupThreshold = 3;

    /// @param syn_lost our SYN had to be repeated: begin with one segment (RFC 5681 3.1)
    void open(Seq iss, std::uint32_t smss, bool syn_lost)
    {
        smss_ = smss;
        cwnd_ = syn_lost ? smss : initial_window();
        ssthresh_ = UINT32_MAX;
        counted_ = 0;
        forget_duplicates();
        recover_ = marked_ = iss;
        recovering_ = false;
    }

    /// What may be in flight.
    std::uint32_t window() const { return cwnd_ + limited_; }

    /// New data was acknowledged up to `ack`; `flight` is what remains outstanding.
    /// @param echo the ACK has ECE: no reason to send more
    /// @return the first unacknowledged segment was lost too: send it again (a partial ACK).
    bool acked(Seq ack, std::uint32_t bytes, std::uint32_t flight, bool echo)
    {
        forget_duplicates();
        // Passed, they stay close: numbers wrap.
        recover_ = max(recover_, ack - 1);
        marked_ = max(marked_, ack - 1);
        if (recovering_) {
            if (ack < recover_) {
                cwnd_ -= std::min(bytes, cwnd_);
                cwnd_ += smss_;
                return true;
            }
            recovering_ = false;
            cwnd_ = std::min(ssthresh_, std::max(flight, smss_) + smss_);
            return false;
        }
        if (echo)
            return false;
        if (cwnd_ < ssthresh_) {
            cwnd_ += std::min(bytes, smss_);
        } else {
            counted_ += bytes;
            if (counted_ >= cwnd_) {
                counted_ -= cwnd_;
                cwnd_ += smss_;
            }
        }
        cwnd_ = std::min(cwnd_, kCwndMax);
        return false;
    }

    /// A duplicate ACK (RFC 5681 2). @param arrived it shows that a segment arrived
    /// @return the segment at `una` counts as lost: send it again.
    bool duplicate(Seq una, Seq sent, std::uint32_t flight, bool arrived)
    {
        if (recovering_) {
            cwnd_ = std::min(cwnd_ + smss_, kCwndMax);
            return false;
        }
        if (++dupacks_ == 1)
            flight_ = flight;
        if (dupacks_ < kDupThreshold && arrived)
            limited_ += smss_;
        if (dupacks_ != kDupThreshold || una <= recover_)
            return false;
        limited_ = 0;
        if (una >= marked_)                               // not for a mark and a loss in one window
            ssthresh_ = std::max(flight_ / 2, 2 * smss_); // without what was sent since
        cwnd_ = ssthresh_ + kDupThreshold * smss_;
        recover_ = sent;
        recovering_ = true;
        return true;
    }

    /// An ACK up to `ack` has ECE, with `flight` outstanding before it: less is sent, once a
    /// window, for marks and losses together (RFC 3168 6.1.2). @return it is from now on
    bool marked(Seq ack, Seq sent, std::uint32_t flight)
    {
        if (recovering_ || ack <= max(recover_, marked_))
            return false;
        ssthresh_ = std::max(flight / 2, 2 * smss_);
        cwnd_ = std::min(cwnd_, ssthresh_);
        counted_ = 0;
        marked_ = sent;
        return true;
    }

    /// The retransmission timer expired. @param again not for the first time for this data
    void timed_out(Seq sent, std::uint32_t flight, bool again)
    {
        if (!again)
            ssthresh_ = std::max(flight / 2, 2 * smss_);
        cwnd_ = smss_;
        counted_ = 0;
        forget_duplicates();
        recover_ = sent;
        recovering_ = false;
    }

    /// Nothing was sent for a timeout: the ACK clock is lost (RFC 5681 4.1).
    void idle() { cwnd_ = std::min(cwnd_, initial_window()); }

private:
    void forget_duplicates()
    {
        dupacks_ = 0;
        limited_ = 0;
    }
    /// RFC 6928.
    std::uint32_t initial_window() const
    {
        return std::min(10 * smss_, std::max(2 * smss_, 14600u));
    }
    static constexpr std::uint32_t kCwndMax = 1u << 30; ///< no window is larger (RFC 7323 2.3)

    std::uint32_t smss_;
    std::uint32_t cwnd_;
    std::uint32_t ssthresh_;
    std::uint32_t counted_; ///< bytes acknowledged since cwnd grew, in congestion avoidance
    unsigned dupacks_;
    std::uint32_t limited_; ///< beyond cwnd, by limited transmit
    std::uint32_t flight_;  ///< at the first duplicate ACK
    Seq recover_;
    Seq marked_; ///< what was sent when less was, for a mark
    bool recovering_;
};

} // namespace devmem::tcp
