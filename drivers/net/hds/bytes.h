// SPDX-License-Identifier: BSD-3-Clause
// The bytes of a frame that lie in several places, and the Internet checksum over them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <sys/uio.h>

namespace devmem::hds {

/// Parts are memory the CPU can read; together they are at least `bytes` long.
class Bytes {
public:
    Bytes(const iovec* parts, std::uint32_t bytes) : parts_(parts), bytes_(bytes) {}

    std::uint32_t size() const { return bytes_; }
    const iovec& front() const { return parts_[0]; }

    /// Call `visit(pointer, n)` for each piece of [offset, offset + len), which must be inside.
    template <typename Visit>
    void each(std::uint32_t offset, std::uint32_t len, Visit visit) const
    {
        const iovec* part = parts_;
        std::size_t skip = offset;
        while (len != 0) {
            if (skip >= part->iov_len) {
                skip -= part++->iov_len;
                continue;
            }
            const std::size_t left = part->iov_len - skip;
            const std::size_t n = left < len ? left : len;
            visit(static_cast<const std::byte*>(part->iov_base) + skip, n);
            len -= static_cast<std::uint32_t>(n);
            skip = 0;
            ++part;
        }
    }

    void copy(std::uint32_t offset, void* to, std::uint32_t len) const;
    /// Not folded, not complemented, in memory order: 16-bit words as they lie.
    std::uint64_t sum(std::uint32_t offset, std::uint32_t len) const;

private:
    const iovec* parts_;
    std::uint32_t bytes_;
};

/// Fold to 16 bits (RFC 1071), not complemented.
std::uint16_t fold(std::uint64_t sum);

/// The sum of the pseudo header of TCP or UDP (RFC 9293 3.1, RFC 8200 8.1) in memory order.
/// @param ip the IP header, at `l3` in the frame; IPv6 if `ipv6`
std::uint64_t pseudo_sum(const Bytes& frame, std::uint32_t l3, bool ipv6, std::uint8_t protocol,
                         std::uint32_t l4_bytes);

} // namespace devmem::hds
