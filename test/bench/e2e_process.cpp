// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/e2e_process.h"

#include <fcntl.h>
#include <rte_lcore.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

/// A run takes seconds. One that takes this long does not end.
constexpr auto kPatience = std::chrono::seconds(60);
/// What watching costs is not to be seen in what is watched.
constexpr auto kTick = std::chrono::milliseconds(5);

int memory_file()
{
    const int fd = memfd_create("devmem-bench", MFD_CLOEXEC);
    if (fd < 0)
        throw std::runtime_error(std::string("memfd_create: ") + std::strerror(errno));
    return fd;
}

std::string content(int fd)
{
    std::string text(static_cast<std::size_t>(lseek(fd, 0, SEEK_END)), '\0');
    const ssize_t n = pread(fd, text.data(), text.size(), 0);
    text.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return text;
}

} // namespace

std::vector<unsigned> bench_cpus()
{
    std::vector<unsigned> cpus;
    unsigned lcore;
    RTE_LCORE_FOREACH(lcore)
    {
        const rte_cpuset_t set = rte_lcore_cpuset(lcore);
        for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &set))
                cpus.push_back(cpu);
        }
    }
    return cpus;
}

OnCpus::OnCpus(const std::vector<unsigned>& cpus)
{
    sched_getaffinity(0, sizeof(before_), &before_);
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const unsigned cpu : cpus)
        CPU_SET(cpu, &set);
    if (!cpus.empty() && sched_setaffinity(0, sizeof(set), &set) != 0)
        throw std::runtime_error(std::string("sched_setaffinity: ") + std::strerror(errno));
}

OnCpus::~OnCpus()
{
    sched_setaffinity(0, sizeof(before_), &before_);
}

std::string built(const std::string& path)
{
    // test/bench/devmem-bench
    const std::filesystem::path program =
        std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path().parent_path() /
        path;
    if (!std::filesystem::exists(program))
        throw std::runtime_error(program.string() + " is not built");
    return program;
}

Process::Process(std::vector<std::string> command, const std::vector<unsigned>& cpus)
    : name_(command[0]), out_(memory_file()), err_(memory_file())
{
    std::vector<char*> argv;
    for (std::string& word : command)
        argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out_, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, err_, STDERR_FILENO);
    const OnCpus bound(cpus);
    const int rc = posix_spawnp(&pid_, argv[0], &files, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    if (rc != 0)
        throw std::runtime_error(name_ + ": " + std::strerror(rc));
}

Process::~Process()
{
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    close(out_);
    close(err_);
}

void Process::fail(const std::string& why)
{
    std::string text = content(err_);
    text.resize(std::min(text.find('\n'), text.size()));
    throw std::runtime_error(name_ + " " + why + (text.empty() ? "" : ": " + text));
}

bool Process::poll()
{
    if (pid_ > 0 && waitpid(pid_, &status_, WNOHANG) == pid_)
        pid_ = -1;
    return pid_ < 0;
}

void Process::wait_for(const std::string& text)
{
    const auto deadline = Clock::now() + kPatience;
    while (content(err_).find(text) == std::string::npos) {
        if (poll() || Clock::now() > deadline)
            fail("did not begin");
        std::this_thread::sleep_for(kTick);
    }
}

std::string Process::wait()
{
    const auto deadline = Clock::now() + kPatience;
    while (!poll()) {
        if (Clock::now() > deadline)
            fail("does not end");
        std::this_thread::sleep_for(kTick);
    }
    if (!WIFEXITED(status_) || WEXITSTATUS(status_) != 0)
        fail("failed");
    return content(out_);
}

} // namespace bench
