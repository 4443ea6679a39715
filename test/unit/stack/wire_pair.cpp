// SPDX-License-Identifier: BSD-3-Clause

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

namespace devmem::test {

namespace {

constexpr unsigned kRing = 4096;

void make_end(End& end, const EndConfig& config, const char* name, const char* address)
{
    static unsigned number = 0;
    const std::string id = std::string(name) + std::to_string(number++);
    end.rx = rte_ring_create((id + "_rx").c_str(), kRing, SOCKET_ID_ANY, 0);
    end.tx = rte_ring_create((id + "_tx").c_str(), kRing, SOCKET_ID_ANY, 0);
    ASSERT_TRUE(end.rx != nullptr && end.tx != nullptr);
    const int port = rte_eth_from_rings(id.c_str(), &end.rx, 1, &end.tx, 1, 0);
    ASSERT_GE(port, 0);
    end.ring_port = static_cast<std::uint16_t>(port);
    char port_name[RTE_ETH_NAME_MAX_LEN];
    ASSERT_EQ(rte_eth_dev_get_name_by_port(end.ring_port, port_name), 0);

    char error[256] = "";
    const devmem_port_config open{
        .size = sizeof(open), .spec = port_name, .queues = 1, .hds_thresh = config.hds_thresh};
    ASSERT_EQ(devmem_port_open_config(&open, &end.port, error, sizeof(error)), 0) << error;
    ASSERT_TRUE(end.port.wrapped);
    // Ring ports have no address of their own: give each end one.
    rte_ether_addr mac{{0x02, 0, 0, 0, 0, static_cast<std::uint8_t>(number)}};
    ASSERT_EQ(rte_eth_dev_default_mac_addr_set(end.port.port_id, &mac), 0);
    ASSERT_EQ(devmem_region_create(config.region.c_str(), &end.region, error, sizeof(error)), 0)
        << error;
    ASSERT_EQ(devmem_addr_parse(address, &end.addr), 0);
    end.addrs = {end.addr};
    if (config.second_address != nullptr) {
        ASSERT_EQ(devmem_addr_parse(config.second_address, &end.addrs.emplace_back()), 0);
    }
    devmem_stack_config stack{};
    stack.size = sizeof(stack);
    stack.port_id = end.port.port_id;
    stack.region = end.region;
    stack.addrs = end.addrs.data();
    stack.naddrs = static_cast<unsigned>(end.addrs.size());
    stack.flags = config.flags;
    stack.max_connections = config.max_connections;
    stack.fragment_bytes = config.fragment_bytes;
    stack.rcv_window = config.rcv_window;
    stack.held_limit = config.held_limit;
    stack.dscp = config.dscp;
    stack.ttl = config.ttl;
    stack.host_bytes = 1u << 20;
    ASSERT_EQ(devmem_stack_create(&stack, &end.stack, error, sizeof(error)), 0) << error;
    end.shard = devmem_stack_shard(end.stack, 0);
}

void drain(rte_ring* ring)
{
    void* m = nullptr;
    while (rte_ring_dequeue(ring, &m) == 0)
        rte_pktmbuf_free(static_cast<rte_mbuf*>(m));
}

void poll_end(End& end)
{
    std::array<devmem_event, 32> events;
    const unsigned n = devmem_shard_poll(end.shard, events.data(), events.size(), nullptr);
    end.events.insert(end.events.end(), events.begin(), events.begin() + n);
}

} // namespace

void start_eal()
{
    static const bool started = [] {
        const std::string prefix = "--file-prefix=devmem-stack-test-" + std::to_string(getpid());
        std::vector<std::string> args{
            "stack-test", "--no-huge",           "-m",  "512", "--no-pci", "--no-telemetry", "-l",
            "0",          "--log-level=warning", prefix};
        std::vector<char*> argv;
        for (std::string& arg : args)
            argv.push_back(arg.data());
        std::atexit([] {
            const std::string directory = rte_eal_get_runtime_dir();
            rte_eal_cleanup();
            std::filesystem::remove_all(directory);
        });
        return rte_eal_init(static_cast<int>(argv.size()), argv.data()) >= 0;
    }();
    if (!started)
        std::abort();
}

WirePair::WirePair(const EndConfig& config_a, const EndConfig& config_b, bool ipv6)
{
    start_eal();
    make_end(a, config_a, "wa", ipv6 ? "fd00::1/64" : "10.0.0.1/24");
    make_end(b, config_b, "wb", ipv6 ? "fd00::2/64" : "10.0.0.2/24");
}

void WirePair::destroy(End& end)
{
    if (end.stack != nullptr)
        devmem_stack_destroy(end.stack);
    end.stack = nullptr;
    end.shard = nullptr;
}

WirePair::~WirePair()
{
    // Frames on the wire belong to the senders' pools: they go before the stacks do. Taking a stack
    // down puts resets on the wire.
    for (End* end : {&a, &b}) {
        drain(end->tx);
        drain(end->rx);
    }
    for (End* end : {&a, &b}) {
        destroy(*end);
        drain(end->tx);
    }
    for (End* end : {&a, &b}) {
        devmem_port_close(&end->port);
        rte_eth_dev_close(end->ring_port);
        rte_ring_free(end->rx);
        rte_ring_free(end->tx);
        devmem_region_release(end->region);
    }
    rte_mempool_free(forged_);
}

bool WirePair::inject(End& to, std::span<const std::uint8_t> frame)
{
    if (forged_ == nullptr)
        forged_ = rte_pktmbuf_pool_create("forged", 2 * kRing - 1, 256, 0,
                                          RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    rte_mbuf* m = rte_pktmbuf_alloc(forged_);
    if (m == nullptr)
        return false;
    std::copy(frame.begin(), frame.end(), rte_pktmbuf_mtod(m, std::uint8_t*));
    m->data_len = static_cast<std::uint16_t>(frame.size());
    m->pkt_len = m->data_len;
    if (rte_ring_enqueue(to.rx, m) == 0)
        return true;
    rte_pktmbuf_free(m);
    return false;
}

bool WirePair::inject(End& to, const wire::Flow& flow, const wire::TcpHeader& tcp,
                      const wire::TcpOptions& options, std::span<const std::uint8_t> payload)
{
    std::array<std::uint8_t, 2048> frame;
    const std::size_t headers = wire::write_tcp(frame, flow, tcp, options, payload, {}, 0);
    std::copy(payload.begin(), payload.end(), &frame[headers]);
    return inject(to, std::span(frame).first(headers + payload.size()));
}

void WirePair::look(const rte_mbuf* m, Seen& seen)
{
    wire::Packet packet;
    const std::span head(rte_pktmbuf_mtod(m, const std::uint8_t*), rte_pktmbuf_data_len(m));
    if (wire::parse(head, rte_pktmbuf_pkt_len(m), &packet) == wire::Verdict::kOk &&
        packet.kind == wire::Kind::kTcp) {
        seen.segments++;
        seen.last = packet;
        if (seen.keep)
            seen.frames.emplace_back(head.begin(), head.end());
    }
}

void WirePair::carry(rte_ring* from, rte_ring* to, Seen& seen)
{
    void* item = nullptr;
    std::vector<void*> late;
    const auto chance = [&](unsigned percent) { return random() % 100 < percent; };
    const auto put = [&](void* m) {
        if (rte_ring_enqueue(to, m) != 0)
            rte_pktmbuf_free(static_cast<rte_mbuf*>(m));
    };
    while (rte_ring_dequeue(from, &item) == 0) {
        auto* m = static_cast<rte_mbuf*>(item);
        look(m, seen);
        if (cut || chance(impairment.loss_percent)) {
            rte_pktmbuf_free(m);
            continue;
        }
        if (chance(impairment.duplicate_percent)) {
            if (rte_mbuf* copy = rte_pktmbuf_copy(m, m->pool, 0, UINT32_MAX); copy != nullptr)
                put(copy);
        }
        if (chance(impairment.reorder_percent))
            late.push_back(m);
        else
            put(m);
    }
    for (void* m : late)
        put(m);
}

void WirePair::poll()
{
    for (End* end : {&a, &b}) {
        if (end->shard != nullptr)
            poll_end(*end);
    }
    carry(a.tx, b.rx, seen_a);
    carry(b.tx, a.rx, seen_b);
}

bool WirePair::run_until(const std::function<bool()>& done, double seconds)
{
    const std::uint64_t deadline =
        rte_rdtsc() + static_cast<std::uint64_t>(seconds * static_cast<double>(rte_get_tsc_hz()));
    while (!done()) {
        if (rte_rdtsc() > deadline)
            return false;
        poll();
    }
    return true;
}

bool WirePair::take(End& end, devmem_event_type type, devmem_event* event)
{
    for (std::size_t i = 0; i < end.events.size(); i++) {
        if (end.events[i].type == type) {
            *event = end.events[i];
            end.events.erase(end.events.begin() + static_cast<std::ptrdiff_t>(i));
            return true;
        }
    }
    return false;
}

void WirePair::listen(std::uint16_t port, unsigned backlog)
{
    devmem_listener_t listener = 0;
    ASSERT_EQ(devmem_listen(b.shard, port, backlog, &listener), 0);
    listeners_[port] = listener;
}

bool WirePair::establish(std::uint16_t port, devmem_conn_t* client, devmem_conn_t* server)
{
    if (!listeners_.contains(port))
        listen(port);
    const devmem_endpoint remote{b.addr, port};
    if (devmem_connect(a.shard, &remote, client) != 0)
        return false;
    devmem_event event;
    return run_until([&] { return take(a, DEVMEM_EVENT_CONNECTED, &event); }) &&
           run_until([&] { return devmem_accept(b.shard, listeners_[port], server) == 0; });
}

} // namespace devmem::test
