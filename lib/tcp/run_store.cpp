// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/run_store.h"

#include <cerrno>
#include <new>

namespace devmem::tcp {

namespace {

bool valid_pool(std::uint32_t fragments, std::uint32_t bytes, std::uint32_t per_page)
{
    return fragments == 0 || (bytes != 0 && bytes <= UINT16_MAX && per_page != 0 && per_page <= 64);
}

} // namespace

int RunStore::create(const RunStoreConfig& config)
{
    if (!valid_pool(config.device_fragments, config.device_fragment_bytes,
                    config.device_fragments_per_page) ||
        !valid_pool(config.host_fragments, config.host_fragment_bytes,
                    config.host_fragments_per_page))
        return -EINVAL;
    const std::uint64_t fragments = std::uint64_t{config.device_fragments} + config.host_fragments;
    if (fragments >= kNone)
        return -EINVAL;
    // Not cleared: the nodes of fragments that never arrive never become resident.
    nodes_.reset(new (std::nothrow) Node[fragments]);
    if (!nodes_)
        return -ENOMEM;
    config_ = config;
    return 0;
}

} // namespace devmem::tcp
