#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The claim: payload lands where the process cannot read it. The address of the region the
# application and the mbufs know is mapped without any right for as long as the program runs, and
# the kernel refuses to read it in the name of that process.
. "$(dirname "$0")/lib.sh"

throughout() {
    listen_ncat ncat --hash --rate 30000000 -m opaque:size=32M
    python3 "$TOOLS/watch_region.py" $NCAT_PID devmem-opaque >"$TMP/watch.out" 2>"$TMP/watch.err" &
    local watch=$! status=0
    stream 96M | send_to $OURS4
    end_ncat
    wait $watch || status=$?
    expect "exit status of the watch" $status 0
    cat "$TMP/watch.out" >&2
    expect_that "it was watched all the time" "$(summary watch 's["samples"]') >= 20"
    expect "the region" "$(summary watch 's["bytes"]')" $((32 << 20))
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 96M)']"
    expect readable "$(summary ncat 's["region"]["readable"]')" False
    expect "bytes in the region" "$(summary ncat 's["device_bytes"]')" $((96 << 20))
}

# The same watch on memory that may be read says so: it can fail.
control() {
    listen_ncat ncat --rate 30000000 -m host:size=32M
    expect readable_host "$(python3 "$TOOLS/watch_region.py" $NCAT_PID devmem-opaque 2>&1 >/dev/null)" \
        "no mapping devmem-opaque"
    stream 1M | send_to $OURS4
    end_ncat
    expect readable "$(summary ncat 's["region"]["readable"]')" True
}

run_case "the region is unreadable throughout" throughout
run_case "a host region is readable" control
end_test
