// SPDX-License-Identifier: BSD-3-Clause
// The option area of a TCP header against a reading of RFC 9293 3.2 that shares no code with ours,
// and back to bytes.
#include "lib/wire/frame.h"
#include "lib/wire/tcp_options_codec.h"
#include "test/fuzz/check.h"
#include "test/fuzz/target.h"

#include <array>

namespace {

using devmem::wire::TcpOptions;

constexpr std::size_t kMostBytes = 40;

std::uint32_t number(std::span<const std::uint8_t> bytes)
{
    std::uint32_t value = 0;
    for (const std::uint8_t byte : bytes)
        value = value << 8 | byte;
    return value;
}

/// Length an option of a known kind must have; for SACK the least. 0: any.
std::size_t known_length(std::uint8_t kind)
{
    switch (kind) {
    case 2: // maximum segment size
        return 4;
    case 3: // window scale
        return 3;
    case 4: // SACK permitted
        return 2;
    case 5: // SACK
        return 10;
    case 8: // timestamps
        return 10;
    default:
        return 0;
    }
}

/// @return whether the area is well formed.
bool read_options(std::span<const std::uint8_t> area, TcpOptions* options)
{
    std::size_t at = 0;
    while (at < area.size() && area[at] != 0) {
        if (area[at] == 1) {
            at++;
            continue;
        }
        const std::uint8_t kind = area[at];
        if (at + 1 == area.size())
            return false;
        const std::size_t length = area[at + 1];
        if (length < 2 || length > area.size() - at)
            return false;
        const std::size_t known = known_length(kind);
        const bool whole_blocks = length % 8 == 2 && length >= known && length <= 34;
        if (known != 0 && (kind == 5 ? !whole_blocks : length != known))
            return false;
        const std::span<const std::uint8_t> value = area.subspan(at + 2, length - 2);
        at += length;
        if (kind == 2) {
            options->mss = static_cast<std::uint16_t>(number(value));
        } else if (kind == 3) {
            options->window_scale = value[0] == 255 ? std::uint8_t{254} : value[0];
        } else if (kind == 4) {
            options->sack_permitted = true;
        } else if (kind == 8) {
            options->timestamps = true;
            options->ts_val = number(value.first(4));
            options->ts_ecr = number(value.last(4));
        } else if (kind == 5) {
            options->sack = {};
            options->sack_count = static_cast<std::uint8_t>(value.size() / 8);
            for (std::size_t i = 0; i < options->sack_count; i++)
                options->sack[i] = {number(value.subspan(8 * i, 4)),
                                    number(value.subspan(8 * i + 4, 4))};
        }
    }
    return true;
}

/// What is written is read as the same; SACK blocks for which there was no room are missing.
void check_written(const TcpOptions& options)
{
    std::array<std::uint8_t, kMostBytes> bytes{};
    const std::size_t n = devmem::wire::tcp_options_bytes(options);
    FUZZ_CHECK(n % 4 == 0 && n <= bytes.size());
    devmem::wire::write_tcp_options(bytes.data(), options);
    for (std::size_t i = n; i < bytes.size(); i++)
        FUZZ_CHECK(bytes[i] == 0);
    TcpOptions again;
    FUZZ_CHECK(read_options({bytes.data(), n}, &again));
    TcpOptions expected = options;
    FUZZ_CHECK(again.sack_count <= options.sack_count);
    FUZZ_CHECK(again.sack_count == options.sack_count || n + 8 > bytes.size());
    for (std::size_t i = again.sack_count; i < expected.sack.size(); i++)
        expected.sack[i] = {};
    expected.sack_count = again.sack_count;
    FUZZ_CHECK(again == expected);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    if (size > kMostBytes)
        return 0;
    TcpOptions ours, expected;
    const bool good = devmem::wire::parse_tcp_options({data, size}, &ours);
    FUZZ_CHECK(good == read_options({data, size}, &expected));
    if (good) {
        FUZZ_CHECK(ours == expected);
        check_written(ours);
    }
    return 0;
}
