// SPDX-License-Identifier: BSD-3-Clause
// Programs that are measured.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <string>
#include <vector>

namespace bench {

/// The CPUs of the lcores: what the bench was given. EAL has bound this thread to one of them.
std::vector<unsigned> bench_cpus();

/// The calling thread is on these CPUs while this lives; and what it starts, ever.
class OnCpus {
public:
    explicit OnCpus(const std::vector<unsigned>& cpus);
    ~OnCpus();
    OnCpus(const OnCpus&) = delete;
    OnCpus& operator=(const OnCpus&) = delete;

private:
    cpu_set_t before_;
};

/// A program of the build, PATH below the build's root, by way of where this one lies.
/// Throws std::runtime_error if it is not there.
std::string built(const std::string& path);

/// A child in the namespace of the thread that starts it. Killed if it has not ended.
class Process {
public:
    /// @param cpus none: those of the calling thread
    /// Throws std::runtime_error.
    Process(std::vector<std::string> command, const std::vector<unsigned>& cpus);
    ~Process();
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    /// Until it has written that on stderr.
    void wait_for(const std::string& text);
    /// To its end. Throws std::runtime_error, with what is on stderr, unless its status is 0.
    /// @return its stdout
    std::string wait();

private:
    /// @return whether it has ended
    bool poll();
    [[noreturn]] void fail(const std::string& why);

    std::string name_;
    pid_t pid_ = -1;
    int status_ = 0;
    int out_, err_; ///< memory files
};

} // namespace bench
