// SPDX-License-Identifier: BSD-3-Clause
// Statistics: each queue counts for itself, these add up.
#include "drivers/net/hds/stats.h"

#include "drivers/net/hds/queue.h"

#include <cstdio>

namespace devmem::hds {
namespace {

struct RxCounter {
    const char* name;
    std::uint64_t RxStats::*member;
};
struct TxCounter {
    const char* name;
    std::uint64_t TxStats::*member;
};

#define HDS_COUNTER(counter) {"rx_" #counter, &RxStats::counter},
constexpr RxCounter kRxCounters[] = {HDS_RX_COUNTERS(HDS_COUNTER)};
#undef HDS_COUNTER
#define HDS_COUNTER(counter) {"tx_" #counter, &TxStats::counter},
constexpr TxCounter kTxCounters[] = {HDS_TX_COUNTERS(HDS_COUNTER)};
#undef HDS_COUNTER
constexpr unsigned kCounters = std::size(kRxCounters) + std::size(kTxCounters);

template <typename Visit>
void each_rx(const rte_eth_dev_data& data, Visit visit)
{
    for (std::uint16_t q = 0; q < data.nb_rx_queues; ++q)
        if (data.rx_queues[q] != nullptr)
            visit(q, static_cast<RxQueue*>(data.rx_queues[q])->stats);
}

template <typename Visit>
void each_tx(const rte_eth_dev_data& data, Visit visit)
{
    for (std::uint16_t q = 0; q < data.nb_tx_queues; ++q)
        if (data.tx_queues[q] != nullptr)
            visit(q, static_cast<TxQueue*>(data.tx_queues[q])->stats);
}

} // namespace

void sum_stats(const rte_eth_dev_data& data, rte_eth_stats* stats)
{
    each_rx(data, [&](std::uint16_t q, const RxStats& s) {
        const std::uint64_t errors = s.truncated + s.dma_errors + s.read_errors;
        stats->ipackets += s.packets;
        stats->ibytes += s.bytes;
        stats->ierrors += errors;
        stats->rx_nombuf += s.no_payload_mbuf + s.no_header_mbuf + s.no_header_mbuf_drops;
        if (q < RTE_ETHDEV_QUEUE_STAT_CNTRS) {
            stats->q_ipackets[q] = s.packets;
            stats->q_ibytes[q] = s.bytes;
            stats->q_errors[q] = errors;
        }
    });
    each_tx(data, [&](std::uint16_t q, const TxStats& s) {
        stats->opackets += s.packets;
        stats->obytes += s.bytes;
        stats->oerrors += s.refused_packets;
        if (q < RTE_ETHDEV_QUEUE_STAT_CNTRS) {
            stats->q_opackets[q] = s.packets;
            stats->q_obytes[q] = s.bytes;
        }
    });
}

void reset_stats(const rte_eth_dev_data& data)
{
    each_rx(data, [](std::uint16_t, RxStats& s) { s = {}; });
    each_tx(data, [](std::uint16_t, TxStats& s) { s = {}; });
}

int get_xstats(const rte_eth_dev_data& data, rte_eth_xstat* values, unsigned n)
{
    if (values == nullptr || n < kCounters)
        return kCounters;
    unsigned i = 0;
    for (const RxCounter& c : kRxCounters) {
        std::uint64_t total = 0;
        each_rx(data, [&](std::uint16_t, const RxStats& s) { total += s.*c.member; });
        values[i] = {.id = i, .value = total};
        ++i;
    }
    for (const TxCounter& c : kTxCounters) {
        std::uint64_t total = 0;
        each_tx(data, [&](std::uint16_t, const TxStats& s) { total += s.*c.member; });
        values[i] = {.id = i, .value = total};
        ++i;
    }
    return kCounters;
}

int get_xstats_names(rte_eth_xstat_name* names, unsigned n)
{
    if (names == nullptr || n < kCounters)
        return kCounters;
    for (const RxCounter& c : kRxCounters)
        std::snprintf((names++)->name, sizeof names->name, "%s", c.name);
    for (const TxCounter& c : kTxCounters)
        std::snprintf((names++)->name, sizeof names->name, "%s", c.name);
    return kCounters;
}

} // namespace devmem::hds
