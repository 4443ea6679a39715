// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/options.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

namespace {

using ncat::Options;

struct Parsed {
    std::optional<int> status;
    Options options;
    std::string message;
};

Parsed parse(std::initializer_list<const char*> args)
{
    std::vector<const char*> argv{"devmem-ncat"};
    argv.insert(argv.end(), args);
    Parsed parsed;
    parsed.status = ncat::parse_options(static_cast<int>(argv.size()), argv.data(), &parsed.options,
                                        &parsed.message);
    return parsed;
}

TEST(Options, ReadsEveryOption)
{
    const Parsed parsed = parse({"-l",
                                 "-s",
                                 "10.0.0.2/24",
                                 "-s",
                                 "fd00::2/64",
                                 "-g",
                                 "10.0.0.1",
                                 "-g",
                                 "fd00::1",
                                 "-p",
                                 "5001",
                                 "-f",
                                 "net_af_packet0,iface=eth1",
                                 "-q",
                                 "4",
                                 "-v",
                                 "7",
                                 "-m",
                                 "host:size=1G,page=2M",
                                 "-o",
                                 "-",
                                 "--connections",
                                 "12",
                                 "--hash",
                                 "--rate",
                                 "10M",
                                 "--hold",
                                 "64M",
                                 "--unbind-after",
                                 "3K",
                                 "--hds-thresh",
                                 "256",
                                 "--dscp",
                                 "46",
                                 "--ttl",
                                 "5",
                                 "--send",
                                 "request",
                                 "--",
                                 "-l",
                                 "0",
                                 "--no-huge"});
    ASSERT_FALSE(parsed.status) << parsed.message;
    const Options& options = parsed.options;
    EXPECT_TRUE(options.listen);
    EXPECT_EQ(options.hold, 64u << 20);
    EXPECT_EQ(options.unbind_after, 3072u);
    EXPECT_EQ(options.hds_thresh, 256u);
    EXPECT_EQ(options.dscp, 46);
    EXPECT_EQ(options.ttl, 5);
    ASSERT_EQ(options.addrs.size(), 2u);
    EXPECT_EQ(options.addrs[0].prefix_len, 24);
    EXPECT_EQ(options.addrs[1].family, 6);
    ASSERT_EQ(options.gateways.size(), 2u);
    EXPECT_EQ(options.tcp_port, 5001);
    EXPECT_EQ(options.port, "net_af_packet0,iface=eth1");
    EXPECT_EQ(options.queues, 4);
    EXPECT_EQ(options.pattern, 7u);
    EXPECT_EQ(options.memory, "host:size=1G,page=2M");
    EXPECT_TRUE(options.to_stdout());
    EXPECT_EQ(options.connections, 12u);
    EXPECT_TRUE(options.hash);
    EXPECT_EQ(options.rate, 10u << 20);
    EXPECT_EQ(options.send, "request");
    EXPECT_FALSE(options.json);
    EXPECT_EQ(options.eal, (std::vector<std::string>{"-l", "0", "--no-huge"}));
}

TEST(Options, Defaults)
{
    const Parsed parsed =
        parse({"-c", "peer", "-s", "10.0.0.2", "-p", "1", "-f", "tap:dm0", "--json"});
    ASSERT_FALSE(parsed.status) << parsed.message;
    EXPECT_FALSE(parsed.options.listen);
    EXPECT_EQ(parsed.options.connect, "peer");
    EXPECT_EQ(parsed.options.memory, "opaque:size=256M");
    EXPECT_EQ(parsed.options.queues, 1);
    EXPECT_EQ(parsed.options.connections, 1u);
    EXPECT_EQ(parsed.options.rate, 0u);
    EXPECT_EQ(parsed.options.dscp, 0);
    EXPECT_EQ(parsed.options.ttl, 0);
    EXPECT_EQ(parsed.options.source.addr.family, 0);
    EXPECT_EQ(parsed.options.source.port, 0);
    EXPECT_TRUE(parsed.options.json);
    EXPECT_TRUE(parsed.options.eal.empty());
}

TEST(Options, Source)
{
    const Parsed parsed = parse({"-c", "peer", "-s", "fd00::2/64", "-s", "fd00::3/64", "--source",
                                 "fd00::3", "--source-port", "20", "-p", "1", "-f", "tap:dm0"});
    ASSERT_FALSE(parsed.status) << parsed.message;
    EXPECT_EQ(parsed.options.source.addr.bytes[15], 3);
    EXPECT_EQ(parsed.options.source.port, 20);
}

TEST(Options, TheLastOfTwoCounts)
{
    const Parsed parsed =
        parse({"-l", "-s", "10.0.0.2", "-p", "1", "-f", "tap:a", "-p", "2", "-f", "tap:b"});
    ASSERT_FALSE(parsed.status) << parsed.message;
    EXPECT_EQ(parsed.options.tcp_port, 2);
    EXPECT_EQ(parsed.options.port, "tap:b");
}

TEST(Options, WhenToEnd)
{
    EXPECT_EQ(parse({"-l", "-k", "-s", "10.0.0.2", "-p", "1", "-f", "tap:a"}).options.connections,
              Options::kNoLimit);
    for (const auto& args :
         {std::initializer_list<const char*>{"-k", "--connections", "3", "-l", "-s", "10.0.0.2",
                                             "-p", "1", "-f", "tap:a"},
          {"--connections", "3", "-k", "-l", "-s", "10.0.0.2", "-p", "1", "-f", "tap:a"}})
        EXPECT_EQ(parse(args).options.connections, 3u);
}

/// Each refusal is one line that names the argument and says what is allowed.
TEST(Options, RefusesInOneLineThatNamesTheArgument)
{
    struct {
        std::initializer_list<const char*> args;
        const char* named;
        const char* allowed;
    } const kWrong[] = {
        {{}, "-l, -c", "give one"},
        {{"-l", "-c", "host"}, "-l, -c", "give one"},
        {{"-l"}, "-p", "1 to 65535"},
        {{"-l", "-p", "1"}, "-s", "ADDR"},
        {{"-l", "-p", "1", "-s", "10.0.0.1"}, "-f", "tap:NAME"},
        {{"-l", "-p", "0"}, "-p", "from 1 to 65535"},
        {{"-l", "-p", "65536"}, "-p", "from 1 to 65535"},
        {{"-l", "-p", "http"}, "-p", "from 1 to 65535"},
        {{"-l", "-p"}, "-p", "PORT"},
        {{"-l", "-s", "10.0.0.256"}, "-s", "IPv4 or IPv6"},
        {{"-l", "-s", "10.0.0.1/33"}, "-s", "ADDR/LEN"},
        {{"-l", "-g", "router"}, "-g", "IPv4 or IPv6"},
        {{"-l", "-q", "0"}, "-q", "from 1 to"},
        {{"-l", "-q", "-3"}, "-q", "from 1 to"},
        {{"-l", "-v", "1"}, "-v", "from 2 to 256"},
        {{"-l", "-v", "257"}, "-v", "from 2 to 256"},
        {{"-l", "--rate", "fast"}, "--rate", "64K"},
        {{"-l", "--rate", "0"}, "--rate", "64K"},
        {{"-l", "--hold", "0"}, "--hold", "64K"},
        {{"-l", "--unbind-after", "soon"}, "--unbind-after", "64K"},
        {{"-l", "--hds-thresh", "-1"}, "--hds-thresh", "from 0 to 65535"},
        {{"-l", "--hds-thresh", "65536"}, "--hds-thresh", "from 0 to 65535"},
        {{"-l", "--connections", "0"}, "--connections", "from 1 to"},
        {{"-l", "--dscp", "64"}, "--dscp", "from 0 to 63"},
        {{"-l", "--ttl", "0"}, "--ttl", "from 1 to 255"},
        {{"-l", "--ttl", "256"}, "--ttl", "from 1 to 255"},
        {{"-c", "h", "--source", "here"}, "--source", "IPv4 or IPv6"},
        {{"-c", "h", "-p", "1", "-s", "10.0.0.1", "-f", "tap:a", "--source", "10.0.0.2"},
         "--source",
         "-s"},
        {{"-l", "-p", "1", "-s", "10.0.0.1", "-f", "tap:a", "--source-port", "2"},
         "--source-port",
         "only with -c"},
        {{"-l", "--frobnicate"}, "--frobnicate", "--hash"},
        {{"-l", "-x", "3"}, "-x", "--hash"},
        {{"-l", "stray"}, "stray", "--hash"},
        {{"-l", "-s", "10.0.0.1", "10.0.0.2"}, "10.0.0.2", "--hash"},
        {{"-k", "-c", "h", "-p", "1", "-s", "10.0.0.1", "-f", "tap:a"}, "-k", "only with -l"},
        {{"--connections", "2", "-c", "h", "-p", "1", "-s", "10.0.0.1", "-f", "tap:a"},
         "--connections",
         "only with -l"},
        {{"-l", "-p", "1", "-s", "10.0.0.1", "-f", "tap:a", "--json", "-o", "-"}, "--json", "-o -"},
        {{"-l", "-p", "1", "-s", "10.0.0.1", "-f", "tap:a", "-g", "10.0.0.3", "-g", "10.0.0.4"},
         "-g",
         "one"},
    };
    for (const auto& wrong : kWrong) {
        const Parsed parsed = parse(wrong.args);
        EXPECT_EQ(parsed.status, 2) << parsed.message;
        EXPECT_NE(parsed.message.find(wrong.named), std::string::npos) << parsed.message;
        EXPECT_NE(parsed.message.find(wrong.allowed), std::string::npos) << parsed.message;
        EXPECT_EQ(std::count(parsed.message.begin(), parsed.message.end(), '\n'), 1)
            << parsed.message;
    }
}

TEST(Options, HelpNamesEveryOption)
{
    const Parsed parsed = parse({"--help"});
    EXPECT_EQ(parsed.status, 0);
    std::istringstream names("-l -c -s -g --source --source-port --dscp --ttl -p -f -q -v -m -o -k "
                             "--connections --hash --rate --hold --unbind-after --hds-thresh "
                             "--send --json");
    for (std::string name; names >> name;)
        EXPECT_NE(parsed.message.find("  " + name), std::string::npos) << name;
}

} // namespace
