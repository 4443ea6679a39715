// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/context.h"
#include "lib/tcp/returned.h"
#include "lib/tcp/seq.h"

#include <cstdint>

namespace devmem::tcp {

/// The receive window as credit. Every byte announced is backed by pool memory, so it can be stored
/// when it comes; the right edge never moves back (RFC 9293 3.8.6); memory handed to the
/// application counts until it is returned.
///
/// Memory goes by fragments, the window by bytes. What a byte costs is what it did: fragment size
/// over the bytes that a fragment was filled with of late, 1 where segments fill their fragments. A
/// peer that sends less to a fragment than what was promised was priced at uses up the backing
/// before the window. Beyond that it may have what is free to all, up to its limit, and no more:
/// the memory of other connections' promises is never touched.
///
///             promised (backed by credit)      wanted, when credit allows
///         |<------------------------------>|<-------------->|
///     ----+--------------------------------+----------------+---->
///      RCV.NXT                           edge        RCV.NXT + target
///
/// The window field has 1 << scale granularity, so an edge that must not move back is rounded up:
/// less than 1 << scale bytes have no backing where credit is exhausted, of the order of 0.01 % of
/// the largest window.
class RcvWindow {
public:
    /// @param mss      what a segment brings at most
    /// @param returned fragments returned by the application, ever; nullptr: held bytes do not
    /// count
    void open(const Config& config, const Credit& credit, std::uint16_t mss,
              const Returned* returned);
    /// Whether the option was exchanged is known: SYNs apart, the window is scaled from now on.
    void set_scale(const Config& config, bool negotiated);

    /// @return one past the last acceptable byte
    Seq edge() const { return edge_; }
    /// Before RCV.NXT is known the edge is relative to 0; afterwards to RCV.NXT.
    void rebase(Seq rcv_nxt) { edge_ = rcv_nxt + edge_.value(); }

    /// So many bytes were announced by somebody else. They get their backing when there is an
    /// occasion.
    void announced(std::uint16_t bytes) { edge_ += bytes; }

    /// What announce() and widen() came to.
    struct Grant {
        std::uint32_t step; ///< bytes the edge moved
        bool starved;       ///< the application's or the pool's memory stands in the way of more
    };
    /// Move the edge as far as wanted and backed, silly windows avoided (RFC 9293 3.8.6.2.2), and
    /// make it one the window field can express.
    Grant announce(Seq rcv_nxt, std::uint32_t mss, bool syn, const Config& config, Credit& credit)
    {
        return !syn && plenty(config, credit)
                   ? Grant{announce_in_plenty(rcv_nxt, mss, credit), false}
                   : announce_any(rcv_nxt, mss, syn, config, credit);
    }
    /// announce() for an ACK. @return Grant::starved
    bool announce_in_ack(Seq rcv_nxt, std::uint32_t mss, const Config& config, Credit& credit)
    {
        if (!plenty(config, credit)) [[unlikely]]
            return announce_any(rcv_nxt, mss, false, config, credit).starved;
        announce_in_plenty(rcv_nxt, mss, credit);
        return false;
    }
    /// As announce(), but only if the step is worth a segment of its own.
    Grant widen(Seq rcv_nxt, std::uint32_t mss, const Config& config, Credit& credit);
    /// The window field of a segment that acknowledges `rcv_nxt`; after announce().
    std::uint16_t field(Seq rcv_nxt, bool syn) const
    {
        return static_cast<std::uint16_t>(distance(rcv_nxt, edge_) >> (syn ? 0 : scale_));
    }

    /// RCV.NXT advances over `n` bytes within the window.
    void received(std::uint32_t n, const Config& config)
    {
        since_growth_ += n;
        if (since_growth_ >= target_) [[unlikely]]
            set_target(2 * target_, config); // of less than 2^30
    }
    /// RCV.NXT advances over a FIN: it takes a sequence number but no memory, so it may lie at the
    /// edge of a closed window.
    void received_fin(Seq rcv_nxt) { edge_ = max(edge_, rcv_nxt); }
    /// Whether the connection may have so many fragments more.
    bool admits(std::uint32_t fragments, const Config& config, const Credit& credit) const
    {
        const std::uint64_t cost = std::uint64_t{fragments} * credit.fragment_bytes;
        return cost <= backed_ || affords(cost, config, credit);
    }
    /// admits() and kept() in one. @return false: it may not, and nothing has changed
    [[gnu::always_inline]] bool keep(std::uint32_t fragments, std::uint32_t bytes,
                                     const Config& config, Credit& credit)
    {
        const std::uint64_t cost = std::uint64_t{fragments} * credit.fragment_bytes;
        if (cost > backed_) [[unlikely]] {
            if (!affords(cost, config, credit))
                return false;
            kept(fragments, bytes, credit);
            return true;
        }
        // Nothing is backed while it is lent.
        backed_ -= cost;
        credit.promised_bytes -= static_cast<std::int64_t>(cost);
        kept_ += fragments;
        if (bytes != std::uint64_t{fragments} * fill_) [[unlikely]]
            learn_fill(fragments, bytes, credit);
        return true;
    }
    /// The engine keeps fragments, with so many bytes in them.
    void kept(std::uint32_t fragments, std::uint32_t bytes, Credit& credit)
    {
        const std::uint64_t cost = std::uint64_t{fragments} * credit.fragment_bytes;
        const std::uint64_t covered = cost < backed_ ? cost : backed_;
        backed_ -= covered;
        credit.promised_bytes -= static_cast<std::int64_t>(covered);
        credit.free_bytes -= static_cast<std::int64_t>(cost - covered);
        kept_ += fragments;
        lent_ = false;
        if (bytes != std::uint64_t{fragments} * fill_) [[unlikely]]
            learn_fill(fragments, bytes, credit);
    }
    /// Nothing has come for long: what is set aside for what may come goes to others until
    /// something does, and then has to be free. What was announced stays announced.
    void lend(Credit& credit);
    /// The engine gave up fragments it had kept.
    void dropped(std::uint32_t fragments) { kept_ -= fragments; }
    /// No byte will be accepted any more: the credit goes back, and the edge stays where it is.
    void close(Credit& credit);

    /// The smallest shift that lets the field express the largest window (RFC 7323 2.3).
    static std::uint8_t shift_for(const Config& config);

private:
    /// One connection takes at most this part of what is free at a time, so that many that start
    /// together share what there is rather than the first taking all.
    static constexpr std::int64_t kGrantPart = 4;

    /// So much is free that what a connection may have and take at a time, see allowance() and
    /// means(), comes to its target.
    bool plenty(const Config& config, const Credit& credit) const
    {
        static_assert(kGrantPart >= 2, "allowance() gives half");
        const auto held = static_cast<std::int64_t>(held_bytes(credit));
        return credit.free_bytes >= kGrantPart * std::int64_t{target_} + held &&
               config.held_limit_bytes == 0 && !(closed_ | lent_ | widened_);
    }
    /// announce() in that case: the same, less what is known beforehand.
    /// @return Grant::step
    [[gnu::always_inline]] std::uint32_t announce_in_plenty(Seq rcv_nxt, std::uint32_t mss,
                                                            Credit& credit)
    {
        if (ample_ == 0) [[unlikely]]
            ample_ = ample(mss, credit);
        const std::uint32_t promised = distance(rcv_nxt, edge_);
        const std::uint32_t round = (1u << scale_) - 1;
        const std::uint32_t next = ample_ > promised ? ample_ : (promised + round) & ~round;
        edge_ = rcv_nxt + next;
        const std::uint64_t most = backed_ > target_ ? backed_ : target_;
        const std::uint64_t cost = cost_of(next, credit);
        const std::uint64_t backed = cost < most ? cost : most;
        const auto taken = static_cast<std::int64_t>(backed - backed_);
        credit.free_bytes -= taken;
        credit.promised_bytes += taken;
        backed_ = backed;
        return next - promised;
    }
    Grant announce_any(Seq rcv_nxt, std::uint32_t mss, bool syn, const Config& config,
                       Credit& credit);
    struct Means;
    Means means(std::uint32_t mss, const Config& config, const Credit& credit) const;
    Grant grant(Seq rcv_nxt, const Means& means, std::uint32_t least, bool syn,
                const Credit& credit) const;
    [[gnu::cold]] void set_target(std::uint32_t bytes, const Config& config);
    std::uint32_t ample(std::uint32_t mss, const Credit& credit) const;
    void back(Seq rcv_nxt, const Means& means, Grant* result, Credit& credit);
    bool affords(std::uint64_t cost, const Config& config, const Credit& credit) const;
    [[gnu::noinline]] void learn_fill(std::uint32_t fragments, std::uint32_t bytes,
                                      const Credit& credit);
    /// Memory that so many bytes are expected to take.
    std::uint64_t cost_of(std::uint64_t bytes, const Credit& credit) const
    {
        return fill_ >= credit.fragment_bytes ? bytes : credit.memory_for(bytes, fill_);
    }
    std::uint64_t bytes_for(std::uint64_t cost, const Credit& credit) const;
    std::uint64_t held_bytes(const Credit& credit) const
    {
        const std::uint32_t returned = returned_ != nullptr ? returned_->count() : kept_;
        return std::uint64_t{kept_ - returned} * credit.fragment_bytes;
    }
    std::uint64_t allowance(std::uint64_t least, const Config& config, const Credit& credit) const;

    Seq edge_;
    std::uint32_t target_;       ///< memory for the window: bytes where these fill their fragments
    std::uint32_t since_growth_; ///< bytes received
    std::uint32_t kept_;         ///< fragments, ever
    const Returned* returned_;
    std::uint32_t ample_; ///< ample(), once known; 0: not yet, or no more. Of one MSS only
    std::uint8_t scale_;
    bool closed_ : 1;
    bool widened_ : 1;     ///< not announced yet
    bool lent_ : 1;        ///< nothing is set aside, however much is announced
    std::uint16_t fill_;   ///< bytes that a fragment is expected to bring
    std::uint64_t backed_; ///< memory set aside for what is promised
};

} // namespace devmem::tcp
