// SPDX-License-Identifier: BSD-3-Clause
// Receiving from a TAP: one readv per frame, straight into the header mbuf and the fragments.
#include "drivers/net/hds/queue.h"

#include <cerrno>
#include <rte_mbuf.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace devmem::hds {
namespace {

/// A burst ends when it has taken so much. The caller finds the mbufs in its cache still, and the
/// sender has an acknowledgement before all that it may send has been sent: with 64 super-frames in
/// a burst, 4 MiB, either end waits for the other. 256 KiB and 1 MiB are a little slower.
constexpr std::uint32_t kBurstBytes = 512 << 10;

/// A frame that was read. `scattered` as for rx_place().
struct Read {
    std::uint32_t bytes = 0; ///< 0: nothing to read
    std::uint32_t scattered = 0;
    bool truncated = false;
};

/// Name the places for the next frame. @return how many; `*capacity` bytes in all after the virtio
/// header.
int aim(RxQueue& queue, std::uint32_t scattered, std::uint32_t fragments, std::uint32_t* capacity)
{
    iovec* part = queue.parts;
    *part = {&queue.vnet, sizeof queue.vnet};
    if (scattered == 0) {
        *++part = {queue.bounce, kMaxFrame};
        *capacity = kMaxFrame;
    } else {
        rte_mbuf* head = queue.head[queue.heads - 1];
        *++part = {static_cast<std::byte*>(head->buf_addr) + queue.head_offset, scattered};
        const std::size_t room = queue.payload_room;
        const Fragment* f = queue.fragment + queue.fragment_first;
        const std::byte* end = nullptr;
        for (const Fragment* last = f + fragments; f != last; ++f) {
            if (f->data == end)
                part->iov_len += room;
            else
                *++part = {f->data, room};
            end = f->data + room;
        }
        *capacity = scattered + fragments * queue.payload_room;
    }
    // A TAP cuts a frame to the room it is offered, silently. One byte more than ever fits tells.
    *++part = {&queue.guard, 1};
    return static_cast<int>(part - queue.parts) + 1;
}

Read read_frame(RxQueue& queue)
{
    Read read;
    if (!rx_ready_head(queue)) {
        ++queue.stats.no_header_mbuf;
        return read;
    }
    // Short of fragments the frame is read aside: a packet without payload still gets through.
    const std::uint32_t fragments = queue.max_fragments.load(std::memory_order_relaxed);
    if (queue.payload_map.reachable() && rx_ready_fragments(queue, fragments))
        read.scattered = queue.split == Split::kNone || queue.split == Split::kLength
                             ? queue.length
                             : queue.predicted;
    std::uint32_t capacity;
    const int parts = aim(queue, read.scattered, fragments, &capacity);
    // Not by the C library's function, a cancellation point: at a frame of 1500 bytes that shows.
    const long n = syscall(SYS_readv, queue.fd, queue.parts, parts);
    if (n < 0) {
        if (errno != EAGAIN)
            ++queue.stats.read_errors;
        return read;
    }
    read.bytes = static_cast<std::uint32_t>(n) - static_cast<std::uint32_t>(sizeof queue.vnet);
    read.truncated = read.bytes > capacity;
    return read;
}

} // namespace

std::uint16_t rx_burst_tap(void* rx_queue, rte_mbuf** packets, std::uint16_t n)
{
    auto& queue = *static_cast<RxQueue*>(rx_queue);
    std::uint16_t received = 0;
    if (!queue.running)
        return 0;
    std::uint32_t bytes = 0;
    for (std::uint16_t tries = 0; tries < n && bytes < kBurstBytes; ++tries) {
        Read read{.bytes = queue.pending};
        if (read.bytes == 0)
            read = read_frame(queue);
        if (read.bytes == 0)
            break;
        bytes += read.bytes;
        if (read.truncated) {
            ++queue.stats.truncated;
            continue;
        }
        const Bytes frame(queue.parts + 1, read.bytes);
        const Placed placed =
            rx_place(queue, frame, read.scattered, queue.vnet, &packets[received]);
        queue.pending = placed == Placed::kWait ? read.bytes : 0;
        if (placed == Placed::kWait)
            break;
        received = static_cast<std::uint16_t>(received + (placed == Placed::kDelivered));
    }
    return received;
}

} // namespace devmem::hds
