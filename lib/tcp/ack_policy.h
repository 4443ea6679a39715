// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/time.h"

#include <cstdint>

namespace devmem::tcp {

/// When to acknowledge (RFC 5681 4.2, RFC 9293 3.8.6.3): at least every second full-sized segment,
/// once a burst; at once what is out of order, fills a gap or was a duplicate; otherwise within the
/// delay.
class AckPolicy {
public:
    /// A delayed ACK stalls a sender in slow start, which after a start or a loss waits for each
    /// ACK to send more: the next few are not delayed. 16 as in Linux.
    static constexpr std::uint8_t kQuickAcks = 16;

    /// `segments` arrived in order; the delay runs from the first that is not acknowledged.
    void in_order(std::uint16_t segments)
    {
        unacked_ = static_cast<std::uint16_t>(unacked_ + segments);
        if (unacked_ < segments) [[unlikely]]
            unacked_ = UINT16_MAX;
    }
    /// An ACK is due whatever arrived.
    void immediately() { due_ = true; }
    /// The sender is in slow start.
    void quick() { quick_ = kQuickAcks; }

    /// Whether to send one now.
    bool due() const { return due_ || unacked_ >= 2 || (unacked_ != 0 && quick_ != 0); }
    /// Nothing is due: start the delay if something waits.
    void delay(Time now, Time delay)
    {
        if (unacked_ != 0 && deadline_ == kNever)
            deadline_ = now + delay;
    }
    void expire(Time now)
    {
        if (now >= deadline_)
            due_ = true;
    }
    Time deadline() const { return due_ ? 0 : deadline_; }

    /// A segment that acknowledges everything went out.
    void sent()
    {
        if (quick_ != 0 && unacked_ != 0)
            quick_--;
        unacked_ = 0;
        due_ = false;
        deadline_ = kNever;
    }

private:
    Time deadline_ = kNever;
    std::uint16_t unacked_ = 0;
    std::uint8_t quick_ = 0;
    bool due_ = false;
};

} // namespace devmem::tcp
