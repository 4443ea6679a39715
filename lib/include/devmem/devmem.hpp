// SPDX-License-Identifier: BSD-3-Clause
/**
 * @file
 * Ownership on top of devmem.h: what is created is released when its object goes, tokens return
 * themselves, and a device address has a type of its own. Nothing here throws but for want of
 * memory when a TokenBatch is made; everything is as cheap as the C function behind it.
 *
 * Objects must go in the reverse order of their making: connections and listeners before the stack,
 * the stack before its port. Tokens may stay as long as they like.
 */
#ifndef DEVMEM_DEVMEM_HPP
#define DEVMEM_DEVMEM_HPP

#include <devmem/devmem.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace devmem {
// Keeps these names apart from the library's own in a program that links it statically.
inline namespace api {

/// A value, or why there is none.
template <typename T>
class [[nodiscard]] Result {
public:
    Result(T value) : state_(std::move(value)) {}
    Result(std::error_code error) : state_(error) {}

    explicit operator bool() const { return state_.index() == 0; }
    T& operator*() & { return *std::get_if<T>(&state_); }
    const T& operator*() const& { return *std::get_if<T>(&state_); }
    T&& operator*() && { return std::move(*std::get_if<T>(&state_)); }
    T* operator->() { return std::get_if<T>(&state_); }
    /// The errno of the C function, in std::generic_category(). Only if there is no value.
    std::error_code error() const { return *std::get_if<std::error_code>(&state_); }

private:
    static_assert(!std::is_same_v<T, std::error_code>);
    std::variant<T, std::error_code> state_;
};

/// What a C function of devmem.h returned, as an error_code; none if it is not negative.
inline std::error_code to_error(int rc)
{
    return {rc < 0 ? -rc : 0, std::generic_category()};
}

/// Where the device finds a byte. Not a pointer: the CPU may not be able to read there.
enum class DeviceAddress : std::uint64_t {};

/// A reference on a region.
class Region {
public:
    /// @param why receives one line when the spec is refused
    static Result<Region> create(const char* spec, std::string* why = nullptr)
    {
        char text[kErrorBytes] = "";
        devmem_region* raw = nullptr;
        const int rc = devmem_region_create(spec, &raw, text, sizeof(text));
        if (rc == 0)
            return Region(raw);
        if (why)
            *why = text;
        return to_error(rc);
    }
    Region(Region&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    Region& operator=(Region other) noexcept
    {
        std::swap(raw_, other.raw_);
        return *this;
    }
    ~Region() { devmem_region_release(raw_); }

    devmem_region* get() const { return raw_; }
    devmem_region_info info() const
    {
        devmem_region_info info;
        devmem_region_info_get(raw_, &info);
        return info;
    }
    std::error_code read(std::uint64_t offset, std::span<std::byte> to) const
    {
        return to_error(devmem_region_read(raw_, offset, to.data(), to.size()));
    }

    /// Room for the one line that the create functions explain a refusal with.
    static constexpr std::size_t kErrorBytes = 512;

private:
    explicit Region(devmem_region* raw) : raw_(raw) {}
    devmem_region* raw_;
};

/// What a token says. Looking at it is not owning it: see Token and TokenBatch.
class TokenView {
public:
    DeviceAddress address() const { return DeviceAddress{raw_.address}; }
    std::uint64_t offset() const { return raw_.offset; }
    std::uint32_t length() const { return raw_.length; }
    /// The bytes arrived in host memory.
    bool on_host() const { return (raw_.flags & DEVMEM_TOKEN_HOST) != 0; }
    const devmem_region* region() const { return raw_.region; }

    /// Copy `to.size()` bytes, from byte `from` of the token on, through the provider.
    std::error_code read(std::span<std::byte> to, std::uint32_t from = 0) const
    {
        return to_error(devmem_region_read(raw_.region, raw_.offset + from, to.data(), to.size()));
    }

private:
    friend class Token;
    friend class TokenBatch;
    devmem_token raw_{};
};
// A TokenBatch hands an array of them to devmem_recv().
static_assert(sizeof(TokenView) == sizeof(devmem_token) && std::is_standard_layout_v<TokenView>);

/// Owns one token and returns it.
class Token {
public:
    Token(Token&& other) noexcept : view_(std::exchange(other.view_, {})) {}
    Token& operator=(Token&& other) noexcept
    {
        std::swap(view_, other.view_);
        return *this;
    }
    ~Token()
    {
        if (view_.region())
            devmem_token_return(&view_.raw_, 1);
    }
    const TokenView& operator*() const { return view_; }
    const TokenView* operator->() const { return &view_; }
    /// Keep the first `at` bytes. @return the others; nothing if the token is not longer than that
    /// or cannot be split. @see devmem_token_split()
    std::optional<Token> split(std::uint32_t at)
    {
        TokenView rest;
        if (devmem_token_split(&view_.raw_, at, &rest.raw_) != 0)
            return std::nullopt;
        return Token(rest);
    }

private:
    friend class TokenBatch;
    explicit Token(const TokenView& view) : view_(view) {}
    TokenView view_;
};

/// Owns tokens in the order of their stream. Connection::receive() fills it, give_back() returns
/// them all in one call; what is left goes back with the batch. Allocates only when it is made.
class TokenBatch {
public:
    explicit TokenBatch(unsigned capacity = 64) : views_(capacity) {}
    TokenBatch(TokenBatch&& other) noexcept
        : views_(std::move(other.views_)), first_(std::exchange(other.first_, 0)),
          end_(std::exchange(other.end_, 0))
    {
    }
    TokenBatch& operator=(TokenBatch&& other) noexcept
    {
        std::swap(views_, other.views_);
        std::swap(first_, other.first_);
        std::swap(end_, other.end_);
        return *this;
    }
    ~TokenBatch() { give_back(); }

    bool empty() const { return first_ == end_; }
    unsigned size() const { return end_ - first_; }
    const TokenView* begin() const { return views_.data() + first_; }
    const TokenView* end() const { return views_.data() + end_; }

    /// Take the first token out, to be returned by itself.
    Token take()
    {
        Token token(views_[first_++]);
        if (empty())
            first_ = end_ = 0;
        return token;
    }

    /// Return the tokens. @return stale_file_handle (ESTALE) if one had been returned before.
    std::error_code give_back()
    {
        const int rc = empty() ? 0 : devmem_token_return(raw() + first_, size());
        first_ = end_ = 0;
        return to_error(rc);
    }

private:
    friend class Connection;
    friend class Shard;
    devmem_token* raw() { return reinterpret_cast<devmem_token*>(views_.data()); }

    std::vector<TokenView> views_;
    unsigned first_ = 0;
    unsigned end_ = 0;
};

/// A connection; closed when it goes. To be used by its shard's thread.
class Connection {
public:
    Connection(devmem_shard* shard, devmem_conn_t id) : shard_(shard), id_(id) {}
    Connection(Connection&& other) noexcept
        : shard_(std::exchange(other.shard_, nullptr)), id_(other.id_)
    {
    }
    Connection& operator=(Connection other) noexcept
    {
        std::swap(shard_, other.shard_);
        std::swap(id_, other.id_);
        return *this;
    }
    ~Connection()
    {
        if (shard_)
            devmem_close(shard_, id_);
    }

    /// The handle that events name the connection by.
    devmem_conn_t id() const { return id_; }

    /// Append tokens to a batch that has room. @return how many; 0: the peer closed and all was
    /// received; resource_unavailable_try_again (EAGAIN): nothing now; or as devmem_recv().
    Result<unsigned> receive(TokenBatch& batch)
    {
        const auto room = static_cast<unsigned>(batch.views_.size()) - batch.end_;
        const int rc = devmem_recv(shard_, id_, batch.raw() + batch.end_, room);
        if (rc < 0)
            return to_error(rc);
        batch.end_ += static_cast<unsigned>(rc);
        return static_cast<unsigned>(rc);
    }
    /// @return bytes taken, or as devmem_send().
    Result<std::size_t> send(std::span<const std::byte> bytes)
    {
        const std::int64_t rc = devmem_send(shard_, id_, bytes.data(), bytes.size());
        if (rc < 0)
            return to_error(static_cast<int>(rc));
        return static_cast<std::size_t>(rc);
    }
    std::error_code shutdown() { return to_error(devmem_shutdown(shard_, id_)); }
    /// Reset instead of close.
    std::error_code abort() { return to_error(devmem_abort(std::exchange(shard_, nullptr), id_)); }
    /// DSCP, and TTL or hop limit, of what is sent from now on.
    std::error_code set_ip(std::uint8_t dscp, std::uint8_t ttl)
    {
        return to_error(devmem_conn_set_ip(shard_, id_, dscp, ttl));
    }
    std::error_code endpoints(devmem_endpoint* local, devmem_endpoint* remote) const
    {
        return to_error(devmem_conn_endpoints(shard_, id_, local, remote));
    }
    /// @return bytes that remain to be received of urgent data; see devmem_conn_urgent().
    Result<std::size_t> urgent() const
    {
        const std::int64_t rc = devmem_conn_urgent(shard_, id_);
        if (rc < 0)
            return to_error(static_cast<int>(rc));
        return static_cast<std::size_t>(rc);
    }

private:
    devmem_shard* shard_;
    devmem_conn_t id_;
};

/// A listener; closed when it goes. To be used by its shard's thread.
class Listener {
public:
    Listener(devmem_shard* shard, devmem_listener_t id) : shard_(shard), id_(id) {}
    Listener(Listener&& other) noexcept
        : shard_(std::exchange(other.shard_, nullptr)), id_(other.id_)
    {
    }
    Listener& operator=(Listener other) noexcept
    {
        std::swap(shard_, other.shard_);
        std::swap(id_, other.id_);
        return *this;
    }
    ~Listener()
    {
        if (shard_)
            devmem_listen_close(shard_, id_);
    }

    devmem_listener_t id() const { return id_; }
    /// @return resource_unavailable_try_again (EAGAIN): none waits.
    Result<Connection> accept()
    {
        devmem_conn_t conn;
        if (const int rc = devmem_accept(shard_, id_, &conn); rc < 0)
            return to_error(rc);
        return Connection(shard_, conn);
    }

private:
    devmem_shard* shard_;
    devmem_listener_t id_;
};

/// A shard of a stack, which owns it.
class Shard {
public:
    explicit Shard(devmem_shard* raw) : raw_(raw) {}
    devmem_shard* get() const { return raw_; }

    /// Receive, run timers, transmit. @return the events, in the room given.
    std::span<devmem_event> poll(std::span<devmem_event> room, bool* busy = nullptr)
    {
        return room.first(
            devmem_shard_poll(raw_, room.data(), static_cast<unsigned>(room.size()), busy));
    }
    /// Only take events that poll() left. @see devmem_shard_events()
    std::span<devmem_event> events(std::span<devmem_event> room)
    {
        return room.first(
            devmem_shard_events(raw_, room.data(), static_cast<unsigned>(room.size())));
    }
    /// Append tokens of whichever connections have some, and whose they are, as far as both have
    /// room. @return whose @see devmem_recv_burst()
    std::span<devmem_conn_t> receive(TokenBatch& batch, std::span<devmem_conn_t> conns)
    {
        const std::size_t room = std::min(conns.size(), batch.views_.size() - batch.end_);
        const unsigned n = devmem_recv_burst(raw_, conns.data(), batch.raw() + batch.end_,
                                             static_cast<unsigned>(room));
        batch.end_ += n;
        return conns.first(n);
    }
    Result<Listener> listen(std::uint16_t port, unsigned backlog)
    {
        devmem_listener_t listener;
        if (const int rc = devmem_listen(raw_, port, backlog, &listener); rc < 0)
            return to_error(rc);
        return Listener(raw_, listener);
    }
    /// Completion is an event: CONNECTED or CLOSED.
    /// @param local from where, as devmem_connect_from()
    Result<Connection> connect(const devmem_endpoint& remote,
                               const devmem_endpoint* local = nullptr)
    {
        devmem_conn_t conn;
        if (const int rc = devmem_connect_from(raw_, local, &remote, &conn); rc < 0)
            return to_error(rc);
        return Connection(raw_, conn);
    }
    /// Write payload to another region from now on, or to host memory (nullptr).
    /// @param why receives one line when that is refused
    std::error_code rebind(const Region* region, std::string* why = nullptr)
    {
        char text[Region::kErrorBytes] = "";
        const int rc =
            devmem_shard_rebind(raw_, region ? region->get() : nullptr, text, sizeof(text));
        if (rc < 0 && why)
            *why = text;
        return to_error(rc);
    }
    devmem_shard_stats stats() const
    {
        devmem_shard_stats stats;
        devmem_shard_stats_get(raw_, &stats);
        return stats;
    }

private:
    devmem_shard* raw_;
};

/// A port that splits headers from payload.
class Port {
public:
    /// `config.size` is filled in.
    static Result<Port> open(devmem_port_config config, std::string* why = nullptr)
    {
        config.size = sizeof(config);
        char text[Region::kErrorBytes] = "";
        devmem_port raw{};
        const int rc = devmem_port_open_config(&config, &raw, text, sizeof(text));
        if (rc == 0)
            return Port(raw);
        if (why)
            *why = text;
        return to_error(rc);
    }
    static Result<Port> open(const char* spec, std::uint16_t queues, std::string* why = nullptr)
    {
        return open({.size = 0, .spec = spec, .queues = queues, .hds_thresh = 0}, why);
    }
    Port(Port&& other) noexcept : raw_(other.raw_), open_(std::exchange(other.open_, false)) {}
    Port& operator=(Port other) noexcept
    {
        std::swap(raw_, other.raw_);
        std::swap(open_, other.open_);
        return *this;
    }
    ~Port()
    {
        if (open_)
            devmem_port_close(&raw_);
    }
    const devmem_port& operator*() const { return raw_; }
    const devmem_port* operator->() const { return &raw_; }

private:
    explicit Port(const devmem_port& raw) : raw_(raw) {}
    devmem_port raw_;
    bool open_ = true;
};

/// A running port with its shards.
class Stack {
public:
    /// @param config `size` is filled in
    static Result<Stack> create(devmem_stack_config config, std::string* why = nullptr)
    {
        char text[Region::kErrorBytes] = "";
        config.size = sizeof(config);
        devmem_stack* raw = nullptr;
        const int rc = devmem_stack_create(&config, &raw, text, sizeof(text));
        if (rc == 0)
            return Stack(raw);
        if (why)
            *why = text;
        return to_error(rc);
    }
    Stack(Stack&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    Stack& operator=(Stack other) noexcept
    {
        std::swap(raw_, other.raw_);
        return *this;
    }
    ~Stack()
    {
        if (raw_)
            devmem_stack_destroy(raw_);
    }

    Shard shard(unsigned index) const { return Shard(devmem_stack_shard(raw_, index)); }
    struct devmem_fit fit() const
    {
        struct devmem_fit fit;
        devmem_stack_fit(raw_, &fit);
        return fit;
    }

private:
    explicit Stack(devmem_stack* raw) : raw_(raw) {}
    devmem_stack* raw_;
};

/// @see devmem_addr_parse()
inline Result<devmem_addr> parse_addr(const char* text)
{
    devmem_addr addr;
    if (const int rc = devmem_addr_parse(text, &addr); rc < 0)
        return to_error(rc);
    return addr;
}

inline std::string to_string(const devmem_addr& addr)
{
    char text[46];
    devmem_addr_format(&addr, text, sizeof(text));
    return text;
}

} // namespace api
} // namespace devmem

#endif // DEVMEM_DEVMEM_HPP
