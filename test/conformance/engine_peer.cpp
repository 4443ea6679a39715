// SPDX-License-Identifier: BSD-3-Clause
#include "test/conformance/engine_peer.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace devmem::conformance {

namespace {

constexpr std::size_t kEthernetBytes = 14;
constexpr std::uint16_t kMtu = 1500;
constexpr tcp::FlowName kName{}; // there is one

wire::Ip ip_of(const Endpoints& ends, const Address& address)
{
    return {static_cast<std::uint8_t>(ends.family), address};
}

std::uint16_t mss_of(const Endpoints& ends)
{
    return static_cast<std::uint16_t>(kMtu - (ends.family == 4 ? 40 : 60));
}

} // namespace

EnginePeer::EnginePeer(const Endpoints& ends, std::uint32_t iss)
    : ends_(ends), iss_(iss), ctx_{config_, runs_, credit_, *this, counters_},
      memory_(kFragments * kFragmentBytes), in_use_(kFragments)
{
    runs_.create({kFragments, kFragmentBytes, 32, 0, kFragmentBytes, 1});
    credit_.free_bytes = std::int64_t{kFragments} * kFragmentBytes;
    credit_.fragment_bytes = kFragmentBytes;
}

EnginePeer::~EnginePeer() = default;

bool EnginePeer::sysctl(const std::string& name, const std::string& value)
{
    std::uint32_t numbers[3] = {};
    const char* p = value.data();
    for (std::uint32_t& number : numbers) {
        while (p != value.data() + value.size() && *p == ' ')
            p++;
        p = std::from_chars(p, value.data() + value.size(), number).ptr;
    }
    const std::uint32_t first = numbers[0];
    if (name == "net.ipv4.tcp_timestamps")
        config_.timestamps = first != 0;
    else if (name == "net.ipv4.tcp_sack")
        config_.sack = first != 0;
    else if (name == "net.ipv4.tcp_window_scaling")
        config_.window_scale = first != 0;
    else if (name == "net.ipv4.tcp_ecn")
        config_.ecn = first != 0;
    else if (name == "net.ipv4.tcp_rmem") // least, at first, most
        config_.rcv_window_initial = numbers[1], config_.rcv_window = numbers[2];
    else if (name == "net.ipv4.tcp_syn_retries" || name == "net.ipv4.tcp_synack_retries")
        config_.syn_retries = first;
    else if (name == "net.ipv4.tcp_retries2" || name == "net.ipv4.tcp_orphan_retries")
        config_.retries = first;
    else if (name == "net.ipv4.tcp_syncookies")
        cookies_always_ = first == 2;
    else if (name == "net.ipv4.tcp_fin_timeout")
        config_.time_wait = std::uint64_t{first} * 1'000'000;
    else
        return false;
    return true;
}

void EnginePeer::run_until(Micros time, bool or_packet)
{
    while (!(or_packet && !sent.empty())) {
        Slot* slot = live();
        const tcp::Time next = slot ? slot->connection.next_deadline() : tcp::kNever;
        if (next > static_cast<tcp::Time>(time) + kStart)
            break;
        clock_ = std::max(clock_, static_cast<Micros>(next - kStart));
        poll(*slot);
    }
    if (!or_packet || sent.empty())
        clock_ = std::max(clock_, time);
}

/// As a port and a stack would: parse, find the connection, put the payload into fragments.
void EnginePeer::inject(std::span<const std::uint8_t> bytes)
{
    std::vector<std::uint8_t> frame(kEthernetBytes);
    frame[12] = ends_.family == 4 ? 0x08 : 0x86;
    frame[13] = ends_.family == 4 ? 0x00 : 0xdd;
    frame.insert(frame.end(), bytes.begin(), bytes.end());
    wire::Packet packet;
    if (wire::parse(frame, static_cast<std::uint32_t>(frame.size()), &packet) != wire::Verdict::kOk)
        return;

    if (packet.kind != wire::Kind::kTcp) {
        error(frame, packet);
        return;
    }
    const auto payload = place(std::span(frame).subspan(packet.header_bytes, packet.payload_bytes));
    segment({tcp::Seq(packet.seq), tcp::Seq(packet.ack), packet.window, packet.flags, 1,
             packet.payload_bytes, payload, &packet.options, ends_.family == 6, packet.urgent,
             packet.ecn == wire::kCe});
}

void EnginePeer::segment(const tcp::Segment& in)
{
    constexpr std::uint8_t kOpening = tcp::kSyn | tcp::kAck | tcp::kRst | tcp::kFin;
    const bool opens = listening_ && (in.flags & kOpening) == tcp::kSyn;
    tcp::Seq iss = iss_;
    if (Slot* slot = live(); slot && opens && slot->connection.gives_way(in, config_)) {
        iss = max(iss, slot->connection.sequence_end());
        act(*slot, slot->connection.give_way(now(), ctx_));
    }
    if (Slot* slot = live()) {
        act(*slot, slot->connection.process(in, now(), ctx_));
        return;
    }
    if (opens && !cookies_always_) {
        Slot& opened = open(true);
        act(opened, opened.connection.open_passive(in, iss, mss_of(ends_), mss_of(ends_), 0,
                                                   &opened.returned, now(), ctx_));
        return;
    }
    if (listening_ && cookies_always_ && open_cookie(in))
        return;
    for (const tcp::Run& run : in.payload)
        release(run.first, run.count);
    tcp::SegmentOut answer;
    if (opens)
        emit(cookies_.answer(in, kName, mss_of(ends_), 0, now(), config_));
    else if (tcp::reset_for(in, &answer))
        emit(answer);
}

/// @return false: it brings no cookie back
bool EnginePeer::open_cookie(const tcp::Segment& in)
{
    wire::TcpOptions syn;
    if ((in.flags & (tcp::kSyn | tcp::kRst | tcp::kAck)) != tcp::kAck ||
        !cookies_.check(in, kName, 0, now(), config_, &syn))
        return false;
    Slot& opened = open(true);
    act(opened, opened.connection.open_cookie(in, syn, mss_of(ends_), mss_of(ends_), 0,
                                              &opened.returned, now(), ctx_));
    return true;
}

/// Port unreachable is the hard error that scripts have.
void EnginePeer::error(std::span<const std::uint8_t> frame, const wire::Packet& packet)
{
    wire::Unreachable unreachable;
    Slot* const slot = live();
    if (!slot || !wire::parse_unreachable(frame, packet, &unreachable))
        return;
    const bool hard = unreachable.code == (ends_.family == 4 ? 3 : 4);
    act(*slot, slot->connection.icmp_error(hard, tcp::Seq(unreachable.seq),
                                           hard ? -ECONNREFUSED : -EHOSTUNREACH, now(), ctx_));
}

EnginePeer::Slot& EnginePeer::open(bool passive)
{
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->passive = passive;
    return *slots_.back();
}

void EnginePeer::poll(Slot& slot)
{
    act(slot, slot.connection.poll(now(), ctx_));
}

/// Each packet is a burst of its own.
void EnginePeer::act(Slot& slot, tcp::Actions actions)
{
    if (actions & tcp::kConnected)
        slot.connected = true;
    if (actions & tcp::kRetrying)
        slot.retrying = true;
    if (actions & tcp::kUrgent)
        slot.urgent_told++;
    if (actions & tcp::kClosed) {
        slot.live = false;
        slot.error = -slot.connection.error();
    } else if (actions & (tcp::kPoll | tcp::kPollNow)) {
        poll(slot);
    }
}

long EnginePeer::socket()
{
    sockets_[next_fd_] = {};
    return next_fd_++;
}

long EnginePeer::bind(long fd)
{
    return sockets_.contains(fd) ? 0 : -EBADF;
}

long EnginePeer::listen(long fd, int)
{
    sockets_.at(fd).listening = listening_ = true;
    return 0;
}

long EnginePeer::accept(long fd)
{
    if (!sockets_.at(fd).listening)
        return -EINVAL;
    for (const auto& slot : slots_) {
        if (slot->passive && slot->connected && !slot->accepted) {
            slot->accepted = true;
            sockets_[next_fd_].slot = slot.get();
            return next_fd_++;
        }
    }
    return -EAGAIN;
}

long EnginePeer::connect(long fd)
{
    Socket& socket = sockets_.at(fd);
    if (socket.slot)
        return socket.slot->connected ? -EISCONN : -EALREADY;
    socket.slot = &open(false);
    act(*socket.slot, socket.slot->connection.open_active(iss_, mss_of(ends_), mss_of(ends_), 0,
                                                          &socket.slot->returned, now(), ctx_));
    be_patient(socket);
    return -EINPROGRESS;
}

EnginePeer::Slot* EnginePeer::slot(long fd)
{
    const auto found = sockets_.find(fd);
    return found == sockets_.end() ? nullptr : found->second.slot;
}

void EnginePeer::give_back(Slot& slot)
{
    for (const tcp::Run& run : slot.held) {
        release(run.first, run.count);
        slot.returned += run.count;
    }
    slot.held.clear();
}

void EnginePeer::check_window()
{
    if (Slot* slot = live())
        act(*slot, slot->connection.window_check(now(), ctx_));
}

/// Of the stream up to RCV.UP, what read() has not returned.
std::size_t EnginePeer::urgent_left(const Slot& slot)
{
    const std::size_t ahead = slot.connection.urgent_bytes();
    return ahead != 0 ? slot.unread.size() + ahead : slot.urgent;
}

long EnginePeer::read(long fd, std::span<std::uint8_t> into)
{
    Slot* s = slot(fd);
    if (!s)
        return -ENOTCONN;
    tcp::Run run;
    for (std::size_t urgent = urgent_left(*s);
         s->unread.size() < into.size() && s->connection.receive(&run, ctx_);
         s->urgent = std::min(urgent, s->unread.size())) {
        const std::uint8_t* bytes = &memory_[run.first * std::size_t{kFragmentBytes} + run.off];
        s->unread.insert(s->unread.end(), bytes, bytes + run.len);
        s->held.push_back(run);
    }
    if (!hold_)
        give_back(*s);
    const auto n = std::min(into.size(), s->unread.size());
    std::copy_n(s->unread.begin(), n, into.begin());
    s->unread.erase(s->unread.begin(), s->unread.begin() + static_cast<std::ptrdiff_t>(n));
    s->urgent -= std::min(s->urgent, n);
    check_window();
    if (n != 0 || into.empty())
        return static_cast<long>(n);
    if (const int error = std::exchange(s->error, 0))
        return -error;
    return s->connection.peer_closed() || !s->live ? 0 : -EAGAIN;
}

long EnginePeer::write(long fd, std::span<const std::uint8_t> bytes)
{
    Slot* s = slot(fd);
    if (!s)
        return -EPIPE;
    if (const int error = std::exchange(s->error, 0))
        return -error;
    const long n = s->connection.send(std::as_bytes(bytes), ctx_);
    if (n > 0)
        poll(*s);
    return n == 0 ? -EAGAIN : n;
}

long EnginePeer::shutdown(long fd)
{
    Slot* s = slot(fd);
    if (!s || !s->live)
        return -ENOTCONN;
    act(*s, s->connection.shutdown(now(), ctx_));
    return 0;
}

long EnginePeer::close(long fd)
{
    const auto found = sockets_.find(fd);
    if (found == sockets_.end())
        return -EBADF;
    const Socket socket = found->second;
    sockets_.erase(found);
    if (socket.listening)
        listening_ = false;
    if (Slot* s = socket.slot; s && s->live) {
        const bool abort = socket.linger || !s->unread.empty();
        act(*s, abort ? s->connection.abort(now(), ctx_) : s->connection.close(now(), ctx_));
    }
    return 0;
}

long EnginePeer::linger(long fd)
{
    sockets_.at(fd).linger = true;
    return 0;
}

long EnginePeer::pending_error(long fd, int* error)
{
    Slot* s = slot(fd);
    *error = s ? std::exchange(s->error, 0) : 0;
    return 0;
}

long EnginePeer::readable(long fd, int* bytes)
{
    Slot* s = slot(fd);
    if (!s)
        return -EINVAL;
    *bytes = static_cast<int>(s->unread.size() + s->connection.readable_bytes());
    return 0;
}

long EnginePeer::at_mark(long fd, int* whether)
{
    const Slot* s = slot(fd);
    if (!s)
        return -EINVAL;
    *whether = urgent_left(*s) == 1;
    return 0;
}

long EnginePeer::set_option(long fd, const std::string& name, int value)
{
    Socket& socket = sockets_.at(fd);
    const auto number = static_cast<unsigned>(value);
    if (name == "SO_KEEPALIVE")
        socket.keepalive = value != 0;
    else if (name == "TCP_KEEPIDLE")
        socket.keepalive_idle = tcp::Time{number} * 1'000'000;
    else if (name == "TCP_KEEPINTVL")
        socket.patience.keepalive_interval = tcp::Time{number} * 1'000'000;
    else if (name == "TCP_KEEPCNT")
        socket.patience.keepalive_probes = number;
    else if (name == "TCP_USER_TIMEOUT")
        socket.patience.user_timeout = tcp::Time{number} * 1000;
    else // As it always is: no small segment delayed, urgent data in line, a port of its own.
        return name == "TCP_NODELAY" || name == "SO_OOBINLINE" || name == "SO_REUSEADDR"
                   ? 0
                   : -ENOPROTOOPT;
    socket.patience.keepalive = socket.keepalive ? socket.keepalive_idle : 0;
    if (socket.slot)
        be_patient(socket);
    return 0;
}

void EnginePeer::be_patient(const Socket& socket)
{
    socket.slot->connection.set_patience(socket.patience, now());
}

long EnginePeer::extension(const std::string& name, std::span<const long> arguments)
{
    const long value = arguments.empty() ? 0 : arguments[0];
    if (name == "credit") {
        credit_.free_bytes = value;
    } else if (name == "held_limit") {
        config_.held_limit_bytes = static_cast<std::uint32_t>(value);
    } else if (name == "urgent_left") {
        return static_cast<long>(urgent_left(*slots_.back()));
    } else if (name == "urgent_told") {
        return std::exchange(slots_.back()->urgent_told, 0);
    } else if (name == "hold") {
        hold_ = value != 0;
        for (const auto& slot : slots_) {
            if (!hold_)
                give_back(*slot);
        }
    } else if (name == "retrying") {
        return slots_.empty() ? -ENOTCONN : std::exchange(slots_.back()->retrying, false);
    } else {
        return -ENOSYS;
    }
    check_window();
    return 0;
}

std::vector<tcp::Run> EnginePeer::place(std::span<const std::uint8_t> payload)
{
    std::vector<tcp::Run> runs;
    while (!payload.empty()) {
        const auto free = std::find(in_use_.begin(), in_use_.end(), false);
        if (free == in_use_.end())
            break; // not by any script: it would be told by its bytes
        const auto fragment = static_cast<std::uint32_t>(free - in_use_.begin());
        *free = true;
        const std::size_t n = std::min<std::size_t>(payload.size(), kFragmentBytes);
        std::memcpy(&memory_[fragment * std::size_t{kFragmentBytes}], payload.data(), n);
        runs.push_back({fragment, 1, 0, static_cast<std::uint32_t>(n)});
        payload = payload.subspan(n);
    }
    return runs;
}

void EnginePeer::release(std::uint32_t first, std::uint32_t count)
{
    for (std::uint32_t i = first; i < first + count; i++) {
        if (!in_use_.at(i))
            misuse_ = "fragment " + std::to_string(i) + " released twice";
        in_use_[i] = false;
    }
}

bool EnginePeer::emit(const tcp::SegmentOut& segment)
{
    const wire::Flow flow{ip_of(ends_, ends_.local),
                          ip_of(ends_, ends_.remote),
                          ends_.local_port,
                          ends_.remote_port,
                          {},
                          {}};
    std::span<const std::uint8_t> parts[2];
    for (int i = 0; i < 2; i++)
        parts[i] = {reinterpret_cast<const std::uint8_t*>(segment.payload[i].data()),
                    segment.payload[i].size()};
    std::vector<std::uint8_t> frame(wire::kMaxTcpHeader);
    frame.resize(wire::write_tcp(frame, flow,
                                 {segment.seq.value(), segment.ack.value(), segment.window,
                                  segment.flags, segment.ect ? wire::kEct0 : wire::kNotEct},
                                 segment.options, parts[0], parts[1], 0));
    for (const auto& part : parts)
        frame.insert(frame.end(), part.begin(), part.end());
    frame.erase(frame.begin(), frame.begin() + kEthernetBytes);
    sent.push_back({clock_, std::move(frame)});
    return true;
}

/// Every fragment and every byte of credit is back when connections are gone.
std::string EnginePeer::leaks()
{
    for (const auto& slot : slots_) {
        give_back(*slot);
        slot->connection.reset(ctx_);
    }
    if (!misuse_.empty())
        return misuse_;
    if (std::count(in_use_.begin(), in_use_.end(), true) != 0)
        return "fragments leaked";
    return credit_.promised_bytes == 0 ? "" : "credit leaked";
}

} // namespace devmem::conformance
