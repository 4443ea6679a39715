// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/report.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstring>

namespace {

ncat::Report example()
{
    ncat::Report report;
    report.bytes = 2'000'000'000;
    report.seconds = 2;
    report.cpu_seconds = 1.5;
    report.connections = 1;
    report.tokens = 1000;
    report.device_bytes = 1'999'999'000;
    report.host_bytes = 1000;
    report.stats.rx_payload_bytes = 2'000'000'000;
    report.stats.rx_fragments = 2'000'000;
    report.stats.rx_ooo_segments = 5;
    report.stats.rx_ce_segments = 7;
    report.stats.drop_paws = 3;
    report.hashes = {"aa", "bb"};
    report.region = {.spec = "opaque:size=1G",
                     .provider = "opaque",
                     .bytes = 1 << 30,
                     .populated = 1 << 30,
                     .page_bytes = 65536,
                     .numa_node = 0,
                     .readable = false,
                     .address = 0,
                     .dmabuf_fd = -1,
                     .flags = DEVMEM_REGION_UNREADABLE};
    report.fit.fragment_bytes = 1448;
    std::strcpy(report.port.name, "tap:dm0");
    std::strcpy(report.port.driver, "net_hds");
    report.port.split = DEVMEM_SPLIT_SOFTWARE;
    return report;
}

TEST(Report, JsonHasEveryField)
{
    const std::string text = example().json();
    EXPECT_EQ(text.find('\n'), std::string::npos);
    const auto json = nlohmann::json::parse(text);
    EXPECT_EQ(json["bytes"], 2'000'000'000u);
    EXPECT_EQ(json["seconds"], 2.0);
    EXPECT_EQ(json["gbps"], 8.0);
    EXPECT_EQ(json["cpu_seconds"], 1.5);
    EXPECT_EQ(json["connections"], 1);
    EXPECT_EQ(json["tokens"], 1000);
    EXPECT_EQ(json["mean_token_bytes"], 2'000'000.0);
    EXPECT_EQ(json["device_bytes"], 1'999'999'000u);
    EXPECT_EQ(json["host_bytes"], 1000);
    EXPECT_NEAR(json["fill"].get<double>(), 1000.0 / 1448, 1e-9);
    EXPECT_EQ(json["ooo_segments"], 5);
    EXPECT_EQ(json["ce_segments"], 7);
    EXPECT_EQ(json["sha256"], (nlohmann::json{"aa", "bb"}));
    EXPECT_EQ(json["region"], (nlohmann::json{{"spec", "opaque:size=1G"},
                                              {"readable", false},
                                              {"page_bytes", 65536},
                                              {"fragment_bytes", 1448}}));
    EXPECT_EQ(json["port"],
              (nlohmann::json{{"name", "tap:dm0"}, {"driver", "net_hds"}, {"split", "software"}}));
    EXPECT_EQ(json["drops"]["paws"], 3);
    EXPECT_EQ(json["drops"]["tcp_checksum"], 0);
    EXPECT_EQ(json["drops"].count("rx_packets"), 0u);
    EXPECT_EQ(json.size(), 16u);
}

TEST(Report, NothingReceivedIsNoDivisionByZero)
{
    ncat::Report report = example();
    report.bytes = report.tokens = 0;
    report.seconds = 0;
    report.stats = {};
    const auto json = nlohmann::json::parse(report.json());
    EXPECT_EQ(json["gbps"], 0.0);
    EXPECT_EQ(json["mean_token_bytes"], 0);
    EXPECT_EQ(json["fill"], 0.0);
}

TEST(Report, TheTextNamesOnlyDropsThatHappened)
{
    const std::string text = example().text();
    EXPECT_NE(text.find("drops: paws 3"), std::string::npos) << text;
    EXPECT_EQ(text.find("tcp_checksum"), std::string::npos) << text;
}

TEST(Report, SumsEveryCounter)
{
    devmem_shard_stats one{}, sum{};
    // Every field is a u64: number them.
    auto* fields = reinterpret_cast<std::uint64_t*>(&one);
    for (std::size_t i = 0; i < sizeof(one) / sizeof(*fields); ++i)
        fields[i] = i + 1;
    ncat::add_stats(sum, one);
    ncat::add_stats(sum, one);
    const auto* sums = reinterpret_cast<const std::uint64_t*>(&sum);
    for (std::size_t i = 0; i < sizeof(sum) / sizeof(*sums); ++i)
        EXPECT_EQ(sums[i], 2 * (i + 1));
}

} // namespace
