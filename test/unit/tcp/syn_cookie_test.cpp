// SPDX-License-Identifier: BSD-3-Clause
// Handshakes without state (RFC 4987 3.6).
#include "lib/tcp/syn_cookie.h"

#include "test/unit/tcp/harness.h"

namespace devmem::tcp::test {
namespace {

constexpr std::array<std::uint64_t, 2> kSecret{0x0123456789abcdef, 0xfedcba9876543210};
constexpr FlowName kFlow{{10, 0, 0, 2}, {10, 0, 0, 1}, 80, 40000};
constexpr std::uint32_t kOffset = 0xfffffff0; // our timestamps are about to wrap

struct CookieTest : testing::Test {
    SegmentOut answer(const FlowName& flow = kFlow)
    {
        const Segment syn{Seq(irs), Seq(0), 65535, kSyn, 1, 0, {}, &offered, ipv6};
        return cookies.answer(syn, flow, 1460, kOffset, now, config);
    }
    /// The ACK of a peer that got `syn_ack`.
    bool check(const SegmentOut& syn_ack, const FlowName& flow = kFlow, std::uint32_t wrong_seq = 0,
               std::uint32_t wrong_ack = 0)
    {
        wire::TcpOptions options;
        options.timestamps = syn_ack.options.timestamps;
        options.ts_val = offered.ts_val + 1;
        options.ts_ecr = syn_ack.options.ts_val;
        const Segment ack{
            Seq(irs + 1 + wrong_seq), syn_ack.seq + 1 + wrong_ack, 500, kAck, 1, 0, {}, &options};
        return cookies.check(ack, flow, kOffset, now, config, &found);
    }

    SynCookies cookies{kSecret};
    Config config;
    Time now = 1'000'000;
    std::uint32_t irs = 0xffffffff;
    bool ipv6 = false;
    wire::TcpOptions offered{.mss = 1460,
                             .window_scale = 7,
                             .sack_permitted = true,
                             .timestamps = true,
                             .ts_val = 4242,
                             .ts_ecr = 0,
                             .sack_count = 0,
                             .sack = {}};
    wire::TcpOptions found;
};

TEST_F(CookieTest, CarriesWhatWasOffered)
{
    const SegmentOut syn_ack = answer();
    EXPECT_EQ(syn_ack.flags, kSyn | kAck);
    EXPECT_EQ(syn_ack.ack, Seq(0));
    EXPECT_EQ(syn_ack.options.mss, 1460);
    EXPECT_EQ(syn_ack.options.window_scale, RcvWindow::shift_for(config));
    EXPECT_EQ(syn_ack.options.ts_ecr, 4242u);
    ASSERT_TRUE(check(syn_ack));
    EXPECT_EQ(found.mss, 1460);
    EXPECT_EQ(found.window_scale, 7);
    EXPECT_TRUE(found.sack_permitted);
    EXPECT_TRUE(found.timestamps);
    EXPECT_EQ(found.ts_val, 4243u);
}

TEST_F(CookieTest, EveryScaleAndSackOrNot)
{
    for (unsigned scale = 0; scale <= 255; scale++) {
        for (const bool sack : {false, true}) {
            offered.window_scale = static_cast<std::uint8_t>(scale);
            offered.sack_permitted = sack;
            now += 137'000;
            ASSERT_TRUE(check(answer()));
            const bool none = scale == wire::TcpOptions::kNoScale;
            EXPECT_EQ(found.window_scale, none ? scale : std::min(scale, 14u)); // RFC 7323 2.3
            EXPECT_EQ(found.sack_permitted, sack);
        }
    }
}

TEST_F(CookieTest, MssIsRoundedDownNeverUp)
{
    for (std::uint32_t mss = 88; mss <= UINT16_MAX; mss += 7) {
        offered.mss = static_cast<std::uint16_t>(mss);
        ASSERT_TRUE(check(answer()));
        ASSERT_LE(found.mss, mss);
        ASSERT_GE(found.mss * 8u, std::min(mss, 8940u));
    }
    offered.mss = 0;
    ASSERT_TRUE(check(answer()));
    EXPECT_EQ(found.mss, 536) << "RFC 9293 3.7.1: the default";
    ipv6 = true;
    ASSERT_TRUE(check(answer()));
    EXPECT_EQ(found.mss, 1220) << "the default over IPv6";
}

// Nothing can be agreed on that would be forgotten.
TEST_F(CookieTest, WithoutTimestampsOnlyTheMss)
{
    offered.timestamps = false;
    const SegmentOut syn_ack = answer();
    EXPECT_FALSE(syn_ack.options.timestamps);
    EXPECT_FALSE(syn_ack.options.sack_permitted);
    EXPECT_EQ(syn_ack.options.window_scale, wire::TcpOptions::kNoScale);
    ASSERT_TRUE(check(syn_ack));
    EXPECT_EQ(found.mss, 1460);
    EXPECT_FALSE(found.timestamps || found.sack_permitted);
    EXPECT_EQ(found.window_scale, wire::TcpOptions::kNoScale);
}

// RFC 7323 5.3: what we send later must not seem older than the SYN-ACK.
TEST_F(CookieTest, TimestampIsNotAheadOfTheClock)
{
    for (int i = 0; i < 200; i++) {
        now += 1'000;
        const std::uint32_t clock = timestamp_of(now) + kOffset;
        const std::uint32_t value = answer().options.ts_val;
        ASSERT_LE(clock - value, 63u) << "at " << clock;
    }
}

TEST_F(CookieTest, IsForOneNameAndOneSyn)
{
    const SegmentOut syn_ack = answer();
    FlowName other = kFlow;
    other.remote[3]++;
    EXPECT_FALSE(check(syn_ack, other));
    other = kFlow;
    other.remote_port++;
    EXPECT_FALSE(check(syn_ack, other));
    EXPECT_FALSE(check(syn_ack, kFlow, 1));
    EXPECT_FALSE(check(syn_ack, kFlow, 0, 8));
    EXPECT_TRUE(check(syn_ack));
}

TEST_F(CookieTest, IsGoodForAnEpochAtLeastAndTwoAtMost)
{
    const Time begin = now;
    for (const Time age : {Time{0}, SynCookies::kEpoch - 1, SynCookies::kEpoch}) {
        SCOPED_TRACE(age);
        cookies = SynCookies(kSecret);
        now = begin;
        const SegmentOut syn_ack = answer();
        now = begin + age;
        answer(); // others are sent all the time
        EXPECT_TRUE(check(syn_ack));
    }
    cookies = SynCookies(kSecret);
    now = begin;
    const SegmentOut syn_ack = answer();
    const std::uint32_t first = syn_ack.seq.value();
    now = begin + 2 * SynCookies::kEpoch;
    EXPECT_NE(answer().seq.value(), first) << "another key";
    EXPECT_FALSE(check(syn_ack));
    now += 1000 * SynCookies::kEpoch; // long idle
    EXPECT_TRUE(check(answer()));
}

TEST_F(CookieTest, NoneIsTakenUnlessSomeWereSent)
{
    SynCookies twin(kSecret);
    std::swap(twin, cookies);
    const SegmentOut syn_ack = answer();
    std::swap(twin, cookies);
    EXPECT_FALSE(check(syn_ack));
    answer();
    EXPECT_TRUE(check(syn_ack));
}

TEST_F(CookieTest, GuessesFail)
{
    answer();
    Random random(7);
    SegmentOut guess = answer();
    unsigned taken = 0;
    for (int i = 0; i < 1'000'000; i++) {
        guess.seq = Seq(random());
        irs = random();
        taken += check(guess) ? 1 : 0;
    }
    EXPECT_LE(taken, 1u); // 16 in 2^32 each: once in 270 such runs
}

TEST_F(CookieTest, EchoThatIsNotOursIsRefused)
{
    SegmentOut syn_ack = answer();
    syn_ack.options.ts_val += 1'000'000;
    EXPECT_FALSE(check(syn_ack));
}

class CookieConnection : public TcpTest {
protected:
    /// The peer's answer to a cookie, perhaps with data.
    Actions complete(std::uint32_t len)
    {
        iss += 1;
        irs += 1;
        wire::TcpOptions syn;
        syn.mss = kPeerMss;
        syn.window_scale = 7;
        syn.sack_permitted = true;
        syn.timestamps = true;
        syn.ts_val = 6000;
        wire::TcpOptions options;
        options.timestamps = true;
        options.ts_val = 6000;
        options.ts_ecr = timestamp_of(now) + 777;
        const auto payload = pool.place(0, len, {});
        const Segment ack{irs, iss, 500, kAck, 1, len, payload, &options};
        const Actions actions = conn.open_cookie(ack, syn, kMss, 1460, 777, &returned, now, ctx);
        edge = SynCookies::window(config);
        scaled_ = true;
        return actions;
    }
};

TEST_F(CookieConnection, IsEstablishedAsIfItHadBeenThereAllAlong)
{
    const Actions actions = complete(0);
    EXPECT_TRUE(actions & kConnected);
    EXPECT_EQ(conn.state(), State::kEstablished);
    for (std::uint32_t at = 0; at < 200'000; at += 500) {
        data(at, 500);
        receive();
    }
    data(200'500, 500);
    EXPECT_EQ(last().sack.size(), 1u);
    EXPECT_EQ(send(std::string(2'000, 'x')), 2'000);
    EXPECT_EQ(take().payload.size(), kPeerMss - 12u - 28u) << "MSS less timestamps and SACK";
}

TEST_F(CookieConnection, ItsFirstDataMayComeWithTheAck)
{
    EXPECT_TRUE(complete(300) & kReadable);
    poll();
    EXPECT_EQ(take().ack, 300u);
    EXPECT_EQ(receive(), 300u);
}

TEST_F(CookieConnection, WithoutMemoryItIsOpenedAndItsDataRefused)
{
    credit.free_bytes = 0;
    EXPECT_TRUE(complete(300) & kConnected);
    EXPECT_EQ(pool.held_by_engine(), 0u);
    poll();
    EXPECT_EQ(take().ack, 0u);
    EXPECT_EQ(conn.state(), State::kEstablished);
}

} // namespace
} // namespace devmem::tcp::test
