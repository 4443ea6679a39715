// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <devmem/devmem.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ncat {

/// What the command line asks for.
struct Options {
    static constexpr std::uint64_t kNoLimit = UINT64_MAX;

    bool listen = false;
    std::string connect; ///< host to connect to; empty: listen
    std::vector<devmem_addr> addrs;
    std::vector<devmem_addr> gateways;
    devmem_endpoint source{}; ///< to connect from; family 0, port 0: any
    std::uint8_t dscp = 0;
    std::uint8_t ttl = 0; ///< 0: the library's default
    std::uint16_t tcp_port = 0;
    std::string port; ///< for devmem_port_open()
    std::uint16_t queues = 1;
    std::uint16_t hds_thresh = 0; ///< frames no longer than this are not split
    unsigned pattern = 0;         ///< period to validate; 0: none
    std::string memory = "opaque:size=256M";
    std::string output;            ///< file; "-": stdout; empty: none
    std::uint64_t connections = 1; ///< end after so many; kNoLimit: never
    bool hash = false;
    std::uint64_t rate = 0;         ///< bytes per second; 0: as fast as they come
    std::uint64_t hold = 0;         ///< bytes of a queue's tokens that are kept
    std::uint64_t unbind_after = 0; ///< bytes of a queue; 0: never
    std::string send;               ///< file; empty: none
    bool json = false;
    std::vector<std::string> eal; ///< what follows `--`

    bool to_stdout() const { return output == "-"; }
};

/// Read the command line.
/// @param message receives the help text, or one line that names the argument at fault
/// @return nothing: run; 0: print the message on stdout; 2: on stderr
std::optional<int> parse_options(int argc, const char* const* argv, Options* options,
                                 std::string* message);

/// A number of bytes with K, M or G. @return false: it is none, or 0.
bool parse_bytes(std::string_view text, std::uint64_t* bytes);

} // namespace ncat
