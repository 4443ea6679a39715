#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two queues, two shards, two lcores.
. "$(dirname "$0")/lib.sh"

two_queues() {
    [ "$(nproc)" -ge 2 ] || skip "one CPU only"
    local address=$1 i senders=()
    listen_ncat ncat -q 2 -k --connections 8 --hash
    for i in 1 2 3 4 5 6 7 8; do
        stream 32M "$i" | send_to "$address" &
        senders+=($!)
    done
    wait "${senders[@]}"
    end_ncat
    for i in 1 2 3 4 5 6 7 8; do
        stream_sha256 32M "$i"
    done | sort >"$TMP/sent"
    summary ncat '"\n".join(sorted(s["sha256"]))' | cmp - "$TMP/sent" || fail "hashes differ"
}

run_case "8 streams on 2 queues, IPv4" two_queues $OURS4
run_case "8 streams on 2 queues, IPv6" two_queues $OURS6
end_test
