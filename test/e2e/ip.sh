#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# DSCP, TTL and local address as asked for: a packet socket on dm0 and the peer's kernel are the witnesses.
. "$(dirname "$0")/lib.sh"
ADDRESSES+=(-s 10.0.0.7/24 -s fd00::7/64)

# watch ADDRESS: note the headers of TCP packets from it.
watch() {
    python3 "$TOOLS/ip_headers.py" dm0 "$1" >"$TMP/headers" 2>"$TMP/watch.err" &
    wait_until 5 grep -q ready "$TMP/headers" || fail "nobody watches dm0"
}

# saw DSCP TTL FLAGS...: packets with these flags came, and none with another DSCP or TTL.
saw() {
    local dscp=$1 ttl=$2 flags
    sed 1d "$TMP/headers" >"$TMP/seen"
    expect "DSCP, ECN and TTL" "$(cut -d' ' -f1-3 "$TMP/seen" | sort -u)" "$dscp 0 $ttl"
    for flags in "${@:3}"; do
        grep -q " $flags\$" "$TMP/seen" || fail "no packet with the flags $flags"
    done
}

accepted() {
    make_tap
    watch "$1"
    listen_ncat ncat --hash "${@:4}"
    stream 1M | send_to "$1"
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 1M)']"
    saw "$2" "$3" 'S\.' '\.' 'F\.'
}

closed_port() {
    make_tap
    watch "$1"
    listen_ncat ncat --dscp 1 --ttl 2
    send_to "$1" $((PORT + 1)) </dev/null 2>/dev/null && fail "it is open"
    saw 1 2 'R\.'
}

# What the peer's kernel says of who connects, back through the connection.
connected() {
    local peer=$1 source=$2 family=$3
    make_tap
    watch "$source"
    socat -U "TCP$family-LISTEN:$PORT,bind=$peer" SYSTEM:'echo $SOCAT_PEERADDR $SOCAT_PEERPORT' &
    wait_until 10 eval "ss -tlnH sport $PORT | grep -q ." || fail "socat does not listen"
    start_ncat ncat -c "${peer//[\[\]]/}" --source "$source" --source-port 4321 --dscp 10 --ttl 200 \
        -o "$TMP/said"
    end_ncat
    expect "who connects" "$(python3 -c '
import ipaddress, sys
address, port = open(sys.argv[1]).read().split()
print(ipaddress.ip_address(address.strip("[]")), port)' "$TMP/said")" "$source 4321"
    saw 10 200 S '\.' 'F\.'
}

run_case "by default, IPv4" accepted $OURS4 0 64
run_case "by default, IPv6" accepted $OURS6 0 64
run_case "who listens chooses DSCP and TTL, IPv4" accepted $OURS4 46 7 --dscp 46 --ttl 7
run_case "who listens chooses DSCP and TTL, IPv6" accepted $OURS6 63 255 --dscp 63 --ttl 255
run_case "resets have them too, IPv4" closed_port $OURS4
run_case "resets have them too, IPv6" closed_port $OURS6
run_case "who connects chooses address and port, IPv4" connected $PEER4 10.0.0.7 4
run_case "who connects chooses address and port, IPv6" connected "[$PEER6]" fd00::7 6
end_test
