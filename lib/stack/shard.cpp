// SPDX-License-Identifier: BSD-3-Clause

#include "lib/stack/shard.h"

#include "lib/memory/region.h"
#include "lib/stack/log.h"
#include "lib/stack/stack.h"

#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <mutex>

using namespace devmem;

RTE_LOG_REGISTER(devmem_logtype, lib.devmem, NOTICE)

devmem_shard::devmem_shard(const Config& config)
    : stack_(*config.stack), queue_(config.queue), connections_(config.connections),
      shards_(config.shards), reserve_(config.reserve), payload_config_(config.payload),
      returns_(std::make_shared<PayloadPool::Returns>(config.connections)),
      slots_(config.connections), isn_(config.stack->secret),
      cookies_(config.stack->secret), ctx_{config.stack->tcp, runs_, credit_, *this, counters_},
      delayed_acks_(config.connections), dirty_(config.connections), starved_(config.connections),
      events_(config.connections), free_(config.connections), zombies_(config.connections),
      scratch_(std::make_unique<std::uint8_t[]>(2 * std::size_t{kLargestFrame}))
{
    payload_config_.returns = returns_;
    for (std::uint32_t i = 0; i < connections_; i++)
        free_.push(i);
    waiters_.reserve(connections_);
    constexpr std::uint64_t kMicroseconds = 1'000'000;
    us_per_cycle_ = static_cast<std::uint64_t>((static_cast<__uint128_t>(kMicroseconds) << 32) /
                                               rte_get_tsc_hz());
    tsc_start_ = rte_rdtsc();
}

int devmem_shard::create(const Config& config, std::unique_ptr<devmem_shard>* made,
                         std::string& error)
{
    std::unique_ptr<devmem_shard> shard(new devmem_shard(config));
    const int socket = config.payload.socket_id;
    const std::string prefix = config.payload.name;

    if (const int rc = PayloadPool::create(shard->payload_config_, &shard->payload_, error);
        rc != 0)
        return rc;
    const PktmbufPoolLayout& device = shard->payload_->device_layout();
    const PktmbufPoolLayout& host = shard->payload_->host_layout();
    shard->credit_.fragment_bytes = device.fragment_bytes;

    // Headers: as many as the port can hold for the fragments it can hold, a burst in hand, caches.
    constexpr unsigned kCache = 256;
    constexpr std::uint16_t kHeaderRoom = RTE_PKTMBUF_HEADROOM + 256;
    const unsigned headers = 4096 + 2 * config.reserve;
    shard->header_pool_ =
        rte_pktmbuf_pool_create((prefix + "_hdr").c_str(), headers, kCache, 0, kHeaderRoom, socket);
    constexpr unsigned kTxMbufs = 4096;
    shard->tx_pool_ = rte_pktmbuf_pool_create((prefix + "_tx").c_str(), kTxMbufs, kCache, 0,
                                              RTE_MBUF_DEFAULT_BUF_SIZE, socket);
    if (shard->header_pool_ == nullptr || shard->tx_pool_ == nullptr) {
        error = "cannot make the header and transmit pools of " + prefix + ": " +
                rte_strerror(rte_errno) + "; give EAL more memory (-m, or more hugepages)";
        return -ENOMEM;
    }
    shard->flows_ = std::make_unique<FlowTable>(config.connections, config.stack->secret,
                                                &shard->slots_[0].key, sizeof(Slot));
    shard->timers_ = std::make_unique<TimerWheel>(config.connections, 0);
    if (shard->runs_.create({
            .device_fragments = device.fragments,
            .device_fragment_bytes = device.fragment_bytes,
            .device_fragments_per_page = device.fragments_per_page,
            .host_fragments = host.fragments,
            .host_fragment_bytes = host.fragment_bytes,
            .host_fragments_per_page = host.fragments_per_page,
        }) != 0) {
        error = "cannot remember the runs of " + std::to_string(device.fragments) + " fragments";
        return -ENOMEM;
    }
    *made = std::move(shard);
    return 0;
}

devmem_shard::~devmem_shard()
{
    for (std::uint32_t i = 0; i < connections_; i++) {
        if (slots_[i].used) {
            current_ = &slots_[i];
            slots_[i].tcp.reset(ctx_);
        }
    }
    rte_pktmbuf_free_bulk(tx_.data(), tx_count_);
    tx_put_spares();
    for (PayloadPool* pool : former_)
        pool->detach();
    if (payload_ != nullptr)
        payload_->detach();
    rte_mempool_free(header_pool_);
    rte_mempool_free(tx_pool_);
}

void devmem_shard::abort_all()
{
    for (std::uint32_t i = 0; i < connections_; i++) {
        if (!slots_[i].used)
            continue;
        current_ = &slots_[i];
        slots_[i].tcp.abort(now_, ctx_);
        slots_[i].tcp.poll(now_, ctx_);
    }
    tx_flush();
}

void devmem_shard::release(std::uint32_t first, std::uint32_t count)
{
    pool_of(first).release(first, count);
}

/* ---------------------------------------------------------------- memory */

/// The pool that a fragment of the engine's is in.
PayloadPool& devmem_shard::pool_of(std::uint32_t fragment)
{
    if (payload_->has(fragment)) [[likely]]
        return *payload_;
    return **std::find_if(former_.begin(), former_.end(),
                          [&](const PayloadPool* pool) { return pool->has(fragment); });
}

/// Where a further pool's fragments may begin: the first gap between those of the others.
std::uint64_t devmem_shard::base_for(std::uint32_t fragments) const
{
    std::uint64_t base = 0;
    for (bool moved = true; moved;) {
        moved = false;
        const auto avoid = [&](const PayloadPool& pool) {
            const std::uint64_t end = std::uint64_t{pool.base()} + pool.fragments();
            if (base < end && pool.base() < base + fragments) {
                base = end;
                moved = true;
            }
        };
        avoid(*payload_);
        for (const PayloadPool* pool : former_)
            avoid(*pool);
    }
    return base;
}

/// A pool on the shard's part of `region`, or on host memory as large as what it has now.
/// @param config that of the present pool, becomes that of the new one
int devmem_shard::make_payload(devmem_region* region, PayloadPool::Config& config,
                               PayloadPool** made, std::string& error)
{
    std::unique_ptr<devmem_region, void (*)(devmem_region*)> own(nullptr, region_release);
    config.token_flags = 0;
    config.populated = 0;
    if (region == nullptr) {
        const std::string spec = "host:size=" + std::to_string(config.bytes) +
                                 ",page=" + std::to_string(config.fit.page_bytes) + ",huge=no";
        if (const int rc = region_create(spec, &region, error); rc != 0)
            return rc;
        own.reset(region);
        config.token_flags = DEVMEM_TOKEN_HOST;
        config.offset = 0;
    } else {
        config.bytes = region->bytes / region->page_bytes / shards_ * region->page_bytes;
        config.offset = queue_ * config.bytes;
    }
    if (region->page_bytes < config.fit.page_bytes || config.bytes == 0) {
        error = "region " + region->spec + " has no pages of " +
                format_size(config.fit.page_bytes) + " for " + std::to_string(shards_) + " shards";
        return -EINVAL;
    }
    config.region = region;
    config.name += "_" + std::to_string(++rebinds_);
    const int rc = PayloadPool::create(config, made, error);
    config.name = payload_config_.name;
    if (rc != 0)
        return rc;
    const std::uint64_t base = base_for((*made)->fragments());
    if (runs_.extend(base + (*made)->fragments()) != 0) {
        error = "cannot remember the runs of " + std::to_string((*made)->fragments()) +
                " more fragments";
        return -ENOMEM;
    }
    (*made)->set_base(static_cast<std::uint32_t>(base));
    return 0;
}

/// Have the port write to another pool from here on, or leave it as it is.
int devmem_shard::move_queue(const PayloadPool& payload, std::string& error)
{
    const std::lock_guard guard(stack_.control);
    // What waits in the port is lost with its queue: take it first. A fast sender never ends.
    constexpr unsigned kBursts = 64;
    tick();
    refresh_credit();
    for (unsigned i = 0; i < kBursts && receive_burst() != 0; i++)
        ;
    const std::uint64_t promised =
        static_cast<std::uint64_t>(std::max<std::int64_t>(credit_.promised_bytes, 0));
    const std::uint64_t need = reserve_ + promised / credit_.fragment_bytes + 1;
    if (payload.capacity() < need) {
        error = "region " + payload.device_layout().region->spec + " gives the shard " +
                std::to_string(payload.capacity()) +
                " fragments; the port and what senders were promised take " + std::to_string(need);
        return -ENOSPC;
    }
    const int stopped = rte_eth_dev_rx_queue_stop(stack_.port_id, queue_);
    if (stopped != 0) {
        error = "the port does not stop receive queue " + std::to_string(queue_) + ": " +
                rte_strerror(-stopped);
        return stopped;
    }
    const int rc = stack_.start_rx(*this, payload.device_mempool(), error);
    std::string again;
    receiving_ = rc == 0 || stack_.start_rx(*this, payload_mempool(), again) == 0;
    if (!receiving_)
        error += "; nor does it take the queue as it was: " + again;
    return rc;
}

/// Give up the pools that the engine has nothing of any more: they go with their last token.
void devmem_shard::leave_pools()
{
    std::erase_if(former_, [](PayloadPool* pool) {
        const bool done = pool->with_engine() == 0;
        if (done)
            pool->detach();
        return done;
    });
}

int devmem_shard::rebind(devmem_region* region, std::string& error)
{
    const bool on_host = (payload_config_.token_flags & DEVMEM_TOKEN_HOST) != 0;
    if (region == nullptr ? on_host : region == payload_->device_layout().region) {
        error = region == nullptr ? "the shard is bound to no region"
                                  : "the shard is bound to that region";
        return -EALREADY;
    }
    if (const int rc = stack_.can_restart_rx(error); rc != 0)
        return rc;
    former_.reserve(former_.size() + 1);
    PayloadPool::Config config = payload_config_;
    PayloadPool* made = nullptr;
    int rc = make_payload(region, config, &made, error);
    if (rc == 0)
        rc = move_queue(*made, error);
    if (rc != 0) {
        if (made != nullptr)
            made->detach();
        return rc;
    }
    former_.push_back(payload_);
    payload_ = made;
    payload_config_ = std::move(config);
    leave_pools();
    refresh_credit();
    return 0;
}

/* ------------------------------------------------------------------ work */

void devmem_shard::tick()
{
    now_ = static_cast<tcp::Time>(
        (static_cast<__uint128_t>(rte_rdtsc() - tsc_start_) * us_per_cycle_) >> 32);
}

unsigned devmem_shard::poll(devmem_event* events, unsigned n, bool* busy)
{
    if (stages_ != nullptr) [[unlikely]]
        stages_->start();
    tick();
    const std::uint64_t sent = stats_.tx_packets;
    refresh_credit();
    bool worked = receive_burst() != 0;
    poll_dirty();
    serve_starved();
    worked |= serve_delayed_acks();
    timers_->advance(now_, [&](std::uint32_t slot) {
        worked = true;
        slots_[slot].armed = tcp::kNever;
        poll_slot(slots_[slot], slot);
    });
    if (!waiters_.empty())
        serve_waiters();
    poll_dirty();
    tx_flush();
    tx_put_spares();
    reap_zombies();
    if (!former_.empty()) [[unlikely]]
        leave_pools();
    if (busy != nullptr)
        *busy = worked || stats_.tx_packets != sent;
    const unsigned drained = drain_events(events, n);
    lap(Stage::kAck);
    return drained;
}

/// What the pool can still hold: every fragment that is neither with the port, nor held by a
/// connection or the application, nor promised to a sender.
void devmem_shard::refresh_credit()
{
    const auto held = static_cast<std::int64_t>(payload_->device_held());
    const std::int64_t free = static_cast<std::int64_t>(payload_->capacity()) - reserve_ - held;
    credit_.free_bytes = free * credit_.fragment_bytes - credit_.promised_bytes;
}

/// While somebody wants memory, whoever has been silent gives up what waits for its peer. A round
/// takes an eighth of a second: so long has a peer to answer to a window that opens. With more than
/// 8,000 connections it takes longer, as a millisecond is not for looking at all of them.
void devmem_shard::reclaim_from_silent()
{
    constexpr tcp::Time kInterval = 1'000;
    if (starved_.empty() || now_ < next_reclaim_)
        return;
    next_reclaim_ = now_ + kInterval;
    constexpr std::uint32_t kAtOnce = 64;
    for (std::uint32_t i = std::min(connections_ / 128 + 1, kAtOnce); i != 0; i--) {
        Slot& slot = slots_[reclaim_hand_];
        if (slot.used)
            slot.tcp.lend(now_, ctx_);
        reclaim_hand_ = reclaim_hand_ + 1 == connections_ ? 0 : reclaim_hand_ + 1;
    }
}

void devmem_shard::serve_starved()
{
    reclaim_from_silent();
    // A few each time: with nothing to give, this is all that thousands of starved senders cost.
    constexpr std::uint32_t kAtOnce = 16;
    for (std::uint32_t i = std::min(starved_.size(), kAtOnce); i != 0; i--) {
        const std::uint32_t index = starved_.pop();
        Slot& slot = slots_[index];
        if (slot.used && credit_.free_bytes <= 0) {
            starved_.push(index);
            continue;
        }
        slot.starved = false;
        if (!slot.used)
            continue;
        current_ = &slot;
        act(index, slot.tcp.window_check(now_, ctx_));
    }
}

[[gnu::always_inline]] inline void devmem_shard::poll_known(Slot& slot, std::uint32_t index)
{
    if (!slot.used || !slot.mac_known)
        return; // serve_waiters() polls it when its first segment can leave
    current_ = &slot;
    if (slot.tcp.is_quiet() && slot.tcp.ack_due()) [[likely]] {
        const tcp::Actions actions = slot.tcp.send_ack(now_, ctx_, *this);
        if (actions != tcp::kNothing) [[unlikely]]
            act(index, actions);
        return;
    }
    act(index, slot.tcp.poll(now_, ctx_));
}

void devmem_shard::poll_dirty()
{
    for (std::uint32_t i = dirty_.size(); i != 0; i--) {
        const std::uint32_t index = dirty_.pop();
        Slot& slot = slots_[index];
        slot.dirty = false;
        poll_known(slot, index);
    }
}

[[gnu::noinline]] void devmem_shard::poll_slot(Slot& slot, std::uint32_t index)
{
    poll_known(slot, index);
}

/// What act() is asked for less often. @return what is to be done besides
std::uint32_t devmem_shard::act_rarely(std::uint32_t index, std::uint32_t actions)
{
    Slot& slot = slots_[index];
    if ((actions & tcp::kPollNow) != 0) {
        current_ = &slot;
        actions |= slot.tcp.poll(now_, ctx_);
    }
    if ((actions & tcp::kConnected) != 0) {
        stats_.conn_opened++;
        if (slot.listener == UINT8_MAX) {
            raise(index, DEVMEM_EVENT_CONNECTED);
        } else {
            leave_half_open(slot);
            listeners_[slot.listener].waiting++;
            offer(listeners_[slot.listener], handle(index));
        }
    }
    if ((actions & tcp::kUrgent) != 0)
        raise(index, DEVMEM_EVENT_URGENT);
    if ((actions & tcp::kWritable) != 0)
        raise(index, DEVMEM_EVENT_WRITABLE);
    if ((actions & tcp::kRetrying) != 0)
        raise(index, DEVMEM_EVENT_RETRYING);
    if ((actions & tcp::kStarved) != 0 && !slot.starved) {
        slot.starved = true;
        starved_.push(index);
    }
    if ((actions & tcp::kClosed) != 0) {
        if ((actions & tcp::kReadable) != 0)
            raise(index, DEVMEM_EVENT_READABLE);
        over(index);
    }
    return actions;
}

/// Send ACKs that were delayed for long enough. One whose delay began anew since its connection
/// joined the queue joins it again, and may wait for as long once more at most.
bool devmem_shard::serve_delayed_acks()
{
    constexpr std::uint32_t kAhead = 8;
    bool any = false;
    while (delayed_acks_.due(now_)) {
        const Slot& ahead = slots_[delayed_acks_.ahead(kAhead)];
        prefetch(ahead);
        rte_prefetch0(&ahead.ack);
        const std::uint32_t index = delayed_acks_.pop();
        Slot& slot = slots_[index];
        slot.ack_waits = false;
        poll_slot(slot, index);
        any = true;
    }
    return any;
}

/* ----------------------------------------------------------------- slots */

devmem_conn_t devmem_shard::handle(std::uint32_t index) const
{
    return devmem_conn_t{slots_[index].generation} << 32 | index;
}

devmem_shard::Slot* devmem_shard::lookup(devmem_conn_t conn)
{
    const auto index = static_cast<std::uint32_t>(conn);
    if (index >= connections_)
        return nullptr;
    Slot& slot = slots_[index];
    return slot.owned && slot.generation == conn >> 32 ? &slot : nullptr;
}

std::uint32_t devmem_shard::allocate_slot()
{
    if (free_.empty()) {
        next_reap_ = 0;
        reap_zombies();
        if (free_.empty())
            return kNoSlot;
    }
    const std::uint32_t index = free_.pop();
    Slot& slot = slots_[index];
    slot.generation++;
    slot.delivered = 0;
    slot.listener = UINT8_MAX;
    slot.events = 0;
    slot.used = true;
    slot.owned = false;
    slot.mac_known = false;
    returns_->by_connection[index].clear();
    return index;
}

FlowKey devmem_shard::key_of(const wire::Flow& flow) const
{
    return {flow.dst, flow.src, flow.dst_port, flow.src_port};
}

void devmem_shard::install(std::uint32_t index, const wire::Flow& flow)
{
    slots_[index].flow = flow;
    slots_[index].ack = wire::AckTemplate(flow);
    const FlowKey key = key_of(flow);
    flows_->insert(flows_->hash(key), key, index);
    slots_[index].in_table = true;
}

/// The slot can serve another connection once every token of this one is back: returns are counted
/// by slot.
void devmem_shard::free_slot(std::uint32_t index)
{
    Slot& slot = slots_[index];
    leave_backlog(slot);
    current_ = &slot;
    slot.tcp.reset(ctx_);
    slot.used = false;
    slot.owned = false;
    slot.generation++;
    zombies_.push(index);
}

void devmem_shard::reap_zombies()
{
    constexpr tcp::Time kInterval = 1'000;
    if (zombies_.empty() || now_ < next_reap_)
        return;
    next_reap_ = now_ + kInterval;
    for (std::uint32_t i = zombies_.size(); i != 0; i--) {
        const std::uint32_t index = zombies_.pop();
        const bool back = returns_->by_connection[index].count(std::memory_order_acquire) ==
                          slots_[index].delivered;
        // A slot in a queue of work is not done either: the queues hold each slot at most once.
        const bool idle = !slots_[index].dirty && !slots_[index].event_queued &&
                          !slots_[index].starved && !slots_[index].ack_waits;
        (back && idle ? free_ : zombies_).push(index);
    }
}

/// Put an established connection where accept() finds it. At most 2 * `backlog` of the queue's
/// entries are alive, for cookies come on top of what is half open; the others were reset while
/// they waited and make room when it is needed.
void devmem_shard::offer(Listener& listener, devmem_conn_t conn)
{
    const std::size_t size = listener.queue.size();
    if (listener.tail - listener.head == size) {
        std::size_t kept = listener.head;
        for (std::size_t i = listener.head; i != listener.tail; i++) {
            const devmem_conn_t waiting = listener.queue[i % size];
            const Slot& slot = slots_[static_cast<std::uint32_t>(waiting)];
            if (slot.used && slot.generation == waiting >> 32)
                listener.queue[kept++ % size] = waiting;
        }
        listener.tail = kept;
    }
    listener.queue[listener.tail++ % size] = conn;
    accept_events_ |= 1u << (&listener - listeners_.data());
}

void devmem_shard::leave_backlog(Slot& slot)
{
    if (slot.listener == UINT8_MAX)
        return;
    listeners_[slot.listener].pending--;
    if (slot.half_open)
        leave_half_open(slot);
    else
        listeners_[slot.listener].waiting--;
    slot.listener = UINT8_MAX;
}

void devmem_shard::leave_half_open(Slot& slot)
{
    half_open_ -= slot.half_open ? 1 : 0;
    slot.half_open = false;
}

/// The engine is done with a connection.
void devmem_shard::over(std::uint32_t index)
{
    Slot& slot = slots_[index];
    if (slot.tcp.error() != 0)
        stats_.conn_failed++;
    timers_->cancel(index);
    slot.armed = tcp::kNever;
    if (slot.in_table) {
        flows_->erase(flows_->hash(slot.key), FlowKey(slot.key));
        slot.in_table = false;
    }
    if (slot.owned)
        raise(index, DEVMEM_EVENT_CLOSED);
    else
        free_slot(index);
}

/* ---------------------------------------------------------------- events */

unsigned devmem_shard::drain_events(devmem_event* events, unsigned n)
{
    unsigned count = 0;
    for (; accept_events_ != 0 && count < n; accept_events_ &= accept_events_ - 1)
        events[count++] = {DEVMEM_EVENT_ACCEPT, 0, 0,
                           static_cast<devmem_listener_t>(std::countr_zero(accept_events_))};
    while (count < n && !events_.empty()) {
        const std::uint32_t index = events_.pop();
        Slot& slot = slots_[index];
        slot.event_queued = false;
        while (slot.events != 0) {
            const auto type = static_cast<unsigned>(std::countr_zero(slot.events));
            if (count == n) {
                slot.event_queued = true;
                events_.push(index);
                break;
            }
            slot.events = static_cast<std::uint8_t>(slot.events & ~(1u << type));
            if (slot.owned)
                events[count++] = {static_cast<devmem_event_type>(type),
                                   type == DEVMEM_EVENT_CLOSED     ? slot.tcp.error()
                                   : type == DEVMEM_EVENT_RETRYING ? slot.tcp.soft_error()
                                                                   : 0,
                                   handle(index), 0};
        }
    }
    return count;
}

/* ----------------------------------------------------- what an application does */

int devmem_shard::listen(std::uint16_t port, unsigned backlog, devmem_listener_t* listener)
{
    if (port == 0 || backlog == 0)
        return -EINVAL;
    Listener* place = nullptr;
    for (Listener& l : listeners_) {
        if (l.port == port)
            return -EADDRINUSE;
        if (l.port == 0 && l.pending == 0 && place == nullptr)
            place = &l;
    }
    if (place == nullptr)
        return -ENOMEM;
    Listener made;
    made.port = port;
    made.backlog = std::min(backlog, connections_);
    made.queue.resize(2 * std::size_t{made.backlog} + 1);
    *place = std::move(made);
    *listener = static_cast<devmem_listener_t>(place - listeners_.data());
    return 0;
}

int devmem_shard::listen_close(devmem_listener_t listener)
{
    if (listener >= kListeners || listeners_[listener].port == 0)
        return -EBADF;
    listeners_[listener].port = 0;
    accept_events_ &= ~(1u << listener);
    for (std::uint32_t i = 0; i < connections_; i++) {
        Slot& slot = slots_[i];
        if (!slot.used || slot.listener != listener)
            continue;
        current_ = &slot;
        act(i, slot.tcp.abort(now_, ctx_) | tcp::kPollNow);
    }
    return 0;
}

int devmem_shard::accept(devmem_listener_t listener, devmem_conn_t* conn)
{
    if (listener >= kListeners || listeners_[listener].port == 0)
        return -EBADF;
    Listener& l = listeners_[listener];
    while (l.head != l.tail) {
        const devmem_conn_t candidate = l.queue[l.head++ % l.queue.size()];
        const auto index = static_cast<std::uint32_t>(candidate);
        Slot& slot = slots_[index];
        if (!slot.used || slot.generation != candidate >> 32)
            continue; // reset while it waited
        leave_backlog(slot);
        slot.owned = true;
        if (slot.tcp.urgent_bytes() != 0)
            raise(index, DEVMEM_EVENT_URGENT);
        if (slot.tcp.readable_bytes() != 0 || slot.tcp.peer_closed())
            raise(index, DEVMEM_EVENT_READABLE);
        *conn = candidate;
        return 0;
    }
    return -EAGAIN;
}

tcp::FlowName devmem_shard::name_of(const wire::Flow& flow) const
{
    return {flow.src.bytes, flow.dst.bytes, flow.src_port, flow.dst_port};
}

/// So that a full segment fills a fragment: with timestamps, 12 bytes of what MSS counts are
/// options (RFC 6691).
std::uint16_t devmem_shard::announced_mss(std::uint8_t family, bool timestamps) const
{
    const std::uint32_t by_fit = stack_.payload_per_fragment + (timestamps ? 12u : 0u);
    return static_cast<std::uint16_t>(std::min<std::uint32_t>(largest_mss(family), by_fit));
}

std::uint16_t devmem_shard::largest_mss(std::uint8_t family) const
{
    const unsigned headers = family == 4 ? 20 + 20 : 40 + 20;
    return static_cast<std::uint16_t>(stack_.mtu - headers);
}

/// Whether a connection of the shard has these addresses and ports.
bool devmem_shard::in_use(const wire::Flow& flow) const
{
    const FlowKey key = key_of(flow);
    return flows_->find(flows_->hash(key), key) != FlowTable::kNotFound;
}

std::uint16_t devmem_shard::ephemeral_port(const wire::Flow& flow)
{
    // RFC 6056 3.3.3: an offset by hash of the destination, then upwards.
    constexpr std::uint32_t kFirst = 32768, kCount = 65536 - kFirst;
    wire::Flow trial = flow;
    const std::uint32_t offset = isn_.timestamp_offset(name_of(flow));
    for (std::uint32_t i = 0; i < kCount; i++) {
        trial.src_port = static_cast<std::uint16_t>(kFirst + (offset + next_port_++) % kCount);
        if (!in_use(trial))
            return trial.src_port;
    }
    return 0;
}

int devmem_shard::connect(const devmem_endpoint& local, const devmem_endpoint& remote,
                          devmem_conn_t* conn)
{
    if ((remote.addr.family != 4 && remote.addr.family != 6) || remote.port == 0)
        return -EINVAL;
    wire::Ip next_hop;
    wire::Flow flow{};
    flow.dscp = stack_.dscp;
    flow.hop_limit = stack_.hop_limit;
    flow.dst = to_ip(remote.addr);
    if (!is_host(flow.dst))
        return -EINVAL;
    const bool chosen = local.addr.family != 0;
    if (chosen && local.addr.family != remote.addr.family)
        return -EAFNOSUPPORT;
    if (!stack_.route(flow.dst, &flow.src, &next_hop))
        return flow.src.family == 0 ? -EADDRNOTAVAIL : -ENETUNREACH;
    flow.dst_port = remote.port;
    flow.src_mac = stack_.mac;
    if (chosen)
        flow.src = to_ip(local.addr);
    flow.src_port = local.port != 0 ? local.port : ephemeral_port(flow);
    if (stack_.local_address(flow.src) < 0 || flow.src_port == 0)
        return -EADDRNOTAVAIL;
    if (in_use(flow))
        return -EADDRINUSE;
    const std::uint32_t index = allocate_slot();
    if (index == kNoSlot)
        return -ENOMEM;
    Slot& slot = slots_[index];
    install(index, flow);
    slot.owned = true;
    slot.mac_known = stack_.neighbours.resolve(next_hop, &slot.flow.dst_mac);
    slot.ack = wire::AckTemplate(slot.flow);
    if (!slot.mac_known)
        waiters_.push_back({index, slot.generation, next_hop, 0, now_});
    *conn = handle(index);
    current_ = &slot;
    const tcp::FlowName name = name_of(flow);
    act(index, slot.tcp.open_active(isn_.isn(name, now_),
                                    announced_mss(flow.dst.family, stack_.tcp.timestamps),
                                    largest_mss(flow.dst.family), isn_.timestamp_offset(name),
                                    &returns_->by_connection[index], now_, ctx_));
    return 0;
}

int devmem_shard::endpoints(devmem_conn_t conn, devmem_endpoint* local,
                            devmem_endpoint* remote) const
{
    const Slot* slot = const_cast<devmem_shard*>(this)->lookup(conn);
    if (slot == nullptr)
        return -EBADF;
    *local = {to_addr(slot->flow.src), slot->flow.src_port};
    *remote = {to_addr(slot->flow.dst), slot->flow.dst_port};
    return 0;
}

std::int64_t devmem_shard::urgent(devmem_conn_t conn) const
{
    const Slot* slot = const_cast<devmem_shard*>(this)->lookup(conn);
    return slot == nullptr ? -EBADF : std::int64_t{slot->tcp.urgent_bytes()};
}

int devmem_shard::set(devmem_conn_t conn, const devmem_conn_config& config)
{
    Slot* slot = lookup(conn);
    if (slot == nullptr)
        return -EBADF;
    constexpr tcp::Time kMillisecond = 1'000;
    tcp::Patience patience;
    patience.keepalive = config.keepalive_ms * kMillisecond;
    if (config.keepalive_interval_ms != 0)
        patience.keepalive_interval = config.keepalive_interval_ms * kMillisecond;
    if (config.keepalive_probes != 0)
        patience.keepalive_probes = config.keepalive_probes;
    patience.user_timeout = config.user_timeout_ms * kMillisecond;
    slot->tcp.set_patience(patience, now_);
    if (slot->in_table) // otherwise it is over
        arm(*slot, static_cast<std::uint32_t>(conn));
    return 0;
}

int devmem_shard::set_ip(devmem_conn_t conn, std::uint8_t dscp, std::uint8_t ttl)
{
    Slot* slot = lookup(conn);
    if (slot == nullptr)
        return -EBADF;
    if (dscp > kLargestDscp || ttl == 0)
        return -EINVAL;
    slot->flow.dscp = dscp;
    slot->flow.hop_limit = ttl;
    slot->ack = wire::AckTemplate(slot->flow);
    return 0;
}

/// Tokens on their way out, to be counted together.
struct devmem_shard::Delivery {
    const PayloadPool::Mint& mint; ///< of payload_, where the port writes
    unsigned elsewhere = 0;        ///< tokens that it did not make, and are counted already
    std::uint64_t fragments = 0, bytes = 0; ///< of those it made
};

/// @param tokens all that were made
void devmem_shard::count(const Delivery& delivery, unsigned tokens)
{
    payload_->tokens_made(tokens - delivery.elsewhere, delivery.fragments);
    stats_.tokens_delivered += tokens;
    stats_.rx_fragments += delivery.fragments;
    rx_bytes(payload_->token_flags()) += delivery.bytes;
}

/// take_token() of what lies in host memory, or in a region that the port has left.
[[gnu::noinline]] bool devmem_shard::take_token_elsewhere(Slot& slot, std::uint32_t index,
                                                          devmem_token& token, Delivery& delivery)
{
    tcp::Run run;
    if (!slot.tcp.receive(&run, ctx_))
        return false;
    pool_of(run.first).make_token(run, index, &token);
    slot.delivered += run.count;
    delivery.elsewhere++;
    stats_.rx_fragments += run.count;
    rx_bytes(token.flags) += run.len;
    return true;
}

/// The next token of what a connection has received. @return false: there is none
[[gnu::always_inline]] inline bool devmem_shard::take_token(Slot& slot, std::uint32_t index,
                                                            devmem_token& token, Delivery& delivery)
{
    if (!delivery.mint.has(slot.tcp.next_fragment()))
        return slot.tcp.next_fragment() != tcp::RunStore::kNone &&
               take_token_elsewhere(slot, index, token, delivery);
    tcp::Run run;
    if (!slot.tcp.receive(&run, ctx_))
        return false;
    slot.delivered += run.count;
    delivery.mint.make(run, index, &token);
    delivery.fragments += run.count;
    delivery.bytes += run.len;
    return true;
}

int devmem_shard::recv(devmem_conn_t conn, devmem_token* tokens, unsigned n)
{
    Slot* slot = lookup(conn);
    if (slot == nullptr)
        return -EBADF;
    const auto index = static_cast<std::uint32_t>(conn);
    Delivery delivery{.mint = payload_->mint()};
    unsigned taken = 0;
    while (taken < n && take_token(*slot, index, tokens[taken], delivery))
        taken++;
    count(delivery, taken);
    if (taken != 0) {
        if (slot->tcp.readable_bytes() != 0 || slot->tcp.peer_closed())
            raise(index, DEVMEM_EVENT_READABLE);
        return static_cast<int>(taken);
    }
    if (slot->tcp.peer_closed())
        return 0;
    return slot->tcp.error() != 0 ? slot->tcp.error() : -EAGAIN;
}

/// What else there is to tell of a connection stays an event, the end of its stream too.
unsigned devmem_shard::recv_burst(devmem_conn_t* conns, devmem_token* tokens, unsigned n)
{
    constexpr std::uint8_t kReadable = 1u << DEVMEM_EVENT_READABLE;
    const PayloadPool::Mint mint = payload_->mint();
    Delivery delivery{.mint = mint};
    unsigned filled = 0;
    for (std::uint32_t left = events_.size(); left != 0 && filled < n; left--) {
        const std::uint32_t index = events_.pop();
        Slot& slot = slots_[index];
        if ((slot.events & kReadable) != 0 && slot.owned) {
            const devmem_conn_t conn = handle(index);
            while (filled < n && take_token(slot, index, tokens[filled], delivery))
                conns[filled++] = conn;
            if (slot.tcp.readable_bytes() == 0 && !slot.tcp.peer_closed())
                slot.events = static_cast<std::uint8_t>(slot.events & ~kReadable);
        }
        if (slot.events == 0) [[likely]]
            slot.event_queued = false;
        else
            events_.push(index);
    }
    count(delivery, filled);
    return filled;
}

std::int64_t devmem_shard::send(devmem_conn_t conn, const void* data, std::size_t len)
{
    Slot* slot = lookup(conn);
    if (slot == nullptr)
        return -EBADF;
    current_ = slot;
    const std::int64_t taken = slot->tcp.send({static_cast<const std::byte*>(data), len}, ctx_);
    if (taken == 0)
        return len == 0 ? 0 : -EAGAIN;
    if (taken > 0)
        mark_dirty(static_cast<std::uint32_t>(conn));
    return taken;
}

int devmem_shard::shutdown(devmem_conn_t conn)
{
    Slot* slot = lookup(conn);
    if (slot == nullptr)
        return -EBADF;
    current_ = slot;
    act(static_cast<std::uint32_t>(conn), slot->tcp.shutdown(now_, ctx_));
    return 0;
}

int devmem_shard::close(devmem_conn_t conn, bool abort)
{
    Slot* slot = lookup(conn);
    if (slot == nullptr)
        return -EBADF;
    const auto index = static_cast<std::uint32_t>(conn);
    slot->owned = false;
    slot->events = 0;
    if (!slot->in_table) { // over() was here already
        free_slot(index);
        return 0;
    }
    current_ = slot;
    act(index, (abort ? slot->tcp.abort(now_, ctx_) : slot->tcp.close(now_, ctx_)));
    return 0;
}

void devmem_shard::stats(devmem_shard_stats* stats) const
{
    // Each counter has one writer, the shard's thread; a reader sees each whole, not all at once.
    const auto* from = reinterpret_cast<const std::uint64_t*>(&stats_);
    auto* to = reinterpret_cast<std::uint64_t*>(stats);
    for (std::size_t i = 0; i < sizeof(stats_) / sizeof(*from); i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    const auto engine = [](const std::uint64_t& counter) {
        return __atomic_load_n(&counter, __ATOMIC_RELAXED);
    };
    stats->rx_payload_bytes = engine(counters_.payload_bytes);
    stats->rx_ooo_segments = engine(counters_.ooo_segments);
    stats->rx_duplicate_bytes = engine(counters_.duplicate_bytes);
    stats->rx_ce_segments = engine(counters_.ce_segments);
    stats->tx_retransmits = engine(counters_.retransmits);
    stats->tx_acks = engine(counters_.pure_acks);
    stats->window_limited = engine(counters_.window_limited);
    stats->drop_out_of_window = engine(counters_.out_of_window);
    stats->drop_paws = engine(counters_.paws);
    stats->drop_after_close = engine(counters_.after_close);
    stats->drop_no_memory = engine(counters_.no_memory);
    stats->rx_reneged = engine(counters_.reneged);
    stats->drop_ooo_overlap = engine(counters_.ooo_overlap_bytes);
    stats->stale_returns = returns_->stale.load(std::memory_order_relaxed);
}
