// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/page_pool/interleave/history.h"

#include <bit>
#include <cstdio>
#include <set>
#include <utility>

namespace devmem::test {
namespace {

/// Wing and Gong: try every call that may come next. A state is which calls were made, and what is
/// free; one that did not work out is not tried again.
class Search {
public:
    explicit Search(const History& history) : history_(history)
    {
        for (std::size_t i = 0; i < history.calls.size(); ++i)
            if (history.calls[i].returned)
                returned_ |= std::uint32_t{1} << i;
    }

    bool from(std::uint32_t made, Fragments free)
    {
        if ((returned_ & ~made) == 0)
            return true;
        if (!failed_.emplace(made, free).second)
            return false;
        for (std::size_t i = 0; i < history_.calls.size(); ++i) {
            const std::uint32_t bit = std::uint32_t{1} << i;
            if ((made & bit) == 0 && (history_.before[i] & ~made) == 0 &&
                make(history_.calls[i], made | bit, free))
                return true;
        }
        return false;
    }

private:
    bool make(const Call& call, std::uint32_t made, Fragments free)
    {
        if (call.kind == Call::kPut)
            return (!call.returned || (call.fragments & free) == call.result) &&
                   from(made, free | call.fragments);
        if (!call.returned)
            return take_any(call.wanted, 0, 0, made, free);
        if (call.result == 0)
            return static_cast<unsigned>(std::popcount(free)) < call.wanted && from(made, free);
        return (call.result & ~free) == 0 &&
               static_cast<unsigned>(std::popcount(call.result)) == call.wanted &&
               from(made, free & ~call.result);
    }

    /// A get that has not returned may have taken any.
    bool take_any(unsigned n, unsigned first, Fragments taken, std::uint32_t made, Fragments free)
    {
        if (n == 0)
            return from(made, free & ~taken);
        for (unsigned f = first; f < 64 && free >> f != 0; ++f)
            if ((free >> f & 1) != 0 &&
                take_any(n - 1, f + 1, taken | Fragments{1} << f, made, free))
                return true;
        return false;
    }

    const History& history_;
    std::uint32_t returned_ = 0;
    std::set<std::pair<std::uint32_t, Fragments>> failed_;
};

} // namespace

bool History::linearizable() const
{
    return Search{*this}.from(0, free);
}

std::string History::text() const
{
    char line[160];
    std::snprintf(line, sizeof(line), "free: %#llx\n", static_cast<unsigned long long>(free));
    std::string text = line;
    for (std::size_t i = 0; i < calls.size(); ++i) {
        const Call& call = calls[i];
        const auto result = static_cast<unsigned long long>(call.result);
        int n = std::snprintf(line, sizeof(line), "%zu: thread %u: ", i, call.thread);
        const auto rest = [&] { return sizeof(line) - static_cast<unsigned>(n); };
        if (call.kind == Call::kGet)
            n += std::snprintf(line + n, rest(), "get(%u)", call.wanted);
        else
            n += std::snprintf(line + n, rest(), "put(%#llx)",
                               static_cast<unsigned long long>(call.fragments));
        if (!call.returned)
            n += std::snprintf(line + n, rest(), " has not returned");
        else
            n += std::snprintf(line + n, rest(), " = %#llx", result);
        std::snprintf(line + n, rest(), ", after calls %#x\n", before[i]);
        text += line;
    }
    return text;
}

} // namespace devmem::test
