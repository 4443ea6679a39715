// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "apps/devmem-ncat/digest.h"
#include "apps/devmem-ncat/options.h"
#include "apps/devmem-ncat/output.h"
#include "apps/devmem-ncat/pattern.h"
#include "apps/devmem-ncat/rate.h"

#include <devmem/devmem.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace ncat {

/// What the receivers of all shards share.
struct Job {
    explicit Job(const Options& chosen) : options(chosen), limiter(chosen.rate) {}

    const Options& options;
    RateLimiter limiter;
    Output output;
    std::vector<std::byte> to_send; ///< to each peer, once connected

    std::atomic<bool> stop{false};
    std::atomic<bool> failed{false};           ///< the exit status is 1
    std::atomic<std::uint64_t> connections{0}; ///< accepted or connected
    std::atomic<std::uint64_t> closed{0};      ///< of these

    std::mutex mutex;                ///< of what follows, and of stdout
    std::vector<std::string> hashes; ///< in the order of close
};

/// What a receiver counts. Written by its own thread, read by any.
struct Counters {
    std::atomic<std::uint64_t> bytes{0}, tokens{0}, device_bytes{0}, host_bytes{0};
    std::atomic<std::int64_t> first_ns{0}, last_ns{0}; ///< of payload, on Clock; 0: none yet
    /// Of the process, on the CPU: when payload came first, when a stream ended last.
    std::atomic<std::int64_t> first_cpu_ns{0}, last_cpu_ns{0};
};

/// The connections of a shard: takes their tokens, looks at the bytes as the options ask, returns
/// the tokens. All members but counters() belong to the shard's thread.
class Receiver {
public:
    Receiver(devmem::Shard shard, Job& job);

    std::error_code listen();
    std::error_code connect(const devmem_endpoint& remote);
    /// One round. @return whether anything happened.
    bool poll();
    /// Close what is open, and let the segments that say so leave.
    void finish();

    const Counters& counters() const { return counters_; }
    devmem_shard_stats stats() const { return shard_.stats(); }

private:
    struct Session {
        devmem::Connection connection;
        std::string remote;
        std::uint64_t bytes = 0;
        std::optional<Pattern> pattern{};
        std::optional<Sha256> hash{};
        std::size_t sent = 0;
        bool ended = false; ///< the peer closed and all was received
        bool shut = false;  ///< and we have closed our side
        Clock::time_point shut_at{};
    };
    using Sessions = std::unordered_map<devmem_conn_t, Session>;

    Session& add(devmem::Connection connection, std::string remote);
    void accept_all();
    void handle(const devmem_event& event);
    /// Take all there is. @return false: the session is over and gone.
    bool receive(Session& session);
    void consume(Session& session);
    void look_at(Session& session, const devmem::TokenView& token);
    /// Nothing is looked at any more and the program ends.
    void give_up();
    void send(Session& session);
    /// The stream is complete, or will be no more: its hash is due.
    void end_stream(Session& session);
    void close_if_sent(Session& session);
    void fail(Session& session, std::error_code why);
    void remove(Session& session);
    void give_back_held();
    void unbind();

    devmem::Shard shard_;
    Job& job_;
    bool looks_; ///< at the bytes: pattern, hash or output
    std::optional<devmem::Listener> listener_;
    Sessions sessions_;
    bool unbound_ = false;
    std::size_t shut_ = 0; ///< sessions that wait for the peer to acknowledge our FIN
    devmem::TokenBatch tokens_;
    std::deque<devmem::Token> held_; ///< until --rate and --hold allow
    std::uint64_t held_bytes_ = 0;
    std::array<devmem_event, 64> events_;
    std::vector<std::byte> buffer_;
    Clock::time_point now_;
    Counters counters_;
};

} // namespace ncat
