// SPDX-License-Identifier: BSD-3-Clause
// Transmitting to a TAP: one writev per packet. Checksums and segmentation are left to the kernel
// by way of the virtio header, on a copy of the headers: the mbuf may be shared and is not written.
#include "drivers/net/hds/queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <rte_byteorder.h>
#include <rte_mbuf.h>
#include <sys/uio.h>

namespace devmem::hds {
namespace {

/// parts[0] is the virtio header, parts[1] the copied headers, then the packet.
constexpr int kFirstSegment = 2;

/// Name the packet's bytes in parts[kFirstSegment..], those in a region by way of its port mapping.
/// @return parts in all; 0: the packet cannot be sent.
int name_segments(TxQueue& queue, const rte_mbuf* packet)
{
    if (packet->nb_segs > IOV_MAX - kFirstSegment || packet->pkt_len > kMaxFrame)
        return 0;
    iovec* part = queue.parts + kFirstSegment;
    std::byte* bounce = queue.bounce;
    bool region = false;
    for (const rte_mbuf* m = packet; m != nullptr; m = m->next) {
        auto* data = rte_pktmbuf_mtod(m, std::byte*);
        const std::size_t len = m->data_len;
        // Only an external buffer can be in a region the CPU cannot read: others carry their mbuf.
        if (len != 0 && RTE_MBUF_HAS_EXTBUF(m)) {
            if (!queue.map.contains(data))
                queue.map.find(data);
            const Region* from = queue.map.region();
            if (from != nullptr && queue.map.reachable()) {
                data = queue.map.cpu(data);
            } else if (from != nullptr) {
                const Transfer fetch{queue.map.offset(data), bounce, len};
                if (from->provider->read_back(*from, {&fetch, 1}) != 0)
                    return 0;
                data = bounce;
                bounce += len;
            }
            region |= from != nullptr && !from->readable;
        }
        *part++ = {data, len};
    }
    queue.stats.region_packets += region;
    return static_cast<int>(part - queue.parts);
}

/// Offloads: copy the headers, complete them, and say in the virtio header what is left to do.
/// @return bytes of header copied, or nothing if the lengths in the mbuf are wrong.
std::optional<std::uint32_t> prepare(TxQueue& queue, const rte_mbuf* packet)
{
    queue.vnet = {};
    const std::uint64_t flags = packet->ol_flags;
    const bool tso = (flags & RTE_MBUF_F_TX_TCP_SEG) != 0;
    const std::uint64_t l4_flag = flags & RTE_MBUF_F_TX_L4_MASK;
    const bool tcp = tso || l4_flag == RTE_MBUF_F_TX_TCP_CKSUM;
    const bool udp = !tcp && l4_flag == RTE_MBUF_F_TX_UDP_CKSUM;
    const bool ip = (flags & RTE_MBUF_F_TX_IP_CKSUM) != 0;
    if (!tcp && !udp && !ip)
        return 0;

    const std::uint32_t l3 = packet->l2_len;
    const std::uint32_t l4 = l3 + packet->l3_len;
    const std::uint32_t l4_len = tso ? packet->l4_len : tcp ? 20 : udp ? 8 : 0;
    const bool ipv6 = (flags & RTE_MBUF_F_TX_IPV6) != 0;
    const std::uint32_t len = l4 + l4_len;
    if (len > packet->pkt_len || packet->l3_len < (ipv6 ? 40 : 20) || (tso && l4_len < 20))
        return std::nullopt;
    const Bytes frame(queue.parts + kFirstSegment, packet->pkt_len);
    frame.copy(0, queue.header, len);

    const auto put16 = [&](std::uint32_t at, std::uint16_t value) { // in memory order
        std::memcpy(queue.header + at, &value, sizeof value);
    };
    if (ip && !ipv6) {
        put16(l3 + 10, 0);
        const iovec header{queue.header, len};
        put16(l3 + 10,
              static_cast<std::uint16_t>(~fold(Bytes(&header, len).sum(l3, packet->l3_len))));
    }
    if (!tcp && !udp)
        return len;
    // The kernel expects the pseudo header's sum over the whole super-frame in the field; DPDK
    // leaves out the length when segmenting. Neither is relied on: it is computed here.
    const std::uint16_t offset = tcp ? 16 : 6;
    put16(l4 + offset, fold(pseudo_sum(frame, l3, ipv6, tcp ? 6 : 17, packet->pkt_len - l4)));
    queue.vnet.flags = VirtioHeader::kNeedsChecksum;
    queue.vnet.csum_start = static_cast<std::uint16_t>(l4);
    queue.vnet.csum_offset = offset;
    if (tso && packet->pkt_len - len > packet->tso_segsz) {
        queue.vnet.gso_type = ipv6 ? VirtioHeader::kTcp6 : VirtioHeader::kTcp4;
        queue.vnet.gso_size = packet->tso_segsz;
        queue.vnet.hdr_len = static_cast<std::uint16_t>(len);
        ++queue.stats.tso_packets;
    }
    return len;
}

/// @return 0; -EAGAIN; another negative errno: the packet is lost.
int send(TxQueue& queue, const rte_mbuf* packet)
{
    const int end = name_segments(queue, packet);
    if (end == 0)
        return -EINVAL;
    const std::optional<std::uint32_t> copied = prepare(queue, packet);
    if (!copied)
        return -EINVAL;
    queue.parts[0] = {&queue.vnet, sizeof queue.vnet};
    queue.parts[1] = {queue.header, *copied};
    std::size_t skip = *copied;
    for (iovec* part = queue.parts + kFirstSegment; skip != 0; ++part) {
        const std::size_t n = std::min(skip, part->iov_len);
        *part = {static_cast<std::byte*>(part->iov_base) + n, part->iov_len - n};
        skip -= n;
    }
    return writev(queue.fd, queue.parts, end) < 0 ? -errno : 0;
}

} // namespace

std::uint16_t tx_burst_tap(void* tx_queue, rte_mbuf** packets, std::uint16_t n)
{
    auto& queue = *static_cast<TxQueue*>(tx_queue);
    if (!queue.running)
        return 0;
    std::uint16_t done = 0;
    for (; done < n; ++done) {
        const int rc = send(queue, packets[done]);
        if (rc == -EAGAIN) {
            ++queue.stats.busy;
            break;
        }
        if (rc == 0) {
            ++queue.stats.packets;
            queue.stats.bytes += packets[done]->pkt_len;
        } else {
            ++queue.stats.refused_packets;
        }
    }
    rte_pktmbuf_free_bulk(packets, done);
    return done;
}

} // namespace devmem::hds
