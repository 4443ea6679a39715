// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <type_traits>

namespace devmem::tcp {

/// A sequence number: arithmetic modulo 2^32 (RFC 9293 3.4). The order is that of the shorter way
/// round, so it means something only between numbers less than 2^31 apart, and it is not transitive
/// over the whole space.
///
///        a < b                     b < a
///     ---a====b-----------      ---b====a-----------
///     ===b--------a=======      (wraps: a is before b)
class Seq {
public:
    Seq() = default;
    constexpr explicit Seq(std::uint32_t value) : value_(value) {}

    constexpr std::uint32_t value() const { return value_; }

    friend constexpr Seq operator+(Seq a, std::uint32_t n) { return Seq(a.value_ + n); }
    friend constexpr Seq operator-(Seq a, std::uint32_t n) { return Seq(a.value_ - n); }
    constexpr Seq& operator+=(std::uint32_t n) { return *this = *this + n; }

    friend constexpr bool operator==(Seq a, Seq b) = default;
    friend constexpr bool operator<(Seq a, Seq b) { return signed_distance(a, b) > 0; }
    friend constexpr bool operator>(Seq a, Seq b) { return b < a; }
    friend constexpr bool operator<=(Seq a, Seq b) { return !(b < a); }
    friend constexpr bool operator>=(Seq a, Seq b) { return !(a < b); }

    /// Bytes from `from` up to `to`; the caller knows that from <= to.
    friend constexpr std::uint32_t distance(Seq from, Seq to) { return to.value_ - from.value_; }
    friend constexpr Seq max(Seq a, Seq b) { return a < b ? b : a; }
    friend constexpr Seq min(Seq a, Seq b) { return b < a ? b : a; }

private:
    static constexpr std::int32_t signed_distance(Seq from, Seq to)
    {
        return static_cast<std::int32_t>(to.value_ - from.value_);
    }

    std::uint32_t value_;
};

static_assert(sizeof(Seq) == 4 && std::is_trivial_v<Seq>);

} // namespace devmem::tcp
