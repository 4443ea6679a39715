// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/context.h"
#include "lib/tcp/seq.h"

#include <atomic>
#include <cstdint>

namespace devmem::tcp {

/// The receive window as credit. Every byte announced is backed by pool memory, so it can be stored
/// when it comes; the right edge never moves back (RFC 9293 3.8.6); memory handed to the
/// application counts until it is returned.
///
///             promised (backed by credit)      wanted, when credit allows
///         |<------------------------------>|<-------------->|
///     ----+--------------------------------+----------------+---->
///      RCV.NXT                           edge        RCV.NXT + target
///
/// The window field has 1 << scale granularity, so an edge that must not move back is rounded up:
/// an overdraft of less than 1 << scale bytes where credit is exhausted, of the order of 0.01 % of
/// the largest window.
class RcvWindow {
public:
    /// @param returned fragments returned by the application, ever; nullptr: held bytes do not
    /// count
    void open(const Config& config, const std::atomic<std::uint32_t>* returned);
    /// Whether the option was exchanged is known: SYNs apart, the window is scaled from now on.
    void set_scale(const Config& config, bool negotiated);

    /// @return one past the last acceptable byte
    Seq edge() const { return edge_; }
    /// Before RCV.NXT is known the edge is relative to 0; afterwards to RCV.NXT.
    void rebase(Seq rcv_nxt) { edge_ = rcv_nxt + edge_.value(); }

    /// What announce() and widen() came to.
    struct Grant {
        std::uint32_t step; ///< bytes the edge moved
        bool starved;       ///< the application's or the pool's memory stands in the way of more
    };
    /// Move the edge as far as wanted and backed, silly windows avoided (RFC 9293 3.8.6.2.2), and
    /// make it one the window field can express.
    Grant announce(Seq rcv_nxt, std::uint32_t mss, bool syn, const Config& config, Credit& credit);
    /// As announce(), but only if the step is worth a segment of its own.
    Grant widen(Seq rcv_nxt, std::uint32_t mss, const Config& config, Credit& credit);
    /// The window field of a segment that acknowledges `rcv_nxt`; after announce().
    std::uint16_t field(Seq rcv_nxt, bool syn) const
    {
        return static_cast<std::uint16_t>(distance(rcv_nxt, edge_) >> (syn ? 0 : scale_));
    }

    /// RCV.NXT advances over `n` bytes within the window.
    void received(std::uint32_t n, Credit& credit)
    {
        credit.promised_bytes -= n;
        since_growth_ += n;
        if (since_growth_ >= target_) [[unlikely]]
            grow();
    }
    /// RCV.NXT advances over a FIN: it takes a sequence number but no memory, so it may lie at the
    /// edge of a closed window.
    void received_fin(Seq rcv_nxt, Credit& credit);
    /// The engine keeps fragments.
    void kept(std::uint32_t fragments) { kept_ += fragments; }
    /// No byte will be accepted any more: the credit goes back, and the edge stays where it is.
    void close(Seq rcv_nxt, Credit& credit);

    /// The smallest shift that lets the field express the largest window (RFC 7323 2.3).
    static std::uint8_t shift_for(const Config& config);

private:
    Grant grant(Seq rcv_nxt, std::uint32_t mss, std::uint32_t least, bool syn, const Config& config,
                const Credit& credit) const;
    void grow();
    void promise(std::uint32_t bytes, Credit& credit);
    std::uint64_t held_bytes(const Credit& credit) const;

    Seq edge_;
    std::uint32_t target_;
    std::uint32_t since_growth_; ///< bytes received
    std::uint32_t kept_;         ///< fragments, ever
    const std::atomic<std::uint32_t>* returned_;
    std::uint32_t limit_; ///< of target_
    std::uint8_t scale_;
    bool closed_;
};

} // namespace devmem::tcp
