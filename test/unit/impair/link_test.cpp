// SPDX-License-Identifier: BSD-3-Clause
#include "test/tools/wire/link.h"
#include "test/unit/impair/frames.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <cmath>
#include <utility>

namespace wire {
namespace {

constexpr Time kUs = 1000, kMs = 1'000'000;
constexpr Time kNever = INT64_MAX;

/// How often each of `n` packets, sent `gap` apart, arrives.
std::vector<unsigned> arrivals(const Impairments& impairments, std::uint64_t seed, unsigned n,
                               Time gap = kUs)
{
    Link link(impairments, seed);
    std::vector<unsigned> copies(n);
    for (unsigned i = 0; i < n; ++i) {
        EXPECT_TRUE(link.put(tcp4(60), gap * i).empty());
        for (; link.next() != kNever; copies[i]++)
            link.take();
    }
    return copies;
}

double share(const std::vector<unsigned>& copies, unsigned of)
{
    return static_cast<double>(std::count(copies.begin(), copies.end(), of)) /
           static_cast<double>(copies.size());
}

/// Frames in the order in which they arrive, with the time.
std::vector<std::pair<Time, Frame>> drain(Link& link)
{
    std::vector<std::pair<Time, Frame>> all;
    for (Time at; (at = link.next()) != kNever;)
        all.emplace_back(at, link.take());
    return all;
}

constexpr unsigned kMany = 100'000;

/// Of a probability seen in kMany packets.
double five_sigma(double probability)
{
    return 5 * std::sqrt(probability * (1 - probability) / kMany);
}

TEST(WireLink, PerfectUnlessTold)
{
    Link link({}, 1);
    const Frame frame = tcp4(1500, 3);
    EXPECT_TRUE(link.put(frame, 5 * kMs).empty());
    EXPECT_EQ(link.next(), 5 * kMs);
    EXPECT_EQ(link.take(), frame);
    EXPECT_EQ(link.next(), kNever);
}

TEST(WireLink, FateIsOfSeedAndNumber)
{
    Impairments impairments;
    impairments.loss = 0.1;
    impairments.duplicate = 0.1;
    impairments.burst_enter = 0.01;
    impairments.burst_leave = 0.2;
    const auto once = arrivals(impairments, 1, kMany);
    EXPECT_EQ(arrivals(impairments, 1, kMany, 17 * kMs), once);
    EXPECT_NE(arrivals(impairments, 2, kMany), once);
}

TEST(WireLink, OneImpairmentDoesNotChangeAnother)
{
    Impairments impairments;
    impairments.loss = 0.1;
    const auto lost = [&] {
        auto copies = arrivals(impairments, 1, kMany);
        for (unsigned& n : copies)
            n = std::min(n, 1u);
        return copies;
    };
    const auto alone = lost();
    impairments.corrupt = impairments.duplicate = impairments.reorder = 0.5;
    EXPECT_EQ(lost(), alone);
}

TEST(WireLink, SparesTheFirst)
{
    Impairments impairments;
    impairments.loss = impairments.burst_enter = impairments.burst_leave = 0.5;
    const auto all = arrivals(impairments, 1, kMany);
    ASSERT_GT(std::count(all.begin(), all.begin() + 50, 0u), 0);
    impairments.from = 50;
    const auto copies = arrivals(impairments, 1, kMany);
    EXPECT_EQ(std::count(copies.begin(), copies.begin() + 50, 1u), 50);
    EXPECT_NEAR(share(copies, 0), share(all, 0), five_sigma(0.5));
}

TEST(WireLink, LosesAsOften)
{
    Impairments impairments;
    impairments.loss = 0.03;
    EXPECT_NEAR(share(arrivals(impairments, 1, kMany), 0), 0.03, five_sigma(0.03));
}

TEST(WireLink, LosesInBursts)
{
    Impairments impairments;
    impairments.burst_enter = 0.002;
    impairments.burst_leave = 0.1;
    const auto copies = arrivals(impairments, 1, kMany);
    unsigned bursts = 0;
    for (unsigned i = 1; i < kMany; ++i)
        bursts += copies[i] == 0 && copies[i - 1] != 0;
    const double length = share(copies, 0) * kMany / bursts;
    EXPECT_NEAR(bursts, kMany / (500. + 10.), 50);
    EXPECT_NEAR(length, 10, 5 * 10 / std::sqrt(bursts));
    impairments.burst_loss = 0;
    EXPECT_EQ(share(arrivals(impairments, 1, kMany), 0), 0);
}

TEST(WireLink, RepeatsAsOften)
{
    Impairments impairments;
    impairments.duplicate = 0.05;
    EXPECT_NEAR(share(arrivals(impairments, 1, kMany), 2), 0.05, five_sigma(0.05));
    impairments.duplicate = 1;
    Link link(impairments, 1);
    const Frame frame = tcp4(1500);
    link.put(frame, 0);
    EXPECT_EQ(link.take(), frame);
    EXPECT_EQ(link.take(), frame);
}

TEST(WireLink, FlipsOneBitThatTheChecksumCatches)
{
    Impairments impairments;
    impairments.corrupt = 1;
    Link link(impairments, 1);
    const Frame frame = tcp4(80, 1);
    ASSERT_EQ(sum4(frame, 6), 0xffffu);
    std::vector<bool> flipped(frame.size() * 8);
    for (unsigned i = 0; i < 20'000; ++i) {
        link.put(frame, 0);
        const Frame spoilt = link.take();
        ASSERT_NE(sum4(spoilt, 6), 0xffffu);
        int bits = 0;
        for (std::size_t byte = 0; byte < frame.size(); ++byte) {
            const unsigned changed = frame[byte] ^ spoilt[byte];
            bits += std::popcount(changed);
            if (changed != 0)
                flipped[8 * byte + static_cast<unsigned>(std::countr_zero(changed))] = true;
        }
        ASSERT_EQ(bits, 1);
    }
    // Every bit behind the IP header, none before.
    const auto header = flipped.begin() + 34 * 8;
    EXPECT_EQ(std::count(flipped.begin(), header, true), 0);
    EXPECT_EQ(std::count(header, flipped.end(), false), 0);
}

TEST(WireLink, HoldsBackWhatItReorders)
{
    Impairments impairments;
    impairments.delay = 2 * kMs;
    impairments.reorder = 0.2;
    impairments.reorder_by = kMs;
    Link link(impairments, 1);
    for (std::uint8_t i = 0; i < 200; ++i)
        link.put(tcp4(60, i), i * 100 * kUs);
    unsigned held = 0;
    const auto all = drain(link);
    ASSERT_EQ(all.size(), 200u);
    for (const auto& [at, frame] : all) {
        const Time late = at - frame[41] * 100 * kUs - 2 * kMs;
        EXPECT_TRUE(late == 0 || late == kMs) << late;
        held += late != 0;
    }
    EXPECT_EQ(held, link.counters().reordered);
    EXPECT_NEAR(held, 40, 30);
}

TEST(WireLink, JitterKeepsOrder)
{
    Impairments impairments;
    impairments.delay = kMs;
    impairments.jitter = 3 * kMs;
    Link link(impairments, 1);
    for (std::uint8_t i = 0; i < 200; ++i)
        link.put(tcp4(60, i), i * kMs);
    std::uint8_t expected = 0;
    Time least = kNever, most = 0;
    for (const auto& [at, frame] : drain(link)) {
        EXPECT_EQ(frame[41], expected++);
        least = std::min(least, at - frame[41] * kMs);
        most = std::max(most, at - frame[41] * kMs);
    }
    EXPECT_GE(least, kMs);
    EXPECT_LE(most, 4 * kMs);
    EXPECT_GT(most - least, 2 * kMs);
}

TEST(WireLink, RateSpacesPackets)
{
    Impairments impairments;
    impairments.rate = 1e9; // 1 us for 1,000 bytes
    impairments.bucket = 3000;
    impairments.queue = 5000;
    Link link(impairments, 1);
    // Three are gone at once, five wait, the rest is too much.
    for (int i = 0; i < 10; ++i)
        link.put(tcp4(986), kMs);
    std::vector<Time> times;
    for (const auto& [at, frame] : drain(link))
        times.push_back(at - kMs);
    EXPECT_EQ(times, (std::vector<Time>{0, 0, 0, kUs, 2 * kUs, 3 * kUs, 4 * kUs, 5 * kUs}));
    EXPECT_EQ(link.counters().queue_full, 2u);
    // Room for one more when one has gone.
    link.put(tcp4(986), kMs + kUs);
    EXPECT_EQ(link.next(), kMs + 6 * kUs);
}

TEST(WireLink, MtuFallsAtItsPacket)
{
    Impairments impairments;
    impairments.mtu = {{2, 1400}, {3, 1300}};
    Link link(impairments, 1);
    EXPECT_TRUE(link.put(tcp4(1500), 0).empty());
    EXPECT_TRUE(link.put(tcp4(1500), 0).empty());
    const Frame reply = link.put(tcp4(1401), 0);
    ASSERT_FALSE(reply.empty());
    EXPECT_EQ(reply[40] << 8 | reply[41], 1400);
    EXPECT_FALSE(link.put(tcp6(1301), 0).empty());
    EXPECT_TRUE(link.put(tcp6(1300), 0).empty());
    EXPECT_EQ(drain(link).size(), 3u);
    EXPECT_EQ(link.counters().too_big, 2u);
}

TEST(WireLink, DelaysOtherTrafficOnly)
{
    Impairments impairments;
    impairments.delay = kMs;
    impairments.loss = impairments.corrupt = impairments.duplicate = 1;
    impairments.mtu = {{0, 576}};
    Link link(impairments, 1);
    const Frame arp = ethernet(0x0806, 1000);
    EXPECT_TRUE(link.put(arp, 0).empty());
    EXPECT_EQ(link.next(), kMs);
    EXPECT_EQ(link.take(), arp);
    EXPECT_EQ(link.counters().passed_by, 1u);
    EXPECT_EQ(link.counters().packets, 0u);
}

} // namespace
} // namespace wire
