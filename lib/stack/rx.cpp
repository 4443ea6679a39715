// SPDX-License-Identifier: BSD-3-Clause
// From mbufs to segments.

#include "lib/stack/log.h"
#include "lib/stack/shard.h"
#include "lib/stack/stack.h"

#include "lib/memory/region.h"
#include "lib/page_pool/page_pool.h"

#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

using namespace devmem;

namespace {

std::uint32_t lcore_slot()
{
    const unsigned lcore = rte_lcore_id();
    return lcore == LCORE_ID_ANY ? kNoLcore : lcore;
}

/// First byte of a destination MAC: the group bit (IEEE 802.3 3.2.3).
constexpr std::uint8_t kGroupAddress = 0x01;
/// RFC 9293 3.1: IPPROTO_TCP.
constexpr std::uint8_t kProtocolTcp = 6;
/// What tells the first segment of a connection from others.
constexpr std::uint8_t kOpening = tcp::kSyn | tcp::kAck | tcp::kRst | tcp::kFin;

/// Port unreachable (RFC 792, RFC 4443 3.1).
bool refuses(const wire::Unreachable& error)
{
    constexpr std::uint8_t kPort4 = 3, kPort6 = 4;
    return !error.on_the_way && error.code == (error.src.family == 4 ? kPort4 : kPort6);
}

/// Hard errors (RFC 1122 4.2.3.9, RFC 5461 2): besides those, no such protocol, and for IPv6
/// administratively prohibited. Fragmentation needed is not among them, RFC 1122 notwithstanding:
/// we let packets be fragmented, so nobody has reason to say so. Time exceeded and parameter
/// problems are soft, whatever their code.
bool is_hard(const wire::Unreachable& error)
{
    constexpr std::uint8_t kProtocol4 = 2, kProhibited6 = 1;
    return refuses(error) ||
           (!error.on_the_way && error.code == (error.src.family == 4 ? kProtocol4 : kProhibited6));
}

} // namespace

/// The first `bytes` bytes of a packet as contiguous host memory: where they are, or, for a packet
/// whose header does not lie in one host mbuf, a copy. Bytes in a region that the CPU cannot read
/// come through its provider, never through the mbuf's address.
std::span<const std::uint8_t> devmem_shard::gather(const rte_mbuf* m, std::uint32_t bytes)
{
    if (bytes > kLargestFrame)
        return {};
    if (bytes <= rte_pktmbuf_data_len(m) && m->pool != payload_->device_mempool())
        return {rte_pktmbuf_mtod(m, const std::uint8_t*), bytes};
    std::uint32_t at = 0;
    for (; m != nullptr && at < bytes; m = m->next) {
        const std::uint32_t len = std::min<std::uint32_t>(rte_pktmbuf_data_len(m), bytes - at);
        if (m->pool == payload_->device_mempool()) {
            const PktmbufPoolLayout& layout = payload_->device_layout();
            const auto offset = reinterpret_cast<std::uintptr_t>(m->buf_addr) -
                                static_cast<std::uintptr_t>(layout.region->base) + m->data_off;
            if (devmem_region_read(layout.region, offset, &scratch_[at], len) != 0)
                return {};
        } else {
            std::memcpy(&scratch_[at], rte_pktmbuf_mtod(m, const std::uint8_t*), len);
        }
        at += len;
    }
    return {scratch_.get(), at};
}

void devmem_shard::count_drop(wire::Verdict verdict)
{
    switch (verdict) {
    case wire::Verdict::kEthertype:
        stats_.drop_ethertype++;
        break;
    case wire::Verdict::kIpHeader:
        stats_.drop_ip_header++;
        break;
    case wire::Verdict::kIpChecksum:
        stats_.drop_ip_checksum++;
        break;
    case wire::Verdict::kIpFragment:
        stats_.drop_ip_fragment++;
        break;
    case wire::Verdict::kIpProtocol:
        stats_.drop_ip_protocol++;
        break;
    case wire::Verdict::kTcpHeader:
        stats_.drop_tcp_header++;
        break;
    case wire::Verdict::kTcpOptions:
        stats_.drop_tcp_options++;
        break;
    case wire::Verdict::kIcmp:
        stats_.drop_icmp++;
        break;
    default:
        stats_.drop_truncated++;
        break;
    }
}

void devmem_shard::receive(rte_mbuf* m)
{
    std::span<const std::uint8_t> head;
    if (m->pool != payload_->device_mempool()) [[likely]]
        head = {rte_pktmbuf_mtod(m, const std::uint8_t*), rte_pktmbuf_data_len(m)};

    wire::Packet packet;
    wire::Verdict verdict = wire::parse(head, rte_pktmbuf_pkt_len(m), &packet);
    // Each look may find that a longer header follows (IP, then TCP, then its options).
    for (unsigned looks = 0; verdict == wire::Verdict::kNeedMore && looks < 8; looks++) {
        if (looks == 0 && (m->pool == payload_->device_mempool() ||
                           (m->next != nullptr && m->next->pool == payload_->device_mempool())))
            stats_.split_early++;
        head = gather(m, packet.need);
        if (head.size() < packet.need)
            break;
        verdict = wire::parse(head, rte_pktmbuf_pkt_len(m), &packet);
    }
    if (verdict != wire::Verdict::kOk) [[unlikely]] {
        const bool unknown =
            verdict == wire::Verdict::kEthertype || verdict == wire::Verdict::kIpProtocol;
        if (unknown && !head.empty() && (head[0] & kGroupAddress) != 0)
            stats_.rx_ignored++;
        else
            count_drop(verdict);
        rte_pktmbuf_free(m);
        return;
    }
    if (packet.kind == wire::Kind::kTcp) [[likely]] {
        receive_tcp(m, packet);
        return;
    }
    if (packet.kind == wire::Kind::kArp)
        receive_arp(head, packet);
    else
        receive_icmp(head, packet);
    rte_pktmbuf_free(m);
}

bool devmem_shard::checksum_good(const rte_mbuf* m, const wire::Packet& packet)
{
    const std::uint64_t flag = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
    if (vouched(m->ol_flags)) [[likely]]
        return true;
    if (flag == RTE_MBUF_F_RX_L4_CKSUM_BAD)
        return false;
    // Nobody checked. The CPU may, if all of it lies in host memory.
    std::uint32_t sum =
        wire::checksum_pseudo(packet.src, packet.dst, kProtocolTcp, packet.l4_bytes);
    std::uint32_t skip = packet.l4_offset;
    std::uint32_t left = packet.l4_bytes;
    bool odd = false;
    for (const rte_mbuf* s = m; s != nullptr && left != 0; s = s->next) {
        const std::uint32_t len = rte_pktmbuf_data_len(s);
        if (skip >= len) {
            skip -= len;
            continue;
        }
        if (s->pool == payload_->device_mempool())
            return false;
        const std::uint32_t take = std::min(len - skip, left);
        const std::uint32_t part =
            wire::checksum_add(0, {rte_pktmbuf_mtod_offset(s, const std::uint8_t*, skip), take});
        // A part that starts at an odd offset has its bytes swapped (RFC 1071 2.B).
        const std::uint32_t folded = static_cast<std::uint16_t>(~wire::checksum_fold(part));
        sum += odd ? ((folded & 0xff) << 8 | folded >> 8) : folded;
        odd ^= (take & 1) != 0;
        left -= take;
        skip = 0;
    }
    return left == 0 && wire::checksum_fold(sum) == 0;
}

/// Add a run to runs_buffer_, as part of the last one if it continues it. The last run may be
/// continued only from index `begin` on.
void devmem_shard::append_run(const tcp::Run& run, std::uint32_t begin, std::uint32_t* runs)
{
    if (*runs > begin) {
        tcp::Run& last = runs_buffer_[*runs - 1];
        if (runs_.adjoin(last, run)) {
            last.count += run.count;
            last.len += run.len;
            return;
        }
    }
    runs_buffer_[(*runs)++] = run;
}

void devmem_shard::put_runs(std::uint32_t begin, std::uint32_t end)
{
    for (std::uint32_t i = begin; i < end; i++)
        release(runs_buffer_[i].first, runs_buffer_[i].count);
}

/// Payload the port left in host memory goes into fragments of the host region, so that it is the
/// same kind of token as any other.
bool devmem_shard::take_host_bytes(const std::uint8_t* bytes, std::uint32_t len,
                                   std::uint32_t* runs)
{
    const PktmbufPoolLayout& layout = payload_->host_layout();
    PagePool* pool = page_pool_of(payload_->host_mempool());
    while (len != 0) {
        std::uint32_t fragment;
        if (*runs == kRuns || pool->alloc(lcore_slot(), 1, &fragment) != 0)
            return false;
        host_taken_++;
        const std::uint32_t take = std::min(len, layout.fragment_bytes);
        auto* to = reinterpret_cast<std::uint8_t*>(layout.region->base) + layout.offset +
                   std::size_t{fragment / layout.fragments_per_page} * layout.page_bytes +
                   std::size_t{fragment % layout.fragments_per_page} * layout.fragment_bytes;
        std::memcpy(to, bytes, take);
        runs_buffer_[(*runs)++] = {payload_->take_host(fragment), 1, 0, take};
        bytes += take;
        len -= take;
    }
    return true;
}

/// Take the payload of a TCP packet out of its mbufs, as runs from `*runs` on. What holds headers,
/// padding or copied bytes is left in `*packet_mbufs` for the caller to free, nullptr if nothing
/// is; the mbufs of taken fragments are as free ones are.
/// @return false: it could not be taken; all of it has been put back, and the drop counted.
bool devmem_shard::take_payload(rte_mbuf** packet_mbufs, const wire::Packet& packet,
                                std::uint32_t* runs)
{
    const std::uint32_t begin = *runs;
    std::uint32_t skip = packet.header_bytes;
    std::uint32_t left = packet.payload_bytes;
    bool good = true;
    bool late = false;
    bool host_full = false;
    host_taken_ = 0;

    rte_mbuf* s = *packet_mbufs;
    rte_mbuf** kept = packet_mbufs;
    std::uint16_t kept_count = 0;
    while (s != nullptr) {
        rte_mbuf* const next = s->next;
        const std::uint32_t len = rte_pktmbuf_data_len(s);
        const std::uint32_t skipped = std::min(skip, len);
        const std::uint32_t take = good ? std::min(len - skipped, left) : 0;
        skip -= skipped;
        left -= take;
        const bool device = s->pool == payload_->device_mempool();
        good = good && (take == 0 || *runs < kRuns);
        if (device && take != 0 && good) [[likely]] {
            if (next != nullptr)
                s->next = nullptr;
            s->nb_segs = 1;
            payload_->taken(1);
            append_run({payload_->fragment_of(s->buf_addr), 1, s->data_off + skipped, take}, begin,
                       runs);
        } else {
            if (!device && take != 0 && good) {
                late = true;
                good =
                    take_host_bytes(rte_pktmbuf_mtod_offset(s, std::uint8_t*, skipped), take, runs);
                host_full = !good;
            }
            *kept = s;
            kept = &s->next;
            kept_count++;
        }
        s = next;
    }
    *kept = nullptr;
    if (kept_count != 0)
        (*packet_mbufs)->nb_segs = kept_count;
    if (late)
        stats_.split_late++;
    if (good && left == 0) [[likely]]
        return true;
    put_runs(begin, *runs);
    *runs = begin;
    (host_full ? stats_.drop_no_host_fragment : stats_.drop_truncated)++;
    return false;
}

/// Host fragments of a packet's runs become a connection's, if it may have them.
bool devmem_shard::keep_host_bytes(std::span<const tcp::Run> runs, std::uint32_t slot)
{
    if (host_taken_ == 0) [[likely]]
        return true;
    if (!payload_->admits_host(slot, host_taken_))
        return false;
    for (const tcp::Run& run : runs)
        payload_->keep_host(run, slot);
    host_taken_ = 0;
    return true;
}

void devmem_shard::receive_tcp(rte_mbuf* m, const wire::Packet& packet)
{
    if (stack_.local_address(packet.dst) < 0) [[unlikely]] {
        stats_.rx_ignored++;
        rte_pktmbuf_free(m);
        return;
    }
    if (!checksum_good(m, packet)) [[unlikely]] {
        stats_.drop_tcp_checksum++;
        rte_pktmbuf_free(m);
        return;
    }

    // A new packet's runs go behind those of the pending segment, which it may join.
    if (pending_.slot != kNoSlot && pending_.runs + m->nb_segs > kRuns)
        flush_pending();
    const std::uint32_t begin = pending_.slot != kNoSlot ? pending_.runs : 0;
    std::uint32_t end = begin;
    const std::uint16_t wire_segments =
        (m->ol_flags & RTE_MBUF_F_RX_LRO) != 0 && m->tso_segsz != 0
            ? static_cast<std::uint16_t>((packet.payload_bytes + m->tso_segsz - 1) / m->tso_segsz)
            : std::uint16_t{1};
    const bool taken = packet.payload_bytes == 0 || take_payload(&m, packet, &end);
    const auto payload = [&] { return std::span(runs_buffer_).subspan(begin, end - begin); };
    if (m != nullptr)
        done_[done_count_++] = m; // nothing of it is looked at any more
    if (!taken) [[unlikely]]
        return;
    stats_.rx_tcp_segments++;

    tcp::Segment segment{
        .seq = tcp::Seq(packet.seq),
        .ack = tcp::Seq(packet.ack),
        .window = packet.window,
        .flags = packet.flags,
        .wire_segments = wire_segments,
        .len = packet.payload_bytes,
        .payload = {},
        .options = &packet.options,
        .ipv6 = packet.src.family == 6,
        .urgent = packet.urgent,
        .ce = packet.ecn == wire::kCe,
    };

    const FlowKey key{packet.src, packet.dst, packet.src_port, packet.dst_port};
    std::uint32_t slot = flows_->find(flows_->hash(key), key);
    if (slot != FlowTable::kNotFound && (segment.flags & kOpening) == tcp::kSyn) [[unlikely]] {
        flush_pending(); // it may end the connection
        slot = flows_->find(flows_->hash(key), key);
        if (slot != FlowTable::kNotFound && reopen(slot, packet, segment)) {
            put_runs(begin, end);
            return;
        }
    }
    if (slot == FlowTable::kNotFound) [[unlikely]] {
        flush_pending();
        segment.payload = payload();
        if (!no_connection(packet, segment))
            put_runs(begin, end);
        return;
    }
    if (segment.len != 0 && !keep_host_bytes(payload(), slot)) [[unlikely]] {
        stats_.drop_no_host_fragment++;
        put_runs(begin, end);
        return;
    }
    if (joins_pending(slot, segment, packet.options)) {
        Pending& p = pending_;
        const std::uint32_t kept = p.runs;
        std::uint32_t runs = kept;
        for (std::uint32_t i = begin; i < end; i++)
            append_run(runs_buffer_[i], 0, &runs);
        p.runs = runs;
        p.segment.len += segment.len;
        p.segment.wire_segments =
            static_cast<std::uint16_t>(p.segment.wire_segments + wire_segments);
        p.segment.flags |= segment.flags;
        return;
    }
    flush_pending();
    if (begin != 0) {
        std::copy(runs_buffer_.begin() + begin, runs_buffer_.begin() + end, runs_buffer_.begin());
        end -= begin;
    }
    pending_.slot = slot;
    pending_.segment = segment;
    pending_.options = packet.options;
    pending_.runs = end;
}

/// What may be told to the engine as one segment: in-order data, same acknowledgement, window,
/// options and mark, as GRO does it. Anything else (SYN, FIN, RST, a lone ACK) is told by itself.
bool devmem_shard::joins_pending(std::uint32_t slot, const tcp::Segment& segment,
                                 const wire::TcpOptions& options) const
{
    const Pending& p = pending_;
    constexpr std::uint8_t kPlain = tcp::kAck | tcp::kPsh;
    return p.slot == slot && segment.len != 0 && p.segment.len != 0 &&
           ((p.segment.flags | segment.flags) & ~kPlain) == 0 &&
           segment.seq == p.segment.seq + p.segment.len && segment.ack == p.segment.ack &&
           segment.window == p.segment.window && segment.ce == p.segment.ce &&
           p.segment.len + segment.len <= kLongestTrain && options == p.options;
}

void devmem_shard::process_pending()
{
    const std::uint32_t index = pending_.slot;
    pending_.slot = kNoSlot;
    Slot& slot = slots_[index];
    pending_.segment.options = &pending_.options;
    pending_.segment.payload = std::span(runs_buffer_).first(pending_.runs);
    current_ = &slot;
    act(index, slot.tcp.process(pending_.segment, now_, ctx_));
}

/// A segment that belongs to no connection begins one, or ends a handshake that left no trace, or
/// is refused. @return the engine has its payload
bool devmem_shard::no_connection(const wire::Packet& packet, const tcp::Segment& segment)
{
    if (!is_host(packet.src) || (packet.src_mac[0] & kGroupAddress) != 0) {
        stats_.rx_ignored++;
        return false;
    }
    if (Listener* const listener = listener_for(packet); listener != nullptr) {
        if ((segment.flags & kOpening) == tcp::kSyn) {
            open_passive(*listener, packet, segment);
            return false;
        }
        bool taken = false;
        if ((segment.flags & kOpening & ~tcp::kFin) == tcp::kAck &&
            open_cookie(*listener, packet, segment, &taken))
            return taken;
    }
    stats_.drop_no_connection++;
    tcp::SegmentOut reset;
    if (!tcp::reset_for(segment, &reset))
        return false;
    const wire::Flow flow = reply_to(packet);
    tx_segment(flow, reset);
    return false;
}

/// A connection with the sender of a packet, as we send.
wire::Flow devmem_shard::reply_to(const wire::Packet& packet) const
{
    return {packet.dst, packet.src,     packet.dst_port, packet.src_port,
            stack_.mac, packet.src_mac, stack_.dscp,     stack_.hop_limit};
}

devmem_shard::Listener* devmem_shard::listener_for(const wire::Packet& packet)
{
    const auto listener =
        std::find_if(listeners_.begin(), listeners_.end(),
                     [&](const Listener& l) { return l.port != 0 && l.port == packet.dst_port; });
    return listener == listeners_.end() ? nullptr : &*listener;
}

/// A slot for a connection of a listener's. @return kNoSlot: there is none
std::uint32_t devmem_shard::admit(Listener& listener, const wire::Flow& flow)
{
    const std::uint32_t index = allocate_slot();
    if (index == kNoSlot)
        return kNoSlot;
    Slot& slot = slots_[index];
    install(index, flow);
    slot.mac_known = true;
    slot.listener = static_cast<std::uint8_t>(&listener - listeners_.data());
    listener.pending++;
    slot.half_open = true;
    half_open_++;
    current_ = &slot;
    return index;
}

/// Who has shown nothing but a source address gets at most half of the slots.
bool devmem_shard::has_room(const Listener& listener) const
{
    return listener.pending < listener.backlog && half_open_ < (connections_ + 1) / 2;
}

void devmem_shard::open(std::uint32_t index, const wire::Packet& packet,
                        const tcp::Segment& segment, tcp::Seq iss)
{
    // Data on a SYN may be ignored: it is sent again (RFC 9293 3.4 leaves keeping it to us).
    tcp::Segment syn = segment;
    syn.len = 0;
    syn.payload = {};
    const bool timestamps = stack_.tcp.timestamps && packet.options.timestamps;
    Slot& slot = slots_[index];
    act(index, slot.tcp.open_passive(syn, iss, announced_mss(packet.src.family, timestamps),
                                     largest_mss(packet.src.family),
                                     isn_.timestamp_offset(name_of(slot.flow)),
                                     &returns_->by_connection[index], now_, ctx_));
}

void devmem_shard::open_passive(Listener& listener, const wire::Packet& packet,
                                const tcp::Segment& segment)
{
    if (listener.waiting >= listener.backlog) {
        stats_.drop_listen_overflow++;
        return;
    }
    const wire::Flow flow = reply_to(packet);
    const tcp::FlowName name = name_of(flow);
    const std::uint32_t index = has_room(listener) ? admit(listener, flow) : kNoSlot;
    if (index != kNoSlot) {
        open(index, packet, segment, isn_.isn(name, now_));
        return;
    }
    stats_.syn_cookies_sent++;
    const bool timestamps = stack_.tcp.timestamps && packet.options.timestamps;
    tx_segment(flow, cookies_.answer(segment, name, announced_mss(packet.src.family, timestamps),
                                     isn_.timestamp_offset(name), now_, stack_.tcp));
}

/// A SYN for a connection that is there: it may be in TIME-WAIT, and make room for the next (RFC
/// 6191). Not by cookie, whose ISS may lie in the old one's numbers.
/// @return false: the SYN is for the connection that is there
bool devmem_shard::reopen(std::uint32_t old, const wire::Packet& packet,
                          const tcp::Segment& segment)
{
    tcp::Connection& tcp = slots_[old].tcp;
    Listener* const listener = listener_for(packet);
    if (listener == nullptr || !has_room(*listener) || free_.empty() ||
        !tcp.gives_way(segment, stack_.tcp))
        return false;
    // RFC 9293 3.4.1: after every number the old one used. The clock alone is not, after a fast
    // one; 64 KiB more are beyond what a window without scaling can hold.
    constexpr std::uint32_t kBeyond = 1u << 16;
    const wire::Flow flow = reply_to(packet);
    const tcp::Seq iss = max(isn_.isn(name_of(flow), now_), tcp.sequence_end() + kBeyond);
    current_ = &slots_[old];
    act(old, tcp.give_way(now_, ctx_));
    stats_.time_wait_reused++;
    open(admit(*listener, flow), packet, segment, iss);
    return true;
}

/// @param taken the engine has the payload
/// @return false: no cookie of ours comes back in this segment
bool devmem_shard::open_cookie(Listener& listener, const wire::Packet& packet,
                               const tcp::Segment& segment, bool* taken)
{
    const wire::Flow flow = reply_to(packet);
    const tcp::FlowName name = name_of(flow);
    const std::uint32_t offset = isn_.timestamp_offset(name);
    wire::TcpOptions syn;
    if (!cookies_.check(segment, name, offset, now_, stack_.tcp, &syn))
        return false;
    // The peer sends again what it has to say, and the cookie with it.
    if (listener.waiting >= listener.backlog) {
        stats_.drop_listen_overflow++;
        return true;
    }
    const std::uint32_t index = admit(listener, flow);
    if (index == kNoSlot) {
        stats_.drop_no_connection_slot++;
        return true;
    }
    if (segment.len != 0)
        keep_host_bytes(segment.payload, index); // its first: it may have them
    stats_.syn_cookies_accepted++;
    *taken = true;
    act(index, slots_[index].tcp.open_cookie(segment, syn,
                                             announced_mss(packet.src.family, syn.timestamps),
                                             largest_mss(packet.src.family), offset,
                                             &returns_->by_connection[index], now_, ctx_));
    return true;
}

void devmem_shard::receive_arp(std::span<const std::uint8_t> frame, const wire::Packet& packet)
{
    wire::Arp arp;
    if (!wire::parse_arp(frame, packet, &arp)) {
        stats_.drop_icmp++;
        return;
    }
    stack_.neighbours.learn(arp.sender, arp.sender_mac);
    constexpr std::uint16_t kRequest = 1, kReply = 2;
    if (arp.operation != kRequest || stack_.local_address(arp.target) < 0)
        return;
    std::array<std::uint8_t, 64> reply;
    tx_frame(std::span(reply).first(
        wire::write_arp(reply, kReply, stack_.mac, arp.target, arp.sender_mac, arp.sender)));
}

void devmem_shard::receive_icmp(std::span<const std::uint8_t> frame, const wire::Packet& packet)
{
    if (packet.kind == wire::Kind::kIcmp6) {
        wire::Nd nd;
        if (wire::parse_nd(frame, packet, &nd)) {
            if (!nd.solicitation) {
                if (nd.has_mac)
                    stack_.neighbours.learn(nd.target, nd.mac);
                return;
            }
            if (stack_.local_address(nd.target) < 0)
                return;
            if (nd.has_mac)
                stack_.neighbours.learn(packet.src, nd.mac);
            std::array<std::uint8_t, 128> advert;
            tx_frame(std::span(advert).first(wire::write_nd_advertisement(
                advert, stack_.mac, nd.target, packet.src, nd.has_mac ? nd.mac : packet.src_mac)));
            return;
        }
    }
    if (stack_.local_address(packet.dst) < 0) {
        stats_.rx_ignored++;
        return;
    }
    wire::Unreachable unreachable;
    if (wire::parse_unreachable(frame, packet, &unreachable)) {
        const FlowKey key{unreachable.dst, unreachable.src, unreachable.dst_port,
                          unreachable.src_port};
        const std::uint32_t slot = flows_->find(flows_->hash(key), key);
        if (slot != FlowTable::kNotFound) {
            flush_pending();
            current_ = &slots_[slot];
            act(slot, slots_[slot].tcp.icmp_error(
                          is_hard(unreachable), tcp::Seq(unreachable.seq),
                          refuses(unreachable) ? -ECONNREFUSED : -EHOSTUNREACH, now_, ctx_));
        }
        return;
    }
    // The reply is as long as the request; the frame in scratch_ is overwritten from the front only
    // after the writer has read it, so the reply gets a place of its own.
    std::uint8_t* reply = scratch_.get() + kLargestFrame;
    tx_frame({reply, wire::write_echo_reply({reply, kLargestFrame}, frame, packet, stack_.mac)});
}
