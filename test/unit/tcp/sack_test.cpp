// SPDX-License-Identifier: BSD-3-Clause
// SACK (RFC 2018) and DSACK (RFC 2883) as a receiver sends them.
#include "test/unit/tcp/harness.h"

namespace devmem::tcp::test {
namespace {

using SackTest = EstablishedTest;
using Blocks = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

TEST_F(SackTest, MostRecentFirst)
{
    data(100, 100);
    EXPECT_EQ(last().sack, (Blocks{{100, 200}}));
    data(300, 100);
    EXPECT_EQ(last().sack, (Blocks{{300, 400}, {100, 200}}));
    data(500, 100);
    EXPECT_EQ(last().sack, (Blocks{{500, 600}, {300, 400}, {100, 200}}));
    data(700, 100); // three fit beside timestamps
    EXPECT_EQ(last().sack, (Blocks{{700, 800}, {500, 600}, {300, 400}}));
    data(200, 100); // joins two
    EXPECT_EQ(last().sack, (Blocks{{100, 400}, {700, 800}, {500, 600}}));
    data(0, 100);
    EXPECT_EQ(last().sack, (Blocks{{700, 800}, {500, 600}}));
    data(400, 100);
    EXPECT_EQ(last().sack, (Blocks{{700, 800}}));
    data(600, 100);
    const Sent ack = last();
    EXPECT_EQ(ack.ack, 800u);
    EXPECT_TRUE(ack.sack.empty());
}

TEST_F(TcpTest, FourBlocksWithoutTimestamps)
{
    timestamps = false;
    establish();
    for (const std::uint32_t i : {1u, 3u, 5u, 7u, 9u})
        data(i * 100, 100);
    EXPECT_EQ(last().sack, (Blocks{{900, 1000}, {700, 800}, {500, 600}, {300, 400}}));
}

TEST_F(TcpTest, NoBlocksIfNotPermitted)
{
    sack = false;
    establish();
    data(100, 100);
    data(100, 100);
    EXPECT_TRUE(last().sack.empty());
}

TEST_F(SackTest, OldDuplicateIsReportedOnce)
{
    data(0, 300);
    data(100, 100);
    EXPECT_EQ(last().sack, (Blocks{{100, 200}}));
    in({.seq = 299}); // any ACK after it
    EXPECT_TRUE(last().sack.empty());
}

// Reordered by more than a round trip: the retransmission overtakes, and takes TS.Recent with it.
TEST_F(SackTest, OvertakenByItsRetransmissionIsReported)
{
    data(100, 100);
    in({.seq = 0, .len = 100, .tsval = 6200});
    EXPECT_EQ(last().ack, 200u);
    in({.seq = 0, .len = 100, .tsval = 6100});
    EXPECT_EQ(counters.paws, 1u);
    EXPECT_EQ(last().sack, (Blocks{{0, 100}}));
    in({.seq = 100, .len = 300, .tsval = 6100}); // what was not received is not a duplicate
    const Sent ack = last();
    EXPECT_EQ(ack.ack, 200u);
    EXPECT_EQ(ack.sack, (Blocks{{100, 200}}));
}

TEST_F(SackTest, DuplicateWithinAnIslandComesBeforeTheIsland)
{
    data(100, 300);
    data(200, 100);
    EXPECT_EQ(last().sack, (Blocks{{200, 300}, {100, 400}}));
}

TEST_F(SackTest, PartlyOldSegment)
{
    data(0, 200);
    data(100, 200);
    const Sent ack = last();
    EXPECT_EQ(ack.ack, 300u);
    EXPECT_EQ(ack.sack, (Blocks{{100, 200}}));
}

// RFC 2883 4.2.3: of several duplicate parts of a segment the first is reported.
TEST_F(SackTest, TwoDuplicatePartsInOneSegment)
{
    data(1'000, 500);
    data(2'000, 500);
    out.clear();
    data(1'000, 1'500);
    const Sent ack = last();
    ASSERT_EQ(ack.sack.size(), 2u);
    EXPECT_EQ(ack.sack[0], std::pair(1'000u, 1'500u));
    EXPECT_EQ(ack.sack[1], std::pair(1'000u, 2'500u));
}

// RFC 2883 4: a D-SACK is for the segment that asked for the ACK, and does not come again.
TEST_F(SackTest, DuplicateBelowAnIslandPrecedesIt)
{
    data(0, 500);
    data(1'000, 500);
    out.clear();
    data(0, 500);
    const Sent ack = last();
    EXPECT_EQ(ack.ack, 500u);
    ASSERT_EQ(ack.sack.size(), 2u);
    EXPECT_EQ(ack.sack[0], std::pair(0u, 500u));
    EXPECT_EQ(ack.sack[1], std::pair(1'000u, 1'500u));
    data(2'000, 500);
    const Sent next = last();
    ASSERT_EQ(next.sack.size(), 2u);
    EXPECT_EQ(next.sack[0], std::pair(2'000u, 2'500u));
    EXPECT_EQ(next.sack[1], std::pair(1'000u, 1'500u));
}

TEST_F(SackTest, FinAheadOfAGapIsReportedWithItsData)
{
    fin(100, 100);
    EXPECT_EQ(last().sack, (Blocks{{100, 201}}));
}

TEST_F(SackTest, NothingGivenUpIsReportedAsADuplicate)
{
    full = true; // the ACKs wait
    data(100, 100);
    data(100, 100);
    now += config.silence;
    conn.lend(now, ctx);
    full = false;
    poll();
    EXPECT_TRUE(last().sack.empty());
}

} // namespace
} // namespace devmem::tcp::test
