// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/pattern.h"

#include <algorithm>
#include <cstring>

namespace ncat {

namespace {

constexpr std::size_t kCompareBytes = 4096;

} // namespace

Pattern::Pattern(unsigned period) : period_(period), expected_(kCompareBytes + period)
{
    for (std::size_t i = 0; i < expected_.size(); ++i)
        expected_[i] = static_cast<std::byte>((i + 1) % period);
}

std::vector<Pattern::Mismatch> Pattern::check(std::span<const std::byte> bytes)
{
    std::vector<Mismatch> mismatches;
    while (!bytes.empty() && errors_ < kMaxErrors) {
        const auto part = bytes.first(std::min(bytes.size(), kCompareBytes));
        const std::byte* expected = expected_.data() + offset_ % period_;
        if (std::memcmp(part.data(), expected, part.size()) != 0) {
            for (std::size_t i = 0; i < part.size() && errors_ < kMaxErrors; ++i) {
                if (part[i] != expected[i]) {
                    mismatches.push_back({offset_ + i, expected[i], part[i]});
                    ++errors_;
                }
            }
        }
        offset_ += part.size();
        bytes = bytes.subspan(part.size());
    }
    return mismatches;
}

} // namespace ncat
