// SPDX-License-Identifier: BSD-3-Clause
// What we send: requests and replies, and their retransmission.
#include "test/unit/tcp/harness.h"

#include <cerrno>

namespace devmem::tcp::test {
namespace {

using SendTest = EstablishedTest;

/// Payload of a full segment to the peer: its MSS without the timestamp option.
constexpr std::uint32_t kSmss = Harness::kPeerMss - 12;

TEST_F(SendTest, SmallDataGoesAtOnce)
{
    EXPECT_EQ(send("GET /"), 5);
    const Sent sent = take();
    EXPECT_EQ(sent.payload, "GET /");
    EXPECT_EQ(sent.seq, 0u);
    EXPECT_EQ(sent.flags, kAck | kPsh);
    EXPECT_EQ(send("next"), 4); // and is not held back by what is in flight
    EXPECT_EQ(take().seq, 5u);
    in({.ack = 9});
    EXPECT_EQ(conn.next_deadline(), kNever);
}

TEST_F(SendTest, LargeDataGoesInSegmentsOfThePeersMss)
{
    const std::string text(kSmss * 3 + 7, 'x');
    send(text);
    ASSERT_EQ(out.size(), 4u);
    for (const std::uint32_t i : {0u, 1u, 2u}) {
        const Sent sent = take();
        EXPECT_EQ(sent.seq, i * kSmss);
        EXPECT_EQ(sent.payload.size(), kSmss);
        EXPECT_EQ(sent.flags, kAck);
    }
    EXPECT_EQ(take().flags, kAck | kPsh);
}

TEST_F(TcpTest, NoMssOptionMeans536)
{
    peer_mss = 0;
    establish();
    send(std::string(2000, 'x'));
    EXPECT_EQ(take().payload.size(), 536u - 12);
}

TEST_F(TcpTest, AnAbsurdlySmallMssIsNotTaken)
{
    peer_mss = 1;
    establish();
    send(std::string(2000, 'x'));
    EXPECT_EQ(take().payload.size(), 88u - 12);
}

TEST_F(SendTest, BufferFillsAndBecomesWritableAgain)
{
    config.send_buffer = 10'000;
    EXPECT_EQ(send(std::string(12'000, 'x')), 10'000);
    EXPECT_EQ(send("x"), 0);
    EXPECT_TRUE(in({.ack = kSmss}) & kWritable);
    EXPECT_EQ(send(std::string(12'000, 'x')), kSmss);
}

TEST_F(SendTest, BytesSurviveTheRingsWrapAndGrowth)
{
    std::string sent_text, got;
    config.send_buffer = 9'000;
    std::uint32_t next = 0;
    for (int i = 0; i < 200; i++) {
        std::string piece;
        for (int j = 0; j < 50 + i * 13 % 900; j++)
            piece += static_cast<char>('a' + next++ % 26);
        ASSERT_EQ(send(piece), static_cast<std::int64_t>(piece.size()));
        sent_text += piece;
        while (!out.empty())
            got += take().payload;
        in({.ack = static_cast<std::uint32_t>(got.size())});
        while (!out.empty())
            got += take().payload;
    }
    EXPECT_EQ(got, sent_text);
}

TEST_F(SendTest, ErrorsAreNamed)
{
    fin(0);
    EXPECT_EQ(send("still open this way"), 19);
    conn.shutdown(now, ctx);
    EXPECT_EQ(send("x"), -EPIPE);
}

TEST_F(TcpTest, NotYetConnected)
{
    connect();
    EXPECT_EQ(send("x"), -ENOTCONN);
}

TEST_F(SendTest, RetransmissionBacksOffAndGivesUp)
{
    config.retries = 3;
    send("hello");
    out.clear();
    Time rto = config.rto_min; // the handshake took no time
    for (int i = 0; i < 3; i++, rto *= 2) {
        run_for(rto - 1);
        EXPECT_TRUE(silent());
        run_for(1);
        const Sent again = take();
        EXPECT_EQ(again.seq, 0u);
        EXPECT_EQ(again.payload, "hello");
    }
    EXPECT_EQ(counters.retransmits, 3u);
    run_for(rto);
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

TEST_F(SendTest, TimeoutFollowsTheRoundTrip)
{
    send("a");
    now += 400'000;
    in({.ack = 1, .tsecr = static_cast<std::uint32_t>((now - 400'000) / 1000) + 777});
    send("b");
    // First sample was 0 (srtt 0, var 0), this one 400 ms: var 100, srtt 50 (RFC 6298 2.3).
    EXPECT_NEAR(static_cast<double>(conn.next_deadline() - now), 450'000, 2'000);
}

TEST_F(TcpTest, WithoutTimestampsOneSegmentIsTimedAndNoneSentTwice)
{
    timestamps = false;
    establish();
    send("a");
    run_for(config.rto_min); // retransmitted: its ACK says nothing (Karn)
    now += 5'000'000;
    in({.ack = 1});
    send("b");
    EXPECT_EQ(conn.next_deadline() - now, config.rto_min * 2) << "backed off still";
    now += 300'000;
    in({.ack = 2});
    send("c");
    // First sample 0, this one 300 ms: srtt 37.5, var 75.
    EXPECT_EQ(conn.next_deadline() - now, 337'496u);
}

TEST_F(SendTest, SlowStart)
{
    send(std::string(30 * kSmss, 'x'));
    EXPECT_EQ(out.size(), 10u); // RFC 6928
    out.clear();
    in({.ack = kSmss});
    EXPECT_EQ(out.size(), 2u);
    out.clear();
    in({.ack = 3 * kSmss}); // counted as one (RFC 5681 3.1)
    EXPECT_EQ(out.size(), 3u);
}

TEST_F(SendTest, FastRetransmitOnTheThirdDuplicate)
{
    send(std::string(10 * kSmss, 'x'));
    out.clear();
    in({});
    in({});
    EXPECT_TRUE(silent());
    in({});
    const Sent again = take();
    EXPECT_EQ(again.seq, 0u);
    EXPECT_EQ(again.payload.size(), kSmss);
    EXPECT_EQ(counters.retransmits, 1u);
    in({});
    EXPECT_TRUE(silent());
    in({.ack = 4 * kSmss}); // partial: the next hole (RFC 6582)
    EXPECT_EQ(take().seq, 4 * kSmss);
    in({.ack = 10 * kSmss});
    EXPECT_EQ(conn.next_deadline(), kNever);
}

TEST_F(SendTest, AfterATimeoutEverythingIsSentAgainInSlowStart)
{
    send(std::string(4 * kSmss, 'x'));
    out.clear();
    run_for(config.rto_min);
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(take().seq, 0u);
    in({.ack = kSmss});
    ASSERT_EQ(out.size(), 2u);
    EXPECT_EQ(take().seq, kSmss);
    EXPECT_EQ(take().seq, 2 * kSmss);
    in({.ack = 4 * kSmss}); // the rest had arrived
    EXPECT_TRUE(silent());
    EXPECT_EQ(conn.next_deadline(), kNever);
}

TEST_F(SendTest, PeersWindowIsKept)
{
    in({.window = 7}); // 7 << 7
    send(std::string(5000, 'x'));
    std::size_t sent = 0;
    while (!out.empty())
        sent += take().payload.size();
    EXPECT_EQ(sent, kSmss) << "the rest would be a silly segment";
    in({.ack = kSmss, .window = 100});
    EXPECT_FALSE(silent());
}

TEST_F(SendTest, ClosedWindowIsProbedAsLongAsThePeerAnswers)
{
    config.retries = 2;
    in({.window = 0});
    send("hello");
    EXPECT_TRUE(silent());
    Time wait = 0;
    for (int i = 0; i < 20; i++) {
        const Time before = now;
        run_for(conn.next_deadline() - now);
        wait = now - before;
        const Sent probe = take();
        EXPECT_EQ(probe.payload, "h");
        EXPECT_EQ(probe.seq, 0u);
        in({.window = 0});
        EXPECT_TRUE(silent());
    }
    EXPECT_EQ(wait, config.rto_max);
    in({.window = 100});
    EXPECT_EQ(take().payload, "hello");
    in({.ack = 5});
    EXPECT_EQ(conn.next_deadline(), kNever);
}

TEST_F(SendTest, UnansweredProbesEndTheConnection)
{
    config.retries = 2;
    in({.window = 0});
    send("hello");
    run_for(3600'000'000);
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

TEST_F(SendTest, AProbeThatWasTakenCounts)
{
    in({.window = 0});
    send("hello");
    run_for(conn.next_deadline() - now);
    take();
    in({.ack = 1, .window = 0});
    in({.ack = 1, .window = 100});
    EXPECT_EQ(take().payload, "ello");
}

TEST_F(SendTest, FinWaitsForAClosedWindowAndProbesIt)
{
    in({.window = 0});
    conn.shutdown(now, ctx);
    poll();
    EXPECT_TRUE(silent());
    run_for(conn.next_deadline() - now);
    EXPECT_TRUE(take().flags & kFin);
    in({.ack = 1, .window = 0});
    EXPECT_EQ(conn.state(), State::kFinWait2);
}

TEST_F(SendTest, WindowUpdatesFromOldSegmentsAreIgnored)
{
    data(0, 100);
    in({.seq = 100, .window = 500});
    process({.seq = 50, .len = 50, .window = 0}); // old
    out.clear();
    send("x");
    EXPECT_EQ(take().payload, "x");
}

TEST_F(SendTest, FullSinkRetriesWithoutLoss)
{
    full = true;
    send(std::string(2 * kSmss, 'x'));
    EXPECT_EQ(conn.next_deadline(), 0u);
    full = false;
    poll();
    EXPECT_EQ(out.size(), 2u);
    EXPECT_EQ(counters.retransmits, 0u);
}

// Losses are noticed however much was sent without one.
TEST(Congestion, RemembersNoNumberForTooLong)
{
    Congestion congestion;
    congestion.open(Seq(0), 1000, false);
    Seq una(1);
    for (int i = 0; i < 4; i++)
        congestion.acked(una += 1u << 30, 1000, 5000, false);
    EXPECT_FALSE(congestion.duplicate(una, una + 5000, 5000, true));
    EXPECT_FALSE(congestion.duplicate(una, una + 5000, 5000, true));
    EXPECT_TRUE(congestion.duplicate(una, una + 5000, 5000, true));
    EXPECT_EQ(congestion.window(), 2500u + 3000u);
}

} // namespace
} // namespace devmem::tcp::test
