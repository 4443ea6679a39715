#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# --hds-thresh: payload of short frames in host memory, of long ones in the region, in one stream.
. "$(dirname "$0")/lib.sh"

# write_pieces MOST: stdin in writes of 1 to MOST bytes, each a segment of its own.
write_pieces() {
    python3 -c '
import random, socket, sys
data, most, sizes = sys.stdin.buffer.read(), int(sys.argv[3]), random.Random(1)
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    at = 0
    while at < len(data):
        n = sizes.randint(1, most)
        s.sendall(data[at:at + n])
        at += n' "$1" $PORT "$2"
}

small() {
    local to=$1 thresh=$2
    listen_ncat ncat --hash -m opaque:size=32M --hds-thresh "$thresh"
    stream 256K | write_pieces "$to" 100
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 256K)']"
    expect "host and device bytes" \
        "$(summary ncat 's["host_bytes"], s["device_bytes"]')" "(262144, 0)"
    expect drops "$(dropped ncat)" 0
}

mixed() {
    listen_ncat ncat --hash -m opaque:size=32M --hds-thresh 700
    stream 8M | write_pieces $OURS4 4000
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 8M)']"
    local host device
    host=$(summary ncat 's["host_bytes"]') device=$(summary ncat 's["device_bytes"]')
    expect_that "both kinds of memory" \
        "$host > 10000 and $device > 1 << 20 and $host + $device == 8 << 20"
    expect drops "$(dropped ncat)" 0
}

bulk() {
    listen_ncat ncat --hash -m opaque:size=32M --hds-thresh 256
    stream 64M | send_to $OURS4
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 64M)']"
    expect_that "the region has all but short ends" \
        "$(summary ncat 's["device_bytes"]') > 99 * (64 << 20) // 100"
}

not_this_port() {
    local status=0
    timeout 20 "$NCAT" -l -f net_hds0,iface=dm0 -s $OURS4/24 -p $PORT --hds-thresh 256 \
        >"$TMP/ncat.out" 2>"$TMP/ncat.err" </dev/null || status=$?
    expect "exit status" $status 1
    grep -q "hds_thresh=" "$TMP/ncat.err" || fail "no advice: $(cat "$TMP/ncat.err")"
}

# The threshold is above any frame: the sender may join writes while it waits for an ACK.
run_case "small writes, IPv4" small $OURS4 65535
run_case "small writes, IPv6" small $OURS6 65535
run_case "writes of 1 to 4000 bytes" mixed
run_case "a stream of full segments" bulk
run_case "a port with arguments of its own" not_this_port
end_test
