// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/page_pool/interleave/scheduler.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>

#include "test/unit/page_pool/interleave/fiber.h"

namespace devmem::interleave {
namespace {

/// Who can make a step: thread t, and as actor kMaxThreads + t its store buffer.
constexpr unsigned kActors = 2 * kMaxThreads;
using Set = std::uint32_t; ///< of actors

/// A run of so many steps does not end.
constexpr std::size_t kLongest = 5000;

constexpr Set only(unsigned actor)
{
    return Set{1} << actor;
}

constexpr unsigned buffer_of(unsigned thread)
{
    return kMaxThreads + thread;
}

/// How many steps of each actor come before, in every schedule that is the same.
using Clock = std::array<std::uint16_t, kActors>;

void join(Clock& clock, const Clock& other)
{
    for (unsigned a = 0; a < kActors; ++a)
        clock[a] = std::max(clock[a], other[a]);
}

enum class Touch : std::uint8_t { kReads, kAdds, kWrites };

struct Access {
    const void* cell;
    Touch touch;

    bool operator==(const Access&) const = default;
};

using Accesses = std::vector<Access>;

/// Neither may overtake the other.
bool dependent(const Accesses& one, const Accesses& other)
{
    for (const Access& a : one)
        for (const Access& b : other)
            if (a.cell == b.cell && (a.touch != b.touch || a.touch == Touch::kWrites))
                return true;
    return false;
}

/// For the message of a failure.
struct Described {
    const char* what;
    const void* cell;
    std::uint64_t before, after;
};

/// A decision that was made, and the step it led to.
struct Decision {
    unsigned actor;
    Set enabled;
    Set backtrack; ///< whom it is necessary to run here
    Set done;      ///< who was run here, with all that follows
    Set sleep; ///< whom it is useless to run here: that would only be the same as something done
    std::array<const Accesses*, kActors> asleep; ///< the steps of `done` and `sleep`
    std::array<Accesses, kActors> steps;         ///< of those who were run here
    Clock clock;
    Described described;

    const Accesses& step() const { return steps[actor]; }
};

struct Buffered {
    void* cell;
    unsigned size;
    std::uint64_t value;
    Clock clock;
};

std::uint64_t peek(const void* cell, unsigned size)
{
    std::uint64_t value = 0;
    std::memcpy(&value, cell, size);
    return value;
}

enum class Wants { kStep, kEmptyBuffer, kEmptyBuffers, kChange, kNothing };

struct Thread {
    struct Read {
        const void* cell;
        unsigned size;
        std::uint64_t value;
    };

    std::unique_ptr<Fiber> fiber;
    Wants wants;
    std::vector<Buffered> buffer;
    std::uint16_t buffered, flushed; ///< stores, in all
    std::vector<Read> reads;         ///< since it last waited
    bool changed;                    ///< one of them is outdated
    unsigned waits;
    bool abandoned;

    /// What it would load.
    std::uint64_t sees(const void* cell, unsigned size) const
    {
        const auto own = std::find_if(buffer.rbegin(), buffer.rend(),
                                      [&](const Buffered& store) { return store.cell == cell; });
        return own != buffer.rend() ? own->value : peek(cell, size);
    }
    void has_read(const void* cell, unsigned size, std::uint64_t value)
    {
        if (std::none_of(reads.begin(), reads.end(),
                         [&](const Read& read) { return read.cell == cell; }))
            reads.push_back({cell, size, value});
    }
};

struct MarkPlace {
    unsigned thread;
    bool is_return;
    bool passed;
    std::uint16_t step;   ///< the last of its thread before it
    std::uint16_t stores; ///< of its thread before it
    Clock clock;
};

class Scheduler {
public:
    Scheduler(const Program& program, const Options& options);
    Outcome explore();

    bool running();
    void fail(std::string_view what);

    std::uint64_t load(const void* cell, unsigned size);
    void store(void* cell, unsigned size, std::uint64_t value, bool ordered);
    void begin_update();
    void update(void* cell, unsigned size, std::uint64_t before, std::uint64_t after, bool blind);
    void heavy_fence();
    void wait();
    Mark mark(bool is_return);
    bool leads_to(Mark from, Mark to) const;

private:
    static constexpr unsigned kNobody = UINT32_MAX;

    static void enter();

    Thread& self() { return threads_[running_]; }
    void run();
    bool next_schedule();
    void pause(Wants wants);
    void dispatch();
    unsigned decide();
    Set enabled() const;
    void step(unsigned actor, const Clock& after, const Described& described);
    void find_races(const Clock& after);
    void race(std::size_t with, std::size_t of, const Clock& clock, bool may_be_blocked);
    void find_stores_to_delay(std::size_t fence, const Clock& own);
    void flush(unsigned thread);
    void written(unsigned thread, const void* cell);
    void pass_marks();
    std::string schedule() const;

    const Program& program_;
    const Options options_;
    Fiber main_;
    std::vector<Thread> threads_;
    std::array<Clock, kActors> clocks_{};
    std::vector<MarkPlace> marks_;
    std::deque<Decision> path_; ///< of which `length_` are in use
    std::size_t length_ = 0;
    std::size_t depth_ = 0; ///< steps made in this run
    std::size_t fresh_ = 0; ///< decisions from here on are not repetitions
    Accesses accesses_;     ///< of the step being made
    unsigned running_ = kNobody;
    bool starting_ = false;
    bool redundant_ = false;
    std::size_t accesses_outside_ = 0;
    Outcome outcome_;
};

Scheduler* scheduler = nullptr;
const void* base = nullptr;

Scheduler::Scheduler(const Program& program, const Options& options)
    : program_(program), options_(options), threads_(program.threads.size())
{
    if (threads_.size() > kMaxThreads)
        std::abort();
    for (Thread& thread : threads_)
        thread.fiber = std::make_unique<Fiber>(enter);
}

Outcome Scheduler::explore()
{
    std::uint64_t schedules = 0;
    do {
        if (schedules++ == options_.limit)
            return outcome_;
        run();
        if (!outcome_.failure.empty()) {
            outcome_.failure += "\n" + schedule();
            return outcome_;
        }
    } while (next_schedule());
    outcome_.exhausted = true;
    return outcome_;
}

// ---- one run

void Scheduler::enter()
{
    Fiber::entered();
    scheduler->program_.threads[scheduler->running_]();
    scheduler->pause(Wants::kNothing);
}

void Scheduler::run()
{
    depth_ = 0;
    redundant_ = false;
    accesses_outside_ = 0;
    clocks_ = {};
    marks_.clear();
    program_.start();
    starting_ = true;
    for (unsigned t = 0; t < threads_.size(); ++t) {
        Thread& thread = threads_[t];
        thread.wants = Wants::kStep;
        thread.buffer.clear();
        thread.buffered = thread.flushed = 0;
        thread.reads.clear();
        thread.changed = thread.abandoned = false;
        thread.waits = 0;
        thread.fiber->restart();
        running_ = t;
        thread.fiber->switch_from(main_);
        running_ = kNobody;
    }
    starting_ = false;
    if (outcome_.failure.empty())
        dispatch();
    outcome_.longest = std::max(outcome_.longest, depth_);
    if (!outcome_.failure.empty())
        return;
    if (redundant_) {
        ++outcome_.redundant;
        return;
    }
    bool complete = true;
    bool abandoned = false;
    for (const Thread& thread : threads_) {
        complete = complete && thread.wants == Wants::kNothing && !thread.abandoned;
        abandoned = abandoned || thread.abandoned;
    }
    if (!complete && !abandoned) {
        fail("threads wait for each other for ever");
        return;
    }
    ++(complete ? outcome_.complete : outcome_.abandoned);
    program_.check(complete);
}

/// Come back from a run to the last decision that leaves something to do.
bool Scheduler::next_schedule()
{
    length_ = depth_;
    for (; length_ != 0; --length_) {
        Decision& last = path_[length_ - 1];
        last.done |= only(last.actor);
        last.asleep[last.actor] = &last.step();
        const Set rest = last.backtrack & ~(last.done | last.sleep);
        if (rest != 0) {
            last.actor = static_cast<unsigned>(std::countr_zero(rest));
            fresh_ = length_ - 1;
            return true;
        }
    }
    return false;
}

/// The running thread is about to make a step: return when it may.
void Scheduler::pause(Wants wants)
{
    self().wants = wants;
    if (starting_)
        main_.switch_from(*self().fiber);
    else
        dispatch();
}

/// Run whoever is to make the next step; return when that is the caller.
void Scheduler::dispatch()
{
    const unsigned caller = running_;
    for (;;) {
        const unsigned actor = outcome_.failure.empty() ? decide() : kNobody;
        if (actor != kNobody && actor >= kMaxThreads) {
            flush(actor - kMaxThreads);
            continue;
        }
        if (actor == caller)
            return;
        Fiber& from = caller == kNobody ? main_ : *threads_[caller].fiber;
        running_ = actor;
        (actor == kNobody ? main_ : *threads_[actor].fiber).switch_from(from);
        return;
    }
}

Set Scheduler::enabled() const
{
    Set set = 0;
    const bool all_empty = std::all_of(threads_.begin(), threads_.end(),
                                       [](const Thread& thread) { return thread.buffer.empty(); });
    for (unsigned t = 0; t < threads_.size(); ++t) {
        const Thread& thread = threads_[t];
        if (thread.wants == Wants::kStep ||
            (thread.wants == Wants::kEmptyBuffer && thread.buffer.empty()) ||
            (thread.wants == Wants::kEmptyBuffers && all_empty) ||
            (thread.wants == Wants::kChange && thread.changed))
            set |= only(t);
        if (!thread.buffer.empty())
            set |= only(buffer_of(t));
    }
    return set;
}

/// Who makes the next step; kNobody at the end of the run.
unsigned Scheduler::decide()
{
    if (depth_ < length_)
        return path_[depth_].actor;
    if (path_.size() == depth_)
        path_.emplace_back();
    Decision& decision = path_[depth_];
    decision.enabled = enabled();
    decision.done = decision.sleep = 0;
    unsigned last = 0;
    if (depth_ != 0) {
        const Decision& parent = path_[depth_ - 1];
        last = parent.actor;
        if (options_.reduce) {
            for (Set rest = parent.sleep | parent.done; rest != 0; rest &= rest - 1) {
                const auto actor = static_cast<unsigned>(std::countr_zero(rest));
                if (!dependent(*parent.asleep[actor], parent.step())) {
                    decision.sleep |= only(actor);
                    decision.asleep[actor] = parent.asleep[actor];
                }
            }
        }
    }
    const Set useful = decision.enabled & ~decision.sleep;
    if (useful == 0) {
        redundant_ = decision.enabled != 0;
        return kNobody;
    }
    decision.actor =
        (useful & only(last)) != 0 ? last : static_cast<unsigned>(std::countr_zero(useful));
    decision.backtrack = options_.reduce ? only(decision.actor) : decision.enabled;
    length_ = depth_ + 1;
    return decision.actor;
}

/// A step was made; `accesses_` is what it did, `after` what it could not have been made before,
/// apart from that.
void Scheduler::step(unsigned actor, const Clock& after, const Described& described)
{
    Decision& decision = path_[depth_];
    if (depth_ >= fresh_) {
        decision.steps[actor] = accesses_;
        decision.described = described;
        find_races(after);
    } else if (decision.step() != accesses_) {
        std::fputs("the program does not do the same each time\n", stderr);
        std::abort();
    }
    clocks_[actor] = decision.clock;
    accesses_.clear();
    if (++depth_ == kLongest)
        outcome_.failure = "a thread goes on for ever";
}

/// Asked before every access. After the threads there are no steps to count, but what they left may
/// send a loop round for ever.
bool Scheduler::running()
{
    if (running_ != kNobody)
        return true;
    if (++accesses_outside_ > 1'000'000) {
        std::fprintf(stderr, "what comes after this schedule does not end:\n%s",
                     schedule().c_str());
        std::abort();
    }
    return false;
}

// ---- reduction

/// Order the last step after those it depends on, and have the other order tried where there was a
/// choice.
void Scheduler::find_races(const Clock& after)
{
    Decision& last = path_[depth_];
    last.clock = clocks_[last.actor];
    join(last.clock, after);
    ++last.clock[last.actor];
    std::vector<std::size_t> races;
    for (std::size_t i = depth_; i-- != 0;) {
        const Decision& other = path_[i];
        if (other.clock[other.actor] > last.clock[other.actor] &&
            dependent(other.step(), last.step())) {
            join(last.clock, other.clock);
            races.push_back(i);
        }
    }
    if (options_.reduce)
        for (const std::size_t i : races)
            race(i, depth_, last.clock, true);
}

/// The steps `of` and `with` depend on each other, and nothing else orders them. The schedules that
/// have them the other way round begin, there, with those steps that do not need `with`. See to it
/// that one of those who can be first of these is tried.
void Scheduler::race(std::size_t with, std::size_t of, const Clock& clock, bool may_be_blocked)
{
    Decision& decision = path_[with];
    const std::uint16_t index = decision.clock[decision.actor];
    std::vector<const Decision*> without;
    Set seen = 0;
    Set initials = 0;
    const auto add = [&](const Decision& next, const Clock& at) {
        if ((seen & only(next.actor)) == 0 &&
            std::none_of(without.begin(), without.end(), [&](const Decision* earlier) {
                return earlier->clock[earlier->actor] <= at[earlier->actor];
            }))
            initials |= only(next.actor);
        seen |= only(next.actor);
        without.push_back(&next);
    };
    for (std::size_t i = with + 1; i < of; ++i)
        if (path_[i].clock[decision.actor] < index)
            add(path_[i], path_[i].clock);
    add(path_[of], clock);
    if ((initials & only(path_[of].actor) & ~decision.enabled) != 0) {
        // It waited for just that step: there is no other way round.
        if (!may_be_blocked)
            decision.backtrack |= decision.enabled;
        return;
    }
    if ((initials & (decision.backtrack | decision.sleep)) == 0) {
        initials &= decision.enabled;
        decision.backtrack |= initials & -initials;
    }
}

/// A heavy fence comes after the buffered stores that it waited for. What could also be is that
/// they were not yet made.
void Scheduler::find_stores_to_delay(std::size_t fence, const Clock& own)
{
    const unsigned fencing = path_[fence].actor;
    for (unsigned t = 0; t < threads_.size(); ++t) {
        if (t == fencing)
            continue;
        Clock clock = own;
        for (unsigned other = 0; other < threads_.size(); ++other)
            if (other != t)
                join(clock, clocks_[buffer_of(other)]);
        const auto is_store = [&](const Decision& decision) {
            return decision.actor == t && decision.step().size() == 1 &&
                   decision.step()[0].cell == &threads_[t].buffered;
        };
        std::size_t store = fence;
        while (store != 0 && !is_store(path_[store - 1]))
            --store;
        if (store-- == 0)
            continue;
        const std::uint16_t index = path_[store].clock[t];
        // It still has to wait for the stores before that one.
        for (std::size_t i = 0; i < fence; ++i)
            if (path_[i].actor == buffer_of(t) && path_[i].clock[t] < index)
                join(clock, path_[i].clock);
        if (index > clock[t])
            race(store, fence, clock, false);
    }
}

// ---- steps

std::uint64_t Scheduler::load(const void* cell, unsigned size)
{
    pause(Wants::kStep);
    Thread& thread = self();
    const std::uint64_t value = thread.sees(cell, size);
    thread.has_read(cell, size, value);
    accesses_.push_back({cell, Touch::kReads});
    step(running_, {}, {"load", cell, value, value});
    return value;
}

void Scheduler::store(void* cell, unsigned size, std::uint64_t value, bool ordered)
{
    pause(ordered ? Wants::kEmptyBuffer : Wants::kStep);
    Thread& thread = self();
    if (options_.tso && !ordered) {
        // Depends on heavy fences alone.
        accesses_.push_back({&thread.buffered, Touch::kWrites});
        step(running_, {}, {"store, to the buffer", cell, value, value});
        thread.buffer.push_back({cell, size, value, clocks_[running_]});
        ++thread.buffered;
        return;
    }
    const std::uint64_t before = peek(cell, size);
    std::memcpy(cell, &value, size);
    accesses_.push_back({cell, before != value ? Touch::kWrites : Touch::kReads});
    if (before != value)
        written(running_, cell);
    step(running_, clocks_[buffer_of(running_)], {"store", cell, before, value});
}

void Scheduler::begin_update()
{
    pause(Wants::kEmptyBuffer);
}

void Scheduler::update(void* cell, unsigned size, std::uint64_t before, std::uint64_t after,
                       bool blind)
{
    if (!blind)
        self().has_read(cell, size, before);
    accesses_.push_back({cell, before == after ? Touch::kReads
                               : blind         ? Touch::kAdds
                                               : Touch::kWrites});
    if (before != after)
        written(running_, cell);
    step(running_, clocks_[buffer_of(running_)], {"update", cell, before, after});
}

void Scheduler::heavy_fence()
{
    if (!options_.tso)
        return;
    pause(Wants::kEmptyBuffers);
    Clock after{};
    for (unsigned t = 0; t < threads_.size(); ++t) {
        join(after, clocks_[buffer_of(t)]);
        if (t != running_)
            accesses_.push_back({&threads_[t].buffered, Touch::kWrites});
    }
    const std::size_t fence = depth_;
    const Clock own = clocks_[running_];
    step(running_, after, {"heavy fence", nullptr, 0, 0});
    if (fence >= fresh_ && options_.reduce)
        find_stores_to_delay(fence, own);
}

/// The oldest store of a buffer reaches memory.
void Scheduler::flush(unsigned thread)
{
    Thread& owner = threads_[thread];
    const Buffered store = owner.buffer.front();
    owner.buffer.erase(owner.buffer.begin());
    const std::uint64_t before = peek(store.cell, store.size);
    std::memcpy(store.cell, &store.value, store.size);
    accesses_.push_back({store.cell, before != store.value ? Touch::kWrites : Touch::kReads});
    if (before != store.value)
        written(thread, store.cell);
    step(buffer_of(thread), store.clock, {"buffered store", store.cell, before, store.value});
    ++owner.flushed;
    pass_marks();
}

void Scheduler::wait()
{
    Thread& thread = self();
    if (thread.waits++ == options_.waits) {
        thread.abandoned = true;
        pause(Wants::kNothing);
    }
    // What it changed itself may also make its next look differ.
    for (const Thread::Read& read : thread.reads)
        thread.changed = thread.changed || thread.sees(read.cell, read.size) != read.value;
    pause(Wants::kChange);
    for (const Thread::Read& read : self().reads)
        accesses_.push_back({read.cell, Touch::kReads});
    step(running_, {}, {"wait", nullptr, 0, 0});
    self().reads.clear();
    self().changed = false;
}

/// `thread` has changed a cell.
void Scheduler::written(unsigned thread, const void* cell)
{
    for (unsigned t = 0; t < threads_.size(); ++t) {
        if (t == thread)
            continue;
        for (const Thread::Read& read : threads_[t].reads)
            threads_[t].changed = threads_[t].changed || read.cell == cell;
    }
}

// ---- marks

Mark Scheduler::mark(bool is_return)
{
    Thread& thread = self();
    marks_.push_back({.thread = running_,
                      .is_return = is_return,
                      .passed = !is_return,
                      .step = clocks_[running_][running_],
                      .stores = thread.buffered,
                      .clock = clocks_[running_]});
    pass_marks();
    if (!is_return) {
        thread.reads.clear();
        thread.changed = false;
    }
    return static_cast<Mark>(marks_.size() - 1);
}

void Scheduler::pass_marks()
{
    for (MarkPlace& mark : marks_) {
        if (mark.passed || threads_[mark.thread].flushed != mark.stores)
            continue;
        mark.passed = true;
        mark.step = clocks_[mark.thread][mark.thread];
        join(mark.clock, clocks_[buffer_of(mark.thread)]);
    }
}

bool Scheduler::leads_to(Mark from, Mark to) const
{
    const MarkPlace& one = marks_[from];
    const MarkPlace& other = marks_[to];
    if (one.thread == other.thread && !(options_.tso && one.is_return))
        return from < to;
    return other.clock[one.thread] > one.step ||
           (one.is_return && other.clock[buffer_of(one.thread)] > one.stores);
}

// ---- failure

void Scheduler::fail(std::string_view what)
{
    if (outcome_.failure.empty())
        outcome_.failure = what;
    if (running_ != kNobody)
        pause(Wants::kNothing);
}

std::string Scheduler::schedule() const
{
    std::string text;
    for (std::size_t i = 0; i < depth_; ++i) {
        const Described& step = path_[i].described;
        const unsigned actor = path_[i].actor;
        char line[120];
        int n =
            std::snprintf(line, sizeof(line), "  thread %u: %s", actor % kMaxThreads, step.what);
        if (step.cell != nullptr)
            n += std::snprintf(line + n, sizeof(line) - static_cast<unsigned>(n), " %+td: %#llx",
                               static_cast<const char*>(step.cell) - static_cast<const char*>(base),
                               static_cast<unsigned long long>(step.before));
        if (step.before != step.after)
            std::snprintf(line + n, sizeof(line) - static_cast<unsigned>(n), " -> %#llx",
                          static_cast<unsigned long long>(step.after));
        text += line;
        text += '\n';
    }
    return text;
}

} // namespace

Outcome explore(const Program& program, const Options& options)
{
    Scheduler instance{program, options};
    scheduler = &instance;
    Outcome outcome = instance.explore();
    scheduler = nullptr;
    return outcome;
}

void fail(std::string_view what)
{
    scheduler->fail(what);
}

void name_cells(const void* address)
{
    base = address;
}

Mark mark_call()
{
    return scheduler->mark(false);
}

Mark mark_return()
{
    return scheduler->mark(true);
}

bool leads_to(Mark from, Mark to)
{
    return scheduler->leads_to(from, to);
}

namespace step {

bool running()
{
    return scheduler != nullptr && scheduler->running();
}

std::uint64_t load(const void* cell, unsigned size)
{
    return scheduler->load(cell, size);
}

void store(void* cell, unsigned size, std::uint64_t value, bool ordered)
{
    scheduler->store(cell, size, value, ordered);
}

void begin_update()
{
    scheduler->begin_update();
}

void update(void* cell, unsigned size, std::uint64_t before, std::uint64_t after, bool blind)
{
    scheduler->update(cell, size, before, after, blind);
}

void heavy_fence()
{
    if (running())
        scheduler->heavy_fence();
}

void wait()
{
    if (running())
        scheduler->wait();
}

} // namespace step

} // namespace devmem::interleave
