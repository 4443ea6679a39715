// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/tcp/harness.h"

#include <algorithm>
#include <cstring>

namespace devmem::tcp::test {

FakePool::FakePool(const RunStoreConfig& config)
    : config_(config), holders_(config.device_fragments + config.host_fragments, Holder::kFree),
      memory_(std::size_t{config.device_fragments} * config.device_fragment_bytes +
              std::size_t{config.host_fragments} * config.host_fragment_bytes),
      cursor_{0, config.device_fragments}
{
}

std::uint32_t FakePool::bytes_of(std::uint32_t fragment) const
{
    return fragment < config_.device_fragments ? config_.device_fragment_bytes
                                               : config_.host_fragment_bytes;
}

bool FakePool::starts_page(std::uint32_t fragment) const
{
    return fragment < config_.device_fragments
               ? fragment % config_.device_fragments_per_page == 0
               : (fragment - config_.device_fragments) % config_.host_fragments_per_page == 0;
}

std::uint8_t* FakePool::memory(std::uint32_t fragment)
{
    const std::size_t device =
        std::size_t{std::min(fragment, config_.device_fragments)} * config_.device_fragment_bytes;
    const std::size_t host =
        fragment > config_.device_fragments
            ? std::size_t{fragment - config_.device_fragments} * config_.host_fragment_bytes
            : 0;
    return memory_.data() + device + host;
}

/// Next free fragment in ascending order. @param apart not adjacent to the one before
std::uint32_t FakePool::allocate(bool host, bool apart)
{
    const std::uint32_t begin = host ? config_.device_fragments : 0;
    const std::uint32_t n = host ? config_.host_fragments : config_.device_fragments;
    std::uint32_t& cursor = cursor_[host];
    cursor += apart ? 1 : 0;
    for (std::uint32_t i = 0; i < n; i++, cursor++) {
        if (cursor >= begin + n)
            cursor = begin;
        if (holders_[cursor] == Holder::kFree) {
            holders_[cursor] = Holder::kEngine;
            engine_++;
            return cursor++;
        }
    }
    ADD_FAILURE() << "pool exhausted";
    std::abort();
}

std::vector<Run> FakePool::place(std::uint64_t at, std::uint32_t len, const Shape& shape)
{
    std::vector<std::byte> bytes(len);
    for (std::uint32_t i = 0; i < len; i++)
        bytes[i] = std::byte{stream_byte(at + i)};
    return place_bytes(bytes, shape);
}

std::vector<Run> FakePool::place_bytes(std::span<const std::byte> bytes, const Shape& shape)
{
    std::vector<Run> placed;
    std::uint32_t off = shape.off;
    while (!bytes.empty()) {
        const std::uint32_t fragment = allocate(shape.host, shape.scattered);
        const std::uint32_t most =
            shape.fill ? std::min(shape.fill, bytes_of(fragment) - off) : bytes_of(fragment) - off;
        const auto n = static_cast<std::uint32_t>(std::min<std::size_t>(most, bytes.size()));
        std::memcpy(memory(fragment) + off, bytes.data(), n);
        bytes = bytes.subspan(n);
        const bool joins = !placed.empty() && !shape.scattered && !shape.fill &&
                           placed.back().first + placed.back().count == fragment &&
                           !starts_page(fragment);
        if (joins) {
            placed.back().count++;
            placed.back().len += n;
        } else {
            placed.push_back({fragment, 1, off, n});
        }
        off = 0;
    }
    return placed;
}

void FakePool::release(std::uint32_t first, std::uint32_t count)
{
    for (std::uint32_t i = first; i < first + count; i++) {
        ASSERT_NE(holders_.at(i), Holder::kFree) << "fragment " << i << " released twice";
        (holders_[i] == Holder::kEngine ? engine_ : app_)--;
        holders_[i] = Holder::kFree;
    }
}

std::vector<std::uint8_t> FakePool::deliver(const Run& run)
{
    const std::uint32_t size = bytes_of(run.first);
    EXPECT_GE(run.len, 1u);
    EXPECT_LT(run.off, size);
    EXPECT_EQ(run.count, (run.off + run.len + size - 1) / size);
    for (std::uint32_t i = run.first; i < run.first + run.count; i++) {
        EXPECT_EQ(holders_.at(i), Holder::kEngine) << "fragment " << i;
        EXPECT_TRUE(i == run.first || !starts_page(i)) << "run leaves its page";
        holders_[i] = Holder::kApp;
        engine_--;
        app_++;
    }
    const std::uint8_t* begin = memory(run.first) + run.off; // fragments of a page are adjacent
    return {begin, begin + run.len};
}

std::uint32_t FakePool::free_fragments() const
{
    return static_cast<std::uint32_t>(
        std::count(holders_.begin(), holders_.begin() + config_.device_fragments, Holder::kFree));
}

Harness::Harness(const RunStoreConfig& pool_config)
    : pool(pool_config), ctx{config, runs, credit, *this, counters}
{
    EXPECT_EQ(runs.create(pool_config), 0);
    credit.free_bytes = 100'000'000;
    credit.fragment_bytes = pool_config.device_fragment_bytes;
    config.rcv_window = 1u << 20;
    config.rcv_window_initial = 40'000;
}

Harness::~Harness()
{
    give_back_all();
    conn.reset(ctx);
    EXPECT_EQ(pool.held_by_engine(), 0u) << "fragments leaked";
    EXPECT_EQ(credit.promised_bytes, 0) << "credit leaked";
}

wire::TcpOptions Harness::syn_options() const
{
    wire::TcpOptions options;
    options.mss = peer_mss;
    options.window_scale = peer_scale;
    options.sack_permitted = sack;
    options.timestamps = timestamps;
    options.ts_val = peer_clock();
    return options;
}

void Harness::send_syn(std::uint8_t flags)
{
    const wire::TcpOptions options = syn_options();
    const Segment syn{irs, Seq(0), 65535, flags, 1, 0, {}, &options};
    seen |= conn.open_passive(syn, iss, kMss, 1460, 777, &returned, now, ctx);
    iss += 1;
    irs += 1;
}

void Harness::establish()
{
    send_syn();
    poll();
    ASSERT_EQ(out.size(), 1u);
    ASSERT_EQ(take().flags, kSyn | kAck);
    in({});
    ASSERT_EQ(conn.state(), State::kEstablished);
    seen = kNothing;
    out.clear();
}

void Harness::connect()
{
    seen |= conn.open_active(iss, kMss, 1460, 777, &returned, now, ctx);
    iss += 1;
    irs += 1;
    poll();
}

Actions Harness::process(const In& segment)
{
    wire::TcpOptions options;
    if (segment.flags & kSyn)
        options = syn_options();
    else if (timestamps && config.timestamps && !segment.no_timestamp)
        options.timestamps = true;
    if (options.timestamps) {
        options.ts_val = segment.tsval.value_or(peer_clock());
        options.ts_ecr = segment.tsecr.value_or(static_cast<std::uint32_t>(now / 1000) + 777);
    }
    const std::string text = segment.text.value_or("");
    const auto payload = segment.text
                             ? pool.place_bytes(std::as_bytes(std::span(text)), segment.shape)
                             : pool.place(segment.seq, segment.len, segment.shape);
    const auto len = segment.text ? static_cast<std::uint32_t>(text.size()) : segment.len;
    const Segment s{irs + segment.seq,
                    iss + segment.ack,
                    segment.window,
                    segment.flags,
                    segment.wire_segments,
                    len,
                    payload,
                    &options,
                    false,
                    segment.urgent,
                    segment.ce};
    const Actions actions = conn.process(s, now, ctx);
    seen |= actions;
    return actions;
}

Actions Harness::in(const In& segment)
{
    Actions actions = process(segment);
    if (actions & (kPoll | kPollNow))
        actions |= poll();
    return actions;
}

Actions Harness::poll()
{
    const Actions actions = conn.poll(now, ctx);
    seen |= actions;
    return actions;
}

void Harness::run_for(Time time)
{
    const Time end = now + time;
    while (conn.next_deadline() <= end) {
        now = std::max(now, conn.next_deadline());
        poll();
        if (conn.next_deadline() == 0) {
            ADD_FAILURE() << "poll() leaves something to be done at once";
            break;
        }
    }
    now = end;
}

Actions Harness::data(std::uint32_t seq, std::uint32_t len, FakePool::Shape shape)
{
    return in({.seq = seq, .len = len, .shape = shape});
}

Actions Harness::fin(std::uint32_t seq, std::uint32_t len)
{
    return in({.seq = seq, .len = len, .flags = kAck | kFin});
}

std::int64_t Harness::send(const std::string& text)
{
    const std::int64_t n = conn.send(std::as_bytes(std::span(text)), ctx);
    poll();
    return n;
}

std::uint64_t Harness::receive(bool give_back)
{
    const std::uint64_t before = received;
    Run run;
    while (conn.receive(&run, ctx)) {
        for (const std::uint8_t byte : pool.deliver(run)) {
            EXPECT_EQ(byte, stream_byte(received)) << "at " << received;
            received++;
        }
        app_runs.push_back(run);
    }
    EXPECT_EQ(conn.readable_bytes(), 0u);
    if (give_back)
        give_back_all();
    return received - before;
}

std::string Harness::receive_text()
{
    std::string text;
    Run run;
    while (conn.receive(&run, ctx)) {
        for (const std::uint8_t byte : pool.deliver(run))
            text += static_cast<char>(byte);
        app_runs.push_back(run);
    }
    give_back_all();
    return text;
}

void Harness::give_back_all()
{
    for (const Run& run : app_runs) {
        pool.release(run.first, run.count);
        returned += run.count;
    }
    app_runs.clear();
}

Sent Harness::take()
{
    EXPECT_FALSE(out.empty()) << "nothing was sent";
    if (out.empty())
        return {};
    Sent sent = out.front();
    out.pop_front();
    return sent;
}

Sent Harness::last()
{
    EXPECT_FALSE(out.empty()) << "nothing was sent";
    if (out.empty())
        return {};
    Sent sent = out.back();
    out.clear();
    return sent;
}

bool Harness::emit(const SegmentOut& segment)
{
    if (full)
        return false;
    Sent sent{};
    sent.seq = distance(iss, segment.seq);
    sent.ack = distance(irs, segment.ack);
    sent.flags = segment.flags;
    sent.ect = segment.ect;
    sent.options = segment.options;
    for (const auto& part : segment.payload)
        sent.payload.append(reinterpret_cast<const char*>(part.data()), part.size());
    for (unsigned i = 0; i < segment.options.sack_count; i++)
        sent.sack.emplace_back(segment.options.sack[i].left - irs.value(),
                               segment.options.sack[i].right - irs.value());
    const bool syn = segment.flags & kSyn;
    if (syn)
        scaled_ = segment.options.window_scale != wire::TcpOptions::kNoScale &&
                  peer_scale != wire::TcpOptions::kNoScale;
    const unsigned shift = syn || !scaled_ ? 0 : RcvWindow::shift_for(config);
    sent.window = std::uint32_t{segment.window} << shift;
    if (!(segment.flags & kRst) && (segment.flags & kAck) && watch_edge) {
        const std::uint32_t announced = sent.ack + sent.window;
        EXPECT_GE(Seq(announced), Seq(edge)) << "right edge moved back";
        edge = announced;
    }
    out.push_back(std::move(sent));
    return true;
}

void Harness::release(std::uint32_t first, std::uint32_t count)
{
    pool.release(first, count);
}

} // namespace devmem::tcp::test
