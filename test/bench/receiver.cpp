// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/receiver.h"

#include "lib/stack/shard.h"

#include <rte_cycles.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

using namespace devmem;

namespace bench {
namespace {

constexpr std::uint16_t kPort = 5201;
constexpr std::uint32_t kHeaders = 14 + 20 + 32;

std::uint16_t mtu_for(std::uint32_t payload)
{
    constexpr std::uint32_t kEthernetMtu = 1500, kJumboMtu = 9000;
    return payload + kHeaders - 14 <= kEthernetMtu ? kEthernetMtu : kJumboMtu;
}

/// As a driver hands a buffer over that the hardware has filled.
void fill(rte_mbuf* m, std::uint16_t data_off, std::uint32_t bytes)
{
    m->data_off = data_off;
    m->data_len = static_cast<std::uint16_t>(bytes);
}

[[noreturn]] void fail(const std::string& what)
{
    throw std::runtime_error("rx: " + what);
}

/// The largest window for which what all connections together are promised fits the region.
std::uint32_t window_for(const ReceiverConfig& config, std::uint64_t region_bytes)
{
    constexpr std::uint64_t kMost = 1u << 20, kLeast = 2;
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
        region_bytes / 2 / config.load.connections, kLeast * config.load.payload, kMost));
}

} // namespace

ReceiverPort::ReceiverPort(const ReceiverConfig& config, unsigned queues)
    : ring(mtu_for(config.load.payload), queues)
{
    char error[256] = "";
    if (devmem_region_create(config.region.c_str(), &region, error, sizeof error) != 0)
        fail(error);
    devmem_region_info info{};
    devmem_region_info_get(region, &info);
    devmem_addr address{};
    devmem_addr_parse("10.0.0.2/8", &address);
    devmem_stack_config made{};
    made.size = sizeof made;
    made.port_id = ring.port_id();
    made.shards = static_cast<std::uint16_t>(queues);
    made.region = region;
    made.addrs = &address;
    made.naddrs = 1;
    constexpr unsigned kSpare = 16;
    made.max_connections = config.load.connections + kSpare;
    made.rcv_window = window_for(config, info.bytes / queues);
    made.host_bytes = 1u << 20;
    if (devmem_stack_create(&made, &stack, error, sizeof error) != 0) {
        devmem_region_release(region);
        fail(error);
    }
}

ReceiverPort::~ReceiverPort()
{
    devmem_stack_destroy(stack);
    devmem_region_release(region);
}

Receiver::Receiver(const ReceiverConfig& config)
    : Receiver(config, std::make_shared<ReceiverPort>(config, 1), 0)
{
}

Receiver::Receiver(const ReceiverConfig& config, std::shared_ptr<ReceiverPort> port, unsigned queue)
    : config_(config), port_(std::move(port)), rx_(port_->ring.rx[queue]),
      tx_(port_->ring.tx[queue]), shard_(devmem_stack_shard(port_->stack, queue))
{
    header_pool_ = shard_->header_pool();
    payload_pool_ = shard_->payload_mempool();
    struct devmem_fit fit {};
    devmem_stack_fit(port_->stack, &fit);
    fragment_bytes_ = fit.fragment_bytes;
    fragments_ = (config.load.payload + fragment_bytes_ - 1) / fragment_bytes_;
    payloads_.resize(std::size_t{config.burst} * fragments_);
    tokens_.resize(4 * (config.late_packets + 2 * headers_.size()) * fragments_);

    wire::Ip ip{.family = 4, .bytes = {10, 0, 0, 2}};
    traffic_ = std::make_unique<Traffic>(config.load, port_->ring.mac(), ip, kPort);
    if (devmem_listen(shard_, kPort, config.load.connections, &listener_) != 0)
        fail("cannot listen");
    for (unsigned i = 0; i < config.load.connections; i += config.burst)
        establish(i, std::min(config.burst, config.load.connections - i));
    if (config.load.connections == 1)
        open_window();
}

/// The senders know nothing of slow start: a window that is smaller than a burst grows first.
void Receiver::open_window()
{
    const unsigned burst = config_.burst;
    config_.burst = 4;
    for (unsigned i = 0; i < 64; i++)
        receive(config_.burst);
    config_.burst = burst;
}

Receiver::~Receiver()
{
    if (oldest_ != held_)
        devmem_token_return(&tokens_[oldest_], static_cast<unsigned>(held_ - oldest_));
    drain_transmitted();
}

void Receiver::establish(unsigned first, unsigned count)
{
    const auto frame = [&](auto&& write) {
        rte_mbuf* m = rte_pktmbuf_alloc(header_pool_);
        if (m == nullptr)
            fail("no header mbufs");
        const std::size_t bytes = write(rte_pktmbuf_mtod(m, std::uint8_t*));
        rte_pktmbuf_append(m, static_cast<std::uint16_t>(bytes));
        m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        if (bytes == 0 || rte_ring_enqueue(rx_, m) != 0)
            rte_pktmbuf_free(m);
    };
    std::array<devmem_event, 64> events;
    for (unsigned i = first; i < first + count; i++)
        frame([&](std::uint8_t* at) { return traffic_->syn(i, at); });
    unsigned accepted = 0;
    for (unsigned tries = 0; accepted < count && tries < 1000; tries++) {
        devmem_shard_poll(shard_, events.data(), events.size(), nullptr);
        void* item;
        while (rte_ring_dequeue(tx_, &item) == 0) {
            auto* m = static_cast<rte_mbuf*>(item);
            frame([&](std::uint8_t* at) {
                return traffic_->answer(
                    {rte_pktmbuf_mtod(m, const std::uint8_t*), rte_pktmbuf_data_len(m)}, at);
            });
            rte_pktmbuf_free(m);
        }
        devmem_conn_t connection;
        while (devmem_accept(shard_, listener_, &connection) == 0) {
            connections_.push_back(connection);
            accepted++;
        }
    }
    if (accepted < count)
        fail("of " + std::to_string(config_.load.connections) + " connections, number " +
             std::to_string(first + accepted) + " was not accepted");
}

bool Receiver::allocate()
{
    if (rte_mempool_get_bulk(header_pool_, reinterpret_cast<void**>(headers_.data()),
                             config_.burst) != 0 ||
        rte_mempool_get_bulk(payload_pool_, reinterpret_cast<void**>(payloads_.data()),
                             config_.burst * fragments_) != 0)
        return false;
    rte_mbuf** payload = payloads_.data();
    for (unsigned i = 0; i < config_.burst; i++) {
        rte_mbuf* const head = headers_[i];
        fill(head, RTE_PKTMBUF_HEADROOM, kHeaders);
        head->nb_segs = static_cast<std::uint16_t>(1 + fragments_);
        head->pkt_len = kHeaders + config_.load.payload;
        head->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_GOOD;
        rte_mbuf* last = head;
        for (std::uint32_t left = config_.load.payload; left != 0;) {
            rte_mbuf* const m = *payload++;
            const std::uint32_t take = std::min(left, fragment_bytes_);
            fill(m, 0, take);
            last->next = m;
            last = m;
            left -= take;
        }
    }
    return true;
}

void Receiver::write_headers()
{
    for (unsigned i = 0; i < config_.burst; i++) {
        rte_mbuf* const m = headers_[i];
        const Traffic::Next next = traffic_->next(rte_pktmbuf_mtod(m, std::uint8_t*));
        m->data_len = next.header_bytes;
        m->pkt_len = next.header_bytes + config_.load.payload;
    }
}

void Receiver::deliver()
{
    std::array<devmem_conn_t, 64> conns;
    for (unsigned n = conns.size(); n == conns.size();) {
        const devmem_token* const tokens = &tokens_[held_];
        n = devmem_recv_burst(shard_, conns.data(), &tokens_[held_], conns.size());
        std::uint64_t bytes = 0;
        for (unsigned i = 0; i < n; i++)
            bytes += tokens[i].length;
        delivered_ += bytes;
        held_ += n;
    }
}

void Receiver::give_back()
{
    const std::uint64_t keep = std::uint64_t{config_.late_packets} * config_.load.payload;
    std::size_t end = oldest_;
    std::uint64_t returned = returned_;
    while (end != held_ && returned + tokens_[end].length + keep <= delivered_)
        returned += tokens_[end++].length;
    if (end == oldest_)
        return;
    returned_ = returned;
    devmem_token_return(&tokens_[oldest_], static_cast<unsigned>(end - oldest_));
    oldest_ = end;
    if (oldest_ >= tokens_.size() / 2) {
        std::copy(tokens_.begin() + static_cast<std::ptrdiff_t>(oldest_),
                  tokens_.begin() + static_cast<std::ptrdiff_t>(held_), tokens_.begin());
        held_ -= oldest_;
        oldest_ = 0;
    }
}

/// What a driver does with frames that have left.
void Receiver::drain_transmitted()
{
    std::array<void*, 64> frames;
    for (unsigned n;
         (n = rte_ring_sc_dequeue_burst(tx_, frames.data(), frames.size(), nullptr)) != 0;)
        rte_pktmbuf_free_bulk(reinterpret_cast<rte_mbuf**>(frames.data()), n);
}

bool Receiver::receive(unsigned packets)
{
    std::array<devmem_event, 4> events;
    std::uint64_t now = rte_rdtsc();
    const auto lap = [&](std::uint64_t& stage) {
        const std::uint64_t then = now;
        now = rte_rdtsc();
        stage += now - then;
    };
    for (unsigned received = 0; received < packets; received += config_.burst) {
        if (!allocate())
            return false;
        lap(stages_.allocate);
        write_headers();
        lap(stages_.wire);
        rte_ring_sp_enqueue_bulk(rx_, reinterpret_cast<void**>(headers_.data()), config_.burst,
                                 nullptr);
        devmem_shard_poll(shard_, nullptr, 0, nullptr);
        lap(stages_.poll);
        deliver();
        lap(stages_.deliver);
        if (devmem_shard_events(shard_, events.data(), events.size()) != 0)
            return false;
        lap(stages_.events);
        give_back();
        lap(stages_.token_return);
        drain_transmitted();
        lap(stages_.transmitted);
        sent_ += std::uint64_t{config_.burst} * config_.load.payload;
    }
    return true;
}

bool Receiver::feed(unsigned packets)
{
    for (unsigned sent = 0; sent < packets; sent += config_.burst) {
        if (!allocate())
            return false;
        write_headers();
        rte_ring_sp_enqueue_bulk(rx_, reinterpret_cast<void**>(headers_.data()), config_.burst,
                                 nullptr);
        devmem_shard_poll(shard_, nullptr, 0, nullptr);
        drain_transmitted();
    }
    return true;
}

} // namespace bench
