// SPDX-License-Identifier: BSD-3-Clause
// TSC cycles to receive a packet: from the port to a token, the token back, the ACK out.
#include "test/bench/chain.h"
#include "test/bench/lwip.h"
#include "test/bench/measure.h"
#include "test/bench/modes.h"
#include "test/bench/receiver.h"

#include "lib/stack/shard.h"

#include <rte_launch.h>
#include <rte_lcore.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr unsigned kPerTurn = 256;
constexpr unsigned kMillion = 1'000'000;
constexpr unsigned kLate = 4096;

struct Cell {
    const char* name; ///< of the result
    ReceiverConfig config;
    std::vector<double> cycles{};

    Json params() const
    {
        const Load& load = config.load;
        return {{"region", config.region.substr(0, config.region.find(':'))},
                {"payload", load.payload},
                {"late_percent", load.late_percent},
                {"run", load.run},
                {"order", load.zipf ? "zipf" : "in turn"},
                {"late_packets", config.late_packets},
                {"connections", load.connections}};
    }
    double median() const { return summarize(cycles).median; }
};

/// Every connection's segments come several times: what is touched first is, and caches hold what
/// they would.
void warm_up(Receiver& receiver, const Load& load)
{
    constexpr unsigned kLeast = 1u << 16;
    if (!receiver.receive(std::max(kLeast, 4 * load.connections)))
        throw std::runtime_error("rx: a segment was lost");
}

double cycles_per_packet(Receiver& receiver, double seconds)
{
    const Turn turn = [&](unsigned) { return receiver.receive(kPerTurn); };
    const std::uint64_t* const wire = &receiver.stages().wire;
    return measure(turn, 1, seconds, {&wire, 1}) / kPerTurn;
}

/// lwIP with the same packets, in the same rounds.
struct Peer {
    unsigned connections;
    std::vector<double> cycles{}, checksum{};

    void measure(const Options& options)
    {
        Lwip lwip({.connections = connections});
        std::uint64_t wire = 0;
        const Turn turn = [&](unsigned) { return lwip.receive(kPerTurn, &wire); };
        lwip.receive(8 * connections + kPerTurn, &wire);
        const std::uint64_t* const excluded = &wire;
        cycles.push_back(bench::measure(turn, 1, options.seconds, {&excluded, 1}) / kPerTurn);
        checksum.push_back(lwip_checksum_cycles(Load{}.payload, options.seconds));
    }
    double shipped() const { return summarize(cycles).median; }
    double less_checksum() const { return shipped() - summarize(checksum).median; }
};

using Receivers = std::vector<std::unique_ptr<Receiver>>;

/// All of a group in each round, so that what the machine does meanwhile, it does to all.
Receivers measure_group(std::span<Cell> cells, Chains& chains, const Options& options,
                        std::span<Peer> peers = {})
{
    Receivers receivers;
    for (Cell& cell : cells) {
        receivers.push_back(std::make_unique<Receiver>(cell.config));
        warm_up(*receivers.back(), cell.config.load);
    }
    for (unsigned round = 0; round < options.rounds; round++) {
        chains.measure(options.seconds);
        for (std::size_t i = 0; i < cells.size(); i++)
            cells[i].cycles.push_back(cycles_per_packet(*receivers[i], options.seconds));
        for (Peer& peer : peers)
            peer.measure(options);
    }
    for (std::size_t i = 0; i < cells.size(); i++) {
        const Load& load = cells[i].config.load;
        // What waits for a late segment is to come yet.
        const std::uint64_t missing = receivers[i]->sent() - receivers[i]->delivered();
        if (missing > (load.late_percent != 0 ? std::uint64_t{load.connections} * load.payload : 0))
            throw std::runtime_error("rx: " + std::to_string(missing) + " bytes are missing");
    }
    return receivers;
}

void add_results(std::span<const Cell> cells, Report& report)
{
    for (const Cell& cell : cells)
        report.results.push_back(
            {cell.name, cell.params(), summarize(cell.cycles), "cycles/packet"});
}

/// Turns differ, for not each has as many ACKs; those that take longest were disturbed. @return the
/// mean of the others as median
Stat undisturbed(std::vector<double>& turns)
{
    std::ranges::sort(turns);
    turns.resize(turns.size() - turns.size() / 16);
    return {std::accumulate(turns.begin(), turns.end(), 0.0) / static_cast<double>(turns.size()),
            turns.front(), turns.back()};
}

/// Where the cycles of a cell went. The clock itself takes some: a dozen looks at it for each
/// burst.
void add_stages(const Cell& cell, Receiver& receiver, const Options& options, Report& report)
{
    static constexpr std::array kNames{
        "wire, taken off", "allocate", "poll",    "parse",  "lookup",       "tcp",
        "release",         "ack",      "deliver", "events", "token return", "transmitted"};
    std::array<std::vector<double>, kNames.size()> cycles;
    devmem::StageClock clock;
    receiver.shard().time_stages(&clock);
    const unsigned turns = static_cast<unsigned>(options.rounds * options.seconds * 1e5);
    for (unsigned turn = 0; turn < turns; turn++) {
        receiver.stages() = {};
        clock.cycles = {};
        receiver.receive(kPerTurn);
        const Stages& outside = receiver.stages();
        std::size_t i = 0;
        const auto add = [&](std::uint64_t sum) {
            cycles[i++].push_back(static_cast<double>(sum) / kPerTurn);
        };
        add(outside.wire);
        add(outside.allocate);
        for (const std::uint64_t sum : clock.cycles)
            add(sum);
        add(outside.deliver);
        add(outside.events);
        add(outside.token_return);
        add(outside.transmitted);
    }
    receiver.shard().time_stages(nullptr);
    for (std::size_t i = 0; i < kNames.size(); i++)
        report.results.push_back({"rx.stage",
                                  {{"stage", kNames[i]},
                                   {"order", cell.config.load.zipf ? "zipf" : "in turn"},
                                   {"connections", cell.config.load.connections}},
                                  undisturbed(cycles[i]),
                                  "cycles/packet"});
}

/// At most `cycles`, and at most `times` the baseline of the same rounds.
void ask(Report& report, const char* name, const Cell& cell, double cycles, double times,
         const Chains& chains)
{
    const double got = cell.median();
    const double ring = chains.ring().median;
    char want[64];
    std::snprintf(want, sizeof want, "<= %g and <= %g x chain.ring (%.1f)", cycles, times, ring);
    report.asks.push_back({name, want, got, got <= cycles && got <= times * ring});
}

/// How many times fewer cycles than lwIP: as shipped, less its checksum, on 1,000 connections.
void ask_lwip(Report& report, const Cell& one, const Cell& thousand, std::span<const Peer> peers)
{
    constexpr double kShipped = 8, kLessChecksum = 4, kThousand = 30;
    Ask ask{"rx.lwip", ">= 8 as shipped, >= 4 less checksum, >= 30 with 1,000", {}, false};
    if (!peers.empty()) {
        report.conditions["lwip"] = lwip_version();
        for (const Peer& peer : peers)
            report.results.push_back(
                {"rx.lwip",
                 {{"checksum", "as shipped"}, {"connections", peer.connections}},
                 summarize(peer.cycles),
                 "cycles/packet"});
        report.results.push_back({"rx.lwip",
                                  {{"checksum", "alone"}, {"connections", 1}},
                                  summarize(peers[0].checksum),
                                  "cycles/packet"});
        const double shipped = peers[0].shipped() / one.median();
        const double less_checksum = peers[0].less_checksum() / one.median();
        const double with_thousand = peers[1].shipped() / thousand.median();
        char want[128];
        std::snprintf(want, sizeof want,
                      "as shipped %.1f (>= %g), less checksum %.1f (>= %g), 1000: %.1f (>= %g)",
                      shipped, kShipped, less_checksum, kLessChecksum, with_thousand, kThousand);
        ask.want = want;
        ask.got = shipped;
        ask.holds =
            shipped >= kShipped && less_checksum >= kLessChecksum && with_thousand >= kThousand;
    }
    report.asks.push_back(ask);
}

/// On the lcore that is lane 1 of measure().
void on_other_lcore(const std::function<void()>& work)
{
    struct Call {
        const std::function<void()>& work;
        std::exception_ptr error{};
    } call{work};
    const unsigned lcore = rte_get_next_lcore(UINT32_MAX, 1, 0);
    rte_eal_remote_launch(
        [](void* opaque) {
            auto& call = *static_cast<Call*>(opaque);
            try {
                call.work();
            } catch (...) {
                call.error = std::current_exception();
            }
            return 0;
        },
        &call, lcore);
    rte_eal_wait_lcore(lcore);
    if (call.error)
        std::rethrow_exception(call.error);
}

/// Two queues of a port, each with its lcore and its connections, beside one of them alone. What
/// senders do is taken off, so that they are not the limit. Of the rounds the fastest counts: a
/// hypervisor may have two CPUs share a core for a while, above all when one has just woken up.
void measure_queues(const Options& options, Report& report)
{
    constexpr const char* kAsk = "rx.queues";
    constexpr double kWanted = 1.7;
    if (rte_lcore_count() < 2) {
        report.ask_at_least(kAsk, kWanted, {});
        return;
    }
    const ReceiverConfig config{.load = {.connections = 1000}};
    const auto port = std::make_shared<ReceiverPort>(config, 2);
    std::array<std::unique_ptr<Receiver>, 2> receivers;
    const auto make = [&](unsigned queue) {
        receivers[queue] = std::make_unique<Receiver>(config, port, queue);
        warm_up(*receivers[queue], config.load);
    };
    make(0);
    on_other_lcore([&] { make(1); });
    const std::array<const std::uint64_t*, 2> wire{&receivers[0]->stages().wire,
                                                   &receivers[1]->stages().wire};
    const Turn turn = [&](unsigned lane) { return receivers[lane]->receive(kPerTurn); };
    const auto look = [&](unsigned lanes, double seconds) {
        return measure(turn, lanes, seconds, {wire.data(), lanes}) / kPerTurn;
    };
    constexpr unsigned kTimes = 5, kLooks = 4; // as long as other cells, and as often
    std::array<std::vector<double>, 2> cycles; // of a packet on its lcore, by queues in use
    look(2, 50 * options.seconds);
    for (unsigned i = 0; i < kLooks * options.rounds; i++) {
        for (const unsigned lanes : {2u, 1u})
            cycles[lanes - 1].push_back(look(lanes, kTimes * options.seconds));
    }
    for (unsigned lanes = 1; lanes <= 2; lanes++)
        report.results.push_back({"rx.queues",
                                  {{"queues", lanes}, {"connections", config.load.connections}},
                                  summarize(cycles[lanes - 1]),
                                  "cycles/packet"});
    report.ask_at_least(kAsk, kWanted, 2 * summarize(cycles[0]).min / summarize(cycles[1]).min);
}

} // namespace

void rx(const Options& options, Report& report)
{
    Chains chains;
    std::vector<Cell> asked{{"rx", {.load = {}}},
                            {"rx", {.load = {.connections = 1000}}},
                            {"rx", {.load = {.connections = 10'000}}},
                            {"rx", {.load = {}, .late_packets = kLate}}};
    std::vector<Peer> peers;
    if (lwip_version() != nullptr)
        peers = {{.connections = 1}, {.connections = 1000}};
    {
        const Receivers receivers = measure_group(asked, chains, options, peers);
        add_results(asked, report);
        for (std::size_t i = 0; i < asked.size(); i++) {
            if (asked[i].config.late_packets == 0)
                add_stages(asked[i], *receivers[i], options, report);
        }
    }
    chains.add_results(report);
    ask(report, "rx.1", asked[0], 75, 2.2, chains);
    ask(report, "rx.1000", asked[1], 130, 3.8, chains);
    ask(report, "rx.10k", asked[2], 160, 4.7, chains);
    ask_lwip(report, asked[0], asked[1], peers);
    report.ask_at_most("rx.late", 1.5, asked[3].median() / asked[0].median());
    report.ask_at_most("pool.chain", 0.7, chains.ours().median / chains.ring().median);

    measure_queues(options, report);

    std::vector<Cell> others;
    for (const std::uint32_t payload : {64u, 536u, 1408u, 4096u, 8948u})
        others.push_back({"rx", {.load = {.payload = payload}}});
    for (const unsigned run : {8u, 32u})
        others.push_back({"rx", {.load = {.connections = 1000, .run = run}}});
    for (const unsigned connections : {1000u, 10'000u})
        others.push_back(
            {"rx", {.load = {.connections = connections, .zipf = true, .most_of_one = 4}}});
    for (const unsigned connections : {1u, 1000u})
        others.push_back({"rx", {.load = {.connections = connections, .late_percent = 1}}});
    others.push_back({"rx", {.load = {}, .region = "host:size=256M"}});
    for (Cell& cell : others) { // one at a time: they are many
        measure_group({&cell, 1}, chains, options);
    }
    add_results(others, report);

    for (const bool zipf : {false, true}) {
        Cell million{"rx",
                     {.load = {.connections = kMillion, .zipf = zipf, .most_of_one = 1},
                      .region = "opaque:size=4G"}};
        std::optional<double> got;
        try {
            const Receivers receivers = measure_group({&million, 1}, chains, options);
            add_results({&million, 1}, report);
            add_stages(million, *receivers[0], options, report);
            got = million.median();
        } catch (const std::runtime_error& error) {
            std::fprintf(stderr, "devmem-bench: a million connections: %s\n", error.what());
        }
        if (!zipf)
            report.ask_at_most("rx.1M", 300, got);
    }
}

} // namespace bench
