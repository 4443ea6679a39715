// SPDX-License-Identifier: BSD-3-Clause
#include "lib/stack/flow_table.h"

#include "lib/tcp/isn.h"

#include <algorithm>
#include <bit>

namespace devmem {

FlowTable::FlowTable(std::uint32_t connections, const std::array<std::uint64_t, 2>& secret,
                     FlowKey* keys, std::size_t stride)
    : mask_(std::bit_ceil(std::max<std::size_t>(2 * std::size_t{connections}, 8)) - 1),
      buckets_(mask_ + 1), keys_(reinterpret_cast<std::byte*>(keys)), stride_(stride)
{
    // ISNs are made with the same secret from inputs of five words: these, of one, are others.
    for (std::uint64_t i = 0; i < secret_.size(); ++i)
        secret_[i] = tcp::siphash(secret, &i, 1);
}

void FlowTable::insert(std::uint32_t hash, const FlowKey& key, std::uint32_t slot)
{
    buckets_[locate(hash, key)] = {hash, slot};
    key_of(slot) = key;
    ++size_;
}

// Every entry behind the hole moves into it if the hole lies between its home and where it is:
//
//     home ... hole ... at        moves, and leaves the next hole
//     hole ... home ... at        stays: a lookup starts behind the hole
//
// Distances are taken modulo the table's size, so that this holds where a sequence wraps.
std::uint32_t FlowTable::erase(std::uint32_t hash, const FlowKey& key)
{
    std::size_t hole = locate(hash, key);
    const std::uint32_t slot = buckets_[hole].slot;
    if (slot == kNotFound)
        return kNotFound;
    for (std::size_t at = (hole + 1) & mask_; buckets_[at].slot != kNotFound;
         at = (at + 1) & mask_) {
        const std::size_t from_home = (at - buckets_[at].tag) & mask_;
        const std::size_t from_hole = (at - hole) & mask_;
        if (from_home >= from_hole) {
            buckets_[hole] = buckets_[at];
            hole = at;
        }
    }
    buckets_[hole].slot = kNotFound;
    --size_;
    return slot;
}

} // namespace devmem
