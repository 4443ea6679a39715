// SPDX-License-Identifier: BSD-3-Clause
// Memory of what waits: a connection, a listener, a fragment. Each is the difference between two
// stacks, or between before and after, so that what a stack has anyway is in none.
#include "test/bench/address_space.h"
#include "test/bench/modes.h"
#include "test/bench/receiver.h"

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "lib/page_pool/page_pool.h"
#include "lib/tcp/connection.h"

#include <devmem/devmem.h>

#include <rte_malloc.h>
#include <rte_mempool.h>

#include <malloc.h>

#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace bench {
namespace {

constexpr unsigned kConnections = 65536;
constexpr unsigned kBacklogs[]{128, 4096};
constexpr const char* kRegion = "space:size=256M";
constexpr const char* kTwiceTheRegion = "space:size=512M";

/// What a process has.
struct Memory {
    double allocated = 0; ///< from the C library and from DPDK
    double resident = 0;  ///< of the C library's

    Memory operator-(const Memory& other) const
    {
        return {allocated - other.allocated, resident - other.resident};
    }
};

double resident_bytes()
{
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        constexpr std::string_view kKey = "RssAnon:";
        if (line.starts_with(kKey))
            return 1024 * std::stod(line.substr(kKey.size()));
    }
    throw std::runtime_error("memory: the kernel does not say what is resident");
}

Memory now()
{
    malloc_trim(0); // what was freed is not resident
    const struct mallinfo2 libc = mallinfo2();
    double allocated = static_cast<double>(libc.uordblks + libc.hblkhd);
    for (int socket = 0; socket < RTE_MAX_NUMA_NODES; ++socket) {
        rte_malloc_socket_stats dpdk;
        if (rte_malloc_get_socket_stats(socket, &dpdk) == 0)
            allocated += static_cast<double>(dpdk.heap_allocsz_bytes);
    }
    return {allocated, resident_bytes()};
}

/// What something takes while it lives.
Memory taken_by(const std::function<std::shared_ptr<void>()>& make)
{
    const Memory before = now();
    const std::shared_ptr<void> made = make();
    return now() - before;
}

class Stack {
public:
    Stack(unsigned connections, const char* region)
    {
        char error[256] = "";
        int rc = devmem_region_create(region, &region_, error, sizeof error);
        devmem_addr address{};
        devmem_addr_parse("10.0.0.2/8", &address);
        devmem_stack_config config{};
        config.size = sizeof config;
        config.port_id = ring_.port_id();
        config.region = region_;
        config.addrs = &address;
        config.naddrs = 1;
        config.max_connections = connections;
        if (rc == 0)
            rc = devmem_stack_create(&config, &stack_, error, sizeof error);
        if (rc != 0) {
            devmem_region_release(region_);
            throw std::runtime_error(std::string("memory: ") + error);
        }
    }
    ~Stack()
    {
        devmem_stack_destroy(stack_);
        devmem_region_release(region_);
    }
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;

    devmem_shard* shard() { return devmem_stack_shard(stack_, 0); }

private:
    static constexpr std::uint16_t kMtu = 1500;

    SplitRing ring_{kMtu};
    devmem_region* region_ = nullptr;
    devmem_stack* stack_ = nullptr;
};

double allocated_by_stack(unsigned connections, const char* region)
{
    return taken_by([&] { return std::make_shared<Stack>(connections, region); }).allocated;
}

Memory taken_by_listener(Stack& stack, unsigned backlog)
{
    static std::uint16_t port = 1;
    const Memory before = now();
    devmem_listener_t listener;
    if (devmem_listen(stack.shard(), port++, backlog, &listener) != 0)
        throw std::runtime_error("memory: cannot listen");
    return now() - before;
}

/// What so many established connections have resident: a receiver's memory, less that of the
/// senders in it and of its listener's queue, which has room for all of them here.
double resident_of_connections(unsigned connections)
{
    const Load load{.connections = connections};
    const double all = taken_by([&] {
                           return std::make_shared<Receiver>(ReceiverConfig{load, kRegion});
                       }).resident;
    const double senders = taken_by([&] {
                               return std::make_shared<Traffic>(load, devmem::wire::Mac{},
                                                                devmem::wire::Ip{.family = 4}, 1);
                           }).resident;
    Stack stack(connections, kRegion);
    return all - senders - taken_by_listener(stack, connections).resident;
}

/// What a fragment has of the page pool's state.
double page_share(const devmem::PktmbufPoolLayout& layout)
{
    const auto bytes = [&](std::uint32_t fragments) {
        return static_cast<double>(
            devmem::PagePool::bytes({.name = "",
                                     .fragments = fragments,
                                     .fragments_per_page = layout.fragments_per_page,
                                     .lcores = RTE_MAX_LCORE}));
    };
    return (bytes(2 * layout.fragments) - bytes(layout.fragments)) / layout.fragments;
}

void add(Report& report, const std::string& name, Json params, double bytes)
{
    report.results.push_back({name, std::move(params), {bytes, bytes, bytes}, "bytes"});
}

/// What a segment in order reads and writes that is its connection's alone, by the layout.
void add_hot_bytes(Report& report)
{
    constexpr std::size_t kSlotLine = 64; // before the engine's part: the key, the shard's flags
    constexpr std::size_t kAckLine = 64;  // the one of wire::AckTemplate that IPv4 uses
    constexpr std::size_t kBuckets = 2 * 8;
    const std::pair<const char*, std::size_t> parts[]{{"slot", kSlotLine},
                                                      {"engine", sizeof(devmem::tcp::HotState)},
                                                      {"ack", kAckLine},
                                                      {"table", kBuckets}};
    std::size_t all = 0;
    for (const auto& [part, bytes] : parts) {
        add(report, "hot_bytes_per_connection", {{"part", part}}, static_cast<double>(bytes));
        all += bytes;
    }
    add(report, "hot_bytes_per_connection", {{"part", "all"}}, static_cast<double>(all));
}

} // namespace

void memory(const Options&, Report& report)
{
    register_address_space();
    const auto per_connection = [](double twice, double once) {
        return (twice - once) / kConnections;
    };
    add(report, "memory.connection", {{"idle", "allocated"}},
        per_connection(allocated_by_stack(2 * kConnections, kRegion),
                       allocated_by_stack(kConnections, kRegion)));
    add(report, "memory.connection", {{"idle", "resident"}},
        per_connection(resident_of_connections(2 * kConnections),
                       resident_of_connections(kConnections)));
    add_hot_bytes(report);

    Stack stack(kConnections, kRegion);
    for (const unsigned backlog : kBacklogs)
        add(report, "memory.listener", {{"backlog", backlog}},
            taken_by_listener(stack, backlog).allocated);

    rte_mempool* const pool = devmem_shard_pool(stack.shard());
    const devmem::PktmbufPoolLayout& layout = *devmem::pktmbuf_pool_layout(pool);
    const double fragment =
        (allocated_by_stack(1, kTwiceTheRegion) - allocated_by_stack(1, kRegion)) /
        layout.fragments;
    const double mbuf = pool->header_size + pool->elt_size + pool->trailer_size;
    const double node = sizeof(devmem::tcp::RunStore::Node);
    const double page = page_share(layout);
    add(report, "memory.fragment", {{"part", "mbuf"}}, mbuf);
    add(report, "memory.fragment", {{"part", "run"}}, node);
    add(report, "memory.fragment", {{"part", "page"}}, page);
    add(report, "memory.fragment", {{"part", "token and tables"}}, fragment - mbuf - node - page);
    add(report, "memory.fragment", {{"part", "all"}}, fragment);
}

} // namespace bench
