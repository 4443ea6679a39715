// SPDX-License-Identifier: BSD-3-Clause
// The urgent mechanism of a receiver: RFC 9293 3.8.5, and 3.10.7.4, sixth.
#include "test/unit/tcp/harness.h"

#include <algorithm>

namespace devmem::tcp::test {
namespace {

using UrgentTest = EstablishedTest;

constexpr std::uint8_t kUrgentAck = kAck | kUrg;

TEST_F(UrgentTest, ToldWithTheTextThatStaysInLine)
{
    const Actions actions = in({.len = 100, .flags = kUrgentAck | kPsh, .urgent = 60});
    EXPECT_TRUE(actions & kUrgent);
    EXPECT_TRUE(actions & kReadable);
    EXPECT_EQ(conn.urgent_bytes(), 60u);
    EXPECT_EQ(receive(), 100u);
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

TEST_F(UrgentTest, OfTextYetToComeAndCountedDownAsItIsTaken)
{
    EXPECT_TRUE(in({.flags = kUrgentAck, .urgent = 250}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 250u);
    for (const std::uint32_t left : {150u, 50u, 0u}) {
        data(static_cast<std::uint32_t>(received), 100); // predicted
        receive();
        EXPECT_EQ(conn.urgent_bytes(), left);
    }
    data(300, 100);
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

// Every segment a sender in urgent mode sends has the pointer.
TEST_F(UrgentTest, NotToldAgainUnlessThePointerAdvances)
{
    in({.len = 100, .flags = kUrgentAck, .urgent = 300});
    EXPECT_FALSE(in({.seq = 100, .len = 100, .flags = kUrgentAck, .urgent = 200}) & kUrgent);
    EXPECT_FALSE(in({.seq = 200, .len = 100, .flags = kUrgentAck, .urgent = 50}) & kUrgent)
        << "RCV.UP does not move back";
    EXPECT_EQ(conn.urgent_bytes(), 300u);
    EXPECT_TRUE(in({.seq = 300, .len = 100, .flags = kUrgentAck, .urgent = 1}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 301u);
}

TEST_F(UrgentTest, ToldAgainAfterAllWasTaken)
{
    in({.len = 100, .flags = kUrgentAck, .urgent = 100});
    receive();
    EXPECT_TRUE(in({.seq = 100, .len = 1, .flags = kUrgentAck, .urgent = 1}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 1u);
}

TEST_F(UrgentTest, OfAnyLength)
{
    for (std::uint32_t i = 0; i < 30; i++)
        EXPECT_TRUE(in({.seq = i * 1000, .len = 1000, .flags = kUrgentAck, .urgent = 65535}) &
                    kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 29'000u + 65'535u);
    EXPECT_EQ(receive(), 30'000u);
    EXPECT_EQ(conn.urgent_bytes(), 64'535u);
}

TEST_F(UrgentTest, WhatWaitsToBeTakenMayBecomeUrgent)
{
    data(0, 100);
    EXPECT_TRUE(in({.seq = 100, .flags = kUrgentAck, .urgent = 0}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 100u);
}

TEST_F(UrgentTest, WhatWasTakenDoesNot)
{
    data(0, 100);
    receive();
    EXPECT_FALSE(in({.seq = 50, .len = 100, .flags = kUrgentAck, .urgent = 50}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

TEST_F(UrgentTest, AheadOfAGap)
{
    EXPECT_TRUE(in({.seq = 500, .len = 100, .flags = kUrgentAck, .urgent = 100}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 600u);
    data(0, 500);
    receive();
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

TEST_F(UrgentTest, ThePointerCountsWithTheBitOnly)
{
    in({.len = 100, .urgent = 100});
    EXPECT_FALSE(seen & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

// What a rung before the sixth refuses.
TEST_F(UrgentTest, SegmentsThatAreRefusedTellNothing)
{
    data(0, 200);
    const In refused[] = {
        {.len = 100, .flags = kUrgentAck, .urgent = 1000}, // old
        {.seq = 200, .len = 10, .flags = kUrgentAck, .tsval = 1, .urgent = 1000},
        {.seq = 200, .flags = kUrgentAck, .no_timestamp = true, .urgent = 1000},
        {.seq = edge + 1, .len = 10, .flags = kUrgentAck, .urgent = 1000},
        {.seq = 200, .flags = kUrgentAck, .ack = 1, .urgent = 1000}, // of nothing sent
        {.seq = 200, .flags = kUrg, .urgent = 1000},
        {.seq = 200, .flags = kUrgentAck | kSyn, .urgent = 1000},
        {.seq = 201, .flags = kUrgentAck | kRst, .urgent = 1000},
    };
    for (const In& segment : refused)
        in(segment);
    EXPECT_EQ(conn.state(), State::kEstablished);
    EXPECT_FALSE(seen & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

// MUST-66: the window is closed, and more is urgent than will fit in any soon.
TEST_F(TcpTest, UrgentAtAClosedWindow)
{
    credit.free_bytes = 0;
    establish();
    ASSERT_EQ(edge, 0u);
    EXPECT_TRUE(in({.len = 1, .flags = kUrgentAck, .urgent = 65535}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 65'535u);
    EXPECT_EQ(conn.readable_bytes(), 0u);
}

TEST_F(UrgentTest, WhileWeAreClosing)
{
    conn.shutdown(now, ctx);
    poll();
    EXPECT_TRUE(in({.len = 10, .flags = kUrgentAck, .urgent = 10}) & kUrgent);
    ASSERT_EQ(conn.state(), State::kFinWait1);
    in({.seq = 10, .ack = 1});
    ASSERT_EQ(conn.state(), State::kFinWait2);
    EXPECT_TRUE(in({.seq = 10, .len = 10, .flags = kUrgentAck, .ack = 1, .urgent = 10}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 20u);
}

TEST_F(UrgentTest, AfterTheFinThereIsNone)
{
    fin(0, 100);
    EXPECT_FALSE(in({.seq = 101, .flags = kUrgentAck, .urgent = 100}) & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

TEST_F(UrgentTest, TheFinEndsWhatDoesNotCome)
{
    fin(200, 100); // ahead of a gap
    EXPECT_TRUE(in({.flags = kUrgentAck, .urgent = 1000}) & kUrgent);
    data(0, 200);
    ASSERT_TRUE(conn.peer_closed());
    EXPECT_EQ(conn.urgent_bytes(), 300u);
    receive();
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

TEST_F(UrgentTest, SoDoesAReset)
{
    in({.len = 100, .flags = kUrgentAck, .urgent = 1000});
    in({.seq = 100, .flags = kRst});
    EXPECT_EQ(conn.urgent_bytes(), 100u);
    receive();
    EXPECT_EQ(conn.urgent_bytes(), 0u);
}

// As the text of a SYN, its pointer is not taken: both come again.
TEST_F(TcpTest, UrgentDuringThePassiveHandshake)
{
    send_syn(kSyn | kUrg);
    poll();
    in({.flags = kUrg, .urgent = 10});
    EXPECT_FALSE(seen & kUrgent);
    const Actions actions = in({.flags = kUrgentAck, .urgent = 10});
    EXPECT_TRUE(actions & kConnected);
    EXPECT_TRUE(actions & kUrgent);
    EXPECT_EQ(conn.urgent_bytes(), 10u);
}

TEST_F(TcpTest, UrgentDuringTheActiveHandshake)
{
    connect();
    in({.seq = UINT32_MAX, .flags = kSyn | kUrgentAck, .urgent = 10});
    ASSERT_EQ(conn.state(), State::kEstablished);
    EXPECT_FALSE(seen & kUrgent);
    EXPECT_TRUE(in({.flags = kUrgentAck, .urgent = 10}) & kUrgent);
}

// RCV.UP that is left behind would be ahead of RCV.NXT again 2^31 bytes later.
TEST(UrgentStream, AnOldPointerDoesNotComeBack)
{
    constexpr std::uint32_t kFragment = 1000, kFragments = 64;
    Harness h({kFragments, kFragment, kFragments, 1, 64, 1});
    h.config.rcv_window = 4 * kFragments * kFragment;
    h.establish();
    std::uint32_t at = h.edge;
    EXPECT_TRUE(h.in({.len = at, .flags = kUrgentAck, .urgent = 10}) & kUrgent);
    EXPECT_EQ(h.receive(), at);
    wire::TcpOptions options;
    options.timestamps = true;
    options.ts_val = static_cast<std::uint32_t>(h.now / 1000) + h.peer_clock_offset;
    while (at < (1u << 31) + 100) {
        // As much as a page holds; nobody looks at the bytes.
        const std::uint32_t len = std::min(h.edge - at, kFragments * kFragment);
        tcp::Run run{0, (len + kFragment - 1) / kFragment, 0, len};
        h.conn.process({h.irs + at, h.iss, 65535, kAck, 1, len, {&run, 1}, &options}, h.now, h.ctx);
        h.poll();
        ASSERT_TRUE(h.conn.receive(&run, h.ctx));
        ASSERT_EQ(run.len, len);
        h.returned += run.count;
        h.credit.free_bytes = 100'000'000;
        h.conn.window_check(h.now, h.ctx);
        h.run_for(200'000); // an ACK
        ASSERT_EQ(h.conn.urgent_bytes(), 0u);
        at += len;
    }
    EXPECT_TRUE(h.in({.seq = at, .flags = kUrgentAck, .urgent = 10}) & kUrgent);
    EXPECT_EQ(h.conn.urgent_bytes(), 10u);
}

} // namespace
} // namespace devmem::tcp::test
