// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "test/conformance/peer.h"
#include "test/conformance/script.h"

#include <cstdint>
#include <optional>
#include <string>

namespace devmem::conformance {

/// Why a play ended early.
struct Failure {
    const Event* event; ///< nullptr: after the last
    std::string text;   ///< `file:line: expected ..., got ...`
};

/// Play `script` against `peer`.
/// @param remote_isn added to the peer's sequence numbers of the script
std::optional<Failure> play(const Script& script, Peer& peer, Endpoints ends,
                            std::uint32_t remote_isn);

} // namespace devmem::conformance
