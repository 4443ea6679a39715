// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/syn_cookie.h"

#include "lib/tcp/rcv_window.h"

#include <algorithm>
#include <cstring>

namespace devmem::tcp {

namespace {

/// The largest that does not exceed the peer's is taken: the least we send with, what a peer that
/// says nothing takes, IPv6's least MTU, tunnels, both families on Ethernet, FDDI, jumbo frames.
constexpr std::array<std::uint16_t, 8> kMss{88, 536, 1220, 1400, 1440, 1460, 4312, 8940};

constexpr std::uint32_t kScaleMask = 0x0f, kNoScale = 0x0f; // a scale is at most 14
constexpr std::uint32_t kSackBit = 0x10;
constexpr std::uint32_t kOptionMask = kScaleMask | kSackBit;

/// Inputs of two words derive keys; those of one are the flow table's, of five the ISNs'.
std::array<std::uint64_t, 2> derive(const std::array<std::uint64_t, 2>& key)
{
    constexpr std::uint64_t kPurpose = 0x6b6f6f63; // "cook"
    std::array<std::uint64_t, 2> derived;
    for (std::uint64_t i = 0; i < derived.size(); i++) {
        const std::uint64_t words[2] = {kPurpose, i};
        derived[i] = siphash(key, words, 2);
    }
    return derived;
}

} // namespace

SynCookies::SynCookies(const std::array<std::uint64_t, 2>& secret)
    : keys_{derive(derive(secret)), derive(secret)}
{
}

std::uint16_t SynCookies::window(const Config& config)
{
    constexpr std::uint32_t kUnscaledMax = UINT16_MAX;
    return static_cast<std::uint16_t>(
        std::min({config.rcv_window_initial, config.rcv_window, kUnscaledMax}));
}

void SynCookies::turn(Time now)
{
    for (int i = 0; i < 2 && now >= next_turn_; i++) {
        keys_[1] = keys_[0];
        keys_[0] = derive(keys_[0]);
        next_turn_ += kEpoch;
    }
    if (now >= next_turn_) // both are new: how many might have been makes no difference
        next_turn_ = now + kEpoch;
}

std::uint32_t SynCookies::hash(const Key& key, const FlowName& flow, Seq irs)
{
    std::uint64_t words[6];
    std::memcpy(&words[0], flow.local.data(), 16);
    std::memcpy(&words[2], flow.remote.data(), 16);
    words[4] = std::uint64_t{flow.local_port} << 16 | flow.remote_port;
    words[5] = irs.value();
    return static_cast<std::uint32_t>(siphash(key, words, 6));
}

SegmentOut SynCookies::answer(const Segment& syn, const FlowName& flow, std::uint16_t mss,
                              std::uint32_t ts_offset, Time now, const Config& config)
{
    turn(now);
    until_ = now + 2 * kEpoch;
    const wire::TcpOptions& offered = *syn.options;
    const std::uint16_t most = peer_mss(syn);
    std::uint32_t index = kMss.size() - 1;
    while (index != 0 && kMss[index] > most)
        index--;

    SegmentOut out{};
    out.seq = Seq(hash(keys_[0], flow, syn.seq) + index);
    out.ack = syn.seq + 1;
    out.window = window(config);
    out.flags = kSyn | kAck;
    out.options.mss = mss;
    if (!config.timestamps || !offered.timestamps)
        return out; // what cannot be kept is not agreed on
    std::uint32_t bits = kNoScale;
    if (config.window_scale && offered.window_scale != wire::TcpOptions::kNoScale) {
        constexpr std::uint8_t kScaleMax = 14; // RFC 7323 2.3
        bits = std::min(offered.window_scale, kScaleMax);
        out.options.window_scale = RcvWindow::shift_for(config);
    }
    if (config.sack && offered.sack_permitted) {
        bits |= kSackBit;
        out.options.sack_permitted = true;
    }
    const std::uint32_t clock = timestamp_of(now) + ts_offset;
    std::uint32_t value = (clock & ~kOptionMask) | bits;
    if (Seq(value) > Seq(clock)) // later segments must not seem older (RFC 7323 5.3)
        value -= kOptionMask + 1;
    out.options.timestamps = true;
    out.options.ts_val = value;
    out.options.ts_ecr = offered.ts_val;
    return out;
}

bool SynCookies::check(const Segment& ack, const FlowName& flow, std::uint32_t ts_offset, Time now,
                       const Config& config, wire::TcpOptions* options)
{
    if (now >= until_)
        return false;
    turn(now);
    const Seq irs = ack.seq - 1;
    const std::uint32_t iss = (ack.ack - 1).value();
    std::uint32_t index = UINT32_MAX;
    for (const Key& key : keys_)
        index = std::min(index, iss - hash(key, flow, irs));
    if (index >= kMss.size())
        return false;
    *options = {};
    options->mss = kMss[index];
    if (!config.timestamps || !ack.options->timestamps)
        return true;
    const std::uint32_t echo = ack.options->ts_ecr;
    if (timestamp_of(2 * kEpoch) < timestamp_of(now) + ts_offset - echo)
        return false; // not ours
    options->timestamps = true;
    options->ts_val = ack.options->ts_val;
    options->sack_permitted = (echo & kSackBit) != 0;
    if (const std::uint32_t scale = echo & kScaleMask; scale != kNoScale)
        options->window_scale = static_cast<std::uint8_t>(scale);
    return true;
}

} // namespace devmem::tcp
