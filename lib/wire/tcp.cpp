// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/bytes.h"
#include "lib/wire/headers.h"
#include "lib/wire/tcp_options_codec.h"

namespace devmem::wire {

std::size_t write_tcp(std::span<std::uint8_t> out, const Flow& flow, const TcpHeader& tcp,
                      const TcpOptions& options, std::span<const std::uint8_t> payload0,
                      std::span<const std::uint8_t> payload1, std::uint16_t ip_id)
{
    const std::size_t l4 = below_bytes(flow.dst);
    const std::size_t header = kTcpBytes + tcp_options_bytes(options);
    const std::size_t segment = header + payload0.size() + payload1.size();
    // Both families have a 16-bit length; IPv4's counts its own header too.
    if (l4 + header > out.size() || segment > 0xffff - kIpv4Bytes)
        return 0;
    const auto l4_bytes = static_cast<std::uint32_t>(segment);
    write_below(out.data(),
                {flow.dst_mac, flow.src_mac, flow.src, flow.dst, kProtocolTcp, flow.hop_limit,
                 ip_id, flow.dscp, tcp.ecn},
                l4_bytes);

    std::uint8_t* p = out.data() + l4;
    store16(p, flow.src_port);
    store16(p + 2, flow.dst_port);
    store32(p + 4, tcp.seq);
    store32(p + 8, tcp.ack);
    p[12] = static_cast<std::uint8_t>(header / 4 << 4);
    p[13] = tcp.flags;
    store16(p + 14, tcp.window);
    store32(p + 16, 0); // checksum, urgent pointer
    write_tcp_options(p + kTcpBytes, options);

    std::uint32_t sum = checksum_pseudo(flow.src, flow.dst, kProtocolTcp, l4_bytes);
    sum = checksum_add(checksum_add(sum, {p, header}), payload0);
    // Behind an odd number of bytes every byte has the other weight.
    const std::uint32_t tail = checksum_add(0, payload1);
    sum += payload0.size() % 2 == 0 ? tail : (tail & 0xff) << 8 | tail >> 8;
    store16(p + 16, checksum_fold(sum));
    return l4 + header;
}

} // namespace devmem::wire
