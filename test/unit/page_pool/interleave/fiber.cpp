// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/page_pool/interleave/fiber.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define DEVMEM_ASAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define DEVMEM_ASAN 1
#endif
#ifdef DEVMEM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace devmem::interleave {
namespace {

// By the switch under way.
Fiber* left = nullptr;
Fiber* entering = nullptr;

} // namespace

Fiber::Fiber(void (*entry)())
    : entry_(entry), stack_(new std::byte[kStack]), bottom_(stack_.get()), size_(kStack)
{
}

void Fiber::restart()
{
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_.get();
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    makecontext(&context_, entry_, 0);
#ifdef DEVMEM_ASAN
    // The frames that were left there are gone.
    __asan_unpoison_memory_region(stack_.get(), kStack);
#endif
}

void Fiber::switch_from(Fiber& from)
{
    left = &from;
    entering = this;
#ifdef DEVMEM_ASAN
    __sanitizer_start_switch_fiber(&from.fake_, bottom_, size_);
#endif
    swapcontext(&from.context_, &context_);
    entered();
}

void Fiber::entered()
{
#ifdef DEVMEM_ASAN
    __sanitizer_finish_switch_fiber(entering->fake_, &left->bottom_, &left->size_);
#endif
}

} // namespace devmem::interleave
