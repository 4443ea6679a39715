// SPDX-License-Identifier: BSD-3-Clause
// A frame off the wire: parsed whole, and again from as few bytes as the parser says it needs;
// then what a host does with it. Byte 0: how many bytes are at hand at first. Byte 1: see Mode.
#include "lib/wire/frame.h"
#include "lib/wire/plain.h"
#include "test/fuzz/check.h"
#include "test/fuzz/target.h"
#include "test/unit/wire/model.h"

#include <algorithm>
#include <array>
#include <cstring>

#ifdef __SANITIZE_ADDRESS__
#define FUZZ_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FUZZ_ASAN 1
#endif
#endif
#ifdef FUZZ_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace {

using namespace devmem::wire;

constexpr std::size_t kMostBytes = 512;
constexpr Mac kOurMac{0x02, 0, 0, 0, 0, 0x01};

/// Bits of byte 1.
enum Mode : std::uint8_t {
    kRepair = 1, ///< make checksums right, which mutation does not
    kLonger = 2, ///< the frame goes on beyond the bytes given
};

void store_sum(std::uint8_t* at, std::uint16_t sum)
{
    at[0] = static_cast<std::uint8_t>(~sum >> 8);
    at[1] = static_cast<std::uint8_t>(~sum);
}

/// Make the checksums of IPv4, ICMP and ICMPv6 right, where they are where they mostly are.
void repair(std::span<std::uint8_t> frame)
{
    std::size_t l3 = 14;
    while (l3 + 4 <= frame.size() && l3 < 22 &&
           ((frame[l3 - 2] == 0x81 && frame[l3 - 1] == 0) ||
            (frame[l3 - 2] == 0x88 && frame[l3 - 1] == 0xa8)))
        l3 += 4;
    if (l3 + 20 > frame.size())
        return;
    const std::span<std::uint8_t> ip = frame.subspan(l3);
    if (ip[0] >> 4 == 4) {
        const std::size_t header = (ip[0] & 15u) * 4;
        const std::size_t total = std::size_t{ip[2]} << 8 | ip[3];
        if (header < 20 || header > ip.size())
            return;
        ip[10] = ip[11] = 0;
        store_sum(&ip[10], model::ones_complement_sum(ip.first(header)));
        if (ip[9] == 1 && total >= header + 8 && total <= ip.size()) {
            const std::span<std::uint8_t> icmp = ip.subspan(header, total - header);
            icmp[2] = icmp[3] = 0;
            store_sum(&icmp[2], model::ones_complement_sum(icmp));
        }
    } else if (ip[0] >> 4 == 6 && ip.size() >= 48 && ip[6] == 58) {
        const std::size_t bytes = std::size_t{ip[4]} << 8 | ip[5];
        if (bytes < 8 || bytes > ip.size() - 40)
            return;
        const std::span<std::uint8_t> icmp = ip.subspan(40, bytes);
        icmp[2] = icmp[3] = 0;
        // The pseudo header, without a copy: the two addresses, the length, the protocol.
        std::array<std::uint8_t, 40> pseudo{};
        std::copy_n(&ip[8], 32, pseudo.data());
        pseudo[34] = ip[4];
        pseudo[35] = ip[5];
        pseudo[39] = 58;
        const unsigned sum =
            model::ones_complement_sum(pseudo) + unsigned{model::ones_complement_sum(icmp)};
        store_sum(&icmp[2], static_cast<std::uint16_t>(sum > 0xffff ? sum - 0xffff : sum));
    }
}

void check_same(const Packet& a, const Packet& b)
{
    FUZZ_CHECK(a.kind == b.kind && a.l3_offset == b.l3_offset && a.l4_offset == b.l4_offset);
    FUZZ_CHECK(a.header_bytes == b.header_bytes && a.l4_bytes == b.l4_bytes);
    FUZZ_CHECK(a.payload_bytes == b.payload_bytes && a.hop_limit == b.hop_limit);
    FUZZ_CHECK(a.kind == Kind::kArp || a.ecn == b.ecn);
    FUZZ_CHECK(a.src == b.src && a.dst == b.dst);
    FUZZ_CHECK(a.src_port == b.src_port && a.dst_port == b.dst_port);
    FUZZ_CHECK(a.seq == b.seq && a.ack == b.ack && a.window == b.window && a.flags == b.flags);
    FUZZ_CHECK(a.urgent == b.urgent);
    FUZZ_CHECK(a.options == b.options);
}

/// Nothing a packet says of itself leads out of the frame.
void check_bounds(const Packet& packet, std::uint32_t frame_bytes)
{
    FUZZ_CHECK(packet.l3_offset >= 14 && packet.l3_offset <= packet.l4_offset);
    FUZZ_CHECK(packet.l4_offset + packet.l4_bytes <= frame_bytes);
    if (packet.kind == Kind::kTcp) {
        FUZZ_CHECK(packet.header_bytes >= packet.l4_offset + 20);
        FUZZ_CHECK(packet.header_bytes - packet.l4_offset + packet.payload_bytes ==
                   packet.l4_bytes);
        FUZZ_CHECK(packet.header_bytes - packet.l3_offset <= 60 + 40 + 256);
        FUZZ_CHECK(packet.src.family == packet.dst.family);
    } else {
        FUZZ_CHECK(packet.payload_bytes == 0);
    }
}

/// The short way in, given the headers alone, says the same or nothing.
void check_plain(std::span<const std::uint8_t> frame, std::uint32_t frame_bytes,
                 const Packet& packet)
{
    PlainSegment plain{};
    if (packet.header_bytes > frame.size() ||
        !parse_plain(frame.data(), packet.header_bytes, frame_bytes, false, &plain))
        return;
    FUZZ_CHECK(plain.ipv6() == (packet.src.family == 6));
    FUZZ_CHECK(std::equal(plain.addresses(), plain.addresses() + (plain.ipv6() ? 16 : 4),
                          packet.src.bytes.begin()));
    FUZZ_CHECK(plain.ports() == (std::uint32_t{packet.src_port} << 16 | packet.dst_port));
    FUZZ_CHECK(plain.seq() == packet.seq && plain.ack() == packet.ack);
    FUZZ_CHECK(plain.window() == packet.window && plain.flags() == packet.flags);
    FUZZ_CHECK(plain.text_bytes == packet.payload_bytes && packet.options.sack_count == 0);
    FUZZ_CHECK(packet.ecn != kCe);
    FUZZ_CHECK(plain.timestamps == packet.options.timestamps &&
               plain.ts_val() == packet.options.ts_val && plain.ts_ecr() == packet.options.ts_ecr);
}

/// Our own segment with the same contents says the same.
void check_tcp(const Packet& packet)
{
    std::array<std::uint8_t, kMaxTcpHeader> bytes;
    const Flow flow{packet.src,      packet.dst,     packet.src_port,
                    packet.dst_port, packet.src_mac, packet.dst_mac};
    const std::size_t n = write_tcp(
        bytes, flow, {packet.seq, packet.ack, packet.window, packet.flags, Ecn{packet.ecn}},
        packet.options, {}, {}, 1);
    FUZZ_CHECK(n >= 54 && n <= bytes.size());
    Packet again{};
    FUZZ_CHECK(parse({bytes.data(), n}, static_cast<std::uint32_t>(n), &again) == Verdict::kOk);
    FUZZ_CHECK(model::l4_sum(again.src, again.dst, 6,
                             {bytes.data() + again.l4_offset, again.l4_bytes}) == 0xffff);
    FUZZ_CHECK(again.header_bytes == n && again.payload_bytes == 0);
    FUZZ_CHECK(again.src == packet.src && again.dst == packet.dst);
    FUZZ_CHECK(again.src_port == packet.src_port && again.dst_port == packet.dst_port);
    FUZZ_CHECK(again.seq == packet.seq && again.ack == packet.ack);
    FUZZ_CHECK(again.window == packet.window && again.flags == packet.flags);
    FUZZ_CHECK(again.ecn == packet.ecn);
    FUZZ_CHECK(again.options.mss == packet.options.mss);
    FUZZ_CHECK(again.options.timestamps == packet.options.timestamps);
    FUZZ_CHECK(again.options.window_scale == packet.options.window_scale);
    FUZZ_CHECK(again.options.sack_count <= packet.options.sack_count);
}

void check_icmp(std::span<const std::uint8_t> frame, const Packet& packet)
{
    const std::span<const std::uint8_t> message = frame.subspan(packet.l4_offset, packet.l4_bytes);
    const bool v4 = packet.kind == Kind::kIcmp4;
    FUZZ_CHECK((v4 ? model::ones_complement_sum(message)
                   : model::l4_sum(packet.src, packet.dst, 58, message)) == 0xffff);
    std::array<std::uint8_t, kMostBytes + 40> reply;
    const std::size_t n = write_echo_reply(reply, frame, packet, kOurMac);
    if (n != 0) {
        Packet answer{};
        FUZZ_CHECK(parse({reply.data(), n}, static_cast<std::uint32_t>(n), &answer) ==
                   Verdict::kOk);
        FUZZ_CHECK(answer.kind == packet.kind && answer.l4_bytes == packet.l4_bytes);
        FUZZ_CHECK(answer.src == packet.dst && answer.dst == packet.src);
        FUZZ_CHECK(
            std::equal(message.begin() + 4, message.end(), reply.begin() + answer.l4_offset + 4));
        FUZZ_CHECK(write_echo_reply({reply.data(), n - 1}, frame, packet, kOurMac) == 0);
    }
    Nd nd{};
    if (parse_nd(frame, packet, &nd))
        FUZZ_CHECK(!v4 && packet.hop_limit == 255 && nd.target.bytes[0] != 0xff);
    Unreachable error{};
    if (parse_unreachable(frame, packet, &error)) {
        FUZZ_CHECK(error.src == packet.dst && error.dst.family == packet.src.family);
        FUZZ_CHECK(packet.l4_bytes >= (v4 ? 8u + 28 : 8u + 48));
    }
}

void check_arp(std::span<const std::uint8_t> frame, const Packet& packet)
{
    Arp arp{};
    if (!parse_arp(frame, packet, &arp))
        return;
    std::array<std::uint8_t, 64> reply;
    const std::size_t n = write_arp(reply, 2, kOurMac, arp.target, arp.sender_mac, arp.sender);
    Packet answer{};
    FUZZ_CHECK(n >= 42 && n <= reply.size());
    FUZZ_CHECK(parse({reply.data(), n}, static_cast<std::uint32_t>(n), &answer) == Verdict::kOk);
    FUZZ_CHECK(answer.kind == Kind::kArp && answer.dst_mac == arp.sender_mac);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    if (size < 2 || size - 2 > kMostBytes)
        return 0;
    alignas(8) static std::array<std::uint8_t, kMostBytes + 8> memory;
    const std::size_t given = size - 2;
    const std::span<std::uint8_t> frame = std::span(memory).first(given);
    std::copy_n(data + 2, given, frame.begin());
    if (data[1] & kRepair)
        repair(frame);
    const auto frame_bytes =
        static_cast<std::uint32_t>(given + (data[1] & kLonger ? 16u * data[0] : 0u));

    // With nothing but what is asked for: the answer is the same, and no byte more is read.
    std::size_t at_hand = std::min<std::size_t>(data[0], given);
    Packet packet{};
    Verdict verdict;
    unsigned asked = 0;
    for (;;) {
        ASAN_POISON_MEMORY_REGION(memory.data() + at_hand, memory.size() - at_hand);
        verdict = parse(frame.first(at_hand), frame_bytes, &packet);
        ASAN_UNPOISON_MEMORY_REGION(memory.data(), memory.size());
        if (verdict != Verdict::kNeedMore)
            break;
        FUZZ_CHECK(packet.need > at_hand && packet.need <= frame_bytes);
        if (packet.need > given)
            break;
        at_hand = packet.need;
        FUZZ_CHECK(++asked < 64);
    }
    Packet whole{};
    const Verdict verdict_whole = parse(frame, frame_bytes, &whole);
    FUZZ_CHECK(verdict == verdict_whole);
    FUZZ_CHECK(std::strcmp(verdict_name(verdict), "unknown") != 0);
    if (verdict != Verdict::kOk)
        return 0;
    check_same(packet, whole);
    check_bounds(whole, frame_bytes);
    switch (whole.kind) {
    case Kind::kTcp:
        check_tcp(whole);
        check_plain(frame, frame_bytes, whole);
        break;
    case Kind::kIcmp4:
    case Kind::kIcmp6:
        check_icmp(frame, whole);
        break;
    case Kind::kArp:
        check_arp(frame, whole);
    }
    return 0;
}
