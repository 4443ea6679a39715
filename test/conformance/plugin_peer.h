// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "test/conformance/socket_peer.h"

#include <memory>
#include <string>

namespace devmem::conformance {

/// A stack in a shared object, loaded and driven as packetdrill does.
class PluginPeer final : public SocketPeer {
public:
    PluginPeer(const Endpoints& ends, std::string path) : SocketPeer(ends), path_(std::move(path))
    {
    }
    ~PluginPeer() override;

    bool sysctl(const std::string& name, const std::string& value) override;
    /// Its clock moves when it is looked at.
    Micros tolerance(Micros) const override { return 500; }
    void run_until(Micros time, bool or_packet) override;
    void inject(std::span<const std::uint8_t> packet) override;
    long connect(long fd) override;
    std::string leaks() override;

private:
    void load();
    Micros now();
    bool receive();

    const std::string path_;
    std::string flags_;
    Micros start_ = -1; ///< of the script, on the plugin's clock; -1: it is not loaded
};

} // namespace devmem::conformance
