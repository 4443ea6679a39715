// SPDX-License-Identifier: BSD-3-Clause
// A kernel TCP sender and receiver as fast as write() and recv() allow: 256 KiB at a time from and
// to one cache-hot buffer. One JSON object on stdout at the end.
//
//     blast --connect HOST:PORT --size N [--cc NAME] [--cpu N] [--hash]
//     blast --sink HOST:PORT [--cc NAME] [--cpu N]
//
// What is sent: a fixed pseudo-random block, over and over, its stream position stamped into every
// 4 KiB so that no part of the stream equals another.
#include <openssl/evp.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kBlock = 256u << 10;
constexpr std::size_t kStampEvery = 4096;

struct Options {
    std::string connect;
    std::string sink;
    std::string cc;
    std::uint64_t size = 0;
    int cpu = -1;
    bool hash = false;
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
std::uint64_t parse_size(const std::string& text)
{
    char* end = nullptr;
    const std::uint64_t n = std::strtoull(text.c_str(), &end, 10);
    const std::string_view unit = end;
    if (end == text.c_str() || unit.size() > 1) {
        die("--size " + text + ": a number, optionally with K, M or G", 2);
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
        die("--size " + text + ": a number, optionally with K, M or G", 2);
    }
}

Options parse(int argc, char** argv)
{
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view arg = argv[i];
        if (arg == "--hash") {
            options.hash = true;
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
            options.size = parse_size(value);
        } else if (arg == "--cpu") {
            options.cpu = std::atoi(value.c_str());
        } else {
            die(std::string(arg) + ": unknown argument", 2);
        }
    }
    if (options.connect.empty() == options.sink.empty()) {
        die("one of --connect HOST:PORT and --sink HOST:PORT is needed", 2);
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

void report(std::uint64_t bytes, Clock::duration elapsed, const std::string& cc,
            const std::string& sha256)
{
    const double seconds = std::chrono::duration<double>(elapsed).count();
    std::printf(R"({"bytes": %llu, "seconds": %.6f, "gbps": %.3f, "cc": "%s", "sha256": "%s"})"
                "\n",
                static_cast<unsigned long long>(bytes), seconds,
                seconds > 0 ? static_cast<double>(bytes) * 8e-9 / seconds : 0, cc.c_str(),
                sha256.c_str());
}

/// Time runs until the peer has closed: until it has had every byte.
int send_stream(const Options& options)
{
    const AddrInfo address = resolve(options.connect);
    const int fd = open_socket(*address, options.cc);
    if (connect(fd, address->ai_addr, address->ai_addrlen) != 0) {
        die_errno("connect " + options.connect);
    }
    std::vector<std::uint8_t> block = random_block();
    Sha256 sha256;
    const auto start = Clock::now();
    std::uint64_t sent = 0;
    while (sent < options.size) {
        stamp(block, sent);
        const std::size_t len = std::min<std::uint64_t>(block.size(), options.size - sent);
        if (options.hash) {
            sha256.update(block.data(), len);
        }
        for (std::size_t done = 0; done < len;) {
            const ssize_t n = send(fd, block.data() + done, len - done, MSG_NOSIGNAL);
            if (n < 0) {
                die_errno("send after " + std::to_string(sent + done) + " bytes");
            }
            done += static_cast<std::size_t>(n);
        }
        sent += len;
    }
    const std::string cc = congestion_control(fd);
    if (shutdown(fd, SHUT_WR) != 0) {
        die_errno("shutdown");
    }
    while (true) {
        const ssize_t n = recv(fd, block.data(), block.size(), 0);
        if (n < 0) {
            die_errno("recv");
        }
        if (n == 0) {
            break;
        }
    }
    report(sent, Clock::now() - start, cc, options.hash ? sha256.hex() : "");
    close(fd);
    return 0;
}

/// Time runs from the first bytes to the last, as in devmem-ncat.
int receive_stream(const Options& options)
{
    const AddrInfo address = resolve(options.sink);
    const int listener = open_socket(*address, options.cc);
    const int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, address->ai_addr, address->ai_addrlen) != 0 || listen(listener, 1) != 0) {
        die_errno("listen " + options.sink);
    }
    const int fd = accept(listener, nullptr, nullptr);
    if (fd < 0) {
        die_errno("accept");
    }
    std::vector<std::uint8_t> buffer(kBlock);
    Sha256 sha256;
    Clock::time_point first, last;
    std::uint64_t bytes = 0;
    while (true) {
        const ssize_t n = recv(fd, buffer.data(), buffer.size(), 0);
        if (n < 0) {
            die_errno("recv");
        }
        if (n == 0) {
            break;
        }
        if (options.hash) {
            sha256.update(buffer.data(), static_cast<std::size_t>(n));
        }
        last = Clock::now();
        if (bytes == 0) {
            first = last;
        }
        bytes += static_cast<std::uint64_t>(n);
    }
    report(bytes, last - first, congestion_control(fd), options.hash ? sha256.hex() : "");
    close(fd);
    close(listener);
    return 0;
}

} // namespace

int main(int argc, char** argv)
{
    const Options options = parse(argc, argv);
    pin(options.cpu);
    return options.sink.empty() ? send_stream(options) : receive_stream(options);
}
