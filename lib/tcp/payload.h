// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/context.h"
#include "lib/tcp/run.h"
#include "lib/tcp/seq.h"

#include <cstdint>
#include <span>

namespace devmem::tcp {

/// The payload of a segment while it is being trimmed and distributed: what is not taken when the
/// Payload goes out of scope goes back to the pool. Only numbers are edited.
///
///      runs   |--------------|   |---------|---------|
///                   ^seq()                     ^seq() + left()
///      released or taken | to be taken | released at the end
class Payload {
public:
    Payload(Seq seq, std::uint32_t len, std::span<const Run> runs, const RunStore& store,
            Sink& sink);
    ~Payload();
    Payload(const Payload&) = delete;
    Payload& operator=(const Payload&) = delete;

    Seq seq() const { return seq_; }             ///< of the next byte
    Seq end() const { return seq_ + left_; }     ///< one past the last
    std::uint32_t left() const { return left_; } ///< bytes still to be taken
    bool empty() const { return left_ == 0; }
    std::uint32_t fragments() const; ///< that hold them

    /// Want no byte from `end` on.
    void truncate(Seq end);
    /// Drop `n` <= left() bytes from the front.
    void skip(std::uint32_t n);
    /// Take up to `n` bytes, 0 < n <= left(), that are adjacent in memory. If the cut falls inside
    /// a fragment the rest of it goes with it, for a fragment has one holder: those bytes are
    /// dropped.
    /// @param dropped receives how many of left() they are
    Run take(std::uint32_t n, std::uint32_t* dropped);

private:
    void release_current();
    void settle();

    std::span<const Run> rest_; ///< runs after cur_
    Run cur_{};                 ///< what is left of the current run: bytes, unless nothing is left
    Seq seq_;
    std::uint32_t left_;
    const RunStore& store_;
    Sink& sink_;
};

} // namespace devmem::tcp
