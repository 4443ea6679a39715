// SPDX-License-Identifier: BSD-3-Clause
#include <devmem/devmem.h>

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

int devmem_addr_parse(const char* text, devmem_addr* addr)
{
    const std::string_view whole = text;
    const std::string_view host = whole.substr(0, whole.find('/'));
    char buffer[INET6_ADDRSTRLEN];
    if (host.size() >= sizeof(buffer))
        return -EINVAL;
    buffer[host.copy(buffer, host.size())] = '\0';

    devmem_addr parsed{};
    parsed.family = host.find(':') == std::string_view::npos ? 4 : 6;
    const bool ipv6 = parsed.family == 6;
    if (inet_pton(ipv6 ? AF_INET6 : AF_INET, buffer, parsed.bytes) != 1)
        return -EINVAL;
    parsed.prefix_len = ipv6 ? 128 : 32;
    if (host.size() < whole.size()) {
        const char* end = whole.data() + whole.size();
        uint8_t length = 0;
        const auto [at, ec] = std::from_chars(host.data() + host.size() + 1, end, length);
        if (ec != std::errc{} || at != end || length > parsed.prefix_len)
            return -EINVAL;
        parsed.prefix_len = length;
    }
    *addr = parsed;
    return 0;
}

void devmem_addr_format(const devmem_addr* addr, char* text, size_t len)
{
    char buffer[INET6_ADDRSTRLEN] = "";
    inet_ntop(addr->family == 6 ? AF_INET6 : AF_INET, addr->bytes, buffer, sizeof(buffer));
    if (len != 0)
        text[std::string_view(buffer).copy(text, len - 1)] = '\0';
}
