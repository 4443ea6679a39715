// SPDX-License-Identifier: BSD-3-Clause
// Bytes in order, ahead of a gap, and overlapping.
#include "test/unit/tcp/harness.h"

namespace devmem::tcp::test {
namespace {

using DataTest = EstablishedTest;

TEST_F(DataTest, InOrder)
{
    EXPECT_TRUE(data(0, 500) & kReadable);
    EXPECT_FALSE(data(500, 500) & kReadable) << "raised once until the queue is empty again";
    EXPECT_EQ(conn.readable_bytes(), 1000u);
    EXPECT_EQ(receive(), 1000u);
    EXPECT_TRUE(data(1000, 1) & kReadable);
    EXPECT_EQ(counters.payload_bytes, 1001u);
}

TEST_F(DataTest, FullFragmentsOfAPageBecomeOneRun)
{
    for (std::uint32_t i = 0; i < 20; i++)
        data(i * 100, 100);
    tcp::Run run;
    ASSERT_TRUE(conn.receive(&run, ctx));
    EXPECT_EQ(run.count, 8u); // a page
    EXPECT_EQ(run.len, 800u);
    pool.release(run.first, run.count);
    ASSERT_TRUE(conn.receive(&run, ctx));
    EXPECT_EQ(run.count, 8u);
    pool.release(run.first, run.count);
    ASSERT_TRUE(conn.receive(&run, ctx));
    EXPECT_EQ(run.count, 4u);
    pool.release(run.first, run.count);
    EXPECT_FALSE(conn.receive(&run, ctx));
}

TEST_F(DataTest, RunsWithPaddingStayApart)
{
    data(0, 90);
    data(90, 100);
    data(190, 50, {.off = 10});
    tcp::Run run;
    for (const std::uint32_t len : {90u, 100u, 50u}) {
        ASSERT_TRUE(conn.receive(&run, ctx));
        EXPECT_EQ(run.len, len);
        pool.release(run.first, run.count);
    }
}

TEST_F(DataTest, HostAndDeviceFragmentsMix)
{
    data(0, 300);
    data(300, 30, {.host = true});
    data(330, 300);
    EXPECT_EQ(receive(), 630u);
}

TEST_F(DataTest, AGapIsWaitedFor)
{
    EXPECT_FALSE(data(100, 100) & kReadable);
    EXPECT_EQ(counters.ooo_segments, 1u);
    EXPECT_EQ(receive(), 0u);
    EXPECT_TRUE(data(0, 100) & kReadable);
    EXPECT_EQ(receive(), 200u);
    EXPECT_EQ(last().ack, 200u);
}

TEST_F(DataTest, ManyGapsFillInAnyOrder)
{
    for (const std::uint32_t i : {5u, 3u, 9u, 1u, 7u, 2u, 8u, 4u, 6u})
        data(i * 100, 100);
    EXPECT_EQ(receive(), 0u);
    data(0, 100);
    EXPECT_EQ(receive(), 1000u);
    EXPECT_EQ(counters.duplicate_bytes, 0u);
}

TEST_F(DataTest, RunsMergeAheadOfAGapToo)
{
    data(0, 100);
    for (std::uint32_t i = 2; i < 8; i++)
        data(i * 100, 100);
    data(100, 100);
    tcp::Run run;
    std::vector<std::uint32_t> lengths;
    while (conn.receive(&run, ctx)) {
        lengths.push_back(run.len);
        pool.release(run.first, run.count);
    }
    EXPECT_EQ(lengths, (std::vector<std::uint32_t>{100, 100, 600}));
}

TEST_F(DataTest, DuplicatesAreReleased)
{
    data(0, 100);
    data(0, 100);
    data(300, 100);
    data(300, 100);
    EXPECT_EQ(counters.duplicate_bytes, 200u);
    EXPECT_EQ(pool.held_by_engine(), 2u);
}

TEST_F(DataTest, LeftPartAlreadyReceived)
{
    data(0, 250);
    data(150, 350);
    EXPECT_EQ(counters.duplicate_bytes, 100u);
    EXPECT_EQ(receive(), 500u);
}

TEST_F(DataTest, TextBeyondTheWindowIsCutOff)
{
    const std::uint32_t window = edge;
    in({.seq = window - 10, .len = 50});
    EXPECT_EQ(counters.out_of_window, 1u);
    EXPECT_EQ(last().ack, 0u);
    in({.seq = window + 1, .len = 50});
    EXPECT_EQ(counters.out_of_window, 2u);
    EXPECT_EQ(last().ack, 0u);
    EXPECT_EQ(pool.held_by_engine(), 1u); // the 10 bytes inside
}

TEST_F(DataTest, WithoutAckBitNothingIsTaken)
{
    in({.len = 100, .flags = kPsh});
    EXPECT_EQ(receive(), 0u);
    EXPECT_EQ(pool.held_by_engine(), 0u);
}

// The bytes to arrive first stay, whatever comes over them (Ptacek and Newsham's ambiguity).
//
//        0    5    10   15   20
//   1         bbbbbb
//   2              (gap) dddd
//   3    AAAAAAAAAAAAAAAAAAAAAAAA
TEST_F(DataTest, FirstArrivalWinsAnOverlap)
{
    in({.seq = 5, .shape = {}, .text = "bbbbbb"});
    in({.seq = 15, .shape = {}, .text = "dddd"});
    in({.seq = 0, .shape = {.fill = 1}, .text = std::string(24, 'A')});
    EXPECT_EQ(receive_text(), "AAAAAbbbbbbAAAAddddAAAAA");
    EXPECT_EQ(counters.duplicate_bytes, 10u);
    EXPECT_EQ(counters.ooo_overlap_bytes, 0u);
}

// One fragment has one holder: past an island inside it the rest is dropped, not lost.
//
//   fragment          |------------ 100 -----------|
//   segment            AAAAA.................AAAAAAA
//   held already            bbbbbbbbb
//   kept               AAAAA         ^ comes again
TEST_F(DataTest, AFragmentIsNotSharedByTwoPieces)
{
    in({.seq = 5, .shape = {}, .text = "bbbbbb"});
    in({.seq = 0, .shape = {}, .text = std::string(24, 'A')});
    EXPECT_EQ(receive_text(), "AAAAAbbbbbb");
    EXPECT_EQ(last().ack, 11u);
    EXPECT_EQ(counters.ooo_overlap_bytes, 13u);
    EXPECT_EQ(counters.duplicate_bytes, 6u);
    in({.seq = 11, .shape = {}, .text = std::string(13, 'C')});
    EXPECT_EQ(receive_text(), std::string(13, 'C'));
}

TEST_F(DataTest, ThePieceAfterASharedFragmentIsKept)
{
    data(50, 10);
    data(0, 300); // fragments [0,100) [100,200) [200,300)
    EXPECT_EQ(last().sack,
              (std::vector<std::pair<std::uint32_t, std::uint32_t>>{{50, 60}, {100, 300}}))
        << "DSACK, then the island beyond the dropped part";
    EXPECT_EQ(receive(), 60u);
    EXPECT_EQ(counters.ooo_overlap_bytes, 40u);
    data(60, 40);
    EXPECT_EQ(receive(), 240u);
}

TEST_F(DataTest, ASegmentThatCoversSeveralIslands)
{
    data(100, 50, {.fill = 50});
    data(300, 50, {.fill = 50});
    data(500, 50, {.fill = 50});
    data(0, 700, {.fill = 50});
    EXPECT_EQ(receive(), 700u);
    EXPECT_EQ(counters.duplicate_bytes, 150u);
}

TEST_F(DataTest, ResetReleasesEverything)
{
    data(0, 300);
    data(500, 300);
    data(1000, 300);
    conn.reset(ctx);
    EXPECT_EQ(pool.held_by_engine(), 0u);
}

} // namespace
} // namespace devmem::tcp::test
