// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/address_space.h"

#include "lib/memory/region.h"

#include <devmem/devmem.h>

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <stdexcept>

namespace bench {
namespace {

using devmem::Region;

constexpr std::uint32_t kPageBytes = 64 * 1024;

int create(const devmem::SpecKeys& keys, Region& region, std::string& error)
{
    const auto size = keys.find("size");
    std::uint64_t bytes = 0;
    if (size == keys.end() || devmem::parse_size(size->second, &bytes) != 0 || bytes == 0 ||
        bytes % kPageBytes != 0) {
        error = "size is missing, or not a multiple of 64K";
        return -EINVAL;
    }
    // One page more than asked for, so that an aligned beginning is in it.
    void* at = mmap(nullptr, bytes + kPageBytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    region.state = at;
    region.base = devmem::DeviceAddress{(reinterpret_cast<std::uintptr_t>(at) + kPageBytes - 1) &
                                        -std::uintptr_t{kPageBytes}};
    region.bytes = region.populated = bytes;
    region.page_bytes = kPageBytes;
    region.flags = DEVMEM_REGION_UNREADABLE;
    region.spec = "space:size=" + devmem::format_size(bytes);
    return 0;
}

void destroy(Region& region)
{
    munmap(region.state, region.bytes + kPageBytes);
}

constexpr const char* kKeys[][2]{{"size", "bytes, a multiple of 64K"}, {nullptr, nullptr}};

constexpr devmem::Provider kProvider{
    .name = "space",
    .keys = kKeys,
    .flags = DEVMEM_REGION_UNREADABLE,
    .create = create,
    .destroy = destroy,
    .dma_write = [](const Region&, std::span<const devmem::Transfer>) { return -EOPNOTSUPP; },
    .read_back = [](const Region&, std::span<const devmem::Transfer>) { return -EOPNOTSUPP; },
    .map_for_port = [](const Region&) -> std::byte* { return nullptr; },
    .export_dmabuf = [](const Region&) { return -EOPNOTSUPP; },
};

} // namespace

void register_address_space()
{
    const int rc = devmem::provider_register(kProvider);
    if (rc != 0 && rc != -EEXIST)
        throw std::runtime_error("cannot register a provider of regions");
}

} // namespace bench
