// SPDX-License-Identifier: BSD-3-Clause
// Explicit congestion notification (RFC 3168): agreed on, echoed, and gone by.
#include "test/unit/tcp/harness.h"

namespace devmem::tcp::test {
namespace {

/// Payload of a full segment to the peer: its MSS without the timestamp option.
constexpr std::uint32_t kSmss = Harness::kPeerMss - 12;

/// What the answer to a SYN with these flags has.
class EcnSetup : public TcpTest {
protected:
    std::uint8_t answer(std::uint8_t flags)
    {
        send_syn(flags);
        poll();
        const Sent sent = take();
        EXPECT_FALSE(sent.ect);
        in({});
        out.clear();
        return sent.flags;
    }
    /// Whether a mark is answered.
    bool heard()
    {
        in({.len = 100, .ce = true});
        receive();
        return last().flags & kEce;
    }
};

/// A connection that agreed on ECN.
class EcnTest : public EcnSetup {
protected:
    void SetUp() override { ASSERT_EQ(answer(kSyn | kEce | kCwr), kSyn | kAck | kEce); }
    /// A text segment from the peer. @return the flags of its ACK
    std::uint8_t text(const In& segment)
    {
        in(segment);
        return last().flags;
    }
    void send_full(std::uint32_t segments) { send(std::string(segments * kSmss, 'x')); }
};

TEST_F(EcnSetup, IsAcceptedOfWhoeverAsks)
{
    EXPECT_EQ(answer(kSyn | kEce | kCwr), kSyn | kAck | kEce);
    EXPECT_TRUE(heard());
}

TEST_F(EcnSetup, IsNotAcceptedIfItIsOff)
{
    config.ecn = false;
    EXPECT_EQ(answer(kSyn | kEce | kCwr), kSyn | kAck);
    EXPECT_FALSE(heard());
    EXPECT_EQ(counters.ce_segments, 0u);
    send("x");
    EXPECT_FALSE(take().ect);
}

TEST_F(EcnSetup, NeitherBitAloneAsks)
{
    EXPECT_EQ(answer(kSyn | kEce), kSyn | kAck);
    EXPECT_FALSE(heard());
}

TEST_F(EcnSetup, CwrAloneAsksNeither)
{
    EXPECT_EQ(answer(kSyn | kCwr), kSyn | kAck);
    EXPECT_FALSE(heard());
}

// 6.1.1.1: a peer that hears nothing may try without.
TEST_F(EcnSetup, ASynThatNoLongerAsksGetsNone)
{
    send_syn(kSyn | kEce | kCwr);
    poll();
    EXPECT_EQ(take().flags, kSyn | kAck | kEce);
    in({.seq = UINT32_MAX, .flags = kSyn | kEce | kCwr});
    EXPECT_EQ(take().flags, kSyn | kAck | kEce);
    in({.seq = UINT32_MAX, .flags = kSyn});
    EXPECT_EQ(take().flags, kSyn | kAck);
    in({});
    EXPECT_FALSE(heard());
}

TEST_F(EcnSetup, WeDoNotAsk)
{
    connect();
    EXPECT_EQ(take().flags, kSyn);
    in({.seq = UINT32_MAX, .flags = kSyn | kAck | kEce});
    EXPECT_EQ(take().flags, kAck);
    EXPECT_FALSE(heard());
    send("x");
    EXPECT_FALSE(take().ect);
}

TEST_F(EcnTest, EveryAckTellsUntilTheSenderKnows)
{
    EXPECT_EQ(text({.len = 100}), kAck);
    EXPECT_EQ(text({.seq = 100, .len = 100, .ce = true}), kAck | kEce);
    EXPECT_EQ(text({.seq = 200, .len = 100}), kAck | kEce);
    send("a reply");
    EXPECT_EQ(last().flags, kAck | kPsh | kEce);
    EXPECT_EQ(text({.seq = 400, .len = 100, .ack = 7}), kAck | kEce) << "of a duplicate, too";
    EXPECT_EQ(text({.seq = 300, .len = 100, .flags = kAck | kCwr, .ack = 7}), kAck);
    EXPECT_EQ(text({.seq = 500, .len = 100, .ack = 7}), kAck);
    EXPECT_EQ(counters.ce_segments, 1u);
    receive();
}

TEST_F(EcnTest, AMarkOnTheSegmentWithCwrIsANewOne)
{
    text({.len = 100, .ce = true});
    EXPECT_EQ(text({.seq = 100, .len = 100, .flags = kAck | kCwr, .ce = true}), kAck | kEce);
    EXPECT_EQ(text({.seq = 200, .len = 100}), kAck | kEce);
    EXPECT_EQ(text({.seq = 300, .len = 100, .flags = kAck | kCwr}), kAck);
    EXPECT_EQ(counters.ce_segments, 2u);
    receive();
}

TEST_F(EcnTest, BothCountAheadOfAGap)
{
    EXPECT_EQ(text({.seq = 100, .len = 100, .ce = true}), kAck | kEce);
    EXPECT_EQ(text({.seq = 200, .len = 100, .flags = kAck | kCwr}), kAck);
    EXPECT_EQ(text({.len = 100}), kAck);
    EXPECT_EQ(receive(), 300u);
}

// 6.1.4, 6.1.5: what is not text in the window says nothing.
TEST_F(EcnTest, OtherSegmentsSayNothing)
{
    text({.len = 100});
    EXPECT_EQ(text({.len = 100, .ce = true}), kAck) << "old";
    EXPECT_EQ(text({.seq = edge, .len = 1, .ce = true}), kAck) << "beyond the window";
    in({.seq = 100, .ce = true});
    EXPECT_TRUE(silent());
    EXPECT_EQ(text({.seq = 100, .len = 100}), kAck) << "an ACK";
    EXPECT_EQ(counters.ce_segments, 0u);

    text({.seq = 200, .len = 100, .ce = true});
    EXPECT_EQ(text({.len = 100, .flags = kAck | kCwr}), kAck | kEce) << "old";
    receive();
}

TEST_F(EcnTest, TextThatFindsNoMemoryTells)
{
    credit.free_bytes = 0;
    std::uint32_t at = 0;
    for (; counters.no_memory == 0 && at < edge; at++)
        data(at, 1);
    ASSERT_EQ(counters.no_memory, 1u);
    EXPECT_EQ(last().flags, kAck);
    EXPECT_EQ(text({.seq = at - 1, .len = 1, .ce = true}), kAck | kEce);
    EXPECT_EQ(counters.no_memory, 2u);
}

TEST_F(EcnTest, ASuperFrameCountsAsItsSegments)
{
    in({.len = 900, .wire_segments = 9, .ce = true});
    EXPECT_EQ(counters.ce_segments, 9u);
    receive();
}

// A sender that goes by a mark waits for each ACK.
TEST_F(EcnTest, AcksAreNotDelayedAfterAMark)
{
    std::uint32_t at = 0;
    for (; at < AckPolicy::kQuickAcks * 100; at += 100)
        data(at, 100);
    out.clear();
    data(at, 100);
    EXPECT_TRUE(silent());
    run_for(config.delayed_ack);
    out.clear();
    EXPECT_EQ(text({.seq = at + 100, .len = 100, .ce = true}), kAck | kEce);
    EXPECT_EQ(text({.seq = at + 200, .len = 100}), kAck | kEce);
    EXPECT_EQ(text({.seq = at + 300, .len = 100, .flags = kAck | kCwr}), kAck);
    receive();
}

TEST_F(EcnTest, IsQuietWhenTheSenderKnows)
{
    text({.len = 100});
    EXPECT_TRUE(conn.is_quiet());
    text({.seq = 100, .len = 100, .ce = true});
    EXPECT_FALSE(conn.is_quiet());
    EXPECT_EQ(conn.next_deadline(), kNever);
    text({.seq = 200, .len = 100, .flags = kAck | kCwr});
    EXPECT_TRUE(conn.is_quiet());
    receive();
}

TEST_F(EcnTest, AnAckThatFoundNoRoomTellsLater)
{
    full = true;
    in({.len = 100, .ce = true});
    full = false;
    poll();
    EXPECT_EQ(last().flags, kAck | kEce);
    receive();
}

TEST_F(EcnTest, NewDataMayBeMarkedAndNothingElse)
{
    send_full(2);
    EXPECT_TRUE(take().ect);
    EXPECT_TRUE(take().ect);
    in({.len = 100});
    EXPECT_FALSE(take().ect) << "an ACK";
    receive();
    run_for(config.rto_min);
    EXPECT_FALSE(take().ect) << "sent again";
    in({.seq = 100, .ack = 2 * kSmss, .window = 0});
    send("x");
    run_for(config.rto_min * 2);
    const Sent probe = take();
    EXPECT_EQ(probe.payload, "x");
    EXPECT_FALSE(probe.ect);
    in({.seq = 100, .ack = 2 * kSmss});
    EXPECT_FALSE(last().ect) << "the probe's byte, sent again";
    in({.seq = 100, .ack = 2 * kSmss + 1});
    conn.shutdown(now, ctx);
    poll();
    const Sent sent = last();
    EXPECT_EQ(sent.flags, kAck | kFin);
    EXPECT_FALSE(sent.ect);
}

TEST_F(EcnTest, AnEchoHalvesTheWindowOnce)
{
    send_full(40); // of which ten may go
    ASSERT_EQ(out.size(), 10u);
    out.clear();
    in({.flags = kAck | kEce, .ack = 2 * kSmss});
    EXPECT_TRUE(silent()) << "eight are in flight, five may be";
    in({.flags = kAck | kEce, .ack = 5 * kSmss});
    EXPECT_TRUE(silent());
    in({.flags = kAck | kEce, .ack = 10 * kSmss}); // of the same window
    ASSERT_EQ(out.size(), 5u);
    EXPECT_EQ(take().flags, kAck | kCwr);
    for (int i = 0; i < 4; i++)
        EXPECT_EQ(take().flags, kAck);
    // The peer has seen CWR and marks go on: that is another window.
    in({.flags = kAck | kEce, .ack = 11 * kSmss});
    EXPECT_TRUE(silent());
    in({.ack = 15 * kSmss});
    ASSERT_EQ(out.size(), 3u) << "two, and one for the ACK without";
    EXPECT_EQ(take().flags, kAck | kCwr);
}

TEST_F(EcnTest, TwoSegmentsMayAlwaysGo)
{
    send_full(40);
    out.clear();
    in({.flags = kAck | kEce, .ack = 10 * kSmss});
    EXPECT_EQ(out.size(), 5u);
    for (std::uint32_t acked = 15; acked <= 21; acked += 2) {
        out.clear();
        in({.flags = kAck | kEce, .ack = acked * kSmss});
        EXPECT_EQ(out.size(), 2u);
        EXPECT_EQ(take().flags, kAck | kCwr);
    }
}

TEST_F(EcnTest, AMarkAndALossInOneWindowHalveItOnce)
{
    send_full(60);
    in({.flags = kAck | kEce, .ack = kSmss});     // five of nine may stay in flight,
    in({.flags = kAck | kEce, .ack = 5 * kSmss}); // and are
    out.clear();
    for (int i = 0; i < 3; i++)
        in({.flags = kAck | kEce, .ack = 5 * kSmss});
    ASSERT_EQ(out.size(), 4u) << "the lost one, and of five and three what seven leave";
    EXPECT_EQ(take().seq, 5 * kSmss);
    EXPECT_EQ(take().flags, kAck | kCwr);
    in({.ack = 13 * kSmss});
    // Half of the five in flight would be two: slow start ends at five instead.
    for (std::uint32_t acked = 14; acked < 18; acked++) {
        out.clear();
        in({.ack = acked * kSmss});
        EXPECT_EQ(out.size(), acked < 17 ? 2u : 1u);
    }
}

TEST_F(EcnTest, AfterATimeoutNewDataHasCwr)
{
    send_full(1);
    out.clear();
    run_for(config.rto_min);
    EXPECT_EQ(last().flags, kAck | kPsh) << "not what is sent again";
    in({.flags = kAck | kEce, .ack = kSmss});
    send("new");
    EXPECT_EQ(take().flags, kAck | kPsh | kCwr);
    send("newer");
    EXPECT_EQ(take().flags, kAck | kPsh);
}

TEST_F(EcnTest, AMarkInAWindowThatTimedOutHalvesNothing)
{
    send_full(40);
    run_for(config.rto_min);
    in({.ack = 5 * kSmss});
    out.clear();
    in({.flags = kAck | kEce, .ack = 10 * kSmss}); // of the same window
    EXPECT_EQ(out.size(), 2u);
    EXPECT_EQ(take().flags, kAck | kCwr);
    // Slow start ends at five, half of the ten that were in flight at first.
    for (std::uint32_t acked = 11; acked < 15; acked++) {
        out.clear();
        in({.ack = acked * kSmss});
        EXPECT_EQ(out.size(), acked < 14 ? 2u : 1u);
    }
}

TEST_F(EcnTest, AnEchoOfNothingIsNotGoneBy)
{
    in({.flags = kAck | kEce});
    send_full(20);
    EXPECT_EQ(out.size(), 10u);
    EXPECT_EQ(take().flags, kAck);
}

// Who did not agree has no say.
TEST_F(EstablishedTest, EchoesWithoutEcnAreIgnored)
{
    send(std::string(40 * kSmss, 'x'));
    out.clear();
    in({.flags = kAck | kEce, .ack = 2 * kSmss});
    EXPECT_EQ(out.size(), 3u) << "two, and one in slow start";
    EXPECT_EQ(take().flags, kAck);
}

} // namespace
} // namespace devmem::tcp::test
