#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Drive net_hds with stock dpdk-testpmd: what its TCP peer, the local kernel, sends arrives in two
# segments, of two pools that get their mbufs back.
#
#   testpmd.sh BUILD_DIR
#
# One line per test: `PASS name`, `FAIL name: why`, `SKIP name: reason`. Exit status 1 if any failed.
# Logs are kept in BUILD_DIR/testpmd/.
set -u
tests='rxhdrs-ipv4-tcp rxhdrs-ipv6-tcp rxpkts-96-2048 two-queues'
. "$(dirname "$0")/lib.sh"
[ -c /dev/net/tun ] || skip_all 'there is no /dev/net/tun (modprobe tun)'
own_network "$@"

# Silence IPv6's own packets; let a SYN carry data to a peer that was never seen (0x1 client,
# 0x4 without a cookie): testpmd answers nothing, so this is what the kernel's TCP can be made to send.
for setting in net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0 \
    net.ipv4.tcp_fastopen=5; do
    sysctl -qw $setting || skip_all "cannot set $setting"
done

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

# run NAME VDEV-ARGUMENTS COUNT FAMILY SECOND-SEGMENT TESTPMD-ARGUMENT...: send COUNT segments; each
# must show up with two segments, the second of SECOND-SEGMENT bytes.
run() {
    local name=$1 vdev=$2 count=$3 family=$4 second=$5 peer=10.9.0.2 i
    shift 5
    begin "$name" "--vdev=net_hds0,iface=dm0$vdev" -- -i --mbuf-size=384,2176 \
        --total-num-mbufs=4096 --forward-mode=rxonly --rx-offloads=0x100000 "$@"
    if [ -z "$why" ]; then
        tell 'set verbose 1'
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
    finish mb_pool_0 mb_pool_0_1
    [ "$(xstat 0 rx_payload_bytes)" = $((count * second)) ] ||
        why=${why:-"rx_payload_bytes is $(xstat 0 rx_payload_bytes), not $((count * second))"}
    [ "$(xstat 0 rx_split_packets)" = "$count" ] ||
        why=${why:-"rx_split_packets is $(xstat 0 rx_split_packets), not $count"}
    verdict "$name"
}

# A SYN's headers take 74 bytes over IPv4 (40 of TCP, with its options), 94 over IPv6.
run rxhdrs-ipv4-tcp '' 5 4 500 --rxhdrs=ipv4-tcp
run rxhdrs-ipv6-tcp '' 5 6 500 --rxhdrs=ipv6-tcp
run rxpkts-96-2048 '' 5 4 478 --rxpkts=96,2048
run two-queues ,queues=2 20 4 500 --rxhdrs=ipv4-tcp --rxq=2 --txq=2
exit $status
