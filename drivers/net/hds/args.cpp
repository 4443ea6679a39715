// SPDX-License-Identifier: BSD-3-Clause
#include "drivers/net/hds/end.h"

#include <cerrno>
#include <charconv>
#include <net/if.h>
#include <string_view>

namespace devmem::hds {
namespace {

constexpr const char* kKeys =
    "valid: iface=NAME, lower=PORT, queues=N, hds_thresh=N, mac=XX:XX:XX:XX:XX:XX";
constexpr std::uint16_t kMaxQueues = 256; // MAX_TAP_QUEUES of the kernel

} // namespace

int parse_args(const char* text, Args* args, std::string& error)
{
    for (std::string_view rest = text; !rest.empty();) {
        const std::string_view pair = rest.substr(0, rest.find(','));
        rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
        const std::size_t equals = pair.find('=');
        const std::string_view key = pair.substr(0, equals);
        const std::string value(equals == pair.npos ? "" : pair.substr(equals + 1));
        const auto fail = [&](const char* why) {
            error = "argument '" + std::string(pair) + "': " + why;
            return -EINVAL;
        };
        if (key == "iface") {
            if (value.empty() || value.size() >= IFNAMSIZ ||
                value.find_first_of("/: ") != value.npos)
                return fail(
                    "an interface name has 1 to 15 characters, none of them '/', ':' or ' '");
            args->iface = value;
        } else if (key == "lower") {
            if (value.empty())
                return fail("name a DPDK port");
            args->lower = value;
        } else if (key == "queues") {
            const char* end = value.data() + value.size();
            const auto [at, ec] = std::from_chars(value.data(), end, args->queues);
            if (ec != std::errc{} || at != end || args->queues == 0 || args->queues > kMaxQueues)
                return fail("a number from 1 to 256");
        } else if (key == "hds_thresh") {
            const char* end = value.data() + value.size();
            const auto [at, ec] = std::from_chars(value.data(), end, args->hds_thresh);
            if (ec != std::errc{} || at != end)
                return fail("a number of bytes from 0 to 65535");
        } else if (key == "mac") {
            if (rte_ether_unformat_addr(value.c_str(), &args->mac) != 0 ||
                !rte_is_valid_assigned_ether_addr(&args->mac))
                return fail("a unicast MAC address, not all zero");
            args->has_mac = true;
        } else {
            return fail(kKeys);
        }
    }
    if (args->iface.empty() == args->lower.empty()) {
        error = std::string(args->iface.empty() ? "neither" : "both") +
                " of iface= and lower= given: exactly one is needed; " + kKeys;
        return -EINVAL;
    }
    return 0;
}

} // namespace devmem::hds
