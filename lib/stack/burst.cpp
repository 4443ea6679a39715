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
#include <utility>

using namespace devmem;

namespace {

/// Headers as they lie in a packet, from the Ethernet type on, in pieces of 16 bytes: 12 bytes of
/// Ethernet before, then IP, TCP and timestamps.
constexpr std::uint32_t kFrom = 12;
constexpr std::size_t kPieces = 5;
using Piece [[gnu::vector_size(16)]] = std::uint64_t;

/// Ones where packets of a train are the same: all but DSCP, length, identification, hop limit,
/// checksums, sequence number, PSH and the urgent pointer, which is none.
struct HeaderMask {
    std::array<std::uint8_t, 16 * kPieces> bytes{};

    constexpr HeaderMask(bool ipv6, bool timestamps)
    {
        const auto same = [&](std::uint32_t at, std::uint32_t n) {
            for (std::uint32_t i = 0; i < n; i++)
                bytes[at - kFrom + i] = 0xff;
        };
        const std::uint32_t ip = 14, tcp = ip + (ipv6 ? 40 : 20);
        same(12, 2);
        if (ipv6) {
            bytes[ip - kFrom] = 0xf0;
            bytes[ip + 1 - kFrom] = wire::kCe << 4;
            same(ip + 6, 1);
            same(ip + 8, 32);
        } else {
            same(ip, 1);
            bytes[ip + 1 - kFrom] = wire::kCe;
            same(ip + 6, 2);
            same(ip + 9, 1);
            same(ip + 12, 8);
        }
        same(tcp, 4);
        same(tcp + 8, 4);
        same(tcp + 12, 1);
        bytes[tcp + 13 - kFrom] = 0xff & ~tcp::kPsh;
        same(tcp + 14, 2);
        if (timestamps)
            same(tcp + 20, 12);
    }
};

/// Of headers of one kind. Both have room for kFrom + 16 * kPieces bytes from their start.
template <bool ipv6, bool timestamps>
bool same_headers(const std::uint8_t* a, const std::uint8_t* b)
{
    static constexpr HeaderMask kMask{ipv6, timestamps};
    constexpr std::uint32_t kEnd = 14 + (ipv6 ? 40 : 20) + (timestamps ? 32 : 20);
    Piece differ{};
    for (std::uint32_t at = kFrom; at < kEnd; at += sizeof(Piece)) {
        Piece x, y, m;
        std::memcpy(&x, a + at, sizeof x);
        std::memcpy(&y, b + at, sizeof y);
        std::memcpy(&m, kMask.bytes.data() + at - kFrom, sizeof m);
        differ |= (x ^ y) & m;
    }
    return (differ[0] | differ[1]) == 0;
}

bool same_headers(const std::uint8_t* a, const std::uint8_t* b, bool ipv6, bool timestamps)
{
    if (!ipv6 && timestamps) [[likely]]
        return same_headers<false, true>(a, b);
    if (ipv6)
        return timestamps ? same_headers<true, true>(a, b) : same_headers<true, false>(a, b);
    return same_headers<false, false>(a, b);
}

/// Room for data, reference count, number of segments: as one word (rte_mbuf's rearm_data).
std::uint64_t shape(const rte_mbuf* m)
{
    std::uint64_t word;
    std::memcpy(&word, &m->rearm_data, sizeof word);
    return word;
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
            receive_singly(train);
    }
    flush_pending();
    lap(Stage::kTcp);
    free_headers(n);
    rte_pktmbuf_free_bulk(done_.data(), done_count_);
    done_count_ = 0;
    lap(Stage::kRelease);
    return n;
}

/// Whether a packet is of the common kind: headers in one mbuf of ours, payload in one fragment,
/// nothing to be checked by the CPU but its headers.
inline bool devmem_shard::plain(const rte_mbuf* m, wire::PlainSegment* segment) const
{
    constexpr std::uint64_t kNotDirect = RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
    // One holder and two segments.
    constexpr std::array<std::uint16_t, 2> kShape{1, 2};
    static_assert(offsetof(rte_mbuf, nb_segs) == offsetof(rte_mbuf, refcnt) + 2);
    if (std::memcmp(&m->refcnt, kShape.data(), sizeof kShape) != 0 || m->pool != header_pool_ ||
        !vouched(m->ol_flags) || (m->ol_flags & kNotDirect) != 0)
        return false;
    const rte_mbuf* const text = m->next;
    const bool ip_checked =
        (m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
    return text->pool == payload_->device_mempool() &&
           wire::parse_plain(rte_pktmbuf_mtod(m, const std::uint8_t*), rte_pktmbuf_data_len(m),
                             rte_pktmbuf_pkt_len(m), ip_checked, segment) &&
           segment->text_bytes == rte_pktmbuf_data_len(text);
}

/// Whether a packet says what the train's first does, and goes on where the train ends: it is part
/// of it then. What holds for the first packet need not be looked at again.
inline bool devmem_shard::follows(const rte_mbuf* m, Train& train) const
{
    // A packet that lies in the payload pool whole may not be looked at. In an mbuf of ours there
    // is something where the number would be, whatever the packet.
    if (m->pool != header_pool_)
        return false;
    wire::PlainSegment& segment = train.segment;
    const auto* const head = rte_pktmbuf_mtod(m, const std::uint8_t*);
    const std::uint8_t* const tcp = head + segment.l4;
    if (wire::load32(tcp + 4) != train.next_seq)
        return false; // as most of other connections
    const rte_mbuf* const first = burst_[train.first];
    const std::uint32_t header_bytes = rte_pktmbuf_data_len(m);
    if (header_bytes != rte_pktmbuf_data_len(first) || shape(m) != shape(first) ||
        m->ol_flags != first->ol_flags ||
        (m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) != RTE_MBUF_F_RX_IP_CKSUM_GOOD)
        return false;
    const rte_mbuf* const text = m->next;
    const std::uint32_t text_bytes = rte_pktmbuf_data_len(text);
    // By the IP header: of IPv4 its own is counted, of IPv6 not.
    const std::uint32_t ip_bytes =
        segment.ipv6() ? wire::load16(head + 18) + 54u : wire::load16(head + 16) + 14u;
    if (text->pool != payload_->device_mempool() || text_bytes == 0 ||
        header_bytes + text_bytes != rte_pktmbuf_pkt_len(m) || ip_bytes != rte_pktmbuf_pkt_len(m) ||
        segment.text_bytes + text_bytes > kLongestTrain ||
        !same_headers(head, segment.tcp - segment.l4, segment.ipv6(), segment.timestamps))
        return false;
    segment.text_bytes += text_bytes;
    train.next_seq += text_bytes;
    train.flags |= tcp[13];
    train.packets++;
    return true;
}

/// @return how many there are
[[gnu::noinline]] unsigned devmem_shard::form_trains(unsigned packets)
{
    constexpr unsigned kAhead = 8;
    const auto prefetch = [&](unsigned i) {
        rte_prefetch0(rte_pktmbuf_mtod(burst_[i], const void*));
        rte_prefetch0(burst_[i]->next);
    };
    for (unsigned i = 0; i < std::min(packets, kAhead); i++)
        prefetch(i);
    Train* next = trains_.data();
    Train* last = nullptr; // the train that may go on
    for (unsigned i = 0; i < packets; i++) {
        if (i + kAhead < packets)
            prefetch(i + kAhead);
        const rte_mbuf* const m = burst_[i];
        if (last != nullptr && follows(m, *last))
            continue;
        Train& train = *next++;
        wire::PlainSegment segment;
        train.first = static_cast<std::uint8_t>(i);
        train.packets = 1;
        train.plain = plain(m, &segment);
        if (!train.plain) [[unlikely]] {
            last = nullptr;
            continue;
        }
        last = &train;
        train.segment = segment;
        train.next_seq = segment.seq() + segment.text_bytes;
        train.flags = segment.flags();
        train.hash = flows_->hash(key_of(segment));
        flows_->prefetch(train.hash);
    }
    return static_cast<unsigned>(next - trains_.data());
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
    const FlowTable& flows = *flows_;
    const Slot* const slots = &slots_[0];
    for (Train& train : std::span(trains_).first(trains)) {
        if (!train.plain) [[unlikely]]
            continue;
        const std::uint32_t slot = flows.guess(train.hash);
        train.slot = slot;
        if (slot != FlowTable::kNotFound) [[likely]]
            prefetch(slots[slot]);
    }
}

namespace {

/// What is behind a header. The header's mbuf is as a free one is to be, then.
const rte_mbuf* detach_text(rte_mbuf* m)
{
    const rte_mbuf* const text = m->next;
    m->next = nullptr;
    m->nb_segs = 1;
    return text;
}

/// What a train is to the engine. @param options with room for what is in its segments
inline tcp::Segment segment_of(const wire::PlainSegment& plain, std::uint8_t flags,
                               unsigned packets, std::span<const tcp::Run> runs,
                               wire::TcpOptions& options)
{
    options.timestamps = plain.timestamps;
    options.ts_val = plain.ts_val();
    options.ts_ecr = plain.ts_ecr();
    return {
        .seq = tcp::Seq(plain.seq()),
        .ack = tcp::Seq(plain.ack()),
        .window = plain.window(),
        .flags = flags,
        .wire_segments = static_cast<std::uint16_t>(packets),
        .len = plain.text_bytes,
        .payload = runs,
        .options = &options,
    };
}

} // namespace

/// Payload out of a train's packets, as runs: what RunStore::adjoin() says, by address.
std::span<const tcp::Run> devmem_shard::take_texts(const Train& train)
{
    const std::uint32_t fragment_bytes = payload_->device_layout().fragment_bytes;
    const std::uintptr_t in_page = payload_->device_layout().page_bytes - 1;
    std::uintptr_t next = 0; // where a buffer that continues the run lies; 0: none does
    unsigned runs = 0;
    tcp::Run* run = nullptr;
    for (unsigned i = train.first; i < train.first + train.packets; i++) {
        const rte_mbuf* const text = detach_text(burst_[i]);
        const auto at = reinterpret_cast<std::uintptr_t>(text->buf_addr);
        const std::uint32_t off = text->data_off, bytes = text->data_len;
        if (at == next && off == 0 && (payload_->in_region(at) & in_page) != 0) [[likely]] {
            run->count++;
            run->len += bytes;
        } else {
            run = &train_runs_[runs++];
            *run = {payload_->fragment_of(text->buf_addr), 1, off, bytes};
        }
        next = off + bytes == fragment_bytes ? at + fragment_bytes : 0;
    }
    return std::span(train_runs_).first(runs);
}

/// One segment for the engine of what came in several packets.
void devmem_shard::receive_train(const Train& train)
{
    flush_pending();
    const wire::PlainSegment& plain = train.segment;
    std::uint32_t index = train.slot;
    Slot* slot = index != FlowTable::kNotFound ? &slots_[index] : nullptr;
    if (slot == nullptr || !slot->in_table ||
        !slot->key.names(plain.ipv6(), plain.addresses(), plain.ports())) [[unlikely]] {
        index = flows_->find(train.hash, key_of(plain));
        if (index == FlowTable::kNotFound) {
            receive_singly(train);
            return;
        }
        slot = &slots_[index];
    }
    if (train.packets == 1)
        receive_train_of_one(train, *slot, index);
    else
        receive_train_of_many(train, *slot, index);
}

[[gnu::always_inline]] inline void devmem_shard::receive_text(const Train& train, Slot& slot,
                                                              std::uint32_t index, unsigned packets,
                                                              std::span<const tcp::Run> runs)
{
    tcp::Actions actions;
    wire::TcpOptions options;
    if (!slot.tcp.take_predicted(segment_of(train.segment, train.flags, packets, runs, options),
                                 now_, ctx_, &actions)) [[unlikely]] {
        receive_unpredicted(train, index, runs);
        return;
    }
    if (slot.tcp.ack_due())
        rte_prefetch0(&slot.ack);
    act_usually(slot, index, actions);
}

// Most are of one packet where there are many connections, and of many where there is one: both
// know how many runs there are, or need not care.

[[gnu::always_inline]] inline void
devmem_shard::receive_train_of_one(const Train& train, Slot& slot, std::uint32_t index)
{
    const rte_mbuf* const text = detach_text(burst_[train.first]);
    const tcp::Run run{payload_->fragment_of(text->buf_addr), 1, text->data_off, text->data_len};
    receive_text(train, slot, index, 1, {&run, 1});
}

[[gnu::noinline]] void devmem_shard::receive_train_of_many(const Train& train, Slot& slot,
                                                           std::uint32_t index)
{
    receive_text(train, slot, index, train.packets, take_texts(train));
}

[[gnu::noinline]] void devmem_shard::receive_unpredicted(const Train& train, std::uint32_t index,
                                                         std::span<const tcp::Run> runs)
{
    wire::TcpOptions options;
    const tcp::Segment segment =
        segment_of(train.segment, train.flags, train.packets, runs, options);
    current_ = &slots_[index];
    act(index, current_->tcp.process_any(segment, now_, ctx_));
}

/// The long way, which takes packets whole.
void devmem_shard::receive_singly(const Train& train)
{
    singly_ = true;
    for (unsigned i = train.first; i < train.first + train.packets; i++)
        receive(std::exchange(burst_[i], nullptr));
}

/// Of packets whose text has gone to the engine: all of the burst that receive() did not have.
void devmem_shard::free_headers(unsigned packets)
{
    unsigned n = packets;
    if (singly_) [[unlikely]]
        n = static_cast<unsigned>(std::remove(burst_.begin(), burst_.begin() + packets, nullptr) -
                                  burst_.begin());
    singly_ = false;
    if (n == 0)
        return;
    stats_.rx_tcp_segments += n;
    payload_->taken(n);
    rte_mempool_put_bulk(header_pool_, reinterpret_cast<void**>(burst_.data()), n);
}
