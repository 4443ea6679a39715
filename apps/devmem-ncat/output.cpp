// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace ncat {

int Output::open(const std::string& file)
{
    fd_ = file == "-" ? dup(STDOUT_FILENO)
                      : ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return fd_ < 0 ? -errno : 0;
}

int Output::write(std::span<const std::byte> bytes)
{
    const std::lock_guard lock(mutex_);
    while (!bytes.empty()) {
        const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
        if (written >= 0)
            bytes = bytes.subspan(static_cast<std::size_t>(written));
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int Output::close()
{
    return fd_ >= 0 && ::close(std::exchange(fd_, -1)) < 0 ? -errno : 0;
}

} // namespace ncat
