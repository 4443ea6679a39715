// SPDX-License-Identifier: BSD-3-Clause
// What devmem-bench can measure.
#pragma once

#include "test/bench/report.h"

namespace bench {

struct Options {
    unsigned rounds = 5;   ///< of all cells
    double seconds = 0.02; ///< per cell and round
};

/// A mode adds its results and asks to a report. EAL runs; the caller is the main lcore.
/// Throws std::runtime_error with one line if it cannot measure.
using Mode = void(const Options& options, Report& report);

Mode e2e;
Mode fit;
Mode flat;
Mode latency;
Mode memory;
Mode mempool;
Mode rx;
Mode tokens;

} // namespace bench
