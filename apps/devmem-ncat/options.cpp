// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/options.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>

namespace ncat {
namespace {

[[noreturn]] void refuse(const std::string& option, const std::string& why)
{
    throw CLI::ValidationError(option, why);
}

template <typename T>
T number(const std::string& option, const std::string& text, T least, T most)
{
    T value{};
    const char* end = text.data() + text.size();
    const auto [at, ec] = std::from_chars(text.data(), end, value);
    if (ec != std::errc{} || at != end || value < least || value > most)
        refuse(option, "\"" + text + "\" is not a number from " + std::to_string(least) + " to " +
                           std::to_string(most));
    return value;
}

devmem_addr address(const std::string& option, const std::string& text, const char* allowed)
{
    devmem_addr addr{};
    if (devmem_addr_parse(text.c_str(), &addr) < 0)
        refuse(option, "\"" + text + "\" is not " + allowed);
    return addr;
}

void check_together(const CLI::App& app, const Options& options)
{
    if (options.listen == !options.connect.empty())
        refuse("-l, -c", "give one of them: -l to listen, -c HOST to connect");
    if (options.tcp_port == 0)
        refuse("-p", "the TCP port is missing (1 to 65535)");
    if (options.addrs.empty())
        refuse("-s", "the local address is missing (ADDR or ADDR/LEN, IPv4 or IPv6)");
    if (options.port.empty())
        refuse("-f", "the port is missing (tap:NAME, a DPDK port name, a PCI address or a vdev)");
    for (const char* only : {"-k", "--connections"}) {
        if (!options.listen && app.count(only) != 0)
            refuse(only, "only with -l");
    }
    for (const char* only : {"--source", "--source-port"}) {
        if (options.listen && app.count(only) != 0)
            refuse(only, "only with -c");
    }
    const devmem_addr& source = options.source.addr;
    if (source.family != 0 &&
        std::none_of(options.addrs.begin(), options.addrs.end(), [&](const devmem_addr& addr) {
            return addr.family == source.family && std::ranges::equal(addr.bytes, source.bytes);
        }))
        refuse("--source", "none of the -s addresses");
    if (options.json && options.to_stdout())
        refuse("--json", "not with -o -, which also writes to stdout");
    for (const int family : {4, 6}) {
        if (std::count_if(options.gateways.begin(), options.gateways.end(),
                          [&](const devmem_addr& addr) { return addr.family == family; }) > 1)
            refuse("-g", "at most one gateway for IPv4 and one for IPv6");
    }
}

std::string names_of(const CLI::App& app)
{
    std::string names;
    for (const CLI::Option* option : app.get_options())
        names += " " + option->get_name();
    return names;
}

} // namespace

bool parse_bytes(std::string_view text, std::uint64_t* bytes)
{
    const char* end = text.data() + text.size();
    std::uint64_t value = 0;
    const auto [at, ec] = std::from_chars(text.data(), end, value);
    if (ec != std::errc{} || value == 0)
        return false;
    unsigned shift = 0;
    if (at != end) {
        const std::size_t unit = std::string_view("KMG").find(*at);
        if (unit == std::string_view::npos || at + 1 != end)
            return false;
        shift = 10 * (static_cast<unsigned>(unit) + 1);
    }
    if (value > UINT64_MAX >> shift)
        return false;
    *bytes = value << shift;
    return true;
}

std::optional<int> parse_options(int argc, const char* const* argv, Options* options,
                                 std::string* message)
{
    const char* const* end = argv + argc;
    const char* const* dashes = std::find(argv, end, std::string_view("--"));
    options->eal.assign(dashes == end ? end : dashes + 1, end);

    CLI::App app("Receive TCP into memory the CPU need not be able to read.\n"
                 "Arguments after -- go to EAL, in place of those chosen for it.",
                 "devmem-ncat");
    using Texts = std::vector<std::string>;
    const auto text = [&app](const char* name, const char* value, const char* help, auto set) {
        app.add_option_function<std::string>(name, set, help)->type_name(value)->take_last();
    };
    const auto texts = [&app](const char* name, const char* value, const char* help, auto set) {
        app.add_option_function<Texts>(
               name, [set](const Texts& all) { std::for_each(all.begin(), all.end(), set); }, help)
            ->type_name(value)
            ->allow_extra_args(false);
    };
    app.add_flag("-l", options->listen, "listen");
    text("-c", "HOST", "connect to HOST and receive",
         [&](const std::string& value) { options->connect = value; });
    texts("-s", "ADDR[/LEN]", "local address, IPv4 or IPv6; may repeat",
          [&](const std::string& value) {
              options->addrs.push_back(address("-s", value, "ADDR or ADDR/LEN, IPv4 or IPv6"));
          });
    texts("-g", "ADDR", "gateway; one for IPv4, one for IPv6", [&](const std::string& value) {
        options->gateways.push_back(address("-g", value, "an IPv4 or IPv6 address"));
    });
    text("--source", "ADDR", "which of the local addresses to connect from",
         [&](const std::string& value) {
             options->source.addr = address("--source", value, "an IPv4 or IPv6 address");
         });
    text("--source-port", "PORT", "TCP port to connect from", [&](const std::string& value) {
        options->source.port = number<std::uint16_t>("--source-port", value, 1, 65535);
    });
    text("--dscp", "N", "DSCP of the packets sent, 0 to 63", [&](const std::string& value) {
        options->dscp = number<std::uint8_t>("--dscp", value, 0, 63);
    });
    text("--ttl", "N", "TTL or hop limit of the packets sent, default 64",
         [&](const std::string& value) {
             options->ttl = number<std::uint8_t>("--ttl", value, 1, 255);
         });
    text("-p", "PORT", "TCP port", [&](const std::string& value) {
        options->tcp_port = number<std::uint16_t>("-p", value, 1, 65535);
    });
    text("-f", "SPEC",
         "port: tap:NAME, a DPDK port name, a PCI address or a vdev string; one that cannot split\n"
         "headers from payload is wrapped by net_hds",
         [&](const std::string& value) { options->port = value; });
    text("-q", "N", "queues, each with a shard and an lcore of its own",
         [&](const std::string& value) {
             options->queues = number<std::uint16_t>("-q", value, 1, 128);
         });
    text("--hds-thresh", "BYTES",
         "split only frames longer than this; payload of the others comes in host memory",
         [&](const std::string& value) {
             options->hds_thresh = number<std::uint16_t>("--hds-thresh", value, 0, 65535);
         });
    text("-v", "N", "validate the pattern 1, 2, ..., N-1, 0, repeated",
         [&](const std::string& value) {
             options->pattern = number<unsigned>("-v", value, 2, 256);
         });
    text("-m", "SPEC", "memory for payload, default opaque:size=256M",
         [&](const std::string& value) { options->memory = value; });
    text("-o", "FILE", "write the stream to FILE, - for stdout",
         [&](const std::string& value) { options->output = value; });
    app.add_flag_callback(
        "-k", [&] { options->connections = Options::kNoLimit; },
        "keep listening; without it -l ends with the first connection");
    text("--connections", "N", "end after N connections", [&](const std::string& value) {
        options->connections = number<std::uint64_t>("--connections", value, 1, UINT32_MAX);
    });
    app.add_flag("--hash", options->hash, "print the SHA-256 of each connection's bytes");
    const auto bytes = [&](const char* name, const char* value, const char* help,
                           std::uint64_t* to) {
        text(name, value, help, [name, to](const std::string& given) {
            if (!parse_bytes(given, to))
                refuse(name,
                       "\"" + given + "\" is not a number of bytes such as 500000, 64K or 10M");
        });
    };
    bytes("--rate", "BYTES/s", "return tokens no faster: a slow consumer", &options->rate);
    bytes("--hold", "BYTES",
          "keep so many bytes of each queue before the oldest are returned: a consumer that works\n"
          "on what came a while ago",
          &options->hold);
    bytes("--unbind-after", "BYTES",
          "after so many bytes of a queue, receive its payload into host memory",
          &options->unbind_after);
    text("--send", "FILE", "send FILE to each peer first, - for stdin",
         [&](const std::string& value) { options->send = value; });
    app.add_flag("--json", options->json, "print one JSON object on stdout at the end");

    try {
        app.parse(static_cast<int>(dashes - argv), argv);
        check_together(app, *options);
    } catch (const CLI::CallForHelp&) {
        *message = app.help();
        return 0;
    } catch (const CLI::ExtrasError& error) {
        *message = std::string(error.what()) + " (options:" + names_of(app) + ")\n";
        return 2;
    } catch (const CLI::ParseError& error) {
        *message = std::string(error.what()) + "\n";
        return 2;
    }
    return std::nullopt;
}

} // namespace ncat
