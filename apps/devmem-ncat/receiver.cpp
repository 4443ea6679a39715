// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/receiver.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <ctime>
#include <iterator>

namespace ncat {
namespace {

/// Room in the accept queue. It is emptied at every round.
constexpr unsigned kBacklog = 1024;
/// How long to wait for the acknowledgement of our FIN.
constexpr auto kLinger = std::chrono::seconds(2);
/// Rounds after the last connection was closed: a RST or FIN goes out in the first, or when the
/// neighbour's address is known.
constexpr int kLastRounds = 64;
constexpr std::size_t kBufferBytes = 256 * 1024;

std::string endpoint_text(const devmem_endpoint& endpoint)
{
    const std::string addr = devmem::to_string(endpoint.addr);
    return (endpoint.addr.family == 6 ? "[" + addr + "]" : addr) + ":" +
           std::to_string(endpoint.port);
}

void add_relaxed(std::atomic<std::uint64_t>& counter, std::uint64_t value)
{
    counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

/// User and system time of the process.
std::int64_t cpu_ns()
{
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec;
}

} // namespace

Receiver::Receiver(devmem::Shard shard, Job& job)
    : shard_(shard), job_(job),
      looks_(job.options.pattern != 0 || job.options.hash || job.output.is_open()),
      buffer_(looks_ ? kBufferBytes : 0)
{
}

std::error_code Receiver::listen()
{
    auto listener = shard_.listen(job_.options.tcp_port, kBacklog);
    if (!listener)
        return listener.error();
    listener_ = *std::move(listener);
    return {};
}

std::error_code Receiver::connect(const devmem_endpoint& remote)
{
    auto connection = shard_.connect(remote, &job_.options.source);
    if (!connection)
        return connection.error();
    job_.connections.fetch_add(1);
    add(*std::move(connection), endpoint_text(remote));
    return {};
}

bool Receiver::poll()
{
    bool busy = false;
    const auto events = shard_.poll(events_, &busy);
    now_ = Clock::now();
    for (const devmem_event& event : events)
        handle(event);
    if (listener_ && job_.connections.load(std::memory_order_relaxed) >= job_.options.connections)
        listener_.reset();
    if (!held_.empty())
        give_back_held();
    if (job_.options.unbind_after != 0 && !unbound_ &&
        counters_.bytes.load(std::memory_order_relaxed) >= job_.options.unbind_after)
        unbind();
    if (shut_ != 0) {
        for (auto it = sessions_.begin(); it != sessions_.end();) {
            Session& session = (it++)->second;
            if (session.shut && now_ - session.shut_at > kLinger)
                remove(session);
        }
    }
    return busy || !events.empty();
}

void Receiver::unbind()
{
    unbound_ = true;
    std::string why;
    if (shard_.rebind(nullptr, &why)) {
        std::fprintf(stderr, "devmem-ncat: --unbind-after: %s\n", why.c_str());
        job_.failed = true;
    }
}

void Receiver::finish()
{
    listener_.reset();
    while (!sessions_.empty()) {
        Session& session = sessions_.begin()->second;
        if (!session.ended) // the peer must not take it for a stream well received
            session.connection.abort();
        remove(session);
    }
    for (int round = 0; round < kLastRounds; ++round)
        static_cast<void>(shard_.poll(events_));
    held_.clear();
}

Receiver::Session& Receiver::add(devmem::Connection connection, std::string remote)
{
    const devmem_conn_t id = connection.id();
    Session session{.connection = std::move(connection), .remote = std::move(remote)};
    if (job_.options.pattern != 0)
        session.pattern.emplace(job_.options.pattern);
    if (job_.options.hash)
        session.hash.emplace();
    return sessions_.emplace(id, std::move(session)).first->second;
}

void Receiver::accept_all()
{
    while (listener_) {
        auto accepted = listener_->accept();
        if (!accepted)
            return;
        // Past the last one wanted: closed again at once, as if nobody had listened.
        if (job_.connections.fetch_add(1) >= job_.options.connections) {
            job_.connections.fetch_sub(1);
            accepted->abort();
            continue;
        }
        devmem_endpoint local{}, remote{};
        accepted->endpoints(&local, &remote);
        Session& session = add(*std::move(accepted), endpoint_text(remote));
        send(session);
        receive(session); // what came before it was accepted
    }
}

void Receiver::handle(const devmem_event& event)
{
    if (event.type == DEVMEM_EVENT_ACCEPT)
        return accept_all();
    const auto it = sessions_.find(event.conn);
    if (it == sessions_.end())
        return;
    Session& session = it->second;
    switch (event.type) {
    case DEVMEM_EVENT_CONNECTED:
    case DEVMEM_EVENT_WRITABLE:
        send(session);
        break;
    case DEVMEM_EVENT_READABLE:
        receive(session);
        break;
    case DEVMEM_EVENT_RETRYING:
        std::fprintf(stderr, "devmem-ncat: %s: no answer, trying on%s%s\n", session.remote.c_str(),
                     event.error != 0 ? ": " : "",
                     event.error != 0 ? devmem::to_error(event.error).message().c_str() : "");
        break;
    case DEVMEM_EVENT_CLOSED:
        if (!session.ended && !receive(session))
            break;
        if (!session.ended && event.error != 0)
            fail(session, devmem::to_error(event.error));
        else
            remove(session);
        break;
    case DEVMEM_EVENT_ACCEPT:
    case DEVMEM_EVENT_URGENT: // is in line
        break;
    }
}

bool Receiver::receive(Session& session)
{
    while (!session.ended) {
        const auto received = session.connection.receive(tokens_);
        if (!received) {
            if (received.error() == std::errc::resource_unavailable_try_again)
                return true;
            fail(session, received.error());
            return false;
        }
        if (*received == 0) {
            end_stream(session);
            close_if_sent(session);
        } else {
            consume(session);
        }
    }
    return true;
}

void Receiver::consume(Session& session)
{
    std::uint64_t bytes = 0, host_bytes = 0;
    for (const devmem::TokenView& token : tokens_) {
        bytes += token.length();
        host_bytes += token.on_host() ? token.length() : 0;
        look_at(session, token);
    }
    session.bytes += bytes;
    const std::int64_t now = now_.time_since_epoch() / std::chrono::nanoseconds(1);
    if (counters_.first_ns.load(std::memory_order_relaxed) == 0) {
        counters_.first_ns.store(now, std::memory_order_relaxed);
        counters_.first_cpu_ns.store(cpu_ns(), std::memory_order_relaxed);
    }
    counters_.last_ns.store(now, std::memory_order_relaxed);
    add_relaxed(counters_.bytes, bytes);
    add_relaxed(counters_.tokens, tokens_.size());
    add_relaxed(counters_.host_bytes, host_bytes);
    add_relaxed(counters_.device_bytes, bytes - host_bytes);

    if (job_.limiter.enabled() || job_.options.hold != 0) {
        while (!tokens_.empty())
            held_.push_back(tokens_.take());
        held_bytes_ += bytes;
    } else if (const auto error = tokens_.give_back()) {
        std::fprintf(stderr, "devmem-ncat: returning tokens: %s\n", error.message().c_str());
        job_.failed = true;
    }
}

void Receiver::look_at(Session& session, const devmem::TokenView& token)
{
    for (std::uint32_t at = 0; at < token.length() && looks_;) {
        const auto piece =
            std::span(buffer_).first(std::min<std::size_t>(buffer_.size(), token.length() - at));
        if (const auto error = token.read(piece, at)) {
            std::fprintf(stderr, "devmem-ncat: reading back: %s\n", error.message().c_str());
            return give_up();
        }
        if (session.hash)
            session.hash->update(piece);
        if (session.pattern) {
            for (const auto& wrong : session.pattern->check(piece)) {
                std::fprintf(stderr,
                             "devmem-ncat: -v: %s: byte %" PRIu64 " is 0x%02x, not 0x%02x\n",
                             session.remote.c_str(), wrong.offset, static_cast<unsigned>(wrong.got),
                             static_cast<unsigned>(wrong.expected));
                job_.failed = true;
            }
            if (session.pattern->errors() >= Pattern::kMaxErrors)
                return give_up();
        }
        if (job_.output.is_open()) {
            if (const int rc = job_.output.write(piece); rc < 0) {
                std::fprintf(stderr, "devmem-ncat: -o %s: %s\n", job_.options.output.c_str(),
                             devmem::to_error(rc).message().c_str());
                return give_up();
            }
        }
        at += static_cast<std::uint32_t>(piece.size());
    }
}

void Receiver::give_up()
{
    looks_ = false;
    job_.failed = job_.stop = true;
}

void Receiver::send(Session& session)
{
    while (session.sent < job_.to_send.size()) {
        const auto taken = session.connection.send(std::span(job_.to_send).subspan(session.sent));
        if (!taken) // full: WRITABLE follows. Broken: CLOSED does.
            return;
        session.sent += *taken;
    }
    close_if_sent(session);
}

void Receiver::end_stream(Session& session)
{
    if (session.ended)
        return;
    session.ended = true;
    counters_.last_cpu_ns.store(cpu_ns(), std::memory_order_relaxed);
    if (!session.hash)
        return;
    const std::string hash = session.hash->finish();
    const std::lock_guard lock(job_.mutex);
    job_.hashes.push_back(hash);
    if (!job_.options.json) {
        std::FILE* to = job_.options.to_stdout() ? stderr : stdout;
        std::fprintf(to, "sha256  %s  %s\n", hash.c_str(), session.remote.c_str());
        std::fflush(to);
    }
}

void Receiver::close_if_sent(Session& session)
{
    // CLOSED follows when the peer has acknowledged our FIN: closing before would leave that to a
    // stack that may be gone with the program.
    if (!session.ended || session.shut || session.sent < job_.to_send.size())
        return;
    session.connection.shutdown();
    session.shut = true;
    session.shut_at = now_;
    ++shut_;
}

void Receiver::fail(Session& session, std::error_code why)
{
    std::fprintf(stderr, "devmem-ncat: %s: %s after %" PRIu64 " bytes\n", session.remote.c_str(),
                 why.message().c_str(), session.bytes);
    job_.failed = true;
    remove(session);
}

void Receiver::remove(Session& session)
{
    end_stream(session);
    shut_ -= session.shut ? 1 : 0;
    sessions_.erase(session.connection.id());
    job_.closed.fetch_add(1);
    if (job_.closed >= job_.options.connections)
        job_.stop = true;
}

void Receiver::give_back_held()
{
    while (held_bytes_ > job_.options.hold) {
        const std::uint32_t bytes = held_.front()->length();
        if (job_.limiter.enabled() && !job_.limiter.take(bytes, now_))
            break;
        held_.pop_front();
        held_bytes_ -= bytes;
    }
}

} // namespace ncat
