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

TEST_F(SackTest, FinAheadOfAGapIsReportedWithItsData)
{
    fin(100, 100);
    EXPECT_EQ(last().sack, (Blocks{{100, 201}}));
}

} // namespace
} // namespace devmem::tcp::test
