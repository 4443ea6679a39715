#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A long stream from the kernel's TCP is received byte for byte.
. "$(dirname "$0")/lib.sh"

# One stream, hashed in the region by devmem-ncat.
hashed() {
    listen_ncat ncat --hash
    stream 1G | "$@"
    end_ncat 60
    expect sha256 "$(summary ncat 's["sha256"]')" "['$HASH_1G']"
    expect bytes "$(summary ncat 's["bytes"]')" $((1 << 30))
    expect "bytes that missed the region" "$(summary ncat 's["host_bytes"]')" 0
    expect drops "$(dropped ncat)" 0
}

# The same bytes leave through -o.
written_out() {
    "$NCAT" -l -f tap:dm0 -s $OURS4/24 -p $PORT -o - \
        2>"$TMP/ncat.err" </dev/null > >(sha256 >"$TMP/hash") &
    NCAT_PID=$!
    wait_ncat
    stream 256M | send_to $OURS4
    end_ncat
    wait_until 5 test -s "$TMP/hash"
    expect "sha256 of -o -" "$(cat "$TMP/hash")" "$(stream_sha256 256M)"
}

to_file() {
    listen_ncat ncat -o "$TMP/stream"
    stream 64M 2 | send_to $OURS6
    end_ncat
    expect "sha256 of the file" "$(sha256 <"$TMP/stream")" "$(stream_sha256 64M 2)"
}

HASH_1G=$(stream_sha256 1G)
run_case "1 GiB from nc over IPv4" hashed nc -N $OURS4 $PORT
run_case "1 GiB from socat over IPv6" hashed send_to $OURS6
run_case "-o - writes what was sent" written_out
run_case "-o FILE writes what was sent" to_file
end_test
