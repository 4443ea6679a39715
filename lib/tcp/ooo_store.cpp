// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/ooo_store.h"

#include <algorithm>

namespace devmem::tcp {

namespace {

/// Heap priority: the index mixed well, since indices and sequence numbers rise together.
std::uint32_t priority(std::uint32_t fragment)
{
    std::uint32_t x = fragment;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

} // namespace

OooStore::Inserted OooStore::insert(RunStore& runs, Payload& payload)
{
    Inserted result;
    while (!payload.empty()) {
        const Seq seq = payload.seq();
        const Around place = around(runs, seq);
        if (place.before != kNone && runs[place.before].end > seq) {
            const std::uint32_t held =
                std::min(payload.left(), distance(seq, runs[place.before].end));
            if (result.duplicate == 0) {
                result.duplicate_seq = seq;
                result.duplicate_end = seq + held;
            }
            result.duplicate += held;
            payload.skip(held);
            continue;
        }
        std::uint32_t room = payload.left();
        if (place.after != kNone)
            room = std::min(room, distance(seq, runs[place.after].seq));
        std::uint32_t dropped;
        const Run run = payload.take(room, &dropped);
        if (dropped != 0) { // cut by the island that follows
            const RunStore::Node& after = runs[place.after];
            const std::uint32_t held = std::min(dropped, distance(after.seq, after.end));
            if (result.duplicate == 0) {
                result.duplicate_seq = after.seq;
                result.duplicate_end = after.seq + held;
            }
            result.duplicate += held;
            result.shared += dropped - held;
        }
        result.fragments += run.count;
        result.bytes += run.len;
        result.last = seq;
        add(runs, run, seq, place);
    }
    return result;
}

/// Put a run into the gap between two islands: it joins those it touches.
void OooStore::add(RunStore& runs, const Run& run, Seq seq, Around place)
{
    const Seq end = seq + run.len;
    const bool joins_before = place.before != kNone && runs[place.before].end == seq;
    const bool joins_after = place.after != kNone && runs[place.after].seq == end;

    std::uint32_t island = run.first;
    if (joins_before) {
        island = place.before;
        if (!runs.merge(runs[island].tail, run)) {
            runs.put(run);
            runs[runs[island].tail].next = run.first;
            runs[island].tail = run.first;
        }
        runs[island].end = end;
    } else {
        runs.put(run);
        runs[island].seq = seq;
        runs[island].end = end;
        runs[island].tail = island;
    }

    if (joins_after) {
        const RunStore::Node after = runs[place.after];
        unlink(runs, place.after);
        if (runs.merge(runs[island].tail, runs.get(place.after))) {
            runs[runs[island].tail].next = after.next;
            if (after.tail != place.after)
                runs[island].tail = after.tail;
        } else {
            runs[runs[island].tail].next = place.after;
            runs[island].tail = after.tail;
        }
        runs[island].end = after.end;
    }
    if (!joins_before)
        link(runs, island);
    if (last_ == kNone || runs[island].end > runs[last_].end)
        last_ = island;
}

OooStore::Around OooStore::around(const RunStore& runs, Seq seq) const
{
    if (empty() || runs[last_].seq <= seq)
        return {last_, kNone};
    Around place{kNone, kNone};
    for (std::uint32_t island = root_; island != kNone;) {
        if (runs[island].seq <= seq) {
            place.before = island;
            island = runs[island].right;
        } else {
            place.after = island;
            island = runs[island].left;
        }
    }
    return place;
}

std::uint32_t OooStore::find(const RunStore& runs, Seq seq) const
{
    const std::uint32_t before = around(runs, seq).before;
    return before != kNone && seq < runs[before].end ? before : kNone;
}

void OooStore::link(RunStore& runs, std::uint32_t island)
{
    const Seq seq = runs[island].seq;
    std::uint32_t* place = &root_;
    while (*place != kNone && priority(*place) >= priority(island))
        place = seq < runs[*place].seq ? &runs[*place].left : &runs[*place].right;

    // What hung here goes below the island: the lower part to its left, the higher to its right.
    std::uint32_t below = *place;
    *place = island;
    std::uint32_t* lower = &runs[island].left;
    std::uint32_t* higher = &runs[island].right;
    while (below != kNone) {
        if (runs[below].seq < seq) {
            *lower = below;
            lower = &runs[below].right;
            below = *lower;
        } else {
            *higher = below;
            higher = &runs[below].left;
            below = *higher;
        }
    }
    *lower = *higher = kNone;
}

void OooStore::unlink(RunStore& runs, std::uint32_t island)
{
    std::uint32_t* place = &root_;
    while (*place != island)
        place = runs[island].seq < runs[*place].seq ? &runs[*place].left : &runs[*place].right;

    std::uint32_t lower = runs[island].left;
    std::uint32_t higher = runs[island].right;
    while (lower != kNone && higher != kNone) {
        if (priority(lower) >= priority(higher)) {
            *place = lower;
            place = &runs[lower].right;
            lower = *place;
        } else {
            *place = higher;
            place = &runs[higher].left;
            higher = *place;
        }
    }
    *place = lower != kNone ? lower : higher;

    if (last_ == island) {
        last_ = root_;
        while (last_ != kNone && runs[last_].right != kNone)
            last_ = runs[last_].right;
    }
}

std::uint32_t OooStore::drain(RunStore& runs, Seq seq, RunQueue& queue)
{
    if (empty())
        return 0;
    std::uint32_t first = root_;
    while (runs[first].left != kNone)
        first = runs[first].left;
    if (runs[first].seq != seq)
        return 0;
    unlink(runs, first);
    queue.splice(runs, first, runs[first].tail);
    return distance(runs[first].seq, runs[first].end);
}

std::uint32_t OooStore::clear(RunStore& runs, Sink& sink)
{
    std::uint32_t fragments = 0;
    while (!empty()) {
        const std::uint32_t island = root_;
        unlink(runs, island);
        for (std::uint32_t run = island; run != kNone;) {
            const std::uint32_t next = runs[run].next;
            sink.release(run, runs[run].count);
            fragments += runs[run].count;
            run = next;
        }
    }
    last_ = kNone;
    return fragments;
}

} // namespace devmem::tcp
