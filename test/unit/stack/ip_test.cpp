// SPDX-License-Identifier: BSD-3-Clause
// What the application decides of a connection's IP headers: addresses and ports, DSCP, TTL. Frames
// are read here by the RFCs' offsets, not by lib/wire.

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <vector>

using namespace devmem;
using namespace devmem::test;

namespace {

using Bytes = std::span<const std::uint8_t>;
constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;

std::uint32_t sum(Bytes bytes, std::uint32_t sum = 0)
{
    for (std::size_t i = 0; i < bytes.size(); i++)
        sum += std::uint32_t{bytes[i]} << (i % 2 == 0 ? 8 : 0);
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/// Of a TCP segment over IPv4 (RFC 791 3.1) or IPv6 (RFC 8200 3).
struct Headers {
    std::uint8_t traffic_class, ttl, flags;
    std::size_t text;
};

Headers read(Bytes frame)
{
    const bool v4 = frame[12] == 0x08;
    EXPECT_TRUE(v4 || frame[12] == 0x86);
    const Bytes ip = frame.subspan(14, v4 ? 20 : 40), tcp = frame.subspan(14 + ip.size());
    EXPECT_EQ(ip[0] >> 4, v4 ? 4 : 6);
    if (v4) {
        EXPECT_EQ(sum(ip), 0xffffu);
    }
    const Bytes addresses = v4 ? ip.subspan(12) : ip.subspan(8);
    EXPECT_EQ(sum(tcp, sum(addresses, 6 + static_cast<std::uint32_t>(tcp.size()))), 0xffffu);
    const auto traffic_class = static_cast<std::uint8_t>(v4 ? ip[1] : ip[0] << 4 | ip[1] >> 4);
    return {traffic_class, v4 ? ip[8] : ip[7], tcp[13], tcp.size() - (tcp[12] >> 4) * 4u};
}

struct IpTest : testing::TestWithParam<bool> {
    void open(const EndConfig& a, const EndConfig& b)
    {
        wires = std::make_unique<WirePair>(a, b, GetParam());
        wires->seen_a.keep = wires->seen_b.keep = true;
    }
    /// Every segment that went out since the last look says so. @return their flags and text
    std::vector<Headers> expect(WirePair::Seen& seen, unsigned dscp, unsigned ttl)
    {
        std::vector<Headers> all;
        for (const auto& frame : seen.frames) {
            all.push_back(read(frame));
            EXPECT_EQ(all.back().traffic_class, dscp * 4);
            EXPECT_EQ(all.back().ttl, ttl);
        }
        seen.frames.clear();
        return all;
    }
    void say(End& from, devmem_conn_t sender, End& to, devmem_conn_t receiver)
    {
        ASSERT_EQ(devmem_send(from.shard, sender, "text", 4), 4);
        devmem_token token;
        ASSERT_TRUE(
            wires->run_until([&] { return devmem_recv(to.shard, receiver, &token, 1) == 1; }));
        ASSERT_EQ(devmem_token_return(&token, 1), 1);
        wires->run_until([] { return false; }, 0.06); // the ACK may be delayed by 40 ms
    }

    std::unique_ptr<WirePair> wires;
    devmem_conn_t client = 0, server = 0;
};

bool any(const std::vector<Headers>& headers, std::uint8_t flags, std::size_t text)
{
    return std::any_of(headers.begin(), headers.end(), [&](const Headers& each) {
        constexpr std::uint8_t kPsh = 8;
        return (each.flags & ~kPsh) == flags && each.text == text;
    });
}

} // namespace

INSTANTIATE_TEST_SUITE_P(, IpTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Ipv6" : "Ipv4"; });

// RFC 9293 MUST-48, SHLD-21, SHLD-22, MUST-49.
TEST_P(IpTest, DscpAndTtlOfAConnection)
{
    open({}, {.dscp = 10, .ttl = 17});
    ASSERT_TRUE(wires->establish(80, &client, &server));
    EXPECT_TRUE(any(expect(wires->seen_a, 0, 64), kSyn, 0));
    EXPECT_TRUE(any(expect(wires->seen_b, 10, 17), kSyn | kAck, 0));

    // Each end by itself, and as often as it likes.
    const std::pair<std::uint8_t, std::uint8_t> settings[] = {{46, 1}, {63, 255}, {0, 128}};
    for (const auto& [dscp, ttl] : settings) {
        ASSERT_EQ(devmem_conn_set_ip(wires->a.shard, client, dscp, ttl), 0);
        say(wires->a, client, wires->b, server);
        EXPECT_TRUE(any(expect(wires->seen_a, dscp, ttl), kAck, 4));
        EXPECT_TRUE(any(expect(wires->seen_b, 10, 17), kAck, 0));
        say(wires->b, server, wires->a, client);
        EXPECT_TRUE(any(expect(wires->seen_a, dscp, ttl), kAck, 0));
        EXPECT_TRUE(any(expect(wires->seen_b, 10, 17), kAck, 4));
    }
    ASSERT_EQ(devmem_conn_set_ip(wires->b.shard, server, 34, 9), 0);
    say(wires->a, client, wires->b, server);
    EXPECT_TRUE(any(expect(wires->seen_b, 34, 9), kAck, 0));

    EXPECT_EQ(devmem_conn_set_ip(wires->a.shard, client, 64, 1), -EINVAL);
    EXPECT_EQ(devmem_conn_set_ip(wires->a.shard, client, 0, 0), -EINVAL);
    EXPECT_EQ(devmem_conn_set_ip(wires->a.shard, ~client, 0, 1), -EBADF);

    // When nobody has the handles any more.
    ASSERT_EQ(devmem_close(wires->b.shard, server), 0);
    wires->run_until([] { return false; }, 0.01);
    EXPECT_TRUE(any(expect(wires->seen_b, 34, 9), kFin | kAck, 0));
    ASSERT_EQ(devmem_abort(wires->a.shard, client), 0);
    wires->run_until([] { return false; }, 0.01);
    EXPECT_TRUE(any(expect(wires->seen_a, 0, 128), kRst | kAck, 0));
}

TEST_P(IpTest, TheSynHasWhatWasSetBeforeIt)
{
    open({}, {});
    const devmem_endpoint remote{wires->b.addr, 81};
    ASSERT_EQ(devmem_connect(wires->a.shard, &remote, &client), 0);
    ASSERT_EQ(devmem_conn_set_ip(wires->a.shard, client, 12, 3), 0);
    devmem_event event;
    ASSERT_TRUE(
        wires->run_until([&] { return WirePair::take(wires->a, DEVMEM_EVENT_CLOSED, &event); }));
    EXPECT_TRUE(any(expect(wires->seen_a, 12, 3), kSyn, 0));
    EXPECT_TRUE(any(expect(wires->seen_b, 0, 64), kRst | kAck, 0)) << "of no connection";
}

// RFC 9293 MUST-43.
TEST_P(IpTest, OpenTakesALocalAddress)
{
    const bool v6 = GetParam();
    open({.second_address = v6 ? "fd00::7/64" : "10.0.0.7/24"}, {});
    wires->listen(80);
    const devmem_endpoint remote{wires->b.addr, 80};
    const devmem_addr first = wires->a.addrs[0], second = wires->a.addrs[1];
    const auto connect = [&](const devmem_endpoint& local) {
        return devmem_connect_from(wires->a.shard, &local, &remote, &client);
    };
    const auto from = [&] {
        devmem_event event;
        EXPECT_TRUE(wires->run_until(
            [&] { return WirePair::take(wires->a, DEVMEM_EVENT_CONNECTED, &event); }));
        devmem_endpoint local{}, other{};
        EXPECT_EQ(devmem_conn_endpoints(wires->a.shard, client, &local, &other), 0);
        // By the frame: the source address, and the port behind it.
        const Bytes frame = wires->seen_a.frames.back();
        const std::size_t at = v6 ? 22 : 26, size = v6 ? 16 : 4;
        EXPECT_TRUE(std::equal(local.addr.bytes, local.addr.bytes + size, &frame[at]));
        EXPECT_EQ(local.port, frame[at + 2 * size] << 8 | frame[at + 2 * size + 1]);
        return local;
    };
    const auto same = [](const devmem_addr& a, const devmem_addr& b) {
        return std::ranges::equal(a.bytes, b.bytes);
    };

    ASSERT_EQ(connect({second, 4321}), 0);
    devmem_endpoint local = from();
    EXPECT_TRUE(same(local.addr, second) && local.port == 4321);
    EXPECT_EQ(connect({second, 4321}), -EADDRINUSE);
    ASSERT_EQ(connect({first, 4321}), 0) << "another address";
    EXPECT_TRUE(same(from().addr, first));
    ASSERT_EQ(connect({{}, 4322}), 0);
    local = from();
    EXPECT_TRUE(same(local.addr, first) && local.port == 4322);
    EXPECT_EQ(connect({{}, 4322}), -EADDRINUSE);
    for (int i = 0; i < 2; i++) {
        ASSERT_EQ(connect({second, 0}), 0);
        local = from();
        EXPECT_TRUE(same(local.addr, second) && local.port >= 32768);
    }
    ASSERT_EQ(devmem_connect_from(wires->a.shard, nullptr, &remote, &client), 0);
    EXPECT_TRUE(same(from().addr, first));

    devmem_addr foreign{}, other{};
    ASSERT_EQ(devmem_addr_parse(v6 ? "fd00::9" : "10.0.0.9", &foreign), 0);
    ASSERT_EQ(devmem_addr_parse(v6 ? "10.0.0.7" : "fd00::7", &other), 0);
    EXPECT_EQ(connect({foreign, 0}), -EADDRNOTAVAIL);
    EXPECT_EQ(connect({wires->b.addr, 0}), -EADDRNOTAVAIL);
    EXPECT_EQ(connect({other, 0}), -EAFNOSUPPORT);

    ASSERT_EQ(connect({second, 4323}), 0);
    from();
    ASSERT_EQ(devmem_abort(wires->a.shard, client), 0);
    EXPECT_EQ(connect({second, 4323}), 0) << "nobody's any more";
}

TEST(Ip, AStackRefusesWhatIsNoDscp)
{
    WirePair wires({}, {});
    devmem_stack_config config{};
    config.size = sizeof(config);
    config.region = wires.a.region;
    config.addrs = wires.a.addrs.data();
    config.naddrs = 1;
    config.dscp = 64;
    devmem_stack* stack = nullptr;
    char error[256] = "";
    EXPECT_EQ(devmem_stack_create(&config, &stack, error, sizeof(error)), -EINVAL);
    EXPECT_STREQ(error, "DSCP 64 is more than 63");
}
