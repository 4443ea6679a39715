// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace devmem::tcp {

/// Bytes from SND.UNA on, sent or not: a ring that is allocated by the first write and grows by
/// doubling. For requests and replies, so small to begin with.
class SendBuffer {
public:
    std::uint32_t size() const { return size_; }

    /// Copy as much of `data` as fits `limit`. @return bytes taken, or -ENOMEM.
    std::int64_t write(std::span<const std::byte> data, std::uint32_t limit);
    /// Bytes [offset, offset + n), in two parts if the ring wraps between them.
    void view(std::uint32_t offset, std::uint32_t n, std::span<const std::byte> parts[2]) const;
    /// Forget the first `n` bytes.
    void consume(std::uint32_t n);
    void free();

private:
    bool grow(std::uint32_t need, std::uint32_t limit);

    std::unique_ptr<std::byte[]> ring_;
    std::uint32_t capacity_ = 0;
    std::uint32_t head_ = 0;
    std::uint32_t size_ = 0;
};

} // namespace devmem::tcp
