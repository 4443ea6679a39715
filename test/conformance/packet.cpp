// SPDX-License-Identifier: BSD-3-Clause
#include "test/conformance/packet.h"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <utility>

namespace devmem::conformance {

namespace {

constexpr std::size_t kTcpBytes = 20;
constexpr std::uint8_t kProtocolTcp = 6;

void put16(std::uint8_t* p, std::size_t value)
{
    p[0] = static_cast<std::uint8_t>(value >> 8);
    p[1] = static_cast<std::uint8_t>(value);
}

std::uint16_t get16(const std::uint8_t* p)
{
    return static_cast<std::uint16_t>(p[0] << 8 | p[1]);
}

std::size_t ip_bytes(const Endpoints& ends)
{
    return ends.family == 4 ? 20 : 40;
}

std::size_t address_bytes(const Endpoints& ends)
{
    return ends.family == 4 ? 4 : 16;
}

/// RFC 1071: the sum of big-endian words; 0xffff over what includes a right checksum.
std::uint32_t sum(std::span<const std::uint8_t> bytes, std::uint32_t start)
{
    for (std::size_t i = 0; i < bytes.size(); i++)
        start += static_cast<std::uint32_t>(bytes[i]) << (i % 2 ? 0 : 8);
    while (start >> 16)
        start = (start & 0xffff) + (start >> 16);
    return start;
}

/// With the pseudo-header.
std::uint32_t sum_pseudo(std::uint8_t protocol, std::span<const std::uint8_t> bytes,
                         const Endpoints& ends)
{
    std::uint32_t s = protocol + static_cast<std::uint32_t>(bytes.size());
    s = sum(std::span(ends.local).first(address_bytes(ends)), s);
    s = sum(std::span(ends.remote).first(address_bytes(ends)), s);
    return sum(bytes, s);
}

std::vector<Option> split_options(std::span<const std::uint8_t> area, std::string* error)
{
    std::vector<Option> options;
    while (!area.empty()) {
        std::size_t n = 1;
        if (area[0] != kEol && area[0] != kNop) {
            n = area.size() < 2 ? 0 : area[1];
            if (n < 2 || n > area.size()) {
                *error = "malformed option";
                break;
            }
        }
        options.emplace_back(area.begin(), area.begin() + static_cast<std::ptrdiff_t>(n));
        area = area.subspan(n);
    }
    return options;
}

std::string to_string(const Option& option)
{
    char text[48];
    const std::uint8_t* value = option.data() + 2;
    const auto is = [&](OptionKind kind, std::size_t bytes) {
        return option[0] == kind && option.size() == bytes;
    };
    if (is(kEol, 1))
        return "eol";
    if (is(kNop, 1))
        return "nop";
    if (is(kMss, 4)) {
        std::snprintf(text, sizeof text, "mss %u", get16(value));
    } else if (is(kWindowScale, 3)) {
        std::snprintf(text, sizeof text, "wscale %u", value[0]);
    } else if (is(kSackPermitted, 2)) {
        return "sackOK";
    } else if (is(kTimestamps, 10)) {
        std::snprintf(text, sizeof text, "TS val %u ecr %u", load32(value), load32(value + 4));
    } else if (option[0] == kSack && option.size() % 8 == 2) {
        std::string all = "sack";
        for (; value != option.data() + option.size(); value += 8) {
            std::snprintf(text, sizeof text, " %u:%u", load32(value), load32(value + 4));
            all += text;
        }
        return all;
    } else {
        std::string all = "raw ";
        for (const std::uint8_t byte : option) {
            std::snprintf(text, sizeof text, "%02x", byte);
            all += text;
        }
        return all;
    }
    return text;
}

constexpr std::uint8_t kProtocolIcmp4 = 1, kProtocolIcmp6 = 58;

/// Destination unreachable (RFC 792, RFC 4443 3.1), named as packetdrill does.
constexpr struct {
    std::string_view name;
    std::uint8_t code4, code6;
} kIcmpErrors[] = {
    {"net_unreachable", 0, 0},
    {"host_unreachable", 1, 3},
    {"port_unreachable", 3, 4},
};

/// An IP header without its checksum.
std::vector<std::uint8_t> ip_header(const Endpoints& ends, bool from_local, std::uint8_t protocol,
                                    std::size_t payload, std::uint8_t ecn = 0)
{
    std::vector<std::uint8_t> ip(ip_bytes(ends));
    const Address& from = from_local ? ends.local : ends.remote;
    const Address& to = from_local ? ends.remote : ends.local;
    std::uint8_t* addresses = ip.data() + (ends.family == 4 ? 12 : 8);
    std::copy_n(from.begin(), address_bytes(ends), addresses);
    std::copy_n(to.begin(), address_bytes(ends), addresses + address_bytes(ends));
    if (ends.family == 4) {
        ip[0] = 0x45;
        ip[1] = ecn;
        put16(&ip[2], ip.size() + payload);
        ip[6] = 0x40; // don't fragment
        ip[8] = 64;
        ip[9] = protocol;
        put16(&ip[10], ~sum(ip, 0) & 0xffff);
    } else {
        ip[0] = 0x60;
        ip[1] = static_cast<std::uint8_t>(ecn << 4);
        put16(&ip[4], payload);
        ip[6] = protocol;
        ip[7] = 64;
    }
    return ip;
}

/// It quotes the IP header and 8 bytes of TCP's: ports and number.
std::vector<std::uint8_t> encode_icmp(const Packet& packet, const Endpoints& ends)
{
    const auto error = std::find_if(std::begin(kIcmpErrors), std::end(kIcmpErrors),
                                    [&](const auto& each) { return each.name == packet.icmp; });
    std::vector<std::uint8_t> icmp(8);
    icmp[0] = ends.family == 4 ? 3 : 1;
    icmp[1] = ends.family == 4 ? error->code4 : error->code6;
    const auto quoted = ip_header(ends, true, kProtocolTcp, kTcpBytes + packet.len);
    icmp.insert(icmp.end(), quoted.begin(), quoted.end());
    std::uint8_t tcp[8];
    put16(tcp, ends.local_port);
    put16(tcp + 2, ends.remote_port);
    store32(tcp + 4, packet.seq);
    icmp.insert(icmp.end(), tcp, tcp + sizeof tcp);
    put16(&icmp[2],
          ~(ends.family == 4 ? sum(icmp, 0) : sum_pseudo(kProtocolIcmp6, icmp, ends)) & 0xffff);
    auto bytes =
        ip_header(ends, false, ends.family == 4 ? kProtocolIcmp4 : kProtocolIcmp6, icmp.size());
    bytes.insert(bytes.end(), icmp.begin(), icmp.end());
    return bytes;
}

} // namespace

bool is_icmp(const std::string& name)
{
    return std::any_of(std::begin(kIcmpErrors), std::end(kIcmpErrors),
                       [&](const auto& each) { return each.name == name; });
}

std::uint32_t load32(const std::uint8_t* p)
{
    return static_cast<std::uint32_t>(get16(p)) << 16 | get16(p + 2);
}

void store32(std::uint8_t* p, std::uint32_t value)
{
    put16(p, value >> 16);
    put16(p + 2, value & 0xffff);
}

std::string to_string(const Packet& packet)
{
    static constexpr std::pair<std::uint8_t, char> kLetters[] = {
        {kFin, 'F'}, {kSyn, 'S'}, {kRst, 'R'}, {kPsh, 'P'},
        {kAck, '.'}, {kUrg, 'U'}, {kEce, 'E'}, {kCwr, 'W'},
    };
    std::string text;
    if (packet.ecn != 0)
        text = "[" + std::string(kEcnNames[packet.ecn]) + "] ";
    for (const auto& [flag, letter] : kLetters) {
        if (packet.flags & flag)
            text += letter;
    }
    if (packet.flags == 0)
        text += "-";
    char number[64];
    std::snprintf(number, sizeof number, " %u:%u(%u)", packet.seq, packet.seq + packet.len,
                  packet.len);
    text += number;
    if (packet.flags & kAck)
        text += " ack " + std::to_string(packet.ack);
    if (packet.window)
        text += " win " + std::to_string(*packet.window);
    if (packet.flags & kUrg)
        text += " urg " + std::to_string(packet.urgent);
    if (packet.any_options)
        return text + " <...>";
    for (std::size_t i = 0; i < packet.options.size(); i++)
        text += (i == 0 ? " <" : ",") + to_string(packet.options[i]);
    return packet.options.empty() ? text : text + ">";
}

std::vector<std::uint8_t> encode(const Packet& packet, const Endpoints& ends)
{
    if (!packet.icmp.empty())
        return encode_icmp(packet, ends);
    std::vector<std::uint8_t> area;
    for (const Option& option : packet.options)
        area.insert(area.end(), option.begin(), option.end());

    const std::size_t tcp_bytes = kTcpBytes + area.size() + packet.payload.size();
    std::vector<std::uint8_t> bytes = ip_header(ends, false, kProtocolTcp, tcp_bytes, packet.ecn);
    bytes.resize(ip_bytes(ends) + kTcpBytes + area.size());
    bytes.insert(bytes.end(), packet.payload.begin(), packet.payload.end());

    std::uint8_t* tcp = bytes.data() + ip_bytes(ends);
    put16(tcp, ends.remote_port);
    put16(tcp + 2, ends.local_port);
    store32(tcp + 4, packet.seq);
    store32(tcp + 8, packet.ack);
    tcp[12] = static_cast<std::uint8_t>((kTcpBytes + area.size()) / 4 << 4);
    tcp[13] = packet.flags;
    put16(tcp + 14, packet.window.value_or(0));
    put16(tcp + 18, packet.urgent);
    std::copy(area.begin(), area.end(), tcp + kTcpBytes);
    put16(tcp + 16, ~sum_pseudo(kProtocolTcp, {tcp, tcp_bytes}, ends) & 0xffff);
    return bytes;
}

std::optional<Packet> decode(std::span<const std::uint8_t> bytes, const Endpoints& ends,
                             std::uint16_t* local_port, std::string* error)
{
    error->clear();
    if (bytes.size() < ip_bytes(ends) || bytes[0] >> 4 != ends.family ||
        bytes[ends.family == 4 ? 9 : 6] != kProtocolTcp)
        return {};
    const std::uint8_t* ip = bytes.data();
    const std::uint8_t* addresses = ip + (ends.family == 4 ? 12 : 8);
    if (!std::equal(addresses, addresses + address_bytes(ends), ends.local.begin()) ||
        !std::equal(addresses + address_bytes(ends), addresses + 2 * address_bytes(ends),
                    ends.remote.begin()))
        return {};

    const auto fail = [&](const char* what) {
        *error = what;
        return std::optional<Packet>();
    };
    if (ends.family == 4 && (ip[0] != 0x45 || sum({ip, 20}, 0) != 0xffff))
        return fail("bad IP header or checksum");
    const std::size_t total = ends.family == 4 ? get16(ip + 2) : ip_bytes(ends) + get16(ip + 4);
    if (total != bytes.size() || total < ip_bytes(ends) + kTcpBytes)
        return fail("bad IP length");
    const auto tcp = bytes.subspan(ip_bytes(ends));
    const std::size_t header = (tcp[12] >> 4) * 4u;
    if (header < kTcpBytes || header > tcp.size())
        return fail("bad data offset");
    if (sum_pseudo(kProtocolTcp, tcp, ends) != 0xffff)
        return fail("bad TCP checksum");
    if (get16(tcp.data() + 2) != ends.remote_port)
        return fail("sent to another port");

    *local_port = get16(tcp.data());
    Packet packet;
    packet.seq = load32(tcp.data() + 4);
    packet.ack = load32(tcp.data() + 8);
    packet.flags = tcp[13];
    packet.ecn = (ends.family == 4 ? ip[1] : ip[1] >> 4) & 3;
    packet.window = get16(tcp.data() + 14);
    packet.urgent = get16(tcp.data() + 18);
    packet.options = split_options(tcp.subspan(kTcpBytes, header - kTcpBytes), error);
    if (!error->empty())
        return {};
    packet.payload.assign(tcp.begin() + static_cast<std::ptrdiff_t>(header), tcp.end());
    packet.len = static_cast<std::uint32_t>(packet.payload.size());
    return packet;
}

} // namespace devmem::conformance
