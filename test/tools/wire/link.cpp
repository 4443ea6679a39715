// SPDX-License-Identifier: BSD-3-Clause
#include "test/tools/wire/link.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace wire {

struct Link::Fate {
    bool lost;
    bool lost_in_burst;
    bool corrupted;
    bool duplicated;
    bool reordered;
    double jitter;          ///< of the most
    std::uint64_t position; ///< of the bit that flips
};

Link::Link(Impairments impairments, std::uint64_t seed)
    : impairments_(std::move(impairments)), seed_(seed)
{
}

/// Every number is drawn for every packet, so that one impairment does not change another's.
Link::Fate Link::draw()
{
    if (counters_.packets < impairments_.from)
        return {};
    Random random(seed_, counters_.packets);
    const auto happens = [&](double probability) { return random.fraction() < probability; };
    const bool turns = happens(bad_ ? impairments_.burst_leave : impairments_.burst_enter);
    bad_ = bad_ != turns;
    Fate fate;
    fate.lost_in_burst = happens(impairments_.burst_loss) && bad_;
    fate.lost = happens(impairments_.loss);
    fate.corrupted = happens(impairments_.corrupt);
    fate.duplicated = happens(impairments_.duplicate);
    fate.reordered = happens(impairments_.reorder);
    fate.jitter = random.fraction();
    fate.position = random.next();
    return fate;
}

std::uint16_t Link::mtu() const
{
    std::uint16_t mtu = std::numeric_limits<std::uint16_t>::max();
    for (const MtuStep& step : impairments_.mtu) {
        if (counters_.packets >= step.packet)
            mtu = step.mtu;
    }
    return mtu;
}

/// A token bucket in its virtual-clock form: `free_at_` is when all that was let in has gone.
bool Link::through_queue(std::size_t bytes, Time now, Time* departure)
{
    *departure = now;
    if (impairments_.rate == 0)
        return true;
    const double ns_per_byte = 1e9 / impairments_.rate;
    const double start =
        std::max(free_at_, static_cast<double>(now) - impairments_.bucket * ns_per_byte);
    const double waits = (start - static_cast<double>(now)) / ns_per_byte;
    if (waits + static_cast<double>(bytes) > impairments_.queue)
        return false;
    free_at_ = start + static_cast<double>(bytes) * ns_per_byte;
    *departure = std::max(now, static_cast<Time>(free_at_));
    return true;
}

void Link::deliver(Frame frame, Time at)
{
    in_flight_.emplace(at, std::move(frame));
}

Frame Link::put(Frame frame, Time now)
{
    counters_.frames++;
    const std::optional<Packet> packet = parse(frame);
    if (!packet) {
        counters_.passed_by++;
        deliver(std::move(frame), now + impairments_.delay);
        return {};
    }
    const Fate fate = draw();
    const std::uint16_t most = mtu();
    counters_.packets++;
    if (packet->ip_bytes() > most) {
        counters_.too_big++;
        return too_big(frame, *packet, most);
    }
    if (fate.lost || fate.lost_in_burst) {
        (fate.lost ? counters_.lost : counters_.lost_in_bursts)++;
        return {};
    }
    Time departure;
    if (!through_queue(frame.size(), now, &departure)) {
        counters_.queue_full++;
        return {};
    }
    if (fate.corrupted) {
        counters_.corrupted++;
        const std::uint64_t bit = fate.position % (8 * (packet->end - packet->payload));
        frame[packet->payload + bit / 8] ^= static_cast<std::uint8_t>(1u << bit % 8);
    }
    const auto jitter = static_cast<Time>(fate.jitter * static_cast<double>(impairments_.jitter));
    Time arrival = std::max(departure + impairments_.delay + jitter, last_);
    if (fate.reordered) {
        counters_.reordered++;
        arrival += impairments_.reorder_by;
    } else {
        last_ = arrival;
    }
    if (fate.duplicated) {
        counters_.duplicated++;
        deliver(frame, arrival);
    }
    deliver(std::move(frame), arrival);
    return {};
}

Time Link::next() const
{
    return in_flight_.empty() ? std::numeric_limits<Time>::max() : in_flight_.begin()->first;
}

Frame Link::take()
{
    Frame frame = std::move(in_flight_.extract(in_flight_.begin()).mapped());
    counters_.delivered++;
    counters_.delivered_bytes += frame.size();
    return frame;
}

} // namespace wire
