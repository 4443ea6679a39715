// SPDX-License-Identifier: BSD-3-Clause
// A frame becomes a packet: headers into segment 0, payload into fragments.
#include "drivers/net/hds/queue.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <rte_byteorder.h>
#include <rte_mbuf.h>

namespace devmem::hds {
namespace {

/// Writes payload at a position counted from the start of the queue's first fragment.
class PayloadWriter {
public:
    explicit PayloadWriter(RxQueue& queue) : queue_(queue) {}

    void write(std::uint32_t at, const std::byte* from, std::size_t len)
    {
        const std::uint32_t room = queue_.payload_room;
        while (len != 0) {
            const Fragment& f = queue_.fragment[queue_.fragment_first + at / room];
            const std::size_t n = std::min<std::size_t>(len, room - at % room);
            if (f.data != nullptr)
                std::memcpy(f.data + at % room, from, n);
            else
                defer(f, at % room, from, n);
            at += static_cast<std::uint32_t>(n);
            from += n;
            len -= n;
        }
    }

    /// @return false: the provider failed.
    bool finish()
    {
        if (batched_ != 0 && error_ == 0) {
            const Region& region = *queue_.payload_map.region();
            error_ = region.provider->dma_write(region, {batch_.data(), batched_});
        }
        batched_ = 0;
        return error_ == 0;
    }

private:
    void defer(const Fragment& f, std::uint32_t offset, const std::byte* from, std::size_t n)
    {
        if (batched_ == batch_.size())
            finish();
        const std::uint64_t buffer = queue_.payload_map.offset(f.mbuf->buf_addr);
        batch_[batched_++] = {buffer + queue_.payload_offset + offset, const_cast<std::byte*>(from),
                              n};
    }

    RxQueue& queue_;
    std::array<Transfer, 64> batch_;
    std::size_t batched_ = 0;
    int error_ = 0;
};

/// Move payload bytes [0, len), counted from the first fragment, `by` bytes on. From the end
/// backwards, so that no byte is overwritten before it has moved.
void shift_payload(RxQueue& queue, std::uint32_t len, std::uint32_t by)
{
    const std::uint32_t room = queue.payload_room;
    const Fragment* fragment = queue.fragment + queue.fragment_first;
    while (len != 0) {
        const std::uint32_t from = (len - 1) % room + 1; // bytes up to `len` in its fragment
        const std::uint32_t to = (len + by - 1) % room + 1;
        const std::uint32_t n = std::min(from, to);
        std::memmove(fragment[(len + by - 1) / room].data + to - n,
                     fragment[(len - 1) / room].data + from - n, n);
        len -= n;
    }
}

rte_mbuf* take_head(RxQueue& queue)
{
    rte_mbuf* m = queue.head[--queue.heads];
    rte_pktmbuf_reset(m);
    m->data_off = queue.head_offset;
    return m;
}

std::byte* data_of(rte_mbuf* m)
{
    return rte_pktmbuf_mtod(m, std::byte*);
}

/// Put the whole frame into mbufs of segment 0's pool.
/// @return nullptr: no mbufs.
rte_mbuf* place_whole(RxQueue& queue, const Bytes& frame, std::uint32_t in_place)
{
    rte_mbuf* first = take_head(queue);
    rte_mbuf* last = first;
    last->data_len = static_cast<std::uint16_t>(in_place);
    for (std::uint32_t at = in_place; at < frame.size();) {
        if (last->data_len == queue.head_room) {
            if (!rx_ready_head(queue)) {
                rte_pktmbuf_free(first);
                return nullptr;
            }
            last = last->next = take_head(queue);
            ++first->nb_segs;
        }
        const auto n = static_cast<std::uint16_t>(
            std::min<std::uint32_t>(frame.size() - at, queue.head_room - last->data_len));
        frame.copy(at, data_of(last) + last->data_len, n);
        last->data_len = static_cast<std::uint16_t>(last->data_len + n);
        at += n;
    }
    queue.stats.header_bytes += frame.size();
    return first;
}

/// Take `payload` bytes of fragments, of which the first begins with `gap` bytes of header.
void chain_payload(RxQueue& queue, rte_mbuf* head, std::uint32_t gap, std::uint32_t payload)
{
    rte_mbuf* last = head;
    while (payload != 0) {
        rte_mbuf* m = queue.fragment[queue.fragment_first++].mbuf;
        --queue.fragments;
        const std::uint32_t n = std::min(payload, queue.payload_room - gap);
        m->ol_flags &= RTE_MBUF_F_EXTERNAL;
        m->port = queue.port_id;
        m->data_off = static_cast<std::uint16_t>(queue.payload_offset + gap);
        m->data_len = static_cast<std::uint16_t>(n);
        last = last->next = m;
        ++head->nb_segs;
        payload -= n;
        gap = 0;
    }
}

/// The kernel scattered a frame: `in_head` bytes into the header mbuf, the rest into the fragments,
/// as predicted. Put right what the prediction missed.
///
///     predicted   |<----- in_head ---->|<-- first fragment ...
///     late        |<-- cut -->|payload |payload              the payload moves on
///     early       |<-------- cut ----------->|payload        the header's rest is fetched: a gap
rte_mbuf* place_scattered(RxQueue& queue, const Bytes& frame, std::uint32_t cut,
                          std::uint32_t in_head)
{
    rte_mbuf* m = take_head(queue);
    m->data_len = static_cast<std::uint16_t>(cut);
    const std::uint32_t payload = frame.size() - cut;
    std::uint32_t gap = 0;
    if (cut < in_head) {
        const std::uint32_t moved = std::min(in_head, frame.size()) - cut;
        shift_payload(queue, payload - moved, moved);
        PayloadWriter(queue).write(0, data_of(m) + cut, moved);
        ++queue.stats.split_late_moves;
    } else if (cut > in_head) {
        frame.copy(in_head, data_of(m) + in_head, cut - in_head);
        // Fragments that hold nothing but header change places with those that hold payload.
        const std::uint32_t room = queue.payload_room;
        const std::uint32_t skip = (cut - in_head) / room;
        const std::uint32_t end = (frame.size() - in_head + room - 1) / room;
        Fragment* first = queue.fragment + queue.fragment_first;
        std::rotate(first, first + skip, first + end);
        gap = (cut - in_head) % room;
        ++queue.stats.split_early_gaps;
    }
    chain_payload(queue, m, gap, payload);
    return m;
}

/// Copy a frame from elsewhere. @return nullptr: no mbufs (nothing has changed), or `*failed`.
rte_mbuf* place_copied(RxQueue& queue, const Bytes& frame, std::uint32_t cut, bool* failed)
{
    const std::uint32_t payload = frame.size() - cut;
    if (!rx_ready_fragments(queue, (payload + queue.payload_room - 1) / queue.payload_room)) {
        ++queue.stats.no_payload_mbuf;
        return nullptr;
    }
    PayloadWriter writer(queue);
    std::uint32_t at = 0;
    frame.each(cut, payload, [&](const std::byte* from, std::size_t n) {
        writer.write(at, from, n);
        at += static_cast<std::uint32_t>(n);
    });
    if (!writer.finish()) {
        ++queue.stats.dma_errors;
        *failed = true;
        return nullptr;
    }
    rte_mbuf* m = take_head(queue);
    m->data_len = static_cast<std::uint16_t>(cut);
    frame.copy(0, data_of(m), cut);
    chain_payload(queue, m, 0, payload);
    return m;
}

Headers classify(RxQueue& queue, const Bytes& frame)
{
    Headers headers;
    const iovec& front = frame.front();
    const auto* head = static_cast<const std::uint8_t*>(front.iov_base);
    if (!parse_headers({head, std::min<std::size_t>(front.iov_len, frame.size())}, frame.size(),
                       &headers)) {
        const std::uint32_t n = std::min(frame.size(), kMaxHeaders);
        frame.copy(0, queue.scratch, n);
        parse_headers({queue.scratch, n}, frame.size(), &headers);
    }
    return headers;
}

/// Where the payload begins; the frame's size if it is to stay whole.
std::uint32_t cut_of(const RxQueue& queue, const Bytes& frame, const Headers& headers)
{
    if (queue.split == Split::kNone || queue.split == Split::kLength)
        return std::min<std::uint32_t>(queue.length, frame.size());
    if (frame.size() > queue.hds_thresh && splits(queue.split, headers) &&
        headers.header_bytes() <= queue.head_room)
        return headers.header_bytes();
    return frame.size();
}

bool udp_good(const Bytes& frame, std::uint32_t l4, const Headers& headers, std::uint32_t* bytes)
{
    rte_be16_t length;
    frame.copy(l4 + 4, &length, sizeof length);
    *bytes = rte_be_to_cpu_16(length);
    return *bytes >= 8 && *bytes <= headers.l4_bytes;
}

std::uint64_t l4_flags(const RxQueue& queue, const Bytes& frame, const Headers& headers,
                       std::uint8_t vnet_flags)
{
    const std::uint32_t type = headers.packet_type & RTE_PTYPE_L4_MASK;
    const bool tcp = type == RTE_PTYPE_L4_TCP;
    if (!tcp && type != RTE_PTYPE_L4_UDP)
        return 0;
    // A local sender left the field to be filled in by its NIC: the data never left the machine.
    if ((vnet_flags & VirtioHeader::kNeedsChecksum) != 0)
        return RTE_MBUF_F_RX_L4_CKSUM_NONE;
    if ((queue.offloads & (tcp ? RTE_ETH_RX_OFFLOAD_TCP_CKSUM : RTE_ETH_RX_OFFLOAD_UDP_CKSUM)) == 0)
        return 0;
    if ((vnet_flags & VirtioHeader::kDataValid) != 0)
        return RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    const std::uint32_t l4 = std::uint32_t{headers.l2_len} + headers.l3_len;
    const bool ipv6 = RTE_ETH_IS_IPV6_HDR(headers.packet_type) != 0;
    std::uint32_t bytes = headers.l4_bytes;
    if (!tcp) {
        rte_be16_t checksum;
        frame.copy(l4 + 6, &checksum, sizeof checksum);
        if (checksum == 0 && !ipv6) // none was computed (RFC 768): nothing is known
            return 0;
        if (checksum == 0 || !udp_good(frame, l4, headers, &bytes))
            return RTE_MBUF_F_RX_L4_CKSUM_BAD;
    }
    const std::uint64_t sum =
        pseudo_sum(frame, headers.l2_len, ipv6, tcp ? 6 : 17, bytes) + frame.sum(l4, bytes);
    return fold(sum) == 0xffff ? RTE_MBUF_F_RX_L4_CKSUM_GOOD : RTE_MBUF_F_RX_L4_CKSUM_BAD;
}

std::uint64_t checksum_flags(RxQueue& queue, const Bytes& frame, const Headers& headers,
                             std::uint8_t vnet_flags)
{
    std::uint64_t flags = l4_flags(queue, frame, headers, vnet_flags);
    if ((queue.offloads & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) != 0 &&
        RTE_ETH_IS_IPV4_HDR(headers.packet_type) != 0)
        flags |= fold(frame.sum(headers.l2_len, headers.l3_len)) == 0xffff
                     ? RTE_MBUF_F_RX_IP_CKSUM_GOOD
                     : RTE_MBUF_F_RX_IP_CKSUM_BAD;
    const auto bad = [flags](std::uint64_t mask, std::uint64_t value) {
        return (flags & mask) == value;
    };
    if (bad(RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_BAD) ||
        bad(RTE_MBUF_F_RX_IP_CKSUM_MASK, RTE_MBUF_F_RX_IP_CKSUM_BAD))
        ++queue.stats.csum_bad;
    return flags;
}

} // namespace

Placed rx_place(RxQueue& queue, const Bytes& frame, std::uint32_t scattered,
                const VirtioHeader& vnet, rte_mbuf** packet)
{
    if (!rx_ready_head(queue)) {
        ++queue.stats.no_header_mbuf;
        return Placed::kWait;
    }
    const Headers headers = classify(queue, frame);
    const std::uint32_t cut = cut_of(queue, frame, headers);
    const std::uint32_t payload = frame.size() - cut;
    if ((payload + queue.payload_room - 1) / queue.payload_room > queue.max_fragments) {
        ++queue.stats.truncated;
        return Placed::kDropped;
    }
    // The checksum is read before the bytes move: they are in order now.
    const std::uint64_t flags = checksum_flags(queue, frame, headers, vnet.flags);

    rte_mbuf* m;
    bool failed = false;
    if (payload == 0) {
        m = place_whole(queue, frame, std::min(scattered, frame.size()));
        if (m == nullptr)
            ++(scattered != 0 ? queue.stats.no_header_mbuf_drops : queue.stats.no_header_mbuf);
        failed = m == nullptr && scattered != 0;
    } else if (scattered != 0) {
        m = place_scattered(queue, frame, cut, scattered);
    } else {
        m = place_copied(queue, frame, cut, &failed);
    }
    if (m == nullptr)
        return failed ? Placed::kDropped : Placed::kWait;

    if (payload != 0) {
        if (queue.split != Split::kNone)
            ++queue.stats.split_packets;
        if (queue.split != Split::kNone && queue.split != Split::kLength)
            queue.predicted = static_cast<std::uint16_t>(cut);
        queue.stats.payload_bytes += payload;
        queue.stats.header_bytes += cut;
    } else if (queue.split != Split::kNone) {
        ++queue.stats.header_only_packets;
    }
    if (scattered == 0)
        ++queue.stats.copied_packets;

    m->port = queue.port_id;
    m->pkt_len = frame.size();
    m->packet_type = headers.packet_type;
    m->l2_len = headers.l2_len & 0x7f;
    m->l3_len = headers.l3_len & 0x1ff;
    m->l4_len = headers.l4_len;
    m->ol_flags |= flags;
    if (vnet.gso_size != 0) {
        m->ol_flags |= RTE_MBUF_F_RX_LRO;
        m->tso_segsz = vnet.gso_size;
        ++queue.stats.lro_packets;
    }
    ++queue.stats.packets;
    queue.stats.bytes += frame.size();
    *packet = m;
    return Placed::kDelivered;
}

} // namespace devmem::hds
