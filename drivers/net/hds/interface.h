// SPDX-License-Identifier: BSD-3-Clause
// The kernel's end of a TAP, wherever it is: its name and its network namespace may both change
// while the TAP's file descriptor stays good.
#pragma once

#include <cstdint>
#include <net/if.h>

namespace devmem::hds {

class Interface {
public:
    /// @param tap a descriptor of the TAP, kept open by the caller
    explicit Interface(int tap) : tap_(tap) {}

    /// An interface ioctl (SIOC...) on the interface. Fills in the name.
    /// @return 0 or a negative errno; -EXDEV: the interface is in a network namespace this process
    ///   may not enter (CAP_SYS_ADMIN).
    int request(unsigned long code, ifreq& request) const;

    /// Frames the kernel had for us and dropped. 0 if it does not say.
    std::uint64_t tx_dropped() const;

private:
    int tap_;
};

} // namespace devmem::hds
