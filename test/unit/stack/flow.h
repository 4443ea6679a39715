// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

namespace devmem::test {

/// One connection from a to b and what became of its stream.
struct Flow {
    devmem_conn_t client = 0, server = 0;
    std::uint64_t sent = 0, received = 0;
    std::vector<devmem_token> held;

    /// Offer up to `len` bytes, never past `end`.
    void send(WirePair& wires, std::size_t len, std::uint64_t end)
    {
        std::array<std::uint8_t, 16384> chunk;
        len = std::min<std::uint64_t>({len, chunk.size(), end - sent});
        for (std::size_t i = 0; i < len; i++)
            chunk[i] = stream_byte(sent + i);
        const std::int64_t taken =
            len == 0 ? 0 : devmem_send(wires.a.shard, client, chunk.data(), len);
        sent += taken > 0 ? static_cast<std::uint64_t>(taken) : 0;
    }
    /// Receive what is there and check it. @param keep do not return the tokens
    void receive(WirePair& wires, bool keep)
    {
        devmem_token token;
        while (devmem_recv(wires.b.shard, server, &token, 1) > 0) {
            for (const std::uint8_t byte : bytes_of(token))
                ASSERT_EQ(byte, stream_byte(received++));
            if (keep)
                held.push_back(token);
            else
                ASSERT_EQ(devmem_token_return(&token, 1), 1);
        }
    }
    void give_back()
    {
        if (!held.empty())
            devmem_token_return(held.data(), static_cast<unsigned>(held.size()));
        held.clear();
    }
};

/// Seconds that `bytes` of a flow take whose consumer returns what it gets.
inline double transfer(WirePair& wires, Flow& flow, std::uint64_t bytes)
{
    const std::uint64_t end = flow.received + bytes;
    const std::uint64_t begin = rte_rdtsc();
    EXPECT_TRUE(wires.run_until([&] {
        flow.send(wires, 16384, end);
        flow.receive(wires, false);
        return flow.received == end;
    }));
    return seconds_since(begin);
}

/// A pair of stacks and flows between them.
struct FlowTest : testing::Test {
    void open(const EndConfig& receiver, unsigned flows_wanted,
              const EndConfig& sender = {.max_connections = 1100})
    {
        wires = std::make_unique<WirePair>(sender, receiver);
        flows.resize(flows_wanted);
        for (Flow& flow : flows)
            ASSERT_TRUE(wires->establish(80, &flow.client, &flow.server));
    }

    std::unique_ptr<WirePair> wires;
    std::vector<Flow> flows;
};

} // namespace devmem::test
