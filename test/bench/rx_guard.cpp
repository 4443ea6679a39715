// SPDX-License-Identifier: BSD-3-Clause
// The receive path, the same work each time, for guard.sh to count: it runs under callgrind and has
// it dump what each scenario took, under the scenario's name.
#include "test/bench/receiver.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_version.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" {
/// The clock all but stands still: under valgrind there would be time for timers, more on one day
/// than on another.
std::uint64_t __wrap_rte_get_tsc_hz();
std::uint64_t __wrap_rte_get_tsc_hz()
{
    constexpr std::uint64_t kNoSuchClock = 1'000'000'000'000'000;
    return kNoSuchClock;
}
}

namespace {

using bench::Receiver;
using bench::ReceiverConfig;

constexpr unsigned kPackets = 1u << 14;
constexpr unsigned kMany = kPackets / 2; ///< connections, each of which acknowledges two segments

void start_eal()
{
    const std::string prefix = "--file-prefix=rx-guard-" + std::to_string(getpid());
    std::vector<std::string> args{"rx_guard",       "--no-huge",           "-m", "512", "--no-pci",
                                  "--no-telemetry", "--log-level=warning", "-l", "0",   prefix};
    std::vector<char*> argv;
    for (std::string& arg : args)
        argv.push_back(arg.data());
    if (rte_eal_init(static_cast<int>(argv.size()), argv.data()) < 0)
        throw std::runtime_error(std::string("EAL: ") + rte_strerror(rte_errno));
}

/// A receiver that has left what happens only at first behind it.
std::unique_ptr<Receiver> warm(const ReceiverConfig& config)
{
    auto receiver = std::make_unique<Receiver>(config);
    if (!receiver->receive(2 * kPackets))
        throw std::runtime_error("a packet was lost");
    return receiver;
}

const struct {
    const char* name;
    ReceiverConfig config;
} kScenarios[]{
    {"one", {.load = {}}},
    {"many", {.load = {.connections = kMany}}},
    {"small", {.load = {.payload = 64}}},
    {"reordered", {.load = {.late_percent = 1}}},
    {"late", {.load = {}, .late_packets = 4096}},
};

} // namespace

/// With an argument it only says what the figures depend on, beside the code.
int main(int argc, char**)
{
    std::printf("g++ %s, -O%s%s, %s\n", __VERSION__, GUARD_OPTIMIZATION,
                sizeof(GUARD_SANITIZE) > sizeof("none") ? ", sanitized" : "", rte_version());
    if (argc > 1)
        return 0;
    std::printf("%u packets\n", kPackets);
    std::fflush(stdout);
    try {
        start_eal();
        for (auto [name, config] : kScenarios) {
            config.region = "opaque:size=64M";
            const auto receiver = warm(config);
            CALLGRIND_ZERO_STATS;
            if (!receiver->receive(kPackets))
                throw std::runtime_error("a packet was lost");
            CALLGRIND_DUMP_STATS_AT(name);
        }
        rte_eal_cleanup();
        rmdir(rte_eal_get_runtime_dir());
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "rx_guard: %s\n", error.what());
        return 1;
    }
}
