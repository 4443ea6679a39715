// SPDX-License-Identifier: BSD-3-Clause
// Regions: contiguous payload memory made of pages, and the providers it comes from. No DPDK in
// here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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
    /// DEVMEM_REGION_* it can honour. A spec that asks for another is refused before create().
    std::uint32_t flags = 0;
    /// Make the memory: fill base, bytes, page_bytes, readable, numa_node, state, and spec in full;
    /// populated if less than `bytes` is backed at first, which is then the region's beginning.
    /// `flags` comes with what the spec asks for and leaves with what the region can do.
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
    /// With DEVMEM_REGION_GROW. Back whole pages with memory, resident before the call returns, and
    /// give it back to the system. Others may use the region's other pages meanwhile.
    int (*populate)(const Region& region, std::uint64_t offset, std::uint64_t bytes) = nullptr;
    int (*depopulate)(const Region& region, std::uint64_t offset, std::uint64_t bytes) = nullptr;
    /// Where a device finds a page. nullptr: at its device address.
    std::uint64_t (*dma_address)(const Region& region, std::uint64_t page) = nullptr;
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

/// Back pages with memory / give the memory of pages back to the system. Pages that are so already
/// are passed over. The caller sees to it that nobody uses pages it gives back; what they held is
/// lost, and reads as zero when they are populated again. All or nothing, but for depopulate()
/// where the provider fails in the middle. Any thread; slow path (a lock, system calls).
/// @return 0; -EOPNOTSUPP the region lacks DEVMEM_REGION_GROW; -EINVAL not whole pages; -ERANGE
///   outside the region; -ENOMEM; or what the provider returned.
int region_populate(Region& region, std::uint64_t offset, std::uint64_t bytes);
int region_depopulate(Region& region, std::uint64_t offset, std::uint64_t bytes);

/// DMA address of a page. @pre page < bytes / page_bytes
std::uint64_t dma_address(const Region& region, std::uint64_t page);

/// Parse a size such as `64K`, `256M`, `1G`. @return 0; -EINVAL.
int parse_size(std::string_view text, std::uint64_t* bytes);
/// Write a size in the largest unit that divides it.
std::string format_size(std::uint64_t bytes);

} // namespace devmem

struct devmem_region {
    const devmem::Provider* provider = nullptr;
    std::string spec;             ///< in full, defaults filled in
    devmem::DeviceAddress base{}; ///< of byte 0
    std::uint64_t bytes = 0;      ///< addressable, a multiple of page_bytes
    std::uint32_t page_bytes = 0; ///< a power of two
    int numa_node = -1;
    bool readable = false;   ///< the CPU may dereference `base`
    std::uint32_t flags = 0; ///< DEVMEM_REGION_*
    int dmabuf_fd = -1;
    void* state = nullptr; ///< the provider's
    std::atomic<std::uint32_t> references{1};
    std::atomic<std::uint64_t> populated{0}; ///< bytes backed by memory
    mutable std::mutex pages_lock;           ///< of what follows, and while pages change
    std::vector<bool> holes;                 ///< by page: not populated; with DEVMEM_REGION_GROW
};
