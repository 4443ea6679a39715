// SPDX-License-Identifier: BSD-3-Clause
// When an ACK goes out (RFC 5681 4.2, RFC 9293 3.8.6.3).
#include "test/unit/tcp/harness.h"

namespace devmem::tcp::test {
namespace {

/// Past the quick ACKs of the start.
class AckTest : public EstablishedTest {
protected:
    void SetUp() override
    {
        establish();
        for (int i = 0; i < AckPolicy::kQuickAcks; i++, at += 100)
            data(at, 100);
        receive();
        out.clear();
    }
    std::uint32_t at = 0;
};

TEST_F(EstablishedTest, TheFirstSegmentsAreAcknowledgedAtOnce)
{
    for (std::uint32_t i = 0; i < AckPolicy::kQuickAcks; i++) {
        data(i * 100, 100);
        ASSERT_EQ(out.size(), i + 1);
        EXPECT_EQ(out.back().ack, (i + 1) * 100);
    }
    data(1600, 100);
    EXPECT_EQ(out.size(), AckPolicy::kQuickAcks + 0u);
}

TEST_F(AckTest, ASingleSegmentIsAcknowledgedWithinTheDelay)
{
    data(at, 100);
    EXPECT_TRUE(silent());
    EXPECT_EQ(conn.next_deadline(), now + config.delayed_ack);
    run_for(config.delayed_ack - 1);
    EXPECT_TRUE(silent());
    run_for(1);
    EXPECT_EQ(take().ack, at + 100);
    EXPECT_EQ(conn.next_deadline(), kNever);
}

TEST_F(AckTest, TheDelayRunsFromTheFirstUnacknowledgedSegment)
{
    data(at, 100);
    run_for(config.delayed_ack / 2);
    poll();
    EXPECT_EQ(conn.next_deadline(), now + config.delayed_ack / 2);
}

TEST_F(AckTest, EverySecondSegmentIsAcknowledged)
{
    data(at, 1000);
    EXPECT_TRUE(silent());
    data(at + 1000, 1000);
    EXPECT_EQ(take().ack, at + 2000);
    EXPECT_TRUE(silent());
}

TEST_F(AckTest, ABurstIsAcknowledgedOnce)
{
    for (std::uint32_t i = 0; i < 10; i++)
        EXPECT_EQ(process({.seq = at + i * 1000, .len = 1000}) & ~kReadable, kPoll);
    poll();
    EXPECT_EQ(take().ack, at + 10'000);
    EXPECT_TRUE(silent());
    EXPECT_EQ(counters.pure_acks, AckPolicy::kQuickAcks + 1u);
}

TEST_F(AckTest, ASuperFrameCountsAsItsSegments)
{
    in({.seq = at, .len = 1000, .wire_segments = 2});
    EXPECT_EQ(take().ack, at + 1000);
}

TEST_F(AckTest, OutOfOrderDuplicateAndGapFillingSegmentsAreAnsweredOneByOne)
{
    EXPECT_TRUE(process({.seq = at + 100, .len = 100}) & kPollNow);
    poll();
    EXPECT_EQ(take().ack, at);
    EXPECT_TRUE(process({.seq = at + 100, .len = 100}) & kPollNow); // again
    poll();
    EXPECT_EQ(take().ack, at);
    EXPECT_TRUE(process({.seq = at, .len = 100}) & kPollNow);
    poll();
    EXPECT_EQ(take().ack, at + 200);
    EXPECT_TRUE(process({.seq = at, .len = 100}) & kPollNow); // old
    poll();
    EXPECT_EQ(take().ack, at + 200);
    data(at + 200, 100); // and the sender is in slow start now
    EXPECT_EQ(take().ack, at + 300);
}

TEST_F(AckTest, OurDataCarriesTheAck)
{
    data(at, 100);
    send("reply");
    EXPECT_EQ(take().ack, at + 100);
    run_for(100'000);
    EXPECT_TRUE(silent());
}

TEST_F(AckTest, KeepaliveProbeIsAnswered)
{
    in({.seq = at - 1});
    EXPECT_EQ(take().ack, at);
    in({.seq = at - 1, .len = 1});
    EXPECT_EQ(take().ack, at);
    EXPECT_EQ(receive(), 0u);
}

TEST_F(AckTest, PureAcksAreNotAnswered)
{
    in({.seq = at});
    run_for(1'000'000);
    EXPECT_TRUE(silent());
}

} // namespace
} // namespace devmem::tcp::test
