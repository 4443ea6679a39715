// SPDX-License-Identifier: BSD-3-Clause

#include "lib/stack/payload_pool.h"

#include "lib/memory/region.h"
#include "lib/stack/log.h"

#include <rte_errno.h>
#include <rte_mempool.h>
#include <rte_pause.h>

#include <array>
#include <bit>
#include <cerrno>
#include <mutex>

namespace devmem {

namespace {

/// A token's name: generation (24 bits), pool (8), first fragment (32).
constexpr unsigned kGenerationShift = 40;
constexpr unsigned kPoolShift = 32;
constexpr std::uint32_t kGenerationMask = 0xffffff;

/// Where a name's pool is found. A return pins the entry for the length of the call, so that a pool
/// that goes away at the same time is not used after it has gone: `pool` is cleared, then `pins`
/// awaited. A valid token keeps its pool by itself; this is for stale ones.
struct Entry {
    std::atomic<PayloadPool*> pool{nullptr};
    std::atomic<std::uint32_t> pins{0};
    std::uint32_t generation =
        0; ///< where the next pool's tokens start, so that names never repeat
};

std::array<Entry, 256> table;
std::mutex table_lock;

} // namespace

int PayloadPool::create(const Config& config, PayloadPool** made, std::string& error)
{
    std::unique_ptr<PayloadPool, void (*)(PayloadPool*)> pool(new PayloadPool,
                                                              [](PayloadPool* p) { delete p; });
    {
        const std::lock_guard guard(table_lock);
        for (const Entry& entry : table) {
            const PayloadPool* other = entry.pool.load(std::memory_order_relaxed);
            if (other != nullptr && other->overlaps(config)) {
                error = "region " + config.region->spec +
                        ": a stack has payload there, or tokens of it are out";
                return -EBUSY;
            }
        }
    }
    pool->returns_ = config.returns;
    pool->token_flags_ = config.token_flags;

    const std::string device_name = config.name + "_dev";
    pool->device_ = devmem_pktmbuf_pool_create(device_name.c_str(), config.region, config.offset,
                                               config.bytes, config.fit.page_bytes,
                                               config.fit.fragment_bytes, config.socket_id);
    if (pool->device_ == nullptr) {
        error = "cannot make the payload pool " + device_name + ": " + rte_strerror(rte_errno);
        return -rte_errno;
    }
    pool->device_layout_ = *pktmbuf_pool_layout(pool->device_);

    const std::uint64_t page = config.region->page_bytes;
    const std::uint64_t host_bytes = (config.host_bytes + page - 1) / page * page;
    const std::string spec =
        "host:size=" + std::to_string(host_bytes) + ",page=" + std::to_string(page) + ",huge=no";
    if (const int rc = region_create(spec, &pool->host_region_, error); rc != 0)
        return rc;
    const std::string host_name = config.name + "_host";
    pool->host_ = devmem_pktmbuf_pool_create(host_name.c_str(), pool->host_region_, 0, 0,
                                             config.fit.page_bytes, config.fit.fragment_bytes,
                                             config.socket_id);
    if (pool->host_ == nullptr) {
        error = "cannot make the host payload pool " + host_name + ": " + rte_strerror(rte_errno);
        return -rte_errno;
    }
    pool->host_layout_ = *pktmbuf_pool_layout(pool->host_);

    const PktmbufPoolLayout& layout = pool->device_layout_;
    pool->device_address_ = static_cast<std::uint64_t>(config.region->base) + layout.offset;
    pool->page_shift_ = static_cast<unsigned>(std::countr_zero(layout.page_bytes));
    pool->fragment_reciprocal_ =
        ((std::uint64_t{1} << 32) + layout.fragment_bytes - 1) / layout.fragment_bytes;
    pool->slots_ = std::make_unique<Slot[]>(pool->fragments());

    const std::lock_guard guard(table_lock);
    for (unsigned i = 0; i < table.size(); i++) {
        if (table[i].pool.load(std::memory_order_relaxed) != nullptr)
            continue;
        pool->index_ = i;
        for (std::uint32_t f = 0; f < pool->fragments(); f++)
            pool->slots_[f].tag.store(table[i].generation << 8, std::memory_order_relaxed);
        table[i].pool.store(pool.get(), std::memory_order_release);
        *made = pool.release();
        return 0;
    }
    error = "all " + std::to_string(table.size()) + " payload pools of this process are in use";
    return -ENOMEM;
}

/// Whether the pool is on memory that another is to be made on.
bool PayloadPool::overlaps(const Config& config) const
{
    const PktmbufPoolLayout& l = device_layout_;
    const std::uint64_t end =
        l.offset + std::uint64_t{l.fragments / l.fragments_per_page} * l.page_bytes;
    return l.region == config.region && l.offset < config.offset + config.bytes &&
           config.offset < end;
}

PayloadPool::~PayloadPool()
{
    for (rte_mempool* mp : {device_, host_}) {
        if (mp != nullptr && devmem_pktmbuf_pool_free(mp) != 0)
            DEVMEM_LOG(ERR, "%s: fragments are still held by the port; their memory stays",
                       mp->name);
    }
    region_release(host_region_);
}

void PayloadPool::detach()
{
    drop(1);
}

void PayloadPool::drop(std::uint32_t references)
{
    if (live_.fetch_sub(references, std::memory_order_acq_rel) != references)
        return;
    Entry& entry = table[index_];
    {
        const std::lock_guard guard(table_lock);
        // The next pool in this entry starts above every generation this one gave out.
        std::uint32_t highest = 0;
        for (std::uint32_t f = 0; f < fragments(); f++)
            highest = std::max(highest, slots_[f].tag.load(std::memory_order_relaxed) >> 8);
        entry.generation = (highest + 1) & kGenerationMask;
        entry.pool.store(nullptr, std::memory_order_seq_cst);
    }
    while (entry.pins.load(std::memory_order_seq_cst) != 0)
        rte_pause();
    delete this;
}

void PayloadPool::make_token(const tcp::Run& run, std::uint32_t connection, devmem_token* token)
{
    const std::uint32_t first = run.first - base_;
    const bool host = first >= device_layout_.fragments;
    const PktmbufPoolLayout& layout = host ? host_layout_ : device_layout_;
    const std::uint32_t fragment = host ? first - device_layout_.fragments : first;
    with_engine_ -= run.count;

    Slot& slot = slots_[first];
    const std::uint32_t generation =
        ((slot.tag.load(std::memory_order_relaxed) >> 8) + 1) & kGenerationMask;
    slot.connection = connection;
    slot.tag.store(generation << 8 | run.count, std::memory_order_release);

    const std::uint32_t page = fragment / layout.fragments_per_page;
    const std::uint32_t in_page = fragment % layout.fragments_per_page;
    token->id =
        std::uint64_t{generation} << kGenerationShift | std::uint64_t{index_} << kPoolShift | first;
    token->region = layout.region;
    token->offset = layout.offset + std::uint64_t{page} * layout.page_bytes +
                    std::uint64_t{in_page} * layout.fragment_bytes + run.off;
    token->address = static_cast<std::uint64_t>(layout.region->base) + token->offset;
    token->length = run.len;
    token->flags = token_flags_ | (host ? DEVMEM_TOKEN_HOST : 0);
}

void PayloadPool::release(std::uint32_t first, std::uint32_t count)
{
    first -= base_;
    with_engine_ -= count;
    if (first < device_layout_.fragments)
        in_use_ -= count;
    put(first, count);
}

void PayloadPool::put(std::uint32_t first, std::uint32_t count)
{
    if (first < device_layout_.fragments)
        page_pool_put_run(device_, first, count);
    else
        page_pool_put_run(host_, first - device_layout_.fragments, count);
}

bool PayloadPool::return_one(std::uint64_t id, std::uint32_t* device_fragments)
{
    const auto first = static_cast<std::uint32_t>(id);
    const auto generation = static_cast<std::uint32_t>(id >> kGenerationShift);
    if (first >= fragments())
        return false;
    Slot& slot = slots_[first];
    std::uint32_t tag = slot.tag.load(std::memory_order_acquire);
    const std::uint32_t connection = slot.connection;
    const std::uint32_t count = tag & 0xff;
    // Of two threads that return the same token, the exchange lets one through.
    if (count == 0 || tag >> 8 != generation ||
        !slot.tag.compare_exchange_strong(tag, generation << 8, std::memory_order_acq_rel))
        return false;
    put(first, count);
    returns_->by_connection[connection].fetch_add(count, std::memory_order_release);
    if (first < device_layout_.fragments)
        *device_fragments += count;
    return true;
}

int PayloadPool::return_tokens(const devmem_token* tokens, unsigned n)
{
    bool stale = false;
    for (unsigned i = 0; i < n;) {
        const auto index = static_cast<std::uint8_t>(tokens[i].id >> kPoolShift);
        Entry& entry = table[index];
        entry.pins.fetch_add(1, std::memory_order_seq_cst);
        PayloadPool* pool = entry.pool.load(std::memory_order_seq_cst);

        std::uint32_t good = 0;
        std::uint32_t device_fragments = 0;
        for (; i < n && static_cast<std::uint8_t>(tokens[i].id >> kPoolShift) == index; i++) {
            if (pool != nullptr && pool->return_one(tokens[i].id, &device_fragments)) {
                good++;
                continue;
            }
            stale = true;
            if (pool != nullptr)
                pool->returns_->stale.fetch_add(1, std::memory_order_relaxed);
            DEVMEM_LOG(
                ERR, "token %#llx returned although it is not out: returned twice, or never given",
                static_cast<unsigned long long>(tokens[i].id));
        }
        if (device_fragments != 0)
            pool->device_returned_.fetch_add(device_fragments, std::memory_order_release);
        entry.pins.fetch_sub(1, std::memory_order_seq_cst);
        if (good != 0)
            pool->drop(good);
    }
    return stale ? -ESTALE : static_cast<int>(n);
}

} // namespace devmem
