// SPDX-License-Identifier: BSD-3-Clause
// Who owns what, and for how long.

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <random>
#include <set>
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

// Which of two threads returns a token is decided once, from the very first return on.
TEST_F(Token, ReturnedByTwoThreadsAtOnceCountsOnce)
{
    for (int round = 0; round < 20; round++) {
        open({});
        push(60'000, 5);
        std::vector<devmem_token> tokens;
        ASSERT_TRUE(wires->run_until([&] {
            const std::vector<devmem_token> more = receive();
            tokens.insert(tokens.end(), more.begin(), more.end());
            std::uint64_t bytes = 0;
            for (const devmem_token& token : tokens)
                bytes += token.length;
            return bytes == 60'000;
        }));
        std::atomic<unsigned> ready{0}, good{0};
        const auto give_back = [&] {
            ready++;
            while (ready != 2)
                ;
            for (const devmem_token& token : tokens)
                good += devmem_token_return(&token, 1) == 1 ? 1 : 0;
        };
        std::thread other(give_back);
        give_back();
        other.join();
        EXPECT_EQ(good, tokens.size());
        devmem_shard_stats stats;
        devmem_shard_stats_get(wires->b.shard, &stats);
        EXPECT_EQ(stats.stale_returns, tokens.size());
        wires.reset();
    }
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

// Tokens cut in pieces of all sizes, by each other's ends: the bytes are those of the stream, a
// fragment is free when the last piece of it is back, and no sooner.
TEST_F(Token, SplitsAnywhere)
{
    open({});
    constexpr std::uint64_t kBytes = 60'000;
    push(kBytes, 5);
    std::vector<devmem_token> pieces;
    ASSERT_TRUE(wires->run_until([&] {
        for (const devmem_token& token : receive())
            pieces.push_back(token);
        std::uint64_t sum = 0;
        for (const devmem_token& token : pieces)
            sum += token.length;
        return sum == kBytes;
    }));
    const rte_mempool* pool = devmem_shard_pool(wires->b.shard);
    devmem_pool_stats before;
    ASSERT_EQ(devmem_pool_stats_get(pool, &before), 0);

    std::mt19937 random{5};
    for (int i = 0; i < 600; i++) {
        const std::size_t which = random() % pieces.size();
        devmem_token& token = pieces[which];
        if (token.length < 2)
            continue;
        const std::uint32_t at = 1 + static_cast<std::uint32_t>(random()) % (token.length - 1);
        const devmem_token whole = token;
        devmem_token rest;
        ASSERT_EQ(devmem_token_split(&token, at, &rest), 0);
        EXPECT_EQ(token.length, at);
        EXPECT_EQ(rest.length, whole.length - at);
        EXPECT_EQ(token.offset, whole.offset);
        EXPECT_EQ(rest.offset, whole.offset + at);
        EXPECT_EQ(rest.address, whole.address + at);
        EXPECT_NE(token.id, rest.id);
        pieces.insert(pieces.begin() + static_cast<std::ptrdiff_t>(which) + 1, rest);
    }
    std::uint64_t position = 0;
    for (const devmem_token& token : pieces) {
        std::vector<std::uint8_t> bytes(token.length);
        ASSERT_EQ(devmem_region_read(token.region, token.offset, bytes.data(), bytes.size()), 0);
        for (const std::uint8_t byte : bytes)
            ASSERT_EQ(byte, stream_byte(position++));
    }
    EXPECT_EQ(position, kBytes);

    // By fragment: the pieces that lie in it. All fragments of this pool have the same size.
    struct devmem_fit fit;
    devmem_stack_fit(wires->b.stack, &fit);
    const auto fragments_of = [&](const devmem_token& token) {
        std::set<std::uint64_t> all;
        for (std::uint64_t at = token.offset; at < token.offset + token.length; at++)
            all.insert(at / fit.page_bytes * 64 + at % fit.page_bytes / fit.fragment_bytes);
        return all;
    };
    std::map<std::uint64_t, int> holders;
    for (const devmem_token& token : pieces) {
        for (const std::uint64_t fragment : fragments_of(token))
            holders[fragment]++;
    }
    std::ranges::shuffle(pieces, random);
    std::uint32_t freed = 0;
    devmem_pool_stats now;
    for (const devmem_token& token : pieces) {
        ASSERT_EQ(devmem_token_return(&token, 1), 1);
        ASSERT_EQ(devmem_token_return(&token, 1), -ESTALE);
        for (const std::uint64_t fragment : fragments_of(token))
            freed += --holders[fragment] == 0 ? 1 : 0;
        ASSERT_EQ(devmem_pool_stats_get(pool, &now), 0);
        ASSERT_EQ(now.fragments_free, before.fragments_free + freed);
    }
    EXPECT_GT(now.recycle_released_refcnt, 0u);
    EXPECT_EQ(now.double_free, 0u);
    // The window knows all of it is back: another stream of the region's size goes through.
    std::uint64_t received = 0;
    const std::uint64_t more = std::uint64_t{now.fragments} * fit.fragment_bytes * 2;
    std::uint64_t sent = 0;
    ASSERT_TRUE(wires->run_until(
        [&] {
            std::array<std::uint8_t, 16384> chunk{};
            const std::int64_t taken =
                devmem_send(wires->a.shard, client, chunk.data(),
                            std::min<std::uint64_t>(chunk.size(), more - sent));
            sent += taken > 0 ? static_cast<std::uint64_t>(taken) : 0;
            for (const devmem_token& token : receive()) {
                received += token.length;
                devmem_token_return(&token, 1);
            }
            return received == more;
        },
        20));
}

TEST_F(Token, SplitRefusesWhatIsNotThere)
{
    open({});
    push(1000, 5);
    std::vector<devmem_token> tokens;
    ASSERT_TRUE(wires->run_until([&] { return !(tokens = receive()).empty(); }));
    devmem_token& token = tokens[0];
    devmem_token rest;
    EXPECT_EQ(devmem_token_split(&token, 0, &rest), -EINVAL);
    EXPECT_EQ(devmem_token_split(&token, token.length, &rest), -EINVAL);
    devmem_token forged = token;
    forged.id ^= std::uint64_t{1} << 40;
    EXPECT_EQ(devmem_token_split(&forged, 1, &rest), -ESTALE);
    ASSERT_EQ(devmem_token_return(&token, 1), 1);
    EXPECT_EQ(devmem_token_split(&token, 1, &rest), -ESTALE);
}

// Who holds what, as a pool is asked.
TEST_F(Token, HoldersAreTokens)
{
    open({});
    push(100'000, 5);
    wires->run_until([] { return false; }, 0.2);
    const std::vector<devmem_token> tokens = receive();
    std::uint32_t fragments = 0;
    struct devmem_fit fit;
    devmem_stack_fit(wires->b.stack, &fit);
    for (const devmem_token& token : tokens) {
        const std::uint64_t in_page = token.offset % fit.page_bytes;
        fragments += static_cast<std::uint32_t>((in_page + token.length - 1) / fit.fragment_bytes -
                                                in_page / fit.fragment_bytes + 1);
    }
    std::array<devmem_pool_holder, 4> holders;
    const int n = devmem_pool_holders_get(devmem_shard_pool(wires->b.shard), holders.data(), 4);
    ASSERT_GT(n, 0);
    const auto end = holders.begin() + n;
    const auto held = std::find_if(holders.begin(), end, [](const devmem_pool_holder& holder) {
        return holder.kind == DEVMEM_HOLDER_TOKEN;
    });
    ASSERT_NE(held, end);
    EXPECT_EQ(held->fragments, fragments);
}
