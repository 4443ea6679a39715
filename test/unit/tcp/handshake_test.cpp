// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/tcp/harness.h"

#include <cerrno>

namespace devmem::tcp::test {
namespace {

constexpr std::uint32_t kSynSeq = UINT32_MAX; // one before the first byte

TEST_F(TcpTest, SynIsAnsweredWithEveryOptionThePeerOffered)
{
    send_syn();
    EXPECT_EQ(seen, kPoll);
    poll();
    const Sent syn_ack = take();
    EXPECT_EQ(syn_ack.flags, kSyn | kAck);
    EXPECT_EQ(syn_ack.seq, kSynSeq);
    EXPECT_EQ(syn_ack.ack, 0u);
    EXPECT_EQ(syn_ack.window, 40'000u); // never scaled in a SYN (RFC 7323 2.2)
    EXPECT_EQ(syn_ack.options.mss, kMss);
    EXPECT_EQ(syn_ack.options.window_scale, 5); // 1 MiB >> 5 fits 16 bits, >> 4 does not
    EXPECT_TRUE(syn_ack.options.sack_permitted);
    EXPECT_TRUE(syn_ack.options.timestamps);
    EXPECT_EQ(syn_ack.options.ts_val, 1777u);
    EXPECT_EQ(syn_ack.options.ts_ecr, 6000u);
    EXPECT_EQ(in({}) & kConnected, kConnected);
    EXPECT_EQ(conn.state(), State::kEstablished);
    EXPECT_TRUE(silent());
}

TEST_F(TcpTest, OptionsNotOfferedAreNotAnswered)
{
    timestamps = sack = false;
    peer_scale = wire::TcpOptions::kNoScale;
    send_syn();
    poll();
    const Sent syn_ack = take();
    EXPECT_EQ(syn_ack.options.window_scale, wire::TcpOptions::kNoScale);
    EXPECT_FALSE(syn_ack.options.sack_permitted);
    EXPECT_FALSE(syn_ack.options.timestamps);
    in({});
    data(100, 100);
    const Sent ack = last();
    EXPECT_FALSE(ack.options.timestamps);
    EXPECT_EQ(ack.options.sack_count, 0);
    EXPECT_EQ(ack.window, 40'000u);
}

TEST_F(TcpTest, OptionsSwitchedOffAreNotAnswered)
{
    config.timestamps = config.sack = config.window_scale = false;
    send_syn();
    poll();
    const Sent syn_ack = take();
    EXPECT_EQ(syn_ack.options.window_scale, wire::TcpOptions::kNoScale);
    EXPECT_FALSE(syn_ack.options.sack_permitted);
    EXPECT_FALSE(syn_ack.options.timestamps);
}

TEST_F(TcpTest, SynAckIsRepeatedWithBackoffThenGivenUp)
{
    config.syn_retries = 2;
    send_syn();
    poll();
    EXPECT_EQ(out.size(), 1u);
    run_for(1'000'000);
    EXPECT_EQ(out.size(), 2u);
    run_for(2'000'000);
    EXPECT_EQ(out.size(), 3u);
    run_for(3'999'999);
    EXPECT_EQ(conn.state(), State::kSynReceived);
    run_for(1);
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
    EXPECT_EQ(counters.retransmits, 2u);
}

TEST_F(TcpTest, RepeatedSynIsAnsweredWithSynAckAgain)
{
    send_syn();
    poll();
    take();
    in({.seq = kSynSeq, .flags = kSyn, .tsval = 9000});
    const Sent again = take();
    EXPECT_EQ(again.flags, kSyn | kAck);
    EXPECT_EQ(again.seq, kSynSeq);
    EXPECT_EQ(again.options.ts_ecr, 9000u); // RFC 7323 4.3
    in({.tsval = 9001});
    EXPECT_EQ(conn.state(), State::kEstablished);
}

TEST_F(TcpTest, DataMayCompleteTheHandshake)
{
    send_syn();
    poll();
    take();
    in({.len = 100});
    EXPECT_TRUE(seen & kConnected);
    EXPECT_TRUE(seen & kReadable);
    EXPECT_EQ(receive(), 100u);
    EXPECT_EQ(take().ack, 100u);
}

TEST_F(TcpTest, UnacceptableAckInSynReceivedIsReset)
{
    send_syn();
    poll();
    take();
    in({.ack = 5});
    const Sent rst = take();
    EXPECT_EQ(rst.flags, kRst);
    EXPECT_EQ(rst.seq, 5u);
    EXPECT_EQ(conn.state(), State::kSynReceived);
}

TEST_F(TcpTest, ResetInSynReceivedEndsIt)
{
    send_syn();
    poll();
    in({.flags = kRst});
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -ECONNRESET);
}

TEST_F(TcpTest, ActiveOpen)
{
    connect();
    const Sent syn = take();
    EXPECT_EQ(syn.flags, kSyn);
    EXPECT_EQ(syn.seq, kSynSeq);
    EXPECT_EQ(syn.options.mss, kMss);
    EXPECT_EQ(syn.options.window_scale, 5);
    EXPECT_TRUE(syn.options.sack_permitted && syn.options.timestamps);
    in({.seq = kSynSeq, .flags = kSyn | kAck});
    EXPECT_TRUE(seen & kConnected);
    const Sent ack = take();
    EXPECT_EQ(ack.flags, kAck);
    EXPECT_EQ(ack.seq, 0u);
    EXPECT_EQ(ack.ack, 0u);
    EXPECT_TRUE(silent());
    run_for(100'000'000);
    EXPECT_TRUE(silent());
    data(0, 200);
    EXPECT_EQ(receive(), 200u);
}

TEST_F(TcpTest, RefusedConnection)
{
    connect();
    in({.seq = 0, .flags = kRst | kAck, .ack = 1}); // acknowledges what was not sent
    EXPECT_EQ(conn.state(), State::kSynSent);
    in({.seq = 0, .flags = kRst});
    EXPECT_EQ(conn.state(), State::kSynSent);
    in({.seq = 0, .flags = kRst | kAck});
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -ECONNREFUSED);
}

TEST_F(TcpTest, SynSentAnswersWrongAckWithReset)
{
    connect();
    take();
    in({.seq = kSynSeq, .flags = kSyn | kAck, .ack = 9});
    const Sent rst = take();
    EXPECT_EQ(rst.flags, kRst);
    EXPECT_EQ(rst.seq, 9u);
    EXPECT_EQ(conn.state(), State::kSynSent);
}

TEST_F(TcpTest, SynIsGivenUpAfterItsRetries)
{
    config.syn_retries = 1;
    connect();
    run_for(3'000'000);
    EXPECT_EQ(out.size(), 2u);
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

TEST_F(TcpTest, UnreachableEndsSynSentOnly)
{
    connect();
    EXPECT_EQ(conn.unreachable(-EHOSTUNREACH, now, ctx), kClosed);
    EXPECT_EQ(conn.error(), -EHOSTUNREACH);
}

// RFC 9293 3.9.2.2, MUST-56: unreachable net or host, or a failed source route, end nothing.
TEST_F(TcpTest, SoftIcmpErrorsDoNotEndSynSent)
{
    connect();
    take();
    EXPECT_EQ(conn.icmp_error(false, iss - 1, -EHOSTUNREACH, now, ctx), kNothing);
    EXPECT_EQ(conn.state(), State::kSynSent);
    run_for(300'000'000);
    EXPECT_TRUE(seen & kClosed);
    EXPECT_EQ(conn.error(), -EHOSTUNREACH) << "SHLD-25: the reason is told in the end";
}

TEST_F(TcpTest, HardIcmpErrorsEndSynSentIfTheyQuoteTheSyn)
{
    connect();
    for (const std::uint32_t wrong : {0u, 1u, 1000u, 0x80000000u, 0u - 2u})
        EXPECT_EQ(conn.icmp_error(true, iss + wrong, -ECONNREFUSED, now, ctx), kNothing);
    EXPECT_EQ(conn.state(), State::kSynSent);
    EXPECT_EQ(conn.icmp_error(true, iss - 1, -ECONNREFUSED, now, ctx), kClosed);
    EXPECT_EQ(conn.error(), -ECONNREFUSED);
}

// RFC 5927 5.2: in synchronized states hard errors are soft.
TEST_F(EstablishedTest, NoIcmpErrorEndsAConnection)
{
    EXPECT_EQ(conn.icmp_error(true, iss, -ECONNREFUSED, now, ctx), kNothing) << "nothing in flight";
    send("x");
    EXPECT_EQ(conn.icmp_error(true, iss, -ECONNREFUSED, now, ctx), kNothing);
    EXPECT_EQ(conn.state(), State::kEstablished);
    in({.ack = 1});
    send("y"); // got through: the error is of the past
    run_for(Time{3600} * 1'000'000);
    EXPECT_EQ(conn.error(), -ETIMEDOUT);
}

TEST_F(EstablishedTest, ATimeoutTellsTheIcmpErrorThatExplainsIt)
{
    send("x");
    conn.icmp_error(false, iss, -EHOSTUNREACH, now, ctx);
    run_for(Time{3600} * 1'000'000);
    EXPECT_EQ(conn.error(), -EHOSTUNREACH);
}

TEST_F(TcpTest, NoIcmpErrorEndsAHalfOpenConnection)
{
    send_syn();
    poll();
    conn.icmp_error(true, iss - 1, -ECONNREFUSED, now, ctx);
    EXPECT_EQ(conn.state(), State::kSynReceived);
    in({});
    EXPECT_EQ(conn.state(), State::kEstablished);
}

// Both SYNs cross, are lost, and cross again; data follows at once (RFC 9293 3.5, figure 7).
TEST_F(TcpTest, SimultaneousOpenWithLoss)
{
    connect();
    take(); // lost
    in({.seq = UINT32_MAX, .flags = kSyn});
    EXPECT_EQ(conn.state(), State::kSynReceived);
    EXPECT_EQ(take().flags, kSyn | kAck); // lost
    run_for(1'000'000);
    EXPECT_EQ(take().flags, kSyn | kAck);
    in({.seq = UINT32_MAX, .flags = kSyn}); // the peer's goes again, too
    EXPECT_EQ(take().flags, kSyn | kAck);
    EXPECT_EQ(conn.state(), State::kSynReceived);
    in({.seq = UINT32_MAX, .flags = kSyn | kAck});
    EXPECT_EQ(conn.state(), State::kEstablished);
    EXPECT_TRUE(seen & kConnected);
    data(0, 500);
    EXPECT_EQ(receive(), 500u);
    EXPECT_EQ(send("x"), 1);
    EXPECT_EQ(last().payload, "x");
}

TEST_F(TcpTest, SimultaneousOpenThatIsRefused)
{
    connect();
    in({.seq = UINT32_MAX, .flags = kSyn});
    in({.seq = 0, .flags = kRst});
    EXPECT_EQ(conn.error(), -ECONNREFUSED) << "3.10.7.4: an active OPEN is told";
}

TEST_F(EstablishedTest, UnreachableIsSoftOnceEstablished)
{
    EXPECT_EQ(conn.unreachable(-EHOSTUNREACH, now, ctx), kNothing);
    EXPECT_EQ(conn.state(), State::kEstablished);
}

// RFC 9293 figure 8.
TEST_F(TcpTest, SimultaneousOpen)
{
    connect();
    take();
    in({.seq = kSynSeq, .flags = kSyn});
    EXPECT_EQ(conn.state(), State::kSynReceived);
    const Sent syn_ack = take();
    EXPECT_EQ(syn_ack.flags, kSyn | kAck);
    EXPECT_EQ(syn_ack.seq, kSynSeq);
    EXPECT_EQ(syn_ack.ack, 0u);
    in({.seq = kSynSeq, .flags = kSyn | kAck});
    EXPECT_TRUE(seen & kConnected);
    EXPECT_EQ(conn.state(), State::kEstablished);
    data(0, 100);
    EXPECT_EQ(receive(), 100u);
}

TEST_F(TcpTest, PayloadOfASynIsLeftToRetransmission)
{
    wire::TcpOptions options;
    const auto payload = pool.place(0, 150, {});
    const Segment syn{irs, Seq(0), 1000, kSyn, 1, 150, payload, &options};
    conn.open_passive(syn, iss, kMss, 1460, 0, nullptr, now, ctx);
    EXPECT_EQ(pool.held_by_engine(), 0u);
    irs += 1;
    iss += 1;
    peer_scale = wire::TcpOptions::kNoScale;
    poll();
    EXPECT_EQ(take().ack, 0u);
}

TEST_F(TcpTest, SegmentsToAClosedConnectionAreReset)
{
    in({.seq = 10, .len = 5, .ack = 3});
    const Sent rst = take();
    EXPECT_EQ(rst.flags, kRst);
    EXPECT_EQ(rst.seq, 3u);
    in({.seq = 10, .flags = kRst});
    EXPECT_TRUE(silent());
}

TEST(ResetFor, AnswersAsTheRfcSays)
{
    const wire::TcpOptions options;
    SegmentOut out;
    EXPECT_TRUE(reset_for({Seq(7), Seq(0), 0, kSyn, 1, 0, {}, &options}, &out));
    EXPECT_EQ(out.flags, kRst | kAck);
    EXPECT_EQ(out.seq, Seq(0));
    EXPECT_EQ(out.ack, Seq(8));
    EXPECT_TRUE(reset_for({Seq(7), Seq(0), 0, kFin, 1, 4, {}, &options}, &out));
    EXPECT_EQ(out.ack, Seq(12));
    EXPECT_TRUE(reset_for({Seq(7), Seq(9), 0, kAck, 1, 4, {}, &options}, &out));
    EXPECT_EQ(out.flags, kRst);
    EXPECT_EQ(out.seq, Seq(9));
    EXPECT_FALSE(reset_for({Seq(7), Seq(9), 0, kAck | kRst, 1, 0, {}, &options}, &out));
}

TEST_F(TcpTest, FullSinkLosesNothing)
{
    full = true;
    send_syn();
    EXPECT_TRUE(poll() & kPoll);
    EXPECT_EQ(conn.next_deadline(), 0u);
    full = false;
    poll();
    EXPECT_EQ(take().flags, kSyn | kAck);
    in({});
    full = true;
    data(0, 2000);
    EXPECT_EQ(conn.next_deadline(), 0u);
    full = false;
    poll();
    EXPECT_EQ(take().ack, 2000u);
    EXPECT_TRUE(silent());
}

} // namespace
} // namespace devmem::tcp::test
