// SPDX-License-Identifier: BSD-3-Clause
// From the address an mbuf carries to one the driver may use. If the buffer lies in a region, the
// mbuf's own address is the device's: it may be mapped PROT_NONE and is never dereferenced here.
#pragma once

#include "lib/memory/region.h"

namespace devmem::hds {

/// The region of some buffers, or none. Holds a reference on it.
class BufferMap {
public:
    BufferMap() = default;
    BufferMap(const BufferMap&) = delete;
    BufferMap& operator=(const BufferMap&) = delete;
    ~BufferMap() { reset(); }

    /// Look up the region of an address, which must be kept alive by the caller meanwhile (it holds
    /// an mbuf with a buffer there). Slow path: takes a lock.
    void find(const void* address)
    {
        reset();
        region_ = region_find(reinterpret_cast<std::uintptr_t>(address));
        if (region_ == nullptr)
            return;
        region_acquire(*region_);
        base_ = static_cast<std::uintptr_t>(region_->base);
        bytes_ = region_->bytes;
        mapping_ = region_->provider->map_for_port(*region_);
    }

    void reset()
    {
        if (region_ != nullptr)
            region_release(region_);
        region_ = nullptr;
        bytes_ = 0;
        mapping_ = nullptr;
    }

    const Region* region() const { return region_; }
    bool contains(const void* address) const { return offset(address) < bytes_; }
    std::uint64_t offset(const void* address) const
    {
        return reinterpret_cast<std::uintptr_t>(address) - base_;
    }
    /// The CPU can reach the buffers: through the port mapping, or because they are plain memory.
    bool reachable() const { return region_ == nullptr || mapping_ != nullptr; }
    /// Where the CPU finds the byte the mbuf knows as `address`. Only if reachable().
    std::byte* cpu(void* address) const
    {
        return region_ == nullptr ? static_cast<std::byte*>(address) : mapping_ + offset(address);
    }

private:
    Region* region_ = nullptr;
    std::uintptr_t base_ = 0;
    std::uint64_t bytes_ = 0;
    std::byte* mapping_ = nullptr;
};

} // namespace devmem::hds
