// SPDX-License-Identifier: BSD-3-Clause
// From a segment's addresses and ports to its connection: the one lookup a packet needs.
//
// Open addressing with linear probing. A bucket is 8 bytes, so a probe sequence is nearly always
// within one cache line; keys lie apart, one line each, and are read only when all 32 bits of the
// hash agree. At most half of the buckets are ever taken, and deletion shifts the sequence back, so
// that lookups do not slow down with age.
//
// One thread. No allocation after construction.
#pragma once

#include "lib/wire/frame.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

namespace devmem {

/// A connection's name, as words: they are compared and hashed where they were built, in registers.
struct FlowKey {
    std::array<std::uint64_t, 5> words{};

    FlowKey() = default;
    /// Both addresses are of one family.
    FlowKey(const wire::Ip& remote, const wire::Ip& local, std::uint16_t remote_port,
            std::uint16_t local_port)
    {
        std::memcpy(&words[0], remote.bytes.data(), 8);
        std::memcpy(&words[1], remote.bytes.data() + 8, 8);
        std::memcpy(&words[2], local.bytes.data(), 8);
        std::memcpy(&words[3], local.bytes.data() + 8, 8);
        words[4] =
            std::uint64_t{remote.family} << 32 | std::uint64_t{remote_port} << 16 | local_port;
    }

    bool operator==(const FlowKey& other) const
    {
        std::uint64_t difference = 0;
        for (std::size_t i = 0; i < words.size(); ++i)
            difference |= words[i] ^ other.words[i];
        return difference == 0;
    }
};

class FlowTable {
public:
    static constexpr std::uint32_t kNotFound = UINT32_MAX;

    /// @param connections most entries; slots are below it
    /// @param secret      random: who knows it can choose flows that collide
    FlowTable(std::uint32_t connections, const std::array<std::uint64_t, 2>& secret);

    /// The hashes of any two keys, chosen without the secret, are independent and uniform.
    std::uint32_t hash(const FlowKey& key) const;

    /// Bring the bucket of a lookup to come into the cache.
    void prefetch(std::uint32_t hash) const { __builtin_prefetch(&buckets_[hash & mask_]); }

    /// @param hash of `key`, as in all that follows
    /// @return the slot, or kNotFound
    std::uint32_t find(std::uint32_t hash, const FlowKey& key) const
    {
        const std::size_t at = locate(hash, key);
        return buckets_[at].slot;
    }

    /// `key` is not in the table, nor is `slot`.
    void insert(std::uint32_t hash, const FlowKey& key, std::uint32_t slot);

    /// @return the slot the key had, or kNotFound
    std::uint32_t erase(std::uint32_t hash, const FlowKey& key);

    std::uint32_t size() const { return size_; }

private:
    struct Bucket {
        std::uint32_t tag; ///< the hash, whole: the home of an entry is known without its key
        std::uint32_t slot = kNotFound; ///< kNotFound: free
    };
    static_assert(sizeof(Bucket) == 8);

    struct alignas(64) Key {
        FlowKey key;
    };

    /// The bucket that holds the key, or the free one that ends its probe sequence.
    std::size_t locate(std::uint32_t hash, const FlowKey& key) const
    {
        std::size_t at = hash & mask_;
        while (buckets_[at].slot != kNotFound &&
               !(buckets_[at].tag == hash && keys_[buckets_[at].slot].key == key))
            at = (at + 1) & mask_;
        return at;
    }

    std::size_t mask_;
    std::unique_ptr<Bucket[]> buckets_;
    std::unique_ptr<Key[]> keys_;
    std::uint32_t size_ = 0;
    /// A key for each half of a word, and one more.
    std::array<std::uint64_t, 2 * std::tuple_size_v<decltype(FlowKey::words)> + 1> secret_;
};

// Multilinear hashing with half the multiplications (Lemire and Kaser, "Strongly universal string
// hashing is fast", 2014): with independent random 64-bit k, the upper 32 bits of
//
//     k0 + sum of (k[2i+1] + m[2i]) * (k[2i+2] + m[2i+1])  mod 2^64
//
// are strongly universal over strings m of 32-bit words. SipHash, which needs no such argument,
// takes several times as long as the rest of the lookup. Keys that differ in one word only,
// consecutive ports say, come out as an arithmetic progression, which linear probing does not like;
// a fixed bijection of the 32 bits scatters it and leaves the property as it is.
inline std::uint32_t FlowTable::hash(const FlowKey& key) const
{
    std::uint64_t sum = secret_[0];
    for (std::size_t i = 0; i < key.words.size(); ++i)
        sum += (secret_[2 * i + 1] + (key.words[i] & 0xffffffff)) *
               (secret_[2 * i + 2] + (key.words[i] >> 32));
    auto hash = static_cast<std::uint32_t>(sum >> 32);
    hash = (hash ^ hash >> 16) * 0x85ebca6b;
    hash = (hash ^ hash >> 13) * 0xc2b2ae35;
    return hash ^ hash >> 16;
}

} // namespace devmem
