// SPDX-License-Identifier: BSD-3-Clause
#include "test/conformance/player.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>

namespace devmem::conformance {

namespace {

/// Byte `at` of a stream, either way.
std::uint8_t stream_byte(std::uint32_t at)
{
    return static_cast<std::uint8_t>((at * 0x9e3779b97f4a7c15u) >> 56);
}

/// A time as messages give it.
std::string seconds(Micros time)
{
    char text[32];
    std::snprintf(text, sizeof text, "%.6f s", static_cast<double>(time) / 1e6);
    return text;
}

std::string errno_name(long error)
{
    const char* name = strerrorname_np(static_cast<int>(error));
    return name ? name : std::to_string(error);
}

class Player {
public:
    Player(const Script& script, Peer& peer, const Endpoints& ends, std::uint32_t remote_isn)
        : script_(script), peer_(peer), ends_(ends), remote_isn_(remote_isn)
    {
    }

    std::optional<Failure> run();

private:
    struct Stop {
        std::string what;
    };
    [[noreturn]] void fail(const std::string& what) const { throw Stop{what}; }

    void play(const Event& event);
    Packet expected_packet(const Event& event) const;
    void inbound(const Event& event);
    void outbound(const Event& event);
    void call(const Event& event);
    void expect_nothing_before(Micros time);
    Micros tolerance(Micros waiting) const
    {
        return std::max(peer_.tolerance(waiting), script_.tolerance);
    }

    Packet to_wire(Packet packet);
    Packet from_wire(Packet packet, const Packet& expected);
    void compare(const Packet& expected, const Packet& got, Micros time, Micros slack);
    bool same_options(const std::vector<Option>& expected, const std::vector<Option>& got,
                      Micros slack) const;

    long descriptor(const Call& call) const;
    long system_call(const Call& call);
    long read(const Call& call);
    long write(const Call& call);
    long set_option(const Call& call);
    long get_option(const Call& call);
    long device_control(const Call& call);
    long extension(const Call& call);

    const Script& script_;
    Peer& peer_;
    Endpoints ends_;
    const std::uint32_t remote_isn_;

    Micros clock_ = 0; ///< of the last event
    Micros late_ = 0;  ///< of all packets that were to come at one time
    const Event* event_ = nullptr;
    std::map<long, long> descriptors_;         ///< of the script -> of the peer
    std::uint32_t remote_stream_ = 1;          ///< number of the remote stream's first byte
    std::uint32_t local_isn_ = 0;              ///< on the wire; 0 until known
    std::optional<std::uint32_t> local_clock_; ///< timestamp of the wire less that of the script
    std::uint32_t read_ = 0, written_ = 0;     ///< bytes
};

std::optional<Failure> Player::run()
{
    try {
        for (const auto& [name, value] : script_.sysctls) {
            if (!peer_.sysctl(name, value))
                fail("there is no " + name + " to set to " + value);
        }
        for (const Event& event : script_.events) {
            event_ = &event;
            play(event);
        }
        event_ = nullptr;
        peer_.run_until(clock_, false);
        if (!peer_.sent.empty())
            expect_nothing_before(INT64_MAX);
        if (const std::string leaks = peer_.leaks(); !leaks.empty())
            fail(leaks);
    } catch (const std::out_of_range&) {
        return Failure{event_, script_.path + ":" + std::to_string(event_->line) +
                                   ": too few arguments  [" + event_->text + "]"};
    } catch (const Stop& stop) {
        const int line = event_ ? event_->line : script_.events.back().line;
        std::string text = script_.path + ":" + std::to_string(line) + ": " + stop.what;
        if (event_)
            text += "  [" + event_->text + "]";
        return Failure{event_, text};
    }
    return {};
}

void Player::play(const Event& event)
{
    if (event.kind == Event::Kind::kOutbound) {
        outbound(event);
        return;
    }
    const Micros time = event.when.relative ? clock_ + event.when.least : event.when.least;
    peer_.run_until(time, false);
    expect_nothing_before(time - tolerance(0));
    clock_ = time;
    if (event.kind == Event::Kind::kInbound)
        inbound(event);
    else
        call(event);
}

/// What was sent before `time` should have been expected by now.
void Player::expect_nothing_before(Micros time)
{
    if (peer_.sent.empty() || peer_.sent.front().time >= time)
        return;
    const Peer::Sent& sent = peer_.sent.front();
    std::string error;
    std::uint16_t port;
    const auto packet = decode(sent.bytes, ends_, &port, &error);
    fail("expected no packet, got " +
         (packet ? to_string(from_wire(*packet, {})) : "a malformed one (" + error + ")") + " at " +
         seconds(sent.time));
}

void Player::inbound(const Event& event)
{
    if (event.packet.flags & kSyn)
        remote_stream_ = event.packet.seq + 1;
    peer_.inject(encode(to_wire(event.packet), ends_));
}

/// Our numbers to those of the connection, and the payload.
Packet Player::to_wire(Packet packet)
{
    if (!packet.icmp.empty()) {
        packet.seq += local_isn_;
        return packet;
    }
    for (std::uint32_t i = 0; i < packet.len; i++)
        packet.payload.push_back(
            stream_byte(packet.seq + ((packet.flags & kSyn) ? 1 : 0) + i - remote_stream_));
    packet.seq += remote_isn_;
    if (packet.flags & kAck)
        packet.ack += local_isn_;
    for (Option& option : packet.options) {
        std::uint8_t* value = option.data() + 2;
        if (option.size() == 10 && option[0] == kTimestamps && load32(value + 4) != 0)
            store32(value + 4, load32(value + 4) + local_clock_.value_or(0));
        if (option[0] == kSack) {
            for (; value + 4 <= option.data() + option.size(); value += 4)
                store32(value, load32(value) + local_isn_);
        }
    }
    return packet;
}

Packet Player::from_wire(Packet packet, const Packet& expected)
{
    if (const std::uint32_t isn = packet.seq - expected.seq;
        (packet.flags & expected.flags & kSyn) && isn != local_isn_) {
        local_isn_ = isn;
        local_clock_.reset(); // another connection may have another
    }
    // A RST for what had no ACK is of no stream: its number is 0 (RFC 9293 3.10.7.1).
    if (!((packet.flags & kRst) && packet.seq == 0))
        packet.seq -= local_isn_;
    if (packet.flags & kAck)
        packet.ack -= remote_isn_;
    for (Option& option : packet.options) {
        std::uint8_t* value = option.data() + 2;
        if (option.size() == 10 && option[0] == kTimestamps) {
            if (!local_clock_ && !expected.any_options) {
                for (const Option& other : expected.options) {
                    if (other.size() == 10 && other[0] == kTimestamps)
                        local_clock_ = load32(value) - load32(other.data() + 2);
                }
            }
            store32(value, load32(value) - local_clock_.value_or(0));
        }
        if (option[0] == kSack) {
            for (; value + 4 <= option.data() + option.size(); value += 4)
                store32(value, load32(value) - remote_isn_);
        }
    }
    return packet;
}

/// Scripts are written for IPv4: the header of IPv6 takes 20 bytes more of the same MTU.
Packet Player::expected_packet(const Event& event) const
{
    Packet packet = event.packet;
    for (Option& option : packet.options) {
        if (ends_.family == 6 && option[0] == kMss && option.size() == 4) {
            const int mss = (option[2] << 8 | option[3]) - 20;
            option[2] = static_cast<std::uint8_t>(mss >> 8);
            option[3] = static_cast<std::uint8_t>(mss);
        }
    }
    return packet;
}

void Player::outbound(const Event& event)
{
    const Packet expected = expected_packet(event);
    const When& when = event.when;
    const Micros base = when.relative ? clock_ : 0;
    constexpr Micros kPatience = 300'000'000; // longer than any timer
    const Micros least = when.any ? clock_ : base + when.least;
    const Micros most = when.any ? clock_ + kPatience : base + when.most;
    const Micros slack = tolerance(most - clock_);

    if (peer_.sent.empty())
        peer_.run_until(most + slack, true);
    if (peer_.sent.empty())
        fail("expected " + to_string(expected) + ", got nothing until " + seconds(most + slack));
    const Peer::Sent sent = peer_.sent.front();
    peer_.sent.pop_front();

    std::string error;
    std::uint16_t port;
    const auto packet = decode(sent.bytes, ends_, &port, &error);
    if (!packet)
        fail("expected " + to_string(expected) + ", got a malformed packet: " + error);
    if (packet->flags & kSyn)
        ends_.local_port = port;
    if (port != ends_.local_port)
        fail("a packet from port " + std::to_string(port));
    if (!when.range())
        late_ += sent.time - least;
    compare(expected, from_wire(*packet, expected), sent.time, slack);
    if (sent.time < least - slack || sent.time > most + slack)
        fail("expected between " + seconds(least) + " and " + seconds(most) + ", came at " +
             seconds(sent.time));
    clock_ = sent.time;
}

void Player::compare(const Packet& expected, const Packet& got, Micros time, Micros slack)
{
    const int more = got.len != 0 && peer_.pushes_more() ? kPsh : 0;
    const bool same = (expected.flags | more) == (got.flags | more) && expected.ecn == got.ecn &&
                      expected.seq == got.seq && expected.len == got.len &&
                      expected.ack == (got.flags & kAck ? got.ack : 0) &&
                      (!expected.window || expected.window == got.window) &&
                      (expected.any_options || same_options(expected.options, got.options, slack));
    if (!same) {
        Packet shown = got;
        if (!expected.window)
            shown.window.reset();
        fail("expected " + to_string(expected) + ", got " + to_string(shown) + " at " +
             seconds(time));
    }
    for (std::uint32_t i = 0; i < got.len; i++) {
        if (got.payload[i] != stream_byte(got.seq - 1 + i))
            fail("byte " + std::to_string(got.seq + i) + " is not what was written");
    }
}

/// In the same order, byte for byte, but for the ticks of a clock.
bool Player::same_options(const std::vector<Option>& expected, const std::vector<Option>& got,
                          Micros slack) const
{
    const auto same = [&](const Option& a, const Option& b) { // a: expected
        if (a.size() != 10 || a[0] != kTimestamps || b.size() != 10 || b[0] != kTimestamps)
            return a == b;
        const auto ticks = static_cast<std::int32_t>(load32(b.data() + 2) - load32(a.data() + 2));
        return std::abs(ticks - late_ / 1000) <= slack / 1000 &&
               load32(a.data() + 6) == load32(b.data() + 6);
    };
    return std::equal(expected.begin(), expected.end(), got.begin(), got.end(), same);
}

void Player::call(const Event& event)
{
    const Call& call = event.call;
    long result = system_call(call);
    const bool makes = call.name == "socket" || call.name == "accept";
    if (makes && result >= 0 && call.result >= 0) {
        descriptors_[call.result] = result;
        return;
    }
    const std::string error = result < 0 ? errno_name(-result) : "";
    result = std::max(result, -1L);
    if (result == call.result && error == call.error)
        return;
    fail("expected " + std::to_string(call.result) + " " + call.error + ", got " +
         std::to_string(result) + " " + error);
}

long Player::descriptor(const Call& call) const
{
    if (call.arguments.empty())
        fail(call.name + "() without a descriptor");
    const auto found = descriptors_.find(std::atol(call.arguments[0].c_str()));
    if (found == descriptors_.end())
        fail("no such descriptor: " + call.arguments[0]);
    return found->second;
}

long Player::system_call(const Call& call)
{
    const std::string& name = call.name;
    if (name == "socket")
        return peer_.socket();
    if (name == "bind")
        return peer_.bind(descriptor(call));
    if (name == "listen")
        return peer_.listen(descriptor(call), std::atoi(call.arguments.at(1).c_str()));
    if (name == "accept")
        return peer_.accept(descriptor(call));
    if (name == "connect")
        return peer_.connect(descriptor(call));
    if (name == "fcntl")
        return 0; // O_NONBLOCK: nothing blocks here
    if (name == "read" || name == "recv")
        return read(call);
    if (name == "write" || name == "send")
        return write(call);
    if (name == "shutdown")
        return call.arguments.at(1) == "SHUT_WR" ? peer_.shutdown(descriptor(call)) : -EINVAL;
    if (name == "close")
        return peer_.close(descriptor(call));
    if (name == "setsockopt")
        return set_option(call);
    if (name == "getsockopt")
        return get_option(call);
    if (name == "ioctl")
        return device_control(call);
    return extension(call);
}

/// What is read must be the stream's next bytes.
long Player::read(const Call& call)
{
    std::vector<std::uint8_t> bytes(std::strtoul(call.arguments.at(2).c_str(), nullptr, 10));
    const long n = peer_.read(descriptor(call), bytes);
    for (long i = 0; i < n; i++) {
        if (bytes[static_cast<std::size_t>(i)] != stream_byte(read_++))
            fail("byte " + std::to_string(read_) + " is not what was sent");
    }
    return n;
}

long Player::write(const Call& call)
{
    std::vector<std::uint8_t> bytes(std::strtoul(call.arguments.at(2).c_str(), nullptr, 10));
    for (std::size_t i = 0; i < bytes.size(); i++)
        bytes[i] = stream_byte(written_ + static_cast<std::uint32_t>(i));
    const long n = peer_.write(descriptor(call), bytes);
    written_ += static_cast<std::uint32_t>(std::max(n, 0L));
    return n;
}

long Player::set_option(const Call& call)
{
    const std::string& name = call.arguments.at(2);
    const std::string& value = call.arguments.at(3);
    if (name == "SO_LINGER" && value == "{onoff=1,linger=0}")
        return peer_.linger(descriptor(call));
    if (value.size() < 3 || value.front() != '[')
        fail("setsockopt() takes [number], SO_LINGER {onoff=1, linger=0}");
    return peer_.set_option(descriptor(call), name, std::atoi(value.c_str() + 1));
}

long Player::get_option(const Call& call)
{
    if (call.arguments.at(2) != "SO_ERROR")
        fail("getsockopt() is for SO_ERROR");
    const std::string wanted = call.arguments.at(3); // [NAME] or [0]
    int error = 0;
    const long result = peer_.pending_error(descriptor(call), &error);
    const std::string got = "[" + (error == 0 ? "0" : errno_name(error)) + "]";
    if (result == 0 && got != wanted)
        fail("expected the error " + wanted + ", got " + got);
    return result;
}

long Player::device_control(const Call& call)
{
    const std::string& request = call.arguments.at(1);
    int value = 0;
    long result = 0;
    if (request == "SIOCINQ")
        result = peer_.readable(descriptor(call), &value);
    else if (request == "SIOCATMARK")
        result = peer_.at_mark(descriptor(call), &value);
    else
        fail("ioctl() is for SIOCINQ and SIOCATMARK");
    const std::string got = "[" + std::to_string(value) + "]";
    if (result == 0 && got != call.arguments.at(2))
        fail("expected " + call.arguments.at(2) + ", got " + got);
    return result;
}

long Player::extension(const Call& call)
{
    std::vector<long> arguments;
    for (const std::string& argument : call.arguments)
        arguments.push_back(std::atol(argument.c_str()));
    const long result = peer_.extension(call.name, arguments);
    if (result == -ENOSYS)
        fail("there is no " + call.name + "()");
    return result;
}

} // namespace

std::optional<Failure> play(const Script& script, Peer& peer, Endpoints ends,
                            std::uint32_t remote_isn)
{
    return Player(script, peer, ends, remote_isn).run();
}

} // namespace devmem::conformance
