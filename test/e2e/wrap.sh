#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Ports that cannot split headers are wrapped by net_hds, and the program says so.
. "$(dirname "$0")/lib.sh"

# wrapped PORT-SPEC DRIVER INTERFACE: the peer is at INTERFACE
wrapped() {
    local spec=$1 driver=$2 interface=$3
    "$NCAT" -l -f "$spec" -s $OURS4/24 -p $PORT --hash --json \
        >"$TMP/ncat.out" 2>"$TMP/ncat.err" </dev/null &
    NCAT_PID=$!
    wait_until 20 ip link show "$interface" || fail "no $interface"
    ip addr replace $PEER4/24 dev "$interface"
    ip link set "$interface" up
    wait_until 20 python3 "$TOOLS/ping.py" $OURS4 || fail "devmem-ncat does not answer"
    stream 32M | send_to $OURS4
    end_ncat 60
    expect sha256 "$(summary ncat 's["sha256"]')" "['$(stream_sha256 32M)']"
    expect split "$(summary ncat 's["port"]["split"]')" software
    expect driver "$(summary ncat 's["port"]["driver"]')" "$driver"
    grep -q net_hds "$TMP/ncat.err" || fail "it does not say that the port is wrapped"
}

af_packet() {
    ip link add peer0 type veth peer name wire0
    # The driver does not tell of checksums still to be filled in, nor take TSO frames.
    ethtool -K peer0 tx off tso off gso off >/dev/null
    ip link set wire0 up
    sysctl -qw net.ipv6.conf.wire0.disable_ipv6=1
    wrapped net_af_packet0,iface=wire0 net_af_packet peer0
}

run_case "net_af_packet" af_packet
run_case "net_tap" wrapped net_tap0,iface=dt0 net_tap dt0
end_test
