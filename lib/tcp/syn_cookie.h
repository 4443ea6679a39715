// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/context.h"
#include "lib/tcp/isn.h"
#include "lib/tcp/segment.h"
#include "lib/tcp/time.h"

#include <array>
#include <cstdint>

namespace devmem::tcp {

/// Handshakes without state, for when there is no room for any (RFC 4987 3.6). Our ISN is what we
/// want back: a keyed hash of the connection's name and the peer's ISN, plus the index of an MSS.
/// If the peer does timestamps the low bits of ours carry the rest, and come back as its echo:
///
///     ISN       hash(name, IRS; key) + MSS index
///     TSval     our clock, rounded ......... | SACK (1) | window scale (4)
///
/// A key is used for kEpoch and known for another, then forgotten; its successor is derived by a
/// one-way function. Of 2^32 ACKs that guess, 16 at most are taken, and none unless a cookie was
/// sent within two epochs.
class SynCookies {
public:
    static constexpr Time kEpoch = 60'000'000;

    /// @param secret random, once a process; what else is made of it is not affected
    explicit SynCookies(const std::array<std::uint64_t, 2>& secret);

    /// The SYN-ACK for `syn`. @param mss to announce
    SegmentOut answer(const Segment& syn, const FlowName& flow, std::uint16_t mss,
                      std::uint32_t ts_offset, Time now, const Config& config);
    /// Whether `ack` completes a handshake begun so, and the options of the SYN that began it, as
    /// far as they were kept.
    bool check(const Segment& ack, const FlowName& flow, std::uint32_t ts_offset, Time now,
               const Config& config, wire::TcpOptions* options);

    /// The window that answer() announces.
    static std::uint16_t window(const Config& config);

private:
    using Key = std::array<std::uint64_t, 2>;

    void turn(Time now);
    static std::uint32_t hash(const Key& key, const FlowName& flow, Seq irs);

    std::array<Key, 2> keys_; ///< this epoch's and the last one's
    Time next_turn_ = kEpoch;
    Time until_ = 0; ///< cookies that were sent are good until then
};

} // namespace devmem::tcp
