// SPDX-License-Identifier: BSD-3-Clause
// In steady state nothing is allocated, no lock is taken and no system call is made: not by the
// stack, the engine, the pools, nor by a port that makes none itself.

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <rte_cycles.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <iterator>

using namespace devmem::test;

#if defined(__SANITIZE_ADDRESS__)
#define DEVMEM_UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DEVMEM_UNDER_ASAN 1
#endif
#endif

#ifndef DEVMEM_UNDER_ASAN

namespace {
std::atomic<bool> counting{false};
std::atomic<std::uint64_t> allocations{0};
std::atomic<std::uint64_t> locks{0};
} // namespace

// The program's own definitions come before the C library's for every shared object in it.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);

void* malloc(std::size_t n)
{
    if (counting.load(std::memory_order_relaxed))
        allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_malloc(n);
}

void* calloc(std::size_t n, std::size_t size)
{
    if (counting.load(std::memory_order_relaxed))
        allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_calloc(n, size);
}

void* realloc(void* p, std::size_t n)
{
    if (counting.load(std::memory_order_relaxed))
        allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_realloc(p, n);
}

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept
{
    // The one call that takes a lock without asking us to resolve it first.
    if (counting.load(std::memory_order_relaxed))
        locks.fetch_add(1, std::memory_order_relaxed);
    while (pthread_mutex_trylock(mutex) != 0)
        ;
    return 0;
}
}

namespace {

/// Move `bytes` from a to b and return every token. Uses nothing but the API and rings.
/// @return whether all came within 20 seconds
bool move(WirePair& wires, devmem_conn_t client, devmem_conn_t server, std::uint64_t bytes)
{
    static const std::array<std::uint8_t, 8192> chunk{};
    std::array<devmem_event, 16> events;
    std::array<devmem_token, 64> tokens;
    std::array<void*, 64> frames;
    std::uint64_t sent = 0, received = 0;
    const std::uint64_t deadline = rte_rdtsc() + 20 * rte_get_tsc_hz();
    while (received < bytes && rte_rdtsc() < deadline) {
        if (sent < bytes) {
            const std::int64_t taken =
                devmem_send(wires.a.shard, client, chunk.data(),
                            std::min<std::uint64_t>(chunk.size(), bytes - sent));
            sent += taken > 0 ? static_cast<std::uint64_t>(taken) : 0;
        }
        devmem_shard_poll(wires.a.shard, events.data(), events.size(), nullptr);
        devmem_shard_poll(wires.b.shard, events.data(), events.size(), nullptr);
        for (const auto& [from, to] :
             {std::pair{wires.a.tx, wires.b.rx}, std::pair{wires.b.tx, wires.a.rx}}) {
            const unsigned n = rte_ring_dequeue_burst(from, frames.data(), frames.size(), nullptr);
            rte_ring_enqueue_bulk(to, frames.data(), n, nullptr);
        }
        const int n = devmem_recv(wires.b.shard, server, tokens.data(), tokens.size());
        for (int t = 0; t < n; t++)
            received += tokens[static_cast<std::size_t>(t)].length;
        if (n > 0)
            devmem_token_return(tokens.data(), static_cast<unsigned>(n));
    }
    return received == bytes;
}

/// From here on any system call but exit kills. (Strict mode would forbid reading the TSC as well.)
bool forbid_system_calls()
{
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const sock_fprog program{std::size(filter), filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

struct SteadyState : testing::Test {
    void SetUp() override
    {
        ASSERT_TRUE(wires.establish(80, &client, &server));
        // Send buffers and windows grow to their size.
        ASSERT_TRUE(move(wires, client, server, 8u << 20));
    }
    WirePair wires{{}, {}};
    devmem_conn_t client = 0, server = 0;
};

} // namespace

TEST_F(SteadyState, AllocatesNothingAndTakesNoLock)
{
    allocations = 0;
    locks = 0;
    counting = true;
    free(malloc(1)); // the counter counts
    const bool all = move(wires, client, server, 16u << 20);
    counting = false;
    ASSERT_TRUE(all);
    EXPECT_EQ(allocations.load(), 1u);
    EXPECT_EQ(locks.load(), 0u);
}

TEST_F(SteadyState, MakesNoSystemCall)
{
    const pid_t child = fork();
    if (child == 0) {
        if (!forbid_system_calls())
            _exit(2);
        const bool all = move(wires, client, server, 4u << 20);
        syscall(SYS_exit, all ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status))
        << "killed by signal " << WTERMSIG(status) << ": the data path made a system call";
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

#endif
