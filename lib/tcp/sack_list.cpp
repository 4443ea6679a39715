// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/sack_list.h"

namespace devmem::tcp {

void SackList::changed(const RunStore& runs, const OooStore& store, Seq seq)
{
    // Islands that drained or joined this one leave the list.
    const std::uint32_t island = store.find(runs, seq);
    std::array<Seq, 4> recent{};
    std::uint8_t count = 0;
    if (island != OooStore::kNone)
        recent[count++] = seq;
    for (std::uint8_t i = 0; i < count_ && count < recent.size(); i++) {
        const std::uint32_t other = store.find(runs, recent_[i]);
        if (other != OooStore::kNone && other != island)
            recent[count++] = recent_[i];
    }
    recent_ = recent;
    count_ = count;
}

void SackList::write(const RunStore& runs, const OooStore& store, const Seq* fin, unsigned room,
                     wire::TcpOptions* options) const
{
    std::uint8_t n = 0;
    if (has_duplicate())
        options->sack[n++] = duplicate_;
    for (std::uint8_t i = 0; i < count_ && n < room; i++) {
        const std::uint32_t island = store.find(runs, recent_[i]);
        if (island == OooStore::kNone)
            continue;
        const bool with_fin = fin && runs[island].end == *fin;
        options->sack[n++] = {runs[island].seq.value(),
                              (runs[island].end + (with_fin ? 1u : 0u)).value()};
    }
    options->sack_count = n;
}

} // namespace devmem::tcp
