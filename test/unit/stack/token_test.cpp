// SPDX-License-Identifier: BSD-3-Clause
// Who owns what, and for how long.

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <string>
#include <thread>

using namespace devmem::test;

namespace {

struct Established : testing::Test {
    void open(const EndConfig& receiver)
    {
        wires = std::make_unique<WirePair>(EndConfig{}, receiver);
        ASSERT_TRUE(wires->establish(80, &client, &server));
    }

    /// Send as much of `bytes` as the connection takes within a short time.
    std::uint64_t push(std::uint64_t bytes, double seconds)
    {
        std::uint64_t sent = 0;
        wires->run_until(
            [&] {
                std::array<std::uint8_t, 16384> chunk;
                const auto len = std::min<std::uint64_t>(chunk.size(), bytes - sent);
                for (std::uint64_t i = 0; i < len; i++)
                    chunk[i] = stream_byte(pushed + i);
                const std::int64_t taken = devmem_send(wires->a.shard, client, chunk.data(), len);
                if (taken > 0) {
                    sent += static_cast<std::uint64_t>(taken);
                    pushed += static_cast<std::uint64_t>(taken);
                }
                return sent == bytes;
            },
            seconds);
        return sent;
    }

    std::vector<devmem_token> receive()
    {
        std::vector<devmem_token> all;
        std::array<devmem_token, 32> some;
        for (;;) {
            const int n = devmem_recv(wires->b.shard, server, some.data(), some.size());
            if (n <= 0)
                return all;
            all.insert(all.end(), some.begin(), some.begin() + n);
        }
    }

    std::unique_ptr<WirePair> wires;
    devmem_conn_t client = 0, server = 0;
    std::uint64_t pushed = 0;
};

using Token = Established;

} // namespace

TEST_F(Token, ReturnedTwiceIsRefused)
{
    open({});
    push(1000, 5);
    std::vector<devmem_token> tokens;
    ASSERT_TRUE(wires->run_until([&] { return !(tokens = receive()).empty(); }));
    ASSERT_EQ(devmem_token_return(tokens.data(), 1), 1);
    EXPECT_EQ(devmem_token_return(tokens.data(), 1), -ESTALE);
    devmem_shard_stats stats;
    devmem_shard_stats_get(wires->b.shard, &stats);
    EXPECT_EQ(stats.stale_returns, 1u);
    devmem_pool_stats pool;
    ASSERT_EQ(devmem_pool_stats_get(devmem_shard_pool(wires->b.shard), &pool), 0);
    EXPECT_EQ(pool.double_free, 0u) << "the token stopped it, not the pool";
}

TEST_F(Token, NeverGivenIsRefused)
{
    open({});
    devmem_token forged{};
    forged.id = 0x123456789abcdefull;
    EXPECT_EQ(devmem_token_return(&forged, 1), -ESTALE);
}

TEST_F(Token, GoodOnesAmongBadAreReturned)
{
    open({});
    push(200'000, 5);
    wires->run_until([] { return false; }, 0.2);
    std::vector<devmem_token> tokens = receive();
    ASSERT_GE(tokens.size(), 2u);
    std::array<devmem_token, 3> mixed{tokens[0], tokens[0], tokens[1]};
    EXPECT_EQ(devmem_token_return(mixed.data(), mixed.size()), -ESTALE);
    EXPECT_EQ(devmem_token_return(&tokens[1], 1), -ESTALE) << "it was returned with the others";
}

TEST_F(Token, OutlivesConnectionStackAndReference)
{
    open({});
    push(100'000, 5);
    wires->run_until([] { return false; }, 0.2);
    std::vector<devmem_token> tokens = receive();
    ASSERT_FALSE(tokens.empty());
    ASSERT_EQ(devmem_abort(wires->b.shard, server), 0);
    wires->poll();
    wires->destroy(wires->b);
    std::uint64_t at = 0;
    for (const devmem_token& token : tokens) {
        for (const std::uint8_t byte : bytes_of(token))
            ASSERT_EQ(byte, stream_byte(at++));
    }
    std::thread other([&] {
        EXPECT_EQ(devmem_token_return(tokens.data(), static_cast<unsigned>(tokens.size())),
                  static_cast<int>(tokens.size()));
    });
    other.join();
    EXPECT_EQ(devmem_token_return(tokens.data(), 1), -ESTALE);
}

TEST_F(Token, HoardingStopsTheSenderAndLosesNothing)
{
    // A pool much smaller than what the sender has.
    open({.region = "opaque:size=2M"});
    const std::uint64_t sent = push(16u << 20, 1.5);
    std::vector<devmem_token> held = receive();
    EXPECT_LT(sent, 4u << 20) << "a pool of 2 MiB and a send buffer took it all";
    devmem_pool_stats pool;
    ASSERT_EQ(devmem_pool_stats_get(devmem_shard_pool(wires->b.shard), &pool), 0);
    EXPECT_EQ(pool.alloc_failed, 0u) << "the window promised more than the pool holds";

    // Given back from another thread, the window opens again without a further packet.
    std::uint64_t received = 0;
    const auto check = [&](const std::vector<devmem_token>& tokens) {
        for (const devmem_token& token : tokens) {
            for (const std::uint8_t byte : bytes_of(token))
                ASSERT_EQ(byte, stream_byte(received++));
        }
    };
    check(held);
    std::thread([&] {
        devmem_token_return(held.data(), static_cast<unsigned>(held.size()));
    }).join();
    EXPECT_TRUE(wires->run_until([&] {
        const std::vector<devmem_token> more = receive();
        check(more);
        if (!more.empty())
            devmem_token_return(more.data(), static_cast<unsigned>(more.size()));
        return received == sent;
    }));
}

TEST_F(Token, StaleHandleOfAConnectionIsRefused)
{
    open({});
    ASSERT_EQ(devmem_close(wires->b.shard, server), 0);
    devmem_token token;
    EXPECT_EQ(devmem_recv(wires->b.shard, server, &token, 1), -EBADF);
    EXPECT_EQ(devmem_close(wires->b.shard, server), -EBADF);
    EXPECT_EQ(devmem_recv(wires->b.shard, ~devmem_conn_t{0}, &token, 1), -EBADF);
}
