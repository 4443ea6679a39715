// SPDX-License-Identifier: BSD-3-Clause
// What is made of memory, with the first, the second, ... allocation failing, alone or with all
// that follow it: an error that is documented, a line that says why, and nothing left behind.

#include "test/unit/stack/fault_injection.h"
#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mempool.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>

using namespace devmem::test;

namespace {

/// What a failure may not leave behind.
struct Belongings {
    std::int64_t blocks = live_blocks();
    std::int64_t mapped = mapped_bytes();
    std::size_t files =
        static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                               std::filesystem::directory_iterator()));
    unsigned dpdk_blocks = [] {
        rte_malloc_socket_stats stats;
        return rte_malloc_get_socket_stats(0, &stats) == 0 ? stats.alloc_count : 0;
    }();
    unsigned mempools = [] {
        unsigned n = 0;
        rte_mempool_walk([](rte_mempool*, void* count) { ++*static_cast<unsigned*>(count); }, &n);
        return n;
    }();
    unsigned ports = rte_eth_dev_count_avail();

    bool operator==(const Belongings&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Belongings& b)
{
    return out << b.blocks << " blocks, " << b.mapped << " bytes mapped, " << b.files << " files, "
               << b.dpdk_blocks << " blocks of DPDK, " << b.mempools << " mempools, " << b.ports
               << " ports";
}

std::array<char, 256> text;

/// @param attempt makes something, with `text` for its error; called with failures on their way
/// @param undo    takes it away; called after each success
/// @param before, after whatever surrounds each attempt and is not looked at
void fail_each_allocation(std::initializer_list<int> documented,
                          const std::function<int()>& attempt, const std::function<void()>& undo,
                          const std::function<void()>& before, const std::function<void()>& after)
{
    // What is made once and kept.
    before();
    ASSERT_EQ(attempt(), 0) << text.data();
    undo();
    after();

    unsigned visited = 0, refused = 0;
    for (const std::uint64_t count : {std::uint64_t{1}, kForEver}) {
        for (std::uint64_t n = 1;; n++) {
            const Belongings had;
            before();
            text = {};
            fail_calls(kCreation, n, count);
            const int rc = attempt();
            const std::uint64_t failed = stop_failing();
            if (rc == 0)
                undo();
            after();
            const Belongings has;
            ASSERT_EQ(had, has) << "after allocation " << n << " failed: " << rc << ", "
                                << text.data();
            if (failed == 0) {
                ASSERT_EQ(rc, 0) << text.data();
                break;
            }
            visited++;
            if (rc == 0)
                continue; // there was another way
            refused++;
            ASSERT_TRUE(std::ranges::find(documented, rc) != documented.end()) << rc;
            ASSERT_NE(text[0], '\0') << "allocation " << n << ": nothing says why";
        }
    }
    EXPECT_GT(refused, 0u);
    testing::Test::RecordProperty("allocations_failed", static_cast<int>(visited));
    testing::Test::RecordProperty("attempts_refused", static_cast<int>(refused));
}

void nothing() {}

struct FaultCreation : testing::Test {
    static void SetUpTestSuite()
    {
        start_eal();
        register_faulty_provider();
    }

    void fail_region(const char* spec)
    {
        devmem_region* region = nullptr;
        fail_each_allocation(
            {-ENOMEM},
            [&] { return devmem_region_create(spec, &region, text.data(), text.size()); },
            [&] { devmem_region_release(region); }, nothing, nothing);
    }
};

/// A port that cannot split, and takes nothing itself.
struct FaultPort : FaultCreation {
    void SetUp() override
    {
        static unsigned number = 0;
        const std::string name = "fault" + std::to_string(number++);
        ring = rte_ring_create(name.c_str(), 1024, SOCKET_ID_ANY, 0);
        ASSERT_NE(ring, nullptr);
        const int made = rte_eth_from_rings(name.c_str(), &ring, 1, &ring, 1, 0);
        ASSERT_GE(made, 0);
        lower = static_cast<std::uint16_t>(made);
        ASSERT_EQ(rte_eth_dev_get_name_by_port(lower, lower_name), 0);
    }
    void TearDown() override
    {
        rte_eth_dev_close(lower);
        rte_ring_free(ring);
    }
    int open() { return devmem_port_open(lower_name, 1, &port, text.data(), text.size()); }

    rte_ring* ring = nullptr;
    std::uint16_t lower = 0;
    char lower_name[RTE_ETH_NAME_MAX_LEN] = "";
    devmem_port port{};
};

} // namespace

TEST_F(FaultCreation, HostRegion)
{
    fail_region("host:size=256K,huge=no");
}

TEST_F(FaultCreation, OpaqueRegionThatGrows)
{
    fail_region("opaque:size=256K,max=1M,huge=no,flags=grow+unreadable");
}

TEST_F(FaultCreation, RegionOnHugepages)
{
    fail_region("opaque:size=2M");
}

TEST_F(FaultCreation, Pool)
{
    devmem_region* region = nullptr;
    ASSERT_EQ(devmem_region_create("faulty:size=256K,max=1M", &region, nullptr, 0), 0);
    const devmem_pool_config config{
        .size = sizeof(config),
        .name = "fault",
        .region = region,
        .offset = 0,
        .bytes = 0,
        .page_bytes = 0,
        .fragment_bytes = 2048,
        .socket_id = SOCKET_ID_ANY,
        .flags = DEVMEM_POOL_DMA_MAP,
    };
    rte_mempool* pool = nullptr;
    fail_each_allocation(
        {-ENOMEM},
        [&] {
            pool = devmem_pool_create(&config, text.data(), text.size());
            return pool != nullptr ? 0 : -rte_errno;
        },
        [&] { ASSERT_EQ(devmem_pktmbuf_pool_free(pool), 0); }, nothing, nothing);
    devmem_region_release(region);
}

TEST_F(FaultPort, Open)
{
    fail_each_allocation(
        {-ENOMEM}, [&] { return open(); }, [&] { devmem_port_close(&port); }, nothing, nothing);
}

TEST_F(FaultPort, Stack)
{
    devmem_region* region = nullptr;
    ASSERT_EQ(devmem_region_create("faulty:size=2M,max=3M", &region, nullptr, 0), 0);
    devmem_addr address;
    ASSERT_EQ(devmem_addr_parse("10.0.0.1/24", &address), 0);
    devmem_stack_config config{};
    config.size = sizeof(config);
    config.region = region;
    config.addrs = &address;
    config.naddrs = 1;
    config.max_connections = 16;
    config.host_bytes = 65536;
    devmem_stack* stack = nullptr;
    fail_each_allocation(
        {-ENOMEM}, [&] { return devmem_stack_create(&config, &stack, text.data(), text.size()); },
        [&] { devmem_stack_destroy(stack); },
        [&] {
            ASSERT_EQ(open(), 0) << text.data();
            config.port_id = port.port_id;
        },
        [&] { devmem_port_close(&port); });
    devmem_region_release(region);
}

TEST_F(FaultCreation, ListenerAndSendBuffer)
{
    WirePair wires({}, {});
    devmem_listener_t listener = 0;
    fail_calls(kHeap, 1, kForEver);
    const int refused = devmem_listen(wires.b.shard, 80, 4, &listener);
    EXPECT_EQ(stop_failing(), 1u);
    EXPECT_EQ(refused, -ENOMEM);

    devmem_conn_t client = 0, server = 0;
    ASSERT_TRUE(wires.establish(80, &client, &server)) << "the port is as if nobody had asked";
    std::array<std::uint8_t, 10'000> bytes{};
    fail_calls(kHeap, 1, kForEver);
    const std::int64_t not_taken = devmem_send(wires.a.shard, client, bytes.data(), bytes.size());
    stop_failing();
    EXPECT_EQ(not_taken, -ENOMEM);
    EXPECT_EQ(devmem_send(wires.a.shard, client, bytes.data(), bytes.size()),
              static_cast<std::int64_t>(bytes.size()));
    devmem_token token;
    EXPECT_TRUE(
        wires.run_until([&] { return devmem_recv(wires.b.shard, server, &token, 1) == 1; }));
    EXPECT_EQ(devmem_token_return(&token, 1), 1);
}
