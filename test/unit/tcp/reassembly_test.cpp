// SPDX-License-Identifier: BSD-3-Clause
// Random segments of one stream against what the stream is: any order, overlap and layout in
// memory.
#include "test/unit/tcp/harness.h"

#include <algorithm>

namespace devmem::tcp::test {
namespace {

class Reassembly : public ::testing::TestWithParam<unsigned> {};

FakePool::Shape random_shape(Random& random)
{
    FakePool::Shape shape;
    shape.host = random() % 8 == 0;
    shape.off = random() % 3 == 0 ? random() % 60 : 0;
    shape.scattered = random() % 4 == 0;
    shape.fill = random() % 4 == 0 ? 1 + random() % 64 : 0;
    return shape;
}

TEST_P(Reassembly, DeliversTheStreamAndLeaksNothing)
{
    Random random(GetParam());
    Harness h({8192, 100, 8, 4096, 64, 4});
    // Both sequence spaces wrap somewhere within, in some runs.
    h.irs = Seq(random() % 2 ? 0u - random() % 30'000 : random());
    h.sack = random() % 8 != 0;
    h.timestamps = random() % 2 == 0;
    h.establish();

    const std::uint32_t total = 1 + random() % 30'000;
    std::vector<bool> arrived(total + 1); // the last is the FIN
    std::vector<bool> sacked(total + 1);
    std::uint32_t acked = 0;
    const auto look = [&] {
        for (const Sent& sent : h.out) {
            EXPECT_EQ(sent.flags, kAck);
            EXPECT_GE(sent.ack, acked);
            acked = sent.ack;
            for (const auto& [left, right] : sent.sack) {
                ASSERT_LT(left, right);
                ASSERT_LE(right, total + 1);
                for (std::uint32_t i = left; i < right; i++) {
                    EXPECT_TRUE(arrived[i]) << "SACK of byte " << i << " that never came";
                    sacked[i] = true;
                }
            }
        }
        h.out.clear();
        EXPECT_EQ(h.conn.readable_bytes() + h.received, std::min(acked, total))
            << "what is acknowledged is readable";
    };

    const auto send = [&](std::uint32_t begin, std::uint32_t end) {
        std::fill(arrived.begin() + std::int64_t{begin}, arrived.begin() + std::int64_t{end}, true);
        const bool fin = end == total && random() % 4 != 0;
        if (fin)
            arrived[total] = true;
        h.in({.seq = begin,
              .len = end - begin,
              .flags = static_cast<std::uint8_t>(fin ? kAck | kFin : kAck),
              .shape = random_shape(random)});
        if (random() % 4 == 0)
            h.receive(random() % 2 == 0);
        h.run_for(50'000); // delayed ACKs go out
        look();
    };

    const unsigned segments = random() % 200;
    const std::uint32_t span = 1 + random() % 3000;
    for (unsigned i = 0; i < segments; i++) {
        const std::uint32_t begin = random() % (total + 1);
        send(begin, std::min(total, begin + random() % span));
    }
    // A sender that trusts SACK repeats only what was never reported, and must be done by that.
    for (unsigned round = 0; acked < total && round < 10'000; round++) {
        ASSERT_FALSE(sacked[acked]) << "reneged on byte " << acked;
        std::uint32_t end = acked;
        while (end < total && !sacked[end] && end - acked < span)
            end++;
        send(acked, end);
    }
    h.fin(total);
    look();
    h.receive();
    EXPECT_EQ(h.received, total);
    EXPECT_TRUE(h.conn.peer_closed());
    EXPECT_EQ(h.conn.state(), State::kCloseWait);
    EXPECT_EQ(h.pool.held_by_engine(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, Reassembly, ::testing::Range(0u, 400u));

} // namespace
} // namespace devmem::tcp::test
