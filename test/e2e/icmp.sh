#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Neighbours, echo, and what is not listened to.
. "$(dirname "$0")/lib.sh"

echoes() {
    local bytes
    listen_ncat ncat
    for bytes in 0 1 56 1000 1452; do
        wait_until 3 python3 "$TOOLS/ping.py" "$1" $bytes || fail "no reply to $bytes bytes"
    done
    expect "state of the neighbour" \
        "$(ip neigh show "$1" dev dm0 | grep -Eow 'REACHABLE|DELAY|PROBE|STALE' | wc -l)" 1
}

not_ours() {
    listen_ncat ncat
    python3 "$TOOLS/ping.py" 10.0.0.3 && fail "10.0.0.3 answers"
    return 0
}

closed_port() {
    listen_ncat ncat
    timeout 5 python3 - "$1" $((PORT + 1)) <<'PYTHON' || fail "no connection refused"
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])))
except ConnectionRefusedError:
    sys.exit(0)
sys.exit(1)
PYTHON
}

run_case "IPv4 echo" echoes $OURS4
run_case "IPv6 echo" echoes $OURS6
run_case "other addresses are left alone" not_ours
run_case "a closed port refuses, IPv4" closed_port $OURS4
run_case "a closed port refuses, IPv6" closed_port $OURS6
end_test
