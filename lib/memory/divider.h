// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace devmem {

/// Division by a number known late, by multiplication: the estimate is at most one too high.
class Divider {
public:
    Divider() = default;
    /// @param divisor not 0
    explicit constexpr Divider(std::uint32_t divisor)
        : reciprocal_((std::uint64_t{1} << 32) / divisor + 1), divisor_(divisor)
    {
    }

    constexpr std::uint32_t divisor() const { return divisor_; }
    constexpr std::uint32_t quotient(std::uint32_t n) const
    {
        const auto q = static_cast<std::uint32_t>(n * reciprocal_ >> 32);
        return q - (std::uint64_t{q} * divisor_ > n ? 1 : 0);
    }

private:
    std::uint64_t reciprocal_ = 0; ///< 2^32 / divisor_, rounded up
    std::uint32_t divisor_ = 0;
};

} // namespace devmem
