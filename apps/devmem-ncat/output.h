// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <mutex>
#include <span>
#include <string>

namespace ncat {

/// Where -o writes. Shards share it: bytes of several connections come in the order of their
/// arrival.
class Output {
public:
    Output() = default;
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;
    ~Output() { close(); }

    /// @param file "-": stdout. @return 0, or a negative errno.
    int open(const std::string& file);
    bool is_open() const { return fd_ >= 0; }
    /// Write all of it. @return 0, or a negative errno.
    int write(std::span<const std::byte> bytes);
    /// @return 0, or a negative errno: bytes may be lost.
    int close();

private:
    std::mutex mutex_;
    int fd_ = -1;
};

} // namespace ncat
