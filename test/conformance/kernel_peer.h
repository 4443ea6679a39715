// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "test/conformance/socket_peer.h"

#include <cstdint>
#include <memory>
#include <string>

namespace devmem::conformance {

/// The kernel's TCP, in real time, behind a TUN. Every play is to have a network namespace of its
/// own.
class KernelPeer final : public SocketPeer {
public:
    /// @param error receives what could not be set up
    static std::unique_ptr<KernelPeer> make(const Endpoints& ends, std::string* error);
    ~KernelPeer() override;

    bool sysctl(const std::string& name, const std::string& value) override;
    /// The machine has other things to do; and a timer of the kernel is late by up to an eighth,
    /// the granularity of its wheel.
    Micros tolerance(Micros waiting) const override { return 25'000 + waiting / 8; }
    bool pushes_more() const override { return true; }
    void run_until(Micros time, bool or_packet) override;
    void inject(std::span<const std::uint8_t> packet) override;

private:
    explicit KernelPeer(const Endpoints& ends);
    int set_up();
    int set_address(const char* interface);
    Micros now() const;

    int tun_ = -1;
    Micros start_ = -1; ///< of the script, on the monotonic clock; -1: not yet
};

} // namespace devmem::conformance
