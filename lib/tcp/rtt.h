// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/context.h"
#include "lib/tcp/time.h"

#include <algorithm>

namespace devmem::tcp {

/// The retransmission timeout (RFC 6298; numbers in brackets are its sections).
class Rtt {
public:
    void open(const Config& config)
    {
        rto_ = config.rto_initial;
        srtt_ = rttvar_ = 0;
    }

    /// A round trip was measured [2.2, 2.3]: the timeout follows from it, without backoff.
    void sample(Time rtt, const Config& config)
    {
        if (srtt_ == 0) {
            srtt_ = std::max<Time>(rtt, 1);
            rttvar_ = rtt / 2;
        } else {
            const Time error = srtt_ > rtt ? srtt_ - rtt : rtt - srtt_;
            rttvar_ = (3 * rttvar_ + error) / 4;
            srtt_ = std::max<Time>((7 * srtt_ + rtt) / 8, 1);
        }
        rto_ =
            std::clamp(srtt_ + std::max(kGranularity, 4 * rttvar_), config.rto_min, config.rto_max);
    }

    /// The timer expired [5.5].
    void back_off(const Config& config) { rto_ = std::min(2 * rto_, config.rto_max); }

    /// The handshake is over but needed a second SYN [5.7].
    void restart_after_lost_syn()
    {
        if (srtt_ == 0)
            rto_ = kAfterLostSyn;
    }

    Time rto() const { return rto_; }

private:
    static constexpr Time kGranularity = 1'000; ///< of the timestamp clock
    static constexpr Time kAfterLostSyn = 3'000'000;

    Time rto_;
    Time srtt_; ///< 0: nothing measured yet
    Time rttvar_;
};

} // namespace devmem::tcp
