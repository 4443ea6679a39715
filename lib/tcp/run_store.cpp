// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/run_store.h"

#include <cerrno>

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
    const int rc = extend(std::uint64_t{config.device_fragments} + config.host_fragments);
    if (rc == 0)
        config_ = config;
    return rc;
}

int RunStore::extend(std::uint64_t fragments)
{
    if (fragments >= kNone)
        return -EINVAL;
    if (fragments <= fragments_)
        return 0;
    // Not cleared, and moved page by page when it grows: the nodes of fragments that never arrive
    // never become resident.
    auto* nodes = static_cast<Node*>(std::realloc(nodes_.get(), fragments * sizeof(Node)));
    if (nodes == nullptr)
        return -ENOMEM;
    nodes_.release();
    nodes_.reset(nodes);
    fragments_ = fragments;
    return 0;
}

} // namespace devmem::tcp
