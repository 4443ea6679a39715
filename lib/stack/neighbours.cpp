// SPDX-License-Identifier: BSD-3-Clause

#include "lib/stack/neighbours.h"

namespace devmem {

Neighbours::Entry* Neighbours::find(const wire::Ip& ip)
{
    for (std::size_t i = 0; i < used_; i++) {
        if (entries_[i].ip == ip)
            return &entries_[i];
    }
    return nullptr;
}

bool Neighbours::resolve(const wire::Ip& next_hop, wire::Mac* mac)
{
    const std::lock_guard guard(lock_);
    Entry* entry = find(next_hop);
    if (entry == nullptr) {
        if (used_ < entries_.size())
            entry = &entries_[used_++];
        else
            entry = &entries_[next_victim_++ % entries_.size()];
        *entry = Entry{.ip = next_hop};
    }
    *mac = entry->mac;
    return entry->known;
}

void Neighbours::learn(const wire::Ip& ip, const wire::Mac& mac)
{
    const std::lock_guard guard(lock_);
    Entry* entry = find(ip);
    if (entry == nullptr || (entry->known && entry->mac == mac))
        return;
    entry->mac = mac;
    entry->known = true;
    version_.fetch_add(1, std::memory_order_release);
}

} // namespace devmem
