# SPDX-License-Identifier: BSD-3-Clause
# Set-up shared by the scripts of this folder: packages, hugepages, build, private namespaces.
# Sourced, from a script that runs under `set -euo pipefail`.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${DEVMEM_BUILD:-$ROOT/build}

BUILD_PACKAGES=(g++ libcli11-dev libdpdk-dev libgtest-dev libnuma-dev libssl-dev meson ninja-build
                nlohmann-json3-dev pkg-config)
DEMO_PACKAGES=("${BUILD_PACKAGES[@]}" iproute2 python3)
TEST_PACKAGES=("${DEMO_PACKAGES[@]}" clang dpdk dpdk-dev ethtool g++-multilib googletest
               libclang-rt-14-dev liblwip-dev netcat-openbsd nftables nginx-light openssl socat
               valgrind)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# Commands to run when the script ends, last added first.
AT_EXIT=()
at_exit() { AT_EXIT=("$*" "${AT_EXIT[@]}"); }
run_at_exit() {
    local command
    for command in "${AT_EXIT[@]}"; do
        eval "$command" || true
    done
}
trap run_at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# need_packages PACKAGE...: have them installed, or say what is missing.
need_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        die "missing packages; run: sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    say "installing: ${missing[*]}"
    # No daemon may be started by its installation (nginx would listen on port 80).
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        at_exit "rm -f $policy"
    fi
    apt-get update -q >/dev/null </dev/null ||
        say "apt-get update failed; trying with the package lists at hand"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" \
        >/dev/null </dev/null || die "apt-get could not install: ${missing[*]}"
}

meminfo() { awk -v key="$1:" '$1 == key { print $2 }' /proc/meminfo; }

# need_hugepages MiB: have that much free, if it may be had. devmem-ncat does without by itself.
need_hugepages() {
    local page_kib pages total free
    page_kib=$(meminfo Hugepagesize)
    [ -n "$page_kib" ] || return 0
    pages=$(($1 * 1024 / page_kib))
    total=$(meminfo HugePages_Total)
    free=$(meminfo HugePages_Free)
    if [ "$free" -lt "$pages" ] && [ -w /proc/sys/vm/nr_hugepages ] &&
        [ $(((pages - free) * page_kib * 2)) -lt "$(meminfo MemAvailable)" ]; then
        at_exit "echo $total >/proc/sys/vm/nr_hugepages"
        echo $((total + pages - free)) >/proc/sys/vm/nr_hugepages 2>/dev/null || true
        free=$(meminfo HugePages_Free)
    fi
    [ "$free" -ge "$pages" ] ||
        say "$free hugepages free, $pages wanted, no more to be had: what does not fit runs without"
}

# DPDK loads no plugin from below a directory others may write to.
world_writable_parent() {
    local dir
    dir=$(readlink -f "$1")
    while [ "$dir" != / ]; do
        if [ -n "$(find "$dir" -maxdepth 0 -perm -0002 2>/dev/null)" ]; then
            echo "$dir"
            return
        fi
        dir=$(dirname "$dir")
    done
}

# build DIR [MESON-OPTION...]: configure once, then build.
build() {
    local dir=$1 log=$1/build.log
    shift
    if [ -e "$dir" ] && [ ! -w "$dir" ]; then
        die "$dir belongs to $(stat -c %U "$dir"): remove it, or run as that user"
    fi
    mkdir -p "$dir"
    if [ ! -e "$dir/build.ninja" ]; then
        rm -rf "$dir/meson-private" # of a set-up that was cut short
        (cd "$ROOT" && meson setup "$dir" "$@") >"$log" 2>&1 ||
            { tail -20 "$log" >&2; return 1; }
    fi
    ninja -C "$dir" >"$log" 2>&1 || { grep -E 'FAILED|error|undefined reference' "$log" | cut -c1-300 | head -40 >&2; return 1; }
}

# in_namespace COMMAND...: run it as root of a network and mount namespace of its own, with an empty
# /run (named namespaces and DPDK's runtime files go there) and its own network under /sys.
in_namespace() {
    local enter=(unshare --net --mount) refused
    [ "$(id -u)" -eq 0 ] || enter=(unshare --user --map-root-user --net --mount)
    if ! refused=$("${enter[@]}" true 2>&1); then
        die "may not create a namespace (${refused#unshare: }): run as root, or set kernel.unprivileged_userns_clone=1 and user.max_user_namespaces"
    fi
    "${enter[@]}" sh -ec '
        mount -t tmpfs tmpfs /run
        mkdir /run/netns
        mount -t sysfs sysfs /sys 2>/dev/null || true
        ip link set lo up
        exec "$@"' sh "$@"
}

# A TAP must be possible where we are.
need_tun() {
    [ -e /dev/net/tun ] || die "/dev/net/tun is missing: modprobe tun"
    { : <>/dev/net/tun; } 2>/dev/null || die "/dev/net/tun may not be opened: chmod 0666 /dev/net/tun"
}

# wait_until SECONDS COMMAND...
wait_until() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "${EPOCHREALTIME/./}" -lt $deadline ] || return 1
        sleep 0.05
    done
}
