// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/page_pool/interleave/pool_scenario.h"

#include <bit>
#include <ctime>
#include <utility>

/// The pool's clock: a run that is repeated must do the same.
extern "C" int interleave_clock_gettime(clockid_t, timespec* now) noexcept
{
    *now = {};
    return 0;
}

namespace devmem::test {
namespace {

Fragments ones(unsigned n)
{
    return n >= 64 ? ~Fragments{0} : (Fragments{1} << n) - 1;
}

Fragments bits_of(const FragmentRun* runs, unsigned count)
{
    Fragments bits = 0;
    for (unsigned i = 0; i < count; ++i)
        bits |= ones(runs[i].count) << runs[i].first;
    return bits;
}

} // namespace

// ---- calls

Fragments Caller::get(unsigned n)
{
    const std::size_t call = scenario_.begin({.kind = Call::kGet,
                                              .thread = thread_,
                                              .returned = false,
                                              .wanted = n,
                                              .fragments = 0,
                                              .result = 0});
    FragmentRun runs[64];
    const unsigned count = scenario_.pool_->alloc_runs(lcore_, n, runs);
    const Fragments got = bits_of(runs, count);
    held_ |= got;
    scenario_.end(call, got);
    return got;
}

Fragments Caller::put(Fragments fragments)
{
    const unsigned per_page = scenario_.shape_.per_page;
    const unsigned page = static_cast<unsigned>(std::countr_zero(fragments)) / per_page;
    const std::size_t call = scenario_.begin({.kind = Call::kPut,
                                              .thread = thread_,
                                              .returned = false,
                                              .wanted = 0,
                                              .fragments = fragments,
                                              .result = 0});
    held_ &= ~fragments;
    const Fragments refused =
        scenario_.pool_->free_mask(lcore_, page, fragments >> (page * per_page),
                                   static_cast<unsigned>(std::popcount(fragments)))
        << (page * per_page);
    scenario_.end(call, refused);
    return refused;
}

void Caller::put_all()
{
    const unsigned per_page = scenario_.shape_.per_page;
    for (unsigned page = 0; page < scenario_.shape_.pages; ++page) {
        const Fragments here = held_ & ones(per_page) << (page * per_page);
        if (here != 0)
            put(here);
    }
}

void Caller::put_lowest(unsigned n)
{
    for (; n != 0 && held_ != 0; --n)
        put(held_ & -held_);
}

void Caller::flush()
{
    scenario_.pool_->flush(lcore_);
}

void Caller::hand_to(Caller& other)
{
    other.held_ |= std::exchange(held_, 0);
}

// ---- scenario

PoolScenario::PoolScenario(Shape shape)
    : shape_(shape), config_{"interleave", shape.pages * shape.per_page, shape.per_page,
                             shape.lcores},
      memory_(new std::byte[PagePool::bytes(config_) + 64]),
      block_(memory_.get() + (64 - reinterpret_cast<std::uintptr_t>(memory_.get()) % 64) % 64)
{
}

PoolScenario& PoolScenario::thread(std::uint32_t lcore, Body body)
{
    bodies_.push_back(std::move(body));
    lcores_.push_back(lcore);
    return *this;
}

PoolScenario& PoolScenario::prepare(std::function<void(std::vector<Caller>&)> body)
{
    prepare_ = std::move(body);
    return *this;
}

interleave::Outcome PoolScenario::explore(const interleave::Options& options)
{
    interleave::Program program{.start = [this] { start(); },
                                .threads = {},
                                .check = [this](bool complete) { check(complete); }};
    for (std::size_t i = 0; i < bodies_.size(); ++i)
        program.threads.emplace_back([this, i] { bodies_[i](callers_[i]); });
    interleave::name_cells(block_);
    interleave::Outcome outcome = interleave::explore(program, options);
    if (!outcome.failure.empty()) {
        history_.before.resize(history_.calls.size()); // where it did not come to the check
        outcome.failure += history_.text();
    }
    return outcome;
}

void PoolScenario::start()
{
    pool_ = PagePool::create(block_, config_);
    fill(*pool_);
    // Nothing but a count, and the lcore's slot is in use: its first use is no subject here.
    for (unsigned lcore = 0; lcore < shape_.lcores; ++lcore)
        pool_->count_foreign_free(lcore);
    callers_.clear();
    for (unsigned i = 0; i < bodies_.size(); ++i)
        callers_.emplace_back(*this, lcores_[i], i);
    history_.calls.clear();
    history_.before.clear();
    marks_.clear();
    prepared_ = false;
    if (prepare_)
        prepare_(callers_);
    history_.free = ones(pool_->fragments());
    for (const Caller& caller : callers_)
        history_.free &= ~caller.held_;
    prepared_ = true;
}

std::size_t PoolScenario::begin(const Call& call)
{
    if (!prepared_)
        return 0;
    history_.calls.push_back(call);
    marks_.push_back({interleave::mark_call(), 0});
    return marks_.size() - 1;
}

void PoolScenario::end(std::size_t call, Fragments result)
{
    if (!prepared_)
        return;
    history_.calls[call].result = result;
    history_.calls[call].returned = true;
    marks_[call].ret = interleave::mark_return();
}

void PoolScenario::check(bool complete)
{
    check_history();
    if (!complete)
        return;
    Fragments free = ones(pool_->fragments());
    for (const Caller& caller : callers_) {
        if ((caller.held_ & ~free) != 0)
            interleave::fail("a fragment has two owners");
        free &= ~caller.held_;
    }
    check_free(free, "when all had returned");
    check_double_frees(free);
    for (unsigned lcore = 0; lcore < shape_.lcores; ++lcore)
        pool_->flush(lcore);
    check_free(free, "after a flush");
    check_drained(free);
}

/// What the pool says of itself is what its callers know.
void PoolScenario::check_free(Fragments free, const char* when)
{
    unsigned in_flight = 0;
    for (unsigned page = 0; page < shape_.pages; ++page) {
        const Fragments here = free >> (page * shape_.per_page) & ones(shape_.per_page);
        if (pool_->page_word(page) != here)
            interleave::fail(std::string("page_word() is wrong ") + when);
        in_flight += here != ones(shape_.per_page) ? 1 : 0;
    }
    if (pool_->free_count() != static_cast<unsigned>(std::popcount(free)))
        interleave::fail(std::string("free_count() is wrong ") + when);
    const PagePoolStats stats = pool_->stats();
    if (stats.hold - stats.release != in_flight)
        interleave::fail(std::string("hold - release is wrong ") + when);
}

/// Whoever puts what is free is told so, also where a put was put off.
void PoolScenario::check_double_frees(Fragments free)
{
    for (unsigned page = 0; page < shape_.pages; ++page) {
        const Fragments here = free >> (page * shape_.per_page) & ones(shape_.per_page);
        if (here != 0 && pool_->free_mask(kNoLcore, page, here,
                                          static_cast<unsigned>(std::popcount(here))) != here)
            interleave::fail("a double free was not refused");
    }
    check_free(free, "after double frees");
}

/// One get takes all that is free; pages that are wholly free it finds in the list.
void PoolScenario::check_drained(Fragments free)
{
    const std::uint32_t lcore = shape_.lcores == 0 ? kNoLcore : 0;
    const std::uint64_t salvaged = pool_->stats().salvaged;
    FragmentRun runs[64];
    if (free != 0) {
        const unsigned count =
            pool_->alloc_runs(lcore, static_cast<unsigned>(std::popcount(free)), runs);
        if (bits_of(runs, count) != free)
            interleave::fail("what is free cannot be taken");
        check_free(0, "when all was taken");
    }
    if (free == ones(pool_->fragments()) && pool_->stats().salvaged != salvaged)
        interleave::fail("a whole page was not in the list");
    if (pool_->alloc_runs(lcore, 1, runs) != 0)
        interleave::fail("more can be taken than there is");
}

// ---- the history

/// Schedules that are the same to the pool differ in which calls had returned when others were
/// made. All of these histories must be linearizable.
void PoolScenario::check_history()
{
    const std::size_t n = history_.calls.size();
    history_.before.assign(n, 0);
    forced_call_.assign(n, 0);
    forced_return_.assign(n, 0);
    own_earlier_.assign(n, 0);
    // Which calls must have been made (low) or have returned (high) before a call or return.
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            if (i == j)
                continue;
            if (j < i && history_.calls[j].thread == history_.calls[i].thread)
                own_earlier_[i] |= 1U << j;
            if (interleave::leads_to(marks_[j].call, marks_[i].call))
                forced_call_[i] |= 1U << j;
            if (history_.calls[j].returned && interleave::leads_to(marks_[j].ret, marks_[i].call))
                forced_call_[i] |= 1U << (16 + j);
            if (!history_.calls[i].returned)
                continue;
            if (interleave::leads_to(marks_[j].call, marks_[i].ret))
                forced_return_[i] |= 1U << j;
            if (history_.calls[j].returned && interleave::leads_to(marks_[j].ret, marks_[i].ret))
                forced_return_[i] |= 1U << (16 + j);
        }
    }
    if (!every_order_linearizable(0, 0))
        interleave::fail("not linearizable");
}

/// Make the calls that have not `begun` in all orders that the schedule leaves open. A return comes
/// as early as it can: that leaves the fewest orders to a linearization.
bool PoolScenario::every_order_linearizable(std::uint32_t begun, std::uint32_t ended)
{
    const std::size_t n = history_.calls.size();
    const auto possible = [&](std::uint32_t forced) {
        return (forced & 0xffff & ~begun) == 0 && (forced >> 16 & ~ended) == 0;
    };
    for (std::size_t i = 0; i < n; ++i)
        if ((begun & 1U << i) != 0 && (ended & 1U << i) == 0 && history_.calls[i].returned &&
            possible(forced_return_[i]))
            return every_order_linearizable(begun, ended | 1U << i);
    if (begun == (1U << n) - 1)
        return verdict();
    bool any = false;
    for (std::size_t i = 0; i < n; ++i) {
        if ((begun & 1U << i) == 0 && possible(forced_call_[i])) {
            any = true;
            history_.before[i] = ended | own_earlier_[i];
            if (!every_order_linearizable(begun | 1U << i, ended))
                return false;
        }
    }
    return any;
}

bool PoolScenario::verdict()
{
    std::vector<std::uint64_t> key{history_.free};
    for (std::size_t i = 0; i < history_.calls.size(); ++i) {
        const Call& call = history_.calls[i];
        key.insert(key.end(), {call.kind * 2U + call.returned, call.wanted, call.fragments,
                               call.result, history_.before[i]});
    }
    const auto [known, is_new] = verdicts_.try_emplace(std::move(key), false);
    if (is_new)
        known->second = history_.linearizable();
    return known->second;
}

} // namespace devmem::test
