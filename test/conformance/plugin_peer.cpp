// SPDX-License-Identifier: BSD-3-Clause
#include "test/conformance/plugin_peer.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>

namespace devmem::conformance {

PluginPeer::~PluginPeer()
{
    if (start_ >= 0)
        calls_.free(calls_.userdata);
}

/// Settings are what its flags are made of.
bool PluginPeer::sysctl(const std::string& name, const std::string& value)
{
    flags_ += name + '=' + value + ';';
    return true;
}

void PluginPeer::load()
{
    int flags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
#ifndef __SANITIZE_ADDRESS__ // which could not see its allocations
    flags |= RTLD_DEEPBIND;
#endif
    void* const object = dlopen(path_.c_str(), flags);
    void* const init = object ? dlsym(object, "packetdrill_interface_init") : nullptr;
    if (!init) {
        std::fprintf(stderr, "conformance: %s\n", dlerror());
        std::exit(EXIT_FAILURE);
    }
    reinterpret_cast<PacketdrillInit*>(init)(flags_.c_str(), &calls_);
    start_ = now();
}

Micros PluginPeer::now()
{
    timeval time{};
    calls_.gettimeofday(calls_.userdata, &time, nullptr);
    return time.tv_sec * 1'000'000 + time.tv_usec;
}

bool PluginPeer::receive()
{
    std::vector<std::uint8_t> bytes(65536);
    std::size_t n = bytes.size();
    long long time = 0;
    if (calls_.netdev_receive(calls_.userdata, bytes.data(), &n, &time) != 0 || n == 0)
        return false;
    bytes.resize(n);
    sent.push_back({time - start_, std::move(bytes)});
    return true;
}

/// Only waiting shows what has gone out, and that moves the clock: packets are seen when one is
/// expected, or at the end.
void PluginPeer::run_until(Micros time, bool or_packet)
{
    if (start_ < 0)
        load();
    if (or_packet) {
        receive();
        return;
    }
    for (Micros left; (left = start_ + time - now()) > 0;) {
        constexpr Micros kMost = 1'000'000'000; // a useconds_t is short of 72 minutes
        calls_.usleep(calls_.userdata, static_cast<useconds_t>(std::min(left, kMost)));
    }
}

void PluginPeer::inject(std::span<const std::uint8_t> packet)
{
    if (calls_.netdev_send(calls_.userdata, packet.data(), packet.size()) != 0)
        sent.push_back({now() - start_, {}}); // is reported as malformed
}

/// From the script's address.
long PluginPeer::connect(long fd)
{
    const long bound = bind(fd);
    return bound != 0 ? bound : SocketPeer::connect(fd);
}

/// The plugin looks for its leaks itself when it ends.
std::string PluginPeer::leaks()
{
    const Micros end = now() - start_;
    return receive() && sent.front().time < end ? "a packet that nothing expected" : "";
}

} // namespace devmem::conformance
