// SPDX-License-Identifier: BSD-3-Clause
// A stack that can be left and entered again. The sanitizers are told.
#pragma once

#include <cstddef>
#include <memory>

#include <ucontext.h>

namespace devmem::interleave {

class Fiber {
public:
    /// The stack that the caller is on.
    Fiber() = default;
    /// A stack of its own, on which restart() makes switch_to() begin with `entry`.
    explicit Fiber(void (*entry)());
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    /// Begin anew; what was on the stack is forgotten.
    void restart();
    /// Leave `from`, which is what runs, and enter this.
    void switch_from(Fiber& from);
    /// To be called first on a stack that was begun.
    static void entered();

private:
    static constexpr std::size_t kStack = std::size_t{256} * 1024;

    ucontext_t context_{};
    void (*entry_)() = nullptr;
    std::unique_ptr<std::byte[]> stack_;
    // What ASan knows of the stack.
    [[maybe_unused]] const void* bottom_ = nullptr;
    [[maybe_unused]] std::size_t size_ = 0;
    [[maybe_unused]] void* fake_ = nullptr;
};

} // namespace devmem::interleave
