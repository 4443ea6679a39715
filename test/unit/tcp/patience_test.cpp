// SPDX-License-Identifier: BSD-3-Clause
// Keep-alive (RFC 9293 3.8.4, RFC 1122 4.2.3.6), user timeout (RFC 9293 3.10.8, RFC 5482) and what
// the application is told before it comes to that (RFC 9293 3.8.3, R1).
#include "test/unit/tcp/harness.h"

#include <cerrno>

namespace devmem::tcp::test {
namespace {

constexpr Time kSecond = 1'000'000;

struct Keepalive : EstablishedTest {
    void SetUp() override
    {
        EstablishedTest::SetUp();
        conn.set_patience(
            {.keepalive = 60 * kSecond, .keepalive_interval = 10 * kSecond, .keepalive_probes = 3},
            now);
    }
};

TEST_F(EstablishedTest, KeepaliveIsOffByDefault)
{
    run_for(Time{30} * 24 * 3600 * kSecond);
    EXPECT_TRUE(silent());
    EXPECT_EQ(conn.state(), State::kEstablished);
}

// 3.8.4: SEG.SEQ = SND.NXT-1, and it may or may not contain a garbage octet; without it is what
// every implementation answers.
TEST_F(Keepalive, ASilentPeerIsAskedThenGivenUp)
{
    run_for(60 * kSecond - 1);
    EXPECT_TRUE(silent());
    run_for(1);
    const Sent probe = take();
    EXPECT_EQ(probe.seq, UINT32_MAX);
    EXPECT_EQ(probe.flags, kAck);
    EXPECT_TRUE(probe.payload.empty());
    run_for(20 * kSecond);
    EXPECT_EQ(out.size(), 2u);
    EXPECT_EQ(conn.state(), State::kEstablished);
    run_for(10 * kSecond);
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
    EXPECT_EQ(out.size(), 2u);
}

TEST_F(Keepalive, AnAnswerStartsItAgain)
{
    for (int i = 0; i < 100; i++) {
        run_for(75 * kSecond); // two probes
        EXPECT_EQ(out.size(), 2u);
        out.clear();
        in({}); // MUST-27: one that is lost is no dead connection
    }
    EXPECT_EQ(conn.state(), State::kEstablished);
}

TEST_F(Keepalive, WhoeverIsHeardIsNotAsked)
{
    for (std::uint32_t at = 0; at < 10'000; at += 100) {
        run_for(59 * kSecond);
        data(at, 100);
        receive();
        run_for(config.delayed_ack);
        out.clear();
    }
    run_for(59 * kSecond);
    EXPECT_TRUE(silent());
}

// What a blind attacker sends does not keep a dead peer alive.
TEST_F(Keepalive, UnacceptableSegmentsAreNotHeard)
{
    for (int i = 0; i < 12; i++) {
        run_for(10 * kSecond);
        in({.seq = edge + 5, .len = 1});
        in({.len = 1, .ack = 77});
        in({.seq = 5, .flags = kRst});
    }
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

TEST_F(Keepalive, WhileDataIsInFlightItsTimerDecides)
{
    conn.set_patience({.keepalive = 2 * kSecond, .keepalive_probes = 1}, now);
    send("x");
    out.clear();
    run_for(60 * kSecond);
    while (!silent())
        EXPECT_EQ(take().payload, "x");
    EXPECT_EQ(conn.state(), State::kEstablished);
}

TEST_F(Keepalive, ProbeThatFindsNoRoomGoesLater)
{
    full = true;
    now += 60 * kSecond;
    poll();
    EXPECT_EQ(conn.next_deadline(), 0u);
    full = false;
    poll();
    EXPECT_EQ(take().seq, UINT32_MAX);
    EXPECT_EQ(conn.next_deadline(), now + 10 * kSecond);
}

TEST_F(Keepalive, WorksAfterThePeersFin)
{
    fin(0);
    out.clear();
    run_for(60 * kSecond);
    EXPECT_EQ(take().seq, UINT32_MAX);
}

TEST_F(TcpTest, KeepaliveSetBeforeTheHandshakeBeginsAfterIt)
{
    connect();
    conn.set_patience({.keepalive = 200 * kSecond}, now);
    take();
    in({.seq = UINT32_MAX, .flags = kSyn | kAck, .ack = 0});
    ASSERT_EQ(conn.state(), State::kEstablished);
    out.clear();
    run_for(199 * kSecond);
    EXPECT_TRUE(silent());
    run_for(1 * kSecond);
    EXPECT_EQ(take().seq, UINT32_MAX);
}

struct UserTimeout : EstablishedTest {
    void SetUp() override
    {
        EstablishedTest::SetUp();
        conn.set_patience({.user_timeout = 30 * kSecond}, now);
    }
};

TEST_F(UserTimeout, UnacknowledgedDataEndsTheConnectionOnTime)
{
    run_for(100 * kSecond); // idle: it does not run
    send("x");
    run_for(30 * kSecond - 1);
    EXPECT_EQ(conn.state(), State::kEstablished);
    run_for(1);
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

TEST_F(UserTimeout, ProgressStartsItAgain)
{
    send("abcdefghij");
    for (std::uint32_t i = 1; i < 10; i++) {
        run_for(25 * kSecond);
        in({.ack = i});
        ASSERT_EQ(conn.state(), State::kEstablished);
    }
    in({.ack = 10});
    run_for(1000 * kSecond);
    EXPECT_EQ(conn.state(), State::kEstablished);
}

TEST_F(UserTimeout, DuplicateAcksAreNoProgress)
{
    send("x");
    for (int i = 0; i < 31; i++) {
        in({});
        run_for(kSecond);
    }
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

TEST_F(UserTimeout, MayBeLongerThanTheRetries)
{
    conn.set_patience({.user_timeout = 24 * 3600 * kSecond}, now);
    send("x");
    run_for(23 * 3600 * kSecond);
    EXPECT_EQ(conn.state(), State::kEstablished);
}

TEST_F(UserTimeout, SetLateItCountsFromWhenTheDataWasSent)
{
    conn.set_patience({}, now);
    send("x");
    run_for(20 * kSecond);
    conn.set_patience({.user_timeout = 30 * kSecond}, now);
    run_for(10 * kSecond);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

// RFC 9293 3.8.6.1, MUST-37: as long as the peer answers probes.
TEST_F(UserTimeout, AClosedWindowThatIsAnsweredIsWaitedFor)
{
    in({.window = 0});
    send("x");
    for (int i = 0; i < 2000; i++) {
        run_for(kSecond);
        while (!silent()) {
            take();
            in({.window = 0});
        }
    }
    EXPECT_EQ(conn.state(), State::kEstablished);
    run_for(200 * kSecond); // and no longer
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

TEST_F(TcpTest, UserTimeoutOfASyn)
{
    connect();
    conn.set_patience({.user_timeout = 5 * kSecond}, now);
    run_for(5 * kSecond);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
    EXPECT_EQ(out.size(), 3u) << "at 0, 1 and 3 s";
}

struct Retrying : EstablishedTest {
    /// Until so many segments went out since the last look. @return whether kRetrying came
    bool told_after(std::size_t segments)
    {
        out.clear();
        seen = kNothing;
        while (out.size() < segments)
            run_for(10'000);
        return (seen & kRetrying) != 0;
    }
};

TEST_F(Retrying, IsToldAtTheThirdRetransmissionAndOnce)
{
    for (std::uint32_t i = 0; i < 3; i++) {
        send("x");
        EXPECT_FALSE(told_after(2));
        EXPECT_TRUE(told_after(1));
        EXPECT_FALSE(told_after(5));
        in({.ack = i}); // no progress
        EXPECT_FALSE(told_after(2));
        in({.ack = i + 1});
    }
    EXPECT_EQ(conn.state(), State::kEstablished);
}

TEST_F(Retrying, WithWhatTheNetworkSaidOfIt)
{
    send("x");
    EXPECT_EQ(conn.soft_error(), 0);
    seen |= conn.icmp_error(false, iss, -EHOSTUNREACH, now, ctx);
    EXPECT_TRUE(told_after(3));
    EXPECT_EQ(conn.soft_error(), -EHOSTUNREACH);
    in({.ack = 1});
    EXPECT_EQ(conn.soft_error(), 0);
}

// A probe sent for the third time again; a peer that answers probes is there (MUST-37).
TEST_F(Retrying, IsToldOfProbesThatAreNotAnswered)
{
    in({.window = 0});
    send("x");
    for (int i = 0; i < 10; i++) {
        EXPECT_FALSE(told_after(1));
        in({.window = 0});
    }
    EXPECT_FALSE(told_after(3));
    EXPECT_TRUE(told_after(1));
    EXPECT_FALSE(told_after(5));
}

// R1 and R2 are two numbers: the one is told of before the other ends the connection.
TEST_F(Retrying, ComesBeforeTheEnd)
{
    config.retries = 3;
    send("x");
    EXPECT_TRUE(told_after(3));
    EXPECT_FALSE(seen & kClosed);
    run_for(10 * kSecond);
    EXPECT_TRUE(seen & kClosed);
}

TEST_F(TcpTest, RetryingIsToldOfASyn)
{
    connect();
    run_for(7 * kSecond - 1);
    EXPECT_FALSE(seen & kRetrying);
    run_for(1);
    EXPECT_TRUE(seen & kRetrying);
    EXPECT_EQ(out.size(), 4u) << "at 0, 1, 3 and 7 s";
}

} // namespace
} // namespace devmem::tcp::test
