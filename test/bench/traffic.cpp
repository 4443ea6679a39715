// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/traffic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <unordered_map>

using namespace devmem;

namespace bench {
namespace {

constexpr std::uint8_t kSyn = 0x02, kAck = 0x10;
constexpr std::uint16_t kWindow = 0xffff;
constexpr std::uint16_t kMss = 65535 - 40;
constexpr std::uint8_t kScale = 7;
/// The senders' clock stands still: at a tick a millisecond it does for a thousand packets and
/// more.
constexpr std::uint32_t kTsVal = 1'000'000;

constexpr std::uint16_t kFirstPort = 10'000;
constexpr unsigned kPortsPerHost = 50'000;

constexpr std::uint32_t kIp = 14, kTcp = 34, kOptions = 54;

void store16(std::uint8_t* at, std::uint32_t value)
{
    at[0] = static_cast<std::uint8_t>(value >> 8);
    at[1] = static_cast<std::uint8_t>(value);
}

void store32(std::uint8_t* at, std::uint32_t value)
{
    value = __builtin_bswap32(value);
    std::memcpy(at, &value, sizeof value);
}

constexpr std::uint32_t halves(std::uint32_t value)
{
    return (value >> 16) + (value & 0xffff);
}

/// A sum of 16-bit words, as a checksum field.
constexpr std::uint16_t folded(std::uint32_t sum)
{
    sum = halves(sum);
    return static_cast<std::uint16_t>(~halves(sum));
}

constexpr std::array<std::uint8_t, 4> host(unsigned connection)
{
    const unsigned number = connection / kPortsPerHost + 1;
    return {10, 1, static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number)};
}

constexpr std::uint16_t port(unsigned connection)
{
    return static_cast<std::uint16_t>(kFirstPort + connection % kPortsPerHost);
}

std::uint32_t load32(const std::uint8_t* at)
{
    std::uint32_t value;
    std::memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

/// The order of a long time, so that repeating it does not show.
std::vector<std::uint32_t> schedule(const Load& load)
{
    std::vector<std::uint32_t> order(std::max(load.connections, load.zipf ? 1u << 20 : 1u));
    if (!load.zipf) {
        for (std::uint32_t i = 0; i < order.size(); i++)
            order[i] = i;
        return order;
    }
    std::vector<double> cumulative(load.connections);
    double sum = 0;
    for (unsigned i = 0; i < load.connections; i++)
        cumulative[i] = sum += 1.0 / (i + 1);
    std::mt19937_64 random(1);
    std::uniform_real_distribution<double> uniform(0, sum);
    constexpr std::size_t kRow = 32;
    std::unordered_map<std::uint32_t, unsigned> row; // of each connection, in the last kRow
    for (std::size_t i = 0; i < order.size(); i++) {
        auto next = static_cast<std::uint32_t>(
            std::lower_bound(cumulative.begin(), cumulative.end() - 1, uniform(random)) -
            cumulative.begin());
        while (row[next] >= load.most_of_one)
            next = static_cast<std::uint32_t>(random() % load.connections);
        order[i] = next;
        row[next]++;
        if (i >= kRow && --row[order[i - kRow]] == 0)
            row.erase(order[i - kRow]);
    }
    return order;
}

} // namespace

Traffic::Traffic(const Load& load, const wire::Mac& mac, const wire::Ip& ip, std::uint16_t to)
    : load_(load), mac_(mac), ip_(ip), port_(to), connections_(load.connections),
      schedule_(schedule(load))
{
}

wire::Flow Traffic::flow(unsigned connection) const
{
    wire::Flow flow{};
    flow.src.family = 4;
    std::ranges::copy(host(connection), flow.src.bytes.begin());
    flow.dst = ip_;
    flow.src_port = port(connection);
    flow.dst_port = port_;
    flow.src_mac = {0x02, 0, 0, 0, 0, 0x77};
    flow.dst_mac = mac_;
    return flow;
}

std::size_t Traffic::syn(unsigned connection, std::uint8_t* frame) const
{
    wire::TcpOptions options;
    options.mss = kMss;
    options.window_scale = kScale;
    options.sack_permitted = true;
    options.timestamps = true;
    options.ts_val = kTsVal;
    return wire::write_tcp({frame, wire::kMaxTcpHeader}, flow(connection),
                           {.seq = connection, .ack = 0, .window = kWindow, .flags = kSyn}, options,
                           {}, {}, 0);
}

std::size_t Traffic::answer(std::span<const std::uint8_t> frame, std::uint8_t* ack)
{
    wire::Packet packet;
    if (wire::parse(frame, static_cast<std::uint32_t>(frame.size()), &packet) !=
            wire::Verdict::kOk ||
        packet.kind != wire::Kind::kTcp || packet.flags != (kSyn | kAck))
        return 0;
    const std::uint8_t* peer = packet.dst.bytes.data();
    const unsigned number = peer[2] * 256u + peer[3] - 1;
    const unsigned index = number * kPortsPerHost + packet.dst_port - kFirstPort;
    if (index >= connections_.size())
        return 0;
    Connection& connection = connections_[index];
    connection.seq = packet.ack;
    connection.ack = packet.seq + 1;
    connection.timestamps = packet.options.timestamps;
    connection.ts_ecr = packet.options.ts_val;
    wire::TcpOptions options;
    options.timestamps = connection.timestamps;
    options.ts_val = kTsVal;
    options.ts_ecr = connection.ts_ecr;
    return wire::write_tcp(
        {ack, wire::kMaxTcpHeader}, flow(index),
        {.seq = connection.seq, .ack = connection.ack, .window = kWindow, .flags = kAck}, options,
        {}, {}, 0);
}

unsigned Traffic::pick()
{
    if (left_in_run_ == 0) {
        left_in_run_ = load_.run;
        at_ = at_ + 1 == schedule_.size() ? 0 : at_ + 1;
    }
    left_in_run_--;
    return schedule_[at_];
}

bool Traffic::is_late()
{
    random_ = random_ * 1664525u + 1013904223u;
    return (random_ >> 8) % 100 < load_.late_percent;
}

Traffic::Next Traffic::next(std::uint8_t* frame)
{
    const unsigned index = pick();
    Connection& connection = connections_[index];
    std::uint32_t seq = connection.seq;
    if (connection.late) {
        connection.late = false;
        connection.seq += 2 * load_.payload;
    } else if (load_.late_percent != 0 && is_late()) {
        connection.late = true;
        seq += load_.payload;
    } else {
        connection.seq += load_.payload;
    }

    const std::uint16_t header =
        static_cast<std::uint16_t>(connection.timestamps ? kMaxHeader : kMaxHeader - 12);
    const std::uint32_t total = header - kIp + load_.payload;
    const auto address = host(index);
    const std::uint16_t from = port(index);

    std::memcpy(frame, mac_.data(), 6);
    static constexpr std::uint8_t kRest[8]{0x02, 0, 0, 0, 0, 0x77, 0x08, 0x00};
    std::memcpy(frame + 6, kRest, sizeof kRest);
    std::uint8_t* const ip = frame + kIp;
    store32(ip, 0x45000000 | total);
    store32(ip + 4, 0x00004000);
    store32(ip + 8, 0x40060000);
    std::memcpy(ip + 12, address.data(), 4);
    std::memcpy(ip + 16, ip_.bytes.data(), 4);
    const std::uint32_t addresses = halves(load32(ip + 12)) + halves(load32(ip + 16));
    store16(ip + 10, folded(0x4500 + total + 0x4000 + 0x4006 + addresses));

    std::uint8_t* const tcp = frame + kTcp;
    const std::uint32_t offset_flags = (header - kTcp) / 4 << 12 | kAck;
    store16(tcp, from);
    store16(tcp + 2, port_);
    store32(tcp + 4, seq);
    store32(tcp + 8, connection.ack);
    store16(tcp + 12, offset_flags);
    store16(tcp + 14, kWindow);
    store32(tcp + 16, 0);
    std::uint32_t sum = addresses + 6 + (total - 20) + from + port_ + halves(seq) +
                        halves(connection.ack) + offset_flags + kWindow;
    if (connection.timestamps) {
        constexpr std::uint32_t kNopNopTimestamps = 0x0101080a;
        store32(frame + kOptions, kNopNopTimestamps);
        store32(frame + kOptions + 4, kTsVal);
        store32(frame + kOptions + 8, connection.ts_ecr);
        sum += halves(kNopNopTimestamps) + halves(kTsVal) + halves(connection.ts_ecr);
    }
    store16(tcp + 16, folded(sum));
    return {index, header};
}

} // namespace bench
