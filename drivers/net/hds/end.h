// SPDX-License-Identifier: BSD-3-Clause
// The lower end of a port: what frames come from and go to. The control path only; bursts are
// functions of their own.
#pragma once

#include "drivers/net/hds/queue.h"

#include <cstdio>
#include <map>
#include <memory>
#include <string>

namespace devmem::hds {

/// The vdev's arguments.
struct Args {
    std::string iface;
    std::string lower;
    std::uint16_t queues = 1;
    std::uint16_t hds_thresh = 0;
    bool has_mac = false;
    rte_ether_addr mac{};
};

/// Parse `key=value,...`.
/// @return 0; -EINVAL with a line that names the argument at fault and what is allowed.
int parse_args(const char* text, Args* args, std::string& error);

/// All functions return 0 or a negative errno, the reason in the log.
class End {
public:
    virtual ~End() = default;

    /// MAC address and MTU to begin with.
    virtual void identify(rte_ether_addr* mac, std::uint16_t* mtu) = 0;
    /// Fill in limits and offloads.
    virtual int info(rte_eth_dev_info& info) = 0;
    virtual int configure(const rte_eth_dev_data& data) = 0;
    virtual int set_up_rx(RxQueue& queue, const rte_eth_rxconf& conf, unsigned socket) = 0;
    virtual int set_up_tx(TxQueue& queue, const rte_eth_txconf& conf, unsigned socket) = 0;
    virtual int start() = 0;
    virtual int stop() = 0;
    /// Forget what arrived before the queue ran: a NIC would not have taken it in.
    virtual void discard(std::uint16_t queue) = 0;
    virtual int link(rte_eth_link* link) = 0;
    virtual int set_link(bool up) = 0;
    virtual int set_mtu(std::uint16_t mtu) = 0;
    virtual int set_mac(rte_ether_addr& mac) = 0;
    virtual int set_promiscuous(bool on) = 0;
    virtual int set_allmulticast(bool on) = 0;
    /// Packets the lower end dropped because we did not take them in time.
    virtual std::uint64_t missed() = 0;
    virtual void dump(FILE* out) = 0;

    /// What queues had counted when they were last released: one that is set up again goes on.
    std::map<std::uint16_t, RxStats> rx_before;

    eth_rx_burst_t rx_burst = nullptr;
    eth_tx_burst_t tx_burst = nullptr;
    const char* mode = "";
};

std::unique_ptr<End> make_tap(const Args& args, int* error);
std::unique_ptr<End> make_lower(const Args& args, const char* name, int* error);

} // namespace devmem::hds
