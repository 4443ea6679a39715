// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/tcp/model.h"

#include "lib/tcp/connection.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <optional>

namespace devmem::tcp::model {

Coverage coverage;

namespace {

constexpr std::uint16_t kMss = 1000;
constexpr std::uint16_t kSendMss = 1400;
constexpr std::uint32_t kTsOffset = 777;
constexpr std::uint32_t kPeerClock = 5000;
constexpr unsigned kMostDelayed = 32;
/// Positions that are looked at. What lies beyond can be in no window.
constexpr std::int64_t kMostPositions = 1 << 19;

constexpr RunStoreConfig kPools[] = {
    {256, 100, 8, 64, 64, 4},
    {64, 500, 4, 16, 200, 2},
    {64, 100, 64, 16, 64, 4},
    {16, 100, 2, 8, 64, 1},
};
constexpr std::uint32_t kWindows[] = {65536, 4000, 20000, 200000};
constexpr std::uint32_t kHeldLimits[] = {0, 5000, 10000, 20000};
constexpr std::uint16_t kPeerMss[] = {1460, 0, 88, 536};

std::uint8_t app_byte(std::uint64_t at)
{
    return static_cast<std::uint8_t>((at * 0x9e3779b97f4a7c15u) >> 56);
}

enum class Holder : std::uint8_t { kFree, kEngine, kApp, kOthers };

/// What of the peer's stream lies in a fragment, and since when.
struct Fragment {
    Holder holder = Holder::kFree;
    std::uint32_t arrival = 0;
    std::uint32_t off = 0, len = 0;
    std::int64_t position = 0;
};

/// A segment of the peer, perhaps on its way. Positions count from the first byte of its stream.
struct Flying {
    std::int64_t position;
    std::uint32_t len;
    std::uint8_t flags;
    std::uint8_t how;
    std::uint16_t window;
    Seq ack;
    bool timestamps;
    std::uint32_t tsval, tsecr;
    std::uint16_t urgent = 0;
    bool ce = false;
};

class World final : public Sink {
public:
    explicit World(const Setup& setup);
    std::string play(const std::vector<Event>& events);

    bool emit(const SegmentOut& segment) override;
    void release(std::uint32_t first, std::uint32_t count) override;

private:
    bool failed() const { return !violation_.empty(); }
    bool must(bool holds, const char* what)
    {
        if (!holds && violation_.empty())
            violation_ = what;
        return holds;
    }

    // The connection's two ends.
    void open();
    void handshake();
    void lend();
    void shut_down_world();
    void step(const Event& event);
    void note(Actions actions);
    void refresh();
    void after_call();
    void poll();
    void poll_if_wanted();
    void pass(Time time);
    void check_widened();

    // The peer.
    std::int64_t place(Place place) const;
    Seq acks(Acks what, std::uint16_t x) const;
    Flying flying(std::int64_t position, std::uint32_t len, std::uint8_t flags, std::uint8_t how);
    static void mark(Flying& segment, const Event& event);
    void send(const Flying& segment);
    void arrive(Flying segment);
    bool lay_out(const Flying& segment);
    void mark_arrived(const Flying& segment);
    void look_at_progress(const Flying& segment, bool kept);
    void look_at_marks(const Flying& segment, bool kept);
    void look_at_ecn(const SegmentOut& segment);

    // The application.
    void receive(unsigned runs);
    void take(const Run& run);
    void give_back(std::size_t index);
    void give_back_all();

    // The end.
    void finish();
    void finish_stream();
    void finish_orphan();

    std::int64_t rcv_nxt() const
    {
        return delivered_ + static_cast<std::int64_t>(conn_.readable_bytes());
    }
    std::int64_t position_of(Seq seq) const
    {
        return static_cast<std::int32_t>(seq.value() - (irs_ + 1).value());
    }
    Seq seq_of(std::int64_t position) const
    {
        return irs_ + 1 + static_cast<std::uint32_t>(position);
    }
    unsigned edge_shift(bool syn) const
    {
        return syn || !scaled_ ? 0 : RcvWindow::shift_for(config_);
    }
    std::uint8_t& arrived(std::int64_t position)
    {
        if (positions_.size() <= static_cast<std::size_t>(position)) {
            positions_.resize(static_cast<std::size_t>(position) + 1024);
            reported_.resize(positions_.size());
        }
        return positions_[static_cast<std::size_t>(position)];
    }
    std::uint32_t fragment_bytes(std::uint32_t f) const
    {
        return f < pool_.device_fragments ? pool_.device_fragment_bytes : pool_.host_fragment_bytes;
    }
    bool starts_page(std::uint32_t f) const
    {
        return f < pool_.device_fragments
                   ? f % pool_.device_fragments_per_page == 0
                   : (f - pool_.device_fragments) % pool_.host_fragments_per_page == 0;
    }
    void look_at_sack(const SegmentOut& segment, std::int64_t acked);
    void look_at_text(const SegmentOut& segment);

    // What stays, whatever connection it is.
    Setup setup_;
    RunStoreConfig pool_;
    Config config_;
    RunStore runs_;
    Credit credit_;
    Counters counters_;
    Context ctx_;
    Connection conn_;
    Time now_ = 1'000'000;
    bool sink_full_ = false;
    std::vector<Fragment> fragments_;
    std::uint32_t cursor_[2];
    std::uint32_t engine_ = 0;
    std::vector<Run> placed_;
    std::uint32_t arrivals_ = 0;
    Time last_text_ = 0; ///< when some was taken
    std::uint32_t openings_ = 0;
    std::string violation_;

    // Of this connection.
    Returned returned_;
    Seq irs_{0}, iss_{0};
    bool scaled_ = false, timestamps_ = false, sack_ = false, ecn_ = false;
    std::optional<bool> echo_; ///< whether ACKs tell of a mark; nothing: the model does not know
    unsigned peer_shift_ = 0;
    std::uint16_t peer_window_ = 0;
    bool open_ = false;   ///< kClosed has not been seen
    bool orphan_ = false; ///< the application is gone
    bool shut_ = false;   ///< it has closed its side
    bool poll_wanted_ = false, starved_ = false;
    std::int64_t delivered_ = 0;
    std::int64_t cursor_next_ = 0; ///< what an honest sender sends next
    std::int64_t edge_ = 0;        ///< announced
    std::int64_t tried_edge_ = 0;  ///< as announced, or would have been if there had been room
    std::int64_t acked_ = 0;       ///< highest acknowledgement seen
    std::uint32_t ours_max_ = 0;   ///< what we sent, SYN and FIN counted
    std::uint32_t ours_acked_ = 0; ///< what the peer acknowledges
    std::int64_t ours_una_ = 0, ours_window_ = 0; ///< the most acknowledged, and granted
    std::uint64_t app_sent_ = 0;
    std::vector<std::uint8_t> positions_; ///< whether a byte has arrived
    std::vector<std::uint32_t> reported_; ///< the arrival up to which a byte was reported; 0: not
    std::int64_t highest_ = 0;            ///< number used in the window
    std::vector<std::int64_t> fins_;      ///< where a FIN has been
    std::int64_t urgent_end_ = 0;         ///< the highest an urgent pointer came to
    std::vector<Run> held_;
    std::vector<Flying> delayed_;
    unsigned emitted_ = 0, pure_acks_ = 0;                  ///< by the current call
    std::int64_t answered_left_ = -1, answered_right_ = -1; ///< text whose SACK block must lead
};

World::World(const Setup& setup)
    : setup_(setup),
      pool_(kPools[setup.sizes & 3]), ctx_{config_, runs_, credit_, *this, counters_},
      fragments_(pool_.device_fragments + pool_.host_fragments), cursor_{0, pool_.device_fragments}
{
    must(runs_.create(pool_) == 0, "the store is made");
    credit_.fragment_bytes = pool_.device_fragment_bytes;
    config_.timestamps = !(setup.options & Setup::kNoTimestamps);
    config_.sack = !(setup.options & Setup::kNoSack);
    config_.window_scale = !(setup.options & Setup::kNoScale);
    config_.rcv_window = kWindows[setup.sizes >> 2 & 3];
    config_.rcv_window_initial = std::min(config_.rcv_window, 20'000u);
    config_.held_limit_bytes = kHeldLimits[setup.sizes >> 4 & 3];
    config_.ecn = !(setup.sizes & 0x40);
    config_.send_buffer = 10'000;
    open();
}

void World::open()
{
    const std::uint32_t before_wrap = setup_.wrap * 64u + openings_ * 1000u;
    irs_ = Seq(setup_.wrap == 0 ? 0x10000000u * (1 + openings_) : 0u - before_wrap);
    iss_ = Seq(setup_.wrap == 0 ? 0x80000000u - 100 * openings_ : 0u - before_wrap / 2);
    openings_++;
    delivered_ = cursor_next_ = edge_ = tried_edge_ = acked_ = highest_ = urgent_end_ = 0;
    ours_max_ = ours_acked_ = 0;
    ours_una_ = ours_window_ = 0;
    app_sent_ = 0;
    positions_.clear();
    reported_.clear();
    fins_.clear();
    delayed_.clear();
    returned_.clear();
    peer_window_ = setup_.window;
    orphan_ = shut_ = poll_wanted_ = starved_ = false;
    answered_left_ = -1;
    const auto neither = [&](std::uint8_t ours, std::uint8_t peers) {
        return !(setup_.options & (ours | peers));
    };
    scaled_ = neither(Setup::kNoScale, Setup::kPeerNoScale);
    timestamps_ = neither(Setup::kNoTimestamps, Setup::kPeerNoTimestamps);
    sack_ = neither(Setup::kNoSack, Setup::kPeerNoSack);
    const bool asks = setup_.peer & 0x40;
    ecn_ = asks && config_.ecn && !(setup_.options & Setup::kActive);
    echo_ = false;
    peer_shift_ = scaled_ ? std::min(setup_.peer & 15u, 14u) : 0;
    open_ = true;

    refresh();
    if (setup_.options & Setup::kActive) {
        note(conn_.open_active(iss_, kMss, kSendMss, kTsOffset, &returned_, now_, ctx_));
    } else {
        wire::TcpOptions options;
        const Flying syn = flying(-1, 0, kSyn, 0);
        options.timestamps = !(setup_.options & Setup::kPeerNoTimestamps);
        options.ts_val = syn.tsval;
        options.sack_permitted = !(setup_.options & Setup::kPeerNoSack);
        options.mss = kPeerMss[setup_.peer >> 4 & 3];
        if (!(setup_.options & Setup::kPeerNoScale))
            options.window_scale = setup_.peer & 15u;
        ours_window_ = setup_.window;
        const auto flags = static_cast<std::uint8_t>(kSyn | (asks ? kEce | kCwr : 0));
        note(conn_.open_passive({irs_, Seq(0), setup_.window, flags, 1, 0, {}, &options}, iss_,
                                kMss, kSendMss, kTsOffset, &returned_, now_, ctx_));
    }
    after_call();
    poll_if_wanted();
    if (!(setup_.options & Setup::kHalfOpen))
        handshake();
}

/// The peer's part of it.
void World::handshake()
{
    ours_acked_ = ours_max_;
    if (conn_.state() == State::kSynSent)
        arrive(flying(-1, 0, kSyn | kAck, 0));
    else if (conn_.state() == State::kSynReceived)
        arrive(flying(0, 0, kAck, 0));
    poll_if_wanted();
}

void World::refresh()
{
    const auto free =
        std::count_if(fragments_.begin(), fragments_.begin() + pool_.device_fragments,
                      [](const Fragment& fragment) { return fragment.holder == Holder::kFree; });
    credit_.free_bytes = std::int64_t{free} * credit_.fragment_bytes - credit_.promised_bytes;
    emitted_ = pure_acks_ = 0;
}

/// What must hold whatever was called.
void World::after_call()
{
    must(credit_.promised_bytes >= 0, "credit: more came back than was promised");
    must(engine_ == 0 || engine_ <= tried_edge_ - delivered_,
         "memory: more fragments are held than bytes were granted");
    must(rcv_nxt() <= tried_edge_, "RCV.NXT: beyond the window");
    if (conn_.peer_closed() && !orphan_) {
        must(std::find(fins_.begin(), fins_.end(), rcv_nxt()) != fins_.end(),
             "FIN: where no segment had one");
        must(engine_ == 0 || conn_.readable_bytes() != 0, "memory: kept after the end");
    }
    if (orphan_)
        return;
    const std::int64_t urgent = conn_.urgent_bytes();
    must(urgent == 0 || delivered_ + urgent <= urgent_end_, "urgent: more than any pointer said");
    if (conn_.peer_closed() || !open_)
        must(delivered_ + urgent <= rcv_nxt(), "urgent: beyond the end");
}

void World::note(Actions actions)
{
    poll_wanted_ = poll_wanted_ || (actions & (kPoll | kPollNow)) != 0;
    starved_ = starved_ || (actions & kStarved) != 0;
    if (actions & kClosed) {
        must(open_, "closed twice");
        must(conn_.state() == State::kClosed, "closed, but in another state");
        open_ = false;
        coverage.closed++;
    }
}

void World::poll()
{
    poll_wanted_ = false;
    refresh();
    note(conn_.poll(now_, ctx_));
    must(pure_acks_ <= 1, "more than one segment without text for one poll");
    after_call();
    if (sink_full_)
        return;
    must(!(poll_wanted_ && open_), "poll() wants to be called again though there was room");
    must(!open_ || conn_.next_deadline() > now_, "poll() leaves a deadline that has passed");
}

void World::poll_if_wanted()
{
    if (poll_wanted_ && !failed())
        poll();
}

/// Credit or tokens came back, or may have.
void World::check_widened()
{
    if (!starved_ || !open_)
        return;
    starved_ = false;
    refresh();
    note(conn_.window_check(now_, ctx_));
    after_call();
    poll_if_wanted();
}

void World::pass(Time time)
{
    const Time end = now_ + time;
    for (unsigned polls = 0; open_ && !failed() && polls < 64; polls++) {
        const Time deadline = conn_.next_deadline();
        if (deadline > end || (deadline == 0 && sink_full_))
            break;
        now_ = std::max(now_, deadline);
        poll();
    }
    now_ = end;
    check_widened();
}

// ---------------------------------------------------------------- the peer

std::int64_t World::place(Place place) const
{
    switch (place) {
    case Place::kNext:
        return rcv_nxt();
    case Place::kEdge:
        return edge_;
    case Place::kCursor:
        return cursor_next_;
    case Place::kFar:
        return rcv_nxt() + (std::int64_t{1} << 31);
    }
    return 0;
}

Seq World::acks(Acks what, std::uint16_t x) const
{
    switch (what) {
    case Acks::kAll:
        return iss_ + ours_max_;
    case Acks::kSome:
        return iss_ + std::min(ours_max_, ours_acked_ + x);
    case Acks::kUnsent:
        return iss_ + ours_max_ + 1u + x;
    case Acks::kOld:
        return iss_ + ours_acked_ - x;
    }
    return iss_;
}

Flying World::flying(std::int64_t position, std::uint32_t len, std::uint8_t flags, std::uint8_t how)
{
    const bool syn = flags & kSyn;
    const auto clock = static_cast<std::uint32_t>(now_ / 1000);
    return {position,
            len,
            flags,
            how,
            peer_window_,
            iss_ + ours_acked_,
            syn ? !(setup_.options & Setup::kPeerNoTimestamps) : timestamps_,
            clock + kPeerClock - (how & kOldClock ? 500 : 0),
            clock + kTsOffset};
}

void World::send(const Flying& segment)
{
    if (!(segment.how & kDelayed))
        arrive(segment);
    else if (delayed_.size() < kMostDelayed)
        delayed_.push_back(segment);
}

/// Have the port write it to free fragments. @return false: there are not enough, it is lost.
bool World::lay_out(const Flying& segment)
{
    placed_.clear();
    const unsigned layout = (segment.how & kLayoutMask) >> 4;
    const bool host = segment.how & kInHost;
    const std::uint32_t begin = host ? pool_.device_fragments : 0;
    const std::uint32_t end = host ? begin + pool_.host_fragments : pool_.device_fragments;
    std::uint32_t off = layout == 1 ? 17 : 0;
    std::uint32_t done = 0;
    std::uint32_t& cursor = cursor_[host];
    while (done < segment.len) {
        cursor += layout >= 2 ? 1 : 0;
        std::uint32_t tries = 0;
        for (; tries < end - begin; tries++, cursor++) {
            if (cursor >= end)
                cursor = begin;
            if (fragments_[cursor].holder == Holder::kFree)
                break;
        }
        if (tries == end - begin) {
            for (const Run& run : placed_) {
                for (std::uint32_t f = run.first; f < run.first + run.count; f++)
                    fragments_[f].holder = Holder::kFree;
                engine_ -= run.count;
            }
            return false;
        }
        const std::uint32_t f = cursor++;
        const std::uint32_t room = layout == 3 ? 9 : fragment_bytes(f) - off;
        const std::uint32_t n = std::min(room, segment.len - done);
        fragments_[f] = {Holder::kEngine, arrivals_, off, n, segment.position + done};
        engine_++;
        if (layout < 2 && !placed_.empty() && placed_.back().first + placed_.back().count == f &&
            !starts_page(f)) {
            placed_.back().count++;
            placed_.back().len += n;
        } else {
            placed_.push_back({f, 1, off, n});
        }
        done += n;
        off = 0;
    }
    return true;
}

void World::mark_arrived(const Flying& segment)
{
    const std::int64_t end = std::min(segment.position + segment.len, kMostPositions);
    for (std::int64_t p = std::max<std::int64_t>(segment.position, 0); p < end; p++)
        arrived(p) = 1;
    if (segment.position <= tried_edge_)
        highest_ = std::max(highest_, std::min(segment.position + segment.len, tried_edge_));
    if (segment.flags & kFin)
        fins_.push_back(segment.position + segment.len + (segment.flags & kSyn ? 1 : 0));
}

void World::arrive(Flying segment)
{
    if (!open_ || failed())
        return;
    arrivals_++;
    refresh(); // as before a burst, of which this is one: what it lies in is free
    if (conn_.state() == State::kSynSent && segment.flags & kSyn)
        segment.position = -1; // it is what the stream is counted from
    if (!lay_out(segment))
        return;
    coverage.segments++;
    mark_arrived(segment);
    wire::TcpOptions options;
    options.timestamps = segment.timestamps;
    options.ts_val = segment.tsval;
    options.ts_ecr = segment.tsecr;
    const bool syn = segment.flags & kSyn;
    if (syn) {
        options.sack_permitted = !(setup_.options & Setup::kPeerNoSack);
        options.mss = kPeerMss[setup_.peer >> 4 & 3];
        if (!(setup_.options & Setup::kPeerNoScale))
            options.window_scale = setup_.peer & 15u;
    }
    // An acknowledgement whose window is older than one seen before moves the edge by what it
    // acknowledges, and the window stays (RFC 9293 3.10.7.4).
    ours_window_ = std::max(ours_window_, std::int64_t{segment.window} << (syn ? 0 : peer_shift_));
    if (segment.flags & kAck)
        ours_una_ = std::max(ours_una_, std::int64_t{static_cast<std::int32_t>(
                                            segment.ack.value() - (iss_ + 1).value())});
    const Segment s{seq_of(segment.position),
                    segment.ack,
                    segment.window,
                    segment.flags,
                    static_cast<std::uint16_t>(1 + segment.len / kMss),
                    segment.len,
                    placed_,
                    &options,
                    false,
                    segment.urgent,
                    segment.ce};
    const bool empty = conn_.readable_bytes() == 0 && !conn_.peer_closed();
    const std::int64_t before = rcv_nxt();
    const std::uint32_t urgent = conn_.urgent_bytes();
    if (segment.flags & kUrg)
        urgent_end_ = std::max(urgent_end_, segment.position + segment.urgent);
    const Actions actions = conn_.process(s, now_, ctx_);
    note(actions);
    after_call();
    must(conn_.urgent_bytes() <= urgent || (actions & kUrgent), "urgent, and nobody was told");
    must(!(actions & kUrgent) || segment.flags & kUrg, "urgent: told of nothing");
    coverage.urgent += actions & kUrgent ? 1 : 0;
    const bool news = conn_.readable_bytes() != 0 || conn_.peer_closed();
    must(!(empty && news) || (actions & kReadable), "readable, and nobody was told");
    must(rcv_nxt() >= before || orphan_, "RCV.NXT: moved back");

    bool kept = false;
    for (const Run& run : placed_) {
        for (std::uint32_t f = run.first; f < run.first + run.count; f++)
            kept = kept ||
                   (fragments_[f].holder == Holder::kEngine && fragments_[f].arrival == arrivals_);
    }
    if (kept || rcv_nxt() > before)
        last_text_ = now_;
    look_at_progress(segment, kept);
    look_at_marks(segment, kept || rcv_nxt() > before);
    if (actions & kPollNow)
        poll_if_wanted();
    answered_left_ = -1;
}

void World::look_at_progress(const Flying& segment, bool kept)
{
    if (orphan_)
        return; // RCV.NXT cannot be seen from outside
    const std::int64_t next = rcv_nxt();
    for (std::int64_t p = next - 1; p >= delivered_ && p < kMostPositions; p--) {
        if (!must(arrived(p) != 0, "RCV.NXT: over bytes that never came"))
            return;
        std::uint32_t& reported = reported_[static_cast<std::size_t>(p)];
        if (reported != 0 && p < acked_)
            break;
        if (reported == 0)
            reported = arrivals_;
    }
    if (next < kMostPositions && open_ && !conn_.peer_closed()) {
        arrived(next);
        must(reported_[static_cast<std::size_t>(next)] == 0,
             "SACK: reneged, the byte at RCV.NXT was reported");
    }
    if (kept && open_ && segment.position > next) {
        coverage.out_of_order++;
        answered_left_ = segment.position;
        answered_right_ = segment.position + segment.len;
    }
}

/// What was kept tells; what was refused may have, for it is told of text in the window, and of
/// what lies in it the model has no opinion.
void World::look_at_marks(const Flying& segment, bool kept)
{
    // The SYN again, which no longer asks (RFC 3168 6.1.1.1).
    if (conn_.state() == State::kSynReceived && segment.position == -1 &&
        (segment.flags & (kSyn | kAck)) == kSyn && (segment.flags & (kEce | kCwr)) != (kEce | kCwr))
        ecn_ = false;
    const bool cwr = segment.flags & kCwr;
    if (!ecn_ || segment.len == 0 || !(cwr || segment.ce))
        return;
    if (kept && !orphan_)
        echo_ = segment.ce;
    else if (echo_ != segment.ce)
        echo_.reset();
}

// ---------------------------------------------------------------- what we send

bool World::emit(const SegmentOut& segment)
{
    emitted_++;
    const bool syn = segment.flags & kSyn;
    const std::int64_t window = std::int64_t{segment.window} << edge_shift(syn);
    if (!(segment.flags & kRst)) {
        const std::int64_t acked = segment.flags & kAck ? position_of(segment.ack) : 0;
        tried_edge_ = std::max(tried_edge_, acked + window);
    }
    if (sink_full_)
        return false;
    if (segment.flags & kRst)
        return true;

    look_at_text(segment);
    look_at_ecn(segment);
    if (!(segment.flags & kAck)) {
        must(syn && conn_.state() == State::kSynSent, "sent without ACK");
        edge_ = window;
        return true;
    }
    const std::int64_t acked = position_of(segment.ack);
    must(orphan_ || acked == rcv_nxt() + (conn_.peer_closed() ? 1 : 0), "ACK: not of RCV.NXT");
    must(acked >= acked_, "ACK: moved back");
    must(acked + window >= edge_, "window: the right edge moved back");
    acked_ = std::max(acked, acked_);
    edge_ = std::max(edge_, acked + window);
    if (!syn)
        look_at_sack(segment, acked);
    return true;
}

/// Numbers, bytes and sizes of what we send.
void World::look_at_text(const SegmentOut& segment)
{
    const bool syn = segment.flags & kSyn, fin = segment.flags & kFin;
    const auto len =
        static_cast<std::uint32_t>(segment.payload[0].size() + segment.payload[1].size());
    const std::uint32_t begin = segment.seq.value() - iss_.value();
    const std::uint32_t end = begin + len + syn + fin;
    if (begin != ours_max_ || len != 0 || fin || syn)
        must(begin <= ours_max_ && end >= begin, "SEQ: beyond what was sent before");
    must(syn == (begin == 0), "SEQ: a SYN is the first number");
    if (len == 0 && !fin && !syn)
        pure_acks_++;
    if (!syn && (len != 0 || fin)) {
        const std::uint64_t from = begin - 1;
        must(from + len <= app_sent_, "text: more than was written");
        must(!fin || (shut_ && from + len == app_sent_), "FIN: before the end of what was written");
        // One byte or the FIN beyond it is a probe.
        must(static_cast<std::int64_t>(from) + len + fin <= ours_una_ + ours_window_ + 1,
             "text: beyond the peer's window");
        const std::uint16_t peer_mss = kPeerMss[setup_.peer >> 4 & 3];
        const std::size_t most = std::max<std::size_t>(
            88, std::min<std::size_t>(kSendMss, peer_mss != 0 ? peer_mss : 536));
        const std::size_t options =
            (segment.options.timestamps ? 12u : 0u) +
            (segment.options.sack_count != 0 ? 4u + 8u * segment.options.sack_count : 0u);
        must(len + options <= most, "text: more than the peer's MSS");
        std::uint64_t at = from;
        for (const auto& part : segment.payload) {
            for (const std::byte byte : part)
                must(std::to_integer<std::uint8_t>(byte) == app_byte(at++),
                     "text: not what was written");
        }
    }
    must(segment.options.timestamps == (syn && !(segment.flags & kAck)
                                            ? !(setup_.options & Setup::kNoTimestamps)
                                            : timestamps_),
         "timestamps: not as agreed");
    ours_max_ = std::max(ours_max_, end);
}

/// Marks are told of as long as they are to be, and only new text may be marked.
void World::look_at_ecn(const SegmentOut& segment)
{
    const bool syn = segment.flags & kSyn, ece = segment.flags & kEce;
    const bool text = !segment.payload[0].empty() || !segment.payload[1].empty();
    if (syn)
        must(ece == (ecn_ && segment.flags & kAck), "ECN: the SYN says otherwise");
    else
        must(ecn_ && echo_ ? ece == *echo_ : ecn_ || !ece, "ECN: a mark is not echoed, or none is");
    must(!(segment.flags & kCwr) || segment.ect, "ECN: CWR without new data");
    must(!segment.ect || (ecn_ && text), "ECN: what must not be marked may be");
}

/// Blocks tell the truth, and each byte told of is remembered.
void World::look_at_sack(const SegmentOut& segment, std::int64_t acked)
{
    const wire::TcpOptions& options = segment.options;
    must(options.sack_count == 0 || sack_, "SACK: not agreed");
    must(options.sack_count <= (timestamps_ ? 3 : 4), "SACK: more blocks than fit");
    bool led = answered_left_ < 0 || !sack_ || orphan_;
    for (unsigned i = 0; i < options.sack_count; i++) {
        // A repeated block may lie anywhere below the ACK, and the number space is a circle.
        const std::uint32_t width = options.sack[i].right - options.sack[i].left;
        if (!must(width - 1 < INT32_MAX, "SACK: an empty block"))
            return;
        std::int64_t right = position_of(Seq(options.sack[i].right));
        const std::int64_t left = right - width;
        const bool in_next = options.sack_count > 1 &&
                             left >= position_of(Seq(options.sack[1].left)) &&
                             right <= position_of(Seq(options.sack[1].right));
        const bool duplicate = i == 0 && (left < acked || in_next);
        if (!duplicate)
            must(left > acked, "SACK: a block at or below the ACK");
        // A FIN is reported with the byte before it.
        if (right > 0 && std::find(fins_.begin(), fins_.end(), right - 1) != fins_.end() &&
            (right > kMostPositions || arrived(right - 1) == 0))
            right--;
        coverage.sacked++;
        for (std::int64_t p = std::max<std::int64_t>(left, 0); p < std::min(right, kMostPositions);
             p++) {
            if (!must(arrived(p) != 0, "SACK: of a byte that never came"))
                return;
            std::uint32_t& reported = reported_[static_cast<std::size_t>(p)];
            if (!duplicate && reported == 0)
                reported = arrivals_;
        }
        if (i <= 1 && !duplicate)
            led = led || (left < answered_right_ && answered_left_ < right);
    }
    // RFC 2018 4: the block with the segment that is answered comes first.
    must(led, "SACK: the block of the segment that is answered does not lead");
}

void World::release(std::uint32_t first, std::uint32_t count)
{
    for (std::uint32_t f = first; f < first + count; f++) {
        if (!must(f < fragments_.size(), "release: no such fragment") ||
            !must(fragments_[f].holder == Holder::kEngine, "release: not the engine's"))
            return;
        fragments_[f].holder = Holder::kFree;
        engine_--;
    }
}

// ---------------------------------------------------------------- the application

void World::receive(unsigned runs)
{
    Run run;
    while (runs-- != 0 && !failed() && !orphan_) {
        const std::uint32_t urgent = conn_.urgent_bytes();
        if (!conn_.receive(&run, ctx_))
            break;
        take(run);
        must(conn_.urgent_bytes() == urgent - std::min(urgent, run.len),
             "urgent: not less by what was taken");
    }
}

/// The run is the stream's next part, in the copy of each byte that came first.
void World::take(const Run& run)
{
    const std::uint32_t size = fragment_bytes(run.first);
    if (!must(run.len != 0 && run.off < size && run.first + run.count <= fragments_.size() &&
                  run.count == (run.off + run.len + size - 1) / size,
              "token: malformed"))
        return;
    std::uint32_t off = run.off, left = run.len;
    for (std::uint32_t f = run.first; f < run.first + run.count; f++) {
        Fragment& fragment = fragments_[f];
        const std::uint32_t n = std::min(left, size - off);
        if (!must(fragment.holder == Holder::kEngine, "token: of a fragment not the engine's") ||
            !must(f == run.first || !starts_page(f), "token: leaves its page") ||
            !must(off >= fragment.off && off + n <= fragment.off + fragment.len,
                  "token: of bytes that were not written") ||
            !must(fragment.position + (off - fragment.off) == delivered_,
                  "token: not the stream's next bytes"))
            return;
        for (std::int64_t p = delivered_; p < std::min(delivered_ + n, kMostPositions); p++) {
            const std::uint32_t reported = reported_[static_cast<std::size_t>(p)];
            if (!must(reported != 0 && fragment.arrival <= reported,
                      "token: a byte that was reported was replaced"))
                return;
        }
        fragment.holder = Holder::kApp;
        engine_--;
        delivered_ += n;
        coverage.delivered += n;
        left -= n;
        off = 0;
    }
    held_.push_back(run);
}

void World::give_back(std::size_t index)
{
    const Run run = held_[index];
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
    for (std::uint32_t f = run.first; f < run.first + run.count; f++)
        fragments_[f].holder = Holder::kFree;
    returned_ += run.count;
}

void World::give_back_all()
{
    while (!held_.empty())
        give_back(held_.size() - 1);
}

// ---------------------------------------------------------------- events

void World::mark(Flying& segment, const Event& event)
{
    segment.ce = event.y & kHasCe;
    if (event.y & kHasCwr)
        segment.flags |= kCwr;
}

void World::step(const Event& event)
{
    const auto offset = static_cast<std::int16_t>(event.x);
    const auto len = event.y & 2047u;
    switch (event.kind) {
    case Kind::kText: {
        const std::int64_t at = place(Place(event.how & kPlaceMask)) + offset;
        Flying segment =
            flying(at, len, static_cast<std::uint8_t>(kAck | (event.how & kWithFin ? kFin : 0)),
                   event.how);
        if (event.how & kOldClock && event.x & 1)
            segment.timestamps = false;
        mark(segment, event);
        send(segment);
        poll_if_wanted();
        break;
    }
    case Kind::kNext:
        for (unsigned i = 0; i <= (event.x & 7u); i++) {
            std::uint32_t n = len;
            if (event.how & kObeys)
                n = static_cast<std::uint32_t>(
                    std::clamp<std::int64_t>(edge_ - cursor_next_, 0, n));
            const bool fin = event.how & kWithFin && i == (event.x & 7u);
            Flying segment = flying(cursor_next_, n,
                                    static_cast<std::uint8_t>(kAck | (fin ? kFin : 0)), event.how);
            mark(segment, event);
            send(segment);
            cursor_next_ += n;
        }
        poll_if_wanted();
        break;
    case Kind::kArrive:
        if (!delayed_.empty()) {
            const std::size_t i = event.x % delayed_.size();
            const Flying segment = delayed_[i];
            if (!(event.how & 1))
                delayed_.erase(delayed_.begin() + static_cast<std::ptrdiff_t>(i));
            arrive(segment);
            poll_if_wanted();
        }
        break;
    case Kind::kLose:
        if (!delayed_.empty())
            delayed_.erase(delayed_.begin() +
                           static_cast<std::ptrdiff_t>(event.x % delayed_.size()));
        break;
    case Kind::kAck: {
        const auto flags = static_cast<std::uint8_t>(kAck | (event.how & 4 ? kEce : 0));
        Flying segment = flying(cursor_next_, 0, flags, event.how & kOldClock);
        segment.ack = acks(Acks(event.how & 3), event.x);
        segment.window = event.y;
        if ((event.how & 3) <= 1)
            ours_acked_ = segment.ack.value() - iss_.value();
        arrive(segment);
        poll_if_wanted();
        break;
    }
    case Kind::kControl: {
        Flying segment = flying(place(Place(event.y & 3)) + offset, 0, event.how, 0);
        segment.ack = acks(Acks(event.y >> 2 & 3), event.y >> 4);
        segment.urgent = event.y;
        arrive(segment);
        poll_if_wanted();
        break;
    }
    case Kind::kTime:
        pass(Time{event.x} << (event.how & 15));
        break;
    case Kind::kReceive:
        receive(event.x & 63);
        break;
    case Kind::kReturn:
        for (unsigned i = 0; i <= (event.x & 63u) && !held_.empty(); i++)
            give_back(event.how & 1 ? held_.size() - 1 : 0);
        check_widened();
        break;
    case Kind::kSend: {
        std::vector<std::byte> bytes(event.x & 8191u);
        for (std::size_t i = 0; i < bytes.size(); i++)
            bytes[i] = std::byte{app_byte(app_sent_ + i)};
        if (!open_ || orphan_)
            break;
        const std::int64_t taken = conn_.send(bytes, ctx_);
        must(taken <= static_cast<std::int64_t>(bytes.size()), "send: took more than it was given");
        must(taken <= 0 || !shut_, "send: took bytes after shutdown");
        if (taken > 0)
            app_sent_ += static_cast<std::uint64_t>(taken);
        poll();
        break;
    }
    case Kind::kShutdown:
    case Kind::kClose:
    case Kind::kAbort:
        if (!open_ || orphan_)
            break;
        refresh();
        shut_ = true;
        if (event.kind == Kind::kShutdown) {
            note(conn_.shutdown(now_, ctx_));
        } else {
            orphan_ = true;
            note(event.kind == Kind::kClose ? conn_.close(now_, ctx_) : conn_.abort(now_, ctx_));
        }
        must(event.kind != Kind::kAbort || engine_ == 0, "memory: kept after abort");
        after_call();
        poll_if_wanted();
        break;
    case Kind::kSink:
        sink_full_ = event.how & 1;
        if (!sink_full_ && open_ && conn_.next_deadline() == 0)
            poll();
        break;
    case Kind::kOthers: {
        // From the end of the pool, so that the engine's neighbours stay neighbours.
        std::uint32_t want = event.x & 255u;
        for (std::uint32_t f = pool_.device_fragments; f-- != 0;) {
            Holder& holder = fragments_[f].holder;
            if (holder == Holder::kOthers)
                holder = Holder::kFree;
            if (holder == Holder::kFree && want != 0) {
                holder = Holder::kOthers;
                want--;
            }
        }
        check_widened();
        break;
    }
    case Kind::kUnreachable:
        if (!open_)
            break;
        note(conn_.unreachable(-EHOSTUNREACH, now_, ctx_));
        after_call();
        poll_if_wanted();
        break;
    case Kind::kReopen:
        shut_down_world();
        if (!failed())
            open();
        break;
    case Kind::kLend:
        lend();
        break;
    case Kind::kKinds:
        break;
    }
    if (orphan_ && !open_)
        must(engine_ == 0, "memory: kept after close");
}

/// A peer that is silent loses what lies behind gaps, though it was reported; one that is not keeps
/// it.
void World::lend()
{
    if (!open_)
        return;
    refresh();
    const std::uint32_t held = engine_;
    conn_.lend(now_, ctx_);
    after_call();
    must(engine_ == held || now_ - last_text_ >= config_.silence, "SACK: reneged for nothing");
    if (engine_ == held || orphan_)
        return;
    const auto next = static_cast<std::size_t>(rcv_nxt());
    if (next < reported_.size())
        std::fill(reported_.begin() + static_cast<std::ptrdiff_t>(next), reported_.end(), 0u);
}

/// The slot is given up, wherever the connection is.
void World::shut_down_world()
{
    give_back_all();
    refresh();
    conn_.reset(ctx_);
    must(engine_ == 0, "memory: fragments leaked");
    must(credit_.promised_bytes == 0, "credit: leaked");
}

// ---------------------------------------------------------------- the end

/// Whatever happened: an honest peer, an application that returns its tokens and time bring the
/// connection to its end.
void World::finish()
{
    peer_window_ = UINT16_MAX;
    step({Kind::kOthers, 0, 0, 0});
    step({Kind::kSink, 0, 0, 0});
    give_back_all();
    check_widened();
    if (failed() || !open_)
        return;
    handshake();
    if (orphan_)
        finish_orphan();
    else
        finish_stream();
}

void World::finish_stream()
{
    // Beyond all numbers used before: a FIN below bytes that are held is no honest one.
    // And beyond the window, so that it has to open.
    const std::int64_t end = std::max({rcv_nxt() + 300, highest_, edge_ + 100});
    for (unsigned round = 0; round < 2000 && open_ && !failed(); round++) {
        receive(UINT32_MAX);
        give_back_all();
        check_widened();
        // Everything we sent is acknowledged, and there is room for more.
        ours_acked_ = ours_max_;
        const bool all_sent = ours_max_ == 1 + app_sent_ + (shut_ ? 1 : 0);
        const std::int64_t at = rcv_nxt();
        if (conn_.peer_closed() || conn_.state() == State::kTimeWait) {
            if (all_sent || !open_)
                break;
            // From its newest number, or its window does not count.
            arrive(flying(std::max(at + 1, highest_), 0, kAck, 0));
            poll_if_wanted();
            pass(1'000'000);
            continue;
        }
        // A sender that trusts SACK sends what was not reported.
        std::int64_t until = std::min({at + 1000, edge_, end});
        for (std::int64_t p = at; p < until; p++) {
            if (p < static_cast<std::int64_t>(reported_.size()) &&
                reported_[static_cast<std::size_t>(p)] != 0)
                until = p;
        }
        // One byte probes a closed window.
        const std::int64_t len = at == end ? 0 : std::max<std::int64_t>(until - at, 1);
        const bool fin = at + len == end;
        arrive(flying(at, static_cast<std::uint32_t>(len),
                      static_cast<std::uint8_t>(kAck | (fin ? kFin : 0)), 0));
        poll_if_wanted();
        if (rcv_nxt() == at && !conn_.peer_closed()) {
            // A retransmission timeout. What lies behind the gap may hold the memory it takes to
            // fill it.
            pass(2 * config_.silence);
            if (starved_ || engine_ != 0)
                lend();
        }
    }
    receive(UINT32_MAX);
    if (failed())
        return;
    if (!open_) {
        must(conn_.error() == 0, "an honest peer saw the connection fail");
        return;
    }
    must(conn_.peer_closed(), "an honest peer cannot finish its stream");
    must(ours_max_ == 1 + app_sent_ + (shut_ ? 1 : 0), "what was written was not sent");
    coverage.finished++;
}

/// With the application gone and the peer silent it is over some day.
void World::finish_orphan()
{
    for (unsigned polls = 0; polls < 1000 && open_ && !failed(); polls++) {
        const Time deadline = conn_.next_deadline();
        if (!must(deadline != kNever, "nobody is left, and nothing ends it"))
            return;
        now_ = std::max(now_, deadline);
        poll();
    }
    must(!open_, "nobody is left, and it goes on for ever");
    coverage.finished++;
}

std::string World::play(const std::vector<Event>& events)
{
    coverage.scenarios++;
    std::size_t at = 0;
    for (; at < events.size() && !failed(); at++) {
        coverage.events++;
        step(events[at]);
    }
    std::string where = "after event " + std::to_string(at);
    if (!failed()) {
        finish();
        where = "at the end";
    }
    if (!failed())
        shut_down_world();
    return failed() ? violation_ + " (" + where + ")" : std::string();
}

} // namespace

std::string run(const Scenario& scenario)
{
    World world(scenario.setup);
    return world.play(scenario.events);
}

// ---------------------------------------------------------------- shrinking

namespace {

/// What did not hold, without where.
std::string kind_of(const std::string& violation)
{
    return violation.substr(0, violation.find(" ("));
}

/// Delta debugging.
class Shrinker {
public:
    explicit Shrinker(const Scenario& scenario) : scenario_(scenario), rule_(kind_of(run(scenario)))
    {
    }

    Scenario shrink()
    {
        bool smaller = true;
        while (smaller) {
            smaller = leave_out();
            smaller = simplify() || smaller;
        }
        return scenario_;
    }

private:
    bool try_this(const Scenario& candidate)
    {
        if (kind_of(run(candidate)) != rule_)
            return false;
        scenario_ = candidate;
        return true;
    }

    bool leave_out()
    {
        bool any = false;
        for (std::size_t n = std::max<std::size_t>(scenario_.events.size() / 2, 1); n != 0;
             n /= 2) {
            for (std::size_t at = 0; at < scenario_.events.size();) {
                Scenario candidate = scenario_;
                const auto begin = candidate.events.begin() + static_cast<std::ptrdiff_t>(at);
                const auto count = std::min(n, scenario_.events.size() - at);
                candidate.events.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
                if (try_this(candidate))
                    any = true;
                else
                    at += n;
            }
        }
        return any;
    }

    template <typename Field>
    bool simplify_field(Field&& field)
    {
        bool any = false;
        const unsigned value = field(scenario_);
        for (unsigned simpler : {0u, 1u, value / 2, value - 1}) {
            Scenario candidate = scenario_;
            auto& f = field(candidate);
            f = static_cast<std::remove_reference_t<decltype(f)>>(simpler);
            if (simpler >= field(scenario_))
                continue;
            any = try_this(candidate) || any;
        }
        return any;
    }

    bool simplify()
    {
        bool any = false;
        any |= simplify_field([](Scenario & s) -> auto& { return s.setup.options; });
        any |= simplify_field([](Scenario & s) -> auto& { return s.setup.sizes; });
        any |= simplify_field([](Scenario & s) -> auto& { return s.setup.peer; });
        any |= simplify_field([](Scenario & s) -> auto& { return s.setup.wrap; });
        for (std::size_t i = 0; i < scenario_.events.size(); i++) {
            any |= simplify_field([i](Scenario & s) -> auto& { return s.events[i].how; });
            any |= simplify_field([i](Scenario & s) -> auto& { return s.events[i].x; });
            any |= simplify_field([i](Scenario & s) -> auto& { return s.events[i].y; });
        }
        return any;
    }

    Scenario scenario_;
    std::string rule_;
};

} // namespace

Scenario shrink(const Scenario& scenario)
{
    return Shrinker(scenario).shrink();
}

// ---------------------------------------------------------------- as bytes and as text

std::vector<std::uint8_t> encode(const Scenario& scenario)
{
    std::vector<std::uint8_t> bytes;
    const auto put16 = [&](std::uint16_t value) {
        bytes.push_back(static_cast<std::uint8_t>(value));
        bytes.push_back(static_cast<std::uint8_t>(value >> 8));
    };
    const Setup& setup = scenario.setup;
    bytes.insert(bytes.end(), {setup.options, setup.sizes, setup.peer, setup.wrap});
    put16(setup.window);
    for (const Event& event : scenario.events) {
        bytes.insert(bytes.end(), {static_cast<std::uint8_t>(event.kind), event.how});
        put16(event.x);
        put16(event.y);
    }
    return bytes;
}

Scenario decode(std::span<const std::uint8_t> bytes)
{
    Scenario scenario;
    const auto take16 = [&](std::size_t at) {
        return static_cast<std::uint16_t>(bytes[at] | bytes[at + 1] << 8);
    };
    if (bytes.size() < kRecordBytes)
        return scenario;
    scenario.setup = {bytes[0], bytes[1], bytes[2], bytes[3], take16(4)};
    for (std::size_t at = kRecordBytes; at + kRecordBytes <= bytes.size(); at += kRecordBytes)
        scenario.events.push_back({Kind(bytes[at] % static_cast<std::uint8_t>(Kind::kKinds)),
                                   bytes[at + 1], take16(at + 2), take16(at + 4)});
    return scenario;
}

std::string report(const Scenario& scenario)
{
    static constexpr const char* kNames[] = {"text",        "next",   "arrive",  "lose",   "ack",
                                             "control",     "time",   "receive", "return", "send",
                                             "shutdown",    "close",  "abort",   "sink",   "others",
                                             "unreachable", "reopen", "lend"};
    static_assert(std::size(kNames) == static_cast<std::size_t>(Kind::kKinds));
    char line[128];
    const Setup& setup = scenario.setup;
    std::snprintf(line, sizeof(line),
                  "  setup options=0x%02x sizes=0x%02x peer=0x%02x wrap=%u window=%u\n",
                  setup.options, setup.sizes, setup.peer, setup.wrap, setup.window);
    std::string text = run(scenario) + "\n" + line;
    for (const Event& event : scenario.events) {
        std::snprintf(line, sizeof(line), "  %s how=0x%02x x=%u y=%u\n",
                      kNames[static_cast<unsigned>(event.kind)], event.how, event.x, event.y);
        text += line;
    }
    text += "  echo ";
    for (const std::uint8_t byte : encode(scenario)) {
        std::snprintf(line, sizeof(line), "%02x", byte);
        text += line;
    }
    return text + " | xxd -r -p >case && build/test/fuzz/fuzz_engine case\n";
}

} // namespace devmem::tcp::model
