// SPDX-License-Identifier: BSD-3-Clause
// FIN from either side in any order, close and abort, TIME-WAIT.
#include "test/unit/tcp/harness.h"

#include <cerrno>

namespace devmem::tcp::test {
namespace {

using FinTest = EstablishedTest;

TEST_F(FinTest, PeerClosesFirst)
{
    EXPECT_TRUE(fin(0) & kReadable);
    EXPECT_EQ(conn.state(), State::kCloseWait);
    EXPECT_TRUE(conn.peer_closed());
    EXPECT_EQ(take().ack, 1u);
    EXPECT_EQ(conn.shutdown(now, ctx), kPoll);
    poll();
    const Sent our_fin = take();
    EXPECT_EQ(our_fin.flags, kAck | kFin);
    EXPECT_EQ(our_fin.seq, 0u);
    EXPECT_EQ(conn.state(), State::kLastAck);
    in({.seq = 1, .ack = 1});
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.state(), State::kClosed);
    EXPECT_EQ(conn.error(), 0);
}

TEST_F(FinTest, FinOnDataTakesItsNumberAfterTheData)
{
    fin(0, 250);
    EXPECT_EQ(take().ack, 251u);
    EXPECT_EQ(receive(), 250u);
    EXPECT_EQ(conn.state(), State::kCloseWait);
}

TEST_F(FinTest, FinAheadOfAGapWaits)
{
    fin(300, 100);
    EXPECT_EQ(conn.state(), State::kEstablished);
    EXPECT_FALSE(conn.peer_closed());
    data(0, 200);
    EXPECT_EQ(conn.state(), State::kEstablished);
    data(200, 100);
    EXPECT_EQ(conn.state(), State::kCloseWait);
    EXPECT_EQ(last().ack, 401u);
    EXPECT_EQ(receive(), 400u);
}

TEST_F(FinTest, LoneFinAheadOfAGapIsAcknowledgedAndRemembered)
{
    fin(100);
    EXPECT_EQ(take().ack, 0u);
    data(0, 100);
    EXPECT_EQ(last().ack, 101u);
    EXPECT_EQ(conn.state(), State::kCloseWait);
}

TEST_F(FinTest, FinCameFirstThenItsDataAgainWithoutIt)
{
    fin(100, 100);
    data(0, 250); // 50 bytes past the end of the stream
    EXPECT_EQ(counters.out_of_window, 1u);
    EXPECT_EQ(receive(), 200u);
    EXPECT_EQ(last().ack, 201u);
}

TEST_F(FinTest, FinThatContradictsHeldBytesIsIgnored)
{
    data(200, 100);
    fin(50, 50);
    data(0, 50);
    data(100, 100);
    EXPECT_EQ(receive(), 300u);
    EXPECT_EQ(conn.state(), State::kEstablished);
}

TEST_F(FinTest, SecondFinElsewhereIsIgnored)
{
    fin(200, 100);
    fin(400, 100);
    data(0, 200);
    EXPECT_EQ(receive(), 300u);
    EXPECT_EQ(conn.state(), State::kCloseWait);
    EXPECT_EQ(pool.held_by_engine(), 0u);
}

TEST_F(FinTest, FinBeyondTheWindowComesAgain)
{
    in({.seq = edge - 10, .len = 20, .flags = kAck | kFin});
    EXPECT_FALSE(conn.peer_closed());
    EXPECT_EQ(pool.held_by_engine(), 1u);
}

TEST_F(TcpTest, FinAtTheEdgeOfAClosedWindow)
{
    credit.free_bytes = 0;
    send_syn();
    poll();
    EXPECT_EQ(take().window, 0u);
    in({});
    fin(0);
    EXPECT_EQ(conn.state(), State::kCloseWait);
    EXPECT_EQ(take().ack, 1u);
}

TEST_F(FinTest, RepeatedFinIsAcknowledgedAgain)
{
    fin(0, 100);
    take();
    fin(0, 100);
    EXPECT_EQ(take().ack, 101u);
}

TEST_F(FinTest, DataAfterTheFinIsIgnored)
{
    fin(0);
    take();
    data(1, 100);
    EXPECT_EQ(pool.held_by_engine(), 0u);
    EXPECT_EQ(conn.readable_bytes(), 0u);
}

TEST_F(FinTest, WeCloseFirst)
{
    conn.shutdown(now, ctx);
    poll();
    EXPECT_EQ(take().flags, kAck | kFin);
    EXPECT_EQ(conn.state(), State::kFinWait1);
    in({.ack = 1});
    EXPECT_EQ(conn.state(), State::kFinWait2);
    EXPECT_EQ(conn.next_deadline(), kNever) << "half closed, for as long as the application likes";
    in({.len = 300, .ack = 1}); // receiving goes on
    EXPECT_EQ(receive(), 300u);
    out.clear();
    in({.seq = 300, .flags = kAck | kFin, .ack = 1});
    EXPECT_EQ(conn.state(), State::kTimeWait);
    EXPECT_EQ(take().ack, 301u);
    run_for(config.time_wait - 1);
    EXPECT_FALSE(seen & kClosed);
    run_for(1);
    EXPECT_TRUE(seen & kClosed);
}

TEST_F(FinTest, FinAndItsAckInOne)
{
    conn.shutdown(now, ctx);
    poll();
    in({.flags = kAck | kFin, .ack = 1});
    EXPECT_EQ(conn.state(), State::kTimeWait);
}

TEST_F(FinTest, SimultaneousClose)
{
    conn.shutdown(now, ctx);
    poll();
    in({.flags = kAck | kFin});
    EXPECT_EQ(conn.state(), State::kClosing);
    EXPECT_EQ(last().ack, 1u);
    in({.seq = 1, .ack = 1});
    EXPECT_EQ(conn.state(), State::kTimeWait);
}

TEST_F(FinTest, TimeWaitAnswersARepeatedFinAndStartsAgain)
{
    conn.shutdown(now, ctx);
    poll();
    in({.flags = kAck | kFin, .ack = 1});
    out.clear();
    run_for(config.time_wait / 2);
    in({.flags = kAck | kFin, .ack = 1});
    EXPECT_EQ(take().ack, 1u);
    run_for(config.time_wait - 1);
    EXPECT_EQ(conn.state(), State::kTimeWait);
    run_for(1);
    EXPECT_EQ(conn.state(), State::kClosed);
}

// RFC 9293 3.6, figure 14, with data under way both ways and the first FINs lost.
TEST_F(FinTest, SimultaneousCloseWithDataAndLoss)
{
    send("bye");
    conn.shutdown(now, ctx);
    poll();
    out.clear(); // lost, all of it
    fin(0, 100); // knows nothing of ours
    EXPECT_EQ(conn.state(), State::kClosing);
    EXPECT_EQ(last().ack, 101u);
    EXPECT_EQ(receive(), 100u);
    run_for(1'000'000);
    while (!silent()) {
        const Sent again = take();
        EXPECT_EQ(again.ack, 101u);
    }
    in({.seq = 101, .ack = 3}); // the text, not the FIN
    EXPECT_EQ(conn.state(), State::kClosing);
    in({.seq = 101, .ack = 4});
    EXPECT_EQ(conn.state(), State::kTimeWait);
    run_for(config.time_wait);
    EXPECT_EQ(conn.state(), State::kClosed);
    EXPECT_EQ(conn.error(), 0);
}

TEST_F(FinTest, SimultaneousCloseInOneSegment)
{
    conn.shutdown(now, ctx);
    poll();
    in({.flags = kAck | kFin, .ack = 0});
    EXPECT_EQ(conn.state(), State::kClosing);
    in({.flags = kAck | kFin, .ack = 0}); // it has not heard of ours yet
    EXPECT_EQ(conn.state(), State::kClosing);
    in({.seq = 1, .flags = kRst});
    EXPECT_EQ(conn.state(), State::kClosed);
    EXPECT_EQ(conn.error(), 0);
}

/// In TIME-WAIT: both FINs are acknowledged, RCV.NXT is 1.
class TimeWaitTest : public TcpTest {
protected:
    void wait()
    {
        establish();
        conn.shutdown(now, ctx);
        poll();
        in({.seq = 0, .flags = kAck | kFin, .ack = 1, .tsval = 6000});
        ASSERT_EQ(conn.state(), State::kTimeWait);
        out.clear();
    }
    bool gives_way(std::uint32_t seq, std::optional<std::uint32_t> tsval,
                   std::uint8_t flags = kSyn) const
    {
        wire::TcpOptions options;
        options.timestamps = tsval.has_value();
        options.ts_val = tsval.value_or(0);
        return conn.gives_way({irs + seq, Seq(0), 65535, flags, 1, 0, {}, &options}, config);
    }
};

// RFC 6191 2, case by case.
TEST_F(TimeWaitTest, GivesWayToALaterTimestamp)
{
    wait();
    EXPECT_TRUE(gives_way(0x90000000, 6001)) << "whatever its number";
    EXPECT_TRUE(gives_way(1, 6000)) << "equal: the number decides";
    EXPECT_FALSE(gives_way(0, 6000));
    EXPECT_FALSE(gives_way(100, 5999));
    EXPECT_TRUE(gives_way(1, {})) << "no timestamps now: the number decides";
    EXPECT_FALSE(gives_way(0, {}));
    for (const int flags : {kSyn | kAck, kSyn | kFin, kSyn | kRst, int{kAck}})
        EXPECT_FALSE(gives_way(100, 7000, static_cast<std::uint8_t>(flags)));
}

TEST_F(TimeWaitTest, WithoutTimestampsOfItsOwn)
{
    timestamps = false;
    wait();
    EXPECT_TRUE(gives_way(0x90000000, 5)) << "what is old has no timestamps, and is dropped";
    EXPECT_TRUE(gives_way(1, {}));
    EXPECT_FALSE(gives_way(0, {}));
}

TEST_F(TimeWaitTest, NoOtherStateGivesWay)
{
    establish();
    EXPECT_FALSE(gives_way(100, 7000));
    fin(0);
    EXPECT_FALSE(gives_way(100, 7000));
    conn.shutdown(now, ctx);
    poll();
    EXPECT_FALSE(gives_way(100, 7000)) << "LAST-ACK";
}

TEST_F(TimeWaitTest, ASynThatDoesNotQualifyIsChallenged)
{
    wait();
    in({.seq = 0, .flags = kSyn, .tsval = 5999});
    EXPECT_EQ(last().flags, kAck);
    EXPECT_EQ(conn.state(), State::kTimeWait);
}

TEST_F(TimeWaitTest, EndsWithoutError)
{
    wait();
    EXPECT_TRUE(conn.give_way(now, ctx) & kClosed);
    EXPECT_EQ(conn.error(), 0);
    EXPECT_EQ(conn.sequence_end(), iss + 1);
    EXPECT_EQ(conn.next_deadline(), kNever);
}

TEST_F(FinTest, OurFinIsRepeatedUntilAcknowledged)
{
    conn.shutdown(now, ctx);
    poll();
    take();
    run_for(config.rto_min * 2);
    const Sent again = take();
    EXPECT_EQ(again.flags, kAck | kFin);
    EXPECT_EQ(again.seq, 0u);
    in({.ack = 1});
    EXPECT_EQ(conn.state(), State::kFinWait2);
}

TEST_F(FinTest, FinFollowsQueuedData)
{
    EXPECT_EQ(conn.send(std::as_bytes(std::span("0123456789", 10)), ctx), 10);
    conn.shutdown(now, ctx);
    EXPECT_EQ(conn.send(std::as_bytes(std::span("x", 1)), ctx), -EPIPE);
    poll();
    const Sent sent = take();
    EXPECT_EQ(sent.payload, "0123456789");
    EXPECT_TRUE(sent.flags & kFin);
    in({.ack = 11});
    EXPECT_EQ(conn.state(), State::kFinWait2);
}

TEST_F(TcpTest, ShutdownDuringTheHandshakeClosesAfterIt)
{
    send_syn();
    poll();
    conn.shutdown(now, ctx);
    EXPECT_EQ(conn.state(), State::kSynReceived);
    out.clear();
    in({});
    EXPECT_EQ(conn.state(), State::kFinWait1);
    EXPECT_TRUE(take().flags & kFin);
}

TEST_F(TcpTest, ShutdownInSynSentJustEnds)
{
    connect();
    EXPECT_EQ(conn.shutdown(now, ctx), kClosed);
}

TEST_F(FinTest, CloseWithUnreceivedBytesResets)
{
    data(0, 100);
    out.clear();
    EXPECT_TRUE(conn.close(now, ctx) & kClosed);
    const Sent rst = take();
    EXPECT_EQ(rst.flags, kRst | kAck);
    EXPECT_EQ(rst.seq, 0u);
    EXPECT_EQ(pool.held_by_engine(), 0u);
}

TEST_F(FinTest, DataAfterCloseResets)
{
    EXPECT_EQ(conn.close(now, ctx), kPoll);
    poll();
    EXPECT_EQ(take().flags, kAck | kFin);
    EXPECT_TRUE(data(0, 100) & kClosed);
    EXPECT_EQ(counters.after_close, 1u);
    const Sent rst = take();
    EXPECT_EQ(rst.flags, kRst | kAck);
    EXPECT_EQ(rst.seq, 1u);
    EXPECT_EQ(pool.held_by_engine(), 0u);
}

TEST_F(FinTest, ClosedConnectionDoesNotWaitForAFinForEver)
{
    conn.close(now, ctx);
    poll();
    in({.ack = 1});
    EXPECT_EQ(conn.state(), State::kFinWait2);
    run_for(config.time_wait);
    EXPECT_TRUE(seen & kClosed);
}

TEST_F(FinTest, CloseAfterShutdownBoundsTheWait)
{
    conn.shutdown(now, ctx);
    poll();
    in({.ack = 1});
    conn.close(now, ctx);
    run_for(config.time_wait);
    EXPECT_TRUE(seen & kClosed);
}

TEST_F(FinTest, AbortResetsAndReleases)
{
    data(0, 100);
    data(200, 100);
    out.clear();
    EXPECT_TRUE(conn.abort(now, ctx) & kClosed);
    EXPECT_EQ(take().flags, kRst | kAck);
    EXPECT_EQ(pool.held_by_engine(), 0u);
    EXPECT_EQ(credit.promised_bytes, 0);
}

TEST_F(FinTest, AResetThatFindsNoRoomGoesLater)
{
    full = true;
    EXPECT_FALSE(conn.abort(now, ctx) & kClosed);
    EXPECT_EQ(conn.next_deadline(), 0u);
    EXPECT_FALSE(poll() & kClosed);
    full = false;
    EXPECT_TRUE(poll() & kClosed);
    EXPECT_EQ(take().flags, kRst | kAck);
    poll();
    EXPECT_TRUE(silent());
}

} // namespace
} // namespace devmem::tcp::test
