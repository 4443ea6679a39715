// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/chain.h"

#include "drivers/mempool/page_pool/page_pool_mempool.h"
#include "test/bench/measure.h"

#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>

#include <array>
#include <bit>
#include <cstdint>
#include <stdexcept>

namespace bench {
namespace {

constexpr unsigned kBurst = 32;
constexpr unsigned kBurstsPerTurn = 32;
constexpr unsigned kMbufs = 8191;
constexpr unsigned kCache = 256;
constexpr std::uint32_t kHeader = 66, kText = 1448;

using Burst = std::array<rte_mbuf*, kBurst>;

rte_mempool* ring_pool(const char* name, std::uint16_t room)
{
    rte_mempool* pool = rte_pktmbuf_pool_create_by_ops(
        name, kMbufs, kCache, 0, static_cast<std::uint16_t>(RTE_PKTMBUF_HEADROOM + room),
        SOCKET_ID_ANY, "ring_mp_mc");
    if (pool == nullptr)
        throw std::runtime_error("cannot make a ring pool: give EAL more memory");
    return pool;
}

bool take(rte_mempool* headers, rte_mempool* texts, Burst& packets, Burst& text)
{
    if (rte_mempool_get_bulk(headers, reinterpret_cast<void**>(packets.data()), kBurst) != 0 ||
        rte_mempool_get_bulk(texts, reinterpret_cast<void**>(text.data()), kBurst) != 0)
        return false;
    for (unsigned i = 0; i < kBurst; i++) {
        rte_mbuf* const m = packets[i];
        m->data_off = RTE_PKTMBUF_HEADROOM;
        m->nb_segs = 2;
        m->data_len = kHeader;
        m->pkt_len = kHeader + kText;
        m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_GOOD;
        m->next = text[i];
        text[i]->data_off = 0;
        text[i]->data_len = kText;
    }
    return true;
}

/// As a shard does: headers to their pool, payload page by page.
void put_ours(rte_mempool* headers, rte_mempool* texts, Burst& packets)
{
    const devmem::PktmbufPoolLayout& layout = *devmem::pktmbuf_pool_layout(texts);
    const std::uint64_t base = layout.base + layout.offset;
    const auto shift = static_cast<unsigned>(std::countr_zero(layout.page_bytes));
    const std::uint64_t reciprocal =
        ((std::uint64_t{1} << 32) + layout.fragment_bytes - 1) / layout.fragment_bytes;
    std::uint32_t page = 0;
    std::uint64_t mask = 0;
    for (rte_mbuf* m : packets) {
        const std::uint64_t at = reinterpret_cast<std::uintptr_t>(m->next->buf_addr) - base;
        m->next = nullptr;
        m->nb_segs = 1;
        const auto next = static_cast<std::uint32_t>(at >> shift);
        if (next != page && mask != 0) {
            devmem::page_pool_put_mask(texts, page, mask);
            mask = 0;
        }
        page = next;
        mask |= std::uint64_t{1} << ((at & (layout.page_bytes - 1)) * reciprocal >> 32);
    }
    devmem::page_pool_put_mask(texts, page, mask);
    rte_mempool_put_bulk(headers, reinterpret_cast<void**>(packets.data()), kBurst);
}

template <typename Work>
double cycles(Work work, double seconds)
{
    const Turn turn = [&](unsigned) {
        for (unsigned i = 0; i < kBurstsPerTurn; i++) {
            if (!work())
                return false;
        }
        return true;
    };
    return measure(turn, 1, seconds) / (kBurstsPerTurn * kBurst);
}

} // namespace

struct Chains::Pools {
    Pools()
    {
        ring_headers = ring_pool("chain_ring_h", 256);
        ring_texts = ring_pool("chain_ring_t", 2048);
        headers = ring_pool("chain_h", 256);
        char error[256] = "";
        if (devmem_region_create("opaque:size=32M", &region, error, sizeof error) != 0)
            throw std::runtime_error(error);
        constexpr std::uint32_t kFragment = 1456, kPage = 65536;
        texts =
            devmem_pktmbuf_pool_create("chain_t", region, 0, 0, kPage, kFragment, SOCKET_ID_ANY);
        if (texts == nullptr)
            throw std::runtime_error("cannot make a payload pool: give EAL more memory");
    }
    ~Pools()
    {
        rte_mempool_free(ring_headers);
        rte_mempool_free(ring_texts);
        rte_mempool_free(headers);
        devmem_pktmbuf_pool_free(texts);
        devmem_region_release(region);
        rte_ring_free(ring);
    }
    Pools(const Pools&) = delete;
    Pools& operator=(const Pools&) = delete;

    rte_mempool* ring_headers = nullptr;
    rte_mempool* ring_texts = nullptr;
    rte_mempool* headers = nullptr;
    rte_mempool* texts = nullptr;
    devmem_region* region = nullptr;
    rte_ring* ring = rte_ring_create("chain", 1024, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
};

Chains::Chains() : pools_(std::make_unique<Pools>()) {}
Chains::~Chains() = default;

void Chains::measure(double seconds)
{
    Pools& pools = *pools_;
    Burst packets, text;
    const auto chains_freed = [&](rte_mempool* headers, rte_mempool* texts) {
        return cycles(
            [&] {
                const bool good = take(headers, texts, packets, text);
                if (good)
                    rte_pktmbuf_free_bulk(packets.data(), kBurst);
                return good;
            },
            seconds);
    };
    ring_.push_back(chains_freed(pools.ring_headers, pools.ring_texts));
    freed_.push_back(chains_freed(pools.headers, pools.texts));
    ours_.push_back(cycles(
        [&] {
            const bool good = take(pools.headers, pools.texts, packets, text);
            if (good)
                put_ours(pools.headers, pools.texts, packets);
            return good;
        },
        seconds));
    take(pools.headers, pools.texts, packets, text);
    port_.push_back(cycles(
        [&] {
            void** const table = reinterpret_cast<void**>(packets.data());
            return rte_ring_sp_enqueue_bulk(pools.ring, table, kBurst, nullptr) == kBurst &&
                   rte_ring_sc_dequeue_bulk(pools.ring, table, kBurst, nullptr) == kBurst;
        },
        seconds));
    touch_.push_back(cycles(
        [&] {
            std::uint32_t sum = 0;
            for (const rte_mbuf* m : packets)
                sum += *rte_pktmbuf_mtod(m, const std::uint8_t*) + m->next->data_len;
            asm volatile("" : : "r"(sum));
            return true;
        },
        seconds));
    put_ours(pools.headers, pools.texts, packets);
}

void Chains::add_results(Report& report) const
{
    const auto add = [&](const char* how, const std::vector<double>& samples) {
        report.results.push_back({"chain", {{"how", how}}, summarize(samples), "cycles/packet"});
    };
    add("ring pools, rte_pktmbuf_free_bulk", ring_);
    add("our pools, rte_pktmbuf_free_bulk", freed_);
    add("our pools, as a shard puts them", ours_);
    add("a ring, in and out", port_);
    add("headers touched", touch_);
    report.baselines["chain.ring"] = ring().median;
    report.baselines["chain.ours"] = ours().median;
    report.baselines["ring"] = summarize(port_).median;
    report.baselines["touch"] = summarize(touch_).median;
}

} // namespace bench
