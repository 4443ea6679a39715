// SPDX-License-Identifier: BSD-3-Clause
// A shard: one queue pair, its connections, its payload pool. Owned by one thread, shares nothing
// that a packet needs.
#pragma once

#include "lib/memory/flat_array.h"
#include "lib/stack/ack_queue.h"
#include "lib/stack/flow_table.h"
#include "lib/stack/index_queue.h"
#include "lib/stack/payload_pool.h"
#include "lib/stack/stages.h"
#include "lib/stack/timer_wheel.h"
#include "lib/tcp/connection.h"
#include "lib/tcp/isn.h"
#include "lib/tcp/syn_cookie.h"
#include "lib/wire/ack_template.h"
#include "lib/wire/frame.h"
#include "lib/wire/plain.h"

#include <devmem/devmem.h>

#include <rte_mbuf_core.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

struct rte_mbuf;
struct rte_mempool;
struct devmem_stack;

struct devmem_shard final : devmem::tcp::Sink {
    struct Config {
        devmem_stack* stack;
        std::uint16_t queue;
        std::uint16_t shards; ///< of the stack, which share regions out
        std::uint32_t connections;
        std::uint32_t reserve; ///< fragments the port keeps posted: never promised to a sender
        devmem::PayloadPool::Config payload;
    };

    /// @param config payload.returns is not used
    static int create(const Config& config, std::unique_ptr<devmem_shard>* shard,
                      std::string& error);
    ~devmem_shard();
    devmem_shard(const devmem_shard&) = delete;
    devmem_shard& operator=(const devmem_shard&) = delete;

    unsigned poll(devmem_event* events, unsigned n, bool* busy);
    unsigned drain_events(devmem_event* events, unsigned n);

    int listen(std::uint16_t port, unsigned backlog, devmem_listener_t* listener);
    int listen_close(devmem_listener_t listener);
    int accept(devmem_listener_t listener, devmem_conn_t* conn);
    int connect(const devmem_endpoint& local, const devmem_endpoint& remote, devmem_conn_t* conn);
    int endpoints(devmem_conn_t conn, devmem_endpoint* local, devmem_endpoint* remote) const;
    std::int64_t urgent(devmem_conn_t conn) const;
    int set(devmem_conn_t conn, const devmem_conn_config& config);
    int set_ip(devmem_conn_t conn, std::uint8_t dscp, std::uint8_t ttl);
    int recv(devmem_conn_t conn, devmem_token* tokens, unsigned n);
    unsigned recv_burst(devmem_conn_t* conns, devmem_token* tokens, unsigned n);
    std::int64_t send(devmem_conn_t conn, const void* data, std::size_t len);
    int shutdown(devmem_conn_t conn);
    int close(devmem_conn_t conn, bool abort);
    void stats(devmem_shard_stats* stats) const;
    /// @param region nullptr: host memory. @see devmem_shard_rebind()
    int rebind(devmem_region* region, std::string& error);

    /// Reset every connection and send what that takes: before the port stops.
    void abort_all();

    std::uint16_t queue() const { return queue_; }
    rte_mempool* header_pool() const { return header_pool_; }
    rte_mempool* payload_mempool() const { return payload_->device_mempool(); }
    /// Count cycles by stage from now on; nullptr: no longer. The shard's thread only.
    void time_stages(devmem::StageClock* clock) { stages_ = clock; }

    // tcp::Sink
    bool emit(const devmem::tcp::SegmentOut& segment) override;
    bool emit_ack(const devmem::tcp::AckOut& ack) override;
    void release(std::uint32_t first, std::uint32_t count) override;

private:
    static constexpr std::uint32_t kNoSlot = UINT32_MAX;
    static constexpr unsigned kBurst = 64;
    static constexpr unsigned kListeners = 16;
    /// Bytes told to the engine as one segment. Far below any window: sequence arithmetic stays
    /// safe.
    static constexpr std::uint32_t kLongestTrain = 1u << 20;
    /// Ethernet with two VLAN tags, and the largest IP packet.
    static constexpr std::uint32_t kLargestFrame = 14 + 8 + 40 + 65535;
    /// Runs a pending segment may have. The largest frame, 64 KiB in fragments of 64 bytes, makes
    /// fewer unless its fragments are scattered; a frame that makes more is dropped.
    static constexpr unsigned kRuns = 512;

    /// A connection and what the shard keeps beside the engine's state.
    struct alignas(64) Slot {
        devmem::FlowKey key;                           ///< the flow table's
        devmem::tcp::Time armed = devmem::tcp::kNever; ///< no later than this its timer goes off
        std::uint32_t generation = 0;
        std::uint32_t delivered = 0;       ///< fragments given out as tokens
        std::uint8_t listener = UINT8_MAX; ///< whose backlog it counts in, until accepted
        std::uint8_t events = 0;           ///< bits of devmem_event_type, to be raised
        bool used : 1 = false;             ///< has engine state
        bool owned : 1 = false;            ///< the application holds the handle
        bool half_open : 1 = false;        ///< counted in half_open_
        bool in_table : 1 = false;
        bool mac_known : 1 = false;
        bool dirty : 1 = false;        ///< in dirty_
        bool event_queued : 1 = false; ///< in events_
        bool starved : 1 = false;      ///< in starved_
        bool ack_waits : 1 = false;    ///< in delayed_acks_
        // So far one cache line; the engine's first two are what a segment in order needs besides.
        devmem::tcp::Connection tcp;
        devmem::wire::AckTemplate ack; ///< of `flow`
        devmem::wire::Flow flow;       ///< as we send: src is us
    };

    struct Listener {
        std::uint16_t port = 0; ///< 0: free
        std::uint32_t backlog = 0;
        std::uint32_t pending = 0;        ///< half open or waiting to be accepted
        std::uint32_t waiting = 0;        ///< to be accepted
        std::vector<devmem_conn_t> queue; ///< ring of established connections
        std::size_t head = 0, tail = 0;
    };

    /// In-order segments of one connection within a burst, told to the engine as one.
    struct Pending {
        std::uint32_t slot = kNoSlot;
        devmem::tcp::Segment segment{};
        devmem::wire::TcpOptions options;
        std::uint32_t runs = 0;
    };

    /// Packets of a burst that follow each other: of one connection, each text beginning where the
    /// one before ends, and saying the same otherwise, as GRO has it; or one packet of any kind.
    struct Train {
        devmem::wire::PlainSegment segment; ///< of the first; text_bytes of all
        std::uint32_t next_seq;             ///< in the packet that goes on with it
        std::uint32_t hash;
        std::uint32_t slot;          ///< most likely
        std::uint8_t first, packets; ///< of the burst
        std::uint8_t flags;          ///< of any of them
        bool plain;                  ///< else by receive()
    };

    /// A connection that waits for the MAC of its next hop.
    struct Waiter {
        std::uint32_t slot;
        std::uint32_t generation;
        devmem::wire::Ip next_hop;
        unsigned tries;
        devmem::tcp::Time next_try;
    };

    explicit devmem_shard(const Config& config);

    // burst.cpp
    unsigned receive_burst();
    /// Whether the port has checked a packet's text, or gives its word (NONE) that the text is
    /// intact although the checksum in the packet is not.
    static bool vouched(std::uint64_t ol_flags)
    {
        const std::uint64_t l4 = ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
        return l4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD || l4 == RTE_MBUF_F_RX_L4_CKSUM_NONE;
    }
    bool plain(const rte_mbuf* m, devmem::wire::PlainSegment* segment) const;
    bool follows(const rte_mbuf* m, Train& train) const;
    unsigned form_trains(unsigned packets);
    void find_connections(unsigned trains);
    static devmem::FlowKey key_of(const devmem::wire::PlainSegment& segment)
    {
        return {segment.ipv6(), segment.addresses(), segment.ports()};
    }
    void receive_train(const Train& train);
    void receive_train_of_one(const Train& train, Slot& slot, std::uint32_t index);
    void receive_train_of_many(const Train& train, Slot& slot, std::uint32_t index);
    void receive_text(const Train& train, Slot& slot, std::uint32_t index, unsigned packets,
                      std::span<const devmem::tcp::Run> runs);
    void receive_unpredicted(const Train& train, std::uint32_t index,
                             std::span<const devmem::tcp::Run> runs);
    void receive_singly(const Train& train);
    std::span<const devmem::tcp::Run> take_texts(const Train& train);
    void free_headers(unsigned packets);
    static void prefetch(const Slot& slot);
    void lap(devmem::Stage stage)
    {
        if (stages_ != nullptr) [[unlikely]]
            stages_->lap(stage);
    }

    // rx.cpp
    void receive(rte_mbuf* m);
    void receive_tcp(rte_mbuf* m, const devmem::wire::Packet& packet);
    void receive_arp(std::span<const std::uint8_t> frame, const devmem::wire::Packet& packet);
    void receive_icmp(std::span<const std::uint8_t> frame, const devmem::wire::Packet& packet);
    std::span<const std::uint8_t> gather(const rte_mbuf* m, std::uint32_t bytes);
    bool checksum_good(const rte_mbuf* m, const devmem::wire::Packet& packet);
    bool take_payload(rte_mbuf** packet_mbufs, const devmem::wire::Packet& packet,
                      std::uint32_t* runs);
    bool take_host_bytes(const std::uint8_t* bytes, std::uint32_t len, std::uint32_t* runs);
    bool keep_host_bytes(std::span<const devmem::tcp::Run> runs, std::uint32_t slot);
    void append_run(const devmem::tcp::Run& run, std::uint32_t begin, std::uint32_t* runs);
    void put_runs(std::uint32_t begin, std::uint32_t end);
    bool joins_pending(std::uint32_t slot, const devmem::tcp::Segment& segment,
                       const devmem::wire::TcpOptions& options) const;
    void flush_pending()
    {
        if (pending_.slot != kNoSlot) [[unlikely]]
            process_pending();
    }
    void process_pending();
    void count_drop(devmem::wire::Verdict verdict);
    bool no_connection(const devmem::wire::Packet& packet, const devmem::tcp::Segment& segment);
    bool reopen(std::uint32_t slot, const devmem::wire::Packet& packet,
                const devmem::tcp::Segment& segment);
    bool has_room(const Listener& listener) const;
    void open(std::uint32_t slot, const devmem::wire::Packet& packet,
              const devmem::tcp::Segment& segment, devmem::tcp::Seq iss);
    devmem::wire::Flow reply_to(const devmem::wire::Packet& packet) const;
    Listener* listener_for(const devmem::wire::Packet& packet);
    void open_passive(Listener& listener, const devmem::wire::Packet& packet,
                      const devmem::tcp::Segment& segment);
    bool open_cookie(Listener& listener, const devmem::wire::Packet& packet,
                     const devmem::tcp::Segment& segment, bool* taken);
    std::uint32_t admit(Listener& listener, const devmem::wire::Flow& flow);

    // tx.cpp
    rte_mbuf* tx_mbuf();
    bool tx_make_room();
    void tx_push(rte_mbuf* m);
    void tx_flush();
    void tx_put_spares();
    bool tx_frame(std::span<const std::uint8_t> frame);
    bool tx_segment(const devmem::wire::Flow& flow, const devmem::tcp::SegmentOut& segment);
    bool ask_neighbour(const devmem::wire::Ip& next_hop, const devmem::wire::Ip& local);
    void serve_waiters();

    // shard.cpp
    Slot* lookup(devmem_conn_t conn);
    devmem_conn_t handle(std::uint32_t slot) const;
    std::uint32_t allocate_slot();
    void install(std::uint32_t slot, const devmem::wire::Flow& flow);
    void free_slot(std::uint32_t slot);
    void reap_zombies();
    void act(std::uint32_t slot, std::uint32_t actions) { act(slots_[slot], slot, actions); }
    void act(Slot& slot, std::uint32_t index, std::uint32_t actions);
    void act_usually(Slot& slot, std::uint32_t index, std::uint32_t actions);
    std::uint32_t act_rarely(std::uint32_t slot, std::uint32_t actions);
    void over(std::uint32_t slot);
    void offer(Listener& listener, devmem_conn_t conn);
    void leave_backlog(Slot& slot);
    void leave_half_open(Slot& slot);
    void mark_dirty(std::uint32_t slot);
    void mark_dirty(Slot& slot, std::uint32_t index);
    void raise(std::uint32_t slot, devmem_event_type type);
    void raise(Slot& slot, std::uint32_t index, devmem_event_type type);
    void poll_slot(Slot& slot, std::uint32_t index);
    void poll_dirty();
    void poll_known(Slot& slot, std::uint32_t index);
    void arm(Slot& slot, std::uint32_t index);
    bool serve_delayed_acks();
    void tick();
    void refresh_credit();
    devmem::PayloadPool& pool_of(std::uint32_t fragment);
    std::uint64_t base_for(std::uint32_t fragments) const;
    int make_payload(devmem_region* region, devmem::PayloadPool::Config& config,
                     devmem::PayloadPool** made, std::string& error);
    int move_queue(const devmem::PayloadPool& payload, std::string& error);
    void leave_pools();
    void serve_starved();
    void reclaim_from_silent();
    struct Delivery;
    void count(const Delivery& delivery, unsigned tokens);
    /// Where the bytes of tokens are counted.
    std::uint64_t& rx_bytes(std::uint32_t token_flags)
    {
        return (token_flags & DEVMEM_TOKEN_HOST) != 0 ? stats_.rx_host_bytes
                                                      : stats_.rx_device_bytes;
    }
    bool take_token(Slot& slot, std::uint32_t index, devmem_token& token, Delivery& delivery);
    bool take_token_elsewhere(Slot& slot, std::uint32_t index, devmem_token& token,
                              Delivery& delivery);
    bool in_use(const devmem::wire::Flow& flow) const;
    std::uint16_t ephemeral_port(const devmem::wire::Flow& flow);
    std::uint16_t announced_mss(std::uint8_t family, bool timestamps) const;
    std::uint16_t largest_mss(std::uint8_t family) const;
    devmem::tcp::FlowName name_of(const devmem::wire::Flow& flow) const;
    devmem::FlowKey key_of(const devmem::wire::Flow& flow) const;

    devmem_stack& stack_;
    const std::uint16_t queue_;
    const std::uint32_t connections_;
    const std::uint16_t shards_;
    const std::uint32_t reserve_;

    devmem::PayloadPool* payload_ = nullptr;     ///< where the port writes
    std::vector<devmem::PayloadPool*> former_;   ///< left, while the engine holds bytes there
    devmem::PayloadPool::Config payload_config_; ///< of payload_
    std::shared_ptr<devmem::PayloadPool::Returns> returns_;
    unsigned rebinds_ = 0;  ///< tried, ever
    bool receiving_ = true; ///< the port has the queue
    rte_mempool* header_pool_ = nullptr;
    rte_mempool* tx_pool_ = nullptr;

    devmem::tcp::Time now_ = 0;
    std::uint64_t us_per_cycle_ = 0; ///< in 2^-32 us
    std::uint64_t tsc_start_ = 0;

    devmem::FlatArray<Slot> slots_;
    std::unique_ptr<devmem::FlowTable> flows_;
    std::unique_ptr<devmem::TimerWheel> timers_;
    devmem::tcp::RunStore runs_;
    devmem::tcp::Credit credit_;
    devmem::tcp::Counters counters_;
    devmem::tcp::IsnGenerator isn_;
    devmem::tcp::SynCookies cookies_;
    std::uint32_t half_open_ = 0; ///< passive connections not yet acknowledged, of all listeners
    devmem::tcp::Context ctx_;
    Slot* current_ = nullptr; ///< whose segments emit() sends

    devmem::AckQueue delayed_acks_;
    devmem::IndexQueue dirty_, starved_, events_, free_, zombies_;
    std::array<Listener, kListeners> listeners_;
    std::uint32_t accept_events_ = 0; ///< bits of listeners
    std::vector<Waiter> waiters_;
    std::uint32_t neighbour_version_ = 0;
    devmem::tcp::Time next_reap_ = 0;
    devmem::tcp::Time next_reclaim_ = 0;
    std::uint32_t reclaim_hand_ = 0; ///< slot
    std::uint16_t next_port_ = 0;
    std::uint16_t ip_id_ = 0;

    std::array<rte_mbuf*, kBurst> burst_{};
    bool singly_ = false; ///< some of them have gone to receive(): nullptr
    std::array<Train, kBurst> trains_;
    std::array<devmem::tcp::Run, kBurst> train_runs_;
    devmem::StageClock* stages_ = nullptr;

    Pending pending_;
    std::array<devmem::tcp::Run, kRuns> runs_buffer_;
    std::uint32_t host_taken_ = 0; ///< host fragments of the packet at hand, not yet a connection's
    std::array<rte_mbuf*, kBurst> done_{}; ///< header mbufs to free together
    unsigned done_count_ = 0;
    std::array<rte_mbuf*, kBurst> tx_{};
    unsigned tx_count_ = 0;
    std::array<rte_mbuf*, 32> tx_spare_{}; ///< of tx_pool_, as they came out of it
    unsigned tx_spares_ = 0;
    std::unique_ptr<std::uint8_t[]> scratch_; ///< two whole frames: one read, one written

    devmem_shard_stats stats_{};
};

// What every segment takes.

inline void devmem_shard::mark_dirty(Slot& slot, std::uint32_t index)
{
    if (!slot.dirty) {
        slot.dirty = true;
        dirty_.push(index);
    }
}

inline void devmem_shard::mark_dirty(std::uint32_t index)
{
    mark_dirty(slots_[index], index);
}

[[gnu::always_inline]] inline void devmem_shard::raise(Slot& slot, std::uint32_t index,
                                                       devmem_event_type type)
{
    if (!slot.owned)
        return; // told when it is accepted
    slot.events = static_cast<std::uint8_t>(slot.events | 1u << type);
    if (!slot.event_queued) {
        slot.event_queued = true;
        events_.push(index);
    }
}

inline void devmem_shard::raise(std::uint32_t index, devmem_event_type type)
{
    raise(slots_[index], index, type);
}

/// See to it that the connection is polled when its deadline comes. A timer that is due before that
/// is left as it is, and finds nothing to do: deadlines move with every segment.
[[gnu::always_inline]] inline void devmem_shard::arm(Slot& slot, std::uint32_t index)
{
    const devmem::tcp::Time deadline = slot.tcp.next_deadline();
    if (deadline >= slot.armed) [[likely]]
        return;
    if (slot.tcp.is_quiet()) { // it is an ACK's
        if (!slot.ack_waits) {
            slot.ack_waits = true;
            delayed_acks_.push(index, deadline);
        }
        return;
    }
    slot.armed = deadline;
    timers_->schedule(index, deadline);
}

/// Do what the engine asks for: of most segments, it is no more than this.
[[gnu::always_inline]] inline void devmem_shard::act_usually(Slot& slot, std::uint32_t index,
                                                             std::uint32_t actions)
{
    const bool may_rest = slot.tcp.may_rest(now_);
    if ((actions & devmem::tcp::kReadable) != 0)
        raise(slot, index, DEVMEM_EVENT_READABLE);
    if ((actions & devmem::tcp::kPoll) != 0) {
        if (may_rest) {
            slot.tcp.rest(now_, ctx_.config);
        } else {
            mark_dirty(slot, index);
            if (slot.mac_known) // poll_slot() does the rest
                return;
        }
    }
    arm(slot, index);
}

[[gnu::always_inline]] inline void devmem_shard::act(Slot& slot, std::uint32_t index,
                                                     std::uint32_t actions)
{
    constexpr std::uint32_t kUsual = devmem::tcp::kReadable | devmem::tcp::kPoll;
    if ((actions & ~kUsual) != 0) [[unlikely]] {
        actions = act_rarely(index, actions);
        if ((actions & devmem::tcp::kClosed) != 0)
            return;
    }
    act_usually(slot, index, actions);
}

// What every ACK takes.

/// @return an mbuf whose lengths are up to its user
[[gnu::always_inline]] inline rte_mbuf* devmem_shard::tx_mbuf()
{
    if ((tx_count_ == tx_.size() || tx_spares_ == 0) && !tx_make_room()) [[unlikely]]
        return nullptr;
    // One segment, one holder, nothing behind it: a free mbuf is so.
    rte_mbuf* const m = tx_spare_[--tx_spares_];
    m->data_off = RTE_PKTMBUF_HEADROOM;
    m->ol_flags = 0;
    m->tx_offload = 0;
    return m;
}

inline void devmem_shard::tx_push(rte_mbuf* m)
{
    tx_[tx_count_++] = m;
}

/// From the connection's template. Only one that is established has something to acknowledge, and
/// it knows its next hop.
[[gnu::always_inline]] inline bool devmem_shard::emit_ack(const devmem::tcp::AckOut& ack)
{
    rte_mbuf* const m = tx_mbuf();
    if (m == nullptr) [[unlikely]]
        return false;
    m->data_len = static_cast<std::uint16_t>(
        current_->ack.write(rte_pktmbuf_mtod(m, std::uint8_t*), ack.seq.value(), ack.ack.value(),
                            ack.window, ack.timestamps, ack.ts_val, ack.ts_ecr));
    m->pkt_len = m->data_len;
    tx_push(m);
    return true;
}
