// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lib/tcp/connection.h"
#include "lib/tcp/syn_cookie.h"
#include "lib/wire/frame.h"
#include "test/conformance/peer.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace devmem::conformance {

/// lib/tcp and lib/wire on a virtual clock, with as much of a host around them as sockets need: one
/// listener, one live connection at a time, a pool of fragments. read() copies and gives fragments
/// back, unless hold(1) has them kept until hold(0).
class EnginePeer final : public Peer, private tcp::Sink {
public:
    /// @param iss initial send sequence number of every connection
    EnginePeer(const Endpoints& ends, std::uint32_t iss);
    ~EnginePeer() override;

    /// Who talks to whom from now on; the family stays.
    void set_ends(const Endpoints& ends) { ends_ = ends; }

    bool sysctl(const std::string& name, const std::string& value) override;
    Micros tolerance(Micros) const override { return 0; }
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
    long at_mark(long fd, int* whether) override;
    long set_option(long fd, const std::string& name, int value) override;
    long extension(const std::string& name, std::span<const long> arguments) override;
    std::string leaks() override;

private:
    static constexpr std::uint32_t kFragmentBytes = 1000;
    static constexpr std::uint32_t kFragments = 4096;

    struct Slot {
        tcp::Connection connection;
        bool live = true; ///< kClosed has not come
        bool connected = false, accepted = false;
        bool passive = false;
        int error = 0;
        bool retrying = false;           ///< kRetrying has come and was not asked for
        std::deque<std::uint8_t> unread; ///< of runs taken from the engine
        std::size_t urgent = 0;          ///< bytes of these that are urgent; see urgent_left()
        unsigned urgent_told = 0;        ///< times since urgent_told() was called
        std::vector<tcp::Run> held;      ///< by the application
        tcp::Returned returned;
    };
    struct Socket {
        bool listening = false, linger = false, keepalive = false;
        tcp::Patience patience;
        tcp::Time keepalive_idle = 7'200'000'000; ///< RFC 9293 3.8.4
        Slot* slot = nullptr;
    };

    tcp::Time now() const { return static_cast<tcp::Time>(clock_) + kStart; }
    Slot* live() { return slots_.empty() || !slots_.back()->live ? nullptr : slots_.back().get(); }
    Slot* slot(long fd);
    Slot& open(bool passive);
    void segment(const tcp::Segment& in);
    void error(std::span<const std::uint8_t> frame, const wire::Packet& packet);
    bool open_cookie(const tcp::Segment& in);
    void be_patient(const Socket& socket);
    void act(Slot& slot, tcp::Actions actions);
    void poll(Slot& slot);
    void give_back(Slot& slot);
    static std::size_t urgent_left(const Slot& slot);
    void check_window();
    std::vector<tcp::Run> place(std::span<const std::uint8_t> payload);

    bool emit(const tcp::SegmentOut& segment) override;
    void release(std::uint32_t first, std::uint32_t count) override;

    static constexpr tcp::Time kStart = 10'000'000;

    Endpoints ends_;
    const tcp::Seq iss_;
    Micros clock_ = 0;
    tcp::Config config_;
    tcp::RunStore runs_;
    tcp::Credit credit_;
    tcp::Counters counters_;
    tcp::Context ctx_;

    std::vector<std::uint8_t> memory_;
    std::vector<bool> in_use_; ///< a fragment, or the engine has it
    std::string misuse_;       ///< a fragment came back that was not out

    tcp::SynCookies cookies_{{1, 2}};
    bool cookies_always_ = false; ///< net.ipv4.tcp_syncookies=2
    bool listening_ = false;
    bool hold_ = false;
    std::vector<std::unique_ptr<Slot>> slots_; ///< the last one is live, or none
    std::map<long, Socket> sockets_;
    long next_fd_ = 100;
};

} // namespace devmem::conformance
