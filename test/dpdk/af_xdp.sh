#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# net_af_xdp on a pool of `page_pool`: the pool's memory is the UMEM the kernel reads and writes. Stock
# dpdk-testpmd sends back, addresses and ports swapped, what the kernel's UDP sends over a veth pair.
#
#   af_xdp.sh BUILD_DIR
#
# One line per test: `PASS name`, `FAIL name: why`, `SKIP name: reason`. Exit status 1 if any failed.
# Logs are kept in BUILD_DIR/af_xdp/.
set -u
tests='udp-echo'
. "$(dirname "$0")/lib.sh"
command -v ethtool >/dev/null || skip_all 'ethtool is not installed'
# The UMEM is as long as all objects side by side. Few fit in when none may cross a page of 4 KiB.
[ "$hugepages" -ge 256 ] || skip_all "needs 256 MiB of free hugepages, there are $hugepages"
own_network "$@"

# AF_XDP carries complete packets of one frame each.
{
    ip link add peer0 type veth peer name wire0 &&
        ip addr add 10.9.0.1/24 dev peer0 &&
        ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 nud permanent dev peer0 &&
        ethtool -K peer0 tx off tso off gso off gro off sg off &&
        sysctl -qw net.ipv6.conf.peer0.disable_ipv6=1 net.ipv6.conf.wire0.disable_ipv6=1 &&
        ip link set wire0 up &&
        ip link set peer0 up
} >"$logs/veth.log" 2>&1 || skip_all "cannot make a veth pair, see $logs/veth.log"

# echo_udp COUNT: datagrams of all lengths, 32 at a time; each must come back as it was sent.
echo_udp() {
    timeout 60 python3 - "$1" <<'PYTHON'
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.9.0.1", 7000))
s.connect(("10.9.0.2", 7001))
s.settimeout(5)
text = os.urandom(2048)
for first in range(0, int(sys.argv[1]), 32):
    sent = [i.to_bytes(4, "big") + text[i % 512:][:i % 1469] for i in range(first, first + 32)]
    for datagram in sent:
        s.send(datagram)
    for datagram in sent:
        if s.recv(65535) != datagram:
            sys.exit(f"datagrams {first} to {first + 31} did not come back alike")
PYTHON
}

# start: the UMEM begins with the first chunk of the pool. With IO addresses by page (PA) there might be
# others, elsewhere.
start() {
    begin udp-echo --iova-mode=va --vdev=net_af_xdp0,iface=wire0 -- -i \
        --total-num-mbufs=8192 --mbcache=0 --forward-mode=5tswap
}

# in_use_now: of mb_pool_0, after testpmd was asked for it.
in_use_now() {
    local dumps
    dumps=$(grep -c common_pool_count "$log")
    tell 'dump_mempool mb_pool_0'
    another() { [ "$(grep -c common_pool_count "$log")" -gt "$dumps" ]; }
    await 5 another
    in_use mb_pool_0
}

start
if [ -n "$why" ]; then
    finish
    what=$(grep -m1 -iE 'xdp.*(fail|error|denied|not permitted)' "$log")
    ops=ring_mp_mc
    start
    [ -z "$why" ] || { finish; skip_all "net_af_xdp does not start on ring_mp_mc either: $what"; }
    why="net_af_xdp starts on ring_mp_mc, not on page_pool: $what"
else
    count=100000
    before=$(in_use_now)
    echo_udp $count 2>"$logs/echo.log" || why=$(tail -n 1 "$logs/echo.log")
    after=$(in_use_now)
    # The fill ring keeps its mbufs. What was sent last is collected with what is sent next.
    [ -n "$before" ] && [ $((after - before)) -le 64 ] ||
        why=${why:-"$before mbufs in use before $count datagrams, $after afterwards"}
    [ "$(sed -n 's/^  nb_mem_chunks=//p' "$log" | tail -n 1)" = 1 ] ||
        why=${why:-"the pool has more than one chunk"}
fi
finish
verdict udp-echo
exit $status
