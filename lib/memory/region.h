// SPDX-License-Identifier: BSD-3-Clause
// Regions: contiguous payload memory made of pages, and the providers it comes from. No DPDK in
// here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

struct devmem_region;

namespace devmem {

/// The C API's handle is the region itself.
using Region = ::devmem_region;

/// An address in a region as the device and the mbufs know it. Its own type so that nobody
/// dereferences it by habit: the memory behind it may not be readable by the CPU.
enum class DeviceAddress : std::uint64_t {};

/// One piece of a scatter or gather: `host` bytes to or from `offset` in the region.
struct Transfer {
    std::uint64_t offset;
    void* host;
    std::size_t len;
};

/// `key=value` pairs of a spec, the provider's name taken off.
using SpecKeys = std::map<std::string, std::string, std::less<>>;

/// Where regions come from. One constant table per provider, registered by name.
/// Errors are negative errno; `error` receives one line that names the key at fault and the fix.
struct Provider {
    const char* name;
    /// Valid keys, each with what it means, NULL-terminated pairs: for messages and for refusal.
    const char* const (*keys)[2];
    /// Make the memory: fill base, bytes, page_bytes, readable, numa_node, state, and spec in full.
    /// The text of -EINVAL needs not list the keys: region_create() adds them.
    int (*create)(const SpecKeys& keys, Region& region, std::string& error);
    /// Give the memory back.
    void (*destroy)(Region& region);
    /// Write as a device's DMA would. Scatter: host to region.
    int (*dma_write)(const Region& region, std::span<const Transfer> transfers);
    /// Read back for tools and slow paths. Gather: region to host.
    int (*read_back)(const Region& region, std::span<const Transfer> transfers);
    /// A mapping through which a software port may write (and read) as its DMA engine; byte i is
    /// byte i of the region. nullptr if there is none: use dma_write.
    std::byte* (*map_for_port)(const Region& region);
    /// A dma-buf of the region, or -EOPNOTSUPP. The caller closes it.
    int (*export_dmabuf)(const Region& region);
};

/// Make a provider known. The table must live as long as the process.
/// @return 0; -EEXIST a provider of that name is registered.
int provider_register(const Provider& provider);

/// The providers every build has (drivers/memory), in the registry from the start. Referring to
/// them by name keeps them in a program that links the static library.
std::span<const Provider* const> builtin_providers();

/// @see devmem_region_create()
int region_create(std::string_view spec, Region** region, std::string& error);

void region_acquire(Region& region);
/// Drop a reference; the last one destroys the region.
void region_release(Region* region);

/// The region that contains an address, or nullptr. No reference is taken: the caller must know by
/// other means (a pool it holds) that the region stays. Any thread; slow path (takes a lock).
Region* region_find(std::uint64_t address);

/// Parse a size such as `64K`, `256M`, `1G`. @return 0; -EINVAL.
int parse_size(std::string_view text, std::uint64_t* bytes);
/// Write a size in the largest unit that divides it.
std::string format_size(std::uint64_t bytes);

} // namespace devmem

struct devmem_region {
    const devmem::Provider* provider = nullptr;
    std::string spec;             ///< in full, defaults filled in
    devmem::DeviceAddress base{}; ///< of byte 0
    std::uint64_t bytes = 0;      ///< a multiple of page_bytes
    std::uint32_t page_bytes = 0; ///< a power of two
    int numa_node = -1;
    bool readable = false; ///< the CPU may dereference `base`
    int dmabuf_fd = -1;
    void* state = nullptr; ///< the provider's
    std::atomic<std::uint32_t> references{1};
};
