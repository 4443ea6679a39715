// SPDX-License-Identifier: BSD-3-Clause
// Scripts in packetdrill's dialect. doc/conformance.md says what of it is understood.
#pragma once

#include "test/conformance/packet.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace devmem::conformance {

using Micros = std::int64_t;

/// When an event is to happen, on the script's clock.
struct When {
    bool any = false;      ///< `*`: at any time
    bool relative = false; ///< `+`: counted from the event before
    Micros least = 0, most = 0;
    bool range() const { return any || least != most; }
};

/// A system call and what it is to return.
struct Call {
    std::string name;
    std::vector<std::string> arguments;
    long result = 0;
    std::string error; ///< the errno's name, where result is -1
};

/// A line of a script that does something.
struct Event {
    enum class Kind : std::uint8_t { kInbound, kOutbound, kCall };

    int line;
    std::string text;
    When when;
    Kind kind;
    Packet packet;
    Call call;
    std::string linux_differs; ///< why the kernel may, and must, fail at this event
};

struct Script {
    std::string path;
    std::vector<std::pair<std::string, std::string>> sysctls;
    Micros tolerance = 0;         ///< --tolerance_usecs
    unsigned family = 0;          ///< --ip_version: 4 or 6 alone; 0: both
    std::string linux_not_played; ///< why the script is for the engine alone
    std::vector<Event> events;
};

/// @param error receives `file:line: what`
std::optional<Script> parse_script(const std::string& path, std::string* error);

} // namespace devmem::conformance
