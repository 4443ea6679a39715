// SPDX-License-Identifier: BSD-3-Clause
// One connection on a virtual clock, between a scripted peer and a pool whose every fragment is
// watched. Sequence numbers in tests are relative: the peer's stream and ours both start at 0,
// their SYNs being -1.
#pragma once

#include "lib/tcp/connection.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace devmem::tcp::test {

/// Byte `at` of the peer's stream.
inline std::uint8_t stream_byte(std::uint64_t at)
{
    return static_cast<std::uint8_t>((at * 0x9e3779b97f4a7c15u) >> 56);
}

/// Seeded, the same everywhere (SplitMix64).
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint32_t operator()()
    {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return static_cast<std::uint32_t>((z ^ (z >> 31)) >> 32);
    }
    bool chance(double probability) { return (*this)() < probability * 4294967296.0; }

private:
    std::uint64_t state_;
};

/// Payload memory with the holder of each fragment. The engine never sees the bytes.
class FakePool {
public:
    static constexpr RunStoreConfig kDefault{4096, 100, 8, 512, 64, 4};

    explicit FakePool(const RunStoreConfig& config = kDefault);

    /// How a payload is laid out.
    struct Shape {
        std::uint32_t off = 0;  ///< gap before the first byte
        bool host = false;      ///< host pool
        bool scattered = false; ///< every fragment a run of its own, not adjacent to the last
        std::uint32_t fill = 0; ///< bytes per run at most; 0: whole fragments
    };
    /// Place bytes [at, at + len) of the stream into free fragments, which the engine then holds.
    std::vector<Run> place(std::uint64_t at, std::uint32_t len, const Shape& shape);
    std::vector<Run> place_bytes(std::span<const std::byte> bytes, const Shape& shape);
    /// The engine gives fragments back, or the application does.
    void release(std::uint32_t first, std::uint32_t count);
    /// The engine hands a run to the application; its bytes.
    std::vector<std::uint8_t> deliver(const Run& run);

    std::uint32_t held_by_engine() const { return engine_; }
    std::uint32_t held_by_app() const { return app_; }
    std::uint32_t free_fragments() const;
    const RunStoreConfig& config() const { return config_; }

private:
    enum class Holder : std::uint8_t { kFree, kEngine, kApp };

    std::uint32_t bytes_of(std::uint32_t fragment) const;
    bool starts_page(std::uint32_t fragment) const;
    std::uint8_t* memory(std::uint32_t fragment);
    std::uint32_t allocate(bool host, bool apart);

    RunStoreConfig config_;
    std::vector<Holder> holders_;
    std::vector<std::uint8_t> memory_;
    std::uint32_t cursor_[2];
    std::uint32_t engine_ = 0, app_ = 0;
};

/// A segment the engine sent.
struct Sent {
    std::uint32_t seq, ack; ///< relative
    std::uint32_t window;   ///< in bytes; SYNs and RSTs: as on the wire
    std::uint8_t flags;
    bool ect;
    wire::TcpOptions options;
    std::string payload;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> sack; ///< relative
};

/// A segment to the engine, relative.
struct In {
    std::uint32_t seq = 0;
    std::uint32_t len = 0;
    std::uint8_t flags = kAck;
    std::uint32_t ack = 0;
    std::uint16_t window = 65535;
    std::optional<std::uint32_t> tsval = {};
    std::optional<std::uint32_t> tsecr = {};
    bool no_timestamp = false;
    std::uint16_t wire_segments = 1;
    FakePool::Shape shape = {};
    std::optional<std::string> text = {}; ///< instead of the stream's bytes
    std::uint16_t urgent = 0;             ///< pointer
    bool ce = false;
};

class Harness : public Sink {
public:
    static constexpr std::uint16_t kMss = 1000;
    static constexpr std::uint16_t kPeerMss = 500;

    explicit Harness(const RunStoreConfig& pool_config = FakePool::kDefault);
    /// Every test ends here: no fragment and no credit is lost.
    virtual ~Harness();

    // Getting somewhere.
    /// The peer connects, with every option the configuration wants.
    void establish();
    void send_syn(std::uint8_t flags = kSyn);
    void connect();

    // Doing something.
    Actions in(const In& segment); ///< process, then poll if asked
    Actions process(const In& segment);
    Actions poll();
    void run_for(Time time); ///< the clock goes on, timers run
    Actions data(std::uint32_t seq, std::uint32_t len, FakePool::Shape shape = {});
    Actions fin(std::uint32_t seq, std::uint32_t len = 0);
    std::int64_t send(const std::string& text);
    /// Receive everything, check it is the stream's next part, and return the fragments.
    /// @return bytes
    std::uint64_t receive(bool give_back = true);
    /// Receive everything as it is.
    std::string receive_text();
    void give_back_all();

    // Looking.
    bool silent() const { return out.empty(); }
    Sent take(); ///< the oldest segment sent
    Sent last(); ///< the latest; all are forgotten

    // Sink
    bool emit(const SegmentOut& segment) override;
    void release(std::uint32_t first, std::uint32_t count) override;

    Config config;
    FakePool pool;
    RunStore runs;
    Credit credit;
    Counters counters;
    Context ctx;
    Connection conn;
    Time now = 1'000'000;
    Seq irs{0x10000000};
    Seq iss{0x80000000};
    std::uint32_t peer_clock_offset = 5000;
    bool full = false; ///< the sink refuses
    bool timestamps = true, sack = true;
    std::uint8_t peer_scale = 7;
    std::uint16_t peer_mss = kPeerMss;
    Actions seen = kNothing; ///< all actions since the test cleared it
    std::deque<Sent> out;
    std::uint32_t edge = 0; ///< highest edge announced, relative
    std::uint64_t received = 0;
    Returned returned;
    std::vector<Run> app_runs;
    bool watch_edge = true;

private:
    std::uint32_t peer_clock() const
    {
        return static_cast<std::uint32_t>(now / 1000) + peer_clock_offset;
    }
    wire::TcpOptions syn_options() const;

protected:
    bool scaled_ = false; ///< our SYN said so
};

/// gtest fixture: a connection not yet opened.
class TcpTest : public ::testing::Test, public Harness {};

/// gtest fixture: an established connection.
class EstablishedTest : public TcpTest {
protected:
    void SetUp() override { establish(); }
};

} // namespace devmem::tcp::test
