// SPDX-License-Identifier: BSD-3-Clause
// A stack: one port, its addresses, what its shards share.
#pragma once

#include "lib/stack/neighbours.h"
#include "lib/stack/shard.h"
#include "lib/tcp/connection.h"

#include <devmem/devmem.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

struct devmem_stack {
    static int create(const devmem_stack_config& config, devmem_stack** stack, std::string& error);
    ~devmem_stack();

    /// The index of a local address, or -1.
    int local_address(const devmem::wire::Ip& ip) const;
    /// Where to send what is for `remote`, and the local address to send it from.
    /// @return false: no local address of that family (`local` is left without one), or off-link
    /// and
    ///   no gateway.
    bool route(const devmem::wire::Ip& remote, devmem::wire::Ip* local,
               devmem::wire::Ip* next_hop) const;

    std::uint16_t port_id = 0;
    std::uint16_t mtu = 0;
    devmem::wire::Mac mac{};
    std::uint8_t dscp = 0, hop_limit = 0; ///< that connections begin with
    std::vector<devmem_addr> addrs;
    std::vector<devmem::wire::Ip> ips; ///< of `addrs`
    std::vector<devmem_addr> gateways;
    struct devmem_fit fit {};
    std::uint32_t payload_per_fragment = 0; ///< what a full segment carries: fit.mss less options
    devmem::tcp::Config tcp;
    std::array<std::uint64_t, 2> secret{}; ///< keys ISNs, timestamp offsets and the flow tables
    devmem::Neighbours neighbours;
    std::vector<std::unique_ptr<devmem_shard>> shards;

    /// Whether queues can be set up again while the port runs. @return 0; -ENOTSUP.
    int can_restart_rx(std::string& error) const;
    /// Set a shard's queue up with a payload pool and start it; the port runs, the queue does not.
    int start_rx(const devmem_shard& shard, rte_mempool* payload, std::string& error);
    std::mutex control; ///< the port's, for what shards do to it while it runs

private:
    devmem_stack() = default;
    int configure_port(const devmem_stack_config& config, std::string& error);
    int make_shards(const devmem_stack_config& config, std::string& error);
    int setup_queues(std::string& error);
    int setup_rx(const devmem_shard& shard, rte_mempool* payload, std::string& error);

    bool started_ = false;
    std::uint16_t descriptors_ = 0;
    std::uint32_t split_ = 0; ///< headers to split after; 0: after split_bytes_
    std::uint16_t split_bytes_ = 0;
};

namespace devmem {

inline constexpr std::uint8_t kLargestDscp = 63; ///< RFC 2474 3

wire::Ip to_ip(const devmem_addr& addr);
devmem_addr to_addr(const wire::Ip& ip);
/// Whether an address may be a host's (RFC 1122 3.2.1.3, RFC 4291 2.7). A segment from any other is
/// not answered (RFC 9293 3.9.2.3, MUST-63), none is sent to it (MUST-46).
bool is_host(const wire::Ip& ip);

} // namespace devmem
