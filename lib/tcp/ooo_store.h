// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/payload.h"
#include "lib/tcp/run_queue.h"
#include "lib/tcp/run_store.h"
#include "lib/tcp/seq.h"

#include <cstdint>

namespace devmem::tcp {

/// Bytes that arrived ahead of RCV.NXT, as islands: maximal ranges of the sequence space without a
/// gap, each a chain of runs in order. An island is what a SACK block reports, and it moves to the
/// receive queue as a whole.
///
///     RCV.NXT
///        |        island            island
///     ---+------[run|run|run]------[run]------>
///              left        end   left  end
///
/// Always: islands do not touch; the first byte to arrive for a position stays; a byte once held is
/// kept until it moves on or clear().
///
/// Islands are nodes of a treap (a binary tree by sequence number that is a heap by a hash of the
/// fragment index, a number the peer does not choose): O(log islands) expected, no allocation.
/// An arrival beyond the last byte, which is the most frequent one, needs no search.
class OooStore {
public:
    static constexpr std::uint32_t kNone = RunStore::kNone;

    bool empty() const { return root_ == kNone; }

    /// What became of a payload.
    struct Inserted {
        std::uint32_t fragments = 0; ///< kept
        std::uint32_t bytes = 0;     ///< in them
        Seq last{0};                 ///< where the last piece kept begins, if any was
        std::uint32_t duplicate = 0; ///< bytes dropped that were held already
        Seq duplicate_seq{0};        ///< where the first of them begin,
        Seq duplicate_end{0};        ///< and end
        std::uint32_t shared = 0;    ///< new bytes dropped: in a fragment that another piece needed
    };
    /// Take what is new of `payload`, all of it at or after RCV.NXT.
    Inserted insert(RunStore& runs, Payload& payload);

    /// The island that holds `seq`, or kNone.
    std::uint32_t find(const RunStore& runs, Seq seq) const;
    /// One past the last byte held. Not for an empty store.
    Seq end(const RunStore& runs) const { return runs[last_].end; }

    /// Move the first island to `queue` if it starts at `seq`. @return bytes moved.
    std::uint32_t drain(RunStore& runs, Seq seq, RunQueue& queue);
    /// Give every fragment back. @return how many.
    std::uint32_t clear(RunStore& runs, Sink& sink);

private:
    struct Around {
        std::uint32_t before, after; ///< last island with left <= seq, first one with left > seq
    };
    Around around(const RunStore& runs, Seq seq) const;
    void add(RunStore& runs, const Run& run, Seq seq, Around place);
    void link(RunStore& runs, std::uint32_t island);
    void unlink(RunStore& runs, std::uint32_t island);

    std::uint32_t root_ = kNone;
    std::uint32_t last_ = kNone; ///< island with the highest bytes
};

} // namespace devmem::tcp
