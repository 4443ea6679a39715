// SPDX-License-Identifier: BSD-3-Clause
// Two stacks in one process and a wire between them that the test holds in its hands.
#pragma once

#include "lib/wire/frame.h"

#include <devmem/devmem.h>

#include <gtest/gtest.h>

#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace devmem::test {

/// What the wire does to a frame.
struct Impairment {
    unsigned loss_percent = 0;
    unsigned duplicate_percent = 0;
    unsigned reorder_percent = 0;
};

/// One end: a ring port wrapped by net_hds, a region, a stack of one shard.
struct End {
    devmem_port port{};
    std::uint16_t ring_port = 0;
    rte_ring* rx = nullptr;
    rte_ring* tx = nullptr;
    devmem_region* region = nullptr;
    devmem_stack* stack = nullptr;
    devmem_shard* shard = nullptr;
    devmem_addr addr{};
    std::vector<devmem_addr> addrs;   ///< all of them
    std::vector<devmem_event> events; ///< everything raised and not yet looked for
};

struct EndConfig {
    std::string region = "opaque:size=16M";
    std::uint32_t flags = 0;
    std::uint32_t max_connections = 64;
    std::uint32_t fragment_bytes = 0;
    std::uint32_t rcv_window = 0;
    std::uint32_t held_limit = 0;
    std::uint16_t hds_thresh = 0;
    const char* second_address = nullptr;
    std::uint8_t dscp = 0, ttl = 0;
};

/// The pair. Construct, then poll() until what the test waits for has happened.
class WirePair {
public:
    WirePair(const EndConfig& a, const EndConfig& b, bool ipv6 = false);
    ~WirePair();
    WirePair(const WirePair&) = delete;
    WirePair& operator=(const WirePair&) = delete;

    /// Poll both ends once and carry frames over.
    void poll();
    /// Poll until `done`, for at most `seconds`. @return whether it became true.
    bool run_until(const std::function<bool()>& done, double seconds = 20);
    /// Take the first event of a type at an end. @return false: none was raised.
    static bool take(End& end, devmem_event_type type, devmem_event* event);

    /// Connect a to b and accept. Both handles are established afterwards.
    bool establish(std::uint16_t port, devmem_conn_t* client, devmem_conn_t* server);
    void listen(std::uint16_t port, unsigned backlog = 16);

    void destroy(End& end);

    /// Give an end a frame, or a segment, that nobody sent. @return false: it did not fit.
    bool inject(End& to, std::span<const std::uint8_t> frame);
    bool inject(End& to, const wire::Flow& flow, const wire::TcpHeader& tcp,
                const wire::TcpOptions& options, std::span<const std::uint8_t> payload = {});

    End a, b;
    Impairment impairment;
    std::mt19937_64 random{42};
    bool cut = false; ///< nothing passes

    /// The TCP segments on the wire so far, and the last of them, by the end that sent it.
    struct Seen {
        std::uint64_t segments = 0;
        wire::Packet last{};
        bool keep = false; ///< the bytes, too
        std::vector<std::vector<std::uint8_t>> frames;
    };
    Seen seen_a, seen_b;

private:
    void look(const rte_mbuf* m, Seen& seen);
    void carry(rte_ring* from, rte_ring* to, Seen& seen);
    std::map<std::uint16_t, devmem_listener_t> listeners_;
    rte_mempool* forged_ = nullptr;
};

/// Start EAL once for the process, without hugepages and devices.
void start_eal();

inline devmem_shard_stats stats_of(const End& end)
{
    devmem_shard_stats stats;
    devmem_shard_stats_get(end.shard, &stats);
    return stats;
}

inline devmem_pool_stats pool_of(const End& end)
{
    devmem_pool_stats stats{};
    EXPECT_EQ(devmem_pool_stats_get(devmem_shard_pool(end.shard), &stats), 0);
    return stats;
}

/// Since rte_rdtsc() was `begin`.
inline double seconds_since(std::uint64_t begin)
{
    return static_cast<double>(rte_rdtsc() - begin) / static_cast<double>(rte_get_tsc_hz());
}

/// Read a token's bytes through the provider.
inline std::vector<std::uint8_t> bytes_of(const devmem_token& token)
{
    std::vector<std::uint8_t> bytes(token.length);
    if (devmem_region_read(token.region, token.offset, bytes.data(), bytes.size()) != 0)
        bytes.clear();
    return bytes;
}

/// Byte `at` of the stream every test sends: not periodic in any power of two.
inline std::uint8_t stream_byte(std::uint64_t at)
{
    return static_cast<std::uint8_t>((at * 0x9e3779b97f4a7c15ull) >> 56);
}

} // namespace devmem::test
