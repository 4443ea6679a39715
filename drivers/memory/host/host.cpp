// SPDX-License-Identifier: BSD-3-Clause
// `host`: memory the CPU may read, on hugepages or plain pages.
#include "lib/memory/cpu_memory.h"

#include <devmem/devmem.h>

#include <sys/mman.h>

#include <memory>

namespace devmem {
namespace {

constexpr std::uint32_t kFlags = DEVMEM_REGION_READABLE | DEVMEM_REGION_GROW | DEVMEM_REGION_PORT;

Mapping& mapping(const Region& region)
{
    return *static_cast<Mapping*>(region.state);
}

int create(const SpecKeys& keys, Region& region, std::string& error)
{
    CpuMemoryRequest request;
    if (const int rc = request.parse(keys, region.flags, error); rc < 0)
        return rc;
    auto memory = std::make_unique<Mapping>();
    const int rc = make_with_pages(request, error, [&](bool huge) {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0);
        if (const int mapped = memory->map(request, PROT_READ | PROT_WRITE, flags, -1); mapped < 0)
            return mapped;
        return memory->place(request, huge);
    });
    if (rc < 0)
        return rc;
    request.describe("host", kFlags, *memory, region);
    region.base = DeviceAddress{reinterpret_cast<std::uintptr_t>(memory->data())};
    region.readable = true;
    region.state = memory.release();
    return 0;
}

void destroy(Region& region)
{
    delete &mapping(region);
}

int dma_write(const Region& region, std::span<const Transfer> transfers)
{
    return mapping(region).scatter(transfers);
}

int read_back(const Region& region, std::span<const Transfer> transfers)
{
    return mapping(region).gather(transfers);
}

std::byte* map_for_port(const Region& region)
{
    return mapping(region).data();
}

int export_dmabuf(const Region&)
{
    return -EOPNOTSUPP;
}

int populate(const Region& region, std::uint64_t offset, std::uint64_t bytes)
{
    return mapping(region).populate(offset, bytes);
}

int depopulate(const Region& region, std::uint64_t offset, std::uint64_t bytes)
{
    return mapping(region).depopulate(offset, bytes);
}

} // namespace

extern const Provider kHostProvider;
const Provider kHostProvider{
    .name = "host",
    .keys = kCpuMemoryKeys,
    .flags = kFlags,
    .create = create,
    .destroy = destroy,
    .dma_write = dma_write,
    .read_back = read_back,
    .map_for_port = map_for_port,
    .export_dmabuf = export_dmabuf,
    .populate = populate,
    .depopulate = depopulate,
};

} // namespace devmem
