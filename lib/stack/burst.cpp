// SPDX-License-Identifier: BSD-3-Clause
// A burst from the port, in steps that each go over all of it, so that what one step will need is
// on its way into the cache while another still works: headers are read, packets that go together
// are put together, connections are looked up, and the engine hears of each train once.
#include "lib/stack/shard.h"
#include "lib/stack/stack.h"

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>

using namespace devmem;

namespace {

/// The port has checked it, or vouches for the data although the field in the packet is not it.
bool vouched(std::uint64_t flags)
{
    const std::uint64_t l4 = flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
    return l4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD || l4 == RTE_MBUF_F_RX_L4_CKSUM_NONE;
}

/// Far below any window: sequence arithmetic stays safe.
constexpr std::uint32_t kLongestTrain = 1u << 20;

bool continues(const wire::PlainSegment& train, const wire::PlainSegment& next)
{
    // Where addresses lie, 8 bytes of IPv4, 32 of IPv6.
    const auto same_addresses = [&] {
        return std::memcmp(train.addresses, next.addresses, 8) == 0 &&
               (!train.ipv6 || std::memcmp(train.addresses + 8, next.addresses + 8, 24) == 0);
    };
    return next.seq == train.seq + train.text_bytes && next.ports == train.ports &&
           next.ack == train.ack && next.window == train.window && next.ts_val == train.ts_val &&
           next.ts_ecr == train.ts_ecr && next.timestamps == train.timestamps &&
           next.ipv6 == train.ipv6 && train.text_bytes + next.text_bytes <= kLongestTrain &&
           same_addresses();
}

} // namespace

unsigned devmem_shard::receive_burst()
{
    if (!receiving_) [[unlikely]]
        return 0;
    const unsigned n = rte_eth_rx_burst(stack_.port_id, queue_, burst_.data(), kBurst);
    lap(Stage::kPoll);
    if (n == 0)
        return 0;
    stats_.rx_packets += n;
    const unsigned trains = form_trains(n);
    lap(Stage::kParse);
    find_connections(trains);
    lap(Stage::kLookup);
    for (unsigned i = 0; i < trains; i++) {
        const Train& train = trains_[i];
        if (train.plain) [[likely]]
            receive_train(train);
        else
            receive(burst_[train.first]);
    }
    flush_pending();
    lap(Stage::kTcp);
    free_headers();
    rte_pktmbuf_free_bulk(done_.data(), done_count_);
    done_count_ = 0;
    lap(Stage::kRelease);
    return n;
}

/// Whether a packet is of the common kind: headers in one mbuf of ours, payload in one fragment,
/// nothing to be checked by the CPU but its headers.
bool devmem_shard::plain(rte_mbuf* m, wire::PlainSegment* segment) const
{
    if (m->nb_segs != 2 || m->pool != header_pool_ || !vouched(m->ol_flags) ||
        !RTE_MBUF_DIRECT(m) || rte_mbuf_refcnt_read(m) != 1)
        return false;
    const rte_mbuf* const text = m->next;
    const bool ip_checked =
        (m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
    return text->pool == payload_->device_mempool() &&
           wire::parse_plain(rte_pktmbuf_mtod(m, const std::uint8_t*), rte_pktmbuf_data_len(m),
                             rte_pktmbuf_pkt_len(m), ip_checked, segment) &&
           segment->text_bytes == rte_pktmbuf_data_len(text);
}

/// @return how many there are
unsigned devmem_shard::form_trains(unsigned packets)
{
    constexpr unsigned kAhead = 8;
    const auto prefetch = [&](unsigned i) {
        rte_prefetch0(rte_pktmbuf_mtod(burst_[i], const void*));
        rte_prefetch0(burst_[i]->next);
    };
    for (unsigned i = 0; i < std::min(packets, kAhead); i++)
        prefetch(i);
    unsigned trains = 0;
    Train* last = nullptr; // the train that may go on
    for (unsigned i = 0; i < packets; i++) {
        if (i + kAhead < packets)
            prefetch(i + kAhead);
        Train& train = trains_[trains];
        const bool is_plain = plain(burst_[i], &train.segment);
        if (is_plain && last != nullptr && continues(last->segment, train.segment)) {
            last->packets++;
            last->segment.text_bytes += train.segment.text_bytes;
            last->segment.flags |= train.segment.flags;
            continue;
        }
        train.first = static_cast<std::uint8_t>(i);
        train.packets = 1;
        train.plain = is_plain;
        last = is_plain ? &train : nullptr;
        trains++;
    }
    return trains;
}

/// What a segment in order needs of a connection.
void devmem_shard::prefetch(const Slot& slot)
{
    constexpr unsigned kLine = 64;
    const auto* at = reinterpret_cast<const std::byte*>(&slot);
    rte_prefetch0(at);
    rte_prefetch0(at + kLine);
    rte_prefetch0(at + 2 * kLine);
}

void devmem_shard::find_connections(unsigned trains)
{
    for (unsigned i = 0; i < trains; i++) {
        Train& train = trains_[i];
        if (!train.plain)
            continue;
        const std::uint8_t* const addresses = train.segment.addresses;
        // In place: a copy would read in one piece what was written in several.
        new (&train.key) FlowKey(train.segment.ipv6, addresses,
                                 addresses + (train.segment.ipv6 ? 16 : 4), train.segment.ports);
        train.hash = flows_->hash(train.key);
        flows_->prefetch(train.hash);
    }
    for (unsigned i = 0; i < trains; i++) {
        Train& train = trains_[i];
        if (!train.plain)
            continue;
        train.slot = flows_->guess(train.hash);
        if (train.slot != FlowTable::kNotFound)
            prefetch(slots_[train.slot]);
    }
}

/// One segment for the engine of what came in several packets.
void devmem_shard::receive_train(const Train& train)
{
    flush_pending();
    const bool known = train.slot != FlowTable::kNotFound && slots_[train.slot].in_table &&
                       slots_[train.slot].key == train.key;
    const std::uint32_t index = known ? train.slot : flows_->find(train.hash, train.key);
    rte_mbuf** const packets = &burst_[train.first];
    if (index == FlowTable::kNotFound) [[unlikely]] {
        for (unsigned i = 0; i < train.packets; i++)
            receive(packets[i]);
        return;
    }
    unsigned runs = 0;
    for (unsigned i = 0; i < train.packets; i++) {
        rte_mbuf* const m = packets[i];
        const rte_mbuf* const text = m->next;
        const tcp::Run run{payload_->fragment_of(text->buf_addr), 1, text->data_off,
                           text->data_len};
        m->next = nullptr;
        m->nb_segs = 1;
        headers_[header_count_++] = m;
        if (runs != 0 && runs_.adjoin(train_runs_[runs - 1], run)) {
            train_runs_[runs - 1].count++;
            train_runs_[runs - 1].len += run.len;
        } else {
            train_runs_[runs++] = run;
        }
    }
    payload_->taken(train.packets);
    stats_.rx_tcp_segments += train.packets;

    const wire::PlainSegment& plain = train.segment;
    plain_options_.timestamps = plain.timestamps;
    plain_options_.ts_val = plain.ts_val;
    plain_options_.ts_ecr = plain.ts_ecr;
    const tcp::Segment segment{
        .seq = tcp::Seq(plain.seq),
        .ack = tcp::Seq(plain.ack),
        .window = plain.window,
        .flags = plain.flags,
        .wire_segments = train.packets,
        .len = plain.text_bytes,
        .payload = std::span(train_runs_).first(runs),
        .options = &plain_options_,
        .ipv6 = plain.ipv6,
    };
    Slot& slot = slots_[index];
    current_ = &slot;
    act(index, slot.tcp.process(segment, now_, ctx_));
    if (slot.tcp.ack_due())
        rte_prefetch0(&slot.ack);
}

void devmem_shard::free_headers()
{
    if (header_count_ != 0)
        rte_mempool_put_bulk(header_pool_, reinterpret_cast<void**>(headers_.data()),
                             header_count_);
    header_count_ = 0;
}
