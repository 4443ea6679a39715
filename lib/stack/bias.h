// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/page_pool/sync.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace devmem {

/// Spares the only thread that ever does something the atomic read-modify-writes that several
/// would need. The first has it to itself, and says by a plain store that it is at it. When another
/// comes, it takes that away for good, awaits the first, and from then on nobody has it.
///
/// Any thread.
class Bias {
public:
    /// While it exists, its thread does the thing.
    class Use {
    public:
        explicit Use(Bias& bias) : bias_(bias), alone_(bias.enter()) {}
        ~Use()
        {
            if (alone_)
                bias_.busy_.store(false, std::memory_order_release);
        }
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;
        /// No other thread does it meanwhile. Otherwise others may, at the same time.
        bool alone() const { return alone_; }

    private:
        Bias& bias_;
        const bool alone_;
    };

private:
    bool enter()
    {
        const pthread_t self = pthread_self();
        pthread_t owner = owner_.load(std::memory_order_relaxed);
        if (owner != self && (owner != pthread_t{} || !owner_.compare_exchange_strong(
                                                          owner, self, std::memory_order_relaxed)))
            [[unlikely]] {
            revoke();
            return false;
        }
        // Dekker's: either this thread sees `revoked_`, or revoke() sees `busy_`.
        busy_.store(true, std::memory_order_relaxed);
        if (asymmetric_) [[likely]]
            sync::light_fence();
        else
            std::atomic_thread_fence(std::memory_order_seq_cst);
        if (!revoked_.load(std::memory_order_acquire)) [[likely]]
            return true;
        busy_.store(false, std::memory_order_release);
        return false;
    }

    void revoke()
    {
        if (awaited_.load(std::memory_order_acquire)) [[likely]]
            return;
        revoked_.store(true, std::memory_order_seq_cst);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        // Refused though it was granted, by a seccomp filter say: the other's store is out long
        // before this is over.
        if (asymmetric_ && !sync::heavy_fence())
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        while (busy_.load(std::memory_order_seq_cst))
            sync::yield();
        awaited_.store(true, std::memory_order_release);
    }

    const bool asymmetric_ = sync::asymmetric_fences();
    std::atomic<pthread_t> owner_{};
    std::atomic<bool> busy_{false};
    std::atomic<bool> revoked_{false};
    std::atomic<bool> awaited_{false}; ///< revoked, and its owner is not at it
};

} // namespace devmem
