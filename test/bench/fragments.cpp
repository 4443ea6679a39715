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

} // namespace bench
