#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The link goes down, or nobody polls, in the middle of a stream: it goes on, and no byte is lost.
. "$(dirname "$0")/lib.sh"

link_off() { ip link set dm0 down; }
link_on() { peer_up; }
polling_off() { kill -STOP "$NCAT_PID"; }
polling_on() { kill -CONT "$NCAT_PID"; }

outage() {
    local what=$1 address=$2 acked more sender
    listen_ncat ncat --hash -m opaque:size=4M --rate 12000000
    stream 12M | send_to "$address" &
    sender=$!
    sleep 0.5
    "${what}_off"
    acked=$(ss -tinH dst "$address" | grep -o 'bytes_acked:[0-9]*' | cut -d: -f2)
    expect_that "the stream has begun" "1 << 20 < $acked < 10 << 20"
    sleep 0.7
    more=$(ss -tinH dst "$address" | grep -o 'bytes_acked:[0-9]*' | cut -d: -f2)
    expect_that "nothing passes" "$more - $acked <= 1 << 20"
    "${what}_on"
    wait $sender || fail "the sender gave up"
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 12M)']"
    expect drops "$(dropped ncat)" 0
}

# Over IPv4: with its link an interface loses its IPv6 addresses, and the sender what it sends from.
run_case "link down and up" outage link $OURS4
run_case "a shard that nobody polls" outage polling $OURS4
end_test
