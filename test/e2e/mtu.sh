#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every MTU a TAP has, with the sender segmenting (TSO off) and leaving it to us (TSO on).
. "$(dirname "$0")/lib.sh"

transfer() {
    local mtu=$1 tso=$2 address=$3
    [ "$mtu" -ge 1280 ] || ADDRESSES=(-s $OURS4/24)
    PORT_SPEC=tap:dm0,mtu=$mtu
    listen_ncat ncat --hash
    expect "MTU of dm0" "$(cat /sys/class/net/dm0/mtu)" "$mtu"
    if [ "$tso" = off ]; then
        ethtool -K dm0 tx off tso off gso off >/dev/null
    else
        ethtool -k dm0 | grep -q '^tcp-segmentation-offload: on' || fail "the port takes no TSO frames"
    fi
    stream 64M | send_to "$address"
    end_ncat
    expect sha256 "$(summary ncat 's["sha256"]')" "['$HASH']"
    expect drops "$(dropped ncat)" 0
}

HASH=$(stream_sha256 64M)
for mtu in 576 1500 9000 65521; do
    for tso in on off; do
        run_case "MTU $mtu, TSO $tso, IPv4" transfer $mtu $tso $OURS4
        [ $mtu -lt 1280 ] || run_case "MTU $mtu, TSO $tso, IPv6" transfer $mtu $tso $OURS6
    done
done
end_test
