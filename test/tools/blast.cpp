// SPDX-License-Identifier: BSD-3-Clause
// A kernel TCP sender and receiver as fast as write() and recv() allow: 256 KiB at a time from and
// to one cache-hot buffer. One JSON object on stdout at the end.
//
//     blast --connect HOST:PORT --size N|--seconds S [--flows N] [--cc NAME] [--cpu N] [--hash]
//     blast --sink HOST:PORT [--flows N] [--arena SIZE [--small-pages]|--trunc] [--cc NAME]
//           [--cpu N] [--hash]
//
// What is sent: a fixed pseudo-random block, over and over, its stream position stamped into every
// 4 KiB so that no part of the stream equals another. --size is what all flows send together.
//
// --arena: receive into a ring of that size instead, so that the bytes are where a consumer who
// keeps them would have them; --small-pages: not on hugepages. --trunc: MSG_TRUNC, the bytes are
// copied nowhere.
#include <openssl/evp.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kBlock = 256u << 10;
constexpr std::size_t kStampEvery = 4096;

struct Options {
    std::string connect;
    std::string sink;
    std::string cc;
    std::uint64_t size = UINT64_MAX;
    double seconds = 0; ///< 0: until the size
    std::uint64_t arena = 0;
    unsigned flows = 1;
    int cpu = -1;
    bool hash = false;
    bool trunc = false;
    bool small_pages = false;
};

[[noreturn]] void die(const std::string& what, int status = 1)
{
    std::fprintf(stderr, "blast: %s\n", what.c_str());
    std::exit(status);
}

[[noreturn]] void die_errno(const std::string& what)
{
    die(what + ": " + std::strerror(errno));
}

/// 64M, 1G or plain bytes.
std::uint64_t parse_size(const std::string& option, const std::string& text)
{
    char* end = nullptr;
    const std::uint64_t n = std::strtoull(text.c_str(), &end, 10);
    const std::string_view unit = end;
    if (end == text.c_str() || unit.size() > 1) {
        die(option + " " + text + ": a number, optionally with K, M or G", 2);
    }
    if (unit.empty()) {
        return n;
    }
    switch (unit[0]) {
    case 'K':
        return n << 10;
    case 'M':
        return n << 20;
    case 'G':
        return n << 30;
    default:
        die(option + " " + text + ": a number, optionally with K, M or G", 2);
    }
}

Options parse(int argc, char** argv)
{
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view arg = argv[i];
        if (arg == "--hash" || arg == "--trunc" || arg == "--small-pages") {
            (arg == "--hash"    ? options.hash
             : arg == "--trunc" ? options.trunc
                                : options.small_pages) = true;
            continue;
        }
        if (i + 1 == argc) {
            die(std::string(arg) + ": unknown, or its value is missing", 2);
        }
        const std::string value = argv[++i];
        if (arg == "--connect") {
            options.connect = value;
        } else if (arg == "--sink") {
            options.sink = value;
        } else if (arg == "--cc") {
            options.cc = value;
        } else if (arg == "--size") {
            options.size = parse_size("--size", value);
        } else if (arg == "--seconds") {
            options.seconds = std::strtod(value.c_str(), nullptr);
        } else if (arg == "--arena") {
            options.arena = parse_size("--arena", value);
        } else if (arg == "--flows") {
            options.flows = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
        } else if (arg == "--cpu") {
            options.cpu = std::atoi(value.c_str());
        } else {
            die(std::string(arg) + ": unknown argument", 2);
        }
    }
    if (options.connect.empty() == options.sink.empty()) {
        die("one of --connect HOST:PORT and --sink HOST:PORT is needed", 2);
    }
    if (!options.connect.empty() && options.size == UINT64_MAX && !(options.seconds > 0)) {
        die("--connect needs --size or --seconds", 2);
    }
    if (options.flows == 0 || (options.hash && options.flows != 1)) {
        die("--flows: a number from 1, and 1 with --hash", 2);
    }
    if (options.hash && options.trunc) {
        die("--trunc leaves nothing to --hash", 2);
    }
    if (options.arena != 0 && options.arena < kBlock) {
        die("--arena: 256K at the least", 2);
    }
    return options;
}

void pin(int cpu)
{
    if (cpu < 0) {
        return;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(cpu), &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) {
        die_errno("--cpu " + std::to_string(cpu));
    }
}

using AddrInfo = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

/// The last colon ends the host, so that IPv6 addresses need no brackets.
AddrInfo resolve(const std::string& endpoint)
{
    const std::size_t colon = endpoint.rfind(':');
    if (colon == std::string::npos) {
        die(endpoint + ": HOST:PORT is needed", 2);
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int rc = getaddrinfo(endpoint.substr(0, colon).c_str(),
                               endpoint.substr(colon + 1).c_str(), &hints, &found);
    if (rc != 0) {
        die(endpoint + ": " + gai_strerror(rc), 2);
    }
    return {found, freeaddrinfo};
}

int open_socket(const addrinfo& address, const std::string& cc)
{
    const int fd = socket(address.ai_family, SOCK_STREAM, 0);
    if (fd < 0) {
        die_errno("socket");
    }
    if (!cc.empty() && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cc.data(),
                                  static_cast<socklen_t>(cc.size())) != 0) {
        die_errno("congestion control " + cc);
    }
    return fd;
}

std::string congestion_control(int fd)
{
    char name[16]{};
    socklen_t len = sizeof(name) - 1;
    if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) != 0) {
        die_errno("TCP_CONGESTION");
    }
    return name;
}

std::vector<std::uint8_t> random_block()
{
    std::vector<std::uint8_t> block(kBlock);
    std::uint64_t state = 0x9e3779b97f4a7c15;
    for (std::uint8_t& byte : block) { // splitmix64
        state += 0x9e3779b97f4a7c15;
        std::uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        byte = static_cast<std::uint8_t>(z >> 56);
    }
    return block;
}

void stamp(std::vector<std::uint8_t>& block, std::uint64_t position)
{
    for (std::size_t i = 0; i < block.size(); i += kStampEvery) {
        const std::uint64_t value = position + i;
        std::memcpy(block.data() + i, &value, sizeof(value));
    }
}

class Sha256 {
public:
    Sha256() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
    void update(const void* data, std::size_t len) { EVP_DigestUpdate(context_.get(), data, len); }
    std::string hex()
    {
        std::uint8_t digest[32];
        EVP_DigestFinal_ex(context_.get(), digest, nullptr);
        std::string text;
        for (const std::uint8_t byte : digest) {
            char two[3];
            std::snprintf(two, sizeof(two), "%02x", byte);
            text += two;
        }
        return text;
    }

private:
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(),
                                                                     EVP_MD_CTX_free};
};

using Clock = std::chrono::steady_clock;

/// User and system time of this process.
double cpu_seconds()
{
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void report(std::uint64_t bytes, Clock::duration elapsed, double cpu, const std::string& cc,
            const std::string& sha256)
{
    const double seconds = std::chrono::duration<double>(elapsed).count();
    std::printf(R"({"bytes": %llu, "seconds": %.6f, "gbps": %.3f, "cpu_seconds": %.6f, )"
                R"("cc": "%s", "sha256": "%s"})"
                "\n",
                static_cast<unsigned long long>(bytes), seconds,
                seconds > 0 ? static_cast<double>(bytes) * 8e-9 / seconds : 0, cpu, cc.c_str(),
                sha256.c_str());
}

/// The flows that can go on. A single one is waited for in send() and recv() themselves.
class Ready {
public:
    Ready(const std::vector<int>& fds, std::uint32_t events)
        : events_(fds.size()), left_(fds.size())
    {
        if (left_ == 1) {
            events_[0].data.u64 = 0;
            return;
        }
        epoll_ = epoll_create1(EPOLL_CLOEXEC);
        for (std::size_t i = 0; i < left_; ++i) {
            epoll_event event{};
            event.events = events;
            event.data.u64 = i;
            if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fds[i], &event) != 0) {
                die_errno("epoll");
            }
        }
    }

    bool any_left() const { return left_ != 0; }
    int flags() const { return epoll_ < 0 ? 0 : MSG_DONTWAIT; }
    std::span<const epoll_event> wait()
    {
        const int n =
            epoll_ < 0 ? 1
                       : epoll_wait(epoll_, events_.data(), static_cast<int>(events_.size()), -1);
        if (n < 0) {
            die_errno("epoll");
        }
        return {events_.data(), static_cast<std::size_t>(n)};
    }
    void remove(int fd)
    {
        --left_;
        if (epoll_ >= 0) {
            epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
        }
    }

private:
    int epoll_ = -1;
    std::vector<epoll_event> events_;
    std::size_t left_;
};

/// Nobody may listen yet: try for a while.
int connect_flow(const addrinfo& address, const Options& options)
{
    const auto deadline = Clock::now() + std::chrono::seconds(5);
    while (true) {
        const int fd = open_socket(address, options.cc);
        if (connect(fd, address.ai_addr, address.ai_addrlen) == 0) {
            return fd;
        }
        if (errno != ECONNREFUSED || Clock::now() > deadline) {
            die_errno("connect " + options.connect);
        }
        close(fd);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

/// Time runs until the peer has closed: until it has had every byte.
int send_streams(const Options& options)
{
    const AddrInfo address = resolve(options.connect);
    std::vector<int> fds(options.flows);
    for (int& fd : fds) {
        fd = connect_flow(*address, options);
    }
    Ready ready(fds, EPOLLOUT);
    std::vector<std::uint8_t> block = random_block();
    Sha256 sha256;
    std::vector<std::uint64_t> sent(options.flows);
    const std::uint64_t share = options.size / options.flows;
    const auto start = Clock::now();
    const auto end = options.seconds > 0
                         ? start + std::chrono::duration_cast<Clock::duration>(
                                       std::chrono::duration<double>(options.seconds))
                         : Clock::time_point::max();
    const double cpu = cpu_seconds();
    while (ready.any_left()) {
        const bool late = Clock::now() >= end;
        for (const epoll_event& event : ready.wait()) {
            const std::size_t i = event.data.u64;
            const std::uint64_t size = i == 0 ? options.size - share * (options.flows - 1) : share;
            // A block is begun again where the last send() of this flow ended in it.
            const std::size_t done = sent[i] % kBlock;
            const std::size_t len = std::min<std::uint64_t>(kBlock - done, size - sent[i]);
            if (len == 0 || late) {
                if (shutdown(fds[i], SHUT_WR) != 0) {
                    die_errno("shutdown");
                }
                ready.remove(fds[i]);
                continue;
            }
            stamp(block, sent[i] - done);
            const ssize_t n = send(fds[i], block.data() + done, len, MSG_NOSIGNAL | ready.flags());
            if (n < 0 && errno != EAGAIN) {
                die_errno("send after " + std::to_string(sent[i]) + " bytes");
            }
            if (n > 0) {
                if (options.hash) {
                    sha256.update(block.data() + done, static_cast<std::size_t>(n));
                }
                sent[i] += static_cast<std::uint64_t>(n);
            }
        }
    }
    const std::string cc = congestion_control(fds[0]);
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < fds.size(); ++i) {
        ssize_t n;
        while ((n = recv(fds[i], block.data(), block.size(), 0)) > 0) {
        }
        if (n < 0) {
            die_errno("recv");
        }
        bytes += sent[i];
    }
    report(bytes, Clock::now() - start, cpu_seconds() - cpu, cc, options.hash ? sha256.hex() : "");
    return 0;
}

/// Memory that is there: no page fault while it is measured. On hugepages if they are to be had.
std::uint8_t* populated(std::size_t bytes, bool small_pages)
{
    constexpr std::size_t kHugepage = 2u << 20;
    void* memory = mmap(nullptr, bytes + kHugepage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        die_errno("--arena");
    }
    const auto at = reinterpret_cast<std::uintptr_t>(memory);
    auto* begin = static_cast<std::uint8_t*>(memory) + (kHugepage - at % kHugepage) % kHugepage;
    madvise(begin, bytes, small_pages ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    if (madvise(begin, bytes, MADV_POPULATE_WRITE) != 0) {
        die_errno("--arena");
    }
    return begin;
}

/// Time runs from the first bytes to the last, as in devmem-ncat.
int receive_streams(const Options& options)
{
    const AddrInfo address = resolve(options.sink);
    const std::size_t room = std::max<std::uint64_t>(options.arena, kBlock);
    std::uint8_t* const buffer = populated(room, options.small_pages);
    const int listener = open_socket(*address, options.cc);
    const int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, address->ai_addr, address->ai_addrlen) != 0 ||
        listen(listener, static_cast<int>(options.flows)) != 0) {
        die_errno("listen " + options.sink);
    }
    std::vector<int> fds(options.flows);
    for (int& fd : fds) {
        fd = accept(listener, nullptr, nullptr);
        if (fd < 0) {
            die_errno("accept");
        }
    }
    Ready ready(fds, EPOLLIN);
    const int flags = ready.flags() | (options.trunc ? MSG_TRUNC : 0);
    Sha256 sha256;
    Clock::time_point first, last;
    double cpu = 0;
    std::uint64_t bytes = 0;
    std::size_t at = 0;
    while (ready.any_left()) {
        for (const epoll_event& event : ready.wait()) {
            const int fd = fds[event.data.u64];
            const ssize_t n = recv(fd, buffer + at, kBlock, flags);
            if (n < 0 && errno == EAGAIN) {
                continue;
            }
            if (n < 0) {
                die_errno("recv");
            }
            if (n == 0) {
                ready.remove(fd);
                continue;
            }
            if (options.hash) {
                sha256.update(buffer + at, static_cast<std::size_t>(n));
            }
            last = Clock::now();
            if (bytes == 0) {
                first = last;
                cpu = cpu_seconds();
            }
            bytes += static_cast<std::uint64_t>(n);
            if (options.arena != 0) {
                at += static_cast<std::size_t>(n);
                at = at + kBlock > room ? 0 : at;
            }
        }
    }
    report(bytes, last - first, cpu_seconds() - cpu, congestion_control(fds[0]),
           options.hash ? sha256.hex() : "");
    return 0;
}

} // namespace

int main(int argc, char** argv)
{
    const Options options = parse(argc, argv);
    pin(options.cpu);
    return options.sink.empty() ? send_streams(options) : receive_streams(options);
}
