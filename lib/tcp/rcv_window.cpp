// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/rcv_window.h"

#include <algorithm>

namespace devmem::tcp {

namespace {

constexpr std::uint32_t kUnscaledMax = 65535;
/// RFC 7323 2.3: a shift of 14 keeps the window below 2^30.
constexpr std::uint8_t kShiftMax = 14;
/// One connection takes at most this part of what is free at a time, so that many that start
/// together share what there is rather than the first taking all.
constexpr std::int64_t kGrantPart = 4;

std::uint32_t round_down(std::uint32_t n, unsigned shift)
{
    return n >> shift << shift;
}

std::uint32_t round_up(std::uint32_t n, unsigned shift)
{
    return round_down(n + (1u << shift) - 1, shift);
}

} // namespace

std::uint8_t RcvWindow::shift_for(const Config& config)
{
    std::uint8_t shift = 0;
    while (shift < kShiftMax && (config.rcv_window >> shift) > kUnscaledMax)
        shift++;
    return shift;
}

void RcvWindow::open(const Config& config, const std::atomic<std::uint32_t>* returned)
{
    edge_ = Seq(0);
    limit_ = kUnscaledMax;
    target_ = std::min({config.rcv_window_initial, config.rcv_window, limit_});
    since_growth_ = 0;
    kept_ = 0;
    returned_ = returned;
    scale_ = 0;
    closed_ = false;
}

void RcvWindow::set_scale(const Config& config, bool negotiated)
{
    scale_ = negotiated ? shift_for(config) : 0;
    limit_ = std::min(config.rcv_window, kUnscaledMax << scale_);
    target_ = std::min(config.rcv_window_initial, limit_);
}

void RcvWindow::grow()
{
    target_ = std::min(2 * target_, limit_); // limit_ < 2^30
    since_growth_ = 0;
}

std::uint64_t RcvWindow::held_bytes(const Credit& credit) const
{
    const std::uint32_t returned = returned_ ? returned_->load(std::memory_order_relaxed) : kept_;
    return std::uint64_t{kept_ - returned} * credit.fragment_bytes;
}

/// How far the edge would move. @param least smallest step that is worth it, unless it fills the
/// target.
RcvWindow::Grant RcvWindow::grant(Seq rcv_nxt, std::uint32_t mss, std::uint32_t least, bool syn,
                                  const Config& config, const Credit& credit) const
{
    if (closed_)
        return {0, false};
    const unsigned shift = syn ? 0 : scale_;
    // The window of a SYN is never scaled (RFC 7323 2.2).
    const std::uint32_t target = syn ? std::min(target_, kUnscaledMax) : round_down(target_, shift);
    std::uint32_t want = target;
    if (config.held_limit_bytes != 0) {
        const std::uint64_t held = held_bytes(credit);
        if (held > config.held_limit_bytes)
            want = static_cast<std::uint32_t>(
                want - std::min<std::uint64_t>(want, held - config.held_limit_bytes));
    }
    const std::uint32_t promised = distance(rcv_nxt, edge_);
    if (want <= promised)
        return {0, want < target};

    const std::int64_t free = std::max<std::int64_t>(credit.free_bytes, 0);
    const std::int64_t share = std::max(free / kGrantPart, std::min<std::int64_t>(free, mss));
    const auto backed = static_cast<std::uint32_t>(std::min<std::int64_t>(share, want - promised));
    const std::uint32_t window = round_down(promised + backed, shift);
    const bool starved = promised + backed < target;
    if (window <= promised || (window - promised < least && window != target))
        return {0, starved};
    return {window - promised, starved};
}

void RcvWindow::promise(std::uint32_t bytes, Credit& credit)
{
    edge_ += bytes;
    if (closed_)
        return;
    credit.free_bytes -= bytes;
    credit.promised_bytes += bytes;
}

RcvWindow::Grant RcvWindow::announce(Seq rcv_nxt, std::uint32_t mss, bool syn, const Config& config,
                                     Credit& credit)
{
    Grant result = grant(rcv_nxt, mss, std::min(mss, target_ / 2), syn, config, credit);
    if (result.step == 0) {
        const std::uint32_t promised = distance(rcv_nxt, edge_);
        result.step = round_up(promised, syn ? 0 : scale_) - promised;
    }
    promise(result.step, credit);
    return result;
}

RcvWindow::Grant RcvWindow::widen(Seq rcv_nxt, std::uint32_t mss, const Config& config,
                                  Credit& credit)
{
    const bool shut = distance(rcv_nxt, edge_) < mss;
    const std::uint32_t least = shut ? std::min(mss, target_ / 2) : std::min(2 * mss, target_ / 4);
    Grant result = grant(rcv_nxt, mss, least, false, config, credit);
    if (result.step < least && !(shut && result.step != 0))
        result.step = 0;
    promise(result.step, credit);
    return result;
}

void RcvWindow::received_fin(Seq rcv_nxt, Credit& credit)
{
    if (edge_ < rcv_nxt)
        edge_ = rcv_nxt;
    else
        credit.promised_bytes -= 1;
}

void RcvWindow::close(Seq rcv_nxt, Credit& credit)
{
    if (!closed_)
        credit.promised_bytes -= distance(rcv_nxt, edge_);
    closed_ = true;
}

} // namespace devmem::tcp
