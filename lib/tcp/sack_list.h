// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/ooo_store.h"
#include "lib/tcp/run_store.h"
#include "lib/tcp/seq.h"
#include "lib/wire/tcp_options.h"

#include <array>
#include <cstdint>

namespace devmem::tcp {

/// What to put into the SACK option: the island that changed last first, then those reported before
/// (RFC 2018 4), ahead of them once the duplicate that arrived (RFC 2883 4).
class SackList {
public:
    /// Bytes at `seq` were stored; their island, unless it drained, leads from now on.
    void changed(const RunStore& runs, const OooStore& store, Seq seq);
    /// Bytes left <= x < right came again. The first such range before an ACK is reported.
    void duplicate(Seq left, Seq right)
    {
        if (!has_duplicate())
            duplicate_ = {left.value(), right.value()};
    }
    /// The ACK that carried the blocks is out.
    void sent() { duplicate_ = {}; }

    bool empty(const OooStore& store) const { return store.empty() && !has_duplicate(); }
    /// Write up to `room` blocks. `fin` is the number of the peer's FIN if that arrived, which is
    /// reported with the byte before it.
    void write(const RunStore& runs, const OooStore& store, const Seq* fin, unsigned room,
               wire::TcpOptions* options) const;

private:
    bool has_duplicate() const { return duplicate_.left != duplicate_.right; }

    std::array<Seq, 4> recent_{}; ///< a byte of each island to report
    std::uint8_t count_ = 0;
    wire::SackBlock duplicate_{};
};

} // namespace devmem::tcp
