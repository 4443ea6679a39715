// SPDX-License-Identifier: BSD-3-Clause
// One pool, several processes. The second ones are this program again, told what to do line by
// line; some of them are killed. Run by multiprocess.sh.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <devmem/devmem.h>
#include <gtest/gtest.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_memzone.h>
#include <rte_ring.h>

namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kFragment = 2048;
constexpr std::uint32_t kPerPage = 32;
constexpr std::uint32_t kFragments = 64 * kPerPage;
constexpr char kOwners[] = "owners";
constexpr char kToPrimary[] = "to_primary";
constexpr char kToSecondary[] = "to_secondary";
/// Where the second process answers; EAL logs to the standard output.
constexpr int kAnswers = 100;

/// Who has which mbuf, written by those who have them: an mbuf that is handed out twice is found by
/// whoever gets it second.
class Owners {
public:
    Owners()
    {
        const rte_memzone* zone = rte_memzone_lookup(kOwners);
        table_ = static_cast<std::atomic<int>*>(zone->addr);
    }
    /// @return false: somebody has it.
    bool take(const rte_mbuf* m) const { return at(m).exchange(getpid()) == 0; }
    void put(const rte_mbuf* m) const { at(m).store(0); }
    void bury(int pid) const
    {
        for (std::uint32_t i = 0; i < kFragments; ++i) {
            int dead = pid;
            table_[i].compare_exchange_strong(dead, 0);
        }
    }

private:
    std::atomic<int>& at(const rte_mbuf* m) const { return table_[m->dynfield1[0]]; }

    std::atomic<int>* table_;
};

/// Get and put at random for as long as `go`. @return mbufs that were handed out twice
template <typename Go>
unsigned churn(rte_mempool* pool, unsigned seed, std::vector<rte_mbuf*>& held, Go go)
{
    const Owners owners;
    std::minstd_rand random{seed};
    unsigned twice = 0;
    while (go()) {
        rte_mbuf* got[48];
        const auto n = static_cast<unsigned>(1 + random() % 48);
        if (held.size() < 400 && rte_pktmbuf_alloc_bulk(pool, got, n) == 0) {
            for (unsigned i = 0; i < n; ++i) {
                twice += owners.take(got[i]) ? 0 : 1;
                held.push_back(got[i]);
            }
        }
        for (std::size_t i = random() % (held.size() + 1); i > 0; --i) {
            std::swap(held[random() % held.size()], held.back());
            owners.put(held.back());
            rte_pktmbuf_free(held.back());
            held.pop_back();
        }
    }
    return twice;
}

// ---- the second process

int do_as_told()
{
    std::FILE* const answers = fdopen(kAnswers, "w");
    setvbuf(answers, nullptr, _IOLBF, 0);
    rte_mempool* pool = nullptr;
    std::vector<rte_mbuf*> held;
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::string command;
        unsigned n = 0;
        words >> command;
        long answer = 0;
        if (command == "pool") {
            words >> command;
            pool = rte_mempool_lookup(command.c_str());
            answer = pool == nullptr ? -ENOENT : 0;
        } else if (command == "get") {
            words >> n;
            std::vector<rte_mbuf*> got(n);
            answer = rte_pktmbuf_alloc_bulk(pool, got.data(), n);
            if (answer == 0)
                held.insert(held.end(), got.begin(), got.end());
        } else if (command == "put") {
            words >> n;
            rte_pktmbuf_free_bulk(held.data() + held.size() - n, n);
            held.resize(held.size() - n);
        } else if (command == "put-again") {
            rte_mempool_put(pool, held.back());
            rte_mempool_put(pool, held.back());
            held.pop_back();
        } else if (command == "spoil") {
            for (rte_mbuf* m : held) {
                m->nb_segs = 2;
                m->next = held.front();
                m->data_len = 99;
                m->ol_flags |= RTE_MBUF_F_RX_VLAN;
                rte_mbuf_refcnt_set(m, 7);
                rte_mbuf_ext_refcnt_set(m->shinfo, 3);
            }
        } else if (command == "alloc") {
            words >> n;
            devmem_fragment fragment;
            answer = devmem_pool_alloc(pool, n, &fragment);
            answer = answer == 0 ? static_cast<long>(fragment.count) : answer;
        } else if (command == "send") {
            answer = rte_ring_enqueue_bulk(rte_ring_lookup(kToPrimary),
                                           reinterpret_cast<void**>(held.data()),
                                           static_cast<unsigned>(held.size()), nullptr);
            held.clear();
        } else if (command == "receive") {
            void* m = nullptr;
            while (rte_ring_dequeue(rte_ring_lookup(kToSecondary), &m) == 0)
                held.push_back(static_cast<rte_mbuf*>(m));
            answer = static_cast<long>(held.size());
        } else if (command == "count") {
            answer = rte_mempool_avail_count(pool);
        } else if (command == "churn") {
            words >> n;
            // It answers in the middle of its work, which it does not end.
            churn(pool, n, held, [&, round = 0]() mutable {
                if (++round == 100)
                    std::fprintf(answers, "0\n");
                return true;
            });
        }
        std::fprintf(answers, "%ld\n", answer);
    }
    return 0;
}

// ---- the first

std::vector<std::string> eal_arguments;

class Secondary {
public:
    explicit Secondary(const char* pool)
    {
        int to[2];
        int from[2];
        if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
            return;
        pid_ = fork();
        if (pid_ == 0) {
            dup2(to[0], STDIN_FILENO);
            dup2(from[1], kAnswers);
            std::vector<std::string> args = eal_arguments;
            args.insert(args.begin(), "secondary");
            args.emplace_back("--proc-type=secondary");
            std::vector<char*> argv;
            for (std::string& arg : args)
                argv.push_back(arg.data());
            argv.push_back(nullptr);
            execv("/proc/self/exe", argv.data());
            _exit(127);
        }
        close(to[0]);
        close(from[1]);
        to_ = fdopen(to[1], "w");
        from_ = fdopen(from[0], "r");
        std::fprintf(to_, "pool %s\n", pool);
        std::fflush(to_);
    }
    ~Secondary()
    {
        std::fclose(to_); // the end of what it is told
        std::fclose(from_);
        int status = 0;
        EXPECT_EQ(pid_, waitpid(pid_, &status, 0));
        EXPECT_TRUE(killed_ || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
            << "status " << status;
    }
    Secondary(const Secondary&) = delete;
    Secondary& operator=(const Secondary&) = delete;

    int pid() const { return pid_; }
    /// Tell it what to do. @return what it answers
    long ask(const std::string& command)
    {
        if (!std::exchange(begun_, true)) {
            EXPECT_EQ(0, answer()) << "it did not find the pool";
        }
        std::fprintf(to_, "%s\n", command.c_str());
        std::fflush(to_);
        return answer();
    }
    /// Without waiting for it to be gone: until it is waited for it is a zombie.
    void kill()
    {
        ::kill(pid_, SIGKILL);
        siginfo_t info;
        waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
        killed_ = true;
    }

private:
    long answer()
    {
        char line[64];
        return std::fgets(line, sizeof(line), from_) == nullptr ? -EPIPE : std::atol(line);
    }

    int pid_ = -1;
    std::FILE* to_ = nullptr;
    std::FILE* from_ = nullptr;
    bool begun_ = false;
    bool killed_ = false;
};

class Processes : public testing::Test {
protected:
    void SetUp() override { make("opaque:size=4M,page=64K,huge=no", 0); }
    void TearDown() override
    {
        if (pool != nullptr) {
            EXPECT_EQ(leaks ? 1 : 0, devmem_pool_destroy(pool));
        }
        for (rte_ring* ring : {to_primary, to_secondary})
            rte_ring_free(ring);
        rte_memzone_free(owners);
    }
    void make(const char* spec, std::uint32_t flags)
    {
        char error[256] = "";
        devmem_region* region = nullptr;
        ASSERT_EQ(0, devmem_region_create(spec, &region, error, sizeof(error))) << error;
        const std::string name = "pool" + std::to_string(++pools);
        const devmem_pool_config config{.size = sizeof(config),
                                        .name = name.c_str(),
                                        .region = region,
                                        .offset = 0,
                                        .bytes = 0,
                                        .page_bytes = 0,
                                        .fragment_bytes = kFragment,
                                        .socket_id = SOCKET_ID_ANY,
                                        .flags = flags};
        pool = devmem_pool_create(&config, error, sizeof(error));
        devmem_region_release(region);
        ASSERT_NE(nullptr, pool) << error;
        ASSERT_EQ(kFragments, pool->size);
        owners = rte_memzone_reserve(kOwners, kFragments * sizeof(int), SOCKET_ID_ANY, 0);
        ASSERT_NE(nullptr, owners);
        std::memset(owners->addr, 0, owners->len);
        // Each mbuf carries its number, where nobody else writes.
        rte_mempool_obj_iter(
            pool,
            [](rte_mempool*, void*, void* object, unsigned index) {
                static_cast<rte_mbuf*>(object)->dynfield1[0] = index;
            },
            nullptr);
        to_primary = rte_ring_create(kToPrimary, 4096, SOCKET_ID_ANY, 0);
        to_secondary = rte_ring_create(kToSecondary, 4096, SOCKET_ID_ANY, 0);
        ASSERT_TRUE(to_primary != nullptr && to_secondary != nullptr);
    }
    unsigned available() const { return rte_mempool_avail_count(pool); }
    devmem_pool_stats stats() const
    {
        devmem_pool_stats s{};
        EXPECT_EQ(0, devmem_pool_stats_get(pool, &s));
        return s;
    }
    std::vector<rte_mbuf*> take(unsigned n) const
    {
        std::vector<rte_mbuf*> mbufs(n);
        EXPECT_EQ(0, rte_pktmbuf_alloc_bulk(pool, mbufs.data(), n));
        return mbufs;
    }
    static void put(std::vector<rte_mbuf*>& mbufs)
    {
        rte_pktmbuf_free_bulk(mbufs.data(), static_cast<unsigned>(mbufs.size()));
        mbufs.clear();
    }
    std::vector<devmem_pool_holder> holders() const
    {
        std::vector<devmem_pool_holder> list(80);
        const int n = devmem_pool_holders_get(pool, list.data(), 80);
        EXPECT_GE(n, 0);
        list.resize(static_cast<std::size_t>(std::max(n, 0)));
        return list;
    }
    devmem_pool_holder holder(int pid) const
    {
        for (const devmem_pool_holder& h : holders()) {
            if (h.pid == pid)
                return h;
        }
        return {DEVMEM_HOLDER_PROCESS, -1, false, 0, 0};
    }
    /// Everything can be had, once, and is as new.
    void expect_as_new() const
    {
        std::vector<rte_mbuf*> all = take(kFragments);
        ASSERT_EQ(kFragments, std::set<rte_mbuf*>(all.begin(), all.end()).size());
        for (const rte_mbuf* m : all) {
            const char* reason = "";
            ASSERT_EQ(0, rte_mbuf_check(m, 1, &reason)) << reason;
            ASSERT_EQ(std::uint64_t{RTE_MBUF_F_EXTERNAL}, m->ol_flags);
            ASSERT_EQ(1, rte_mbuf_ext_refcnt_read(m->shinfo));
            ASSERT_EQ(0, m->data_len);
            ASSERT_EQ(nullptr, m->next);
        }
        put(all);
        EXPECT_EQ(kFragments, available());
        EXPECT_EQ(stats().hold, stats().release);
        EXPECT_EQ(0U, holders().size());
    }

    static inline int pools = 0;
    rte_mempool* pool = nullptr;
    rte_ring* to_primary = nullptr;
    rte_ring* to_secondary = nullptr;
    const rte_memzone* owners = nullptr;
    bool leaks = false; ///< is meant to
};

TEST_F(Processes, ShareAPool)
{
    Secondary second(pool->name);
    EXPECT_EQ(kFragments, second.ask("count"));
    EXPECT_EQ(0, second.ask("get 100"));
    std::vector<rte_mbuf*> mine = take(70);
    EXPECT_EQ(kFragments - 170, available());
    EXPECT_EQ(kFragments - 170, second.ask("count"));
    EXPECT_EQ(2U, holders().size());
    EXPECT_EQ(DEVMEM_HOLDER_PROCESS, holder(second.pid()).kind);
    EXPECT_EQ(100U, holder(second.pid()).fragments);
    EXPECT_TRUE(holder(second.pid()).alive);
    EXPECT_EQ(70U, holder(0).fragments);
    EXPECT_EQ(0, second.ask("put 40"));
    EXPECT_EQ(60U, holder(second.pid()).fragments);
    EXPECT_EQ(-EBUSY, devmem_pool_reclaim(pool, second.pid()));
    EXPECT_EQ(60U, holder(second.pid()).fragments);

    // What one has got the other puts.
    EXPECT_EQ(60, second.ask("send"));
    void* m = nullptr;
    while (rte_ring_dequeue(to_primary, &m) == 0)
        rte_pktmbuf_free(static_cast<rte_mbuf*>(m));
    EXPECT_EQ(kFragments - 70, available());
    EXPECT_EQ(-1, holder(second.pid()).pid) << "it has none now";
    EXPECT_EQ(70U, rte_ring_enqueue_bulk(to_secondary, reinterpret_cast<void**>(mine.data()), 70,
                                         nullptr));
    EXPECT_EQ(70, second.ask("receive"));
    EXPECT_EQ(-1, holder(second.pid()).pid) << "what was handed to it is the giver's";
    EXPECT_EQ(0, second.ask("put 70"));
    EXPECT_EQ(kFragments, available());
    EXPECT_EQ(0U, stats().double_free);

    EXPECT_EQ(0, second.ask("get 2"));
    EXPECT_EQ(0, second.ask("put-again"));
    EXPECT_EQ(1U, stats().double_free);
    EXPECT_EQ(0, second.ask("put 1"));
    EXPECT_EQ(3, second.ask("alloc 6000"));
    EXPECT_EQ(3U, holder(second.pid()).fragments);
    second.kill();
    EXPECT_EQ(3, devmem_pool_reclaim(pool, second.pid()));
    expect_as_new();
}

// A get does not fail while enough is free, whoever's stack it is in.
TEST_F(Processes, TakeFromEachOthersStacks)
{
    Secondary second(pool->name);
    std::vector<rte_mbuf*> mine = take(20 * kPerPage + 3);
    put(mine);
    mine = take(5);
    EXPECT_EQ(0, second.ask("get " + std::to_string(kFragments - 5)));
    EXPECT_EQ(nullptr, rte_pktmbuf_alloc(pool));
    EXPECT_EQ(-ENOBUFS, second.ask("get 1"));
    put(mine);
    EXPECT_EQ(0, second.ask("get 5"));
    EXPECT_EQ(kFragments, holder(second.pid()).fragments);
    EXPECT_EQ(0, second.ask("put " + std::to_string(kFragments)));
    expect_as_new();
}

TEST_F(Processes, LeaveWhatTheyHadToBeReclaimed)
{
    std::vector<rte_mbuf*> mine = take(33);
    const auto second = std::make_unique<Secondary>(pool->name);
    Secondary third(pool->name);
    EXPECT_EQ(-ENOENT, devmem_pool_reclaim(pool, 1));
    EXPECT_EQ(0, second->ask("get 150"));
    EXPECT_EQ(5, second->ask("alloc 10000"));
    EXPECT_EQ(0, third.ask("get 50"));
    std::this_thread::sleep_for(100ms);
    EXPECT_EQ(0, second->ask("spoil"));
    EXPECT_EQ(-EBUSY, devmem_pool_reclaim(pool, second->pid()));
    second->kill();
    const devmem_pool_holder dead = holder(second->pid());
    EXPECT_EQ(155U, dead.fragments);
    EXPECT_FALSE(dead.alive);
    EXPECT_GE(dead.oldest_ms, 90U);
    EXPECT_TRUE(holder(third.pid()).alive);
    EXPECT_EQ(50U, holder(third.pid()).fragments);
    EXPECT_EQ(33U, holder(0).fragments);
    EXPECT_EQ(kFragments - 155 - 50 - 33, available());

    EXPECT_EQ(155, devmem_pool_reclaim(pool, second->pid()));
    EXPECT_EQ(kFragments - 50 - 33, available());
    EXPECT_EQ(-ENOENT, devmem_pool_reclaim(pool, second->pid())) << "it is done";
    EXPECT_EQ(-EBUSY, devmem_pool_reclaim(pool, third.pid()));
    EXPECT_EQ(2U, holders().size());
    EXPECT_EQ(0, third.ask("put 50"));
    put(mine);
    EXPECT_EQ(0U, stats().double_free);
    expect_as_new();
}

// The second process does not have the region: it must not look at poison, or fill what it puts.
TEST_F(Processes, EndThePoison)
{
    TearDown();
    ASSERT_NO_FATAL_FAILURE(
        make("host:size=4M,page=64K,huge=no", DEVMEM_POOL_POISON | DEVMEM_POOL_RED_ZONE));
    std::vector<rte_mbuf*> mine = take(100);
    for (rte_mbuf* m : mine)
        std::memset(m->buf_addr, 1, m->buf_len);
    Secondary second(pool->name);
    EXPECT_EQ(0, second.ask("get 200"));
    EXPECT_EQ(100U, rte_ring_enqueue_bulk(to_secondary, reinterpret_cast<void**>(mine.data()), 100,
                                          nullptr));
    EXPECT_EQ(300, second.ask("receive"));
    EXPECT_EQ(0, second.ask("put 300"));
    expect_as_new();
    EXPECT_EQ(0U, stats().poison_damaged + stats().red_zone_damaged);
    mine = take(1);
    static_cast<char*>(mine[0]->buf_addr)[mine[0]->buf_len] ^= 1;
    put(mine);
    EXPECT_EQ(1U, stats().red_zone_damaged) << "which nobody need fill";
}

/// What of the pool can be had, one by one. Put back again.
std::set<rte_mbuf*> all_of(rte_mempool* pool)
{
    std::vector<rte_mbuf*> all;
    while (rte_mbuf* m = rte_pktmbuf_alloc(pool))
        all.push_back(m);
    rte_pktmbuf_free_bulk(all.data(), static_cast<unsigned>(all.size()));
    std::set<rte_mbuf*> distinct(all.begin(), all.end());
    EXPECT_EQ(all.size(), distinct.size()) << "an mbuf was handed out twice";
    return distinct;
}

// Killed wherever they happen to be, while the first process goes on.
TEST_F(Processes, MayDieInTheMiddle)
{
    constexpr unsigned kKills = 50;
    std::minstd_rand random{11};
    struct First {
        rte_mempool* pool;
        unsigned seed;
        unsigned twice;
        std::atomic<bool> stop;
    } first{pool, 1, 0, false};
    // On a worker: its number is that of another thread in the other processes.
    const auto run_first = [](void* argument) {
        First& f = *static_cast<First*>(argument);
        std::vector<rte_mbuf*> held;
        f.twice += churn(f.pool, f.seed++, held, [&] { return !f.stop; });
        for (rte_mbuf* m : held)
            Owners().put(m);
        put(held);
        return 0;
    };
    const unsigned worker = rte_get_next_lcore(-1U, 1, 0);
    ASSERT_LT(worker, RTE_MAX_LCORE);
    std::vector<std::size_t> lost; // by two of them
    std::size_t before = kFragments;
    for (unsigned kill = 0; kill < kKills; kill += 2) {
        Secondary two[] = {Secondary{pool->name}, Secondary{pool->name}};
        first.stop = false;
        ASSERT_EQ(0, rte_eal_remote_launch(run_first, &first, worker));
        for (unsigned i = 0; i < 2; ++i)
            EXPECT_EQ(0, two[i].ask("churn " + std::to_string(kill + i)));
        for (Secondary& second : two) {
            std::this_thread::sleep_for(std::chrono::microseconds(500 + random() % 5000));
            second.kill();
            Owners().bury(second.pid());
            EXPECT_GE(devmem_pool_reclaim(pool, second.pid()), 0);
        }
        first.stop = true;
        rte_eal_wait_lcore(worker);
        const std::size_t now = all_of(pool).size();
        EXPECT_LE(now, before) << "what was lost came back: it was handed out twice";
        lost.push_back(before - std::min(now, before));
        before = now;
    }
    EXPECT_EQ(0U, first.twice);
    EXPECT_EQ(0U, stats().double_free + stats().foreign_free);
    // What is lost is not looked for over and over again.
    std::vector<rte_mbuf*> all = take(static_cast<unsigned>(before));
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 1000; ++i)
        EXPECT_EQ(nullptr, rte_pktmbuf_alloc(pool));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
    put(all);
    std::printf("note %u killed in the middle: %zu fragments lost, %zu at most by two\n", kKills,
                kFragments - before, *std::ranges::max_element(lost));
    // Each had begun a get or put of one table at most, of pages of which it kept one in hand.
    EXPECT_LE(*std::ranges::max_element(lost), 2 * (48U + 2 * kPerPage));
    leaks = before != kFragments;
}

} // namespace

int main(int argc, char** argv)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    const bool secondary = argc > 0 && std::strcmp(argv[0], "secondary") == 0;
    if (!secondary)
        testing::InitGoogleTest(&argc, argv);
    eal_arguments.assign(argv + 1, argv + argc);
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof(cpus), &cpus);
    if (rte_eal_init(argc, argv) < 0) {
        std::fprintf(stderr, "EAL: %s\n", rte_strerror(rte_errno));
        return 2;
    }
    sched_setaffinity(0, sizeof(cpus), &cpus); // EAL binds lcores; the threads here go anywhere
    signal(SIGPIPE, SIG_IGN); // a process that ends when it should not is noticed by its answer
    const int status = secondary ? do_as_told() : RUN_ALL_TESTS();
    rte_eal_cleanup();
    return status;
}
