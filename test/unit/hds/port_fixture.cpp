// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/hds/port_fixture.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <rte_eal.h>
#include <sched.h>
#include <sys/mman.h>

namespace hds_test {

namespace {

const char* const kNoKeys[][2] = {{"size", "bytes"}, {nullptr, nullptr}};

struct Unmapped {
    void* device;
    Frame bytes;
};

} // namespace

const devmem::Provider kUnmappedProvider{
    .name = "unmapped",
    .keys = kNoKeys,
    .create =
        [](const devmem::SpecKeys& keys, devmem::Region& region, std::string&) {
            if (devmem::parse_size(keys.find("size")->second, &region.bytes) != 0)
                return -EINVAL;
            auto* memory = new Unmapped{
                mmap(nullptr, region.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                Frame(region.bytes)};
            region.base = devmem::DeviceAddress{reinterpret_cast<std::uintptr_t>(memory->device)};
            region.page_bytes = 65536;
            region.spec = "unmapped";
            region.state = memory;
            return 0;
        },
    .destroy =
        [](devmem::Region& region) {
            auto* memory = static_cast<Unmapped*>(region.state);
            munmap(memory->device, region.bytes);
            delete memory;
        },
    .dma_write =
        [](const devmem::Region& region, std::span<const devmem::Transfer> transfers) {
            for (const devmem::Transfer& t : transfers)
                std::memcpy(static_cast<Unmapped*>(region.state)->bytes.data() + t.offset, t.host,
                            t.len);
            return 0;
        },
    .read_back =
        [](const devmem::Region& region, std::span<const devmem::Transfer> transfers) {
            for (const devmem::Transfer& t : transfers)
                std::memcpy(t.host, static_cast<Unmapped*>(region.state)->bytes.data() + t.offset,
                            t.len);
            return 0;
        },
    .map_for_port = [](const devmem::Region&) -> std::byte* { return nullptr; },
    .export_dmabuf = [](const devmem::Region&) { return -EOPNOTSUPP; },
};

int Port::serial_ = 0;

void Port::SetUp()
{
    ++serial_;
    iface_ = "dm" + std::to_string(serial_);
    vdev_ = "net_hds" + std::to_string(serial_);
}

void Port::TearDown()
{
    peer_.reset();
    if (port_ != RTE_MAX_ETHPORTS) {
        EXPECT_EQ(rte_eth_dev_stop(port_), 0);
        // Stopped, a port holds no mbuf: nothing was leaked, nothing is kept.
        for (rte_mempool* pool : {head_pool_, payload_pool_})
            EXPECT_EQ(rte_mempool_avail_count(pool), pool->size) << pool->name;
        EXPECT_EQ(rte_vdev_uninit(vdev_.c_str()), 0);
    }
    if (region_ != nullptr) {
        EXPECT_EQ(devmem_pktmbuf_pool_free(payload_pool_), 0);
        EXPECT_EQ(region_->references, 1u) << "the driver kept a reference on the region";
        devmem_region_release(region_);
    }
    for (rte_mempool* pool : host_pools_)
        rte_mempool_free(pool);
}

rte_mempool* Port::host_pool(unsigned n, unsigned room)
{
    const std::string name =
        "t" + std::to_string(serial_) + "_" + std::to_string(host_pools_.size());
    rte_mempool* pool = rte_pktmbuf_pool_create(name.c_str(), n, 0, 0,
                                                static_cast<std::uint16_t>(room), SOCKET_ID_ANY);
    EXPECT_NE(pool, nullptr);
    host_pools_.push_back(pool);
    return pool;
}

rte_mempool* Port::payload_pool(unsigned fragments, unsigned fragment_bytes)
{
    if (GetParam() == Memory::kMbufs)
        return host_pool(fragments, fragment_bytes);
    char error[256];
    const char* spec = GetParam() == Memory::kOpaque ? "opaque:size=4M" : "unmapped:size=4M";
    EXPECT_EQ(devmem_region_create(spec, &region_, error, sizeof error), 0) << error;
    unsigned page = 65536;
    while (page / fragment_bytes > 64)
        page /= 2;
    const unsigned per_page = page / fragment_bytes;
    rte_mempool* pool =
        devmem_pktmbuf_pool_create(("r" + std::to_string(serial_)).c_str(), region_, 0,
                                   std::uint64_t{(fragments + per_page - 1) / per_page} * page,
                                   page, fragment_bytes, SOCKET_ID_ANY);
    EXPECT_NE(pool, nullptr);
    return pool;
}

void Port::start(const Config& config, const std::string& args)
{
    config_ = config;
    std::string with = args.empty() ? "iface=" + iface_ : args;
    with += ",queues=" + std::to_string(std::max(config.queues, config.queues_made)) +
            ",hds_thresh=" + std::to_string(config.hds_thresh);
    ASSERT_EQ(rte_vdev_init(vdev_.c_str(), with.c_str()), 0);
    ASSERT_EQ(rte_eth_dev_get_port_by_name(vdev_.c_str(), &port_), 0);
    head_pool_ = host_pool(512, 384);
    payload_pool_ = payload_pool(config.fragments, config.fragment_bytes);

    rte_eth_conf conf{};
    conf.rxmode.offloads = config.offloads;
    conf.rxmode.mtu = config.mtu;
    conf.rxmode.max_lro_pkt_size = 65535;
    ASSERT_EQ(rte_eth_dev_configure(port_, config.queues, config.queues, &conf), 0);
    segments_[0].split = {.mp = head_pool_,
                          .length = config.length,
                          .offset = config.head_offset,
                          .proto_hdr = config.length != 0 ? 0 : config.proto_hdr};
    segments_[1].split = {
        .mp = payload_pool_, .length = 0, .offset = config.payload_offset, .proto_hdr = 0};
    if (config.payload_offset != 0) // the ethdev layer takes no length for the whole data room
        segments_[1].split.length =
            static_cast<std::uint16_t>(config.fragment_bytes - config.payload_offset);
    rte_eth_rxconf rx{};
    rx.offloads = config.offloads;
    rx.rx_seg = segments_;
    rx.rx_nseg = 2;
    const bool split = (config.offloads & RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT) != 0;
    for (std::uint16_t q = 0; q < config.queues; ++q) {
        ASSERT_EQ(rte_eth_rx_queue_setup(port_, q, 256, kAnySocket, split ? &rx : nullptr,
                                         split ? nullptr : head_pool_),
                  0);
        ASSERT_EQ(rte_eth_tx_queue_setup(port_, q, 256, kAnySocket, nullptr), 0);
    }
    ASSERT_EQ(rte_eth_dev_start(port_), 0);
    if (args.empty())
        peer_ = std::make_unique<Peer>(iface_);
}

void Port::change_payload(rte_mempool* pool)
{
    segments_[1].split.mp = pool;
    rte_eth_rxconf rx{};
    rx.offloads = config_.offloads;
    rx.rx_seg = segments_;
    rx.rx_nseg = 2;
    ASSERT_EQ(rte_eth_dev_rx_queue_stop(port_, 0), 0);
    ASSERT_EQ(rte_eth_rx_queue_setup(port_, 0, 256, kAnySocket, &rx, nullptr), 0);
    ASSERT_EQ(rte_eth_dev_rx_queue_start(port_, 0), 0);
}

rte_mbuf* Port::receive(std::uint16_t queue)
{
    using namespace std::chrono;
    const auto until = steady_clock::now() + milliseconds(300);
    do {
        rte_mbuf* packet;
        if (rte_eth_rx_burst(port_, queue, &packet, 1) == 1)
            return packet;
    } while (steady_clock::now() < until);
    return nullptr;
}

Frame Port::bytes(const rte_mbuf* segment)
{
    Frame out(segment->data_len);
    const auto* data = rte_pktmbuf_mtod(segment, const std::uint8_t*);
    if (region_ != nullptr && segment->pool == payload_pool_) {
        const std::uint64_t offset =
            reinterpret_cast<std::uintptr_t>(data) - static_cast<std::uintptr_t>(region_->base);
        EXPECT_EQ(devmem_region_read(region_, offset, out.data(), out.size()), 0);
    } else {
        std::copy(data, data + out.size(), out.begin());
    }
    return out;
}

Frame Port::payload_bytes(const rte_mbuf* packet)
{
    Frame all;
    for (const rte_mbuf* m = packet->next; m != nullptr; m = m->next) {
        const Frame part = bytes(m);
        all.insert(all.end(), part.begin(), part.end());
    }
    return all;
}

void Port::expect_split(rte_mbuf* packet, const Frame& frame, std::size_t cut)
{
    ASSERT_NE(packet, nullptr);
    const char* reason;
    EXPECT_EQ(rte_mbuf_check(packet, 1, &reason), 0) << reason;
    const auto at = frame.begin() + static_cast<std::ptrdiff_t>(cut);
    EXPECT_EQ(packet->pool, head_pool_);
    EXPECT_EQ(packet->port, port_);
    EXPECT_EQ(packet->pkt_len, frame.size());
    EXPECT_EQ(packet->data_off, RTE_PKTMBUF_HEADROOM + config_.head_offset);
    EXPECT_EQ(bytes(packet), Frame(frame.begin(), at));
    EXPECT_EQ(payload_bytes(packet), Frame(at, frame.end()));
    for (const rte_mbuf* m = packet->next; m != nullptr; m = m->next) {
        EXPECT_EQ(m->pool, payload_pool_);
        EXPECT_GE(m->data_off, config_.payload_offset);
        EXPECT_EQ(RTE_MBUF_HAS_PINNED_EXTBUF(m), region_ != nullptr);
        // Only the last fragment may have room left.
        if (m->next != nullptr) {
            EXPECT_EQ(m->data_off + m->data_len, config_.fragment_bytes);
        }
    }
    rte_pktmbuf_free(packet);
}

void Port::expect_whole(rte_mbuf* packet, const Frame& frame)
{
    ASSERT_NE(packet, nullptr);
    Frame all = bytes(packet);
    const Frame rest = payload_bytes(packet);
    all.insert(all.end(), rest.begin(), rest.end());
    EXPECT_EQ(all, frame);
    for (const rte_mbuf* m = packet; m != nullptr; m = m->next)
        EXPECT_EQ(m->pool, head_pool_);
    rte_pktmbuf_free(packet);
}

std::uint64_t Port::xstat(const char* name)
{
    std::uint64_t id;
    std::uint64_t value = UINT64_MAX;
    EXPECT_EQ(rte_eth_xstats_get_id_by_name(port_, name, &id), 0) << name;
    EXPECT_EQ(rte_eth_xstats_get_by_id(port_, &id, &value, 1), 1);
    return value;
}

} // namespace hds_test

namespace {

/// A fatal failure in a helper ends the test, not only the helper.
class EndTest : public testing::EmptyTestEventListener {
    void OnTestPartResult(const testing::TestPartResult& result) override
    {
        if (result.type() == testing::TestPartResult::kFatalFailure)
            throw testing::AssertionException(result);
    }
};

/// A namespace in which only the test's frames travel.
const char* enter_namespace()
{
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return "a network namespace is refused (needs root, or user namespaces)";
    if (access("/dev/net/tun", R_OK | W_OK) != 0)
        return "no /dev/net/tun (modprobe tun)";
    const int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);
    if (fd >= 0 && write(fd, "1", 1) != 1)
        return "IPv6 cannot be silenced";
    close(fd);
    return nullptr;
}

} // namespace

int main(int argc, char** argv)
{
    constexpr int kSkipped = 77;
    testing::InitGoogleTest(&argc, argv);
    if (const char* reason = enter_namespace()) {
        std::printf("SKIP hds: %s\n", reason);
        return kSkipped;
    }
    const std::string prefix = "--file-prefix=hds" + std::to_string(getpid());
    std::string eal[] = {"hds_test",       "--no-huge", "-m",          "256", "--no-pci",
                         "--no-telemetry", prefix,      "--no-shconf", "-l",  "0"};
    char* arguments[std::size(eal)];
    for (std::size_t i = 0; i < std::size(eal); ++i)
        arguments[i] = eal[i].data();
    if (rte_eal_init(std::size(eal), arguments) < 0)
        return 1;
    devmem::provider_register(hds_test::kUnmappedProvider);
    testing::UnitTest::GetInstance()->listeners().Append(new EndTest);
    const int rc = RUN_ALL_TESTS();
    rte_eal_cleanup();
    return rc;
}
