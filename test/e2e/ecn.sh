#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A router between the sender and us marks packets: we tell the sender, and it goes by it.
. "$(dirname "$0")/lib.sh"

EVERY=50 # packets, one is marked
BYTES=32M

# peer (10.1.0.2, fd01::2) -- veth -- router (10.1.0.1, 10.0.0.1, fd01::1, fd00::1) -- dm0 -- devmem-ncat
# transfer ADDRESS TSO ECN: TSO on or off, so whether 64 KiB are marked at once or a segment.
transfer() {
    local address=$1 tso=$2 ecn=$3
    ip netns add peer
    ip link add to_peer type veth peer name eth0 netns peer
    ip addr add 10.1.0.1/24 dev to_peer
    ip addr add fd01::1/64 dev to_peer nodad
    ip link set to_peer up
    ip -n peer addr add 10.1.0.2/24 dev eth0
    ip -n peer addr add fd01::2/64 dev eth0 nodad
    ip -n peer link set eth0 up
    ip -n peer route add 10.0.0.0/24 via 10.1.0.1
    ip -n peer route add fd00::/64 via fd01::1
    # A SYN that is lost while neighbours get to know each other is not to give ECN up; which takes
    # a second less without duplicate address detection.
    sysctl -qw net.ipv6.conf.default.accept_dad=0
    in_peer sysctl -qw net.ipv4.tcp_ecn="$ecn" net.ipv4.tcp_ecn_fallback=0 net.ipv4.tcp_congestion_control=reno
    [ "$tso" = on ] || in_peer ethtool -K eth0 tx off tso off gso off >/dev/null
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    listen_ncat ncat --hash -g $PEER4 -g $PEER6
    nft -f - <<RULES
table inet router {
    counter marked { }
    chain forward {
        type filter hook forward priority 0
        ip ecn ect0 numgen inc mod $EVERY == 0 counter name marked ip ecn set ce
        ip6 ecn ect0 numgen inc mod $EVERY == 0 counter name marked ip6 ecn set ce
    }
}
RULES
    stream $BYTES | in_peer socat -u -b 262144 STDIN "TCP:${address/*:*/[$address]}:$PORT"
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$HASH']"
    CE=$(summary ncat 's["ce_segments"]')
    MARKS=$(nft list counters | awk '/packets/ { print $2 }') # super-frames count as one
    # Segments of which the sender has heard that they, or others before CWR, were marked.
    HEARD=$(in_peer nstat -asz TcpExtTCPDeliveredCE | awk 'NR > 1 { print $2 }')
}

in_peer() { ip netns exec peer "$@"; }

marked() {
    transfer "$1" "$2" 1
    if [ "$2" = on ]; then
        expect_that "marks arrived, each of several segments" "$CE > $MARKS > 0"
    else
        expect_that "marks arrived, each of one segment" "$CE == $MARKS > 0"
    fi
    # As the sender does go by it, ACKs after CWR do not have ECE: otherwise all would, after the first mark.
    expect_that "the sender heard of them" "$CE <= $HEARD < $(numfmt --from=iec $BYTES) / 1448 / 2"
}

not_asked_for() {
    transfer $OURS4 on 0
    expect_that "nothing was marked" "$CE == $MARKS == $HEARD == 0"
}

HASH=$(stream_sha256 $BYTES)
run_case "IPv4, super-frames" marked $OURS4 on
run_case "IPv4, single segments" marked $OURS4 off
run_case "IPv6, single segments" marked $OURS6 off
run_case "a sender without ECN" not_asked_for
end_test
