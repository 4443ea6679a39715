// SPDX-License-Identifier: BSD-3-Clause
// From a segment's addresses and ports to its connection: the one lookup a packet needs.
//
// Open addressing with linear probing. A bucket is 8 bytes, so a probe sequence is nearly always
// within one cache line; keys lie with the connections, and are read only when all 32 bits of the
// hash agree. At most half of the buckets are ever taken, and deletion shifts the sequence back, so
// that lookups do not slow down with age.
//
// One thread. No allocation after construction.
#pragma once

#include "lib/memory/flat_array.h"
#include "lib/wire/frame.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace devmem {

/// A connection's name, as words: they are compared and hashed where they were built, in registers.
/// Of IPv4 the first two say all.
struct FlowKey {
    std::array<std::uint64_t, 5> words{};

    FlowKey() = default;
    /// Both addresses are of one family.
    FlowKey(const wire::Ip& remote, const wire::Ip& local, std::uint16_t remote_port,
            std::uint16_t local_port)
    {
        const bool ipv6 = remote.family == 6;
        const std::size_t n = ipv6 ? 16 : 4;
        std::array<std::uint8_t, 32> addresses;
        std::copy_n(remote.bytes.begin(), n, addresses.begin());
        std::copy_n(local.bytes.begin(), n, addresses.begin() + n);
        *this = FlowKey(ipv6, addresses.data(), std::uint32_t{remote_port} << 16 | local_port);
    }
    /// @param addresses remote, then local
    /// @param ports     remote << 16 | local
    FlowKey(bool ipv6, const std::uint8_t* addresses, std::uint32_t ports)
    {
        words[0] = std::uint64_t{ipv6} << 32 | ports;
        // Word by word: they stay in registers.
        std::memcpy(&words[1], addresses, 8);
        if (ipv6) {
            std::memcpy(&words[2], addresses + 8, 8);
            std::memcpy(&words[3], addresses + 16, 8);
            std::memcpy(&words[4], addresses + 24, 8);
        }
    }
    bool ipv6() const { return words[0] >> 32 != 0; }
    /// == FlowKey(ipv6, addresses, ports)
    bool names(bool ipv6, const std::uint8_t* addresses, std::uint32_t ports) const
    {
        if (words[0] != (std::uint64_t{ipv6} << 32 | ports))
            return false;
        return ipv6 ? std::memcmp(&words[1], addresses, 32) == 0
                    : std::memcmp(&words[1], addresses, 8) == 0;
    }

    bool operator==(const FlowKey& other) const
    {
        std::uint64_t difference = (words[0] ^ other.words[0]) | (words[1] ^ other.words[1]);
        if (ipv6()) {
            for (std::size_t i = 2; i < words.size(); ++i)
                difference |= words[i] ^ other.words[i];
        }
        return difference == 0;
    }
};

class FlowTable {
public:
    static constexpr std::uint32_t kNotFound = UINT32_MAX;

    /// @param connections most entries; slots are below it
    /// @param secret      random: who knows it can choose flows that collide
    /// @param keys, stride where each slot's key is kept: beside what else a lookup is followed by
    FlowTable(std::uint32_t connections, const std::array<std::uint64_t, 2>& secret, FlowKey* keys,
              std::size_t stride);

    /// The hashes of any two keys, chosen without the secret, are independent and uniform.
    std::uint32_t hash(const FlowKey& key) const;

    /// Bring the bucket of a lookup to come into the cache.
    void prefetch(std::uint32_t hash) const { __builtin_prefetch(&buckets_[hash & mask_]); }
    /// After that: the slot that find() will most likely return. kNotFound: none.
    std::uint32_t guess(std::uint32_t hash) const
    {
        const Bucket& home = buckets_[hash & mask_];
        return home.tag == hash ? home.slot : buckets_[(hash + 1) & mask_].slot;
    }

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
        std::uint32_t tag = 0; ///< the hash, whole: the home of an entry is known without its key
        std::uint32_t slot = kNotFound; ///< kNotFound: free
    };
    static_assert(sizeof(Bucket) == 8);

    FlowKey& key_of(std::uint32_t slot) const
    {
        return *reinterpret_cast<FlowKey*>(keys_ + slot * stride_);
    }

    /// The bucket that holds the key, or the free one that ends its probe sequence.
    std::size_t locate(std::uint32_t hash, const FlowKey& key) const
    {
        std::size_t at = hash & mask_;
        while (buckets_[at].slot != kNotFound &&
               !(buckets_[at].tag == hash && key_of(buckets_[at].slot) == key))
            at = (at + 1) & mask_;
        return at;
    }

    std::size_t mask_;
    FlatArray<Bucket> buckets_;
    std::byte* keys_;
    std::size_t stride_;
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
    const auto part = [&](std::size_t i) {
        return (secret_[2 * i + 1] + (key.words[i] & 0xffffffff)) *
               (secret_[2 * i + 2] + (key.words[i] >> 32));
    };
    // The words that IPv4 lacks would add a constant; the first tells the families apart.
    std::uint64_t sum = secret_[0] + part(0) + part(1);
    if (key.ipv6())
        sum += part(2) + part(3) + part(4);
    auto hash = static_cast<std::uint32_t>(sum >> 32);
    hash = (hash ^ hash >> 16) * 0x85ebca6b;
    return hash ^ hash >> 13;
}

} // namespace devmem
