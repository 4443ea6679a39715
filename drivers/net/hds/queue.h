// SPDX-License-Identifier: BSD-3-Clause
// The queues of a port: what one lcore owns while it receives or transmits.
#pragma once

#include "drivers/net/hds/buffer_map.h"
#include "drivers/net/hds/bytes.h"
#include "drivers/net/hds/ethdev_abi.h"
#include "drivers/net/hds/split.h"
#include "drivers/net/hds/virtio_header.h"

#include <atomic>
#include <limits.h>

namespace devmem::hds {

/// Ethernet, two VLAN tags, the largest IPv6 packet that is no jumbogram (RFC 8200 3). A TSO
/// super-frame is never longer.
inline constexpr std::uint32_t kMaxFrame = 14 + 8 + 40 + 65535;
/// What a frame adds to the MTU: Ethernet and two VLAN tags (the FCS never reaches us).
inline constexpr std::uint32_t kFrameOverhead = 14 + 8;
/// Fragments one readv can name beside the virtio header, the packet header and the guard.
inline constexpr std::uint32_t kMaxFragments = IOV_MAX - 3;
/// Payload mbufs kept ready beyond what a frame of MTU size needs, so that the pool is asked once
/// for many frames. A super-frame takes about as many as are kept anyway.
inline constexpr std::uint32_t kSpareFragments = 32;
/// And beyond those, as many as were taken last, for the frame after the next: so many of a TSO
/// super-frame's at the most.
inline constexpr std::uint32_t kAhead = 48;
inline constexpr std::uint32_t kHeads = 32;
/// Headers longer than this are not looked for: the packet stays whole.
inline constexpr std::uint32_t kMaxHeaders = 1024;
inline constexpr std::uint32_t kLowerBurst = 32;

/// Counters of the driver's own, beside those every port has: X(member, what it counts).
/// The xstats are named rx_<member> and tx_<member>.
#define HDS_RX_COUNTERS(X)                                                                         \
    X(split_packets)        /* split: headers in segment 0, payload in segment 1 and on */         \
    X(header_only_packets)  /* whole in segment 0's pool */                                        \
    X(payload_bytes)        /* bytes placed in the payload pool */                                 \
    X(header_bytes)         /* bytes placed in segment 0's pool */                                 \
    X(lro_packets)          /* TSO super-frames taken whole */                                     \
    X(no_payload_mbuf)      /* payload pool ran dry: reading stopped, nothing lost */              \
    X(no_header_mbuf)       /* segment 0's pool ran dry: reading stopped, nothing lost */          \
    X(no_header_mbuf_drops) /* the same in the middle of a packet to be kept whole: lost */        \
    X(split_late_moves)     /* headers shorter than predicted: payload moved forward */            \
    X(split_early_gaps)     /* headers longer than predicted: a gap before the payload */          \
    X(copied_packets)       /* not scattered by the kernel but copied by the driver */             \
    X(truncated)            /* longer than the MTU and the buffers allow: dropped */               \
    X(csum_bad)             /* delivered with a BAD IP or L4 checksum flag */                      \
    X(dma_errors)           /* the region's provider failed to write: dropped */                   \
    X(read_errors)          /* the TAP refused a read */

#define HDS_TX_COUNTERS(X)                                                                         \
    X(tso_packets)     /* handed over unsegmented */                                               \
    X(region_packets)  /* with bytes from a region the CPU cannot read */                          \
    X(busy)            /* bursts cut short because the other end took no more */                   \
    X(refused_packets) /* refused by the other end or malformed: dropped */

struct RxStats {
#define HDS_COUNTER(name) std::uint64_t name = 0;
    HDS_RX_COUNTERS(HDS_COUNTER)
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
};

struct TxStats {
    HDS_TX_COUNTERS(HDS_COUNTER)
#undef HDS_COUNTER
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
};

/// A payload buffer waiting to be filled.
struct Fragment {
    rte_mbuf* mbuf;
    std::byte* data; ///< where the CPU writes it; nullptr if only the provider can
};

struct alignas(RTE_CACHE_LINE_SIZE) RxQueue {
    // What the data path reads, set up once.
    rte_mempool* head_pool = nullptr;
    rte_mempool* payload_pool = nullptr;
    std::byte* bounce = nullptr; ///< kMaxFrame bytes
    std::uint64_t offloads = 0;
    BufferMap payload_map;
    /// Fragments the longest frame takes. Follows the MTU, which another thread may set.
    std::atomic<std::uint32_t> max_fragments{0};
    int fd = -1;                  ///< TAP
    std::uint16_t lower_port = 0; ///< wrapped port
    std::uint16_t port_id = 0;
    std::uint16_t queue_id = 0;
    std::uint16_t length = 0;      ///< kNone, kLength: bytes of segment 0
    std::uint16_t head_offset = 0; ///< with the headroom
    std::uint16_t head_room = 0;
    std::uint16_t payload_offset = 0;
    std::uint16_t payload_room = 0;
    std::uint16_t descriptors = 0;
    std::uint16_t hds_thresh = 0; ///< frames no longer than this are not split after their headers
    Split split = Split::kNone;
    bool running = false;

    // What changes with every frame.
    std::uint16_t predicted = 0;      ///< header bytes of the next data frame, as the last had
    std::uint16_t heads = 0;          ///< in head[]
    std::uint16_t fragment_first = 0; ///< they wait in fragment[first .. first + fragments)
    std::uint16_t fragments = 0;
    std::uint16_t lower_first = 0; ///< packets of the lower port not yet taken over
    std::uint16_t lower_count = 0;
    VirtioHeader vnet = {};
    std::byte guard = {};      ///< takes what does not fit, so that it is noticed
    std::uint32_t pending = 0; ///< bytes of a frame in `bounce` that waits for mbufs
    RxStats stats;
    std::uint16_t ahead_first = 0; ///< they wait in ahead[first .. first + count)
    std::uint16_t ahead_count = 0;
    rte_mbuf* head[kHeads] = {};
    rte_mbuf* lower[kLowerBurst] = {};
    Fragment fragment[kMaxFragments] = {};
    rte_mbuf* ahead[kAhead] = {}; ///< payload mbufs on their way into the cache
    iovec parts[IOV_MAX] = {};
    std::uint8_t scratch[kMaxHeaders] = {};

    // As configured, for those who ask.
    rte_eth_rxconf conf = {};
    rte_eth_rxseg segments[2] = {};
};

struct alignas(RTE_CACHE_LINE_SIZE) TxQueue {
    std::byte* bounce = nullptr; ///< kMaxFrame bytes
    BufferMap map;               ///< of the region seen last
    int fd = -1;                 ///< TAP
    std::uint16_t lower_port = 0;
    std::uint16_t port_id = 0;
    std::uint16_t queue_id = 0;
    bool running = false;
    VirtioHeader vnet = {};
    TxStats stats;
    iovec parts[IOV_MAX] = {};
    std::uint8_t header[kMaxHeaders] = {};

    rte_eth_txconf conf = {};
    std::uint16_t descriptors = 0;
};

/// Apply a queue's configuration: pools, split, offsets. Everything is checked.
/// @return 0; -EINVAL; -ENOTSUP. The log says what is wrong.
int rx_queue_configure(RxQueue& queue, const rte_eth_rxconf& conf, rte_mempool* pool,
                       std::uint64_t offloads);

/// Fragments the queue needs for frames of this size. @return 0; -EINVAL pools too small for it.
int rx_queue_fragments(const RxQueue& queue, std::uint32_t frame_bytes, std::uint32_t* fragments);

/// Give back every mbuf that waits in the queue.
void rx_queue_drain(RxQueue& queue);

/// At least one header mbuf is at hand.
bool rx_ready_head(RxQueue& queue);
/// At least `need` fragments are at hand.
bool rx_ready_fragments(RxQueue& queue, std::uint32_t need);

enum class Placed { kDelivered, kDropped, kWait };

/// Deliver a frame: parse, check, split.
/// @param scattered  bytes of the frame that lie in place already: this many in the header mbuf to
///   be taken next, the others in the queue's fragments. 0: the frame is somewhere else altogether
///   and is copied
/// @param packet     receives the packet (kDelivered)
/// @return kWait: no mbufs, nothing has changed (never if `scattered`).
Placed rx_place(RxQueue& queue, const Bytes& frame, std::uint32_t scattered,
                const VirtioHeader& vnet, rte_mbuf** packet);

std::uint16_t rx_burst_tap(void* queue, rte_mbuf** packets, std::uint16_t n);
std::uint16_t rx_burst_lower(void* queue, rte_mbuf** packets, std::uint16_t n);
std::uint16_t tx_burst_tap(void* queue, rte_mbuf** packets, std::uint16_t n);
std::uint16_t tx_burst_lower(void* queue, rte_mbuf** packets, std::uint16_t n);

} // namespace devmem::hds
