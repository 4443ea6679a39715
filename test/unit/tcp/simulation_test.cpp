// SPDX-License-Identifier: BSD-3-Clause
// Two engines across a wire that loses, delays, reorders and repeats.
#include "test/unit/tcp/harness.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>

namespace devmem::tcp::test {
namespace {

struct Impairment {
    double loss, duplicate, reorder;
};

/// A segment on its way.
struct Packet {
    Seq seq, ack;
    std::uint16_t window;
    std::uint8_t flags;
    wire::TcpOptions options;
    std::vector<std::byte> payload;
};

/// One end: an engine, its pool, and an application that sends and receives.
class End : public Sink {
public:
    End(Random& random, std::uint32_t to_send)
        : random_(random), ctx{config, runs, credit, *this, counters}, to_send_(to_send)
    {
        EXPECT_EQ(runs.create(pool.config()), 0);
        credit.fragment_bytes = pool.config().device_fragment_bytes;
        config.rcv_window = 200'000;
        config.rcv_window_initial = 20'000;
        config.send_buffer = 50'000;
        config.rto_min = 50'000;
    }
    ~End()
    {
        conn.reset(ctx);
        EXPECT_EQ(pool.held_by_engine(), 0u);
        EXPECT_EQ(credit.promised_bytes, 0);
    }

    void refresh()
    {
        // Small segments waste most of a fragment, so back bytes by a quarter of the pool.
        credit.free_bytes =
            std::int64_t{pool.free_fragments()} * credit.fragment_bytes / 4 - credit.promised_bytes;
    }

    void note(Actions actions)
    {
        if (actions & kClosed)
            closed = true;
        poll_wanted = poll_wanted || (actions & (kPoll | kPollNow));
        starved = starved || (actions & kStarved);
    }

    void poll(Time now)
    {
        refresh();
        poll_wanted = false;
        note(conn.poll(now, ctx));
    }

    void arrive(const Packet& packet, Time now)
    {
        FakePool::Shape shape;
        shape.off = random_() % 4 == 0 ? random_() % 50 : 0;
        shape.scattered = random_() % 4 == 0;
        const auto payload = pool.place_bytes(packet.payload, shape);
        const Segment segment{packet.seq,
                              packet.ack,
                              packet.window,
                              packet.flags,
                              1,
                              static_cast<std::uint32_t>(packet.payload.size()),
                              payload,
                              &packet.options};
        refresh();
        const bool accept = conn.state() == State::kClosed && !opened && (packet.flags & kSyn);
        if (accept) {
            opened = true;
            note(conn.open_passive(segment, Seq(random_()), 1000, 1460, 1, &returned, now, ctx));
        } else if (opened) {
            note(conn.process(segment, now, ctx));
        } else {
            for (const Run& run : payload)
                release(run.first, run.count);
        }
        if (poll_wanted)
            poll(now);
    }

    bool busy() const { return conn.readable_bytes() != 0 || !held.empty() || starved; }

    /// The application's turn.
    void work(Time now)
    {
        while (conn.state() >= State::kEstablished && sent_ < to_send_) {
            constexpr std::uint32_t kChunk = 3000;
            std::byte chunk[kChunk];
            const auto n = std::min<std::uint32_t>(1 + random_() % kChunk, to_send_ - sent_);
            for (std::uint32_t i = 0; i < n; i++)
                chunk[i] = std::byte{stream_byte(sent_ + i)};
            const std::int64_t taken = conn.send({chunk, n}, ctx);
            if (taken <= 0)
                break;
            sent_ += static_cast<std::uint32_t>(taken);
            poll_wanted = true;
        }
        if (sent_ == to_send_ && !shut && conn.state() >= State::kEstablished) {
            shut = true;
            note(conn.shutdown(now, ctx));
        }
        Run run;
        while (random_() % 8 != 0 && conn.receive(&run, ctx)) {
            for (const std::uint8_t byte : pool.deliver(run)) {
                ASSERT_EQ(byte, stream_byte(received));
                received++;
            }
            held.push_back(run);
        }
        while (!held.empty() && random_() % 4 != 0) {
            pool.release(held.back().first, held.back().count);
            returned += held.back().count;
            held.pop_back();
        }
        refresh();
        if (starved) {
            starved = false;
            note(conn.window_check(now, ctx));
        }
        if (poll_wanted)
            poll(now);
    }

    bool emit(const SegmentOut& segment) override
    {
        if (random_() % 64 == 0)
            return false;
        Packet packet{segment.seq, segment.ack, segment.window, segment.flags, segment.options, {}};
        for (const auto& part : segment.payload)
            packet.payload.insert(packet.payload.end(), part.begin(), part.end());
        wire(std::move(packet));
        return true;
    }
    void release(std::uint32_t first, std::uint32_t count) override { pool.release(first, count); }

    Random& random_;
    Config config;
    FakePool pool;
    RunStore runs;
    Credit credit;
    Counters counters;
    Context ctx;
    Connection conn;
    std::function<void(Packet)> wire;
    Returned returned;
    std::vector<Run> held;
    std::uint64_t received = 0;
    std::uint32_t to_send_, sent_ = 0;
    bool opened = false, shut = false, closed = false, poll_wanted = false, starved = false;
};

class Simulation : public ::testing::TestWithParam<unsigned> {};

TEST_P(Simulation, BothStreamsArriveAndBothEndsClose)
{
    Random random(GetParam());
    static constexpr Impairment kImpairments[] = {
        {0, 0, 0}, {0.01, 0, 0}, {0, 0, 0.2}, {0.05, 0.02, 0.05}, {0.2, 0.1, 0.2}};
    const Impairment& bad = kImpairments[GetParam() % std::size(kImpairments)];
    End a(random, 1 + random() % 300'000);
    End b(random, random() % 2 ? 0 : random() % 100'000);
    for (End* end : {&a, &b}) {
        end->config.timestamps = random() % 2 == 0;
        end->config.sack = random() % 2 == 0;
        end->config.window_scale = random() % 2 == 0;
        end->config.held_limit_bytes = random() % 2 ? 0 : 60'000;
        end->config.time_wait = 1'000'000;
    }

    Time now = 1'000'000;
    std::multimap<Time, std::pair<End*, Packet>> wire;
    const auto attach = [&](End& from, End& to) {
        from.wire = [&](Packet packet) {
            if (random.chance(bad.loss))
                return;
            do {
                const Time delay = 5'000 + (random.chance(bad.reorder) ? random() % 20'000 : 0);
                wire.emplace(now + delay, std::pair{&to, packet});
            } while (random.chance(bad.duplicate));
        };
    };
    attach(a, b);
    attach(b, a);

    a.opened = true;
    a.refresh();
    a.note(a.conn.open_active(Seq(random()), 1000, 1460, 2, &a.returned, now, a.ctx));
    a.poll(now);
    const Time limit = Time{4} * 3600 * 1'000'000;
    while (!(a.closed && b.closed) && now < limit) {
        // Applications with something to do run every millisecond, the rest when something is due.
        Time next = std::min(a.conn.next_deadline(), b.conn.next_deadline());
        if (!wire.empty())
            next = std::min(next, wire.begin()->first);
        if (a.busy() || b.busy() || next == kNever)
            next = std::min(next, now + 1'000);
        now = std::max(now, next);
        while (!wire.empty() && wire.begin()->first <= now) {
            auto packet = wire.extract(wire.begin());
            packet.mapped().first->arrive(packet.mapped().second, now);
        }
        for (End* end : {&a, &b}) {
            end->work(now);
            if (end->conn.next_deadline() <= now)
                end->poll(now);
        }
    }
    for (int i = 0; i < 1000; i++) {
        a.work(now);
        b.work(now);
    }
    EXPECT_TRUE(a.closed && b.closed) << "after " << now / 1'000'000 << " s, states "
                                      << int(a.conn.state()) << " " << int(b.conn.state());
    EXPECT_EQ(a.received, b.sent_);
    EXPECT_EQ(b.received, a.sent_);
    EXPECT_EQ(a.sent_, a.to_send_);
    EXPECT_EQ(a.conn.error(), 0);
    // The last ACK may be lost until the peer is gone: then LAST-ACK ends by its retries.
    EXPECT_TRUE(b.conn.error() == 0 || bad.loss != 0);
    if (HasFailure())
        return;
    RecordProperty("simulated_ms", static_cast<int>(now / 1000));
}

INSTANTIATE_TEST_SUITE_P(Seeds, Simulation, ::testing::Range(0u, 100u));

} // namespace
} // namespace devmem::tcp::test
