// SPDX-License-Identifier: BSD-3-Clause
// A stream from one stack to the other, over a wire that may lose, repeat and reorder.

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>

using namespace devmem::test;

namespace {

/// Sends and checks one stream.
class Stream {
public:
    Stream(WirePair& wires, devmem_conn_t client, devmem_conn_t server, std::uint64_t bytes)
        : wires_(wires), client_(client), server_(server), bytes_(bytes)
    {
    }

    bool done() const { return at_end_; }
    std::uint64_t received() const { return received_; }
    std::uint64_t host_bytes = 0;
    std::uint64_t tokens = 0;

    void step()
    {
        std::array<std::uint8_t, 32768> chunk;
        while (sent_ < bytes_) {
            const auto len = std::min<std::uint64_t>(chunk.size(), bytes_ - sent_);
            for (std::uint64_t i = 0; i < len; i++)
                chunk[i] = stream_byte(sent_ + i);
            const std::int64_t taken = devmem_send(wires_.a.shard, client_, chunk.data(), len);
            if (taken < 0) {
                ASSERT_EQ(taken, -EAGAIN);
                break;
            }
            sent_ += static_cast<std::uint64_t>(taken);
            if (sent_ == bytes_) {
                ASSERT_EQ(devmem_shutdown(wires_.a.shard, client_), 0);
            }
        }
        std::array<devmem_token, 16> got;
        const int n = devmem_recv(wires_.b.shard, server_, got.data(), got.size());
        if (n == 0)
            at_end_ = true;
        if (n <= 0) {
            ASSERT_TRUE(n == 0 || n == -EAGAIN) << n;
            return;
        }
        for (int i = 0; i < n; i++) {
            const std::vector<std::uint8_t> bytes = bytes_of(got[static_cast<std::size_t>(i)]);
            for (const std::uint8_t byte : bytes)
                ASSERT_EQ(byte, stream_byte(received_++));
            tokens++;
            if ((got[static_cast<std::size_t>(i)].flags & DEVMEM_TOKEN_HOST) != 0)
                host_bytes += bytes.size();
        }
        ASSERT_EQ(devmem_token_return(got.data(), static_cast<unsigned>(n)), n);
    }

private:
    WirePair& wires_;
    devmem_conn_t client_, server_;
    std::uint64_t bytes_, sent_ = 0, received_ = 0;
    bool at_end_ = false;
};

/// Everything a shard's pool lent out came back, but what the port holds ready.
void expect_no_leak(WirePair& wires)
{
    wires.run_until([] { return false; }, 0.05);
    devmem_shard_stats stats;
    devmem_shard_stats_get(wires.b.shard, &stats);
    EXPECT_EQ(stats.stale_returns, 0u);
    devmem_pool_stats pool;
    ASSERT_EQ(devmem_pool_stats_get(devmem_shard_pool(wires.b.shard), &pool), 0);
    EXPECT_EQ(pool.double_free, 0u);
    EXPECT_EQ(pool.foreign_free, 0u);
    const std::uint32_t posted = pool.fragments - pool.fragments_free;
    EXPECT_LE(posted, 1024u) << "fragments that are neither free nor with the port";
}

void transfer(const EndConfig& receiver, bool ipv6, const Impairment& impairment,
              std::uint64_t bytes)
{
    WirePair wires({}, receiver, ipv6);
    devmem_conn_t client = 0, server = 0;
    ASSERT_TRUE(wires.establish(80, &client, &server));
    wires.impairment = impairment;
    Stream stream(wires, client, server, bytes);
    ASSERT_TRUE(wires.run_until(
        [&] {
            stream.step();
            return stream.done() || testing::Test::HasFatalFailure();
        },
        60));
    EXPECT_EQ(stream.received(), bytes);
    EXPECT_EQ(stream.host_bytes, 0u) << "the port split too late";
    ASSERT_EQ(devmem_close(wires.b.shard, server), 0);
    ASSERT_EQ(devmem_close(wires.a.shard, client), 0);
    wires.impairment = {};
    expect_no_leak(wires);
}

} // namespace

TEST(Transfer, Ipv4)
{
    transfer({}, false, {}, 8u << 20);
}

TEST(Transfer, Ipv6)
{
    transfer({}, true, {}, 8u << 20);
}

TEST(Transfer, WithoutTimestampsSackAndScaling)
{
    transfer({.flags = DEVMEM_STACK_NO_TIMESTAMPS | DEVMEM_STACK_NO_SACK | DEVMEM_STACK_NO_WSCALE},
             false, {}, 4u << 20);
}

TEST(Transfer, LossDuplicationAndReordering)
{
    transfer({}, false, {.loss_percent = 1, .duplicate_percent = 2, .reorder_percent = 5},
             2u << 20);
}

TEST(Transfer, LossWithoutSack)
{
    transfer({.flags = DEVMEM_STACK_NO_SACK}, true, {.loss_percent = 1, .reorder_percent = 2},
             1u << 20);
}

TEST(Transfer, FragmentsSmallerThanSegments)
{
    transfer({.fragment_bytes = 512}, false, {.loss_percent = 1}, 1u << 20);
}

TEST(Transfer, HostRegion)
{
    transfer({.region = "host:size=16M,huge=no"}, false, {}, 2u << 20);
}

TEST(Transfer, BulkTokensCoverRunsOfFragments)
{
    WirePair wires({}, {});
    devmem_conn_t client = 0, server = 0;
    ASSERT_TRUE(wires.establish(80, &client, &server));
    Stream stream(wires, client, server, 4u << 20);
    ASSERT_TRUE(wires.run_until([&] {
        stream.step();
        return stream.done() || testing::Test::HasFatalFailure();
    }));
    // A token per segment would be as many tokens as fragments.
    devmem_shard_stats stats;
    devmem_shard_stats_get(wires.b.shard, &stats);
    EXPECT_LT(stats.tokens_delivered * 4, stats.rx_fragments);
}

TEST(Transfer, ManyConnectionsAtOnce)
{
    constexpr unsigned kConnections = 40;
    WirePair wires({}, {});
    std::deque<Stream> streams;
    for (unsigned i = 0; i < kConnections; i++) {
        devmem_conn_t client = 0, server = 0;
        ASSERT_TRUE(wires.establish(80, &client, &server));
        streams.emplace_back(wires, client, server, 1 + i * 10'007);
    }
    wires.impairment.loss_percent = 1;
    ASSERT_TRUE(wires.run_until(
        [&] {
            bool all = true;
            for (Stream& stream : streams) {
                if (!stream.done())
                    stream.step();
                all = all && stream.done();
            }
            return all || testing::Test::HasFatalFailure();
        },
        60));
    for (unsigned i = 0; i < kConnections; i++)
        EXPECT_EQ(streams[i].received(), 1 + i * 10'007);
}
