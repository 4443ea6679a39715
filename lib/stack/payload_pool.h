// SPDX-License-Identifier: BSD-3-Clause
// The payload memory of a shard and the tokens that stand for pieces of it.
#pragma once

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "lib/tcp/run.h"

#include <devmem/devmem.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

struct rte_mempool;

namespace devmem {

/// Device fragments [0, D) and host fragments [D, D + H) of one shard. Host fragments take the
/// payload bytes a port left in header mbufs. It lives as long as its shard or any of its tokens:
/// whichever is last takes it down.
///
/// Threads: the shard's thread makes tokens; any thread returns them.
class PayloadPool {
public:
    struct Config {
        const char* name;      ///< prefix of the mempools' names
        devmem_region* region; ///< the device region
        std::uint64_t offset;  ///< the shard's part of it
        std::uint64_t bytes;
        std::uint64_t host_bytes; ///< size of the host region to make
        struct devmem_fit fit;
        std::uint32_t connections; ///< connection slots of the shard
        int socket_id;
    };

    /// @param error one line that says what failed
    /// @return the pool with the shard's reference held, or nullptr
    static PayloadPool* create(const Config& config, std::string& error);

    /// Drop the shard's reference.
    void detach();

    /// Make a token of a run; the run's fragments now belong to it. Shard's thread only.
    void make_token(const tcp::Run& run, std::uint32_t connection, devmem_token* token);

    /// Account for `n` tokens just made: one atomic for many tokens.
    void tokens_made(std::uint32_t n) { live_.fetch_add(n, std::memory_order_relaxed); }

    /// Return tokens by name. Any thread. @see devmem_token_return()
    static int return_tokens(const devmem_token* tokens, unsigned n);

    /// Put fragments back that never became a token. Shard's thread only.
    void put(std::uint32_t first, std::uint32_t count);

    rte_mempool* device_mempool() const { return device_; }
    rte_mempool* host_mempool() const { return host_; }
    const PktmbufPoolLayout& device_layout() const { return device_layout_; }
    const PktmbufPoolLayout& host_layout() const { return host_layout_; }

    /// Device fragments returned by the application, ever.
    std::uint64_t device_returned() const
    {
        return device_returned_.load(std::memory_order_relaxed);
    }
    /// Fragments of a connection slot returned by the application, ever.
    const std::atomic<std::uint32_t>* returned_by(std::uint32_t connection) const
    {
        return &returned_[connection];
    }
    /// A slot starts over with another connection: none of the last one's tokens is out.
    void forget_returned(std::uint32_t connection)
    {
        returned_[connection].store(0, std::memory_order_relaxed);
    }
    /// Refused returns that named this pool.
    std::uint64_t stale_returns() const { return stale_.load(std::memory_order_relaxed); }

    /// Fragment index of a device buffer that starts at `address`.
    std::uint32_t device_fragment(const void* address) const
    {
        const auto at = reinterpret_cast<std::uintptr_t>(address) - device_address_;
        const auto in_page = static_cast<std::uint32_t>(at) & (device_layout_.page_bytes - 1);
        const auto page = static_cast<std::uint32_t>(at >> page_shift_);
        return page * device_layout_.fragments_per_page +
               static_cast<std::uint32_t>((in_page * fragment_reciprocal_) >> 32);
    }

private:
    PayloadPool() = default;
    ~PayloadPool();

    /// While a token is out: generation << 8 | fragments. Afterwards: generation << 8.
    struct Slot {
        std::atomic<std::uint32_t> tag{0};
        std::uint32_t connection = 0;
    };

    bool return_one(std::uint64_t id, std::uint32_t* device_fragments);
    void drop(std::uint32_t references);

    rte_mempool* device_ = nullptr;
    rte_mempool* host_ = nullptr;
    devmem_region* host_region_ = nullptr;
    PktmbufPoolLayout device_layout_{};
    PktmbufPoolLayout host_layout_{};
    std::uint64_t device_address_ = 0; ///< of the pool's first byte, as the mbufs carry it
    unsigned page_shift_ = 0;
    std::uint64_t fragment_reciprocal_ = 0; ///< 2^32 / fragment_bytes, rounded up
    unsigned index_ = 0;                    ///< in the table of pools
    std::unique_ptr<Slot[]> slots_;
    std::unique_ptr<std::atomic<std::uint32_t>[]> returned_;

    alignas(64) std::atomic<std::uint64_t> live_{1}; ///< tokens out, and one for the shard
    std::atomic<std::uint64_t> device_returned_{0};
    std::atomic<std::uint64_t> stale_{0};
};

} // namespace devmem
