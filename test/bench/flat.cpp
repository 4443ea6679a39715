// SPDX-License-Identifier: BSD-3-Clause
// What must not grow: the cycles of a packet with the region and with the tokens that are out, the
// cycles of an arrival out of order, but for a logarithm, with the islands that are there.
#include "test/bench/address_space.h"
#include "test/bench/fragments.h"
#include "test/bench/measure.h"
#include "test/bench/modes.h"
#include "test/bench/receiver.h"

#include "lib/memory/region.h"
#include "lib/tcp/ooo_store.h"

#include <rte_cycles.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

namespace tcp = devmem::tcp;

constexpr double kFlat = 1.15;
/// Deep trees are further from the CPU than shallow ones, by a cache or two.
constexpr double kLogarithmic = 2;

constexpr std::array kRegions{"1M", "16M", "256M", "4G", "16G"};
constexpr unsigned kBurst = 32;
/// Out at a time, whatever the region: the smallest has 720.
constexpr unsigned kInFlight = 512;

/// Tokens, and a region of which they take a third or less.
constexpr struct {
    unsigned tokens;
    const char* region;
} kOutstanding[]{{0, "64M"}, {4096, "64M"}, {65536, "512M"}, {1u << 19, "2G"}};
constexpr std::uint16_t kMtu = 1500;

constexpr std::array kDepths{10u, 100u, 1'000u, 10'000u, 100'000u};
constexpr std::uint32_t kSegment = 1448;

/// A place on the line that ought to be flat.
struct Point {
    Json params;
    Turn turn{};                             ///< of kInFlight; none if it cannot be measured
    const std::uint64_t* excluded = nullptr; ///< @see measure()
    std::vector<double> cycles{};            ///< of a packet, one for each round
};

/// In short looks by turns, so that what goes on beside does not meet one point alone.
void measure_line(std::vector<Point>& line, const Options& options)
{
    constexpr unsigned kLooks = 10;
    for (unsigned round = 0; round < options.rounds; ++round) {
        std::vector<std::vector<double>> looks(line.size());
        for (unsigned look = 0; look < kLooks; ++look) {
            for (std::size_t i = 0; i < line.size(); ++i) {
                const Point& point = line[i];
                if (point.turn)
                    looks[i].push_back(
                        measure(point.turn, 1, options.seconds / kLooks,
                                {&point.excluded, point.excluded != nullptr ? 1u : 0u}) /
                        kInFlight);
            }
        }
        for (std::size_t i = 0; i < line.size(); ++i) {
            if (line[i].turn)
                line[i].cycles.push_back(summarize(looks[i]).median);
        }
    }
}

void add(Report& report, const std::string& name, const std::vector<Point>& line, const char* unit)
{
    for (const Point& point : line) {
        if (!point.cycles.empty())
            report.results.push_back({name, point.params, summarize(point.cycles), unit});
    }
}

/// How many times the cycles of the first point the worst takes, in the same round.
std::optional<double> growth(const std::vector<Point>& line)
{
    double worst = 0;
    for (const Point& point : line) {
        if (point.cycles.empty())
            return std::nullopt;
        std::vector<double> ratios;
        for (std::size_t round = 0; round < point.cycles.size(); ++round)
            ratios.push_back(point.cycles[round] / line[0].cycles[round]);
        worst = std::max(worst, summarize(ratios).median);
    }
    return worst;
}

/// Both or nothing.
std::optional<double> worse(std::optional<double> a, std::optional<double> b)
{
    return a && b ? std::optional(std::max(*a, *b)) : std::nullopt;
}

/// Receive, all in but for the senders' work.
Point receiving(Json params, Receiver& receiver)
{
    return {.params = std::move(params),
            .turn = [&receiver](unsigned) { return receiver.receive(kInFlight); },
            .excluded = &receiver.stages().wire};
}

// ---- the region

bool alloc_and_free(devmem::PagePool& pool, unsigned lane)
{
    std::array<devmem::FragmentRun, kInFlight> runs;
    return take_and_put_back(pool, lane, kBurst, runs);
}

/// The pool alone, whose state is all that a region's size changes.
std::optional<double> pool_by_region(const Options& options, Report& report)
{
    struct devmem_fit fit {};
    devmem_fit(kMtu, false, true, 64 * 1024, 1, &fit);
    std::vector<Fragments> pools;
    std::vector<Point> line;
    for (const char* region : kRegions) {
        std::uint64_t bytes = 0;
        devmem::parse_size(region, &bytes);
        const auto pages = static_cast<std::uint32_t>(bytes / fit.page_bytes);
        pools.push_back(make_fragments(pages * fit.fragments_per_page, fit.fragments_per_page));
        line.push_back({.params = {{"of", "pool"}, {"region", region}},
                        .turn = [&pool = *pools.back()](unsigned lane) {
                            return alloc_and_free(pool, lane);
                        }});
    }
    measure_line(line, options);
    add(report, "flat.region", line, "cycles/fragment");
    return growth(line);
}

/// A packet. Jumbo frames, whose fragments are large: 16 GiB of them have half a GiB of mbufs.
std::optional<double> packets_by_region(const Options& options, Report& report)
{
    constexpr std::uint32_t kJumbo = 8948;
    std::vector<std::unique_ptr<Receiver>> receivers;
    std::vector<Point> line;
    for (const char* region : kRegions) {
        Json params{{"of", "packet"}, {"region", region}};
        try {
            ReceiverConfig config;
            config.load.payload = kJumbo;
            config.region = std::string("space:size=") + region;
            receivers.push_back(std::make_unique<Receiver>(config));
            line.push_back(receiving(std::move(params), *receivers.back()));
        } catch (const std::exception& error) {
            std::fprintf(stderr, "devmem-bench: flat.region, %s: %s\n", region, error.what());
            line.push_back({.params = std::move(params)});
        }
    }
    measure_line(line, options);
    add(report, "flat.region", line, "cycles/packet");
    return growth(line);
}

// ---- tokens outstanding

/// A receiver and tokens of it that stay out.
class Holder {
public:
    // Packets of two connections alternate: none is next to another of its stream, and each is a
    // token.
    Holder(const std::string& region, std::size_t tokens)
        : receiver_({.load = {.connections = 2}, .region = "space:size=" + region}), held_(tokens)
    {
        for (std::size_t at = 0; at < tokens;) {
            if (!receiver_.feed(kInFlight))
                throw std::runtime_error("no fragment is free");
            for (const devmem_conn_t connection : receiver_.connections()) {
                const int n = devmem_recv(&receiver_.shard(), connection, &held_[at],
                                          static_cast<unsigned>(tokens - at));
                at += static_cast<std::size_t>(std::max(n, 0));
            }
        }
    }
    ~Holder() { devmem_token_return(held_.data(), static_cast<unsigned>(held_.size())); }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;

    Receiver& receiver() { return receiver_; }

private:
    Receiver receiver_;
    std::vector<devmem_token> held_;
};

/// A packet whose token is returned at once, while others stay out.
std::optional<double> by_tokens(const Options& options, Report& report)
{
    std::vector<std::unique_ptr<Holder>> holders;
    std::vector<Point> line;
    for (const auto& [tokens, region] : kOutstanding) {
        Json params{{"outstanding", tokens}};
        try {
            holders.push_back(std::make_unique<Holder>(region, tokens));
            line.push_back(receiving(std::move(params), holders.back()->receiver()));
        } catch (const std::exception& error) {
            std::fprintf(stderr, "devmem-bench: flat.tokens, %u: %s\n", tokens, error.what());
            line.push_back({.params = std::move(params)});
        }
    }
    measure_line(line, options);
    add(report, "flat.tokens", line, "cycles/packet");
    return growth(line);
}

// ---- out of order

/// Many reassembly stores of one depth, which together have as many islands whatever the depth, so
/// that caches have the same work.
class Islands {
public:
    static constexpr std::uint32_t kAll = kDepths.back();

    Islands(std::uint32_t depth, std::mt19937& random)
        : depth_(depth), more_(depth / 10), stores_(kAll / depth), order_(depth + more_)
    {
        if (runs_.create({.device_fragments = kAll + kAll / 10,
                          .device_fragment_bytes = kSegment,
                          .device_fragments_per_page = 45,
                          .host_fragments = 0,
                          .host_fragment_bytes = 0,
                          .host_fragments_per_page = 0}) != 0)
            throw std::bad_alloc();
        std::iota(order_.begin(), order_.end(), 0u);
        std::shuffle(order_.begin(), order_.end(), random);
        for (std::uint32_t i = kAll; i < kAll + kAll / 10; ++i)
            runs_.put({i, 1, 0, 0}); // no page fault later
        for (std::uint32_t i = 0; i < depth_; ++i)
            insert_everywhere(i);
    }
    ~Islands()
    {
        for (tcp::OooStore& store : stores_)
            store.clear(runs_, sink_);
    }
    Islands(const Islands&) = delete;
    Islands& operator=(const Islands&) = delete;

    /// A tenth more. @return cycles of one
    double grow()
    {
        const std::uint64_t begin = rte_rdtsc();
        for (std::uint32_t i = depth_; i < depth_ + more_; ++i)
            insert_everywhere(i);
        return static_cast<double>(rte_rdtsc() - begin) / (kAll / 10);
    }

private:
    struct Nowhere final : tcp::Sink {
        bool emit(const tcp::SegmentOut&) override { return false; }
        void release(std::uint32_t, std::uint32_t) override {}
    };

    /// The arrival number `i` of every store: a segment with a gap on either side.
    void insert_everywhere(std::uint32_t i)
    {
        const tcp::Seq seq(order_[i] * 2 * kSegment);
        for (tcp::OooStore& store : stores_) {
            const tcp::Run run{fragment_++, 1, 0, kSegment};
            tcp::Payload payload(seq, kSegment, {&run, 1}, runs_, sink_);
            store.insert(runs_, payload);
        }
    }

    const std::uint32_t depth_, more_;
    Nowhere sink_;
    tcp::RunStore runs_;
    std::vector<tcp::OooStore> stores_;
    std::vector<std::uint32_t> order_; ///< positions in the stream
    std::uint32_t fragment_ = 0;
};

/// What the last tenfold of the depth adds to an insert, by what those before it added on average.
/// If cycles grow with the logarithm, each adds the same: 1. With a square root it is 6.7, and 27
/// if they grow with the depth.
double by_depth(const Options& options, Report& report)
{
    constexpr unsigned kLooks = 5; // in a round
    std::mt19937 random(1);
    std::vector<Point> line;
    for (const unsigned depth : kDepths)
        line.push_back({.params = {{"depth", depth}}});
    for (unsigned round = 0; round < options.rounds; ++round) {
        for (std::size_t i = 0; i < line.size(); ++i) {
            const std::size_t at = (round + i) % line.size();
            std::vector<double> looks;
            for (unsigned look = 0; look < kLooks; ++look)
                looks.push_back(Islands(kDepths[at], random).grow());
            line[at].cycles.push_back(summarize(looks).min); // the rest is other load's
        }
    }
    add(report, "flat.ooo", line, "cycles/insert");

    constexpr std::size_t kLast = kDepths.size() - 1;
    std::vector<double> rounds;
    for (unsigned round = 0; round < options.rounds; ++round) {
        const auto cycles = [&](std::size_t at) { return line[at].cycles[round]; };
        const double before = (cycles(kLast - 1) - cycles(0)) / (kLast - 1);
        rounds.push_back(std::max(0.0, cycles(kLast) - cycles(kLast - 1)) / std::max(1.0, before));
    }
    return summarize(rounds).median;
}

} // namespace

void flat(const Options& options, Report& report)
{
    register_address_space();
    const std::optional<double> tokens = by_tokens(options, report);
    const std::optional<double> region =
        worse(pool_by_region(options, report), packets_by_region(options, report));
    const double ooo = by_depth(options, report);

    report.ask_at_most("flat.region", kFlat, region);
    report.ask_at_most("flat.tokens", kFlat, tokens);
    report.ask_at_most("flat.ooo", kLogarithmic, ooo);
    std::optional<double> worst = worse(region, tokens);
    if (worst)
        worst = std::max(*worst / kFlat, ooo / kLogarithmic);
    report.ask_at_most("flatness", 1, worst);
}

} // namespace bench
