// SPDX-License-Identifier: BSD-3-Clause
// What a packet of two segments costs before anybody looks at it: its mbufs, from their pools and
// back.
#pragma once

#include "test/bench/modes.h"

#include <memory>
#include <vector>

struct rte_mempool;

namespace bench {

/// A header mbuf and a payload mbuf, 32 chains of them at a time: taken as a driver takes them,
/// chained, and put back as what is through with them does.
class Chains {
public:
    Chains();
    ~Chains();

    /// All ways of it once more, each for so long.
    void measure(double seconds);

    Stat ring() const { return summarize(ring_); } ///< two `ring_mp_mc` pools with caches of 256
    Stat ours() const { return summarize(ours_); } ///< a shard's header pool and payload pool
    void add_results(Report& report) const;

private:
    struct Pools;
    std::unique_ptr<Pools> pools_;
    std::vector<double> ring_, ours_, freed_, port_, touch_;
};

} // namespace bench
