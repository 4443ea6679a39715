// SPDX-License-Identifier: BSD-3-Clause
#include "lib/memory/region.h"

#include <devmem/devmem.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace devmem {
namespace {

constexpr char kFlagsKey[] = "flags";

struct Flag {
    std::uint32_t bit;
    std::string_view name;
};
constexpr Flag kFlags[] = {
    {DEVMEM_REGION_READABLE, "readable"}, {DEVMEM_REGION_UNREADABLE, "unreadable"},
    {DEVMEM_REGION_DMABUF, "dmabuf"},     {DEVMEM_REGION_GROW, "grow"},
    {DEVMEM_REGION_PORT, "port"},
};

/// As a spec writes them: `readable+port`.
std::string flag_names(std::uint32_t flags)
{
    std::string names;
    for (const Flag& flag : kFlags) {
        if ((flags & flag.bit) != 0)
            names.append(names.empty() ? "" : "+").append(flag.name);
    }
    return names;
}

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
    return key == kFlagsKey;
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
    return text + "; " + kFlagsKey + ": " + flag_names(~0u) + ")";
}

/// The flags a spec asks for. @return 0; -EINVAL unknown; -EOPNOTSUPP the provider cannot.
int parse_flags(const Provider& provider, const std::string& text, std::uint32_t* flags,
                std::string& error)
{
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find('+', at), text.size());
        const std::string_view name = std::string_view(text).substr(at, end - at);
        at = end + 1;
        const auto known = std::find_if(std::begin(kFlags), std::end(kFlags),
                                        [&](const Flag& flag) { return flag.name == name; });
        if (known == std::end(kFlags)) {
            error = "unknown flag \"" + std::string(name) + "\"";
            return -EINVAL;
        }
        if ((provider.flags & known->bit) == 0) {
            error = "flags=" + std::string(name) +
                    " is not to be had of this provider, which can " +
                    (provider.flags != 0 ? flag_names(provider.flags) : "none");
            return -EOPNOTSUPP;
        }
        *flags |= known->bit;
    }
    return 0;
}

/// Check the arguments of region_populate() and region_depopulate().
int check_pages(const Region& region, std::uint64_t offset, std::uint64_t bytes)
{
    if ((region.flags & DEVMEM_REGION_GROW) == 0)
        return -EOPNOTSUPP;
    if (offset % region.page_bytes != 0 || bytes % region.page_bytes != 0)
        return -EINVAL;
    return offset > region.bytes || bytes > region.bytes - offset ? -ERANGE : 0;
}

/// Settle the pages of a range that are not as asked, a run of adjacent ones at a time.
int change_pages(Region& region, std::uint64_t offset, std::uint64_t bytes, bool populate)
{
    const std::uint64_t page = region.page_bytes;
    const auto change = populate ? region.provider->populate : region.provider->depopulate;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> done;
    const std::uint64_t end = offset + bytes;
    for (std::uint64_t at = offset; at < end;) {
        std::uint64_t run = 0;
        while (at + run < end && region.holes[(at + run) / page] == populate)
            run += page;
        if (run == 0) {
            at += page;
            continue;
        }
        if (const int rc = change(region, at, run); rc < 0) {
            for (const auto& [begin, len] : done)
                change_pages(region, begin, len, false);
            return rc;
        }
        std::fill_n(region.holes.begin() + static_cast<std::ptrdiff_t>(at / page), run / page,
                    !populate);
        region.populated.fetch_add(populate ? run : -run, std::memory_order_relaxed);
        if (populate)
            done.emplace_back(at, run);
        at += run;
    }
    return 0;
}

/// Takes down a region that nobody else has seen yet.
struct Destroy {
    void operator()(Region* region) const
    {
        region->provider->destroy(*region);
        delete region;
    }
};

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
    std::string asked;
    if (const auto flags = keys.find(kFlagsKey); rc == 0 && flags != keys.end()) {
        rc = parse_flags(*provider, flags->second, &made->flags, error);
        asked.append(",").append(kFlagsKey).append("=").append(flag_names(made->flags));
        keys.erase(flags);
    }
    if (rc == 0)
        rc = provider->create(keys, *made, error);
    if (rc < 0) {
        error = std::string(name) + ": " + error + (rc == -EINVAL ? valid_keys(*provider) : "");
        return rc;
    }
    std::unique_ptr<Region, Destroy> whole(made.release());
    whole->spec += asked;
    if (whole->populated == 0)
        whole->populated = whole->bytes;
    if ((whole->flags & DEVMEM_REGION_GROW) != 0) {
        whole->holes.resize(whole->bytes / whole->page_bytes, true);
        std::fill_n(whole->holes.begin(), whole->populated / whole->page_bytes, false);
    }
    Registry& all = registry();
    const std::lock_guard lock(all.mutex);
    all.live.emplace(static_cast<std::uint64_t>(whole->base), whole.get());
    *region = whole.release();
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

int region_populate(Region& region, std::uint64_t offset, std::uint64_t bytes)
{
    const std::lock_guard lock(region.pages_lock);
    const int rc = check_pages(region, offset, bytes);
    return rc < 0 ? rc : change_pages(region, offset, bytes, true);
}

int region_depopulate(Region& region, std::uint64_t offset, std::uint64_t bytes)
{
    const std::lock_guard lock(region.pages_lock);
    const int rc = check_pages(region, offset, bytes);
    return rc < 0 ? rc : change_pages(region, offset, bytes, false);
}

std::uint64_t dma_address(const Region& region, std::uint64_t page)
{
    return region.provider->dma_address != nullptr
               ? region.provider->dma_address(region, page)
               : static_cast<std::uint64_t>(region.base) + page * region.page_bytes;
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
