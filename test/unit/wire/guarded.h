// SPDX-License-Identifier: BSD-3-Clause
// Bytes that end where an unmapped page begins: a read past them faults, in any build.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

namespace devmem::wire {

class Guarded {
public:
    explicit Guarded(std::size_t capacity)
    {
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        usable_ = (capacity + page - 1) / page * page;
        mapped_ = usable_ + page;
        void* map =
            mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED)
            std::abort();
        base_ = static_cast<std::uint8_t*>(map);
        if (mprotect(base_ + usable_, page, PROT_NONE) != 0)
            std::abort();
    }
    ~Guarded() { munmap(base_, mapped_); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    /// The last `size` bytes before the guard.
    std::span<std::uint8_t> tail(std::size_t size) { return {base_ + usable_ - size, size}; }

    /// A copy that ends at the guard. The copy before it is gone.
    std::span<const std::uint8_t> copy(std::span<const std::uint8_t> bytes)
    {
        const std::span<std::uint8_t> to = tail(bytes.size());
        if (!bytes.empty())
            std::memcpy(to.data(), bytes.data(), bytes.size());
        return to;
    }

private:
    std::uint8_t* base_;
    std::size_t usable_;
    std::size_t mapped_;
};

} // namespace devmem::wire
