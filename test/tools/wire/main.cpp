// SPDX-License-Identifier: BSD-3-Clause
// A bad wire between two TAPs. It makes them, carries frames between them, and loses, repeats,
// spoils and delays what it is told to, each way for itself. Ends at SIGINT or SIGTERM; one JSON
// object on stdout at the end.
//
//     wire --seed 1 w0 w1 forward --loss 0.01 --delay 5 reverse --delay 5
//
// The TAPs offer no offloads, so the kernel cuts frames to the MTU and fills in checksums before
// the wire sees them, and believes none that come from it.
#include "test/tools/wire/link.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace wire {
namespace {

constexpr std::size_t kFrameMax = 65536 + 14;
/// Frames from one side before the other has its turn.
constexpr int kBurst = 32;
constexpr Time kSecond = 1'000'000'000;

struct Options {
    std::uint64_t seed = 1;
    std::array<std::string, 2> taps;
    std::array<Impairments, 2> directions;
};

[[noreturn]] void die_errno(const std::string& what)
{
    std::fprintf(stderr, "wire: %s: %s\n", what.c_str(), std::strerror(errno));
    std::exit(1);
}

/// An option given in another unit than it is kept in.
template <typename T>
CLI::Option* scaled(CLI::App* app, const char* name, double unit, T* to, const char* help)
{
    return app
        ->add_option_function<double>(
            name, [=](double value) { *to = static_cast<T>(value * unit); }, help)
        ->check(CLI::NonNegativeNumber);
}

void add_direction(CLI::App& app, const char* name, const char* help, Impairments* to)
{
    constexpr double kMs = 1e6, kKib = 1024, kMbits = 1e6 / 8;
    const CLI::Range probability(0.0, 1.0);
    CLI::App* way = app.add_subcommand(name, help);
    way->add_option("--from", to->from, "all goes well until this packet (0)");
    way->add_option("--loss", to->loss, "lose packets: probability")->check(probability);
    way->add_option_function<std::vector<double>>(
           "--burst",
           [to](const std::vector<double>& given) {
               to->burst_enter = given[0];
               to->burst_leave = given[1];
               to->burst_loss = given[2];
           },
           "lose packets in bursts (Gilbert-Elliott): probabilities of good to bad, of bad to "
           "good, of loss while bad")
        ->expected(3)
        ->check(probability);
    way->add_option("--corrupt", to->corrupt, "flip a bit of the IP payload: probability")
        ->check(probability);
    way->add_option("--duplicate", to->duplicate, "probability")->check(probability);
    way->add_option("--reorder", to->reorder, "hold packets back: probability")->check(probability);
    scaled(way, "--reorder-by", kMs, &to->reorder_by, "how long: ms");
    scaled(way, "--delay", kMs, &to->delay, "ms");
    scaled(way, "--jitter", kMs, &to->jitter, "up to so much more delay, in order: ms");
    scaled(way, "--rate", kMbits, &to->rate, "Mb/s, of Ethernet frames");
    to->bucket = 4 * kKib;
    scaled(way, "--bucket", kKib, &to->bucket, "bytes that go at once after a rest: KiB (4)");
    to->queue = 256 * kKib;
    scaled(way, "--queue", kKib, &to->queue, "bytes that may wait for the rate: KiB (256)");
    way->add_option_function<std::vector<std::string>>(
           "--mtu",
           [to](const std::vector<std::string>& steps) {
               for (const std::string& step : steps) {
                   unsigned mtu, length;
                   unsigned long long packet = 0;
                   const int found =
                       std::sscanf(step.c_str(), "%u%n@%llu%n", &mtu, &length, &packet, &length);
                   if (found < 1 || length != step.size() || mtu < 576 || mtu > 65535)
                       throw CLI::ValidationError("--mtu", step + " is not BYTES[@PACKET]");
                   to->mtu.push_back({packet, static_cast<std::uint16_t>(mtu)});
               }
           },
           "BYTES[@PACKET]...: IP packets may have so many bytes, from that packet on; a longer "
           "one is answered by ICMP")
        ->expected(1, 16);
}

int open_tap(const std::string& name)
{
    const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        die_errno("/dev/net/tun");
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    name.copy(request.ifr_name, sizeof(request.ifr_name) - 1);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        die_errno(name);
    return fd;
}

Time now()
{
    timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * kSecond + at.tv_nsec;
}

/// A TAP, and the direction that begins there.
struct Side {
    int fd;
    Link link;
    std::uint64_t refused = 0; ///< frames that the other TAP did not take
};

void send(int fd, const Frame& frame, Side& from)
{
    if (write(fd, frame.data(), frame.size()) < 0)
        from.refused++; // it is down, or gone to a namespace that is
}

/// @return false: nothing came and nothing was due
bool carry(Side& from, int to, Frame& buffer)
{
    bool busy = false;
    for (int i = 0; i < kBurst; ++i) {
        const ssize_t got = read(from.fd, buffer.data(), buffer.size());
        if (got <= 0)
            break; // nothing there, or the TAP is down
        busy = true;
        const Frame reply = from.link.put(Frame(buffer.begin(), buffer.begin() + got), now());
        if (!reply.empty())
            send(from.fd, reply, from);
    }
    for (const Time at = now(); from.link.next() <= at; busy = true)
        send(to, from.link.take(), from);
    return busy;
}

volatile std::sig_atomic_t stop;

void run(std::array<Side, 2>& sides)
{
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, &before);
    struct sigaction action {};
    action.sa_handler = [](int) { stop = 1; };
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);

    // Delays are of a millisecond and less; the default slack is 50 us.
    prctl(PR_SET_TIMERSLACK, 1);
    Frame buffer(kFrameMax);
    while (stop == 0) {
        const bool forward = carry(sides[0], sides[1].fd, buffer);
        const bool reverse = carry(sides[1], sides[0].fd, buffer);
        const Time due = std::min(sides[0].link.next(), sides[1].link.next());
        const Time wait = forward || reverse ? 0 : std::clamp<Time>(due - now(), 0, kSecond);
        const timespec timeout{wait / kSecond, wait % kSecond};
        std::array<pollfd, 2> fds{pollfd{sides[0].fd, POLLIN, 0}, pollfd{sides[1].fd, POLLIN, 0}};
        ppoll(fds.data(), fds.size(), &timeout, &before);
    }
}

nlohmann::ordered_json report(const Side& side)
{
    const Counters& c = side.link.counters();
    return {{"frames", c.frames},
            {"passed_by", c.passed_by},
            {"packets", c.packets},
            {"too_big", c.too_big},
            {"lost", c.lost},
            {"lost_in_bursts", c.lost_in_bursts},
            {"queue_full", c.queue_full},
            {"corrupted", c.corrupted},
            {"duplicated", c.duplicated},
            {"reordered", c.reordered},
            {"delivered", c.delivered},
            {"delivered_bytes", c.delivered_bytes},
            {"refused", side.refused}};
}

} // namespace
} // namespace wire

int main(int argc, char** argv)
{
    using namespace wire;
    Options options;
    CLI::App app("A bad wire between two TAPs, which it makes", "wire");
    app.add_option("--seed", options.seed, "of all that is left to chance (1)");
    app.add_option("TAP", options.taps, "names of the TAPs")->required();
    add_direction(app, "forward", "from the first TAP to the second", &options.directions[0]);
    add_direction(app, "reverse", "from the second TAP to the first", &options.directions[1]);
    CLI11_PARSE(app, argc, argv);

    std::array<Side, 2> sides{
        Side{open_tap(options.taps[0]), Link(options.directions[0], 2 * options.seed)},
        Side{open_tap(options.taps[1]), Link(options.directions[1], 2 * options.seed + 1)}};
    run(sides);
    const nlohmann::ordered_json object{
        {"seed", options.seed}, {"forward", report(sides[0])}, {"reverse", report(sides[1])}};
    std::printf("%s\n", object.dump().c_str());
    return 0;
}
