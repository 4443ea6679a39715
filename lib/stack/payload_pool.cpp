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

/// Where a name's pool is found. A return pins the entry for the length of the call, so that a pool
/// that goes away at the same time is not used after it has gone: `pool` is cleared, then `pins`
/// awaited. A valid token keeps its pool by itself; this is for stale ones.
struct Entry {
    std::atomic<PayloadPool*> pool{nullptr};
    std::atomic<std::uint32_t> pins{0};
    /// Where the next pool's tokens start, so that names never repeat.
    std::uint32_t generation = 0;
};

std::array<Entry, 256> table;
std::mutex table_lock;

void log_stale(const devmem_token& token)
{
    DEVMEM_LOG(ERR, "token %#llx returned although it is not out: returned twice, or never given",
               static_cast<unsigned long long>(token.id));
}

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
    pool->device_pages_ = page_pool_of(pool->device_);
    if (config.populated != 0 && config.populated != config.bytes) {
        const int rc = devmem_pool_resize(pool->device_, config.populated);
        if (rc < 0) {
            error = "region " + config.region->spec + ": cannot have " +
                    format_size(config.populated) + " for each shard: " + rte_strerror(-rc);
            return rc;
        }
    }

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
    pool->host_pages_ = page_pool_of(pool->host_);

    const PktmbufPoolLayout& layout = pool->device_layout_;
    pool->device_address_ = static_cast<std::uint64_t>(config.region->base) + layout.offset;
    pool->page_shift_ = static_cast<unsigned>(std::countr_zero(layout.page_bytes));
    pool->fragment_reciprocal_ =
        ((std::uint64_t{1} << 32) + layout.fragment_bytes - 1) / layout.fragment_bytes;
    const std::uint32_t slots = pool->fragments() + kSplitSlots;
    pool->slots_ = FlatArray<Slot>(slots);
    for (std::uint32_t i = pool->fragments(); i < slots; i++)
        pool->split_slots_.push_back(i);
    page_pool_set_token_mask(
        pool->device_,
        [](const void* p, std::uint32_t page) {
            return static_cast<const PayloadPool*>(p)->token_mask(false, page);
        },
        pool.get());
    page_pool_set_token_mask(
        pool->host_,
        [](const void* p, std::uint32_t page) {
            return static_cast<const PayloadPool*>(p)->token_mask(true, page);
        },
        pool.get());

    const std::lock_guard guard(table_lock);
    for (unsigned i = 0; i < table.size(); i++) {
        if (table[i].pool.load(std::memory_order_relaxed) != nullptr)
            continue;
        pool->index_ = i;
        pool->set_up_mint();
        for (std::uint32_t f = 0; f < slots; f++)
            pool->slots_[f].tag.store(Tag::of(table[i].generation), std::memory_order_relaxed);
        table[i].pool.store(pool.get(), std::memory_order_release);
        *made = pool.release();
        return 0;
    }
    error = "all " + std::to_string(table.size()) + " payload pools of this process are in use";
    return -ENOMEM;
}

void PayloadPool::set_up_mint()
{
    const PktmbufPoolLayout& l = device_layout_;
    mint_.fragments_ = l.fragments;
    mint_.slots_ = &slots_[0];
    mint_.by_page_ = device_pages_->by_page();
    mint_.fragment_bytes_ = l.fragment_bytes;
    mint_.page_rest_ = l.page_bytes - l.fragments_per_page * l.fragment_bytes;
    mint_.region_ = l.region;
    mint_.offset_ = l.offset;
    mint_.address_ = device_address_;
    mint_.flags_ = token_flags_;
    mint_.pool_ = index_;
}

void PayloadPool::set_base(std::uint32_t base)
{
    base_ = mint_.base_ = base;
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
        page_pool_set_token_mask(mp, nullptr, nullptr);
        if (mp != nullptr && devmem_pool_destroy(mp) == 1)
            DEVMEM_LOG(NOTICE, "%s: the port still holds fragments; the pool goes with the last",
                       mp->name);
    }
    region_release(host_region_);
}

void PayloadPool::detach()
{
    drop(kShard - made_);
}

void PayloadPool::drop(std::uint64_t references)
{
    if (live_.fetch_sub(references, std::memory_order_acq_rel) != references)
        return;
    Entry& entry = table[index_];
    {
        const std::lock_guard guard(table_lock);
        // The next pool in this entry starts above every generation this one gave out.
        std::uint32_t highest = 0;
        for (std::uint32_t f = 0; f < fragments() + kSplitSlots; f++)
            highest = std::max(highest, slots_[f].tag.load(std::memory_order_relaxed).generation());
        entry.generation = Tag::of(highest).next(0).generation();
        entry.pool.store(nullptr, std::memory_order_seq_cst);
    }
    while (entry.pins.load(std::memory_order_seq_cst) != 0)
        rte_pause();
    delete this;
}

void PayloadPool::make_token(const tcp::Run& run, std::uint32_t connection, devmem_token* token)
{
    const std::uint32_t first = run.first - base_;
    tokens_made(1, run.count);
    if (first < device_layout_.fragments) {
        mint_.make(run, connection, token);
        return;
    }
    Slot& slot = slots_[first];
    const Tag tag = slot.tag.load(std::memory_order_relaxed).next(run.count);
    slot.connection = connection;
    slot.tag.store(tag, std::memory_order_release);

    const PktmbufPoolLayout& layout = host_layout_;
    const std::uint32_t fragment = first - device_layout_.fragments;
    const std::uint32_t page = host_pages_->page_of(fragment);
    const std::uint32_t in_page = fragment - page * layout.fragments_per_page;
    token->id = tag.id(index_, first);
    token->region = layout.region;
    token->offset = layout.offset + std::uint64_t{page} * layout.page_bytes +
                    std::uint64_t{in_page} * layout.fragment_bytes + run.off;
    token->address = static_cast<std::uint64_t>(layout.region->base) + token->offset;
    token->length = run.len;
    token->flags = token_flags_ | DEVMEM_TOKEN_HOST;
}

void PayloadPool::release(std::uint32_t first, std::uint32_t count)
{
    first -= base_;
    with_engine_ -= count;
    if (first < device_layout_.fragments) {
        in_use_ -= count;
    } else {
        host_in_use_ -= count;
        for (std::uint32_t i = first; i < first + count; i++) {
            if (slots_[i].connection != kNobody)
                returns_->host_held[slots_[i].connection].fetch_sub(1, std::memory_order_relaxed);
        }
    }
    put(first, count);
}

void PayloadPool::keep_host(const tcp::Run& run, std::uint32_t connection)
{
    const std::uint32_t first = run.first - base_;
    if (first < device_layout_.fragments)
        return;
    for (std::uint32_t i = first; i < first + run.count; i++)
        slots_[i].connection = connection;
    returns_->host_held[connection].fetch_add(run.count, std::memory_order_relaxed);
}

void PayloadPool::put(std::uint32_t first, std::uint32_t count)
{
    if (first < device_layout_.fragments)
        page_pool_put_run(device_, first, count);
    else
        page_pool_put_run(host_, first - device_layout_.fragments, count);
}

void PayloadPool::put_mask(std::uint32_t page, std::uint64_t mask)
{
    if (mask != 0)
        page_pool_put_mask(device_, page, mask);
}

/// Take a token's name from it. Of two threads that return the same token, one succeeds.
/// @param alone no other thread returns or splits tokens
template <bool alone>
bool PayloadPool::take_back(Slot& slot, Tag& tag, std::uint64_t id)
{
    tag = slot.tag.load(std::memory_order_acquire);
    if (!tag.names(id))
        return false;
    if constexpr (alone) {
        slot.tag.store(tag.spent(), std::memory_order_release);
        return true;
    }
    return slot.tag.compare_exchange_strong(tag, tag.spent(), std::memory_order_acq_rel);
}

/// A token of host fragments, or one that a split made.
template <bool alone>
bool PayloadPool::return_rarely(std::uint64_t id)
{
    const std::uint32_t index = slot_of(id);
    if (index >= fragments() + kSplitSlots)
        return false;
    Slot& slot = slots_[index];
    const std::uint32_t connection = slot.connection;
    const std::uint32_t first = first_of(index);
    Tag tag;
    if (!take_back<alone>(slot, tag, id))
        return false;
    put(first, tag.count());
    if (first < device_layout_.fragments) {
        device_returned_ += tag.counted();
    } else {
        returns_->host_held[connection].fetch_sub(tag.counted(), std::memory_order_relaxed);
        host_returned_.fetch_add(tag.counted(), std::memory_order_relaxed);
    }
    returns_->by_connection[connection] += tag.counted();
    if (index >= fragments()) {
        const std::lock_guard guard(split_lock_);
        split_slots_.push_back(index);
    }
    return true;
}

/// Tokens up to the first that names another pool; those of a page are one put. @param good how
/// many were out @return how many there were
template <bool alone>
unsigned PayloadPool::return_several(std::span<const devmem_token> tokens, unsigned* good)
{
    const Divider by_page = device_pages_->by_page();
    const std::uint32_t device_fragments = device_layout_.fragments;
    const unsigned pool = index_;
    Slot* const slots = &slots_[0];
    tcp::Returned* const returned = &returns_->by_connection[0];
    const std::uint32_t per_page = by_page.divisor();
    std::uint32_t page = 0, page_begin = 0;
    std::uint64_t mask = 0; // fragments of that page
    std::uint32_t fragments = 0;
    unsigned stale = 0;
    const auto refuse = [&](const devmem_token& token) {
        stale++;
        log_stale(token);
    };
    auto token = tokens.begin();
    for (; token != tokens.end() && pool_of(token->id) == pool; ++token) {
        const std::uint64_t id = token->id;
        const std::uint32_t first = slot_of(id);
        if (first >= device_fragments) [[unlikely]] {
            if (!return_rarely<alone>(id))
                refuse(*token);
            continue;
        }
        Slot& slot = slots[first];
        const std::uint32_t connection = slot.connection;
        Tag tag;
        if (!take_back<alone>(slot, tag, id)) [[unlikely]] {
            refuse(*token);
            continue;
        }
        std::uint64_t bits = ~std::uint64_t{0} >> (64 - tag.count());
        if (first - page_begin >= per_page || (bits << (first - page_begin) & mask) != 0) {
            put_mask(page, mask);
            mask = 0;
            page = by_page.quotient(first);
            page_begin = page * per_page;
        }
        mask |= bits << (first - page_begin);
        fragments += tag.counted();
        if constexpr (alone)
            returned[connection].add_exclusive(tag.counted());
        else
            returned[connection] += tag.counted();
    }
    put_mask(page, mask);
    if constexpr (alone)
        device_returned_.add_exclusive(fragments);
    else
        device_returned_ += fragments;
    if (stale != 0) [[unlikely]]
        returns_->stale.fetch_add(stale, std::memory_order_relaxed);
    const auto n = static_cast<unsigned>(token - tokens.begin());
    *good = n - stale;
    return n;
}

unsigned PayloadPool::return_several(std::span<const devmem_token> tokens, unsigned* good)
{
    const Bias::Use use(returns_->bias);
    return use.alone() ? return_several<true>(tokens, good) : return_several<false>(tokens, good);
}

/// One more holder for a fragment.
int PayloadPool::hold(std::uint32_t fragment)
{
    return fragment < device_layout_.fragments
               ? page_pool_of(device_)->hold_run({fragment, 1})
               : page_pool_of(host_)->hold_run({fragment - device_layout_.fragments, 1});
}

int PayloadPool::split(devmem_token* token, std::uint32_t at, devmem_token* rest)
{
    const std::uint32_t index = slot_of(token->id);
    if (index >= fragments() + kSplitSlots)
        return -ESTALE;
    const Bias::Use use(returns_->bias);
    const std::lock_guard guard(split_lock_);
    Slot& slot = slots_[index];
    Tag tag = slot.tag.load(std::memory_order_acquire);
    const std::uint32_t first = first_of(index);
    const std::uint32_t count = tag.count();
    if (!tag.names(token->id))
        return -ESTALE;

    const PktmbufPoolLayout& layout =
        first < device_layout_.fragments ? device_layout_ : host_layout_;
    const std::uint64_t in_page = (token->offset - layout.offset) % layout.page_bytes;
    const auto skip = static_cast<std::uint32_t>(in_page % layout.fragment_bytes);
    const std::uint32_t whole = (skip + at) / layout.fragment_bytes;
    const bool shares = (skip + at) % layout.fragment_bytes != 0;
    if (whole + (shares ? 0 : 1) > count)
        return -EINVAL; // not as it was received

    // The second part goes by the number of its first fragment, unless another token does.
    std::uint32_t other = first + whole;
    const bool taken = slots_[other].tag.load(std::memory_order_relaxed).count() != 0;
    if (taken && split_slots_.empty())
        return -ENOSPC;
    if (shares) {
        if (const int rc = hold(first + whole); rc != 0)
            return rc == -ENOENT ? -ESTALE : rc;
    }
    // The first part keeps the name.
    const std::uint32_t kept = whole + (shares ? 1 : 0);

    if (!slot.tag.compare_exchange_strong(tag, Tag{(tag.word & ~Tag::kCountMask) | kept},
                                          std::memory_order_acq_rel)) {
        if (shares)
            put(first + whole, 1);
        return -ESTALE;
    }
    if (taken) {
        other = split_slots_.back();
        split_slots_.pop_back();
        slots_[other].first.store(first + whole, std::memory_order_relaxed);
    }

    Slot& second = slots_[other];
    const Tag next = second.tag.load(std::memory_order_relaxed).next(count - whole, shares);
    second.connection = slot.connection;
    second.tag.store(next, std::memory_order_release);
    live_.fetch_add(1, std::memory_order_relaxed);

    *rest = *token;
    rest->id = next.id(index_, other);
    rest->offset += at;
    rest->address += at;
    rest->length -= at;
    token->length = at;
    return 0;
}

int PayloadPool::split_token(devmem_token* token, std::uint32_t at, devmem_token* rest)
{
    if (at == 0 || at >= token->length)
        return -EINVAL;
    Entry& entry = table[pool_of(token->id)];
    entry.pins.fetch_add(1, std::memory_order_seq_cst);
    PayloadPool* pool = entry.pool.load(std::memory_order_seq_cst);
    const int rc = pool == nullptr ? -ESTALE : pool->split(token, at, rest);
    if (rc == -ESTALE && pool != nullptr)
        pool->returns_->stale.fetch_add(1, std::memory_order_relaxed);
    entry.pins.fetch_sub(1, std::memory_order_seq_cst);
    return rc;
}

/// Which fragments of a page belong to tokens.
std::uint64_t PayloadPool::token_mask(bool host, std::uint32_t page) const
{
    const PktmbufPoolLayout& layout = host ? host_layout_ : device_layout_;
    const std::uint32_t begin =
        (host ? device_layout_.fragments : 0) + page * layout.fragments_per_page;
    const std::uint32_t end = begin + layout.fragments_per_page;
    std::uint64_t mask = 0;
    const auto add = [&](std::uint32_t slot) {
        const std::uint32_t count = slots_[slot].tag.load(std::memory_order_relaxed).count();
        const std::uint32_t first = first_of(slot);
        if (count != 0 && first >= begin && first < end)
            mask |= (~std::uint64_t{0} >> (64 - count)) << (first - begin);
    };
    for (std::uint32_t i = begin; i < end; i++)
        add(i);
    for (std::uint32_t i = 0; i < kSplitSlots; i++)
        add(fragments() + i);
    return mask;
}

int PayloadPool::return_tokens(const devmem_token* tokens, unsigned n)
{
    bool stale = false;
    for (unsigned i = 0; i < n;) {
        const std::uint8_t index = pool_of(tokens[i].id);
        Entry& entry = table[index];
        entry.pins.fetch_add(1, std::memory_order_seq_cst);
        PayloadPool* const pool = entry.pool.load(std::memory_order_seq_cst);
        unsigned taken = 0, good = 0;
        if (pool != nullptr) [[likely]]
            taken = pool->return_several({tokens + i, n - i}, &good);
        else
            for (; i + taken < n && pool_of(tokens[i + taken].id) == index; taken++)
                log_stale(tokens[i + taken]);
        i += taken;
        stale |= good != taken;
        entry.pins.fetch_sub(1, std::memory_order_seq_cst);
        if (good != 0)
            pool->drop(good);
    }
    return stale ? -ESTALE : static_cast<int>(n);
}

} // namespace devmem
