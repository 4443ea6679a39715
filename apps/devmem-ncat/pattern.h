// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ncat {

/// ncdevmem's repeating pattern: a stream of the bytes 1, 2, ..., period - 1, 0, over and over.
/// What
///     yes $(echo -e \\x01\\x02\\x03\\x04\\x05\\x06) | tr \\n \\0
/// sends has period 7. A byte lost or out of place shows as every later byte wrong.
class Pattern {
public:
    /// Errors after which there is no point in going on.
    static constexpr unsigned kMaxErrors = 20;

    struct Mismatch {
        std::uint64_t offset; ///< in the stream
        std::byte expected;
        std::byte got;
    };

    /// @param period 2 to 256
    explicit Pattern(unsigned period);

    /// Check the next bytes of the stream. @return the mismatches among them, up to kMaxErrors in
    /// the life of the object.
    std::vector<Mismatch> check(std::span<const std::byte> bytes);

    unsigned errors() const { return errors_; }

private:
    unsigned period_;
    std::uint64_t offset_ = 0;
    unsigned errors_ = 0;
    std::vector<std::byte> expected_; ///< whole periods, to compare many bytes at a time
};

} // namespace ncat
