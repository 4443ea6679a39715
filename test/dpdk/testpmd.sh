#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Drive net_hds with stock dpdk-testpmd: what its TCP peer, the local kernel, sends arrives in two
# segments.
#
#   testpmd.sh BUILD_DIR
#
# One line per test: `PASS name`, `FAIL name: why`, `SKIP name: reason`. Exit status 1 if any failed.
# Logs are kept in BUILD_DIR/testpmd/.
set -u

[ $# -eq 1 ] || { echo "usage: $0 BUILD_DIR" >&2; exit 2; }
build=$(realpath "$1") || exit 2
plugin=$build/drivers/plugin/librte_net_hds.so
logs=$build/testpmd
tests='rxhdrs-ipv4-tcp rxhdrs-ipv6-tcp rxpkts-96-2048 two-queues'
[ -e "$plugin" ] || { echo "$0: no $plugin: build first" >&2; exit 2; }

skip_all() {
    for name in $tests; do echo "SKIP $name: $1"; done
    exit 0
}
command -v dpdk-testpmd >/dev/null || skip_all 'dpdk-testpmd is not installed (apt install dpdk-dev)'
[ -c /dev/net/tun ] || skip_all 'there is no /dev/net/tun (modprobe tun)'
[ "$(nproc)" -ge 2 ] || skip_all "needs 2 cores, there is $(nproc)"

# A network namespace of our own: dm0 is seen by nobody else, and goes with us.
if [ -z "${HDS_TESTPMD_NAMESPACE:-}" ]; then
    export HDS_TESTPMD_NAMESPACE=1
    unshare --net true 2>/dev/null && exec unshare --net "$0" "$@"
    unshare --user --map-root-user --net true 2>/dev/null &&
        exec unshare --user --map-root-user --net "$0" "$@"
    skip_all 'a network namespace is refused (needs root, or user namespaces)'
fi
# Silence IPv6's own packets; let a SYN carry data to a peer that was never seen (0x1 client,
# 0x4 without a cookie): testpmd answers nothing, so this is what the kernel's TCP can be made to send.
for setting in net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0 \
    net.ipv4.tcp_fastopen=5; do
    sysctl -qw $setting || skip_all "cannot set $setting"
done

mkdir -p "$logs" || exit 2
lcores=$(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status | tr , '\n' |
         awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }' | head -n 2 | paste -sd,)
hugepages=$(awk '$1 == "HugePages_Free:" { free = $2 } $1 == "Hugepagesize:" { kib = $2 }
                 END { print int(free * kib / 1024) }' /proc/meminfo)
if [ "$hugepages" -ge 256 ]; then
    memory='--in-memory -m 256'
else
    memory="--no-huge -m 256 --no-shconf --file-prefix=hds-testpmd-$$"
fi

testpmd=
trap 'exec 3>&-; [ -z "$testpmd" ] || kill "$testpmd" 2>/dev/null; wait' EXIT

# await SECONDS COMMAND...: until it succeeds.
await() {
    local tries=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ $((tries--)) -gt 0 ] && kill -0 "$testpmd" 2>/dev/null || return 1
        sleep 0.1
    done
}

# send FAMILY ADDRESS PORT: one segment of 500 bytes from the kernel's TCP.
send() {
    python3 - "$@" <<'PYTHON'
import socket, sys
family = socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM)
s.setblocking(False)
try:
    s.sendto(b"x" * 500, socket.MSG_FASTOPEN, (sys.argv[2], int(sys.argv[3])))
except BlockingIOError:
    pass
PYTHON
}

xstat() { sed -n "s/^$1: //p" "$log" | tail -n 1; }

# run NAME VDEV-ARGUMENTS COUNT FAMILY SECOND-SEGMENT TESTPMD-ARGUMENT...: send COUNT segments; each
# must show up with two segments, the second of SECOND-SEGMENT bytes.
run() {
    local name=$1 vdev=$2 count=$3 family=$4 second=$5 peer=10.9.0.2 i
    shift 5
    log=$logs/$name.log
    commands=$logs/$name.in
    rm -f "$commands"
    mkfifo "$commands"
    # shellcheck disable=SC2086
    stdbuf -oL dpdk-testpmd -l "$lcores" $memory --no-pci --no-telemetry -d "$plugin" \
        "--vdev=net_hds0,iface=dm0$vdev" -- -i --mbuf-size=384,2176 --total-num-mbufs=4096 \
        --forward-mode=rxonly --rx-offloads=0x100000 "$@" <"$commands" >"$log" 2>&1 &
    testpmd=$!
    exec 3>"$commands"
    printf 'set verbose 1\nstart\n' >&3

    why=
    if ! await 20 grep -q 'packet forwarding - ' "$log"; then
        why='testpmd did not start'
    else
        ip link set dm0 up
        if [ "$family" = 6 ]; then
            peer=fd09::2
            ip addr add fd09::1/64 dev dm0 nodad
        else
            ip addr add 10.9.0.1/24 dev dm0
        fi
        ip neigh add "$peer" lladdr 02:00:00:00:00:02 nud permanent dev dm0
        for ((i = 1; i <= count; i++)); do
            send "$family" "$peer" $((7000 + i))
        done
        enough() { [ "$(grep -c 'length=5[0-9][0-9] - nb_segs=2' "$log")" -ge "$count" ]; }
        await 10 enough || why="not $count packets of two segments"
    fi
    printf 'stop\nshow port xstats 0\nquit\n' >&3
    exec 3>&-
    await 20 false # until it is gone
    wait "$testpmd" || why=${why:-"testpmd ended with status $?"}
    testpmd=
    [ -n "$why" ] || [ "$(xstat rx_payload_bytes)" = $((count * second)) ] ||
        why="rx_payload_bytes is $(xstat rx_payload_bytes), not $((count * second))"
    [ -n "$why" ] || [ "$(xstat rx_split_packets)" = "$count" ] ||
        why="rx_split_packets is $(xstat rx_split_packets), not $count"
    if [ -n "$why" ]; then
        echo "FAIL $name: $why, see $log"
        status=1
    else
        echo "PASS $name"
    fi
}

status=0
# A SYN's headers take 74 bytes over IPv4 (40 of TCP, with its options), 94 over IPv6.
run rxhdrs-ipv4-tcp '' 5 4 500 --rxhdrs=ipv4-tcp
run rxhdrs-ipv6-tcp '' 5 6 500 --rxhdrs=ipv6-tcp
run rxpkts-96-2048 '' 5 4 478 --rxpkts=96,2048
run two-queues ,queues=2 20 4 500 --rxhdrs=ipv4-tcp --rxq=2 --txq=2
exit $status
