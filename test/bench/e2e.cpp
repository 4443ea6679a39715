// SPDX-License-Identifier: BSD-3-Clause
// A stream of the kernel's TCP, to devmem-ncat behind a TAP and to the kernel's own receiver.
#include "test/bench/e2e_process.h"
#include "test/bench/e2e_wire.h"
#include "test/bench/eal.h"
#include "test/bench/modes.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <rte_cycles.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>

namespace bench {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr double kGiB = 1 << 30;
/// A run is that many times as long as a cell of the other modes: a window has to open first.
constexpr double kRun = 25;
constexpr char kPort[] = "5201";
/// The default of many a machine, bbr, paces what is measured here.
constexpr char kCongestionControl[] = "cubic";

constexpr unsigned kAsked = 3;

enum Receiver { kDevmem, kVethRecv, kLoRecv, kVethTrunc };
constexpr const char* kReceiverNames[]{"devmem", "veth", "loopback", "veth, MSG_TRUNC"};

struct Cell {
    unsigned mtu;
    bool tso;
    unsigned flows = 1;
    unsigned queues = 1;
    unsigned senders = 1;
    std::uint64_t held = 0;   ///< bytes of tokens, or of the kernel receiver's arena
    bool small_pages = false; ///< that is not on hugepages, either of them
    unsigned times = 1;       ///< in a round: more often where something is asked
    std::vector<Receiver> receivers{kDevmem, kVethRecv};

    /// A connection is given half of the region; what it has in flight comes on top.
    std::uint64_t region_bytes() const { return 2 * held + 256 * kMiB; }
    /// Memory that is held is gone through many times: the first is about page tables.
    double runs() const { return kRun * (1 + static_cast<double>(held) / (256 * kMiB)); }

    Json params(Receiver receiver) const
    {
        return {{"mtu", mtu},
                {"tso", tso},
                {"flows", flows},
                {"queues", queues},
                {"senders", senders},
                {"held_mib", held / kMiB},
                {"receiver", kReceiverNames[receiver]}};
    }
};

/// Of one run each.
struct Samples {
    std::vector<double> gbps;
    std::vector<double> cpu; ///< receiver's seconds per GiB
};

class Bench {
public:
    Bench(const Options& options)
        : cpus_(bench_cpus()), seconds_(options.seconds),
          ncat_(built("apps/devmem-ncat/devmem-ncat")), blast_(built("test/tools/blast"))
    {
        if (cpus_.size() < 2)
            throw std::runtime_error("e2e: two CPUs are needed, one to send and one to receive");
        const bool two_queues = cpus_.size() >= kCpusForTwoQueues;
        cells_ = {
            {.mtu = 1500,
             .tso = true,
             .times = kAsked,
             .receivers = {kDevmem, kVethRecv, kLoRecv, kVethTrunc}},
            {.mtu = 1500, .tso = false, .times = kAsked},
            {.mtu = 9000, .tso = true},
            {.mtu = 9000, .tso = false, .times = kAsked},
            {.mtu = 65521, .tso = true},
            {.mtu = 1500, .tso = true, .flows = 8},
            {.mtu = 1500, .tso = true, .flows = 64},
            {.mtu = 1500, .tso = true, .flows = 64, .queues = 2, .receivers = {kDevmem}},
            {.mtu = 1500, .tso = true, .held = 64 * kMiB, .times = kAsked},
            {.mtu = 1500, .tso = true, .held = 1024 * kMiB},
        };
        // Hugepages are for mbufs first: devmem-ncat wants half of its region's size for them.
        for (Cell& cell : cells_)
            cell.small_pages =
                cell.held != 0 && free_hugepage_bytes() < cell.region_bytes() / 2 * 3 + 256 * kMiB;
        for (const unsigned queues : {1u, 2u}) {
            if (two_queues)
                cells_.push_back({.mtu = 1500,
                                  .tso = true,
                                  .flows = 64,
                                  .queues = queues,
                                  .senders = 2,
                                  .receivers = {kDevmem}});
        }
    }

    void round()
    {
        for (const Cell& cell : cells_) {
            for (unsigned time = 0; time < cell.times; ++time) {
                // Another one first each time.
                const std::size_t n = cell.receivers.size();
                for (std::size_t i = 0; i < n; ++i)
                    measure(cell, cell.receivers[(i + turn_) % n]);
                ++turn_;
            }
        }
    }

    void report(Report& report) const
    {
        for (const Cell& cell : cells_) {
            if (cell.held != 0)
                report.conditions["hugepages_held_" + std::to_string(cell.held / kMiB)] =
                    !cell.small_pages;
        }
        for (const bool cpu : {false, true}) {
            for (const Cell& cell : cells_) {
                for (const Receiver receiver : cell.receivers) {
                    const Samples& samples = samples_.at({&cell, receiver});
                    report.results.push_back(
                        {cpu ? "e2e.receiver_cpu" : "e2e.goodput", cell.params(receiver),
                         summarize(cpu ? samples.cpu : samples.gbps), cpu ? "s/GiB" : "Gb/s"});
                }
            }
        }
        const Cell& plain = cells_[0];
        ask(report, "e2e.veth", 1.25, {{&plain, kVethRecv}});
        ask(report, "e2e.lo", 1.15, {{&plain, kLoRecv}});
        ask(report, "e2e.held", 1.1, against_veth([](const Cell& c) { return c.held != 0; }));
        const Stat cpu = summarize(
            ratios(samples_.at({&plain, kDevmem}).cpu, samples_.at({&plain, kVethRecv}).cpu));
        report.results.push_back({"e2e.cpu", plain.params(kVethRecv), cpu, "ratio"});
        report.ask_at_most("e2e.cpu", 1.0, cpu.median);
        ask(report, "e2e.notso", 0.75, against_veth([](const Cell& c) { return !c.tso; }));
        ask_queues(report);
    }

private:
    using Key = std::pair<const Cell*, Receiver>;
    static constexpr unsigned kCpusForTwoQueues = 4; ///< and two senders, so that it is not them

    void measure(const Cell& cell, Receiver receiver)
    {
        const Json seen = receiver == kDevmem ? run_devmem(cell) : run_kernel(cell, receiver);
        Samples& samples = samples_[{&cell, receiver}];
        samples.gbps.push_back(seen["gbps"]);
        samples.cpu.push_back(seen["cpu_seconds"].get<double>() /
                              (seen["bytes"].get<double>() / kGiB));
    }

    /// The senders stay within a namespace, each on a CPU of its own; receivers have what is left.
    Json send(const Cell& cell, const char* address, Process& receiver)
    {
        std::vector<std::unique_ptr<Process>> senders;
        {
            const Inside inside(wires_.near);
            for (unsigned i = 0; i < cell.senders; ++i)
                senders.push_back(std::make_unique<Process>(
                    std::vector<std::string>{
                        blast_, "--connect", std::string(address) + ":" + kPort, "--cc",
                        kCongestionControl, "--seconds", std::to_string(cell.runs() * seconds_),
                        "--flows", std::to_string(cell.flows / cell.senders)},
                    std::vector{cpus_[i]}));
        }
        std::uint64_t sent = 0;
        for (const auto& sender : senders)
            sent += Json::parse(sender->wait())["bytes"].get<std::uint64_t>();
        const Json seen = Json::parse(receiver.wait());
        if (seen["bytes"] != sent)
            throw std::runtime_error("e2e: " + std::to_string(sent) + " bytes were sent, and " +
                                     seen["bytes"].dump() + " received");
        return seen;
    }

    std::vector<unsigned> receiver_cpus(const Cell& cell) const
    {
        const auto begin = cpus_.begin() + cell.senders;
        return {begin, begin + std::min<std::ptrdiff_t>(cell.queues, cpus_.end() - begin)};
    }

    Json run_devmem(const Cell& cell)
    {
        std::vector<std::string> command{ncat_,
                                         "-l",
                                         "-f",
                                         std::string("tap:") + kTap +
                                             ",mtu=" + std::to_string(cell.mtu),
                                         "-s",
                                         std::string(kDevmemAddress) + "/24",
                                         "-p",
                                         kPort,
                                         "-q",
                                         std::to_string(cell.queues),
                                         "--connections",
                                         std::to_string(cell.flows),
                                         "--json"};
        if (cell.held != 0)
            command.insert(command.end(), {"--hold", std::to_string(cell.held), "-m",
                                           "opaque:size=" + std::to_string(cell.region_bytes()) +
                                               ",huge=" + (cell.small_pages ? "no" : "yes")});
        std::unique_ptr<Process> ncat;
        {
            const Inside inside(wires_.near);
            ncat = std::make_unique<Process>(command, receiver_cpus(cell));
        }
        ncat->wait_for("listening");
        wires_.bring_tap_up(cell.tso);
        return send(cell, kDevmemAddress, *ncat);
    }

    Json run_kernel(const Cell& cell, Receiver receiver)
    {
        const bool lo = receiver == kLoRecv;
        const char* address = lo ? kLoAddress : kVethAddress;
        std::vector<std::string> command{blast_,
                                         "--sink",
                                         std::string(address) + ":" + kPort,
                                         "--cc",
                                         kCongestionControl,
                                         "--flows",
                                         std::to_string(cell.flows)};
        if (receiver == kVethTrunc)
            command.push_back("--trunc");
        if (cell.held != 0)
            command.insert(command.end(), {"--arena", std::to_string(cell.held)});
        if (cell.small_pages)
            command.push_back("--small-pages");
        if (!lo)
            wires_.set_veth(cell.mtu, cell.tso);
        std::unique_ptr<Process> sink;
        {
            const Inside inside(lo ? wires_.near : wires_.far);
            sink = std::make_unique<Process>(command, receiver_cpus(cell));
        }
        return send(cell, address, *sink);
    }

    static std::vector<double> ratios(const std::vector<double>& of, const std::vector<double>& by)
    {
        std::vector<double> all(of.size());
        std::transform(of.begin(), of.end(), by.begin(), all.begin(), std::divides<>());
        return all;
    }

    template <typename Choose>
    std::vector<Key> against_veth(Choose choose) const
    {
        std::vector<Key> keys;
        for (const Cell& cell : cells_) {
            if (choose(cell))
                keys.push_back({&cell, kVethRecv});
        }
        return keys;
    }

    /// Goodput by that of the peers in the same cell and round: the lowest median of them counts.
    void ask(Report& report, const char* name, double want, const std::vector<Key>& peers) const
    {
        std::optional<double> lowest;
        for (const auto& [cell, peer] : peers) {
            const Stat ratio = summarize(
                ratios(samples_.at({cell, kDevmem}).gbps, samples_.at({cell, peer}).gbps));
            report.results.push_back({name, cell->params(peer), ratio, "ratio"});
            lowest = std::min(lowest.value_or(ratio.median), ratio.median);
        }
        report.ask_at_least(name, want, lowest);
    }

    void ask_queues(Report& report) const
    {
        const Samples *one = nullptr, *two = nullptr;
        for (const Cell& cell : cells_) {
            if (cell.senders == 2)
                (cell.queues == 1 ? one : two) = &samples_.at({&cell, kDevmem});
        }
        std::optional<double> ratio;
        if (two != nullptr)
            ratio = summarize(ratios(two->gbps, one->gbps)).median;
        report.ask_at_least("e2e.queues", 1.7, ratio);
    }

    const std::vector<unsigned> cpus_;
    const double seconds_;
    const std::string ncat_, blast_;
    const Wires wires_;
    std::vector<Cell> cells_;
    std::map<Key, Samples> samples_;
    std::size_t turn_ = 0;
};

/* ---------------------------------------------------------------- limits */

class Mapping {
public:
    explicit Mapping(std::size_t bytes) : bytes_(bytes)
    {
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED)
            throw std::bad_alloc();
        data_ = static_cast<std::byte*>(at);
        madvise(data_, bytes, MADV_HUGEPAGE);
        std::memset(data_, 1, bytes);
    }
    ~Mapping() { munmap(data_, bytes_); }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    std::byte* data() const { return data_; }
    std::size_t size() const { return bytes_; }

private:
    std::size_t bytes_;
    std::byte* data_;
};

/// Seconds that `turn` takes, over and over for a while.
template <typename Turn>
double seconds_of(double least, Turn turn)
{
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    std::size_t turns = 0;
    double elapsed;
    do {
        turn();
        ++turns;
        elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
    } while (elapsed < least);
    return elapsed / static_cast<double>(turns);
}

/// Copying what a sender wrote, which is in the cache, into memory of so many bytes: Gb/s.
double copy_gbps(const Mapping& from, const Mapping& to, double seconds)
{
    std::size_t at = 0;
    const double turn = seconds_of(seconds, [&] {
        std::memcpy(to.data() + at, from.data(), from.size());
        at = (at + from.size()) % to.size();
        asm volatile("" ::: "memory");
    });
    return static_cast<double>(from.size()) * 8e-9 / turn;
}

/// A read of a TAP that has nothing: what a system call for each frame costs at the least.
double empty_read_ns(double seconds)
{
    const Namespace space;
    const Inside inside(space);
    const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        throw std::runtime_error(std::string("/dev/net/tun: ") + std::strerror(errno));
    ifreq request{};
    std::strcpy(request.ifr_name, kTap);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(fd, TUNSETIFF, &request) != 0) {
        close(fd);
        throw std::runtime_error(std::string("a TAP: ") + std::strerror(errno));
    }
    std::array<std::byte, 64> room;
    const double turn = seconds_of(seconds, [&] {
        if (read(fd, room.data(), room.size()) >= 0)
            throw std::runtime_error("e2e: an empty TAP was read");
    });
    close(fd);
    return turn * 1e9;
}

void report_limits(const Options& options, Report& report)
{
    const Mapping hot(256 << 10), hot_too(256 << 10), cold(1 << 30);
    std::vector<double> to_hot, to_cold, call;
    for (unsigned i = 0; i < options.rounds; ++i) {
        to_hot.push_back(copy_gbps(hot, hot_too, options.seconds));
        to_cold.push_back(copy_gbps(hot, cold, kRun * options.seconds));
        call.push_back(empty_read_ns(options.seconds));
    }
    const auto add = [&](const char* name, const char* unit, const std::vector<double>& samples) {
        report.results.push_back({name, {{"limit", "machine"}}, summarize(samples), unit});
    };
    add("limit.copy_to_256k", "Gb/s", to_hot);
    add("limit.copy_to_1g", "Gb/s", to_cold);
    add("limit.empty_read", "ns", call);
    constexpr double kWireBits = 1538 * 8; // MTU, Ethernet, preamble and gap
    add("limit.cycles_per_packet_100g_1500", "TSC cycles",
        {static_cast<double>(rte_get_tsc_hz()) * kWireBits / 100e9});
}

} // namespace

void e2e(const Options& options, Report& report)
{
    report_limits(options, report);
    Bench bench(options);
    for (unsigned i = 0; i < options.rounds; ++i)
        bench.round();
    bench.report(report);
}

} // namespace bench
