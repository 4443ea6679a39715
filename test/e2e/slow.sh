#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A consumer that returns tokens slowly holds the sender back, and nothing is dropped for it.
. "$(dirname "$0")/lib.sh"

RATE=8000000

held_back() {
    local sent=$1 region=$2 started sampled acked
    listen_ncat ncat --hash --rate $RATE -m "opaque:size=$region"
    region=$(numfmt --from=iec "$region")
    losses >"$TMP/before"
    started=${EPOCHREALTIME/./}
    stream "$sent" | send_to $OURS4 &
    sleep 1.5
    acked=$(ss -tinH dst $OURS4 | grep -o 'bytes_acked:[0-9]*' | cut -d: -f2)
    sampled=${EPOCHREALTIME/./}
    ss -tinH dst $OURS4 >&2
    expect_that "the sender is as far as the tokens returned and the region allow" \
        "0 < $acked < $region + $RATE * ($sampled - $started) / 1e6 + (1 << 20)"
    ss -tinH dst $OURS4 | grep -q rwnd_limited || fail "the sender is not held back by our window"
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 "$sent")']"
    expect drops "$(dropped ncat)" 0
    expect "losses the sender saw" "$(losses)" "$(cat "$TMP/before")"
}

run_case "a 4 MiB region" held_back 28M 4M
run_case "a 16 MiB region" held_back 40M 16M
end_test
