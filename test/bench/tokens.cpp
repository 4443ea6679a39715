// SPDX-License-Identifier: BSD-3-Clause
// What it costs to be given tokens and to give them back, through the public API: devmem_recv() of
// a real shard whose receive queues are full, devmem_token_return() on the same lcore or another.
#include "test/bench/modes.h"
#include "test/bench/receiver.h"

#include <devmem/devmem.h>

#include <rte_cycles.h>
#include <rte_launch.h>
#include <rte_lcore.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

namespace bench {
namespace {

constexpr std::array kBulks{1u, 32u, 256u};
/// Tokens of a sample.
constexpr unsigned kTokens = 256;

/// One connection's packets lie next to each other and come as tokens of whole pages. Where two
/// alternate, no two of a stream do, and each is a token of its own.
constexpr struct Kind {
    const char* name;
    unsigned connections;
    unsigned packets; ///< for kTokens at least
} kKinds[]{{"packet", 2, kTokens}, {"page", 1, 46 * kTokens}};

struct Returns {
    std::span<const devmem_token> tokens;
    unsigned bulk;
    std::uint64_t cycles = 0;
    bool good = true;
};

int give_back(void* opaque)
{
    Returns& returns = *static_cast<Returns*>(opaque);
    const std::uint64_t begin = rte_rdtsc();
    for (std::span<const devmem_token> left = returns.tokens; !left.empty();) {
        const auto n = static_cast<unsigned>(std::min<std::size_t>(returns.bulk, left.size()));
        returns.good &= devmem_token_return(left.data(), n) == static_cast<int>(n);
        left = left.subspan(n);
    }
    returns.cycles = rte_rdtsc() - begin;
    return 0;
}

struct Sample {
    double deliver, give_back; ///< cycles of a token
};

class Tokens {
public:
    explicit Tokens(const Kind& kind)
        : receiver_({.load = {.connections = kind.connections}}), packets_(kind.packets),
          tokens_(kind.packets)
    {
    }

    /// Fill the receive queues, take what is there, give it back.
    Sample look(unsigned bulk, bool elsewhere)
    {
        if (!receiver_.feed(packets_))
            throw std::runtime_error("tokens: a packet was lost");
        const std::uint64_t begin = rte_rdtsc();
        const std::span<const devmem_token> taken = take(bulk);
        const std::uint64_t cycles = rte_rdtsc() - begin;
        if (taken.size() < kTokens)
            throw std::runtime_error("tokens: packets came as fewer tokens than they should");

        Returns returns{taken, bulk};
        if (elsewhere) {
            const unsigned lcore = rte_get_next_lcore(UINT32_MAX, 1, 0);
            rte_eal_remote_launch(give_back, &returns, lcore);
            rte_eal_wait_lcore(lcore);
        } else {
            give_back(&returns);
        }
        if (!returns.good)
            throw std::runtime_error("tokens: one could not be returned");
        const auto n = static_cast<double>(taken.size());
        return {static_cast<double>(cycles) / n, static_cast<double>(returns.cycles) / n};
    }

private:
    std::span<const devmem_token> take(unsigned bulk)
    {
        std::size_t count = 0;
        for (const devmem_conn_t connection : receiver_.connections()) {
            for (int n = 1; n > 0 && count < tokens_.size();) {
                const std::size_t room = std::min<std::size_t>(bulk, tokens_.size() - count);
                n = devmem_recv(&receiver_.shard(), connection, &tokens_[count],
                                static_cast<unsigned>(room));
                count += static_cast<std::size_t>(std::max(n, 0));
            }
        }
        return std::span(tokens_).first(count);
    }

    Receiver receiver_;
    const unsigned packets_;
    std::vector<devmem_token> tokens_;
};

struct Cell {
    std::size_t kind;
    bool elsewhere;
    /// Of that kind and place: once two threads have returned a shard's tokens, each return is an
    /// atomic operation more.
    Tokens& tokens;
    unsigned bulk;
    std::vector<double> deliver{}, give_back{}; ///< cycles, one for each round

    Json params() const
    {
        return {{"token", kKinds[kind].name},
                {"returned", elsewhere ? "another lcore" : "same lcore"},
                {"bulk", bulk}};
    }
};

/// The median look: one that the scheduler spoilt does not matter.
void measure_cell(Cell& cell, double seconds)
{
    const std::uint64_t end =
        rte_rdtsc() + static_cast<std::uint64_t>(seconds * static_cast<double>(rte_get_tsc_hz()));
    std::vector<double> deliver, give_back;
    do {
        const Sample sample = cell.tokens.look(cell.bulk, cell.elsewhere);
        deliver.push_back(sample.deliver);
        give_back.push_back(sample.give_back);
    } while (rte_rdtsc() < end);
    cell.deliver.push_back(summarize(deliver).median);
    cell.give_back.push_back(summarize(give_back).median);
}

/// @param cycles of a cell, round by round
template <typename Cycles>
void add(Report& report, const std::string& name, const std::vector<Cell>& cells, Cycles cycles)
{
    const double ns = 1e9 / static_cast<double>(rte_get_tsc_hz());
    for (const Cell& cell : cells)
        report.results.push_back(
            {name + ".cycles", cell.params(), summarize(cycles(cell)), "cycles/token"});
    for (const Cell& cell : cells) {
        std::vector<double> rounds = cycles(cell);
        for (double& round : rounds)
            round *= ns;
        report.results.push_back({name + ".ns", cell.params(), summarize(rounds), "ns/token"});
    }
}

} // namespace

void tokens(const Options& options, Report& report)
{
    std::vector<std::unique_ptr<Tokens>> all;
    std::vector<Cell> cells;
    for (std::size_t kind = 0; kind < std::size(kKinds); ++kind) {
        for (const bool elsewhere : {false, true}) {
            if (elsewhere && rte_lcore_count() < 2)
                continue;
            all.push_back(std::make_unique<Tokens>(kKinds[kind]));
            for (const unsigned bulk : kBulks)
                cells.push_back(
                    {.kind = kind, .elsewhere = elsewhere, .tokens = *all.back(), .bulk = bulk});
        }
    }
    for (unsigned round = 0; round < options.rounds; ++round) {
        for (Cell& cell : cells)
            measure_cell(cell, options.seconds);
    }
    add(report, "tokens.deliver", cells, [](const Cell& cell) { return cell.deliver; });
    add(report, "tokens.return", cells, [](const Cell& cell) { return cell.give_back; });
    add(report, "tokens.both", cells, [](const Cell& cell) {
        std::vector<double> both(cell.deliver);
        for (std::size_t round = 0; round < both.size(); ++round)
            both[round] += cell.give_back[round];
        return both;
    });
}

} // namespace bench
