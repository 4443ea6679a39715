// SPDX-License-Identifier: BSD-3-Clause
// What the page pool's threads share, in one place: a test may put a scheduler in its stead.
#pragma once

#ifdef DEVMEM_PAGE_POOL_SYNC_HEADER
#include DEVMEM_PAGE_POOL_SYNC_HEADER
#else

#include <atomic>
#include <thread>

namespace devmem::sync {

template <typename T>
using Atomic = std::atomic<T>;

/// Prepare this process for light_fence(). @return false: this system cannot; use real fences.
bool asymmetric_fences();

/// Orders this thread's stores before its later loads, as seen by threads that run heavy_fence().
/// Nothing but an order to the compiler.
inline void light_fence()
{
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

/// A full fence on every CPU that runs a process prepared for it. A system call.
/// @return false: not to be had; nothing is ordered.
bool heavy_fence();

inline void relax()
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

inline void yield()
{
    std::this_thread::yield();
}

} // namespace devmem::sync

#endif
