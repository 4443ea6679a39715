// SPDX-License-Identifier: BSD-3-Clause
// How long a request takes from the sender's write() to the application: to a token of devmem's, or
// out of the kernel's recv(). The client and the receivers are threads of this process, so that one
// clock, the TSC, says when it left and when it was there.
#include "test/bench/e2e_process.h"
#include "test/bench/e2e_wire.h"
#include "test/bench/modes.h"

#include <devmem/devmem.hpp>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <rte_cycles.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <thread>

namespace bench {
namespace {

constexpr std::uint16_t kPort = 5201;
constexpr std::size_t kSmall = 1, kLarge = 64 << 10;
/// Before those that count, in each round: windows open, caches fill.
constexpr unsigned kWarmUp = 200;
/// Ten are beyond the p99.9 of a round.
constexpr unsigned kRequests = 10'000;
constexpr struct {
    const char* name;
    double share;
} kPercentiles[]{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}};

[[noreturn]] void fail(const std::string& what)
{
    throw std::runtime_error("latency: " + what + ": " + std::strerror(errno));
}

/// What the two ends tell each other besides the stream.
struct Exchange {
    std::size_t request; ///< bytes
    unsigned requests = kWarmUp + kRequests;
    std::atomic<bool> stop{false}; ///< one end has failed
    /// TSC of the last byte's arrival at the application, written before it is answered.
    std::atomic<std::uint64_t> arrived{0};
};

class Socket {
public:
    explicit Socket(int fd) : fd_(fd)
    {
        if (fd < 0)
            fail("socket");
        const int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    ~Socket() { close(fd_); }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    int fd() const { return fd_; }

private:
    int fd_;
};

sockaddr_in address_of(const char* text)
{
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(kPort);
    inet_pton(AF_INET, text, &address.sin_addr);
    return address;
}

/// All of it, polling. @return false: stopped.
bool receive_polling(int fd, std::span<std::byte> room, std::size_t bytes, Exchange& exchange)
{
    while (bytes != 0 && !exchange.stop.load(std::memory_order_relaxed)) {
        const ssize_t n = recv(fd, room.data(), std::min(bytes, room.size()), MSG_DONTWAIT);
        if (n == 0)
            throw std::runtime_error("latency: the other end has closed");
        if (n < 0 && errno != EAGAIN)
            fail("recv");
        bytes -= n < 0 ? 0 : static_cast<std::size_t>(n);
    }
    return bytes == 0;
}

/// In TSC cycles, a request each.
struct Times {
    std::vector<std::uint64_t> arrival, round_trip;
};

/// The kernel's end that asks: sends a request, polls for the answer of a byte.
Times ask_requests(const char* address, Exchange& exchange)
{
    const Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = address_of(address);
    if (connect(socket.fd(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0)
        fail("connect");
    const std::vector<std::byte> request(exchange.request);
    std::byte answer;
    Times times;
    for (unsigned i = 0; i < exchange.requests; ++i) {
        const std::uint64_t begin = rte_rdtsc_precise();
        for (std::size_t sent = 0; sent < request.size();) {
            const ssize_t n =
                send(socket.fd(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
            if (n < 0)
                fail("send");
            sent += static_cast<std::size_t>(n);
        }
        if (!receive_polling(socket.fd(), {&answer, 1}, 1, exchange))
            break;
        const std::uint64_t end = rte_rdtsc_precise();
        if (i < kWarmUp)
            continue;
        times.arrival.push_back(exchange.arrived.load(std::memory_order_acquire) - begin);
        times.round_trip.push_back(end - begin);
    }
    return times;
}

/* -------------------------------------------------------------- receivers */

/// Answers an exchange's requests; the calling thread is on its CPU.
class Receiver {
public:
    virtual ~Receiver() = default;
    virtual const char* name() const = 0;
    virtual const char* address() const = 0;
    /// Where it is, in `wires`.
    virtual const Namespace& place(const Wires& wires) const = 0;
    virtual void answer(Exchange& exchange) = 0;
};

std::unique_ptr<Socket> listen_in(const Namespace& space)
{
    const Inside inside(space);
    auto socket = std::make_unique<Socket>(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval patience{.tv_sec = 10, .tv_usec = 0}; // with a client that has failed
    setsockopt(socket->fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    const sockaddr_in at = address_of(kVethAddress);
    if (bind(socket->fd(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0 ||
        listen(socket->fd(), 1) != 0)
        fail("listen");
    return socket;
}

class KernelReceiver : public Receiver {
public:
    KernelReceiver(const Socket& listener, bool blocking)
        : blocking_(blocking), listener_(listener), room_(256 << 10)
    {
    }
    const char* name() const override
    {
        return blocking_ ? "kernel, veth, blocking" : "kernel, veth, polling";
    }
    const char* address() const override { return kVethAddress; }
    const Namespace& place(const Wires& wires) const override { return wires.far; }

    void answer(Exchange& exchange) override
    {
        const Socket peer(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
        const std::byte yes{};
        for (unsigned i = 0; i < exchange.requests; ++i) {
            if (!receive(peer.fd(), exchange))
                return;
            exchange.arrived.store(rte_rdtsc_precise(), std::memory_order_release);
            if (send(peer.fd(), &yes, 1, MSG_NOSIGNAL) != 1)
                fail("send");
        }
        // The last answer is read before the connection goes.
        std::byte end;
        static_cast<void>(recv(peer.fd(), &end, 1, 0));
    }

private:
    bool receive(int fd, Exchange& exchange)
    {
        if (!blocking_)
            return receive_polling(fd, room_, exchange.request, exchange);
        for (std::size_t left = exchange.request; left != 0;) {
            const ssize_t n = recv(fd, room_.data(), left, 0);
            if (n == 0)
                return false;
            if (n < 0)
                fail("recv");
            left -= static_cast<std::size_t>(n);
        }
        return true;
    }

    const bool blocking_;
    const Socket& listener_;
    std::vector<std::byte> room_;
};

template <typename T>
T value_of(devmem::Result<T> result, const std::string& why)
{
    if (!result)
        throw std::runtime_error("latency: " + (why.empty() ? result.error().message() : why));
    return *std::move(result);
}

class DevmemReceiver : public Receiver {
public:
    explicit DevmemReceiver(const Wires& wires)
        : region_(make_region()), port_(make_port(wires.near)), stack_(make_stack()),
          shard_(stack_.shard(0)), listener_(value_of(shard_.listen(kPort, 4), ""))
    {
        wires.bring_tap_up(true);
    }
    const char* name() const override { return "devmem, TAP, polling"; }
    const char* address() const override { return kDevmemAddress; }
    const Namespace& place(const Wires& wires) const override { return wires.near; }

    void answer(Exchange& exchange) override
    {
        std::optional<devmem::Connection> peer;
        std::size_t left = exchange.request;
        unsigned answered = 0;
        while (!exchange.stop.load(std::memory_order_relaxed)) {
            for (const devmem_event& event : shard_.poll(events_)) {
                if (event.type == DEVMEM_EVENT_ACCEPT)
                    peer.emplace(value_of(listener_.accept(), ""));
            }
            if (!peer)
                continue;
            const auto received = peer->receive(tokens_);
            if (!received && received.error() != std::errc::resource_unavailable_try_again)
                throw std::runtime_error("latency: devmem: " + received.error().message());
            if (!received)
                continue;
            if (*received == 0) // the client has had all its answers
                break;
            for (const devmem::TokenView& token : tokens_)
                left -= token.length();
            if (left == 0) {
                exchange.arrived.store(rte_rdtsc_precise(), std::memory_order_release);
                const std::byte yes{};
                value_of(peer->send({&yes, 1}), "");
                left = exchange.request;
                ++answered;
            }
            tokens_.give_back();
        }
        peer.reset();
        // The FIN leaves, and what it is answered with is taken.
        for (unsigned i = 0; i < 64; ++i)
            static_cast<void>(shard_.poll(events_));
        if (answered != exchange.requests && !exchange.stop)
            throw std::runtime_error("latency: devmem: the client has closed early");
    }

private:
    static devmem::Region make_region()
    {
        std::string why;
        return value_of(devmem::Region::create("opaque:size=64M", &why), why);
    }
    static devmem::Port make_port(const Namespace& space)
    {
        const Inside inside(space);
        std::string why;
        return value_of(devmem::Port::open((std::string("tap:") + kTap).c_str(), 1, &why), why);
    }
    devmem::Stack make_stack()
    {
        std::string why;
        devmem_addr addr;
        devmem_addr_parse((std::string(kDevmemAddress) + "/24").c_str(), &addr);
        devmem_stack_config config{};
        config.port_id = port_->port_id;
        config.region = region_.get();
        config.addrs = &addr;
        config.naddrs = 1;
        return value_of(devmem::Stack::create(config, &why), why);
    }

    devmem::Region region_;
    devmem::Port port_;
    devmem::Stack stack_;
    devmem::Shard shard_;
    devmem::Listener listener_;
    devmem::TokenBatch tokens_;
    std::array<devmem_event, 64> events_;
};

/* ------------------------------------------------------------------ rounds */

Times run(Receiver& receiver, std::size_t request, const Wires& wires,
          const std::vector<unsigned>& cpus)
{
    Exchange exchange{.request = request};
    Times times;
    std::exception_ptr client_error, error;
    std::thread client([&] {
        try {
            const OnCpus on({cpus[0]});
            const Inside inside(wires.near);
            times = ask_requests(receiver.address(), exchange);
        } catch (...) {
            client_error = std::current_exception();
            exchange.stop = true;
        }
    });
    try {
        const OnCpus on({cpus[1]});
        receiver.answer(exchange);
    } catch (...) {
        error = std::current_exception();
        exchange.stop = true;
    }
    client.join();
    if (client_error)
        std::rethrow_exception(client_error);
    if (error)
        std::rethrow_exception(error);
    return times;
}

double percentile(std::vector<std::uint64_t>& cycles, double share)
{
    const auto at = cycles.begin() +
                    static_cast<std::ptrdiff_t>(share * static_cast<double>(cycles.size() - 1));
    std::nth_element(cycles.begin(), at, cycles.end());
    return static_cast<double>(*at) * 1e6 / static_cast<double>(rte_get_tsc_hz());
}

} // namespace

void latency(const Options& options, Report& report)
{
    const std::vector<unsigned> cpus = bench_cpus();
    if (cpus.size() < 2)
        throw std::runtime_error("latency: two CPUs are needed, one at each end");
    const Wires wires;
    DevmemReceiver devmem(wires);
    const std::unique_ptr<Socket> listener = listen_in(wires.far);
    KernelReceiver polling(*listener, false), blocking(*listener, true);
    const std::array<Receiver*, 3> receivers{&devmem, &polling, &blocking};
    constexpr std::array<std::size_t, 2> kSizes{kSmall, kLarge};
    constexpr std::array<const char*, 2> kNames{"latency.arrival", "latency.round_trip"};

    // [what][size][receiver][percentile], a value a round
    std::vector<double> seen[kNames.size()][kSizes.size()][receivers.size()]
                            [std::size(kPercentiles)];
    for (unsigned round = 0; round < options.rounds; ++round) {
        for (std::size_t size = 0; size < kSizes.size(); ++size) {
            for (std::size_t i = 0; i < receivers.size(); ++i) {
                const std::size_t r = (i + round) % receivers.size();
                Times times = run(*receivers[r], kSizes[size], wires, cpus);
                for (std::size_t p = 0; p < std::size(kPercentiles); ++p) {
                    const double share = kPercentiles[p].share;
                    seen[0][size][r][p].push_back(percentile(times.arrival, share));
                    seen[1][size][r][p].push_back(percentile(times.round_trip, share));
                }
            }
        }
    }
    for (std::size_t what = 0; what < kNames.size(); ++what) {
        for (std::size_t size = 0; size < kSizes.size(); ++size) {
            for (std::size_t r = 0; r < receivers.size(); ++r) {
                for (std::size_t p = 0; p < std::size(kPercentiles); ++p)
                    report.results.push_back({kNames[what],
                                              {{"bytes", kSizes[size]},
                                               {"receiver", receivers[r]->name()},
                                               {"percentile", kPercentiles[p].name}},
                                              summarize(seen[what][size][r][p]),
                                              "us"});
            }
        }
    }
}

} // namespace bench
