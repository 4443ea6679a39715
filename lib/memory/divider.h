// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace devmem {

/// Division by a number known late, by multiplication.
class Divider {
public:
    Divider() = default;
    /// @param divisor 1 to 2^31
    explicit constexpr Divider(std::uint32_t divisor)
        : reciprocal_((kOne - 1) / divisor + 1), divisor_(divisor)
    {
    }

    constexpr std::uint32_t divisor() const { return divisor_; }
    /// Exact: the reciprocal is too large by less than 2^-63, hence the quotient by less than
    /// 2^-31, and it takes 1 / divisor to reach the next integer. In two halves, for 32-bit
    /// machines have no 128 bits.
    constexpr std::uint32_t quotient(std::uint32_t n) const
    {
        const std::uint64_t low = (reciprocal_ & 0xffffffff) * n >> 32;
        return static_cast<std::uint32_t>(((reciprocal_ >> 32) * n + low) >> 31);
    }

private:
    static constexpr std::uint64_t kOne = std::uint64_t{1} << 63;

    std::uint64_t reciprocal_ = 0; ///< 2^63 / divisor_, rounded up
    std::uint32_t divisor_ = 0;
};

} // namespace devmem
