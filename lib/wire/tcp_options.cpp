// SPDX-License-Identifier: BSD-3-Clause
#include "lib/wire/bytes.h"
#include "lib/wire/frame.h"
#include "lib/wire/tcp_options_codec.h"

#include <algorithm>

namespace devmem::wire {
namespace {

enum OptionKind : std::uint8_t {
    kEnd = 0,
    kNop = 1,
    kMss = 2,
    kWindowScale = 3,
    kSackPermitted = 4,
    kSack = 5,
    kTimestamps = 8,
};

constexpr std::size_t kMaxOptionBytes = 40;

bool parse_one(std::span<const std::uint8_t> option, TcpOptions* options)
{
    const std::uint8_t* value = option.data() + 2;
    switch (option[0]) {
    case kMss:
        if (option.size() != 4)
            return false;
        options->mss = load16(value);
        return true;
    case kWindowScale:
        if (option.size() != 3)
            return false;
        // 255 is a shift count too large, like 15, not a missing option.
        options->window_scale = std::min<std::uint8_t>(value[0], TcpOptions::kNoScale - 1);
        return true;
    case kSackPermitted:
        if (option.size() != 2)
            return false;
        options->sack_permitted = true;
        return true;
    case kSack: {
        const std::size_t count = (option.size() - 2) / 8;
        if (count == 0 || count > options->sack.size() || option.size() != 2 + count * 8)
            return false;
        options->sack_count = static_cast<std::uint8_t>(count);
        options->sack = {};
        for (std::size_t i = 0; i < count; ++i)
            options->sack[i] = {load32(value + i * 8), load32(value + i * 8 + 4)};
        return true;
    }
    case kTimestamps:
        if (option.size() != 10)
            return false;
        options->timestamps = true;
        options->ts_val = load32(value);
        options->ts_ecr = load32(value + 4);
        return true;
    default:
        return true;
    }
}

/// SACK blocks that fit beside `before` bytes of other options.
std::size_t sack_blocks(const TcpOptions& options, std::size_t before)
{
    return std::min<std::size_t>(
        {options.sack_count, options.sack.size(), (kMaxOptionBytes - before - 4) / 8});
}

/// Bytes of all but SACK: each option is padded with NOPs so that its value is aligned.
std::size_t bytes_before_sack(const TcpOptions& options)
{
    return (options.mss != 0 ? 4u : 0u) + (options.timestamps ? 12u : 0u) +
           (options.sack_permitted && !options.timestamps ? 4u : 0u) +
           (options.window_scale != TcpOptions::kNoScale ? 4u : 0u);
}

std::uint8_t* put(std::uint8_t* p, std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d)
{
    p[0] = a;
    p[1] = b;
    p[2] = c;
    p[3] = d;
    return p + 4;
}

} // namespace

bool parse_tcp_options(std::span<const std::uint8_t> area, TcpOptions* options)
{
    while (!area.empty()) {
        if (area[0] == kEnd)
            return true;
        if (area[0] == kNop) {
            area = area.subspan(1);
            continue;
        }
        // A kind in the last byte has no length: it must not be looked for behind the header.
        if (area.size() < 2)
            return false;
        const std::size_t bytes = area[1];
        if (bytes < 2 || bytes > area.size() || !parse_one(area.first(bytes), options))
            return false;
        area = area.subspan(bytes);
    }
    return true;
}

std::size_t tcp_options_bytes(const TcpOptions& options)
{
    const std::size_t before = bytes_before_sack(options);
    const std::size_t blocks = sack_blocks(options, before);
    return before + (blocks == 0 ? 0 : 4 + blocks * 8);
}

void write_tcp_options(std::uint8_t* area, const TcpOptions& options)
{
    std::uint8_t* p = area;
    if (options.mss != 0) {
        store16(p + 2, options.mss);
        p[0] = kMss;
        p[1] = 4;
        p += 4;
    }
    // SACK-permitted takes the place of the two NOPs before Timestamps.
    if (options.sack_permitted)
        p = options.timestamps ? put(p, kSackPermitted, 2, kTimestamps, 10)
                               : put(p, kNop, kNop, kSackPermitted, 2);
    else if (options.timestamps)
        p = put(p, kNop, kNop, kTimestamps, 10);
    if (options.timestamps) {
        store32(p, options.ts_val);
        store32(p + 4, options.ts_ecr);
        p += 8;
    }
    if (options.window_scale != TcpOptions::kNoScale)
        p = put(p, kNop, kWindowScale, 3, options.window_scale);
    const std::size_t blocks = sack_blocks(options, static_cast<std::size_t>(p - area));
    if (blocks == 0)
        return;
    p = put(p, kNop, kNop, kSack, static_cast<std::uint8_t>(2 + blocks * 8));
    for (std::size_t i = 0; i < blocks; ++i, p += 8) {
        store32(p, options.sack[i].left);
        store32(p + 4, options.sack[i].right);
    }
}

} // namespace devmem::wire
