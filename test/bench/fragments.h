// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/page_pool/page_pool.h"

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

namespace bench {

struct FreeBlock {
    void operator()(devmem::PagePool* pool) const { std::free(pool); }
};
using Fragments = std::unique_ptr<devmem::PagePool, FreeBlock>;

/// A page pool with no mempool around it, all of its fragments free, for two lcores.
Fragments make_fragments(std::uint32_t fragments, std::uint32_t per_page);

/// Take as many fragments as there is room for runs, `bulk` at a time, and put them back run by
/// run.
/// @return false: the pool had fewer
bool take_and_put_back(devmem::PagePool& pool, unsigned lane, unsigned bulk,
                       std::span<devmem::FragmentRun> runs);

} // namespace bench
