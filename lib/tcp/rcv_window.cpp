// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/rcv_window.h"

#include <algorithm>

namespace devmem::tcp {

namespace {

constexpr std::uint32_t kUnscaledMax = 65535;
/// RFC 7323 2.3: a shift of 14 keeps the window below 2^30.
constexpr std::uint8_t kShiftMax = 14;

std::uint32_t round_down(std::uint32_t n, unsigned shift)
{
    return n >> shift << shift;
}

std::uint32_t round_up(std::uint32_t n, unsigned shift)
{
    return round_down(n + (1u << shift) - 1, shift);
}

/// Memory of a full segment. It fits one fragment or little more than one, where fragments were cut
/// for it.
std::uint64_t segment_memory(std::uint32_t mss, const Credit& credit)
{
    const std::uint64_t fragment = credit.fragment_bytes;
    if (mss <= 2 * fragment) [[likely]]
        return mss <= fragment ? fragment : 2 * fragment;
    return (mss + fragment - 1) / fragment * fragment;
}

} // namespace

std::uint8_t RcvWindow::shift_for(const Config& config)
{
    std::uint8_t shift = 0;
    while (shift < kShiftMax && (config.rcv_window >> shift) > kUnscaledMax)
        shift++;
    return shift;
}

void RcvWindow::open(const Config& config, const Credit& credit, std::uint16_t mss,
                     const Returned* returned)
{
    edge_ = Seq(0);
    kept_ = 0;
    returned_ = returned;
    set_scale(config, false);
    closed_ = widened_ = lent_ = false;
    fill_ = static_cast<std::uint16_t>(std::min<std::uint32_t>(credit.fragment_bytes, mss));
    backed_ = 0;
}

void RcvWindow::set_scale(const Config& config, bool negotiated)
{
    scale_ = negotiated ? shift_for(config) : 0;
    ample_ = 0;
    set_target(config.rcv_window_initial, config);
}

void RcvWindow::set_target(std::uint32_t bytes, const Config& config)
{
    const std::uint32_t target = std::min({bytes, config.rcv_window, kUnscaledMax << scale_});
    since_growth_ = 0;
    if (target != target_)
        ample_ = 0;
    target_ = target;
}

/// What may be set aside for a window, within what the connection may have: held and set aside, at
/// most the limit. Where none is set, at most what is left for all others (the dynamic threshold of
/// shared-memory switches, Choudhury and Hahne 1998): one that hoards stops at half of the pool, n
/// of them leave one part in n + 1, and nobody has to know n. Who holds nothing may have a segment.
std::uint64_t RcvWindow::allowance(std::uint64_t least, const Config& config,
                                   const Credit& credit) const
{
    const std::uint64_t held = held_bytes(credit);
    if (config.held_limit_bytes != 0)
        return config.held_limit_bytes - std::min<std::uint64_t>(held, config.held_limit_bytes);
    const auto free = static_cast<std::uint64_t>(std::max<std::int64_t>(credit.free_bytes, 0));
    const std::uint64_t all = backed_ + free;
    return std::max(all > held ? (all - held) / 2 : 0, held == 0 ? std::min(least, all) : 0);
}

std::uint64_t RcvWindow::bytes_for(std::uint64_t cost, const Credit& credit) const
{
    return fill_ >= credit.fragment_bytes ? cost : credit.bytes_for(cost, fill_);
}

/// Towards what fragments bring, faster up than down: messages end in the middle of a fragment.
void RcvWindow::learn_fill(std::uint32_t fragments, std::uint32_t bytes, const Credit& credit)
{
    if (bytes > std::uint64_t{fragments} * fill_) {
        const std::uint32_t rest =
            credit.fragment_bytes - std::min<std::uint32_t>(fill_, credit.fragment_bytes);
        fill_ = static_cast<std::uint16_t>(fill_ + (rest + 7) / 8);
    } else { // hence fill_ > 1: no fragment is empty
        fill_ = static_cast<std::uint16_t>(fill_ - std::max(fill_ / 16, 1));
    }
    ample_ = 0;
}

bool RcvWindow::affords(std::uint64_t cost, const Config& config, const Credit& credit) const
{
    const std::int64_t free = std::max<std::int64_t>(credit.free_bytes, 0);
    return cost - backed_ <= static_cast<std::uint64_t>(free) &&
           cost <= allowance(cost, config, credit);
}

/// What may be set aside for a window: in all, and of what is free at a time.
struct RcvWindow::Means {
    std::uint64_t budget, share;
    std::uint32_t mss;
    std::uint64_t segment; ///< memory of a full one
};

RcvWindow::Means RcvWindow::means(std::uint32_t mss, const Config& config,
                                  const Credit& credit) const
{
    const std::int64_t free = std::max<std::int64_t>(credit.free_bytes, 0);
    const std::uint64_t segment = segment_memory(mss, credit);
    const auto share = static_cast<std::uint64_t>(
        std::max(free / kGrantPart, std::min(free, static_cast<std::int64_t>(segment))));
    return {std::min<std::uint64_t>(target_, allowance(segment, config, credit)), share, mss,
            segment};
}

/// How far the edge would move. @param least smallest step that is worth it, unless it fills the
/// target.
RcvWindow::Grant RcvWindow::grant(Seq rcv_nxt, const Means& means, std::uint32_t least, bool syn,
                                  const Credit& credit) const
{
    if (closed_)
        return {0, false};
    const unsigned shift = syn ? 0 : scale_;
    // The window of a SYN is never scaled (RFC 7323 2.2).
    const std::uint64_t most = syn ? kUnscaledMax : UINT32_MAX;
    const std::uint64_t cost = std::min(means.budget, backed_ + means.share);
    // Where there is room for a full segment, one is announced, though the peer sends smaller ones:
    // at what it brings of late all the memory there is may be worth less.
    const std::uint64_t floor = cost >= means.segment ? means.mss : 0;
    const auto in_bytes = [&](std::uint64_t memory) {
        return std::min(std::max(bytes_for(memory, credit), floor), most);
    };
    const auto target = round_down(static_cast<std::uint32_t>(in_bytes(target_)), shift);
    const auto window = round_down(
        static_cast<std::uint32_t>(std::min<std::uint64_t>(in_bytes(cost), target)), shift);
    const std::uint32_t promised = distance(rcv_nxt, edge_);
    const bool starved = window < target && promised < target;
    if (window <= promised || (window - promised < least && window != target))
        return {0, starved};
    return {window - promised, starved};
}

/// The edge moves, and what is now promised gets its backing as far as the means go.
void RcvWindow::back(Seq rcv_nxt, const Means& means, Grant* result, Credit& credit)
{
    edge_ += result->step;
    if (lent_)
        result->starved = edge_ == rcv_nxt;
    if (closed_ || lent_)
        return;
    const std::uint64_t cost = cost_of(distance(rcv_nxt, edge_), credit);
    const std::uint64_t wanted = std::min<std::uint64_t>(cost, target_);
    std::uint64_t backed = std::min(backed_, cost);
    if (const std::uint64_t most = std::min(wanted, means.budget); backed < most)
        backed += std::min(most - backed, means.share);
    const auto taken = static_cast<std::int64_t>(backed - backed_); // may be negative
    credit.free_bytes -= taken;
    credit.promised_bytes += taken;
    backed_ = backed;
    result->starved |= backed < wanted;
}

/// The window that the target comes to where nothing stands in the way.
std::uint32_t RcvWindow::ample(std::uint32_t mss, const Credit& credit) const
{
    const std::uint64_t floor = target_ >= segment_memory(mss, credit) ? mss : 0;
    const std::uint64_t bytes =
        std::min<std::uint64_t>(std::max(bytes_for(target_, credit), floor), UINT32_MAX);
    return round_down(static_cast<std::uint32_t>(bytes), scale_);
}

RcvWindow::Grant RcvWindow::announce_any(Seq rcv_nxt, std::uint32_t mss, bool syn,
                                         const Config& config, Credit& credit)
{
    const Means means = this->means(mss, config, credit);
    Grant result{};
    const bool granted = widened_; // by widen(): this announces it
    widened_ = false;
    if (!granted)
        result = grant(rcv_nxt, means, std::min(mss, target_ / 2), syn, credit);
    if (result.step == 0) {
        const std::uint32_t promised = distance(rcv_nxt, edge_);
        result.step = round_up(promised, syn ? 0 : scale_) - promised;
    }
    if (!granted || result.step != 0)
        back(rcv_nxt, means, &result, credit);
    return result;
}

RcvWindow::Grant RcvWindow::widen(Seq rcv_nxt, std::uint32_t mss, const Config& config,
                                  Credit& credit)
{
    const bool shut = distance(rcv_nxt, edge_) < mss;
    const std::uint32_t least = shut ? std::min(mss, target_ / 2) : std::min(2 * mss, target_ / 4);
    const Means means = this->means(mss, config, credit);
    Grant result = grant(rcv_nxt, means, least, false, credit);
    if (result.step < least && !(shut && result.step != 0))
        result.step = 0;
    if (lent_ && result.step != 0) { // who may send nothing gets a segment to begin with
        result.step = shut ? std::min(result.step, mss) : 0;
        lent_ = !shut;
    }
    widened_ |= result.step != 0;
    back(rcv_nxt, means, &result, credit);
    return result;
}

void RcvWindow::lend(Credit& credit)
{
    credit.promised_bytes -= static_cast<std::int64_t>(backed_);
    credit.free_bytes += static_cast<std::int64_t>(backed_);
    backed_ = 0;
    lent_ = true;
}

void RcvWindow::close(Credit& credit)
{
    credit.promised_bytes -= static_cast<std::int64_t>(backed_);
    backed_ = 0;
    closed_ = true;
}

} // namespace devmem::tcp
