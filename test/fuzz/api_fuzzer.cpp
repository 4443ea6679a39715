// SPDX-License-Identifier: BSD-3-Clause
// The C functions on a stack that runs: calls in any order with any handle, token, fragment and
// size, between frames of peers that do as they like. Afterwards everything can be given back.
//
// The stack is made once: a ring port, wrapped by net_hds, of which this file is the other end.
// Time is the machine's, so the same input may find a delayed ACK sent or not.
#include "lib/wire/frame.h"
#include "test/fuzz/check.h"
#include "test/fuzz/target.h"

#include <devmem/devmem.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

using namespace devmem;

constexpr unsigned kRing = 256;
constexpr std::uint16_t kPort = 7; ///< what the peers know
constexpr wire::Mac kOurMac{0x02, 0, 0, 0, 0, 1}, kPeerMac{0x02, 0, 0, 0, 0, 2};
constexpr wire::Ip kOurs{4, {10, 0, 0, 1}}, kPeer{4, {10, 0, 0, 2}};
constexpr std::size_t kPeers = 4;
/// Fragments: of one frame of the largest kind, and what it gets ahead for the next.
constexpr std::uint32_t kPortKeeps = 64 + 48;

/// The input, a number at a time; zeros when it is used up.
class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}
    bool empty() const { return bytes_.empty(); }
    std::uint8_t u8()
    {
        if (bytes_.empty())
            return 0;
        const std::uint8_t byte = bytes_.front();
        bytes_ = bytes_.subspan(1);
        return byte;
    }
    std::uint16_t u16() { return static_cast<std::uint16_t>(u8() | u8() << 8); }
    std::uint32_t u32() { return u16() | std::uint32_t{u16()} << 16; }
    std::uint64_t u64() { return u32() | std::uint64_t{u32()} << 32; }
    std::span<const std::uint8_t> take(std::size_t n)
    {
        const auto taken = bytes_.first(std::min(n, bytes_.size()));
        bytes_ = bytes_.subspan(taken.size());
        return taken;
    }

private:
    std::span<const std::uint8_t> bytes_;
};

/// What a peer knows of its connection: from our segments.
struct Peer {
    std::uint16_t port = 0, our_port = kPort;
    std::uint32_t next = 0; ///< what it sends next
    std::uint32_t ours = 0; ///< what it acknowledges
    bool answered = false;
};

void one_of(std::int64_t rc, std::initializer_list<int> errors)
{
    FUZZ_CHECK(rc >= 0 || std::find(errors.begin(), errors.end(), rc) != errors.end());
}

class Stack {
public:
    Stack();
    ~Stack();
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    void run(Input input);

private:
    void step(Input& in);
    void frame(std::span<const std::uint8_t> bytes);
    void segment(Peer& peer, std::uint8_t flags, std::uint32_t seq, std::uint32_t len,
                 std::uint16_t window, const wire::TcpOptions& options);
    void peer_step(Input& in);
    void raw_step(Input& in);
    void token_step(Input& in);
    void pool_step(Input& in);
    void conn_step(Input& in);
    void poll(unsigned capacity);
    void read_wire();
    void clean_up();
    devmem_conn_t pick(Input& in);
    std::uint64_t stale_returns() const;
    std::uint32_t fragments_held() const;

    rte_ring* rx_ = nullptr; ///< to the stack
    rte_ring* tx_ = nullptr;
    rte_mempool* frames_ = nullptr;
    std::uint16_t ring_port_ = 0;
    devmem_port port_{};
    devmem_region* region_ = nullptr;
    devmem_shard* shard_ = nullptr;
    devmem_stack* stack_ = nullptr;
    rte_mempool* pool_ = nullptr;
    std::uint16_t next_port_ = 1024;

    std::array<Peer, kPeers> peers_;
    std::vector<devmem_conn_t> conns_;
    std::vector<devmem_listener_t> listeners_;
    std::vector<devmem_token> tokens_;   ///< ours to return
    std::vector<devmem_token> returned_; ///< no longer
    std::vector<devmem_fragment> fragments_;
    std::uint64_t foreign_puts_ = 0; ///< that were refused, ever
};

void start_eal()
{
    const std::string prefix = "--file-prefix=devmem-fuzz-" + std::to_string(getpid());
    std::vector<std::string> args{
        "fuzz", "--no-huge",      "--no-shconf",           "-m",  "128", "--no-pci", "-l",
        "0",    "--no-telemetry", "--log-level=emergency", prefix};
    std::vector<char*> argv;
    for (std::string& arg : args)
        argv.push_back(arg.data());
    FUZZ_CHECK(rte_eal_init(static_cast<int>(argv.size()), argv.data()) >= 0);
    std::filesystem::remove_all(rte_eal_get_runtime_dir()); // nobody is to find us
}

Stack::Stack()
{
    start_eal();
    rx_ = rte_ring_create("fuzz_rx", kRing, SOCKET_ID_ANY, 0);
    tx_ = rte_ring_create("fuzz_tx", kRing, SOCKET_ID_ANY, 0);
    frames_ = rte_pktmbuf_pool_create("fuzz_frames", 2 * kRing - 1, 0, 0, 2048, SOCKET_ID_ANY);
    FUZZ_CHECK(rx_ != nullptr && tx_ != nullptr && frames_ != nullptr);
    const int ring = rte_eth_from_rings("fuzz", &rx_, 1, &tx_, 1, 0);
    FUZZ_CHECK(ring >= 0);
    ring_port_ = static_cast<std::uint16_t>(ring);
    char name[RTE_ETH_NAME_MAX_LEN];
    FUZZ_CHECK(rte_eth_dev_get_name_by_port(ring_port_, name) == 0);
    FUZZ_CHECK(devmem_port_open(name, 1, &port_, nullptr, 0) == 0);
    rte_ether_addr mac;
    std::copy(kOurMac.begin(), kOurMac.end(), mac.addr_bytes);
    FUZZ_CHECK(rte_eth_dev_default_mac_addr_set(port_.port_id, &mac) == 0);
    FUZZ_CHECK(devmem_region_create("host:size=1M,page=64K", &region_, nullptr, 0) == 0);
    devmem_addr addr{};
    FUZZ_CHECK(devmem_addr_parse("10.0.0.1/24", &addr) == 0);
    devmem_stack_config config{};
    config.size = sizeof(config);
    config.port_id = port_.port_id;
    config.region = region_;
    config.addrs = &addr;
    config.naddrs = 1;
    config.max_connections = 32;
    config.host_bytes = 256u << 10;
    char error[256] = "";
    const int rc = devmem_stack_create(&config, &stack_, error, sizeof(error));
    if (rc != 0)
        std::fprintf(stderr, "%s\n", error);
    FUZZ_CHECK(rc == 0);
    shard_ = devmem_stack_shard(stack_, 0);
    FUZZ_CHECK(devmem_stack_shard(stack_, 1) == nullptr);
    pool_ = devmem_shard_pool(shard_);
    poll(0);
}

Stack::~Stack()
{
    devmem_stack_destroy(stack_);
    // The resets it sent lie in buffers of pools that are gone, for this port does not look at
    // them.
    for (void* gone = nullptr; rte_ring_dequeue(tx_, &gone) == 0;)
        ;
    devmem_port_close(&port_);
    rte_eth_dev_close(ring_port_);
    devmem_region_release(region_);
    rte_eal_cleanup();
}

/// By mbufs; nothing else holds any when everything was given back.
std::uint32_t Stack::fragments_held() const
{
    devmem_pool_stats stats{};
    FUZZ_CHECK(devmem_pool_stats_get(pool_, &stats) == 0);
    FUZZ_CHECK(stats.double_free == 0 && stats.foreign_free == foreign_puts_);
    const std::uint32_t held = stats.fragments - stats.fragments_free;
    devmem_pool_holder holder{};
    const int kinds = devmem_pool_holders_get(pool_, &holder, 1);
    FUZZ_CHECK(kinds == (held == 0 ? 0 : 1));
    FUZZ_CHECK(held == 0 || (holder.kind == DEVMEM_HOLDER_MBUF && holder.fragments == held));
    return held;
}

std::uint64_t Stack::stale_returns() const
{
    devmem_shard_stats stats;
    devmem_shard_stats_get(shard_, &stats);
    return stats.stale_returns;
}

void Stack::frame(std::span<const std::uint8_t> bytes)
{
    rte_mbuf* m = rte_pktmbuf_alloc(frames_);
    if (m == nullptr)
        return;
    char* at = rte_pktmbuf_append(m, static_cast<std::uint16_t>(bytes.size()));
    FUZZ_CHECK(at != nullptr);
    std::copy(bytes.begin(), bytes.end(), at);
    if (rte_ring_enqueue(rx_, m) != 0)
        rte_pktmbuf_free(m);
}

void Stack::segment(Peer& peer, std::uint8_t flags, std::uint32_t seq, std::uint32_t len,
                    std::uint16_t window, const wire::TcpOptions& options)
{
    static constexpr std::array<std::uint8_t, 1600> kText{};
    std::array<std::uint8_t, wire::kMaxTcpHeader + kText.size()> bytes;
    const wire::Flow flow{kPeer, kOurs, peer.port, peer.our_port, kPeerMac, kOurMac};
    const std::size_t header = wire::write_tcp(bytes, flow, {seq, peer.ours, window, flags},
                                               options, {kText.data(), len}, {}, 1);
    FUZZ_CHECK(header != 0);
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(header), len, std::uint8_t{0});
    frame({bytes.data(), header + len});
}

/// What the stack sent: it is well formed, and the peers learn from it.
void Stack::read_wire()
{
    void* item = nullptr;
    while (rte_ring_dequeue(tx_, &item) == 0) {
        auto* m = static_cast<rte_mbuf*>(item);
        std::array<std::uint8_t, 2048> copy;
        const std::uint32_t bytes = m->pkt_len;
        FUZZ_CHECK(bytes <= copy.size());
        const auto* read =
            static_cast<const std::uint8_t*>(rte_pktmbuf_read(m, 0, bytes, copy.data()));
        FUZZ_CHECK(read != nullptr);
        wire::Packet packet{};
        FUZZ_CHECK(wire::parse({read, bytes}, bytes, &packet) == wire::Verdict::kOk);
        if (packet.kind == wire::Kind::kTcp) {
            for (Peer& peer : peers_) {
                if (peer.port != packet.dst_port)
                    continue;
                peer.our_port = packet.src_port;
                const std::uint32_t length =
                    packet.payload_bytes + (packet.flags & 2 ? 1 : 0) + (packet.flags & 1 ? 1 : 0);
                peer.ours = packet.seq + length;
                if (packet.flags & 0x10 && !(packet.flags & 4))
                    peer.next = packet.ack;
                peer.answered = true;
            }
        }
        rte_pktmbuf_free(m);
    }
}

void Stack::poll(unsigned capacity)
{
    std::array<devmem_event, 8> events;
    bool busy = false;
    const unsigned n = devmem_shard_poll(shard_, events.data(), capacity, &busy);
    FUZZ_CHECK(n <= capacity);
    for (const devmem_event& event : std::span(events).first(n)) {
        FUZZ_CHECK(event.type <= DEVMEM_EVENT_CLOSED);
        if (event.type == DEVMEM_EVENT_CLOSED)
            one_of(event.error, {-ECONNRESET, -ETIMEDOUT, -ECONNREFUSED, -EHOSTUNREACH});
        if (event.type == DEVMEM_EVENT_RETRYING)
            one_of(event.error, {-ECONNREFUSED, -EHOSTUNREACH});
    }
    read_wire();
}

devmem_conn_t Stack::pick(Input& in)
{
    const std::uint8_t which = in.u8();
    if (which & 0x80 || conns_.empty())
        return in.u64();
    const devmem_conn_t conn = conns_[which % conns_.size()];
    // The same slot in another generation, or another slot.
    return which & 0x40 ? conn ^ (std::uint64_t{1} << (in.u8() & 63)) : conn;
}

void Stack::peer_step(Input& in)
{
    const std::uint8_t which = in.u8();
    Peer& peer = peers_[which % kPeers];
    wire::TcpOptions options;
    const std::uint8_t flags = in.u8() & 0x3f;
    if (flags & 2) {
        options.mss = 1460;
        options.window_scale = which >> 4;
        options.sack_permitted = which & 8;
    }
    const std::uint32_t len = in.u16() % 1461;
    const std::uint32_t seq =
        peer.next +
        static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<std::int8_t>(in.u8())) *
                                   (which & 4 ? 97 : 0));
    segment(peer, flags, seq, len, in.u16(), options);
}

/// A frame that mutation made; sums that a port would check are made right or left.
void Stack::raw_step(Input& in)
{
    const std::uint8_t how = in.u8();
    const std::span<const std::uint8_t> bytes = in.take(how & 0x7f);
    std::array<std::uint8_t, 256> frame_bytes{};
    std::copy(kOurMac.begin(), kOurMac.end(), frame_bytes.begin());
    std::copy(kPeerMac.begin(), kPeerMac.end(), frame_bytes.begin() + 6);
    if (how & 0x80) {
        // An ARP reply: who connects must learn where to.
        const std::size_t n = wire::write_arp(frame_bytes, 2, kPeerMac, kPeer, kOurMac, kOurs);
        frame({frame_bytes.data(), n});
        return;
    }
    std::copy(bytes.begin(), bytes.end(), frame_bytes.begin() + 12);
    frame({frame_bytes.data(), 12 + bytes.size()});
}

void Stack::token_step(Input& in)
{
    const std::uint8_t how = in.u8();
    std::vector<devmem_token>& from = how & 8 ? returned_ : tokens_;
    if (from.empty())
        return;
    const std::size_t index = in.u8() % from.size();
    devmem_token token = from[index];
    bool true_token = !(how & 8);
    if (how & 16) {
        token.id ^= std::uint64_t{1} << (in.u8() & 63);
        true_token = false;
    }
    // Another token of ours may have that name.
    const auto same = [&](const devmem_token& t) { return t.id == token.id; };
    const bool another = !true_token && std::any_of(tokens_.begin(), tokens_.end(), same);
    if ((how & 3) == 0) {
        devmem_token rest{};
        const std::uint32_t at = in.u16();
        const std::uint32_t length = token.length;
        const int rc = devmem_token_split(&token, at, &rest);
        one_of(rc, {-EINVAL, -ESTALE, -ENOSPC, -EOVERFLOW});
        FUZZ_CHECK(rc != 0 || true_token || another);
        FUZZ_CHECK((rc == -EINVAL) == (at == 0 || at >= length) || another);
        if (rc == 0 && true_token) {
            FUZZ_CHECK(token.length == at && rest.length == length - at);
            FUZZ_CHECK(rest.offset == token.offset + at && rest.address == token.address + at);
            tokens_[index] = token;
            tokens_.push_back(rest);
        } else if (rc == 0) {
            // A name guessed: its owner has two tokens now, of which it knows one.
            tokens_.push_back(rest);
        }
        return;
    }
    const std::uint64_t stale = stale_returns();
    const int rc = devmem_token_return(&token, 1);
    FUZZ_CHECK(rc == 1 || rc == -ESTALE);
    FUZZ_CHECK(!true_token || rc == 1);
    FUZZ_CHECK(true_token || another || rc == -ESTALE);
    // One that names a pool that is not there is counted nowhere.
    const bool counted = stale_returns() != stale;
    FUZZ_CHECK(counted == (rc == -ESTALE) || (how & 16 && !counted));
    if (rc == 1) {
        const auto it = std::find_if(tokens_.begin(), tokens_.end(), same);
        FUZZ_CHECK(it != tokens_.end());
        returned_.push_back(*it);
        tokens_.erase(it);
    }
}

void Stack::pool_step(Input& in)
{
    const std::uint8_t how = in.u8();
    devmem_fragment fragment{};
    if (!fragments_.empty() && how & 0x80)
        fragment = fragments_[in.u8() % fragments_.size()];
    switch (how & 7) {
    case 0: {
        const std::uint32_t size = in.u32() >> (in.u8() & 31);
        const int rc = devmem_pool_alloc(pool_, size, &fragment);
        one_of(rc, {-EINVAL, -ENOBUFS});
        if (rc == 0) {
            FUZZ_CHECK(size != 0 && fragment.size >= size && fragment.count != 0);
            fragments_.push_back(fragment);
        }
        break;
    }
    case 1:
        if (!fragments_.empty()) {
            const std::size_t index = in.u8() % fragments_.size();
            FUZZ_CHECK(devmem_pool_put(pool_, &fragments_[index]) == 0);
            fragments_.erase(fragments_.begin() + static_cast<std::ptrdiff_t>(index));
        }
        break;
    case 2:
        if (!fragments_.empty()) {
            const devmem_fragment held = fragments_[in.u8() % fragments_.size()];
            FUZZ_CHECK(devmem_pool_hold(pool_, &held) == 0);
            fragments_.push_back(held);
        }
        break;
    case 3:
        // Outside of the pool, or of no fragments at all.
        fragment.first = in.u32() | 0x10000;
        FUZZ_CHECK(devmem_pool_put(pool_, &fragment) == -EINVAL);
        foreign_puts_++;
        FUZZ_CHECK(devmem_pool_hold(pool_, &fragment) == -EINVAL);
        break;
    case 4:
        fragment.count = in.u8() & 1 ? 0 : 65 + in.u32() % 0xffff0000;
        FUZZ_CHECK(devmem_pool_put(pool_, &fragment) == -EINVAL);
        foreign_puts_++;
        FUZZ_CHECK(devmem_pool_hold(pool_, &fragment) == -EINVAL);
        break;
    case 5:
        one_of(devmem_pool_resize(pool_, in.u64()), {-EINVAL, -ERANGE, -EOPNOTSUPP, -ENOMEM});
        one_of(devmem_pool_scrub(pool_), {-EINVAL, -ENOMEM, -EOPNOTSUPP});
        break;
    case 6: {
        std::array<devmem_pool_holder, 4> list;
        one_of(devmem_pool_holders_get(pool_, list.data(), in.u8() % 5), {});
        FUZZ_CHECK(devmem_pool_holders_get(frames_, list.data(), 4) == -EINVAL);
        FUZZ_CHECK(devmem_pool_alloc(frames_, 1, &fragment) == -EINVAL);
        FUZZ_CHECK(devmem_pktmbuf_pool_free(frames_) == -EINVAL);
        FUZZ_CHECK(devmem_pool_destroy(frames_) == -EINVAL);
        break;
    }
    case 7: {
        std::array<std::uint8_t, 64> bytes;
        const std::uint64_t offset = in.u64() >> (in.u8() & 63);
        const std::size_t len = in.u8() % (bytes.size() + 1);
        const int rc = devmem_region_read(region_, offset, bytes.data(), len);
        FUZZ_CHECK(rc == (offset <= (1u << 20) && len <= (1u << 20) - offset ? 0 : -ERANGE));
        break;
    }
    }
}

void Stack::conn_step(Input& in)
{
    const std::uint8_t what = in.u8();
    const devmem_conn_t conn = pick(in);
    switch (what % 8) {
    case 0: {
        std::array<devmem_token, 8> tokens;
        const int rc = devmem_recv(shard_, conn, tokens.data(), what >> 3 & 7);
        one_of(rc, {-EAGAIN, -EBADF, -ECONNRESET, -ETIMEDOUT, -ECONNREFUSED, -EHOSTUNREACH});
        for (int i = 0; i < rc; i++) {
            const devmem_token& token = tokens[static_cast<std::size_t>(i)];
            FUZZ_CHECK(token.length != 0);
            devmem_region_info info{};
            devmem_region_info_get(token.region, &info);
            FUZZ_CHECK(token.offset < info.bytes && token.length <= info.bytes - token.offset);
            FUZZ_CHECK(token.address == info.address + token.offset);
            FUZZ_CHECK((token.flags & DEVMEM_TOKEN_HOST) || token.region == region_);
            tokens_.push_back(token);
        }
        break;
    }
    case 1: {
        static constexpr std::array<std::uint8_t, 4096> kBytes{};
        const std::size_t len = in.u16() % kBytes.size();
        const std::int64_t rc = devmem_send(shard_, conn, kBytes.data(), len);
        one_of(rc, {-EAGAIN, -EPIPE, -EBADF, -ENOTCONN, -ENOMEM});
        FUZZ_CHECK(rc <= static_cast<std::int64_t>(len));
        break;
    }
    case 2:
        one_of(devmem_shutdown(shard_, conn), {-EBADF});
        break;
    case 3:
    case 4: {
        const int rc = what % 8 == 3 ? devmem_close(shard_, conn) : devmem_abort(shard_, conn);
        one_of(rc, {-EBADF});
        // The handle is void at once.
        FUZZ_CHECK(devmem_close(shard_, conn) == -EBADF);
        break;
    }
    case 5: {
        devmem_endpoint local{}, remote{};
        const int rc = devmem_conn_endpoints(shard_, conn, &local, &remote);
        one_of(rc, {-EBADF});
        FUZZ_CHECK(rc != 0 || local.addr.family == 4);
        FUZZ_CHECK((devmem_conn_urgent(shard_, conn) == -EBADF) == (rc == -EBADF));
        if (what & 0x80) {
            const std::uint8_t dscp = in.u8(), ttl = in.u8();
            one_of(devmem_conn_set_ip(shard_, conn, dscp, ttl), {-EBADF, -EINVAL});
        }
        break;
    }
    case 6: {
        devmem_endpoint remote{};
        remote.addr.family = what & 0x80 ? in.u8() : 4;
        const std::array<std::uint8_t, 4> known = {10, 0, what & 0x40 ? in.u8() : std::uint8_t{0},
                                                   2};
        std::copy(known.begin(), known.end(), remote.addr.bytes);
        Peer& peer = peers_[in.u8() % kPeers];
        remote.port = what & 0x20 ? in.u16() : peer.port;
        devmem_conn_t opened = 0;
        devmem_endpoint local{};
        if (what & 0x10) {
            local.addr.family = in.u8() & 7;
            std::copy_n(known.begin(), known.size(), local.addr.bytes);
            local.addr.bytes[3] = what & 0x08 ? 1 : in.u8();
            local.port = in.u8();
        }
        const int rc =
            devmem_connect_from(shard_, what & 0x10 ? &local : nullptr, &remote, &opened);
        one_of(rc, {-EINVAL, -EAFNOSUPPORT, -EADDRNOTAVAIL, -EADDRINUSE, -ENETUNREACH, -ENOMEM});
        if (rc == 0)
            conns_.push_back(opened);
        break;
    }
    case 7: {
        devmem_conn_t accepted = 0;
        const devmem_listener_t listener =
            listeners_.empty() || what & 0x80 ? in.u32() : listeners_[in.u8() % listeners_.size()];
        if (what & 0x40) {
            one_of(devmem_listen_close(shard_, listener), {-EBADF});
            std::erase(listeners_, listener);
            FUZZ_CHECK(devmem_listen_close(shard_, listener) == -EBADF);
            break;
        }
        const int rc = devmem_accept(shard_, listener, &accepted);
        one_of(rc, {-EAGAIN, -EBADF});
        if (rc == 0)
            conns_.push_back(accepted);
        break;
    }
    }
}

void Stack::step(Input& in)
{
    const std::uint8_t what = in.u8();
    switch (what % 8) {
    case 0:
    case 1:
        peer_step(in);
        break;
    case 2:
        raw_step(in);
        break;
    case 3:
        poll(what >> 4 & 7);
        break;
    case 4:
        conn_step(in);
        break;
    case 5:
        token_step(in);
        break;
    case 6:
        pool_step(in);
        break;
    case 7: {
        devmem_listener_t listener = 0;
        const std::uint16_t port = what & 0x80 ? in.u16() : kPort;
        const unsigned backlog = what & 0x40 ? in.u32() : 4;
        const int rc = devmem_listen(shard_, port, backlog, &listener);
        one_of(rc, {-EADDRINUSE, -EINVAL, -ENOMEM});
        FUZZ_CHECK(rc != 0 || (port != 0 && backlog != 0));
        if (rc == 0)
            listeners_.push_back(listener);
        break;
    }
    }
}

/// Give everything back: nothing may be missing.
void Stack::clean_up()
{
    for (const devmem_fragment& fragment : fragments_)
        FUZZ_CHECK(devmem_pool_put(pool_, &fragment) == 0);
    fragments_.clear();
    for (const devmem_conn_t conn : conns_)
        one_of(devmem_abort(shard_, conn), {-EBADF});
    for (const devmem_listener_t listener : listeners_)
        FUZZ_CHECK(devmem_listen_close(shard_, listener) == 0);
    conns_.clear();
    listeners_.clear();
    if (!tokens_.empty())
        FUZZ_CHECK(devmem_token_return(tokens_.data(), static_cast<unsigned>(tokens_.size())) ==
                   static_cast<int>(tokens_.size()));
    tokens_.clear();
    returned_.clear();
    poll(8);
    // Connections whose handles were closed would wait for their peers: these reset them.
    for (Peer& peer : peers_) {
        if (peer.answered)
            segment(peer, 4 | 16, peer.next, 0, 0, {});
        peer = {};
    }
    while (rte_ring_count(rx_) != 0)
        poll(8);
    poll(8);
    // The port keeps some fragments ready. All that is held is held so.
    FUZZ_CHECK(fragments_held() <= kPortKeeps);
}

void Stack::run(Input input)
{
    for (Peer& peer : peers_) {
        peer.port = next_port_++;
        if (next_port_ > 60000)
            next_port_ = 1024;
    }
    while (!input.empty())
        step(input);
    clean_up();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    static Stack stack;
    if (size <= 1024)
        stack.run(Input(data, size));
    return 0;
}
