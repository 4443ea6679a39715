// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace devmem {

/// An array made once, that is gone through at random: on huge pages where the kernel has them to
/// give, for with a table of many pages of 4 KiB the walk to a page costs more than what is there.
/// Elements are value-initialised.
template <typename T>
class FlatArray {
public:
    FlatArray() = default;
    /// Throws std::bad_alloc.
    explicit FlatArray(std::size_t size) : items_(allocate(size), Free{size})
    {
        std::uninitialized_value_construct_n(items_.get(), size);
    }

    T& operator[](std::size_t i) { return items_[i]; }
    const T& operator[](std::size_t i) const { return items_[i]; }

private:
    static constexpr std::size_t kHugePage = std::size_t{2} << 20;

    static T* allocate(std::size_t size)
    {
        const bool large = size * sizeof(T) >= kHugePage;
        const std::size_t alignment =
            large ? kHugePage : std::max(alignof(std::max_align_t), alignof(T));
        const std::size_t bytes = (size * sizeof(T) + alignment - 1) / alignment * alignment;
        void* const memory = std::aligned_alloc(alignment, bytes);
        if (memory == nullptr)
            throw std::bad_alloc();
        if (large) // a wish
            madvise(memory, bytes, MADV_HUGEPAGE);
        return static_cast<T*>(memory);
    }

    struct Free {
        std::size_t size = 0;
        void operator()(T* items) const
        {
            std::destroy_n(items, size);
            std::free(items);
        }
    };
    std::unique_ptr<T[], Free> items_;
};

} // namespace devmem
