// SPDX-License-Identifier: BSD-3-Clause
#include "lib/tcp/send_buffer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

namespace devmem::tcp {

namespace {

constexpr std::uint32_t kFirstCapacity = 4096;

} // namespace

std::int64_t SendBuffer::write(std::span<const std::byte> data, std::uint32_t limit)
{
    const std::uint64_t need = std::min<std::uint64_t>(size_ + data.size(), limit);
    if (need > capacity_ && !grow(static_cast<std::uint32_t>(need), limit))
        return -ENOMEM;
    const auto taken =
        static_cast<std::uint32_t>(std::min<std::size_t>(data.size(), capacity_ - size_));
    if (taken == 0)
        return 0;
    const std::uint32_t tail = (head_ + size_) % capacity_;
    const std::uint32_t before_wrap = std::min(taken, capacity_ - tail);
    std::memcpy(&ring_[tail], data.data(), before_wrap);
    std::memcpy(&ring_[0], data.data() + before_wrap, taken - before_wrap);
    size_ += taken;
    return taken;
}

bool SendBuffer::grow(std::uint32_t need, std::uint32_t limit)
{
    std::uint64_t capacity = std::max(capacity_, kFirstCapacity);
    while (capacity < need)
        capacity *= 2;
    const auto bounded = static_cast<std::uint32_t>(std::min<std::uint64_t>(capacity, limit));
    std::unique_ptr<std::byte[]> ring(new (std::nothrow) std::byte[bounded]);
    if (!ring)
        return false;
    std::span<const std::byte> parts[2];
    view(0, size_, parts);
    std::copy(parts[0].begin(), parts[0].end(), ring.get());
    std::copy(parts[1].begin(), parts[1].end(), ring.get() + parts[0].size());
    ring_ = std::move(ring);
    capacity_ = bounded;
    head_ = 0;
    return true;
}

void SendBuffer::view(std::uint32_t offset, std::uint32_t n,
                      std::span<const std::byte> parts[2]) const
{
    parts[0] = parts[1] = {};
    if (n == 0)
        return;
    const std::uint32_t begin = (head_ + offset) % capacity_;
    const std::uint32_t before_wrap = std::min(n, capacity_ - begin);
    parts[0] = {&ring_[begin], before_wrap};
    parts[1] = {&ring_[0], n - before_wrap};
}

void SendBuffer::consume(std::uint32_t n)
{
    size_ -= n;
    head_ = size_ == 0 ? 0 : (head_ + n) % capacity_;
}

void SendBuffer::free()
{
    ring_.reset();
    capacity_ = head_ = size_ = 0;
}

} // namespace devmem::tcp
