#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Packets are lost, both ways, at a router between the sender and us.
. "$(dirname "$0")/lib.sh"

# peer (10.1.0.2) -- veth -- router (10.1.0.1, 10.0.0.1) -- dm0 -- devmem-ncat (10.0.0.2)
# $1 in 1000 packets dropped; $2: TSO on or off, so whether 64 KiB are lost at once or a segment;
# $3 bytes.
lossy() {
    local lost=$1 tso=$2 bytes=$3
    ip netns add peer
    ip link add to_peer type veth peer name eth0 netns peer
    ip addr add 10.1.0.1/24 dev to_peer
    ip link set to_peer up
    ip -n peer addr add 10.1.0.2/24 dev eth0
    ip -n peer link set eth0 up
    # A short minimum for the retransmission timer, or the sender waits most of the time.
    ip -n peer route add 10.0.0.0/24 via 10.1.0.1 rto_min 10ms
    [ "$tso" = on ] || ip netns exec peer ethtool -K eth0 tx off tso off gso off >/dev/null
    sysctl -qw net.ipv4.ip_forward=1
    listen_ncat ncat --hash -g $PEER4
    nft -f - <<RULES
table ip loss {
    chain forward {
        type filter hook forward priority 0
        meta l4proto tcp numgen random mod 1000 < $lost counter name dropped drop
    }
    counter dropped { }
}
RULES
    stream "$bytes" | ip netns exec peer socat -u -b 262144 STDIN TCP:$OURS4:$PORT
    end_ncat 90
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 "$bytes")']"
    expect_that "packets were lost" "$(nft list counters | awk '/packets/ { print $2 }') > 0"
    expect_that "segments arrived out of order" "$(summary ncat 's["ooo_segments"]') > 0"
}

run_case "0.1 % lost" lossy 1 off 128M
run_case "1 % lost" lossy 10 off 64M
run_case "5 % lost" lossy 50 off 16M
run_case "1 % of TSO frames lost" lossy 10 on 256M
end_test
