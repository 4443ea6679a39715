// SPDX-License-Identifier: BSD-3-Clause
// Setting a receive queue up, and keeping mbufs at hand.
#include "drivers/net/hds/log.h"
#include "drivers/net/hds/queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <rte_errno.h>
#include <rte_mbuf.h>

namespace devmem::hds {
namespace {

/// What is predicted before the first data frame: Ethernet, IPv4, TCP with timestamps.
constexpr std::uint16_t kFirstPrediction = 14 + 20 + 32;

struct BufferRange {
    const std::byte* low = nullptr;
    const std::byte* high = nullptr;
};

void extend_range(rte_mempool*, void* arg, void* object, unsigned)
{
    auto& range = *static_cast<BufferRange*>(arg);
    const auto* buffer = static_cast<const std::byte*>(static_cast<rte_mbuf*>(object)->buf_addr);
    if (range.low == nullptr || buffer < range.low)
        range.low = buffer;
    if (range.high == nullptr || buffer > range.high)
        range.high = buffer;
}

/// Find out where a pool's buffers are.
int map_pool(rte_mempool* pool, BufferMap& map)
{
    BufferRange range;
    rte_mempool_obj_iter(pool, extend_range, &range);
    map.find(range.low);
    if (map.region() == nullptr || map.contains(range.high))
        return 0;
    HDS_LOG(ERR, "the buffers of pool %s are not all in one region; use one pool a region",
            pool->name);
    return -ENOTSUP;
}

int set_pools(RxQueue& queue, const rte_eth_rxseg_split& head, const rte_eth_rxseg_split& payload)
{
    queue.head_pool = head.mp;
    queue.payload_pool = payload.mp;
    const int offset = RTE_PKTMBUF_HEADROOM + head.offset;
    const int head_room = rte_pktmbuf_data_room_size(head.mp) - offset;
    const int payload_room = rte_pktmbuf_data_room_size(payload.mp) - payload.offset;
    if (head_room < 128) {
        HDS_LOG(ERR,
                "segment 0: pool %s has room for %d bytes after headroom and offset; at least "
                "128 are needed for headers",
                head.mp->name, head_room);
        return -EINVAL;
    }
    if (payload_room < 64 || payload_room < payload.length) {
        HDS_LOG(ERR, "segment 1: pool %s has room for %d bytes after the offset; %u are needed",
                payload.mp->name, payload_room, std::max<unsigned>(64, payload.length));
        return -EINVAL;
    }
    queue.head_offset = static_cast<std::uint16_t>(offset);
    queue.head_room = static_cast<std::uint16_t>(head_room);
    queue.payload_offset = payload.offset;
    queue.payload_room =
        payload.length != 0 ? payload.length : static_cast<std::uint16_t>(payload_room);

    BufferMap head_map;
    if (const int rc = map_pool(head.mp, head_map); rc != 0)
        return rc;
    if (head_map.region() != nullptr && !head_map.region()->readable) {
        HDS_LOG(ERR,
                "segment 0: the buffers of pool %s are in region %s, which the CPU cannot "
                "read; headers need host memory",
                head.mp->name, head_map.region()->spec.c_str());
        return -EINVAL;
    }
    return map_pool(payload.mp, queue.payload_map);
}

/// Take n payload mbufs, those first that were got ahead.
bool take_fragments(RxQueue& queue, rte_mbuf** to, std::uint32_t n)
{
    const std::uint32_t ahead = std::min<std::uint32_t>(n, queue.ahead_count);
    if (n > ahead && rte_mempool_get_bulk(queue.payload_pool, reinterpret_cast<void**>(to + ahead),
                                          n - ahead) != 0)
        return false;
    std::copy_n(queue.ahead + queue.ahead_first, ahead, to);
    queue.ahead_first = static_cast<std::uint16_t>(queue.ahead_first + ahead);
    queue.ahead_count = static_cast<std::uint16_t>(queue.ahead_count - ahead);
    return true;
}

/// Where a region is gone through from end to end, mbufs are as cold as what they are for. They
/// come into the cache while the kernel copies the frame before theirs.
void get_ahead(RxQueue& queue, std::uint32_t n)
{
    n = std::min(n, kAhead);
    if (queue.ahead_count != 0 ||
        rte_mempool_get_bulk(queue.payload_pool, reinterpret_cast<void**>(queue.ahead), n) != 0)
        return;
    queue.ahead_first = 0;
    queue.ahead_count = static_cast<std::uint16_t>(n);
    for (std::uint32_t i = 0; i < n; ++i) {
        rte_mbuf_prefetch_part1(queue.ahead[i]);
        rte_mbuf_prefetch_part2(queue.ahead[i]);
    }
}

} // namespace

int rx_queue_configure(RxQueue& queue, const rte_eth_rxconf& conf, rte_mempool* pool,
                       std::uint64_t offloads)
{
    queue.conf = conf;
    queue.offloads = offloads;
    if ((offloads & RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT) == 0 || conf.rx_nseg == 0) {
        queue.conf.rx_seg = nullptr;
        queue.conf.rx_nseg = 0;
        queue.split = Split::kNone;
        // One pool is both: what does not fit the first mbuf goes on in the next.
        const int rc = set_pools(queue, {.mp = pool, .length = 0, .offset = 0, .proto_hdr = 0},
                                 {.mp = pool, .length = 0, .offset = 0, .proto_hdr = 0});
        queue.length = queue.head_room;
        return rc;
    }
    if (conf.rx_nseg != 2) {
        HDS_LOG(ERR, "%u segments; exactly 2 are supported: headers and payload", conf.rx_nseg);
        return -EINVAL;
    }
    const rte_eth_rxseg_split& head = conf.rx_seg[0].split;
    const rte_eth_rxseg_split& payload = conf.rx_seg[1].split;
    queue.segments[0].split = head; // the caller's array does not outlive this call
    queue.segments[1].split = payload;
    queue.conf.rx_seg = queue.segments;
    if (const int rc = set_pools(queue, head, payload); rc != 0)
        return rc;
    if (head.proto_hdr == 0) {
        queue.split = Split::kLength;
        queue.length = head.length != 0 ? std::min(head.length, queue.head_room) : queue.head_room;
        return 0;
    }
    queue.split = split_after(head.proto_hdr);
    if (queue.split == Split::kNone || payload.proto_hdr != 0) {
        HDS_LOG(ERR,
                "cannot split after headers 0x%x; see "
                "rte_eth_buffer_split_get_supported_hdr_ptypes()",
                head.proto_hdr);
        return -EINVAL;
    }
    queue.predicted = kFirstPrediction;
    return 0;
}

int rx_queue_fragments(const RxQueue& queue, std::uint32_t frame_bytes, std::uint32_t* fragments)
{
    const bool scatter =
        queue.split != Split::kNone ||
        (queue.offloads & (RTE_ETH_RX_OFFLOAD_SCATTER | RTE_ETH_RX_OFFLOAD_TCP_LRO));
    std::uint32_t rest = frame_bytes;
    if (queue.split == Split::kNone || queue.split == Split::kLength)
        rest -= std::min<std::uint32_t>(frame_bytes, queue.length);
    const std::uint32_t n = (rest + queue.payload_room - 1) / queue.payload_room;
    if (n != 0 && !scatter) {
        HDS_LOG(ERR,
                "a frame of %u bytes does not fit one mbuf of pool %s: make the mbufs larger "
                "or ask for RTE_ETH_RX_OFFLOAD_SCATTER",
                frame_bytes, queue.head_pool->name);
        return -EINVAL;
    }
    if (n > kMaxFragments || n > queue.payload_pool->size) {
        HDS_LOG(ERR,
                "a frame of %u bytes takes %u mbufs of pool %s, which has %u of %u bytes; at "
                "most %u are possible: make them larger or more, or do not ask for "
                "RTE_ETH_RX_OFFLOAD_TCP_LRO",
                frame_bytes, n, queue.payload_pool->name, queue.payload_pool->size,
                queue.payload_room, kMaxFragments);
        return -EINVAL;
    }
    *fragments = n;
    return 0;
}

bool rx_ready_head(RxQueue& queue)
{
    if (queue.heads != 0)
        return true;
    auto** objects = reinterpret_cast<void**>(queue.head);
    if (rte_mempool_get_bulk(queue.head_pool, objects, kHeads) == 0)
        queue.heads = kHeads;
    else if (rte_mempool_get(queue.head_pool, objects) == 0)
        queue.heads = 1;
    return queue.heads != 0;
}

bool rx_ready_fragments(RxQueue& queue, std::uint32_t need)
{
    const std::uint32_t have = queue.fragments;
    if (have >= need)
        return true;
    if (need > kMaxFragments)
        return false;
    std::memmove(queue.fragment, queue.fragment + queue.fragment_first, have * sizeof(Fragment));
    queue.fragment_first = 0;
    rte_mbuf* taken[kMaxFragments];
    const bool super_frames = (queue.offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO) != 0;
    std::uint32_t n = std::min(need + (super_frames ? 0 : kSpareFragments), kMaxFragments) - have;
    if (!take_fragments(queue, taken, n)) {
        n = need - have;
        if (!take_fragments(queue, taken, n))
            return false;
    }
    for (std::uint32_t i = 0; i < n; ++i) {
        rte_mbuf* m = taken[i];
        std::byte* data = queue.payload_map.reachable()
                              ? queue.payload_map.cpu(m->buf_addr) + queue.payload_offset
                              : nullptr;
        queue.fragment[have + i] = {m, data};
    }
    queue.fragments = static_cast<std::uint16_t>(have + n);
    get_ahead(queue, n);
    return true;
}

void rx_queue_drain(RxQueue& queue)
{
    for (; queue.heads != 0; --queue.heads)
        rte_mempool_put(queue.head_pool, queue.head[queue.heads - 1]);
    for (; queue.fragments != 0; --queue.fragments)
        rte_mempool_put(queue.payload_pool, queue.fragment[queue.fragment_first++].mbuf);
    queue.fragment_first = 0;
    for (; queue.ahead_count != 0; --queue.ahead_count)
        rte_mempool_put(queue.payload_pool, queue.ahead[queue.ahead_first++]);
    for (; queue.lower_count != 0; --queue.lower_count)
        rte_pktmbuf_free(queue.lower[queue.lower_first++]);
    queue.lower_first = 0;
    queue.pending = 0;
}

} // namespace devmem::hds
