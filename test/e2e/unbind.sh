#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The queues leave their region for host memory in the middle of a stream, and no byte is lost.
. "$(dirname "$0")/lib.sh"

unbind() {
    local bytes=$1
    shift
    listen_ncat ncat --hash -m opaque:size=32M --unbind-after 20M "$@"
    stream "$bytes" | send_to $OURS4
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 "$bytes")']"
    bytes=$(numfmt --from=iec "$bytes")
    expect bytes "$(summary ncat 's["bytes"]')" "$bytes"
    local device host
    device=$(summary ncat 's["device_bytes"]') host=$(summary ncat 's["host_bytes"]')
    expect_that "it was received in the region, then on the host" \
        "$device >= 20 << 20 and $host >= ($bytes >> 1) and $device + $host == $bytes"
}

two_queues() {
    [ "$(nproc)" -ge 2 ] || skip "one CPU only"
    local i senders=()
    listen_ncat ncat -q 2 -k --connections 8 --hash -m opaque:size=64M --unbind-after 40M
    for i in 1 2 3 4 5 6 7 8; do
        stream 32M "$i" | send_to $OURS4 &
        senders+=($!)
    done
    wait "${senders[@]}"
    end_ncat
    for i in 1 2 3 4 5 6 7 8; do
        stream_sha256 32M "$i"
    done | sort >"$TMP/sent"
    summary ncat '"\n".join(sorted(s["sha256"]))' | cmp - "$TMP/sent" || fail "hashes differ"
    expect_that "a part of it came into host memory" "$(summary ncat 's["host_bytes"]') > 32 << 20"
}

run_case "one queue, a stream of 200 MiB" unbind 200M
run_case "one queue, a slow consumer" unbind 64M --rate 40M
run_case "8 streams on 2 queues" two_queues
end_test
