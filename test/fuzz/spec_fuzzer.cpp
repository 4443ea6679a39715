// SPDX-License-Identifier: BSD-3-Clause
// What a user writes: region specs and addresses; and the arithmetic of devmem_fit(). Byte 0 says
// which.
#include "test/fuzz/check.h"
#include "test/fuzz/target.h"

#include <devmem/devmem.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <string>

namespace {

__extension__ using Wide = unsigned __int128;

/// Sizes between these are allowed, and would be had: megabytes for each input.
constexpr Wide kLeastLarge = 1u << 20;
constexpr Wide kMostLarge = Wide{1} << 47;

/// Whether a number in the text, read as a size, lies between them.
bool asks_for_much(const std::string& text)
{
    for (std::size_t i = 0; i < text.size();) {
        if (!std::isdigit(static_cast<unsigned char>(text[i]))) {
            i++;
            continue;
        }
        Wide value = 0;
        for (; i < text.size() && std::isdigit(static_cast<unsigned char>(text[i])); i++)
            value = std::min(value * 10 + static_cast<unsigned>(text[i] - '0'), kMostLarge << 8);
        const char unit = i < text.size() ? text[i] : ' ';
        value <<= std::strchr("gG", unit)   ? 30
                  : std::strchr("mM", unit) ? 20
                  : std::strchr("kK", unit) ? 10
                                            : 0;
        if (value > kLeastLarge && value < kMostLarge)
            return true;
    }
    return false;
}

void try_region(const std::string& spec)
{
    if (asks_for_much(spec))
        return;
    devmem_region* region = nullptr;
    std::array<char, 512> error;
    error.fill('x');
    const int rc = devmem_region_create(spec.c_str(), &region, error.data(), error.size());
    if (rc != 0) {
        FUZZ_CHECK(rc == -EINVAL || rc == -ENOMEM || rc == -EOPNOTSUPP);
        const auto* end = static_cast<const char*>(std::memchr(error.data(), 0, error.size()));
        FUZZ_CHECK(end != nullptr && end != error.data()); // it says why
        return;
    }
    devmem_region_info info{};
    devmem_region_info_get(region, &info);
    FUZZ_CHECK(info.bytes != 0 && info.page_bytes != 0 && info.bytes % info.page_bytes == 0);
    FUZZ_CHECK((info.page_bytes & (info.page_bytes - 1)) == 0);
    FUZZ_CHECK(info.populated <= info.bytes && info.populated % info.page_bytes == 0);
    FUZZ_CHECK(info.readable == ((info.flags & DEVMEM_REGION_READABLE) != 0));

    // The spec in full makes the same region.
    devmem_region* again = nullptr;
    FUZZ_CHECK(devmem_region_create(info.spec, &again, nullptr, 0) == 0);
    devmem_region_info same{};
    devmem_region_info_get(again, &same);
    FUZZ_CHECK(std::strcmp(info.spec, same.spec) == 0 && info.bytes == same.bytes);
    FUZZ_CHECK(info.page_bytes == same.page_bytes && info.populated == same.populated);
    devmem_region_release(again);

    std::uint8_t byte;
    FUZZ_CHECK(devmem_region_read(region, info.bytes, &byte, 1) == -ERANGE);
    FUZZ_CHECK(devmem_region_read(region, UINT64_MAX, &byte, 1) == -ERANGE);
    if (info.populated != 0)
        FUZZ_CHECK(devmem_region_read(region, info.populated - 1, &byte, 1) == 0);
    devmem_region_release(region);
}

void try_address(const std::string& text)
{
    devmem_addr addr{};
    const int rc = devmem_addr_parse(text.c_str(), &addr);
    if (rc != 0) {
        FUZZ_CHECK(rc == -EINVAL);
        return;
    }
    FUZZ_CHECK(addr.family == 4 || addr.family == 6);
    FUZZ_CHECK(addr.prefix_len <= (addr.family == 4 ? 32 : 128));
    char printed[46];
    devmem_addr_format(&addr, printed, sizeof(printed));
    devmem_addr again{};
    FUZZ_CHECK(devmem_addr_parse(printed, &again) == 0);
    FUZZ_CHECK(again.family == addr.family);
    FUZZ_CHECK(std::equal(std::begin(addr.bytes), std::end(addr.bytes), again.bytes));
    // Whatever room there is.
    for (std::size_t room = 0; room < 8; room++) {
        char small[8];
        std::memset(small, 'x', sizeof(small));
        devmem_addr_format(&addr, small, room);
        FUZZ_CHECK(
            std::all_of(small + room, small + sizeof(small), [](char c) { return c == 'x'; }));
    }
}

void try_fit(const std::uint8_t* data, std::size_t size)
{
    struct {
        std::uint32_t page, alignment;
        std::uint16_t mtu;
        std::uint8_t options;
    } in{};
    std::memcpy(&in, data, std::min(size, sizeof(in)));
    const bool ipv6 = in.options & 1, timestamps = in.options & 2;
    if (in.options & 4)
        in.page = 1u << (in.page & 31);
    if (in.options & 8)
        in.alignment = 1u << (in.alignment & 31);
    struct devmem_fit fit {};
    const int rc = devmem_fit(in.mtu, ipv6, timestamps, in.page, in.alignment, &fit);
    if (rc != 0) {
        FUZZ_CHECK(rc == -EINVAL);
        return;
    }
    const std::uint32_t alignment = std::max(in.alignment, 1u);
    FUZZ_CHECK(fit.page_bytes != 0 && fit.page_bytes <= in.page);
    FUZZ_CHECK((fit.page_bytes & (fit.page_bytes - 1)) == 0);
    FUZZ_CHECK(fit.fragments_per_page >= 1 && fit.fragments_per_page <= 64);
    FUZZ_CHECK(fit.fragment_bytes <= 65535 && fit.fragment_bytes % alignment == 0);
    FUZZ_CHECK(std::uint64_t{fit.fragment_bytes} * fit.fragments_per_page <= fit.page_bytes);
    const std::uint32_t headers = (ipv6 ? 40u : 20u) + 20u;
    FUZZ_CHECK(fit.mss + headers <= in.mtu && fit.mss != 0);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    if (size == 0 || size > 128)
        return 0;
    const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
    switch (data[0] % 4) {
    case 0:
        try_region(text);
        break;
    case 1:
        try_address(text);
        break;
    case 2:
        try_region("host:size=64K," + text);
        break;
    default:
        try_fit(data + 1, size - 1);
    }
    return 0;
}
