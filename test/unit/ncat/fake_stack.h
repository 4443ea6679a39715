// SPDX-License-Identifier: BSD-3-Clause
// A shard that does what a test says, behind the C API: for what is written on that API.
#pragma once

#include <devmem/devmem.h>

#include <cerrno>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

struct FakeConnection {
    std::deque<devmem_token> receive; ///< tokens that wait
    int then = -EAGAIN;               ///< what devmem_recv() says after them
    std::string sent;                 ///< by the program
    std::size_t send_room = SIZE_MAX; ///< bytes devmem_send() takes before it is full
    bool shut = false;
    bool closed = false;
    bool aborted = false;
};

/// The C API's shard, as the test sees it.
struct devmem_shard {
    explicit devmem_shard(const char* region_spec);
    ~devmem_shard();

    /// Bytes arrive: they are written to the region as a port would, and become tokens.
    void deliver(devmem_conn_t conn, const std::string& bytes, std::size_t token_bytes = 1000);
    /// A peer connects: it waits to be accepted.
    devmem_conn_t arrive();
    void raise(devmem_event_type type, devmem_conn_t conn = 0, int error = 0);

    devmem_region* region = nullptr;
    std::uint64_t used = 0; ///< bytes of the region
    std::deque<devmem_event> events;
    std::deque<devmem_conn_t> waiting;
    std::map<devmem_conn_t, FakeConnection> connections;
    bool listening = false;
    devmem_conn_t next_conn = 1;
    devmem_endpoint from{}; ///< where the program connects from
    devmem_shard_stats stats{};
    unsigned unbound = 0; ///< calls of devmem_shard_rebind() without a region
    int rebind_says = 0;  ///< what they return
};

/// Tokens delivered and not yet returned, and how returns went. Reset by devmem_shard's
/// constructor.
extern std::set<std::uint64_t> fake_tokens_out;
extern unsigned fake_return_calls;
extern unsigned fake_stale_returns;
