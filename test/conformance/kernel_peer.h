// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "test/conformance/peer.h"

#include <cstdint>
#include <memory>
#include <string>

namespace devmem::conformance {

/// The kernel's TCP, in real time, behind a TUN. Every play is to have a network namespace of its
/// own.
class KernelPeer final : public Peer {
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
    long socket() override;
    long bind(long fd) override;
    long listen(long fd, int backlog) override;
    long accept(long fd) override;
    long connect(long fd) override;
    long read(long fd, std::span<std::uint8_t> into) override;
    long write(long fd, std::span<const std::uint8_t> bytes) override;
    long shutdown(long fd) override;
    long close(long fd) override;
    long linger(long fd) override;
    long pending_error(long fd, int* error) override;
    long readable(long fd, int* bytes) override;
    long set_option(long fd, const std::string& name, int value) override;
    long extension(const std::string& name, std::span<const long> arguments) override;

private:
    explicit KernelPeer(const Endpoints& ends) : ends_(ends) {}
    int set_up();
    int set_address(const char* interface);
    Micros now() const;

    const Endpoints ends_;
    int tun_ = -1;
    Micros start_ = -1; ///< of the script, on the monotonic clock; -1: not yet
};

} // namespace devmem::conformance
