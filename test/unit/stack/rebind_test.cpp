// SPDX-License-Identifier: BSD-3-Clause
// A queue that changes its memory under a stream: what has arrived stays, what comes goes
// elsewhere, and the region left goes with the last that is in it.

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_malloc.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>
#include <thread>

using namespace devmem::test;

namespace {

/// Whether an address is mapped from an `opaque` region: until its provider destroyed it.
bool mapped(std::uint64_t address)
{
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        std::size_t dash = 0;
        const std::uint64_t begin = std::stoull(line, &dash, 16);
        if (address >= begin && address < std::stoull(line.substr(dash + 1), nullptr, 16))
            return line.find("devmem-opaque") != std::string::npos;
    }
    return false;
}

devmem_region* make_region(const std::string& spec)
{
    devmem_region* region = nullptr;
    char error[256] = "";
    EXPECT_EQ(devmem_region_create(spec.c_str(), &region, error, sizeof(error)), 0) << error;
    return region;
}

struct Rebind : testing::Test {
    void open(const EndConfig& receiver = {})
    {
        wires = std::make_unique<WirePair>(EndConfig{}, receiver);
        ASSERT_TRUE(wires->establish(80, &client, &server));
        devmem_region_info info{};
        devmem_region_info_get(wires->b.region, &info);
        device = info.address;
    }

    /// Offer the stream's next bytes up to `end` to the sender.
    void send(std::uint64_t end)
    {
        std::array<std::uint8_t, 16384> chunk;
        while (sent < end) {
            const auto len = std::min<std::uint64_t>(chunk.size(), end - sent);
            for (std::uint64_t i = 0; i < len; i++)
                chunk[i] = stream_byte(sent + i);
            const std::int64_t taken = devmem_send(wires->a.shard, client, chunk.data(), len);
            if (taken <= 0)
                return;
            sent += static_cast<std::uint64_t>(taken);
        }
    }

    std::vector<devmem_token> receive()
    {
        std::vector<devmem_token> all;
        std::array<devmem_token, 8> some;
        for (int n; (n = devmem_recv(wires->b.shard, server, some.data(), some.size())) > 0;)
            all.insert(all.end(), some.begin(), some.begin() + n);
        return all;
    }

    /// The bytes of tokens are the stream's from `at` on.
    static void check(const std::vector<devmem_token>& tokens, std::uint64_t at)
    {
        for (const devmem_token& token : tokens) {
            for (const std::uint8_t byte : bytes_of(token))
                ASSERT_EQ(byte, stream_byte(at++));
        }
    }
    static std::uint64_t length(const std::vector<devmem_token>& tokens)
    {
        std::uint64_t bytes = 0;
        for (const devmem_token& token : tokens)
            bytes += token.length;
        return bytes;
    }
    static void give_back(const std::vector<devmem_token>& tokens)
    {
        const auto n = static_cast<unsigned>(tokens.size());
        EXPECT_EQ(devmem_token_return(tokens.data(), n), static_cast<int>(n));
    }

    /// Run the stream on to byte `end`; every token is checked and returned. @return the tokens
    std::vector<devmem_token> run_to(std::uint64_t end)
    {
        std::vector<devmem_token> all;
        EXPECT_TRUE(wires->run_until([&] {
            send(end);
            const std::vector<devmem_token> tokens = receive();
            check(tokens, received);
            received += length(tokens);
            give_back(tokens);
            all.insert(all.end(), tokens.begin(), tokens.end());
            return received >= end || HasFatalFailure();
        }));
        EXPECT_EQ(received, end);
        return all;
    }

    int rebind(devmem_region* region)
    {
        error.assign(512, '\0');
        const int rc = devmem_shard_rebind(wires->b.shard, region, error.data(), error.size());
        error.resize(std::strlen(error.c_str()));
        return rc;
    }

    devmem_shard_stats stats() const
    {
        devmem_shard_stats now;
        devmem_shard_stats_get(wires->b.shard, &now);
        return now;
    }

    /// The test gives up its own reference of the region that `b` began with.
    void forget_region()
    {
        devmem_region_release(wires->b.region);
        wires->b.region = nullptr;
    }

    std::unique_ptr<WirePair> wires;
    devmem_conn_t client = 0, server = 0;
    std::uint64_t sent = 0, received = 0;
    std::uint64_t device = 0; ///< address of the region `b` began with
    std::string error;
};

TEST_F(Rebind, TheStreamGoesOnInHostMemoryAndTheRegionGoesWithItsLastToken)
{
    open();
    run_to(1u << 20);
    // Some tokens are out, some bytes are not received yet.
    std::vector<devmem_token> held;
    ASSERT_TRUE(wires->run_until([&] {
        send(2u << 20);
        const std::vector<devmem_token> some = receive();
        held.insert(held.end(), some.begin(), some.end());
        return held.size() >= 2;
    }));
    const std::uint64_t held_at = received;
    received += length(held);
    wires->run_until(
        [&] {
            send(2u << 20);
            return false;
        },
        0.1);
    ASSERT_EQ(rebind(nullptr), 0) << error;
    forget_region();
    EXPECT_TRUE(mapped(device));

    const std::vector<devmem_token> unread = receive();
    ASSERT_FALSE(unread.empty());
    for (const devmem_token& token : unread)
        EXPECT_EQ(token.flags, 0u) << "it arrived in the region";
    check(unread, received);
    received += length(unread);
    const std::uint64_t host_before = stats().rx_host_bytes;

    const std::vector<devmem_token> after = run_to(8u << 20);
    std::uint64_t in_region = 0, on_host = 0;
    for (const devmem_token& token : after)
        (token.flags == DEVMEM_TOKEN_HOST ? on_host : in_region) += token.length;
    EXPECT_EQ(stats().rx_host_bytes - host_before, on_host);
    EXPECT_GT(on_host, 5u << 20);
    EXPECT_LT(in_region, 1u << 20) << "no more than what the port held";

    check(held, held_at);
    give_back(unread);
    give_back({held.begin() + 1, held.end()});
    wires->poll();
    EXPECT_TRUE(mapped(device)) << "a token is out";
    EXPECT_EQ(bytes_of(held[0])[0], stream_byte(held_at));
    give_back({held[0]});
    EXPECT_FALSE(mapped(device)) << "its last token is back";
    EXPECT_EQ(devmem_token_return(held.data(), 1), -ESTALE);
}

TEST_F(Rebind, BytesOutOfOrderKeepTheirPlace)
{
    open();
    run_to(200'000);
    // One segment is lost; what follows it waits, in the region.
    send(sent + 12'000);
    devmem_event events[8];
    devmem_shard_poll(wires->a.shard, events, std::size(events), nullptr);
    const unsigned frames = rte_ring_count(wires->a.tx);
    ASSERT_GE(frames, 6u);
    for (unsigned i = 0; i < frames; i++) {
        void* m = nullptr;
        ASSERT_EQ(rte_ring_dequeue(wires->a.tx, &m), 0);
        if (i == 2 || rte_ring_enqueue(wires->b.rx, m) != 0)
            rte_pktmbuf_free(static_cast<rte_mbuf*>(m));
    }
    devmem_shard_poll(wires->b.shard, events, std::size(events), nullptr);
    EXPECT_GT(stats().rx_ooo_segments, 0u);
    ASSERT_EQ(rebind(nullptr), 0) << error;
    forget_region();

    // In the region before the gap, on the host in it, in the region after it.
    const std::vector<devmem_token> tokens = run_to(sent);
    std::string places;
    for (const devmem_token& token : tokens) {
        const char place = token.flags == DEVMEM_TOKEN_HOST ? 'h' : 'd';
        if (places.empty() || places.back() != place)
            places += place;
    }
    EXPECT_EQ(places, "dhd");
    wires->poll();
    EXPECT_FALSE(mapped(device)) << "all of it was received and returned";
}

TEST_F(Rebind, UnderLossEveryByteArrives)
{
    open({.fragment_bytes = 512});
    wires->impairment = {.loss_percent = 1, .duplicate_percent = 2, .reorder_percent = 5};
    run_to(300'000);
    send(sent + 100'000);
    wires->run_until([] { return false; }, 0.01);
    ASSERT_EQ(rebind(nullptr), 0) << error;
    forget_region();
    run_to(1u << 20);
    wires->poll();
    EXPECT_FALSE(mapped(device));
    devmem_pool_stats pool;
    ASSERT_EQ(devmem_pool_stats_get(devmem_shard_pool(wires->b.shard), &pool), 0);
    EXPECT_EQ(pool.double_free + pool.foreign_free, 0u);
    EXPECT_EQ(stats().stale_returns, 0u);
}

TEST_F(Rebind, TheWindowIsBackedByTheNewMemory)
{
    // Everything in flight is taken, and tokens kept close the window as they did before.
    open({.region = "opaque:size=4M"});
    run_to(1u << 20);
    ASSERT_EQ(rebind(nullptr), 0) << error;
    std::vector<devmem_token> held;
    wires->run_until(
        [&] {
            send(32u << 20);
            const std::vector<devmem_token> more = receive();
            held.insert(held.end(), more.begin(), more.end());
            return false;
        },
        1);
    EXPECT_GT(length(held), 1u << 20);
    EXPECT_LE(length(held), 4u << 20);
    devmem_pool_stats pool;
    ASSERT_EQ(devmem_pool_stats_get(devmem_shard_pool(wires->b.shard), &pool), 0);
    EXPECT_EQ(pool.alloc_failed, 0u) << "the window promised more than the pool holds";
    check(held, received);
    received += length(held);
    give_back(held);
    run_to(sent);
}

TEST_F(Rebind, AConnectionThatClosesLetsTheRegionGo)
{
    open();
    send(100'000);
    wires->run_until([] { return false; }, 0.1);
    ASSERT_EQ(rebind(nullptr), 0) << error;
    forget_region();
    wires->poll();
    EXPECT_TRUE(mapped(device)) << "bytes wait in it";
    ASSERT_EQ(devmem_close(wires->b.shard, server), 0);
    wires->poll();
    EXPECT_FALSE(mapped(device));
}

TEST_F(Rebind, AStackThatGoesLeavesTheTokensOfEveryRegion)
{
    open();
    send(100'000);
    wires->run_until([&] { return stats().rx_payload_bytes == 100'000; });
    std::vector<devmem_token> held(1);
    ASSERT_EQ(devmem_recv(wires->b.shard, server, held.data(), 1), 1);
    ASSERT_EQ(rebind(nullptr), 0) << error; // the rest of the bytes stay with the engine
    forget_region();
    wires->destroy(wires->b);
    EXPECT_TRUE(mapped(device));
    check(held, 0);
    give_back(held);
    EXPECT_FALSE(mapped(device));
}

TEST_F(Rebind, IsRefusedWhereItChangesNothingOrIsTooEarly)
{
    open();
    EXPECT_EQ(rebind(wires->b.region), -EALREADY);
    send(100'000);
    wires->run_until([&] { return stats().rx_payload_bytes == 100'000; });
    ASSERT_EQ(rebind(nullptr), 0) << error;
    EXPECT_EQ(rebind(nullptr), -EALREADY);
    EXPECT_EQ(rebind(wires->b.region), -EBUSY) << "bytes are in it that nobody received";
    const std::vector<devmem_token> tokens = receive();
    check(tokens, 0);
    received = length(tokens);
    ASSERT_EQ(received, 100'000u);
    wires->poll();
    EXPECT_EQ(rebind(wires->b.region), -EBUSY) << "tokens of it are out";
    EXPECT_NE(error.find("tokens of it are out"), std::string::npos) << error;
    run_to(200'000);
    give_back(tokens);
    ASSERT_EQ(rebind(wires->b.region), 0) << error;
    for (const devmem_token& token : run_to(1u << 20))
        EXPECT_EQ(token.flags, 0u) << "back in the region";
}

TEST_F(Rebind, WhatCannotBeDoneLeavesTheStreamAlone)
{
    open();
    run_to(500'000);
    const std::pair<const char*, int> kUnsuitable[] = {
        {"host:size=1M,page=4K,huge=no", -EINVAL}, // the pool's pages are larger
        {"host:size=128K,huge=no", -ENOSPC},       // less than the port keeps
    };
    for (const auto& [spec, expected] : kUnsuitable) {
        devmem_region* region = make_region(spec);
        EXPECT_EQ(rebind(region), expected) << error;
        const std::string size = std::string(spec).substr(0, std::string(spec).find(','));
        EXPECT_NE(error.find(size), std::string::npos) << error;
        devmem_region_release(region);
        run_to(received + 200'000);
    }
    // All of EAL's memory is taken.
    std::vector<void*> hoard;
    for (std::size_t bytes = 64u << 20; bytes >= 4096; bytes /= 2) {
        while (void* taken = rte_malloc(nullptr, bytes, 0))
            hoard.push_back(taken);
    }
    EXPECT_EQ(rebind(nullptr), -ENOMEM) << error;
    for (const devmem_token& token : run_to(received + 200'000))
        EXPECT_EQ(token.flags, 0u);
    for (void* taken : hoard)
        rte_free(taken);
    ASSERT_EQ(rebind(nullptr), 0) << error;
    for (const devmem_token& token : run_to(received + 200'000))
        EXPECT_EQ(token.flags, DEVMEM_TOKEN_HOST);
}

TEST_F(Rebind, AgainAndAgainWhileAnotherThreadReturns)
{
    open();
    devmem_region* const other = make_region("opaque:size=24M");
    devmem_region_info info{};
    devmem_region_info_get(other, &info);
    devmem_region* const targets[] = {nullptr, other,           wires->b.region,
                                      nullptr, wires->b.region, other};
    std::mutex lock;
    std::vector<devmem_token> back;
    std::atomic<bool> stop{false};
    std::thread returner([&] {
        for (bool last = false; !last;) {
            last = stop.load();
            std::vector<devmem_token> mine;
            {
                const std::lock_guard guard(lock);
                mine.swap(back);
            }
            give_back(mine);
        }
    });
    unsigned done = 0, busy = 0;
    EXPECT_TRUE(wires->run_until(
        [&] {
            send(UINT64_MAX);
            const std::vector<devmem_token> tokens = receive();
            check(tokens, received);
            received += length(tokens);
            {
                const std::lock_guard guard(lock);
                back.insert(back.end(), tokens.begin(), tokens.end());
            }
            if (received > done * 150'000ull) {
                const int rc = rebind(targets[done % std::size(targets)]);
                EXPECT_TRUE(rc == 0 || rc == -EBUSY) << rc << " " << error;
                done += rc == 0;
                busy += rc == -EBUSY;
            }
            return done == 60 || HasFailure();
        },
        60));
    stop = true;
    returner.join();
    forget_region();
    devmem_region_release(other);
    ASSERT_EQ(rebind(nullptr), 0) << error;
    run_to(received + (1u << 20));
    wires->poll();
    EXPECT_FALSE(mapped(device));
    EXPECT_FALSE(mapped(info.address));
    EXPECT_EQ(stats().stale_returns, 0u);
}

} // namespace

// Memory comes and goes under a stream, by whole pages, and the window follows.
TEST_F(Rebind, TheRegionGrowsAndShrinksUnderAStream)
{
    open({.region = "opaque:size=4M,max=16M"});
    rte_mempool* pool = devmem_shard_pool(wires->b.shard);
    const auto populated = [&] {
        devmem_region_info info{};
        devmem_region_info_get(wires->b.region, &info);
        return info.populated;
    };
    ASSERT_EQ(populated(), 4u << 20);
    constexpr std::uint64_t kSizes[] = {16u << 20, 6u << 20, 4u << 20, 12u << 20, 5u << 20};
    for (const std::uint64_t size : kSizes) {
        // In the middle of it: tokens are out, and the port has pages.
        std::vector<devmem_token> held;
        ASSERT_TRUE(wires->run_until([&] {
            send(received + (3u << 20));
            const std::vector<devmem_token> some = receive();
            held.insert(held.end(), some.begin(), some.end());
            return length(held) >= 1u << 20;
        }));
        const int owed = devmem_pool_resize(pool, size);
        ASSERT_GE(owed, 0) << std::strerror(-owed);
        check(held, received);
        received += length(held);
        give_back(held);
        run_to(received + (8u << 20));
        // What the port keeps posted it gives back only as it is used.
        ASSERT_TRUE(wires->run_until([&] {
            run_to(received + 65536);
            return devmem_pool_scrub(pool) == 0;
        }));
        EXPECT_EQ(populated(), size);
        devmem_pool_stats now;
        ASSERT_EQ(devmem_pool_stats_get(pool, &now), 0);
        EXPECT_EQ(now.pages_present, size / (now.pages ? (16u << 20) / now.pages : 1));
        EXPECT_EQ(now.double_free + now.foreign_free, 0u);
    }
}
