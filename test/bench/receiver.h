// SPDX-License-Identifier: BSD-3-Clause
// A stack that receives what Traffic sends, through a port in memory.
#pragma once

#include "test/bench/split_ring.h"
#include "test/bench/traffic.h"

#include <devmem/devmem.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct rte_mbuf;

namespace bench {

struct ReceiverConfig {
    Load load;
    std::string region = "opaque:size=256M";
    unsigned late_packets = 0; ///< tokens are returned when so many packets more have come
    unsigned burst = 32;       ///< packets between two polls; at most 64
};

/// Cycles of receive(), by what they went to. Stages inside the shard are told by its own clock.
struct Stages {
    std::uint64_t wire = 0; ///< writing headers, which is the senders' work: to be taken off
    std::uint64_t allocate = 0;
    std::uint64_t poll = 0; ///< the shard's, with putting the packets into the ring
    std::uint64_t deliver = 0, events = 0, token_return = 0, transmitted = 0;
};

/// What receivers have in common that are queues of one port. Throws std::runtime_error with one
/// line.
struct ReceiverPort {
    ReceiverPort(const ReceiverConfig& config, unsigned queues);
    ~ReceiverPort();
    ReceiverPort(const ReceiverPort&) = delete;
    ReceiverPort& operator=(const ReceiverPort&) = delete;

    SplitRing ring;
    devmem_region* region = nullptr;
    devmem_stack* stack = nullptr;
};

/// Of one queue, and of the thread that makes it.
class Receiver {
public:
    /// Connections are established. Throws std::runtime_error with one line.
    explicit Receiver(const ReceiverConfig& config);
    Receiver(const ReceiverConfig& config, std::shared_ptr<ReceiverPort> port, unsigned queue);
    ~Receiver();
    Receiver(const Receiver&) = delete;
    Receiver& operator=(const Receiver&) = delete;

    /// Receive at least `packets` segments, a burst at a time. @return false: one was lost
    bool receive(unsigned packets);
    /// The same, but what comes stays in the receive queues of connections().
    bool feed(unsigned packets);
    const std::vector<devmem_conn_t>& connections() const { return connections_; }

    /// Bytes of payload in tokens so far.
    std::uint64_t delivered() const { return delivered_; }
    std::uint64_t sent() const { return sent_; }
    Stages& stages() { return stages_; }
    devmem_shard& shard() { return *shard_; }
    /// Of one segment's payload.
    unsigned fragments() const { return fragments_; }

private:
    void establish(unsigned first, unsigned count);
    void open_window();
    bool allocate();
    void write_headers();
    void deliver();
    void give_back();
    void drain_transmitted();

    ReceiverConfig config_;
    std::shared_ptr<ReceiverPort> port_;
    rte_ring *rx_, *tx_;
    devmem_shard* shard_;
    std::unique_ptr<Traffic> traffic_;
    devmem_listener_t listener_ = 0;
    std::vector<devmem_conn_t> connections_;
    rte_mempool* header_pool_ = nullptr;
    rte_mempool* payload_pool_ = nullptr;
    unsigned fragments_ = 1;
    std::uint32_t fragment_bytes_ = 0;

    std::array<rte_mbuf*, 64> headers_{};
    std::vector<rte_mbuf*> payloads_;
    std::vector<devmem_token> tokens_;
    std::size_t held_ = 0;   ///< of tokens_: so many are filled
    std::size_t oldest_ = 0; ///< and those before this were returned
    std::uint64_t sent_ = 0, delivered_ = 0, returned_ = 0;
    Stages stages_;
};

} // namespace bench
