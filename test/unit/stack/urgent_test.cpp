// SPDX-License-Identifier: BSD-3-Clause
// Urgent data (RFC 9293 3.8.5) as the kernel's TCP sends it, over a TAP.

#include "test/unit/stack/wire_pair.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

using namespace devmem::test;

namespace {

constexpr std::uint32_t kTheirs = 0x0a090001, kOurs = 0x0a090002; // 10.9.0.1, 10.9.0.2
constexpr std::uint16_t kPort = 80;

sockaddr_in name_of(std::uint32_t address, std::uint16_t port)
{
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(address);
    return name;
}

/// A network of the test's own; the thread is back where it was afterwards.
class Namespace {
public:
    Namespace() : before_(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC))
    {
        entered_ = before_ >= 0 && unshare(CLONE_NEWNET) == 0;
    }
    ~Namespace()
    {
        EXPECT_TRUE(!entered_ || setns(before_, CLONE_NEWNET) == 0);
        close(before_);
    }
    bool entered() const { return entered_; }

private:
    int before_;
    bool entered_;
};

/// The stack on a TAP, and a socket of the kernel's that sends to it.
class Urgent : public ::testing::Test {
protected:
    void SetUp() override
    {
        start_eal();
        if (!network_.entered())
            GTEST_SKIP() << "a network namespace is refused (needs root)";
        if (access("/dev/net/tun", R_OK | W_OK) != 0)
            GTEST_SKIP() << "no /dev/net/tun (modprobe tun)";
        char error[256] = "";
        ASSERT_EQ(devmem_port_open("tap:dmurgent", 1, &port_, error, sizeof(error)), 0) << error;
        ASSERT_EQ(devmem_region_create("opaque:size=16M", &region_, error, sizeof(error)), 0);
        devmem_addr addr;
        ASSERT_EQ(devmem_addr_parse("10.9.0.2/24", &addr), 0);
        devmem_stack_config config{};
        config.size = sizeof(config);
        config.port_id = port_.port_id;
        config.region = region_;
        config.addrs = &addr;
        config.naddrs = 1;
        ASSERT_EQ(devmem_stack_create(&config, &stack_, error, sizeof(error)), 0) << error;
        shard_ = devmem_stack_shard(stack_, 0);
        ASSERT_EQ(devmem_listen(shard_, kPort, 4, &listener_), 0);
        bring_up();
        sender_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        const sockaddr_in to = name_of(kOurs, kPort);
        ASSERT_EQ(::connect(sender_, reinterpret_cast<const sockaddr*>(&to), sizeof to), -1);
        ASSERT_EQ(errno, EINPROGRESS);
    }
    void TearDown() override
    {
        close(sender_);
        if (stack_ != nullptr)
            devmem_stack_destroy(stack_);
        if (port_.created)
            devmem_port_close(&port_);
        devmem_region_release(region_);
    }

    void bring_up()
    {
        const int control = socket(AF_INET, SOCK_DGRAM, 0);
        ifreq request{};
        std::strcpy(request.ifr_name, "dmurgent");
        const auto set = [&](unsigned long what, const sockaddr_in& address) {
            std::memcpy(&request.ifr_addr, &address, sizeof address);
            EXPECT_EQ(ioctl(control, what, &request), 0) << std::strerror(errno);
        };
        set(SIOCSIFADDR, name_of(kTheirs, 0));
        set(SIOCSIFNETMASK, name_of(0xffffff00, 0));
        request.ifr_flags = IFF_UP;
        EXPECT_EQ(ioctl(control, SIOCSIFFLAGS, &request), 0) << std::strerror(errno);
        close(control);
    }

    /// Poll until `done`, for a while. Counts URGENT events.
    template <typename Done>
    bool run_until(Done done)
    {
        const std::uint64_t begin = rte_rdtsc();
        while (!done()) {
            std::array<devmem_event, 8> events;
            const unsigned n = devmem_shard_poll(shard_, events.data(), events.size(), nullptr);
            for (const devmem_event& event : std::span(events).first(n)) {
                EXPECT_NE(event.type, DEVMEM_EVENT_CLOSED);
                if (event.type == DEVMEM_EVENT_URGENT) {
                    EXPECT_EQ(event.conn, conn_);
                    told_++;
                }
            }
            if (seconds_since(begin) > 10)
                return false;
        }
        return true;
    }
    bool accept()
    {
        return run_until([&] { return devmem_accept(shard_, listener_, &conn_) == 0; });
    }
    bool wait_until_told()
    {
        return run_until([&] { return told_ != 0; });
    }
    std::int64_t urgent() const { return devmem_conn_urgent(shard_, conn_); }

    /// The stream's next bytes, as many as there is room for. @param flags MSG_OOB: all of them
    /// are urgent
    std::size_t send(std::size_t len, int flags = 0)
    {
        std::vector<std::uint8_t> bytes(len);
        for (std::size_t i = 0; i < len; i++)
            bytes[i] = stream_byte(sent_ + i);
        const ssize_t n = ::send(sender_, bytes.data(), len, flags);
        sent_ += static_cast<std::uint64_t>(std::max<ssize_t>(n, 0));
        return static_cast<std::size_t>(std::max<ssize_t>(n, 0));
    }
    /// Receive what there is, a token at a time, and look at the bytes. After each the rest of what
    /// is urgent is less by it.
    void receive()
    {
        devmem_token token;
        for (;;) {
            const std::int64_t before = urgent();
            const int n = devmem_recv(shard_, conn_, &token, 1);
            if (n != 1) {
                ASSERT_EQ(n, -EAGAIN);
                return;
            }
            for (const std::uint8_t byte : bytes_of(token))
                ASSERT_EQ(byte, stream_byte(received_++));
            ASSERT_EQ(urgent(), std::max<std::int64_t>(before - token.length, 0));
            ASSERT_EQ(devmem_token_return(&token, 1), 1);
        }
    }
    bool receive_all()
    {
        return run_until([&] {
            receive();
            return received_ == sent_ || HasFatalFailure();
        });
    }

    Namespace network_;
    devmem_port port_{};
    devmem_region* region_ = nullptr;
    devmem_stack* stack_ = nullptr;
    devmem_shard* shard_ = nullptr;
    devmem_listener_t listener_ = 0;
    devmem_conn_t conn_ = 0;
    int sender_ = -1;
    std::uint64_t sent_ = 0, received_ = 0;
    unsigned told_ = 0;
};

} // namespace

TEST_F(Urgent, OfTheKernelIsToldOfAndCountedDown)
{
    ASSERT_TRUE(accept());
    ASSERT_EQ(send(1000), 1000u);
    ASSERT_TRUE(receive_all());
    EXPECT_EQ(told_, 0u);
    EXPECT_EQ(urgent(), 0);

    ASSERT_EQ(send(300, MSG_OOB), 300u);
    ASSERT_EQ(send(200), 200u);
    ASSERT_TRUE(wait_until_told());
    EXPECT_EQ(urgent(), 300);
    ASSERT_TRUE(receive_all());
    EXPECT_EQ(urgent(), 0);

    ASSERT_EQ(send(10, MSG_OOB), 10u);
    ASSERT_TRUE(run_until([&] { return urgent() == 10; }));
    ASSERT_EQ(send(20, MSG_OOB), 20u);
    ASSERT_TRUE(run_until([&] { return urgent() == 30; }));
    EXPECT_EQ(told_, 3u);
    ASSERT_TRUE(receive_all());
    EXPECT_EQ(urgent(), 0);

    const devmem_conn_t gone = conn_;
    EXPECT_EQ(devmem_close(shard_, gone), 0);
    EXPECT_EQ(devmem_conn_urgent(shard_, gone), -EBADF);
}

TEST_F(Urgent, OfAnyLength)
{
    constexpr std::uint64_t kBytes = 4u << 20; // more than a pointer reaches
    ASSERT_TRUE(accept());
    ASSERT_TRUE(run_until([&] {
        if (sent_ < kBytes)
            send(kBytes - sent_, MSG_OOB);
        receive();
        return received_ == kBytes || HasFatalFailure();
    }));
    EXPECT_GT(told_, 0u);
    EXPECT_EQ(urgent(), 0);
}

// Nobody could be told before.
TEST_F(Urgent, ToldWhenAccepted)
{
    const auto sent = [&] { return send(100, MSG_OOB) == 100; };
    ASSERT_TRUE(run_until(sent)); // connected, that is
    devmem_shard_stats stats;
    ASSERT_TRUE(run_until([&] {
        devmem_shard_stats_get(shard_, &stats);
        return stats.rx_payload_bytes == 100;
    }));
    EXPECT_EQ(told_, 0u);
    ASSERT_TRUE(accept());
    ASSERT_TRUE(wait_until_told());
    EXPECT_EQ(urgent(), 100);
    ASSERT_TRUE(receive_all());
    EXPECT_EQ(urgent(), 0);
}
