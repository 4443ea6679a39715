// SPDX-License-Identifier: BSD-3-Clause
#include "lib/memory/region.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace devmem {
namespace {

struct Registry {
    std::mutex mutex;
    std::vector<const Provider*> providers;
    std::map<std::uint64_t, Region*> live; ///< by the address of byte 0
};

/// Never destroyed: tokens and pools may drop the last reference of a region during exit.
Registry& registry()
{
    static Registry* const instance = [] {
        auto* made = new Registry;
        const auto builtin = builtin_providers();
        made->providers.assign(builtin.begin(), builtin.end());
        return made;
    }();
    return *instance;
}

const Provider* find_provider(std::string_view name, std::string& error)
{
    Registry& all = registry();
    const std::lock_guard lock(all.mutex);
    std::string names;
    for (const Provider* provider : all.providers) {
        if (provider->name == name)
            return provider;
        names += (names.empty() ? "" : ", ") + std::string(provider->name);
    }
    error = "unknown memory provider \"" + std::string(name) + "\" (providers: " + names + ")";
    return nullptr;
}

bool has_key(const Provider& provider, std::string_view key)
{
    for (auto valid = provider.keys; (*valid)[0]; ++valid) {
        if (key == (*valid)[0])
            return true;
    }
    return false;
}

int parse_keys(const Provider& provider, std::string_view text, SpecKeys& keys, std::string& error)
{
    while (!text.empty()) {
        const std::string_view item = text.substr(0, text.find(','));
        text.remove_prefix(std::min(item.size() + 1, text.size()));
        const std::size_t equals = item.find('=');
        const std::string key(item.substr(0, equals));
        if (!has_key(provider, key)) {
            error = "unknown key \"" + key + "\"";
            return -EINVAL;
        }
        if (equals == std::string_view::npos) {
            error = key + " has no value";
            return -EINVAL;
        }
        if (!keys.emplace(key, item.substr(equals + 1)).second) {
            error = key + " is given twice";
            return -EINVAL;
        }
    }
    return 0;
}

std::string valid_keys(const Provider& provider)
{
    std::string text;
    for (auto valid = provider.keys; (*valid)[0]; ++valid)
        text += (text.empty() ? " (keys: " : "; ") + std::string((*valid)[0]) + ": " + (*valid)[1];
    return text + ")";
}

} // namespace

int provider_register(const Provider& provider)
{
    Registry& all = registry();
    const std::lock_guard lock(all.mutex);
    for (const Provider* known : all.providers) {
        if (std::string_view(known->name) == provider.name)
            return -EEXIST;
    }
    all.providers.push_back(&provider);
    return 0;
}

int region_create(std::string_view spec, Region** region, std::string& error)
{
    const std::string_view name = spec.substr(0, spec.find(':'));
    const Provider* provider = find_provider(name, error);
    if (!provider)
        return -EINVAL;
    auto made = std::make_unique<Region>();
    made->provider = provider;
    made->spec = spec;
    SpecKeys keys;
    spec.remove_prefix(std::min(name.size() + 1, spec.size()));
    int rc = parse_keys(*provider, spec, keys, error);
    if (rc == 0)
        rc = provider->create(keys, *made, error);
    if (rc < 0) {
        error = std::string(name) + ": " + error + (rc == -EINVAL ? valid_keys(*provider) : "");
        return rc;
    }
    Registry& all = registry();
    const std::lock_guard lock(all.mutex);
    all.live.emplace(static_cast<std::uint64_t>(made->base), made.get());
    *region = made.release();
    return 0;
}

void region_acquire(Region& region)
{
    region.references.fetch_add(1, std::memory_order_relaxed);
}

void region_release(Region* region)
{
    if (!region || region->references.fetch_sub(1, std::memory_order_acq_rel) != 1)
        return;
    {
        Registry& all = registry();
        const std::lock_guard lock(all.mutex);
        all.live.erase(static_cast<std::uint64_t>(region->base));
    }
    region->provider->destroy(*region);
    delete region;
}

Region* region_find(std::uint64_t address)
{
    Registry& all = registry();
    const std::lock_guard lock(all.mutex);
    auto it = all.live.upper_bound(address);
    if (it == all.live.begin())
        return nullptr;
    --it;
    return address - it->first < it->second->bytes ? it->second : nullptr;
}

int parse_size(std::string_view text, std::uint64_t* bytes)
{
    const char* end = text.data() + text.size();
    std::uint64_t value = 0;
    const auto [at, ec] = std::from_chars(text.data(), end, value);
    if (ec != std::errc{})
        return -EINVAL;
    unsigned shift = 0;
    if (at != end) {
        constexpr std::string_view kUnits = "KMGkmg";
        const std::size_t unit = kUnits.find(*at);
        if (unit == std::string_view::npos || at + 1 != end)
            return -EINVAL;
        shift = 10 * (static_cast<unsigned>(unit) % 3 + 1);
    }
    if (value > UINT64_MAX >> shift)
        return -EINVAL;
    *bytes = value << shift;
    return 0;
}

std::string format_size(std::uint64_t bytes)
{
    const char* unit = "";
    for (const char* larger : {"K", "M", "G"}) {
        if (bytes == 0 || bytes % 1024 != 0)
            break;
        bytes /= 1024;
        unit = larger;
    }
    return std::to_string(bytes) + unit;
}

} // namespace devmem
