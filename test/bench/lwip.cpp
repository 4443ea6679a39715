// SPDX-License-Identifier: BSD-3-Clause
#include "test/bench/lwip.h"

#include <stdexcept>

#ifdef BENCH_LWIP

#include "test/bench/measure.h"

#include <lwip/inet_chksum.h>
#include <lwip/init.h>
#include <lwip/ip4.h>
#include <lwip/netif.h>
#include <lwip/pbuf.h>
#include <lwip/tcp.h>
#include <lwip/timeouts.h>
#include <netif/ethernet.h>
#include <rte_cycles.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

using namespace devmem;

namespace bench {
namespace {

constexpr unsigned kBurst = 32;
constexpr std::uint16_t kPort = 5001;
constexpr wire::Mac kMac{0x02, 0, 0, 0, 0, 0x01};
constexpr wire::Ip kIp{4, {10, 0, 0, 1}};
/// Of one network with all senders: no gateway is needed to answer them.
constexpr std::array<std::uint8_t, 4> kNetmask{255, 0, 0, 0};
/// Puts the IPv4 header at a multiple of four, as ports do.
constexpr std::size_t kPad = 2;

ip4_addr_t address(const std::uint8_t* bytes)
{
    ip4_addr_t address;
    IP4_ADDR(&address, bytes[0], bytes[1], bytes[2], bytes[3]);
    return address;
}

/// Received frames: headers that are written anew each time, and zeros behind them. lwIP gets them
/// as custom pbufs, which cost it neither a copy nor an allocation, and gives them back through
/// release(). The one that came back last is used first: its memory is the warmest.
class Frames {
public:
    struct Frame : pbuf_custom {
        std::vector<Frame*>* home;
        std::uint8_t* bytes;
        std::uint16_t length;

        struct pbuf* as_pbuf()
        {
            custom_free_function = release;
            return pbuf_alloced_custom(PBUF_RAW, length, PBUF_REF, this, bytes, length);
        }
    };

    Frames(std::size_t count, std::uint32_t payload) : frames_(count)
    {
        const std::size_t stride = (kPad + Traffic::kMaxHeader + payload + kLine - 1) / kLine;
        memory_.resize(count * stride);
        free_.reserve(count);
        for (std::size_t i = 0; i < count; i++) {
            frames_[i].home = &free_;
            frames_[i].bytes = memory_[i * stride].data + kPad;
            free_.push_back(&frames_[i]);
        }
    }
    Frames(const Frames&) = delete;
    Frames& operator=(const Frames&) = delete;

    std::size_t available() const { return free_.size(); }
    std::size_t held() const { return frames_.size() - free_.size(); }

    /// @pre available() != 0
    Frame& take()
    {
        Frame& frame = *free_.back();
        free_.pop_back();
        return frame;
    }

private:
    static constexpr std::size_t kLine = 64;
    struct alignas(kLine) Line {
        std::uint8_t data[kLine];
    };

    static void release(pbuf* pbuf)
    {
        auto* const frame = static_cast<Frame*>(reinterpret_cast<pbuf_custom*>(pbuf));
        frame->home->push_back(frame);
    }

    std::vector<Line> memory_;
    std::vector<Frame> frames_;
    std::vector<Frame*> free_;
};

/// Write the next segment's headers into a frame.
void write_next(Traffic& traffic, Frames::Frame& frame)
{
    frame.length =
        static_cast<std::uint16_t>(traffic.next(frame.bytes).header_bytes + traffic.load().payload);
}

} // namespace

class Lwip::Impl {
public:
    explicit Impl(const Load& load)
        : traffic_(load, kMac, kIp, kPort), frames_(kBurst + may_wait(load), load.payload),
          listener_(this), interface_(this)
    {
        for (unsigned connection = 0; connection < load.connections; connection++)
            establish(connection);
        if (accepted_ != load.connections)
            throw std::runtime_error("lwIP: not all connections were accepted");
        interface_.port.linkoutput = drop;
    }

    bool receive(unsigned segments, std::uint64_t* wire_cycles)
    {
        sys_check_timeouts();
        std::array<Frames::Frame*, kBurst> burst;
        while (segments != 0) {
            const unsigned count = std::min(segments, kBurst);
            if (frames_.available() < count)
                return false;
            const std::uint64_t begin = rte_rdtsc();
            for (unsigned i = 0; i < count; i++) {
                burst[i] = &frames_.take();
                write_next(traffic_, *burst[i]);
            }
            *wire_cycles += rte_rdtsc() - begin;
            for (unsigned i = 0; i < count; i++)
                interface_.input(burst[i]->as_pbuf());
            segments -= count;
            sent_ += count;
        }
        const std::uint64_t waiting = frames_.held();
        return waiting <= may_wait(traffic_.load()) &&
               delivered_ == (sent_ - waiting) * traffic_.load().payload;
    }

    std::uint64_t delivered() const { return delivered_; }

private:
    struct Listener {
        explicit Listener(Impl* impl)
        {
            tcp_pcb* const bound = tcp_new();
            if (bound == nullptr)
                throw std::runtime_error("lwIP: no memory");
            err_t error = tcp_bind(bound, IP4_ADDR_ANY, kPort);
            if (error == ERR_OK)
                pcb = tcp_listen_with_backlog_and_err(bound, TCP_DEFAULT_LISTEN_BACKLOG, &error);
            if (error != ERR_OK) {
                tcp_abort(bound);
                throw std::runtime_error("lwIP: cannot listen: error " + std::to_string(error));
            }
            tcp_arg(pcb, impl);
            tcp_accept(pcb, accepted);
        }
        ~Listener() { tcp_close(pcb); }

        tcp_pcb* pcb = nullptr;
    };

    struct Interface {
        explicit Interface(Impl* impl)
        {
            const ip4_addr_t ip = address(kIp.bytes.data());
            const ip4_addr_t netmask = address(kNetmask.data());
            if (netif_add(&port, &ip, &netmask, nullptr, impl, set_up, ethernet_input) == nullptr)
                throw std::runtime_error("lwIP: cannot add an interface");
            netif_set_link_up(&port);
            netif_set_up(&port);
        }
        /// Aborts the connections of its address, each with a RST that is dropped: none lingers in
        /// TIME-WAIT.
        ~Interface() { netif_remove(&port); }

        void input(pbuf* frame)
        {
            if (port.input(frame, &port) != ERR_OK)
                pbuf_free(frame);
        }

        netif port{};
    };

    /// Segments that can wait for a late one.
    static std::size_t may_wait(const Load& load)
    {
        return load.late_percent != 0 ? load.connections : 0;
    }

    static err_t set_up(netif* interface)
    {
        interface->name[0] = 'd';
        interface->name[1] = 'm';
        interface->mtu = 1500;
        interface->hwaddr_len = static_cast<u8_t>(kMac.size());
        std::ranges::copy(kMac, interface->hwaddr);
        interface->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHERNET | NETIF_FLAG_ETHARP;
        interface->output = output;
        interface->linkoutput = keep;
        return ERR_OK;
    }

    /// All senders are behind one MAC, so that lwIP is spared its ARP table.
    static err_t output(netif* interface, pbuf* packet, const ip4_addr_t*)
    {
        static constexpr eth_addr kSenders{{0x02, 0, 0, 0, 0, 0x77}};
        return ethernet_output(interface, packet,
                               reinterpret_cast<const eth_addr*>(interface->hwaddr), &kSenders,
                               ETHTYPE_IP);
    }

    static err_t keep(netif* interface, pbuf* frame)
    {
        Impl& impl = *static_cast<Impl*>(interface->state);
        impl.reply_.resize(frame->tot_len);
        pbuf_copy_partial(frame, impl.reply_.data(), frame->tot_len, 0);
        return ERR_OK;
    }

    static err_t drop(netif*, pbuf*) { return ERR_OK; }

    static err_t accepted(void* impl, tcp_pcb* pcb, err_t error)
    {
        if (error != ERR_OK)
            return error;
        tcp_recv(pcb, received); // with the listener's argument
        static_cast<Impl*>(impl)->accepted_++;
        return ERR_OK;
    }

    static err_t received(void* impl, tcp_pcb* pcb, pbuf* payload, err_t)
    {
        if (payload == nullptr) // a FIN, which nobody sends
            return ERR_OK;
        static_cast<Impl*>(impl)->delivered_ += payload->tot_len;
        tcp_recved(pcb, payload->tot_len);
        pbuf_free(payload);
        return ERR_OK;
    }

    void establish(unsigned connection)
    {
        std::array<std::uint8_t, wire::kMaxTcpHeader> header;
        input({header.data(), traffic_.syn(connection, header.data())});
        const std::size_t length = traffic_.answer(reply_, header.data());
        if (length == 0)
            throw std::runtime_error("lwIP: a SYN was not answered");
        input({header.data(), length});
    }

    void input(std::span<std::uint8_t> header)
    {
        pbuf* const frame = pbuf_alloc_reference(
            header.data(), static_cast<std::uint16_t>(header.size()), PBUF_REF);
        if (frame == nullptr)
            throw std::runtime_error("lwIP: no memory");
        interface_.input(frame);
    }

    Traffic traffic_;
    std::uint64_t sent_ = 0; ///< segments
    std::uint64_t delivered_ = 0;
    unsigned accepted_ = 0;
    std::vector<std::uint8_t> reply_; ///< what lwIP sent last
    Frames frames_;
    Listener listener_;
    Interface interface_;
};

const char* lwip_version()
{
    return LWIP_VERSION_STRING;
}

Lwip::Lwip(const Load& load)
{
    [[maybe_unused]] static const bool once = (lwip_init(), true);
    impl_ = std::make_unique<Impl>(load);
}

Lwip::~Lwip() = default;

bool Lwip::receive(unsigned segments, std::uint64_t* wire_cycles)
{
    return impl_->receive(segments, wire_cycles);
}

std::uint64_t Lwip::delivered() const
{
    return impl_->delivered();
}

double lwip_checksum_cycles(std::uint32_t payload, double seconds)
{
    Traffic traffic({.payload = payload}, kMac, kIp, kPort);
    Frames frames(kBurst, payload);
    std::array<pbuf*, kBurst> segments;
    for (pbuf*& segment : segments) {
        Frames::Frame& frame = frames.take();
        write_next(traffic, frame);
        segment = frame.as_pbuf();
        pbuf_remove_header(segment, SIZEOF_ETH_HDR + IP_HLEN);
    }
    const auto verify = [&](unsigned) {
        unsigned wrong = 0;
        for (pbuf* segment : segments) {
            const auto* const ip = static_cast<std::uint8_t*>(segment->payload) - IP_HLEN;
            const ip4_addr_t from = address(ip + 12), to = address(ip + 16);
            wrong |= inet_chksum(ip, IP_HLEN);
            wrong |= inet_chksum_pseudo(segment, IP_PROTO_TCP, segment->tot_len, &from, &to);
        }
        return wrong == 0;
    };
    return measure(verify, 1, seconds) / kBurst;
}

} // namespace bench

#else

namespace bench {

class Lwip::Impl {};

const char* lwip_version()
{
    return nullptr;
}

Lwip::Lwip(const Load&)
{
    throw std::runtime_error("built without lwIP");
}

Lwip::~Lwip() = default;

bool Lwip::receive(unsigned, std::uint64_t*)
{
    return false;
}

std::uint64_t Lwip::delivered() const
{
    return 0;
}

double lwip_checksum_cycles(std::uint32_t, double)
{
    throw std::runtime_error("built without lwIP");
}

} // namespace bench

#endif
