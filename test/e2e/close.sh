#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Connections that end early, from either side.
. "$(dirname "$0")/lib.sh"

# kill -9: the kernel closes the socket for it, so the stream ends early but properly.
sender_killed() {
    listen_ncat ncat
    "$BLAST" --connect $OURS4:$PORT --size 64G &
    sleep 0.5
    kill -9 $!
    end_ncat
    expect_that "part of the stream arrived" "0 < $(summary ncat 's["bytes"]') < 64 << 30"
}

reset_midway() {
    listen_ncat ncat -k --connections 2 --hash
    python3 - $OURS4 $PORT <<'PYTHON'
import socket, struct, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"x" * 10_000_000)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
s.close()
PYTHON
    stream 16M | send_to $OURS4
    end_ncat 30 1
    grep -qi reset "$TMP/ncat.err" || fail "the reset is not reported"
    expect "the next stream is right" "$(summary ncat "'$(stream_sha256 16M)' in s['sha256']")" True
}

# The sender is gone without a word; others are served, and Ctrl-C ends it.
sender_vanishes() {
    listen_ncat ncat -k --hash
    "$BLAST" --connect $OURS4:$PORT --size 64G &
    local blast=$!
    sleep 0.5
    nft "add table ip gone; add chain ip gone out { type filter hook output priority 0; }"
    nft "add rule ip gone out tcp sport $(ss -tnH dst $OURS4 | awk '{ sub(".*:", "", $4); print $4 }') drop"
    kill -9 $blast
    "$BLAST" --connect $OURS4:$PORT --size 16M --hash >"$TMP/other.out"
    kill -INT $NCAT_PID
    end_ncat
    expect "the other stream is right" "$(summary ncat "'$(summary other 's["sha256"]')' in s['sha256']")" True
}

# Ctrl-C in mid-stream: a summary here, an error there.
interrupted() {
    listen_ncat ncat --hash
    "$BLAST" --connect "$1:$PORT" --size 64G 2>"$TMP/blast.err" &
    local blast=$! status=0
    sleep 0.5
    kill -INT $NCAT_PID
    end_ncat 10
    wait_until 10 eval "! kill -0 $blast" || fail "the sender was not told"
    wait $blast || status=$?
    expect "exit status of the sender" $status 1
    grep -Eq 'Connection reset|Broken pipe' "$TMP/blast.err" || fail "$(cat "$TMP/blast.err")"
    expect_that "the summary counts" "$(summary ncat 's["bytes"]') > 0"
}

interrupted_idle() {
    listen_ncat ncat -k
    kill -INT $NCAT_PID
    end_ncat 10
    expect bytes "$(summary ncat 's["bytes"]')" 0
}

# The peer closes its sending side and waits for ours: blast's clock stops when we close.
both_close() {
    listen_ncat ncat --hash
    "$BLAST" --connect "$OURS6:$PORT" --size 4M --hash >"$TMP/blast.out"
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"][0]')" "$(summary blast 's["sha256"]')"
    wait_until 5 eval '! ss -tnHa state all dst [$OURS6] | grep -vq TIME-WAIT' ||
        fail "a socket is left over: $(ss -tnHa dst [$OURS6])"
}

run_case "sender killed" sender_killed
run_case "sender resets" reset_midway
run_case "sender vanishes" sender_vanishes
run_case "interrupted, IPv4" interrupted $OURS4
run_case "interrupted, IPv6" interrupted $OURS6
run_case "interrupted before any connection" interrupted_idle
run_case "both sides close" both_close
end_test
