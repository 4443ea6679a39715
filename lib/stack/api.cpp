// SPDX-License-Identifier: BSD-3-Clause
// The C functions of devmem.h that concern stacks, shards, connections and tokens.

#include "lib/stack/attempt.h"
#include "lib/stack/payload_pool.h"
#include "lib/stack/shard.h"
#include "lib/stack/stack.h"

#include <devmem/devmem.h>

#include <cerrno>
#include <new>
#include <string>

int devmem_stack_create(const devmem_stack_config* config, devmem_stack** stack, char* error,
                        std::size_t error_len)
{
    return devmem::attempt(
        [&](std::string& text) { return devmem_stack::create(*config, stack, text); },
        "out of memory: ask for fewer connections per shard", error, error_len);
}

void devmem_stack_destroy(devmem_stack* stack)
{
    delete stack;
}

devmem_shard* devmem_stack_shard(devmem_stack* stack, unsigned index)
{
    return index < stack->shards.size() ? stack->shards[index].get() : nullptr;
}

void devmem_stack_fit(const devmem_stack* stack, struct devmem_fit* fit)
{
    *fit = stack->fit;
}

unsigned devmem_shard_poll(devmem_shard* shard, devmem_event* events, unsigned n, bool* busy)
{
    return shard->poll(events, n, busy);
}

unsigned devmem_shard_events(devmem_shard* shard, devmem_event* events, unsigned n)
{
    return shard->drain_events(events, n);
}

int devmem_listen(devmem_shard* shard, std::uint16_t port, unsigned backlog,
                  devmem_listener_t* listener)
{
    try {
        return shard->listen(port, backlog, listener);
    } catch (const std::bad_alloc&) {
        return -ENOMEM;
    }
}

int devmem_listen_close(devmem_shard* shard, devmem_listener_t listener)
{
    return shard->listen_close(listener);
}

int devmem_accept(devmem_shard* shard, devmem_listener_t listener, devmem_conn_t* conn)
{
    return shard->accept(listener, conn);
}

int devmem_connect(devmem_shard* shard, const devmem_endpoint* remote, devmem_conn_t* conn)
{
    return shard->connect({}, *remote, conn);
}

int devmem_connect_from(devmem_shard* shard, const devmem_endpoint* local,
                        const devmem_endpoint* remote, devmem_conn_t* conn)
{
    return shard->connect(local != nullptr ? *local : devmem_endpoint{}, *remote, conn);
}

int devmem_conn_endpoints(const devmem_shard* shard, devmem_conn_t conn, devmem_endpoint* local,
                          devmem_endpoint* remote)
{
    return shard->endpoints(conn, local, remote);
}

std::int64_t devmem_conn_urgent(const devmem_shard* shard, devmem_conn_t conn)
{
    return shard->urgent(conn);
}

int devmem_conn_set(devmem_shard* shard, devmem_conn_t conn, const devmem_conn_config* config)
{
    return config->size == sizeof(*config) ? shard->set(conn, *config) : -EINVAL;
}

int devmem_conn_set_ip(devmem_shard* shard, devmem_conn_t conn, uint8_t dscp, uint8_t ttl)
{
    return shard->set_ip(conn, dscp, ttl);
}

int devmem_recv(devmem_shard* shard, devmem_conn_t conn, devmem_token* tokens, unsigned n)
{
    return shard->recv(conn, tokens, n);
}

unsigned devmem_recv_burst(devmem_shard* shard, devmem_conn_t* conns, devmem_token* tokens,
                           unsigned n)
{
    return shard->recv_burst(conns, tokens, n);
}

int devmem_token_return(const devmem_token* tokens, unsigned n)
{
    return devmem::PayloadPool::return_tokens(tokens, n);
}

int devmem_token_split(devmem_token* token, uint32_t at, devmem_token* rest)
{
    return devmem::PayloadPool::split_token(token, at, rest);
}

std::int64_t devmem_send(devmem_shard* shard, devmem_conn_t conn, const void* data, std::size_t len)
{
    return shard->send(conn, data, len);
}

int devmem_shutdown(devmem_shard* shard, devmem_conn_t conn)
{
    return shard->shutdown(conn);
}

int devmem_close(devmem_shard* shard, devmem_conn_t conn)
{
    return shard->close(conn, false);
}

int devmem_abort(devmem_shard* shard, devmem_conn_t conn)
{
    return shard->close(conn, true);
}

void devmem_shard_stats_get(const devmem_shard* shard, devmem_shard_stats* stats)
{
    shard->stats(stats);
}

int devmem_shard_rebind(devmem_shard* shard, devmem_region* region, char* error,
                        std::size_t error_len)
{
    return devmem::attempt([&](std::string& text) { return shard->rebind(region, text); },
                           "out of memory", error, error_len);
}

rte_mempool* devmem_shard_pool(const devmem_shard* shard)
{
    return shard->payload_mempool();
}
