// SPDX-License-Identifier: BSD-3-Clause
// The receive window as credit. That the announced edge never moves back is checked by the harness,
// in every test.
#include "test/unit/tcp/harness.h"

#include <algorithm>

namespace devmem::tcp::test {
namespace {

class WindowTest : public TcpTest {
protected:
    /// Receive `n` bytes as a sender would that fills the window.
    void stream(std::uint32_t n, bool give_back = true)
    {
        for (const std::uint32_t end = at + n; at < end;) {
            const std::uint32_t len = std::min({1000u, end - at, edge - at});
            ASSERT_NE(len, 0u) << "window closed";
            data(at, len);
            at += len;
            receive(give_back);
        }
        run_for(config.delayed_ack);
    }
    std::uint32_t window() const { return edge - at; }
    std::uint32_t at = 0;
};

TEST_F(WindowTest, PromisesAreAccountedFor)
{
    const std::int64_t before = credit.free_bytes;
    establish();
    EXPECT_EQ(credit.promised_bytes, 40'000);
    EXPECT_EQ(credit.free_bytes, before - 40'000);
    data(0, 1000);
    EXPECT_EQ(credit.promised_bytes, edge - 1000);
    EXPECT_EQ(credit.free_bytes, before - edge);
    data(2000, 1000); // held, and promised until RCV.NXT passes it
    EXPECT_EQ(credit.promised_bytes, edge - 1000);
    conn.reset(ctx);
    EXPECT_EQ(credit.promised_bytes, 0);
}

TEST_F(WindowTest, DoublesWithEachWindowReceivedUpToTheLimit)
{
    config.rcv_window = 300'000;
    establish();
    stream(39'000);
    EXPECT_LE(window(), 40'000u);
    stream(2'000);
    EXPECT_NEAR(window(), 80'000, 1'100);
    stream(80'000);
    EXPECT_NEAR(window(), 160'000, 1'100);
    stream(1'000'000);
    EXPECT_NEAR(window(), 300'000, 1'100);
    EXPECT_LE(window(), 300'000u);
}

TEST_F(WindowTest, WithoutScalingItStaysBelow64K)
{
    peer_scale = wire::TcpOptions::kNoScale;
    establish();
    stream(500'000);
    EXPECT_NEAR(window(), 65'535, 1'100);
}

TEST_F(WindowTest, OneConnectionTakesAQuarterOfWhatIsFree)
{
    credit.free_bytes = 20'000;
    send_syn();
    EXPECT_TRUE(poll() & kStarved);
    EXPECT_EQ(take().window, 5'000u);
    EXPECT_EQ(counters.window_limited, 1u);
    EXPECT_EQ(credit.free_bytes, 15'000);
}

TEST_F(WindowTest, ButASegmentIfThereIsOne)
{
    credit.free_bytes = 1'000;
    send_syn();
    poll();
    EXPECT_EQ(take().window, 1'000u);
    EXPECT_EQ(credit.free_bytes, 0);
}

TEST_F(WindowTest, NoSillyWindow)
{
    credit.free_bytes = 999;
    send_syn();
    EXPECT_TRUE(poll() & kStarved);
    EXPECT_EQ(take().window, 0u);
    EXPECT_EQ(credit.free_bytes, 999);
}

TEST_F(WindowTest, ConsumerThatReturnsNothingStopsTheSender)
{
    config.held_limit_bytes = 30'000;
    establish();
    while (at < edge && at < 1'000'000) {
        const std::uint32_t len = std::min(1000u, edge - at);
        data(at, len);
        at += len;
        receive(false);
    }
    EXPECT_EQ(received, 30'000u);
    EXPECT_GT(counters.no_memory, 0u) << "what the window's rounding had promised beyond";
    at = 30'000;
    EXPECT_EQ(conn.window_check(now, ctx), kStarved);
    out.clear();
    in({.seq = at, .len = 1}); // a probe is answered
    const Sent answer = last();
    EXPECT_EQ(answer.ack, at);
    EXPECT_LT(answer.window, 300u);

    give_back_all();
    config.held_limit_bytes = 0;
    EXPECT_TRUE(conn.window_check(now, ctx) & kPoll);
    poll();
    EXPECT_GE(window(), 39'900u);
    EXPECT_EQ(conn.window_check(now, ctx), kNothing);
}

// No limit is set: what a connection holds is at most what it leaves free.
TEST_F(WindowTest, OneThatHoardsLeavesHalf)
{
    constexpr std::int64_t kPool = 300'000;
    credit.free_bytes = kPool;
    establish();
    for (int i = 0; i < 1000 && at < edge; i++) {
        const std::uint32_t len = std::min(1000u, edge - at);
        data(at, len);
        at += len;
        receive(false);
    }
    EXPECT_EQ(window(), 0u);
    EXPECT_EQ(conn.window_check(now, ctx), kStarved);
    EXPECT_NEAR(at, 150'000, 1'100);
    EXPECT_EQ(credit.promised_bytes, 0);
    EXPECT_EQ(credit.free_bytes + pool.held_by_app() * 100, kPool);
}

// A fragment of 100 bytes for each byte that comes: the memory promised is used up long before the
// window is. What is refused is not acknowledged, and is taken when there is memory again.
TEST_F(WindowTest, OneByteSegmentsHoldNoMoreThanFullOnes)
{
    constexpr std::int64_t kPool = 80'000;
    credit.free_bytes = kPool;
    establish();
    const std::int64_t promised = credit.promised_bytes;
    ASSERT_EQ(promised, 20'000);
    while (counters.no_memory == 0 && at < 10'000) {
        data(at, 1);
        if (counters.no_memory == 0)
            at++;
        receive(false);
        ASSERT_EQ(credit.free_bytes + credit.promised_bytes + pool.held_by_app() * 100, kPool);
        ASSERT_GE(credit.free_bytes, 0);
    }
    EXPECT_NEAR(pool.held_by_app(), 400, 2);
    EXPECT_EQ(pool.held_by_engine(), 0u) << "what was refused went back";
    EXPECT_EQ(last().ack, at);
    EXPECT_TRUE(seen & kStarved);
    data(at + 5, 1); // nor is it taken ahead of a gap, nor reported
    EXPECT_TRUE(last().sack.empty());

    credit.free_bytes += pool.held_by_app() * 100;
    give_back_all();
    conn.window_check(now, ctx);
    data(at, 1);
    EXPECT_EQ(receive(), 1u);
}

// Segments that fill a third of their fragments: the window is as much smaller as they take more.
TEST_F(WindowTest, IsPricedByWhatFragmentsBring)
{
    establish();
    for (int i = 0; i < 400; i++) {
        data(at, 300, {.fill = 33});
        at += 300;
        receive();
    }
    run_for(config.delayed_ack);
    EXPECT_GT(window() * 100, 25 * credit.promised_bytes);
    EXPECT_LT(window() * 100, 34 * credit.promised_bytes);
    EXPECT_EQ(counters.no_memory, 0u);
    const std::uint32_t narrow = window();
    for (int i = 0; i < 400; i++) {
        data(at, 300);
        at += 300;
        receive();
    }
    run_for(config.delayed_ack);
    EXPECT_NEAR(window(), static_cast<double>(credit.promised_bytes), 1'100);
    EXPECT_GT(window(), narrow);
}

// Others were promised everything. A connection whose own backing does not last for its window is
// refused, and goes on with what comes free.
TEST_F(WindowTest, NeverUsesWhatOthersWerePromised)
{
    establish();
    credit.free_bytes = 0;
    const std::int64_t others = 1'000'000 - credit.promised_bytes;
    credit.promised_bytes = 1'000'000;
    for (int i = 0; i < 1'000 && counters.no_memory == 0; i++) {
        data(at, 10);
        at += counters.no_memory == 0 ? 10 : 0;
        receive(false);
    }
    EXPECT_EQ(pool.held_by_app(), 400u);
    EXPECT_EQ(credit.promised_bytes, others);
    EXPECT_EQ(credit.free_bytes, 0);
    credit.promised_bytes = 0;
    credit.free_bytes = 1'000;
    data(at, 10);
    EXPECT_EQ(counters.no_memory, 2u) << "it holds more than is free";
}

TEST_F(WindowTest, SmallReturnsDoNotMakeSmallUpdates)
{
    config.held_limit_bytes = 10'000;
    establish();
    while (at < edge) {
        const std::uint32_t len = std::min(1000u, edge - at);
        data(at, len);
        at += len;
        receive(false);
    }
    out.clear();
    // One fragment at a time: an update waits until it opens a segment's worth.
    unsigned updates = 0;
    while (!app_runs.empty()) {
        tcp::Run& run = app_runs.back();
        pool.release(run.first + run.count - 1, 1);
        if (--run.count == 0)
            app_runs.pop_back();
        returned += 1;
        if (conn.window_check(now, ctx) & kPoll) {
            const std::uint32_t before = edge;
            poll();
            EXPECT_GE(edge - before, 1'000u - 32u);
            updates++;
        }
    }
    EXPECT_GT(updates, 3u);
    EXPECT_LT(updates, at / 1000);
}

TEST_F(WindowTest, CreditThatComesBackOpensAClosedWindow)
{
    credit.free_bytes = 0;
    establish();
    EXPECT_EQ(conn.window_check(now, ctx), kStarved);
    credit.free_bytes = 500;
    EXPECT_EQ(conn.window_check(now, ctx), kStarved);
    credit.free_bytes = 8'000;
    EXPECT_EQ(conn.window_check(now, ctx), kPoll | kStarved);
    poll();
    EXPECT_GE(last().window, 2'000u / 32 * 32);
    EXPECT_GE(credit.free_bytes, 4'000);
    EXPECT_EQ(credit.free_bytes + credit.promised_bytes, 8'000);
}

TEST_F(WindowTest, ZeroWindowProbesAreAnsweredAndTheirAckCounts)
{
    credit.free_bytes = 0;
    establish();
    send("hi");
    out.clear();
    in({.len = 1, .ack = 2});
    EXPECT_EQ(take().ack, 0u);
    EXPECT_EQ(counters.out_of_window, 1u);
    EXPECT_EQ(conn.next_deadline(), kNever) << "nothing is left to be retransmitted";
}

TEST_F(WindowTest, ProbesWithoutTextAreAnsweredAndNothingWasDropped)
{
    establish();
    out.clear();
    in({.seq = UINT32_MAX});
    EXPECT_EQ(take().ack, 0u);
    EXPECT_EQ(counters.out_of_window, 0u);
}

TEST_F(WindowTest, WhatASynAckCouldNotAnnounceComesWhenItIsAnswered)
{
    const std::int64_t free = credit.free_bytes;
    credit.free_bytes = 0;
    send_syn();
    poll();
    ASSERT_EQ(take().window, 0u);
    EXPECT_TRUE(conn.window_check(now, ctx) & kStarved) << "it asks again";
    in({});
    out.clear();
    credit.free_bytes = free;
    EXPECT_TRUE(conn.window_check(now, ctx) & kPoll);
    poll();
    EXPECT_GT(take().window, 0u);
}

TEST_F(WindowTest, TheSilentLendWhatIsSetAsideForThem)
{
    establish();
    const std::uint32_t announced = edge;
    conn.lend(now, ctx);
    EXPECT_GT(credit.promised_bytes, 0) << "the peer was heard of just now";
    run_for(config.silence);
    conn.lend(now, ctx);
    EXPECT_EQ(credit.promised_bytes, 0);
    EXPECT_EQ(edge, announced);
    conn.window_check(now, ctx);
    EXPECT_EQ(credit.promised_bytes, 0) << "only what arrives changes that";
    data(at, 1000);
    EXPECT_EQ(receive(), 1000u);
    EXPECT_GT(credit.promised_bytes, 0);
}

TEST_F(WindowTest, TextBehindAGapGoesOnlyWithSilence)
{
    establish();
    data(at + 1000, 1000);
    conn.lend(now, ctx);
    EXPECT_EQ(counters.reneged, 0u);
    run_for(config.silence);
    conn.lend(now, ctx);
    EXPECT_EQ(counters.reneged, 1u);
    EXPECT_EQ(pool.held_by_engine(), 0u);
    data(at, 1000);
    EXPECT_EQ(receive(), 1000u) << "a sender keeps what was only selectively acknowledged";
    data(at + 1000, 1000);
    EXPECT_EQ(receive(), 1000u);
}

TEST_F(WindowTest, CreditGoesBackWhenThePeerIsDone)
{
    establish();
    fin(0);
    EXPECT_EQ(credit.promised_bytes, 0);
}

TEST_F(WindowTest, OddSizesNeverMoveTheEdgeBack)
{
    establish();
    credit.free_bytes = 0; // no growth from here: rounding alone decides
    while (at + 777 < edge) {
        data(at, 777);
        at += 777;
        receive();
        run_for(config.delayed_ack);
    }
    EXPECT_GT(credit.free_bytes, -3'000);
}

TEST_F(WindowTest, OpensAgainForAPeerOfTinySegments)
{
    // Ten bytes to a fragment: the limit is worth two segments at first, a fifth of one later.
    config.held_limit_bytes = 2 * kMss;
    config.window_scale = false; // no edge is rounded up
    establish();
    out.clear();
    for (int i = 0; i < 1'000; i++) {
        ASSERT_GT(edge, at) << "closed, with nothing held, after " << i << " segments";
        const std::uint32_t n = std::min(10u, edge - at);
        data(at, n);
        at += n;
        receive();
        conn.window_check(now, ctx);
        run_for(config.delayed_ack);
    }
}

} // namespace
} // namespace devmem::tcp::test
