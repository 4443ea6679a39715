// SPDX-License-Identifier: BSD-3-Clause
// A small pool, threads that call it, and what must be true whatever their schedule.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/page_pool/page_pool.h"
#include "test/unit/page_pool/interleave/history.h"
#include "test/unit/page_pool/interleave/scheduler.h"
#include "test/unit/page_pool/pool_fixture.h"

namespace devmem::test {

class PoolScenario;

/// One thread's calls. Those made by prepare() are no steps, and not part of the history.
class Caller {
public:
    Caller(PoolScenario& scenario, std::uint32_t lcore, unsigned thread)
        : scenario_(scenario), lcore_(lcore), thread_(thread)
    {
    }

    /// Take `n` fragments. @return which; 0 if refused.
    Fragments get(unsigned n);
    /// Give fragments of one page, which it need not have.
    Fragments put(Fragments fragments);
    /// Give all that it has; a call for each page.
    void put_all();
    /// Give the `n` lowest that it has, one call each.
    void put_lowest(unsigned n);
    void flush();
    /// Pass on what it has: the other may put it.
    void hand_to(Caller& other);
    Fragments held() const { return held_; }

private:
    friend class PoolScenario;

    PoolScenario& scenario_;
    std::uint32_t lcore_;
    unsigned thread_;
    Fragments held_ = 0;
};

class PoolScenario {
public:
    struct Shape {
        unsigned pages;
        unsigned per_page;
        unsigned lcores;
    };
    using Body = std::function<void(Caller&)>;

    explicit PoolScenario(Shape shape);

    /// A thread; `lcore` may be kNoLcore.
    PoolScenario& thread(std::uint32_t lcore, Body body);
    /// What is done before the threads start. By default all fragments are free, and in the list.
    PoolScenario& prepare(std::function<void(std::vector<Caller>&)> body);

    interleave::Outcome explore(const interleave::Options& options);
    std::size_t histories() const { return verdicts_.size(); }

private:
    friend class Caller;

    struct Marks {
        interleave::Mark call, ret;
    };

    std::size_t begin(const Call& call);
    void end(std::size_t call, Fragments result);
    void start();
    void check(bool complete);
    void check_free(Fragments free, const char* when);
    void check_double_frees(Fragments free);
    void check_drained(Fragments free);
    void check_history();
    bool every_order_linearizable(std::uint32_t begun, std::uint32_t ended);
    bool verdict();

    Shape shape_;
    PagePoolConfig config_;
    std::unique_ptr<std::byte[]> memory_;
    void* block_;
    PagePool* pool_ = nullptr;
    std::vector<Body> bodies_;
    std::vector<std::uint32_t> lcores_;
    std::function<void(std::vector<Caller>&)> prepare_;
    std::vector<Caller> callers_;
    bool prepared_ = false;

    History history_;
    std::vector<Marks> marks_;
    std::vector<std::uint32_t> forced_call_, forced_return_, own_earlier_;
    std::map<std::vector<std::uint64_t>, bool> verdicts_;
};

} // namespace devmem::test
