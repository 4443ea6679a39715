// SPDX-License-Identifier: BSD-3-Clause
// devmem-ncat: netcat that receives into device memory.
#include "apps/devmem-ncat/eal.h"
#include "apps/devmem-ncat/options.h"
#include "apps/devmem-ncat/receiver.h"
#include "apps/devmem-ncat/report.h"

#include <devmem/devmem.hpp>

#include <netdb.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <span>
#include <thread>

namespace ncat {
namespace {

constexpr int kFailed = 1;
constexpr int kBadArguments = 2;

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free); // set by a signal handler

int complain(int status, const std::string& text)
{
    std::fprintf(stderr, "devmem-ncat: %s\n", text.c_str());
    return status;
}

/// -EINVAL and -ENODEV blame the argument, the rest the machine.
int complain_about(const std::string& option, std::error_code error, const std::string& why)
{
    const bool argument =
        error == std::errc::invalid_argument || error == std::errc::no_such_device;
    return complain(argument ? kBadArguments : kFailed,
                    option + ": " + (why.empty() ? error.message() : why));
}

void catch_signals()
{
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted.store(true); };
    action.sa_flags = static_cast<int>(SA_RESETHAND); // the second Ctrl-C kills
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

/// Where -c leads: the first address of the host that a local address can speak to.
int resolve(const Options& options, devmem_endpoint* remote)
{
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* raw = nullptr;
    if (const int rc = getaddrinfo(options.connect.c_str(), nullptr, &hints, &raw); rc != 0)
        return complain(kBadArguments, "-c: " + options.connect + ": " + gai_strerror(rc));
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(raw, freeaddrinfo);
    remote->port = options.tcp_port;
    const std::span<const devmem_addr> locals =
        options.source.addr.family != 0 ? std::span(&options.source.addr, 1) : options.addrs;
    for (const addrinfo* at = raw; at; at = at->ai_next) {
        char host[NI_MAXHOST];
        if (getnameinfo(at->ai_addr, at->ai_addrlen, host, sizeof(host), nullptr, 0,
                        NI_NUMERICHOST) != 0 ||
            devmem_addr_parse(host, &remote->addr) < 0)
            continue;
        if (std::any_of(locals.begin(), locals.end(), [&](const devmem_addr& local) {
                return local.family == remote->addr.family;
            }))
            return 0;
    }
    return complain(kBadArguments,
                    "-c: " + options.connect + " is not of the family (IPv4, IPv6) of " +
                        (options.source.addr.family != 0 ? "--source" : "any -s address"));
}

int read_file(const std::string& name, std::vector<std::byte>* bytes)
{
    std::ifstream file;
    if (name != "-")
        file.open(name, std::ios::binary);
    std::istream& in = name == "-" ? std::cin : file;
    std::vector<char> text{std::istreambuf_iterator<char>(in), {}};
    if (!in)
        return complain(kBadArguments, "--send: " + name + ": " + std::strerror(errno));
    bytes->resize(text.size());
    std::memcpy(bytes->data(), text.data(), text.size());
    return 0;
}

int start_eal(std::vector<std::string> args)
{
    // EAL logs to stdout by default, where the stream and the JSON object go.
    rte_openlog_stream(stderr);
    std::vector<char*> argv;
    for (std::string& arg : args)
        argv.push_back(arg.data());
    const int argc = static_cast<int>(argv.size());
    argv.push_back(nullptr);
    const int parsed = rte_eal_init(argc, argv.data());
    if (parsed < 0)
        return complain(rte_errno == EINVAL ? kBadArguments : kFailed,
                        std::string("--: EAL: ") + rte_strerror(rte_errno));
    if (parsed + 1 < argc)
        return complain(kBadArguments, "--: EAL does not know \"" + args.back() + "\"");
    return 0;
}

/// Shows how it goes while it does.
class Progress {
public:
    Progress(const Job& job, const std::vector<std::unique_ptr<Receiver>>& receivers)
        : job_(job), receivers_(receivers), enabled_(isatty(STDERR_FILENO) != 0)
    {
    }
    ~Progress()
    {
        if (shown_)
            std::fprintf(stderr, "\r\033[K");
    }
    void tick()
    {
        constexpr auto kInterval = std::chrono::milliseconds(500);
        const auto now = Clock::now();
        if (!enabled_ || now - last_ < kInterval)
            return;
        std::uint64_t bytes = 0;
        for (const auto& receiver : receivers_)
            bytes += receiver->counters().bytes.load(std::memory_order_relaxed);
        const double seconds = std::chrono::duration<double>(now - last_).count();
        std::fprintf(stderr, "\r%.3f GB  %.2f Gb/s  %llu open\033[K",
                     static_cast<double>(bytes) / 1e9,
                     static_cast<double>(bytes - bytes_) * 8 / 1e9 / seconds,
                     static_cast<unsigned long long>(job_.connections - job_.closed));
        std::fflush(stderr);
        last_ = now;
        bytes_ = bytes;
        shown_ = true;
    }

private:
    const Job& job_;
    const std::vector<std::unique_ptr<Receiver>>& receivers_;
    const bool enabled_;
    bool shown_ = false;
    Clock::time_point last_ = Clock::now();
    std::uint64_t bytes_ = 0;
};

/// The receivers one lcore runs, and on the main lcore the progress line.
struct Lane {
    Job* job = nullptr;
    std::vector<Receiver*> receivers;
    Progress* progress = nullptr;

    /// Let others run while there is nothing to do, for a moment, and longer after a while, so that
    /// a listener nobody speaks to costs nothing. Sleeps rather than sched_yield(), which leaves
    /// the CPU to whoever computes on it for a whole time slice, whatever arrives meanwhile.
    ///
    /// A TAP is left alone at once: the kernel queues for it, and each look at its empty queue is a
    /// system call that gets in the sender's way. A NIC's descriptors may be gone by then.
    void rest(unsigned idle_rounds) const
    {
        constexpr unsigned kSleepAfter = 1024;
        const unsigned nap_after = job->options.port.starts_with("tap:") ? 0 : 64;
        if (idle_rounds > nap_after)
            std::this_thread::sleep_for(
                std::chrono::microseconds(idle_rounds > kSleepAfter ? 50 : 10));
    }

    void run()
    {
        unsigned idle_rounds = 0;
        for (unsigned round = 0; !job->stop.load(std::memory_order_relaxed); ++round) {
            bool busy = false;
            for (Receiver* receiver : receivers)
                busy |= receiver->poll();
            idle_rounds = busy ? 0 : idle_rounds + 1;
            rest(idle_rounds);
            if (interrupted.load(std::memory_order_relaxed))
                job->stop = true;
            if (progress && round % 256 == 0)
                progress->tick();
        }
        for (Receiver* receiver : receivers)
            receiver->finish();
    }
};

/// Spread the receivers over the lcores, run them to the end.
void run_lanes(Job& job, const std::vector<std::unique_ptr<Receiver>>& receivers)
{
    Progress progress(job, receivers);
    std::vector<Lane> lanes(std::min<std::size_t>(receivers.size(), rte_lcore_count()));
    for (std::size_t i = 0; i < receivers.size(); ++i)
        lanes[i % lanes.size()].receivers.push_back(receivers[i].get());
    unsigned lcore = rte_get_main_lcore();
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        lanes[i].job = &job;
        if (i == 0)
            continue;
        lcore = rte_get_next_lcore(i == 1 ? UINT32_MAX : lcore, 1, 0);
        rte_eal_remote_launch(
            [](void* lane) {
                static_cast<Lane*>(lane)->run();
                return 0;
            },
            &lanes[i], lcore);
    }
    lanes[0].progress = &progress;
    lanes[0].run();
    rte_eal_mp_wait_lcore();
}

void announce(const Options& options, const devmem::Port& port, const devmem_region_info& region)
{
    std::string text = options.listen ? "listening on"
                                      : "connecting to " + options.connect + " port " +
                                            std::to_string(options.tcp_port) + " from";
    for (const devmem_addr& addr : options.addrs)
        text += " " + devmem::to_string(addr);
    if (options.listen)
        text += " port " + std::to_string(options.tcp_port);
    text += ", " + std::string(port->name) + " (" + port->driver + ")";
    text += port->wrapped ? ", which cannot split and is wrapped by net_hds"
            : port->split == DEVMEM_SPLIT_HARDWARE ? ", split in hardware"
                                                   : ", split in software";
    complain(0, text + ", into " + region.spec);
}

void sum_up(const Job& job, const std::vector<std::unique_ptr<Receiver>>& receivers, Report& report)
{
    std::int64_t first = INT64_MAX, last = 0;
    std::int64_t first_cpu = INT64_MAX, last_cpu = 0;
    for (const auto& receiver : receivers) {
        const Counters& counters = receiver->counters();
        report.bytes += counters.bytes;
        report.tokens += counters.tokens;
        report.device_bytes += counters.device_bytes;
        report.host_bytes += counters.host_bytes;
        if (counters.first_ns != 0) {
            first = std::min<std::int64_t>(first, counters.first_ns);
            last = std::max<std::int64_t>(last, counters.last_ns);
            first_cpu = std::min<std::int64_t>(first_cpu, counters.first_cpu_ns);
            last_cpu = std::max<std::int64_t>(last_cpu, counters.last_cpu_ns);
        }
        add_stats(report.stats, receiver->stats());
    }
    report.seconds = last > first ? static_cast<double>(last - first) / 1e9 : 0;
    report.cpu_seconds = last_cpu > first_cpu ? static_cast<double>(last_cpu - first_cpu) / 1e9 : 0;
    report.connections = job.connections;
    report.hashes = job.hashes;
}

/// All that needs EAL.
int receive(const Options& options, const devmem_endpoint& remote, Job& job,
            const devmem::Region& region)
{
    std::string why;
    auto port = devmem::Port::open({.size = 0,
                                    .spec = options.port.c_str(),
                                    .queues = options.queues,
                                    .hds_thresh = options.hds_thresh},
                                   &why);
    if (!port)
        return complain_about("-f " + options.port, port.error(), why);

    devmem_stack_config config{};
    config.port_id = (*port)->port_id;
    config.shards = options.queues;
    config.region = region.get();
    config.addrs = options.addrs.data();
    config.naddrs = static_cast<unsigned>(options.addrs.size());
    config.gateways = options.gateways.data();
    config.ngateways = static_cast<unsigned>(options.gateways.size());
    config.dscp = options.dscp;
    config.ttl = options.ttl;
    auto stack = devmem::Stack::create(config, &why);
    if (!stack)
        return complain_about("-f " + options.port, stack.error(), why);

    std::vector<std::unique_ptr<Receiver>> receivers;
    for (unsigned i = 0; i < options.queues; ++i)
        receivers.push_back(std::make_unique<Receiver>(stack->shard(i), job));
    announce(options, *port, region.info());
    if (options.listen) {
        for (const auto& receiver : receivers) {
            if (const auto error = receiver->listen())
                return complain_about("-p " + std::to_string(options.tcp_port), error, "");
        }
    } else if (const auto error = receivers[0]->connect(remote)) {
        return complain_about("-c " + options.connect, error, "");
    }
    run_lanes(job, receivers);

    if (const int rc = job.output.close(); rc < 0) {
        complain(kFailed, "-o " + options.output + ": " + std::strerror(-rc));
        job.failed = true;
    }
    Report report;
    report.region = region.info();
    report.fit = stack->fit();
    report.port = **port;
    sum_up(job, receivers, report);
    if (options.json)
        std::printf("%s\n", report.json().c_str());
    else
        complain(0, report.text());
    return job.failed ? kFailed : 0;
}

int run(const Options& options)
{
    Job job(options);
    devmem_endpoint remote{};
    if (!options.listen) {
        if (const int rc = resolve(options, &remote); rc != 0)
            return rc;
    }
    if (!options.send.empty()) {
        if (const int rc = read_file(options.send, &job.to_send); rc != 0)
            return rc;
    }
    // Before EAL, so that what the region leaves of the hugepages decides whether EAL can have
    // some.
    std::string why;
    auto region = devmem::Region::create(options.memory.c_str(), &why);
    if (!region)
        return complain_about("-m", region.error(), why);
    if (options.hold > region->info().bytes / 2 / options.queues)
        return complain(kBadArguments, "--hold: a connection is given half of its queue's memory: "
                                       "-m of more than " +
                                           std::to_string(2 * options.queues * options.hold) +
                                           " bytes is needed");
    if (!options.output.empty()) {
        if (const int rc = job.output.open(options.output); rc < 0)
            return complain(kBadArguments, "-o " + options.output + ": " + std::strerror(-rc));
    }
    const std::uint64_t needed = host_bytes_needed(options, region->info());
    if (const int rc = start_eal(eal_arguments(options, Machine::look(), needed)); rc != 0)
        return rc;
    catch_signals();
    const int status = receive(options, remote, job, *region);
    rte_eal_cleanup();
    rmdir(rte_eal_get_runtime_dir()); // EAL leaves it, empty, one for each file prefix
    return status;
}

} // namespace
} // namespace ncat

int main(int argc, char** argv)
{
    ncat::Options options;
    std::string message;
    if (const auto status = ncat::parse_options(argc, argv, &options, &message)) {
        if (*status == 0)
            std::fputs(message.c_str(), stdout);
        else
            std::fprintf(stderr, "devmem-ncat: %s", message.c_str());
        return *status;
    }
    return ncat::run(options);
}
