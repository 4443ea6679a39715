// SPDX-License-Identifier: BSD-3-Clause
// The C API of regions.
#include "lib/memory/region.h"

#include <devmem/devmem.h>

#include <cerrno>
#include <cstdio>
#include <new>

int devmem_region_create(const char* spec, devmem_region** region, char* error,
                         std::size_t error_len)
{
    int rc = -ENOMEM;
    try {
        std::string text;
        rc = devmem::region_create(spec, region, text);
        if (rc < 0 && error)
            std::snprintf(error, error_len, "%s", text.c_str());
    } catch (const std::bad_alloc&) {
        if (error)
            std::snprintf(error, error_len, "out of memory");
    }
    return rc;
}

void devmem_region_release(devmem_region* region)
{
    devmem::region_release(region);
}

void devmem_region_info_get(const devmem_region* region, devmem_region_info* info)
{
    *info = {
        .spec = region->spec.c_str(),
        .provider = region->provider->name,
        .bytes = region->bytes,
        .populated = region->populated.load(std::memory_order_relaxed),
        .page_bytes = region->page_bytes,
        .numa_node = region->numa_node,
        .readable = region->readable,
        .address = static_cast<std::uint64_t>(region->base),
        .dmabuf_fd = region->dmabuf_fd,
        .flags = region->flags,
    };
}

int devmem_region_read(const devmem_region* region, std::uint64_t offset, void* dst,
                       std::size_t len)
{
    if (offset > region->bytes || len > region->bytes - offset)
        return -ERANGE;
    std::unique_lock lock(region->pages_lock, std::defer_lock);
    if (!region->holes.empty()) {
        lock.lock(); // to look where no memory is would put some there
        for (std::uint64_t at = offset & -std::uint64_t{region->page_bytes}; at < offset + len;
             at += region->page_bytes) {
            if (region->holes[at / region->page_bytes])
                return -ERANGE;
        }
    }
    const devmem::Transfer transfer{offset, dst, len};
    return region->provider->read_back(*region, {&transfer, 1}) < 0 ? -EIO : 0;
}
