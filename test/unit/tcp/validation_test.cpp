// SPDX-License-Identifier: BSD-3-Clause
// Segments that may be forged or stale: RFC 5961, timestamps and PAWS (RFC 7323).
#include "test/unit/tcp/harness.h"

#include <cerrno>

namespace devmem::tcp::test {
namespace {

using RstTest = EstablishedTest;
using TimestampTest = EstablishedTest;

TEST_F(RstTest, ExactlyAtRcvNxtResets)
{
    data(0, 100);
    data(200, 100);
    EXPECT_TRUE(in({.seq = 100, .flags = kRst}) & kClosed);
    EXPECT_EQ(conn.error(), -ECONNRESET);
    EXPECT_EQ(pool.held_by_engine(), 1u) << "what was received in order stays";
    EXPECT_EQ(receive(), 100u);
}

TEST_F(RstTest, ElsewhereInTheWindowIsChallenged)
{
    in({.seq = 1, .flags = kRst});
    EXPECT_EQ(conn.state(), State::kEstablished);
    const Sent ack = take();
    EXPECT_EQ(ack.flags, kAck);
    EXPECT_EQ(ack.ack, 0u);
}

TEST_F(RstTest, OutsideTheWindowIsDroppedSilently)
{
    in({.seq = edge + 1, .flags = kRst});
    in({.seq = UINT32_MAX, .flags = kRst});
    EXPECT_EQ(conn.state(), State::kEstablished);
    EXPECT_TRUE(silent());
}

TEST_F(TcpTest, RstAtAClosedWindow)
{
    credit.free_bytes = 0;
    establish();
    in({.flags = kRst});
    EXPECT_EQ(conn.error(), -ECONNRESET);
}

TEST_F(RstTest, PayloadOfARstIsReleased)
{
    in({.seq = 50, .len = 300, .flags = kRst | kAck});
    EXPECT_EQ(pool.held_by_engine(), 0u);
}

TEST_F(RstTest, InLastAckEndsWithoutError)
{
    fin(0);
    conn.shutdown(now, ctx);
    poll();
    EXPECT_TRUE(in({.seq = 1, .flags = kRst}) & kClosed);
    EXPECT_EQ(conn.error(), 0);
}

TEST_F(RstTest, SynIsChallengedWhereverItIs)
{
    for (const std::uint32_t seq : {UINT32_MAX, 0u, 100u, edge + 1000}) {
        in({.seq = seq, .flags = kSyn});
        EXPECT_EQ(last().flags, kAck);
        EXPECT_EQ(conn.state(), State::kEstablished);
    }
}

TEST_F(RstTest, ChallengesAreLimited)
{
    for (int i = 0; i < 100; i++)
        in({.seq = 1, .flags = kRst});
    EXPECT_EQ(out.size(), 10u);
    now += 5'000'000;
    in({.seq = 1, .flags = kRst});
    EXPECT_EQ(out.size(), 11u);
}

// CVE-2016-5696: what one connection is asked for does not show on another, whoever owns it.
TEST_F(RstTest, AnothersChallengesDoNotShow)
{
    Harness other;
    other.establish();
    for (int i = 0; i < 1000; i++)
        other.in({.seq = 1, .flags = kRst});
    EXPECT_EQ(other.out.size(), 10u);
    for (int i = 0; i < 100; i++)
        in({.seq = 1, .flags = kRst});
    EXPECT_EQ(out.size(), 10u);
}

// RFC 5961: 10^6 blind tries of each kind, none at RCV.NXT or with an acceptable ACK, over a
// minute.
TEST_F(RstTest, AMillionBlindTriesChangeNothing)
{
    Random random(3);
    data(0, 500);
    receive();
    out.clear();
    unsigned answers = 0;
    for (int i = 0; i < 1'000'000; i++) {
        now += 60;
        std::uint32_t seq = random();
        seq += seq == 500 ? 1 : 0;
        // A guess of both numbers at once succeeds once in 2^32 windows of ACKs; it is not tried.
        const std::uint32_t ack = 1 + (random() & 0x7fffffff);
        switch (i % 3) {
        case 0:
            process({.seq = seq, .flags = kRst});
            break;
        case 1:
            process({.seq = seq, .flags = kSyn});
            break;
        default:
            process({.seq = seq, .len = 1, .ack = ack});
        }
        poll();
        answers += static_cast<unsigned>(out.size());
        out.clear();
    }
    EXPECT_EQ(conn.state(), State::kEstablished);
    data(500, 500);
    EXPECT_EQ(receive(), 500u);
    EXPECT_LT(answers, 400'000u) << "text outside the window is answered, the rest by budget";
}

TEST_F(RstTest, AckOfWhatWasNotSentIsChallengedAndItsTextDropped)
{
    in({.len = 100, .ack = 1});
    EXPECT_EQ(take().ack, 0u);
    EXPECT_EQ(conn.readable_bytes(), 0u);
    EXPECT_EQ(pool.held_by_engine(), 0u);
}

TEST_F(RstTest, AckOlderThanTheLargestWindowIsChallenged)
{
    in({.len = 100, .ack = 0u - 65536 * 128}); // the peer's window was at most 65535 << 7
    EXPECT_EQ(conn.readable_bytes(), 0u);
    EXPECT_FALSE(silent());
}

TEST_F(RstTest, OldAckWithinTheWindowIsNoNewsButItsTextIs)
{
    send("hello");
    in({.ack = 5});
    in({.len = 100, .ack = 2});
    EXPECT_EQ(conn.readable_bytes(), 100u);
}

TEST_F(TimestampTest, TheLatestInOrderIsEchoed)
{
    in({.len = 100, .tsval = 6010});
    EXPECT_EQ(take().options.ts_ecr, 6010u);
    in({.seq = 200, .len = 100, .tsval = 6020}); // ahead of a gap: not echoed (RFC 7323 4.3)
    EXPECT_EQ(take().options.ts_ecr, 6010u);
    in({.seq = 100, .len = 100, .tsval = 6030});
    EXPECT_EQ(take().options.ts_ecr, 6030u);
}

TEST_F(TimestampTest, OfTheFirstSegmentSinceTheLastAck)
{
    process({.len = 100, .tsval = 6010});
    process({.seq = 100, .len = 100, .tsval = 6020});
    poll();
    EXPECT_EQ(take().options.ts_ecr, 6010u);
}

TEST_F(TimestampTest, OldOnesAreDroppedAndAcknowledged)
{
    in({.len = 100, .tsval = 5999});
    EXPECT_EQ(counters.paws, 1u);
    EXPECT_EQ(take().ack, 0u);
    EXPECT_EQ(pool.held_by_engine(), 0u);
}

TEST_F(TimestampTest, TheClockMayWrap)
{
    in({.len = 100, .tsval = 6000u + 0x7fffffff});
    in({.seq = 100, .len = 100, .tsval = 6000u + 0xfffffffe});
    in({.seq = 200, .len = 100, .tsval = 6000u + 10});
    EXPECT_EQ(counters.paws, 0u);
    EXPECT_EQ(receive(), 300u);
}

TEST_F(TimestampTest, RstIsExempt)
{
    in({.flags = kRst, .tsval = 1});
    EXPECT_EQ(conn.state(), State::kClosed);
}

TEST_F(TimestampTest, After24DaysIdleAnOldOneIsNew)
{
    const Time day = Time{24} * 3600 * 1'000'000;
    now += 24 * day;
    in({.len = 100, .tsval = 5999});
    EXPECT_EQ(counters.paws, 1u);
    now += day;
    in({.len = 100, .tsval = 5999});
    EXPECT_EQ(counters.paws, 1u);
    EXPECT_EQ(receive(), 100u);
    EXPECT_EQ(last().options.ts_ecr, 5999u);
}

TEST_F(TimestampTest, SegmentsWithoutAreDroppedSilently)
{
    in({.len = 100, .no_timestamp = true});
    EXPECT_TRUE(silent());
    EXPECT_EQ(pool.held_by_engine(), 0u);
    in({.flags = kRst, .no_timestamp = true});
    EXPECT_EQ(conn.state(), State::kClosed);
}

// RFC 7323 3.2: MUST NOT abort a connection because a segment lacks a timestamp.
TEST_F(TimestampTest, SegmentsWithoutDoNotEndTheConnection)
{
    for (int i = 0; i < 1000; i++) {
        in({.len = 100, .no_timestamp = true});
        in({.len = 0, .flags = kAck | kFin, .no_timestamp = true});
        in({.flags = kSyn, .tsval = 1});
    }
    EXPECT_EQ(conn.state(), State::kEstablished);
    data(0, 100);
    EXPECT_EQ(receive(), 100u);
}

// RFC 7323 5.5: what the peer's clock does in 24 days and more, at 1 ms a tick.
TEST_F(TimestampTest, AClockThatWentHalfWayRoundWhileIdle)
{
    const Time day = Time{24} * 3600 * 1'000'000;
    for (const Time days : {Time{25}, Time{30}, Time{49}, Time{60}}) {
        now += days * day;
        data(static_cast<std::uint32_t>(received), 100);
        EXPECT_EQ(receive(), 100u) << days << " days";
    }
    EXPECT_EQ(counters.paws, 0u);
}

TEST_F(TimestampTest, AnInvalidAckDoesNotChangeTheEcho)
{
    in({.len = 100, .ack = 77, .tsval = 7000});
    EXPECT_EQ(take().options.ts_ecr, 6000u);
}

} // namespace
} // namespace devmem::tcp::test
