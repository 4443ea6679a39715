// SPDX-License-Identifier: BSD-3-Clause
// The payload memory of a shard and the tokens that stand for pieces of it.
#pragma once

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "lib/memory/flat_array.h"
#include "lib/page_pool/page_pool.h"
#include "lib/stack/bias.h"
#include "lib/tcp/returned.h"
#include "lib/tcp/run.h"

#include <devmem/devmem.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

struct rte_mempool;

namespace devmem {

/// Device fragments [0, D) and host fragments [D, D + H) of one shard. Host fragments take the
/// payload bytes a port left in header mbufs. It lives as long as its shard or any of its tokens:
/// whichever is last takes it down.
///
/// A shard that changes its memory has a pool for each region that the engine holds bytes in. The
/// engine knows fragments by numbers in one space: a pool's begin at its `base`.
///
/// Threads: the shard's thread makes tokens; any thread returns them.
class PayloadPool {
public:
    /// What came back, counted over all pools of a shard. Outlives them all.
    struct Returns {
        explicit Returns(std::uint32_t connections)
            : by_connection(connections),
              host_held(std::make_unique<std::atomic<std::uint32_t>[]>(connections))
        {
        }
        /// Fragments returned by the application, ever, of each connection slot.
        FlatArray<tcp::Returned> by_connection;
        /// Of what ends or divides a token.
        Bias bias;
        /// Host fragments that the engine or the application holds, of each connection slot.
        std::unique_ptr<std::atomic<std::uint32_t>[]> host_held;
        std::atomic<std::uint64_t> stale{0}; ///< refused returns
    };

    struct Config {
        std::string name;      ///< prefix of the mempools' names
        devmem_region* region; ///< the device region
        std::uint64_t offset;  ///< the shard's part of it
        std::uint64_t bytes;
        std::uint64_t populated;  ///< how much of it to back with memory; 0: leave it as it is
        std::uint64_t host_bytes; ///< size of the host region to make
        struct devmem_fit fit;
        int socket_id;
        std::shared_ptr<Returns> returns;
        std::uint32_t token_flags; ///< of every token
    };

    /// @param error one line that says what failed
    /// @return 0 and the pool with the shard's reference held; -EBUSY another pool has part of that
    ///   memory; -EINVAL; -ENOMEM
    static int create(const Config& config, PayloadPool** pool, std::string& error);

    /// Drop the shard's reference.
    void detach();

    /// Where the pool's fragments begin in the engine's space. Shard's thread only, as all down to
    /// tokens_made(). Before any fragment is taken.
    void set_base(std::uint32_t base);
    std::uint32_t base() const { return base_; }
    /// Fragments of both kinds.
    std::uint32_t fragments() const { return device_layout_.fragments + host_layout_.fragments; }
    bool has(std::uint32_t fragment) const { return fragment - base_ < fragments(); }

    /// The fragment of a device buffer that starts at `address`.
    std::uint32_t fragment_of(const void* address) const
    {
        return base_ + device_fragment(address);
    }
    /// Offset of a device address from where the pool's pages begin.
    std::uint64_t in_region(std::uint64_t address) const { return address - device_address_; }
    /// So many device fragments go to the engine.
    void taken(std::uint32_t count)
    {
        in_use_ += count;
        with_engine_ += count;
    }
    /// A fragment of the host mempool goes to the engine. @return its fragment
    std::uint32_t take_host(std::uint32_t fragment)
    {
        host_in_use_++;
        with_engine_++;
        slots_[device_layout_.fragments + fragment].connection = kNobody;
        return base_ + device_layout_.fragments + fragment;
    }
    /// Whether a connection may keep so many host fragments more, which were taken: no more than it
    /// leaves free, so that one that hoards has half. One that has none may have what there is.
    bool admits_host(std::uint32_t connection, std::uint32_t count) const
    {
        const std::uint64_t held = returns_->host_held[connection].load(std::memory_order_relaxed);
        return held == 0 || held + count + host_held() <= host_layout_.fragments;
    }
    /// The host fragments of a run just taken are a connection's.
    void keep_host(const tcp::Run& run, std::uint32_t connection);
    /// The engine is done with fragments that never became a token.
    void release(std::uint32_t first, std::uint32_t count);
    /// Device fragments that are backed by memory now.
    std::uint64_t capacity() const
    {
        return std::uint64_t{device_pages_->present()} * device_layout_.fragments_per_page;
    }
    /// Fragments that the engine holds.
    std::uint64_t with_engine() const { return with_engine_; }
    /// Device fragments that the engine or the application holds.
    std::uint64_t device_held() const { return in_use_ - device_returned_.count(); }
    std::uint64_t host_held() const
    {
        return host_in_use_ - host_returned_.load(std::memory_order_relaxed);
    }

    /// Make a token of a run; the run's fragments now belong to it.
    void make_token(const tcp::Run& run, std::uint32_t connection, devmem_token* token);
    class Mint;
    /// make_token() of device fragments, for who accounts for many together.
    const Mint& mint() const { return mint_; }
    /// Of every token but those of the host mempool.
    std::uint32_t token_flags() const { return token_flags_; }
    /// Account for `n` tokens just made by a mint, of so many fragments.
    void tokens_made(std::uint64_t n, std::uint64_t fragments)
    {
        made_ += n;
        with_engine_ -= fragments;
    }

    /// Return tokens by name. Any thread. @see devmem_token_return()
    static int return_tokens(const devmem_token* tokens, unsigned n);

    /// Make two tokens of one. Any thread. @see devmem_token_split()
    static int split_token(devmem_token* token, std::uint32_t at, devmem_token* rest);

    rte_mempool* device_mempool() const { return device_; }
    rte_mempool* host_mempool() const { return host_; }
    const PktmbufPoolLayout& device_layout() const { return device_layout_; }
    const PktmbufPoolLayout& host_layout() const { return host_layout_; }

private:
    PayloadPool() = default;
    ~PayloadPool();

    /// A name: generation (24 bits), pool (8), slot (32), which is the first fragment's number but
    /// for split slots.
    static constexpr unsigned kPoolShift = 32;
    static std::uint32_t slot_of(std::uint64_t id) { return static_cast<std::uint32_t>(id); }
    static std::uint8_t pool_of(std::uint64_t id)
    {
        return static_cast<std::uint8_t>(id >> kPoolShift);
    }

    /// What becomes of a slot's tokens, as one word. While a token is out: generation << 8 | shares
    /// << 7 | fragments. Afterwards: generation << 8. `shares`: a token before this one has part of
    /// the first fragment, which counts as returned with that one.
    struct Tag {
        static constexpr std::uint32_t kShares = 0x80;
        static constexpr std::uint32_t kCountMask = 0x7f;
        static constexpr std::uint32_t kGenerationMask = 0xffffff00;

        std::uint32_t word;

        static constexpr Tag of(std::uint32_t generation) { return {generation << 8}; }
        constexpr std::uint32_t generation() const { return word >> 8; }
        constexpr std::uint32_t count() const { return word & kCountMask; }
        /// Fragments that count as returned with the token.
        constexpr std::uint32_t counted() const { return count() - (word >> 7 & 1); }
        constexpr Tag spent() const { return {word & kGenerationMask}; }
        /// Of the slot's next token.
        constexpr Tag next(std::uint32_t count, bool shares = false) const
        {
            return {(spent().word + 0x100) | (shares ? kShares : 0) | count};
        }
        /// Whether a token of that name is out.
        constexpr bool names(std::uint64_t id) const
        {
            const auto named = static_cast<std::uint32_t>(id >> 32);
            return count() != 0 && ((word ^ named) & kGenerationMask) == 0;
        }
        constexpr std::uint64_t id(unsigned pool, std::uint32_t slot) const
        {
            return std::uint64_t{spent().word} << 32 | std::uint64_t{pool} << kPoolShift | slot;
        }
    };
    struct Slot {
        std::atomic<Tag> tag{Tag{0}};
        std::uint32_t connection = 0;
        std::atomic<std::uint32_t> first{0}; ///< fragment; only of split slots
    };
    static_assert(std::atomic<Tag>::is_always_lock_free);

public:
    /// What making a token of device fragments takes of the pool, in one piece: to be copied where
    /// there are many to make, so that it need not be loaded again for each.
    class Mint {
    public:
        /// Whether a run is of device fragments of this pool.
        bool has(std::uint32_t fragment) const { return fragment - base_ < fragments_; }

        void make(const tcp::Run& run, std::uint32_t connection, devmem_token* token) const
        {
            const std::uint32_t first = run.first - base_;
            Slot& slot = slots_[first];
            const Tag tag = slot.tag.load(std::memory_order_relaxed).next(run.count);
            slot.connection = connection;
            slot.tag.store(tag, std::memory_order_release);
            const std::uint64_t at = std::uint64_t{first} * fragment_bytes_ +
                                     std::uint64_t{by_page_.quotient(first)} * page_rest_ + run.off;
            token->id = tag.id(pool_, first);
            token->region = region_;
            token->offset = offset_ + at;
            token->address = address_ + at;
            token->length = run.len;
            token->flags = flags_;
        }

    private:
        friend PayloadPool;
        std::uint32_t base_ = 0, fragments_ = 0;
        Slot* slots_ = nullptr;
        Divider by_page_;
        std::uint32_t fragment_bytes_ = 0;
        std::uint32_t page_rest_ = 0; ///< bytes of a page that are of no fragment
        devmem_region* region_ = nullptr;
        std::uint64_t offset_ = 0, address_ = 0;
        std::uint32_t flags_ = 0;
        unsigned pool_ = 0;
    };

private:
    /// Tokens that begin in a fragment that has a token already: it takes two splits to make one.
    static constexpr std::uint32_t kSplitSlots = 1024;
    /// Connection of a host fragment that no engine has seen yet.
    static constexpr std::uint32_t kNobody = UINT32_MAX;

    // Fragments are counted from 0 in here.
    std::uint32_t device_fragment(const void* address) const
    {
        const auto at = reinterpret_cast<std::uintptr_t>(address) - device_address_;
        const auto in_page = static_cast<std::uint32_t>(at) & (device_layout_.page_bytes - 1);
        const auto page = static_cast<std::uint32_t>(at >> page_shift_);
        return page * device_layout_.fragments_per_page +
               static_cast<std::uint32_t>((in_page * fragment_reciprocal_) >> 32);
    }
    void set_up_mint();
    void put(std::uint32_t first, std::uint32_t count);
    void put_mask(std::uint32_t page, std::uint64_t mask);
    unsigned return_several(std::span<const devmem_token> tokens, unsigned* good);
    template <bool alone>
    unsigned return_several(std::span<const devmem_token> tokens, unsigned* good);
    template <bool alone>
    bool return_rarely(std::uint64_t id);
    template <bool alone>
    static bool take_back(Slot& slot, Tag& tag, std::uint64_t id);
    bool overlaps(const Config& config) const;
    int split(devmem_token* token, std::uint32_t at, devmem_token* rest);
    int hold(std::uint32_t fragment);
    std::uint32_t first_of(std::uint32_t slot) const
    {
        return slot < fragments() ? slot : slots_[slot].first.load(std::memory_order_relaxed);
    }
    std::uint64_t token_mask(bool host, std::uint32_t page) const;
    void drop(std::uint64_t references);

    rte_mempool* device_ = nullptr;
    const PagePool* device_pages_ = nullptr; ///< of device_
    rte_mempool* host_ = nullptr;
    const PagePool* host_pages_ = nullptr; ///< of host_
    devmem_region* host_region_ = nullptr;
    PktmbufPoolLayout device_layout_{};
    PktmbufPoolLayout host_layout_{};
    std::uint64_t device_address_ = 0; ///< of the pool's first byte, as the mbufs carry it
    unsigned page_shift_ = 0;
    std::uint32_t token_flags_ = 0;
    std::uint64_t fragment_reciprocal_ = 0; ///< 2^32 / fragment_bytes, rounded up
    unsigned index_ = 0;                    ///< in the table of pools
    FlatArray<Slot> slots_;                 ///< one a fragment, and kSplitSlots
    std::mutex split_lock_;
    std::vector<std::uint32_t> split_slots_; ///< those that are free
    std::shared_ptr<Returns> returns_;

    // The shard's thread writes these for every packet, returning threads read what is above.
    alignas(64) std::uint64_t in_use_ = 0; ///< device fragments taken, less those released, ever
    std::uint64_t host_in_use_ = 0;        ///< the same of host fragments
    std::uint64_t with_engine_ = 0;
    std::uint64_t made_ = 0; ///< tokens, ever, but for what split_token() adds
    std::uint32_t base_ = 0;
    Mint mint_;

    /// While the shard has the pool: kShard - tokens returned. Afterwards: tokens out.
    static constexpr std::uint64_t kShard = std::uint64_t{1} << 63;
    alignas(64) std::atomic<std::uint64_t> live_{kShard};
    tcp::ReturnCount<std::uint64_t> device_returned_;
    std::atomic<std::uint64_t> host_returned_{0};
};

} // namespace devmem
