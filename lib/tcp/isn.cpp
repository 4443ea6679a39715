// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/isn.h"

#include <bit>
#include <cstring>

namespace devmem::tcp {

namespace {

struct SipState {
    std::uint64_t v0, v1, v2, v3;

    void round()
    {
        v0 += v1;
        v1 = std::rotl(v1, 13) ^ v0;
        v0 = std::rotl(v0, 32);
        v2 += v3;
        v3 = std::rotl(v3, 16) ^ v2;
        v0 += v3;
        v3 = std::rotl(v3, 21) ^ v0;
        v2 += v1;
        v1 = std::rotl(v1, 17) ^ v2;
        v2 = std::rotl(v2, 32);
    }
    void absorb(std::uint64_t word)
    {
        v3 ^= word;
        round();
        round();
        v0 ^= word;
    }
};

} // namespace

std::uint64_t siphash(const std::array<std::uint64_t, 2>& key, const std::uint64_t* words,
                      std::size_t n)
{
    SipState s{key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
               key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
    for (std::size_t i = 0; i < n; i++)
        s.absorb(words[i]);
    s.absorb(std::uint64_t{n * 8} << 56); // the input's length ends it
    s.v2 ^= 0xff;
    for (int i = 0; i < 4; i++)
        s.round();
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

std::uint64_t IsnGenerator::hash(const FlowName& flow) const
{
    std::uint64_t words[5];
    std::memcpy(&words[0], flow.local.data(), 16);
    std::memcpy(&words[2], flow.remote.data(), 16);
    words[4] = std::uint64_t{flow.local_port} << 16 | flow.remote_port;
    return siphash(secret_, words, 5);
}

Seq IsnGenerator::isn(const FlowName& flow, Time now) const
{
    return Seq(static_cast<std::uint32_t>(hash(flow)) + static_cast<std::uint32_t>(now / 4));
}

std::uint32_t IsnGenerator::timestamp_offset(const FlowName& flow) const
{
    return static_cast<std::uint32_t>(hash(flow) >> 32);
}

} // namespace devmem::tcp
