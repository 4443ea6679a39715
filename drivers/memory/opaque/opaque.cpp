// SPDX-License-Identifier: BSD-3-Clause
// `opaque`: a stand-in for device memory. The device address is mapped PROT_NONE, so that whoever
// dereferences it faults; the bytes are reached through a second mapping of the same memory, which
// only a port that does its own DMA in software, and the read-back of the provider, ever see.
#include "lib/memory/cpu_memory.h"

#include <devmem/devmem.h>

#include <sys/mman.h>
#include <unistd.h>

#include <memory>

namespace devmem {
namespace {

constexpr std::uint32_t kFlags = DEVMEM_REGION_UNREADABLE | DEVMEM_REGION_GROW | DEVMEM_REGION_PORT;

struct Opaque {
    Mapping device; ///< PROT_NONE: what the application and the mbufs know
    Mapping port;   ///< PROT_READ | PROT_WRITE
};

const Opaque& opaque(const Region& region)
{
    return *static_cast<const Opaque*>(region.state);
}

int map_both(const CpuMemoryRequest& request, bool huge, Opaque& memory)
{
    // The name shows in /proc/PID/maps.
    const int fd = memfd_create("devmem-opaque", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0));
    if (fd < 0)
        return -errno;
    int rc = ftruncate(fd, static_cast<off_t>(request.max)) < 0 ? -errno : 0;
    if (rc == 0)
        rc = memory.device.map(request, PROT_NONE, MAP_SHARED, fd);
    if (rc == 0)
        rc = memory.port.map(request, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    close(fd);
    return rc < 0 ? rc : memory.port.place(request, huge);
}

int create(const SpecKeys& keys, Region& region, std::string& error)
{
    CpuMemoryRequest request;
    if (const int rc = request.parse(keys, region.flags, error); rc < 0)
        return rc;
    auto memory = std::make_unique<Opaque>();
    const int rc = make_with_pages(request, error,
                                   [&](bool huge) { return map_both(request, huge, *memory); });
    if (rc < 0)
        return rc;
    request.describe("opaque", kFlags, memory->port, region);
    region.base = DeviceAddress{reinterpret_cast<std::uintptr_t>(memory->device.data())};
    region.readable = false;
    region.state = memory.release();
    return 0;
}

void destroy(Region& region)
{
    delete static_cast<Opaque*>(region.state);
}

int dma_write(const Region& region, std::span<const Transfer> transfers)
{
    return opaque(region).port.scatter(transfers);
}

int read_back(const Region& region, std::span<const Transfer> transfers)
{
    return opaque(region).port.gather(transfers);
}

std::byte* map_for_port(const Region& region)
{
    return opaque(region).port.data();
}

int export_dmabuf(const Region&)
{
    return -EOPNOTSUPP;
}

int populate(const Region& region, std::uint64_t offset, std::uint64_t bytes)
{
    return opaque(region).port.populate(offset, bytes);
}

int depopulate(const Region& region, std::uint64_t offset, std::uint64_t bytes)
{
    return opaque(region).port.depopulate(offset, bytes);
}

} // namespace

extern const Provider kOpaqueProvider;
const Provider kOpaqueProvider{
    .name = "opaque",
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
