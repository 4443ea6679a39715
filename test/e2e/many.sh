#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Many connections at once, each of another size, one of them empty.
. "$(dirname "$0")/lib.sh"

together() {
    local address=$1 count=$2 largest=$3
    shift 3
    listen_ncat ncat -k --connections "$count" --hash "$@"
    timeout 90 python3 "$TOOLS/many.py" "$address" $PORT "$count" "$largest" >"$TMP/sent" ||
        fail "the sender ended with status $?"
    end_ncat
    summary ncat '"\n".join(sorted(s["sha256"]))' >"$TMP/received"
    expect connections "$(summary ncat 's["connections"]')" "$count"
    cmp "$TMP/sent" "$TMP/received" || fail "hashes differ"
}

run_case "1,000 connections over IPv4" together $OURS4 1000 200000
run_case "200 connections over IPv6" together $OURS6 200 500000
run_case "100 connections, two queues" together $OURS4 100 2000000 -q 2
end_test
