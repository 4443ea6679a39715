// SPDX-License-Identifier: BSD-3-Clause
#include <devmem/devmem.h>

#include <algorithm>
#include <bit>
#include <cerrno>

int devmem_fit(uint16_t mtu, bool ipv6, bool timestamps, uint32_t region_page_bytes,
               uint32_t alignment, struct devmem_fit* fit)
{
    constexpr uint32_t kTcpHeader = 20;
    constexpr uint32_t kTimestamps = 12;          // with its padding, RFC 7323 appendix A
    constexpr uint32_t kMaxFragment = UINT16_MAX; // rte_mbuf::buf_len
    constexpr uint32_t kFragmentsPerPage = 64;    // one bit each in a page's word
    const uint32_t min_mtu = ipv6 ? 1280 : 576;
    alignment = std::max(alignment, 1u);
    if (mtu < min_mtu || !std::has_single_bit(region_page_bytes) || !std::has_single_bit(alignment))
        return -EINVAL;
    const uint32_t largest = std::min(region_page_bytes, kMaxFragment) & -alignment;
    if (largest == 0)
        return -EINVAL;
    const uint32_t options = timestamps ? kTimestamps : 0;
    const uint32_t payload = mtu - (ipv6 ? 40u : 20u) - kTcpHeader - options;
    // A segment larger than a fragment can be is cut into equal parts, and made smaller by the few
    // bytes that would not divide.
    const uint32_t parts = (payload + largest - 1) / largest;
    const uint32_t part = payload / parts;
    const uint32_t fragment = (part + alignment - 1) & -alignment;
    uint32_t page = region_page_bytes;
    while (page / fragment > kFragmentsPerPage)
        page /= 2;
    *fit = {
        .page_bytes = page,
        .fragment_bytes = fragment,
        .fragments_per_page = page / fragment,
        // What the peer takes off again for the options it sends (RFC 6691).
        .mss = static_cast<uint16_t>(part * parts + options),
    };
    return 0;
}
