// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/ncat/fake_stack.h"

#include "lib/memory/region.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

std::set<std::uint64_t> fake_tokens_out;
unsigned fake_return_calls;
unsigned fake_stale_returns;

namespace {

std::uint64_t next_token;

FakeConnection* find(devmem_shard* shard, devmem_conn_t conn)
{
    const auto it = shard->connections.find(conn);
    return it == shard->connections.end() || it->second.closed ? nullptr : &it->second;
}

} // namespace

devmem_shard::devmem_shard(const char* region_spec)
{
    devmem_region_create(region_spec, &region, nullptr, 0);
    fake_tokens_out.clear();
    fake_return_calls = fake_stale_returns = 0;
}

devmem_shard::~devmem_shard()
{
    devmem_region_release(region);
}

void devmem_shard::deliver(devmem_conn_t conn, const std::string& bytes, std::size_t token_bytes)
{
    for (std::size_t at = 0; at < bytes.size(); at += token_bytes) {
        std::string piece = bytes.substr(at, token_bytes);
        const devmem::Transfer transfer{used, piece.data(), piece.size()};
        region->provider->dma_write(*region, {&transfer, 1});
        const devmem_token token{
            .id = ++next_token,
            .region = region,
            .offset = used,
            .address = static_cast<std::uint64_t>(region->base) + used,
            .length = static_cast<std::uint32_t>(piece.size()),
            .flags = 0,
        };
        connections[conn].receive.push_back(token);
        used += piece.size();
    }
    raise(DEVMEM_EVENT_READABLE, conn);
}

devmem_conn_t devmem_shard::arrive()
{
    const devmem_conn_t conn = next_conn++;
    connections.try_emplace(conn);
    waiting.push_back(conn);
    raise(DEVMEM_EVENT_ACCEPT);
    return conn;
}

void devmem_shard::raise(devmem_event_type type, devmem_conn_t conn, int error)
{
    events.push_back({.type = type, .error = error, .conn = conn, .listener = 0});
}

unsigned devmem_shard_poll(devmem_shard* shard, devmem_event* events, unsigned n, bool* busy)
{
    const auto count = std::min<std::size_t>(n, shard->events.size());
    std::copy_n(shard->events.begin(), count, events);
    shard->events.erase(shard->events.begin(), shard->events.begin() + static_cast<long>(count));
    if (busy)
        *busy = count != 0;
    return static_cast<unsigned>(count);
}

int devmem_listen(devmem_shard* shard, std::uint16_t, unsigned, devmem_listener_t* listener)
{
    shard->listening = true;
    *listener = 0;
    return 0;
}

int devmem_listen_close(devmem_shard* shard, devmem_listener_t)
{
    shard->listening = false;
    return 0;
}

int devmem_accept(devmem_shard* shard, devmem_listener_t, devmem_conn_t* conn)
{
    if (shard->waiting.empty())
        return -EAGAIN;
    *conn = shard->waiting.front();
    shard->waiting.pop_front();
    return 0;
}

int devmem_connect_from(devmem_shard* shard, const devmem_endpoint* local,
                        const devmem_endpoint* remote, devmem_conn_t* conn)
{
    if (remote->port == 0)
        return -EINVAL;
    shard->from = *local;
    *conn = shard->next_conn++;
    shard->connections.try_emplace(*conn);
    return 0;
}

int devmem_conn_endpoints(const devmem_shard*, devmem_conn_t conn, devmem_endpoint* local,
                          devmem_endpoint* remote)
{
    *local = {};
    *remote = {};
    devmem_addr_parse("10.0.0.1", &remote->addr);
    remote->port = static_cast<std::uint16_t>(conn);
    return 0;
}

int devmem_recv(devmem_shard* shard, devmem_conn_t conn, devmem_token* tokens, unsigned n)
{
    FakeConnection* connection = find(shard, conn);
    if (!connection)
        return -EBADF;
    if (connection->receive.empty())
        return connection->then;
    unsigned count = 0;
    while (count < n && !connection->receive.empty()) {
        fake_tokens_out.insert(connection->receive.front().id);
        tokens[count++] = connection->receive.front();
        connection->receive.pop_front();
    }
    return static_cast<int>(count);
}

int devmem_token_return(const devmem_token* tokens, unsigned n)
{
    ++fake_return_calls;
    unsigned good = 0;
    for (unsigned i = 0; i < n; ++i)
        good += static_cast<unsigned>(fake_tokens_out.erase(tokens[i].id));
    fake_stale_returns += n - good;
    return good == n ? static_cast<int>(n) : -ESTALE;
}

std::int64_t devmem_send(devmem_shard* shard, devmem_conn_t conn, const void* data, std::size_t len)
{
    FakeConnection* connection = find(shard, conn);
    if (!connection)
        return -EBADF;
    const std::size_t taken = std::min(len, connection->send_room);
    if (taken == 0)
        return -EAGAIN;
    connection->sent.append(static_cast<const char*>(data), taken);
    connection->send_room -= taken;
    return static_cast<std::int64_t>(taken);
}

int devmem_shutdown(devmem_shard* shard, devmem_conn_t conn)
{
    FakeConnection* connection = find(shard, conn);
    if (!connection)
        return -EBADF;
    connection->shut = true;
    return 0;
}

int devmem_close(devmem_shard* shard, devmem_conn_t conn)
{
    FakeConnection* connection = find(shard, conn);
    if (!connection)
        return -EBADF;
    connection->closed = true;
    return 0;
}

int devmem_abort(devmem_shard* shard, devmem_conn_t conn)
{
    FakeConnection* connection = find(shard, conn);
    if (!connection)
        return -EBADF;
    connection->closed = connection->aborted = true;
    return 0;
}

int devmem_shard_rebind(devmem_shard* shard, devmem_region* to, char* error, std::size_t error_len)
{
    shard->unbound += to == nullptr;
    if (shard->rebind_says != 0)
        std::snprintf(error, error_len, "as the test says");
    return shard->rebind_says;
}

void devmem_shard_stats_get(const devmem_shard* shard, devmem_shard_stats* stats)
{
    *stats = shard->stats;
}
