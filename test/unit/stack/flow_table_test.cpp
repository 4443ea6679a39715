// SPDX-License-Identifier: BSD-3-Clause
#include "lib/stack/flow_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace devmem {
namespace {

constexpr std::array<std::uint64_t, 2> kSecret{0x0123456789abcdef, 0xfedcba9876543210};

constexpr wire::Ip kLocal{4, {192, 0, 2, 1}};

wire::Ip address(std::uint32_t value)
{
    return {4,
            {static_cast<std::uint8_t>(value >> 24), static_cast<std::uint8_t>(value >> 16),
             static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)}};
}

FlowKey key4(std::uint32_t remote, std::uint16_t remote_port)
{
    return {address(remote), kLocal, remote_port, 5201};
}

struct StdHash {
    std::size_t operator()(const FlowKey& key) const
    {
        return std::hash<std::string_view>{}(
            {reinterpret_cast<const char*>(key.words.data()), sizeof key.words});
    }
};

/// The table against std::unordered_map, with hashes made by `hash`.
template <typename Hash>
void churn(std::uint32_t connections, unsigned keys, unsigned operations, Hash hash)
{
    std::vector<FlowKey> storage(connections);
    FlowTable table(connections, kSecret, storage.data(), sizeof(FlowKey));
    std::unordered_map<FlowKey, std::uint32_t, StdHash> model;
    std::vector<std::uint32_t> free;
    for (std::uint32_t slot = 0; slot < connections; ++slot)
        free.push_back(slot);
    std::mt19937 random(connections);
    const auto any_key = [&] {
        const auto n = static_cast<std::uint32_t>(random() % keys);
        // Of every four, one has the bytes of another in the other family, and is another flow.
        wire::Ip remote = address(0x0a000000 + n / 8);
        wire::Ip local = kLocal;
        if (n % 4 == 3)
            remote.family = local.family = 6;
        return FlowKey{remote, local, static_cast<std::uint16_t>(n % 8 / 2), 5201};
    };
    for (unsigned i = 0; i < operations; ++i) {
        const FlowKey key = any_key();
        const std::uint32_t h = hash(table, key);
        const auto known = model.find(key);
        const std::uint32_t expected = known == model.end() ? FlowTable::kNotFound : known->second;
        ASSERT_EQ(table.find(h, key), expected);
        // Long stretches of filling and of emptying.
        const bool fill = random() % 8 < (i / 4096 % 2 == 0 ? 6u : 2u);
        if (fill && known == model.end() && !free.empty()) {
            const std::uint32_t slot = free.back();
            free.pop_back();
            table.insert(h, key, slot);
            model.emplace(key, slot);
        } else if (!fill) {
            ASSERT_EQ(table.erase(h, key), expected);
            if (known != model.end()) {
                free.push_back(known->second);
                model.erase(known);
            }
        }
        ASSERT_EQ(table.size(), model.size());
        if (i % 1024 == 0) {
            for (const auto& [k, slot] : model)
                ASSERT_EQ(table.find(hash(table, k), k), slot);
        }
    }
    for (const auto& [k, slot] : model)
        ASSERT_EQ(table.erase(hash(table, k), k), slot);
    EXPECT_EQ(table.size(), 0u);
}

TEST(FlowTable, AgreesWithUnorderedMap)
{
    const auto keyed = [](const FlowTable& table, const FlowKey& key) { return table.hash(key); };
    churn(1, 8, 10'000, keyed);
    churn(100, 300, 100'000, keyed);
    churn(4000, 8000, 100'000, keyed);
}

// Every key the same tag, so that only keys tell entries apart, and one sequence holds them all.
TEST(FlowTable, AgreesWithUnorderedMapWhenAllTagsAreEqual)
{
    churn(64, 100, 20'000, [](const FlowTable&, const FlowKey&) { return 0xffffffffu; });
}

// Few homes, next to each other across the table's end: sequences run into one another and wrap.
TEST(FlowTable, AgreesWithUnorderedMapWhenSequencesMergeAndWrap)
{
    churn(64, 100, 100'000, [](const FlowTable& table, const FlowKey& key) {
        const std::uint32_t h = table.hash(key);
        return (h & 0xffff0000) | ((h % 12 - 6) & 0xffff);
    });
}

TEST(FlowTable, EveryPartOfTheKeyCounts)
{
    std::vector<FlowKey> storage(64);
    FlowTable table(64, kSecret, storage.data(), sizeof(FlowKey));
    const wire::Ip remote = address(0x0a000001);
    std::vector<FlowKey> keys{{remote, kLocal, 1000, 5201}};
    wire::Ip remote6 = remote;
    wire::Ip local6 = kLocal;
    remote6.family = local6.family = 6;
    keys.push_back({remote6, local6, 1000, 5201});
    const auto change_each_byte = [&](const wire::Ip& from, const wire::Ip& to, std::size_t bytes) {
        for (std::size_t i = 0; i < bytes; ++i) {
            wire::Ip other = from;
            other.bytes[i] ^= 1;
            keys.push_back({other, to, 1000, 5201});
            other = to;
            other.bytes[i] ^= 1;
            keys.push_back({from, other, 1000, 5201});
        }
    };
    change_each_byte(remote, kLocal, 4);
    change_each_byte(remote6, local6, 16);
    for (const int bit : {0x0001, 0x0100}) {
        keys.push_back({remote, kLocal, static_cast<std::uint16_t>(1000 ^ bit), 5201});
        keys.push_back({remote, kLocal, 1000, static_cast<std::uint16_t>(5201 ^ bit)});
    }
    keys.push_back({kLocal, remote, 1000, 5201});
    keys.push_back({remote, kLocal, 5201, 1000});
    for (std::uint32_t slot = 0; slot < keys.size(); ++slot) {
        EXPECT_EQ(table.find(0, keys[slot]), FlowTable::kNotFound);
        table.insert(0, keys[slot], slot);
    }
    for (std::uint32_t slot = 0; slot < keys.size(); ++slot)
        EXPECT_EQ(table.find(0, keys[slot]), slot);
    std::set<std::uint32_t> hashes;
    for (const FlowKey& key : keys)
        hashes.insert(table.hash(key));
    EXPECT_EQ(hashes.size(), keys.size());
}

TEST(FlowTable, FillsToItsLastConnection)
{
    for (const std::uint32_t connections : {1u, 2u, 3u, 1000u, 1024u}) {
        std::vector<FlowKey> storage(connections);
        FlowTable table(connections, kSecret, storage.data(), sizeof(FlowKey));
        for (std::uint32_t slot = 0; slot < connections; ++slot) {
            const FlowKey key = key4(slot, 1);
            table.prefetch(table.hash(key));
            table.insert(table.hash(key), key, slot);
        }
        EXPECT_EQ(table.size(), connections);
        for (std::uint32_t slot = 0; slot < connections; ++slot)
            EXPECT_EQ(table.find(table.hash(key4(slot, 1)), key4(slot, 1)), slot);
        const FlowKey other = key4(connections, 1);
        EXPECT_EQ(table.find(table.hash(other), other), FlowTable::kNotFound);
        EXPECT_EQ(table.erase(table.hash(other), other), FlowTable::kNotFound);
    }
}

/// Longest run of taken buckets if these hashes filled a table of `buckets`: what a miss may cost.
std::size_t longest_run(const std::vector<std::uint32_t>& hashes, std::size_t buckets)
{
    std::vector<bool> taken(buckets);
    for (const std::uint32_t hash : hashes) {
        std::size_t at = hash % buckets;
        while (taken[at])
            at = (at + 1) % buckets;
        taken[at] = true;
    }
    std::size_t longest = 0;
    std::size_t run = 0;
    for (std::size_t i = 0; i < 2 * buckets; ++i) {
        run = taken[i % buckets] ? run + 1 : 0;
        longest = std::max(longest, run);
    }
    return longest;
}

// What peers do, and what they may try: keys in order, or that differ in high bits only. Random
// hashes at this load (half) make runs of about 60; a hash with structure makes hundreds.
TEST(FlowTable, StructuredKeysScatterUnderAnySecret)
{
    constexpr std::uint32_t kCount = 16384;
    std::mt19937_64 random(7);
    for (int round = 0; round < 10; ++round) {
        std::vector<FlowKey> storage(1);
        const FlowTable table(1, {random(), random()}, storage.data(), sizeof(FlowKey));
        std::map<const char*, std::vector<std::uint32_t>> hashes;
        for (std::uint32_t i = 0; i < kCount; ++i) {
            hashes["ports"].push_back(
                table.hash(key4(0x0a000001, static_cast<std::uint16_t>(40000 + i))));
            hashes["hosts"].push_back(table.hash(key4(0x0a000000 + i, 40000)));
            hashes["networks"].push_back(table.hash(key4(i << 18, 40000)));
            hashes["both"].push_back(
                table.hash(key4(0x0a000000 + i % 128, static_cast<std::uint16_t>(i / 128 * 512))));
        }
        for (const auto& [name, values] : hashes) {
            EXPECT_GE(std::set<std::uint32_t>(values.begin(), values.end()).size() + 8, kCount)
                << name;
            EXPECT_LT(longest_run(values, std::size_t{2} * kCount), 200u) << name;
        }
    }
}

// A secret under which consecutive ports come out next to each other must be too rare to meet. In
// tables this small one in 64 would be, if the hash were the arithmetic progression and no more.
TEST(FlowTable, WeakSecretsAreRare)
{
    constexpr std::size_t kBuckets = 64;
    std::mt19937_64 random(8);
    std::size_t worst = 0;
    for (int round = 0; round < 5000; ++round) {
        std::vector<FlowKey> storage(1);
        const FlowTable table(1, {random(), random()}, storage.data(), sizeof(FlowKey));
        std::vector<bool> taken(kBuckets);
        std::size_t probes = 0;
        for (std::uint16_t port = 0; port < kBuckets / 2; ++port) {
            std::size_t at = table.hash(key4(0x0a000001, port)) % kBuckets;
            for (; taken[at]; at = (at + 1) % kBuckets)
                ++probes;
            taken[at] = true;
        }
        worst = std::max(worst, probes);
    }
    // All in one bucket: 496. At random: 16, and the worst of so many rounds is 55 to 96.
    EXPECT_LT(worst, 120u);
}

// Which flows collide under one secret says nothing about another.
TEST(FlowTable, CollisionsDependOnTheSecret)
{
    FlowKey storage;
    const FlowTable one(1, {1, 2}, &storage, sizeof(storage));
    const FlowTable two(1, {1, 3}, &storage, sizeof(storage));
    constexpr std::uint32_t kMask = 0xffff;
    const std::uint32_t home = one.hash(key4(0, 0)) & kMask;
    unsigned collide_one = 0;
    unsigned collide_two = 0;
    for (std::uint32_t i = 1; i < 4'000'000 && collide_one < 50; ++i) {
        if ((one.hash(key4(i, 0)) & kMask) != home)
            continue;
        ++collide_one;
        collide_two += (two.hash(key4(i, 0)) & kMask) == (two.hash(key4(0, 0)) & kMask) ? 1u : 0u;
    }
    EXPECT_EQ(collide_one, 50u);
    EXPECT_LT(collide_two, 3u);
}

} // namespace
} // namespace devmem
