// SPDX-License-Identifier: BSD-3-Clause
// The page_pool mempool driver beside DPDK's own, over the matrix of DPDK's mempool_perf test; and
// the fragment API by itself.
#include "test/bench/fragments.h"
#include "test/bench/measure.h"
#include "test/bench/modes.h"

#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr std::array kOps{"page_pool", "ring_mp_mc", "stack", "lf_stack"};
constexpr std::size_t kPagePool = 0, kRing = 1;
constexpr std::array kBulks{1u, 4u, 32u};
constexpr std::array kKeeps{32u, 128u, 512u};
constexpr std::array kCaches{0u, 256u};
constexpr unsigned kMaxLcores = 2;
constexpr unsigned kMaxKeep = 512;
/// Twice what two lcores can keep and cache; one less than a power of two suits a ring.
constexpr unsigned kObjects = 4095;
constexpr unsigned kObjectBytes = 2048;
/// Objects that a turn gets and puts: a multiple of all keeps.
constexpr unsigned kPerTurn = 1024;
constexpr unsigned kFragmentBulk = 32;
constexpr std::uint32_t kPerPage = 64;
/// Pages of 64 KiB that make 64 MiB, and most of what is left of them when each is pinned.
constexpr unsigned kPinnedPages = 1024;
constexpr unsigned kPinnedKeep = 24576;

struct FreePool {
    void operator()(rte_mempool* pool) const { rte_mempool_free(pool); }
};
using Pool = std::unique_ptr<rte_mempool, FreePool>;

struct Cell {
    unsigned lcores, cache, get, put, keep;
    std::array<std::vector<double>, kOps.size()> cycles{}; ///< per object, one for each round

    Json params() const
    {
        return {{"lcores", lcores}, {"cache", cache}, {"get", get}, {"put", put}, {"keep", keep}};
    }
    /// How many times the cycles of page_pool the ring takes.
    Stat ring_ratio() const
    {
        std::vector<double> rounds;
        for (std::size_t i = 0; i < cycles[kRing].size(); ++i)
            rounds.push_back(cycles[kRing][i] / cycles[kPagePool][i]);
        const Stat stat = summarize(rounds);
        return {summarize(cycles[kRing]).median / summarize(cycles[kPagePool]).median, stat.min,
                stat.max};
    }
};

[[noreturn]] void fail(const std::string& what)
{
    throw std::runtime_error(what + ": " + rte_strerror(rte_errno));
}

Pool make_pool(const char* ops, unsigned cache)
{
    const std::string name = std::string("bench_") + ops + "_" + std::to_string(cache);
    Pool pool(
        rte_mempool_create_empty(name.c_str(), kObjects, kObjectBytes, cache, 0, SOCKET_ID_ANY, 0));
    if (!pool)
        fail(name);
    int rc = rte_mempool_set_ops_byname(pool.get(), ops, nullptr);
    if (rc == 0)
        rc = rte_mempool_populate_default(pool.get());
    if (rc < 0) {
        rte_errno = -rc;
        fail(name);
    }
    return pool;
}

bool get_and_put(rte_mempool* pool, const Cell& cell)
{
    void* objects[kMaxKeep];
    for (unsigned done = 0; done < kPerTurn; done += cell.keep) {
        for (unsigned i = 0; i < cell.keep; i += cell.get) {
            if (rte_mempool_get_bulk(pool, objects + i, cell.get) < 0)
                return false;
        }
        for (unsigned i = 0; i < cell.keep; i += cell.put)
            rte_mempool_put_bulk(pool, objects + i, cell.put);
    }
    return true;
}

double cycles_per_object(rte_mempool* pool, const Cell& cell, double seconds)
{
    // What the cell before left in the caches is not this cell's.
    unsigned lcore;
    RTE_LCORE_FOREACH(lcore)
    {
        rte_mempool_cache* cache = rte_mempool_default_cache(pool, lcore);
        if (cache != nullptr)
            rte_mempool_cache_flush(cache, pool);
    }
    const Turn turn = [=, &cell](unsigned) { return get_and_put(pool, cell); };
    return measure(turn, cell.lcores, seconds) / kPerTurn;
}

std::vector<Cell> matrix(unsigned lcores)
{
    std::vector<Cell> cells;
    for (unsigned n = 1; n <= lcores; ++n)
        for (unsigned cache : kCaches)
            for (unsigned get : kBulks)
                for (unsigned put : kBulks)
                    for (unsigned keep : kKeeps)
                        cells.push_back(
                            {.lcores = n, .cache = cache, .get = get, .put = put, .keep = keep});
    return cells;
}

/// The cell in which page_pool fares worst against the ring, of those that `counts` selects.
template <typename Counts>
const Cell* worst(const std::vector<Cell>& cells, Counts counts)
{
    const Cell* found = nullptr;
    for (const Cell& cell : cells) {
        if (counts(cell) &&
            (found == nullptr || cell.ring_ratio().median < found->ring_ratio().median))
            found = &cell;
    }
    return found;
}

void ask_ratio(Report& report, const std::string& name, double want, const Cell* cell)
{
    if (cell == nullptr)
        return report.ask_at_least(name, want, std::nullopt);
    const Stat ratio = cell->ring_ratio();
    Json params = cell->params();
    params["of"] = "ring_mp_mc / page_pool";
    report.results.push_back({name, params, ratio, "cycles/cycles"});
    report.ask_at_least(name, want, ratio.median);
}

// ---- the fragment API

/// A pool with one random fragment of every page held for ever: no page is ever whole.
Fragments make_pinned()
{
    Fragments pool = make_fragments(kPinnedPages * kPerPage, kPerPage);
    std::vector<std::uint32_t> all(pool->fragments());
    if (pool->alloc(devmem::kNoLcore, pool->fragments(), all.data()) != 0)
        throw std::runtime_error("a pool that is full has fewer fragments than it should");
    std::mt19937 random(1);
    std::vector<std::uint32_t> held(kPinnedPages);
    for (std::uint32_t& f : held)
        f = random() % kPerPage;
    for (const std::uint32_t f : all) {
        if (f % kPerPage != held[f / kPerPage])
            pool->free_run(devmem::kNoLcore, {f, 1});
    }
    return pool;
}

bool alloc_and_free(devmem::PagePool& pool, unsigned lane, unsigned keep)
{
    std::array<devmem::FragmentRun, kPinnedKeep> runs;
    for (unsigned done = 0; done < std::max(kPerTurn, keep); done += keep) {
        if (!take_and_put_back(pool, lane, kFragmentBulk, std::span(runs).first(keep)))
            return false;
    }
    return true;
}

struct FragmentCell {
    const char* pages; ///< "whole", or "pinned": one random fragment of each is held for ever
    unsigned lcores, keep;
    std::vector<double> cycles{};
};

double cycles_per_fragment(devmem::PagePool& pool, const FragmentCell& cell, double seconds)
{
    const Turn turn = [&](unsigned lane) { return alloc_and_free(pool, lane, cell.keep); };
    return measure(turn, cell.lcores, seconds) / std::max(kPerTurn, cell.keep);
}

} // namespace

void mempool(const Options& options, Report& report)
{
    std::array<std::array<Pool, kOps.size()>, kCaches.size()> pools;
    for (std::size_t c = 0; c < kCaches.size(); ++c) {
        for (std::size_t o = 0; o < kOps.size(); ++o)
            pools[c][o] = make_pool(kOps[o], kCaches[c]);
    }
    const Fragments whole = make_fragments(kObjects, kPerPage);
    const Fragments pinned = make_pinned();

    const unsigned lcores = std::min(rte_lcore_count(), kMaxLcores);
    std::vector<Cell> cells = matrix(lcores);
    std::vector<FragmentCell> fragment_cells;
    for (unsigned n = 1; n <= lcores; ++n) {
        for (unsigned keep : kKeeps)
            fragment_cells.push_back({.pages = "whole", .lcores = n, .keep = keep});
        for (unsigned keep : {kMaxKeep, kPinnedKeep})
            fragment_cells.push_back({.pages = "pinned", .lcores = n, .keep = keep});
    }
    for (unsigned round = 0; round < options.rounds; ++round) {
        for (Cell& cell : cells) {
            // Another driver goes first in each round: none always follows the same one.
            for (std::size_t i = 0; i < kOps.size(); ++i) {
                const std::size_t o = (round + i) % kOps.size();
                rte_mempool* pool = pools[cell.cache == kCaches[0] ? 0 : 1][o].get();
                cell.cycles[o].push_back(cycles_per_object(pool, cell, options.seconds));
            }
        }
        for (FragmentCell& cell : fragment_cells)
            cell.cycles.push_back(cycles_per_fragment(
                cell.pages == std::string("whole") ? *whole : *pinned, cell, options.seconds));
    }

    for (const Cell& cell : cells) {
        for (std::size_t o = 0; o < kOps.size(); ++o) {
            Json params = cell.params();
            params["ops"] = kOps[o];
            report.results.push_back(
                {"mempool", params, summarize(cell.cycles[o]), "cycles/object"});
        }
    }
    double slowest = 0;
    for (const FragmentCell& cell : fragment_cells) {
        const Stat stat = summarize(cell.cycles);
        report.results.push_back({"fragments",
                                  {{"bulk", kFragmentBulk},
                                   {"keep", cell.keep},
                                   {"lcores", cell.lcores},
                                   {"pages", cell.pages}},
                                  stat,
                                  "cycles/fragment"});
        if (cell.lcores == 1 && cell.pages == std::string("whole"))
            slowest = std::max(slowest, stat.median);
    }
    const auto full_bulks = [](unsigned n) {
        return [n](const Cell& c) {
            return c.lcores == n && c.cache == 0 && c.get == 32 && c.put == 32;
        };
    };
    ask_ratio(report, "mempool.1", 1, worst(cells, full_bulks(1)));
    ask_ratio(report, "mempool.2", 4, worst(cells, full_bulks(2)));
    ask_ratio(report, "mempool.cells", 0.8, worst(cells, [](const Cell&) { return true; }));
    report.ask_at_most("mempool.frag", 15, slowest);
}

} // namespace bench
