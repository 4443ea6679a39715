// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/eal.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace {

using ncat::eal_arguments;
using ncat::Machine;
using ncat::Options;

constexpr std::uint64_t kMiB = 1 << 20;

bool has(const std::vector<std::string>& args, const std::string& arg)
{
    return std::find(args.begin(), args.end(), arg) != args.end();
}

TEST(Eal, TheUsersArgumentsReplaceAllOthers)
{
    Options options;
    options.eal = {"-l", "3"};
    EXPECT_EQ(eal_arguments(options, {.cpus = {0, 1}}, kMiB),
              (std::vector<std::string>{"devmem-ncat", "-l", "3"}));
}

TEST(Eal, HugepagesOnlyIfThereAreEnough)
{
    Options options;
    options.port = "tap:dm0";
    Machine machine{.cpus = {0, 1}, .hugepage_bytes = 512 * kMiB, .pid = 42};
    auto args = eal_arguments(options, machine, 512 * kMiB);
    EXPECT_FALSE(has(args, "--no-huge"));
    EXPECT_TRUE(has(args, "--in-memory"));
    EXPECT_TRUE(has(args, "--no-telemetry"));
    EXPECT_TRUE(has(args, "--no-pci"));
    EXPECT_TRUE(has(args, "--file-prefix=devmem-ncat-42"));
    args = eal_arguments(options, machine, 513 * kMiB);
    EXPECT_TRUE(has(args, "--no-huge"));
    EXPECT_FALSE(has(args, "--in-memory"));
    EXPECT_EQ(args.end()[-2], "-m");
    EXPECT_EQ(args.end()[-1], "513");
}

TEST(Eal, OneLcoreAQueueFromTheAffinityMask)
{
    Options options;
    const Machine machine{.cpus = {2, 3, 7, 200}};
    EXPECT_TRUE(has(eal_arguments(options, machine, 0), "--lcores=0@200"));
    options.queues = 3;
    EXPECT_TRUE(has(eal_arguments(options, machine, 0), "--lcores=0@3,1@7,2@200"));
    options.queues = 9;
    EXPECT_TRUE(has(eal_arguments(options, machine, 0), "--lcores=0@2,1@3,2@7,3@200"));
}

TEST(Eal, OnlyThePciDeviceNamedIsProbed)
{
    Options options;
    options.port = "0000:3b:00.1,dv_flow_en=1";
    const auto args = eal_arguments(options, {.cpus = {0}}, 0);
    EXPECT_TRUE(has(args, "--allow=0000:3b:00.1,dv_flow_en=1"));
    EXPECT_FALSE(has(args, "--no-pci"));
    for (const char* spec : {"3b:00.0", "0000:3b:00.0", "10000:3B:1f.7"})
        EXPECT_TRUE(ncat::is_pci_address(spec)) << spec;
    for (const char* spec :
         {"tap:dm0", "net_ring0", "net_tap0,mac=00:01:02:03:04:05", "3b:00", "0000:3b:00.0x"})
        EXPECT_FALSE(ncat::is_pci_address(spec)) << spec;
}

TEST(Eal, TheMachineHasACpu)
{
    EXPECT_FALSE(Machine::look().cpus.empty());
}

} // namespace
