// SPDX-License-Identifier: BSD-3-Clause
// One EAL for the whole test program, without hugepages, devices or files; and what it logs.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <sched.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <rte_eal.h>
#include <rte_log.h>

namespace devmem::test {

class Eal : public testing::Environment {
public:
    void SetUp() override
    {
        std::string prefix = "--file-prefix=page_pool_test_" + std::to_string(getpid());
        std::string lcores = "--lcores=0@" + std::to_string(sched_getcpu());
        std::string args[] = {"page_pool_test", "--no-huge",   "-m",   "256", "--no-pci",
                              "--no-telemetry", "--no-shconf", prefix, lcores};
        char* argv[std::size(args)];
        for (std::size_t i = 0; i < std::size(args); ++i)
            argv[i] = args[i].data();
        // EAL binds this thread, and with it all that it begins, to one CPU: threads of a test
        // would then never run at the same time.
        cpu_set_t cpus;
        ASSERT_EQ(0, sched_getaffinity(0, sizeof(cpus), &cpus));
        ASSERT_GE(rte_eal_init(static_cast<int>(std::size(args)), argv), 0);
        ASSERT_EQ(0, sched_setaffinity(0, sizeof(cpus), &cpus));
    }
    void TearDown() override
    {
        const std::string directory = rte_eal_get_runtime_dir();
        rte_eal_cleanup();
        std::filesystem::remove_all(directory);
    }
};

/// What DPDK logs while this lives.
class CapturedLog {
public:
    CapturedLog() : stream_(open_memstream(&text_, &size_)) { rte_openlog_stream(stream_); }
    ~CapturedLog()
    {
        rte_openlog_stream(nullptr);
        std::fclose(stream_);
        std::free(text_);
    }
    CapturedLog(const CapturedLog&) = delete;
    CapturedLog& operator=(const CapturedLog&) = delete;

    std::string text()
    {
        std::fflush(stream_);
        return {text_, size_};
    }

private:
    char* text_ = nullptr;
    std::size_t size_ = 0;
    std::FILE* stream_;
};

} // namespace devmem::test
