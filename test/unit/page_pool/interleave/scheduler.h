// SPDX-License-Identifier: BSD-3-Clause
// Runs a small concurrent program in every way that makes a difference.
//
// The threads of the program are fibers of one thread. Each access to an atomic (interleave_sync.h)
// is a step; between steps the scheduler decides who goes on. It runs the program again and again,
// depth first, until all decisions are exhausted. Two schedules that differ only in the order of
// neighbouring steps that do not touch the same cell, or only read it, are the same to the program:
// of such a class of schedules one is run (dynamic partial-order reduction with source sets and
// sleep sets; Abdulla, Aronis, Jonsson, Sagonas, POPL 2014). A compare-exchange that fails, and a
// write of the value that is there, are as reading; additions whose result is not used commute.
//
// Memory is sequentially consistent, or TSO (x86): a store that is no read-modify-write and not
// seq_cst enters its thread's buffer, first in, first out, and reaches memory in a step of its own;
// loads look into the own buffer first; read-modify-writes and seq_cst stores wait until the own
// buffer is empty, a heavy fence until all are. Weaker models are not explored.
//
// A thread that says that it waits (relax, yield) goes on when another thread has changed one of
// the cells that it has read since it last waited: until then it would do again what it did.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace devmem::interleave {

inline constexpr unsigned kMaxThreads = 4;

struct Options {
    bool tso = false;
    /// False: run every schedule, also those that are the same.
    bool reduce = true;
    /// A thread that has waited as often in one run, and would again, waits for ever. This is the
    /// one bound on what is explored; Outcome::abandoned counts where it was met.
    unsigned waits = 3;
    std::uint64_t limit = UINT64_MAX; ///< schedules to run at most
};

/// Must do the same each time, given the same schedule, at the same addresses. A thread may be left
/// in mid-run: nothing on its stack may need a destructor.
struct Program {
    std::function<void()> start; ///< make everything as it was; no steps
    std::vector<std::function<void()>> threads;
    /// After each run; no steps. `complete`: all threads are done, else some wait for ever.
    std::function<void(bool complete)> check;
};

struct Outcome {
    std::uint64_t complete = 0;  ///< schedules run to the end of all threads
    std::uint64_t abandoned = 0; ///< schedules in which a thread met Options::waits
    std::uint64_t redundant = 0; ///< schedules given up as the same as an earlier one
    std::size_t longest = 0;     ///< steps
    bool exhausted = false;      ///< nothing is left to run
    std::string failure;         ///< what was wrong with the last schedule, and that schedule
};

/// Run the program until it fails, or all was run.
Outcome explore(const Program& program, const Options& options = {});

/// The program is wrong. Ends the run; from a thread it does not return.
void fail(std::string_view what);

/// The cells' names in a failing schedule are offsets from here.
void name_cells(const void* base);

/// Moments of a run: calls and returns, whose order is what linearizability is about. Each is
/// between two steps of its thread. As schedules that are the same are run once, the order in which
/// marks were made is one of several: leads_to() says which pairs have the same order in all of
/// them.
using Mark = std::uint32_t;
Mark mark_call();
/// Under TSO a call has returned, for other threads, when what it stored is in memory.
Mark mark_return();
/// From check() only.
bool leads_to(Mark from, Mark to);

/// What the cells call. Values travel as the low bytes of a word.
namespace step {

/// False outside of a program's threads: then there are no steps, and accesses are plain.
bool running();
std::uint64_t load(const void* cell, unsigned size);
void store(void* cell, unsigned size, std::uint64_t value, bool ordered);
/// Returns when the exchange may take place; update() completes it. `blind`: it adds to the cell,
/// and the thread does not learn what was there.
void begin_update();
void update(void* cell, unsigned size, std::uint64_t before, std::uint64_t after, bool blind);
void heavy_fence();
void wait();

} // namespace step

} // namespace devmem::interleave
