// SPDX-License-Identifier: BSD-3-Clause
// Network namespaces of the bench's own, and the links in them.
#pragma once

#include <string>
#include <vector>

namespace bench {

/// A network namespace that goes with its last process and this object.
class Namespace {
public:
    /// Throws std::runtime_error: it takes root.
    Namespace();
    ~Namespace();
    Namespace(const Namespace&) = delete;
    Namespace& operator=(const Namespace&) = delete;

    /// What `ip` takes for its name.
    std::string path() const;

private:
    friend class Inside;
    int fd_;
};

/// The calling thread, and the processes it starts, are in a namespace while this lives.
class Inside {
public:
    explicit Inside(const Namespace& space);
    ~Inside();
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

private:
    int before_;
};

/// Run `ip WORDS` in the caller's namespace. Throws std::runtime_error if it fails.
void ip(const std::vector<std::string>& words);

/// Whether the interface, in the caller's namespace, is handed TCP super-frames to segment by
/// itself (ethtool -K IFACE tso). Throws std::runtime_error.
void set_tso(const std::string& iface, bool on);

/// The two kinds of wire.
///
///     near: sender --- dm0 (TAP) --- devmem        10.0.0.1, 10.0.0.2
///     near: sender --- veth0 | veth0 --- kernel    10.1.0.1, 10.1.0.2 in far
inline constexpr char kTap[] = "dm0", kVeth[] = "veth0", kLo[] = "lo";
inline constexpr char kDevmemAddress[] = "10.0.0.2", kVethAddress[] = "10.1.0.2",
                      kLoAddress[] = "127.0.0.1";

struct Wires {
    /// The veth pair. The TAP is its user's to make.
    Wires();
    void set_veth(unsigned mtu, bool tso) const;
    /// Give the kernel's end of the TAP, in `near`, its address, and bring it up.
    void bring_tap_up(bool tso) const;

    Namespace near, far;
};

} // namespace bench
