// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/payload.h"

#include <algorithm>

namespace devmem::tcp {

Payload::Payload(Seq seq, std::uint32_t len, std::span<const Run> runs, const RunStore& store,
                 Sink& sink)
    : rest_(runs), seq_(seq), left_(len), store_(store), sink_(sink)
{
    settle();
}

Payload::~Payload()
{
    release_current();
    for (const Run& run : rest_)
        sink_.release(run.first, run.count);
}

std::uint32_t Payload::fragments() const
{
    std::uint32_t sum = 0;
    std::uint32_t bytes = left_;
    const auto add = [&](const Run& run) {
        if (bytes >= run.len) {
            sum += run.count;
            bytes -= run.len;
        } else if (bytes != 0) {
            const std::uint32_t size = store_.fragment_bytes(run.first);
            sum += (run.off + bytes + size - 1) / size;
            bytes = 0;
        }
    };
    add(cur_);
    for (const Run& run : rest_)
        add(run);
    return sum;
}

void Payload::release_current()
{
    if (cur_.count != 0)
        sink_.release(cur_.first, cur_.count);
}

/// Move on to a run that has bytes.
void Payload::settle()
{
    while (cur_.len == 0) {
        release_current();
        if (rest_.empty()) {
            cur_ = {};
            left_ = 0;
            return;
        }
        cur_ = rest_.front();
        rest_ = rest_.subspan(1);
    }
}

void Payload::truncate(Seq end)
{
    if (end < this->end())
        left_ = end <= seq_ ? 0 : distance(seq_, end);
}

void Payload::skip(std::uint32_t n)
{
    while (n != 0 && left_ != 0) {
        const std::uint32_t size = store_.fragment_bytes(cur_.first);
        const std::uint32_t step = std::min(n, cur_.len);
        const std::uint32_t passed = step == cur_.len ? cur_.count : (cur_.off + step) / size;
        if (passed != 0)
            sink_.release(cur_.first, passed);
        cur_ = {cur_.first + passed, cur_.count - passed, (cur_.off + step) % size,
                cur_.len - step};
        n -= step;
        seq_ += step;
        left_ -= step;
        settle();
    }
}

Run Payload::take(std::uint32_t n, std::uint32_t* dropped)
{
    Run run = cur_;
    if (n >= cur_.len) {
        *dropped = 0;
        cur_ = {};
        seq_ += run.len;
        left_ -= run.len;
    } else {
        const std::uint32_t size = store_.fragment_bytes(cur_.first);
        run.len = n;
        run.count = (cur_.off + n + size - 1) / size;
        const std::uint32_t shared = std::min(run.count * size - (cur_.off + n), cur_.len - n);
        *dropped = std::min(shared, left_ - n);
        cur_ = {cur_.first + run.count, cur_.count - run.count, 0, cur_.len - n - shared};
        seq_ += n + *dropped;
        left_ -= n + *dropped;
    }
    settle();
    return run;
}

} // namespace devmem::tcp
