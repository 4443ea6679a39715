// SPDX-License-Identifier: BSD-3-Clause
// From segments to mbufs.

#include "lib/stack/log.h"
#include "lib/stack/shard.h"
#include "lib/stack/stack.h"

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

using namespace devmem;

/// Have a place in tx_ and a spare mbuf. @return false: there is none
bool devmem_shard::tx_make_room()
{
    if (tx_count_ == tx_.size())
        tx_flush();
    if (tx_count_ == tx_.size())
        return false;
    if (tx_spares_ != 0)
        return true;
    const auto get = [&](unsigned n) {
        void** const room = reinterpret_cast<void**>(tx_spare_.data());
        return rte_mempool_get_bulk(tx_pool_, room, n) == 0 ? n : 0;
    };
    tx_spares_ = get(static_cast<unsigned>(tx_spare_.size()));
    if (tx_spares_ == 0) // the last few one by one
        tx_spares_ = get(1);
    return tx_spares_ != 0;
}

/// At the end of a poll the pool has all that is not on its way.
void devmem_shard::tx_put_spares()
{
    if (tx_spares_ != 0)
        rte_mempool_put_bulk(tx_pool_, reinterpret_cast<void**>(tx_spare_.data()), tx_spares_);
    tx_spares_ = 0;
}

void devmem_shard::tx_flush()
{
    if (tx_count_ == 0)
        return;
    const unsigned sent =
        rte_eth_tx_burst(stack_.port_id, queue_, tx_.data(), static_cast<std::uint16_t>(tx_count_));
    stats_.tx_packets += sent;
    std::copy(tx_.begin() + sent, tx_.begin() + tx_count_, tx_.begin());
    tx_count_ -= sent;
}

/// Send a frame that was written into memory of ours (ARP, ND, ICMP): as many mbufs as it takes.
/// @return false: there are none, which is counted.
bool devmem_shard::tx_frame(std::span<const std::uint8_t> frame)
{
    if (frame.empty())
        return true;
    rte_mbuf* first = tx_mbuf();
    if (first == nullptr) {
        stats_.drop_tx_full++;
        return false;
    }
    first->pkt_len = first->data_len = 0;
    rte_mbuf* last = first;
    for (;;) {
        const std::size_t take = std::min<std::size_t>(frame.size(), rte_pktmbuf_tailroom(last));
        std::memcpy(rte_pktmbuf_mtod(last, void*), frame.data(), take);
        last->data_len = static_cast<std::uint16_t>(take);
        first->pkt_len += static_cast<std::uint32_t>(take);
        frame = frame.subspan(take);
        if (frame.empty())
            break;
        rte_mbuf* const more = rte_pktmbuf_alloc(tx_pool_);
        if (more == nullptr) {
            stats_.drop_tx_full++;
            rte_pktmbuf_free(first);
            return false;
        }
        last->next = more;
        first->nb_segs++;
        last = more;
    }
    tx_push(first);
    return true;
}

bool devmem_shard::tx_segment(const wire::Flow& flow, const tcp::SegmentOut& segment)
{
    rte_mbuf* m = tx_mbuf();
    if (m == nullptr)
        return false;
    const auto part = [](std::span<const std::byte> bytes) {
        return std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    };
    auto* out = rte_pktmbuf_mtod(m, std::uint8_t*);
    const wire::TcpHeader header{segment.seq.value(), segment.ack.value(), segment.window,
                                 segment.flags, segment.ect ? wire::kEct0 : wire::kNotEct};
    const std::size_t len =
        wire::write_tcp({out, rte_pktmbuf_tailroom(m)}, flow, header, segment.options,
                        part(segment.payload[0]), part(segment.payload[1]), ip_id_++);
    m->data_len = static_cast<std::uint16_t>(len);
    m->pkt_len = m->data_len;
    rte_mbuf* last = m;
    for (std::span<const std::byte> bytes : segment.payload) {
        while (!bytes.empty()) {
            std::size_t room = rte_pktmbuf_tailroom(last);
            if (room == 0) {
                rte_mbuf* const more = rte_pktmbuf_alloc(tx_pool_);
                if (more == nullptr) {
                    rte_pktmbuf_free(m);
                    return false;
                }
                last->next = more;
                m->nb_segs++;
                last = more;
                room = rte_pktmbuf_tailroom(last);
            }
            const std::size_t take = std::min(bytes.size(), room);
            std::memcpy(rte_pktmbuf_mtod_offset(last, void*, last->data_len), bytes.data(), take);
            last->data_len = static_cast<std::uint16_t>(last->data_len + take);
            m->pkt_len += static_cast<std::uint32_t>(take);
            bytes = bytes.subspan(take);
        }
    }
    tx_push(m);
    return true;
}

bool devmem_shard::emit(const tcp::SegmentOut& segment)
{
    return current_->mac_known && tx_segment(current_->flow, segment);
}

bool devmem_shard::ask_neighbour(const wire::Ip& next_hop, const wire::Ip& local)
{
    constexpr std::uint16_t kRequest = 1;
    std::array<std::uint8_t, 128> frame;
    const std::size_t len =
        next_hop.family == 4
            ? wire::write_arp(frame, kRequest, stack_.mac, local, wire::kBroadcast, next_hop)
            : wire::write_nd_solicitation(frame, stack_.mac, local, next_hop);
    return tx_frame(std::span(frame).first(len));
}

/// Connections that wait for a MAC: give it to them, ask again each second, give up after the third
/// (RFC 4861 10: MAX_UNICAST_SOLICIT, RETRANS_TIMER; RFC 1122 2.3.2.1: at most one per second).
void devmem_shard::serve_waiters()
{
    constexpr unsigned kTries = 3;
    constexpr tcp::Time kInterval = 1'000'000;
    const std::uint32_t version = stack_.neighbours.version();
    const bool news = version != neighbour_version_;
    neighbour_version_ = version;
    for (std::size_t i = 0; i < waiters_.size();) {
        Waiter& w = waiters_[i];
        Slot& slot = slots_[w.slot];
        bool done = !slot.used || slot.generation != w.generation;
        if (!done && news && stack_.neighbours.resolve(w.next_hop, &slot.flow.dst_mac)) {
            slot.ack = wire::AckTemplate(slot.flow);
            slot.mac_known = true;
            mark_dirty(w.slot);
            done = true;
        } else if (!done && now_ >= w.next_try) {
            if (w.tries == kTries) {
                stats_.drop_no_neighbour++;
                const std::uint32_t index = w.slot;
                w = waiters_.back();
                waiters_.pop_back();
                current_ = &slot;
                act(index, slot.tcp.unreachable(-EHOSTUNREACH, now_, ctx_));
                continue;
            }
            if (ask_neighbour(w.next_hop, slot.flow.src)) { // otherwise at the next poll
                w.tries++;
                w.next_try = now_ + kInterval;
            }
        }
        if (done) {
            w = waiters_.back();
            waiters_.pop_back();
        } else {
            i++;
        }
    }
}
