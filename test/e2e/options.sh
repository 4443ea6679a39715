#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Senders without timestamps, SACK or window scaling.
. "$(dirname "$0")/lib.sh"

without() {
    local address=$1 option
    shift
    for option in timestamps sack window_scaling; do
        sysctl -qw net.ipv4.tcp_$option=1
    done
    for option in "$@"; do
        sysctl -qw net.ipv4.tcp_$option=0
    done
    listen_ncat ncat --hash
    stream 64M | send_to "$address"
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$HASH']"
}

HASH=$(stream_sha256 64M)
run_case "without timestamps" without $OURS4 timestamps
run_case "without SACK" without $OURS4 sack
run_case "without window scaling" without $OURS4 window_scaling
run_case "without any, IPv4" without $OURS4 timestamps sack window_scaling
run_case "without any, IPv6" without $OURS6 timestamps sack window_scaling
end_test
