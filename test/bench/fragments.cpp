// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/fragments.h"

#include <algorithm>
#include <cstddef>
#include <new>

namespace bench {

Fragments make_fragments(std::uint32_t fragments, std::uint32_t per_page)
{
    const devmem::PagePoolConfig config{
        .name = "bench", .fragments = fragments, .fragments_per_page = per_page, .lcores = 2};
    constexpr std::size_t kAlign = 64;
    const std::size_t bytes = (devmem::PagePool::bytes(config) + kAlign - 1) / kAlign * kAlign;
    void* block = std::aligned_alloc(kAlign, bytes);
    if (block == nullptr)
        throw std::bad_alloc();
    Fragments pool(devmem::PagePool::create(block, config));
    for (std::uint32_t f = 0; f < fragments; f += per_page)
        pool->free_run(devmem::kNoLcore, {f, std::min(per_page, fragments - f)});
    return pool;
}

bool take_and_put_back(devmem::PagePool& pool, unsigned lane, unsigned bulk,
                       std::span<devmem::FragmentRun> runs)
{
    unsigned count = 0;
    for (std::size_t i = 0; i < runs.size(); i += bulk) {
        const unsigned got = pool.alloc_runs(lane, bulk, runs.data() + count);
        if (got == 0)
            return false;
        count += got;
    }
    for (unsigned i = 0; i < count; ++i)
        pool.free_run(lane, runs[i]);
    return true;
}

} // namespace bench
