// SPDX-License-Identifier: BSD-3-Clause
// conformance [--peer=engine|kernel|PLUGIN.so] [--jobs=N] SCRIPT.pkt...
// Plays each script and prints PASS, FAIL or SKIP with its name: status 0, 1, or 77 if all was
// skipped.
#include "test/conformance/engine_peer.h"
#include "test/conformance/kernel_peer.h"
#include "test/conformance/player.h"
#include "test/conformance/plugin_peer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sched.h>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace devmem::conformance;

struct Verdict {
    std::string word; ///< empty: say nothing
    std::string why;
};

Endpoints endpoints(unsigned family)
{
    // RFC 5737 and RFC 3849: for documentation.
    const Address local4{192, 0, 2, 1}, remote4{192, 0, 2, 2};
    Address local6{0x20, 0x01, 0x0d, 0xb8}, remote6 = local6;
    local6[15] = 1;
    remote6[15] = 2;
    return family == 4 ? Endpoints{4, local4, remote4, 8080, 40000}
                       : Endpoints{6, local6, remote6, 8080, 40000};
}

std::vector<unsigned> families(const Script& script)
{
    return script.family == 0 ? std::vector{4u, 6u} : std::vector{script.family};
}

/// Where streams begin: nowhere special, and so that 32 and 31 bits end within a script.
constexpr struct {
    std::uint32_t remote, local;
} kIsns[] = {
    {0, 0x12345678},
    {0xfffffc00, 0xfffffc00},
    {0x7ffffc00, 0x7ffffc00},
};

/// The engine, at each of these and with both versions of IP.
Verdict play_engine(const Script& script)
{
    for (const unsigned family : families(script)) {
        for (const auto& isn : kIsns) {
            const Endpoints ends = endpoints(family);
            EnginePeer peer(ends, isn.local);
            if (const auto failure = play(script, peer, ends, isn.remote)) {
                char where[64];
                std::snprintf(where, sizeof where, " (IPv%u, streams from %#x and %#x)", family,
                              isn.remote, isn.local);
                return {"FAIL", failure->text + where};
            }
        }
    }
    return {"PASS", {}};
}

/// As play_engine(), through the table of a plugin: where our own streams begin is its business.
Verdict play_plugin(const Script& script, const std::string& plugin)
{
    for (const unsigned family : families(script)) {
        for (const auto& isn : kIsns) {
            const Endpoints ends = endpoints(family);
            PluginPeer peer(ends, plugin);
            if (const auto failure = play(script, peer, ends, isn.remote)) {
                char where[64];
                std::snprintf(where, sizeof where, " (IPv%u, peer's stream from %#x)", family,
                              isn.remote);
                return {"FAIL", failure->text + where};
            }
        }
    }
    return {"PASS", {}};
}

/// The kernel, once; what the script says it does otherwise it must do otherwise.
Verdict play_kernel_once(const Script& script, unsigned family)
{
    if (unshare(CLONE_NEWNET) != 0)
        return {"SKIP", std::string("no network namespace: ") + std::strerror(errno)};
    std::string error;
    const Endpoints ends = endpoints(family);
    const auto peer = KernelPeer::make(ends, &error);
    if (!peer)
        return {"SKIP", error};
    const auto failure = play(script, *peer, ends, 0);
    if (failure && !(failure->event && !failure->event->linux_differs.empty()))
        return {"FAIL", failure->text};
    const auto differs =
        std::find_if(script.events.begin(), script.events.end(),
                     [](const Event& event) { return !event.linux_differs.empty(); });
    if (!failure && differs != script.events.end())
        return {"FAIL", script.path + ":" + std::to_string(differs->line) +
                            ": Linux is said to differ here and does not"};
    return {"PASS", {}};
}

/// In real time, so that a busy machine can spoil a play: what fails gets two more.
Verdict play_kernel(const Script& script)
{
    if (!script.linux_not_played.empty())
        return {};
    Verdict verdict;
    for (const unsigned family : families(script)) {
        for (int i = 0; i < 3; i++) {
            verdict = play_kernel_once(script, family);
            if (verdict.word != "FAIL")
                break;
        }
        if (verdict.word != "PASS")
            break;
    }
    return verdict;
}

std::string name_of(const std::string& path)
{
    const std::size_t folder = path.rfind('/', path.rfind('/') - 1);
    return folder == std::string::npos ? path : path.substr(folder + 1);
}

Verdict play(const std::string& path, const std::string& peer)
{
    std::string error;
    const auto script = parse_script(path, &error);
    if (!script)
        return {"FAIL", error};
    return peer == "engine"   ? play_engine(*script)
           : peer == "kernel" ? play_kernel(*script)
                              : play_plugin(*script, peer);
}

/// @return the exit status of a process that plays one script
int play_alone(const std::string& path, const std::string& peer)
{
    const Verdict verdict = play(path, peer);
    if (!verdict.word.empty())
        std::printf("%s %s%s%s\n", verdict.word.c_str(), name_of(path).c_str(),
                    verdict.why.empty() ? "" : ": ", verdict.why.c_str());
    std::fflush(stdout);
    return verdict.word == "FAIL" ? 1 : verdict.word == "SKIP" ? 77 : 0;
}

} // namespace

int main(int argc, char** argv)
{
    std::string peer = "engine";
    unsigned jobs = 1;
    std::vector<std::string> paths;
    for (int i = 1; i < argc; i++) {
        const std::string_view argument = argv[i];
        if (argument.starts_with("--peer="))
            peer = argument.substr(7);
        else if (argument.starts_with("--jobs="))
            jobs = static_cast<unsigned>(std::max(1, std::atoi(argv[i] + 7)));
        else if (argument.starts_with("-"))
            return std::fprintf(stderr, "conformance: %s: unknown argument\n", argv[i]), 2;
        else
            paths.emplace_back(argument);
    }

    // A process for each script: a namespace of its own, and a crash ends one play.
    std::map<pid_t, std::string> running;
    unsigned failed = 0, skipped = 0;
    for (std::size_t next = 0; next < paths.size() || !running.empty();) {
        if (next < paths.size() && running.size() < jobs) {
            const pid_t child = fork();
            if (child == 0)
                _exit(play_alone(paths[next], peer));
            if (child < 0)
                return std::perror("conformance: fork"), 1;
            running[child] = paths[next++];
            continue;
        }
        int status = 0;
        const pid_t child = wait(&status);
        if (!WIFEXITED(status))
            std::printf("FAIL %s: ended by signal %d\n", name_of(running[child]).c_str(),
                        WTERMSIG(status));
        failed += !WIFEXITED(status) || WEXITSTATUS(status) == 1;
        skipped += WIFEXITED(status) && WEXITSTATUS(status) == 77;
        running.erase(child);
        std::fflush(stdout);
    }
    return failed != 0 ? 1 : !paths.empty() && skipped == paths.size() ? 77 : 0;
}
