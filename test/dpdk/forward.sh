#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Stock dpdk-testpmd swaps MAC addresses between two ports whose mbufs come from `page_pool`, without
# a cache in front of it: every packet is a get and a put. In the end every mbuf is back.
#
#   forward.sh BUILD_DIR
#
# One line per test: `PASS name, packets`, `FAIL name: why`, `SKIP name: reason`. Exit status 1 if any
# failed. Logs are kept in BUILD_DIR/forward/.
set -u
tests='native xbuf pipeline split-rxhdrs split-rxpkts'
. "$(dirname "$0")/lib.sh"

# sent: packets transmitted so far, on all ports.
sent() {
    awk '/Accumulated forward statistics/ { all = 1 }
         all && $1 == "TX-packets:" { n = $2; all = 0 }
         END { print n + 0 }' "$log"
}
have_sent() {
    tell 'show fwd stats all'
    sleep 0.2
    [ "$(sent)" -ge "$1" ]
}

# forward NAME PACKETS HOPS POOLS SPLIT-PORTS EAL-ARGUMENT... -- ARGUMENT...: until PACKETS have gone
# HOPS times from port to port. What SPLIT-PORTS receive must be split, to the last packet.
forward() {
    local name=$1 packets=$2 hops=$3 pools=$4 ports=$5 start=$SECONDS done port split received
    shift 5
    begin "$name" "$@" --forward-mode=macswap --mbcache=0 --total-num-mbufs=8192 --no-flush-rx -i
    [ -n "$why" ] || await 120 have_sent $((packets * hops)) || why="not $packets packets"
    done="$(($(sent) / hops)) packets in $((SECONDS - start)) s"
    # A ring may hold packets. Nothing new gets there while they are received.
    tell stop 'set fwd rxonly' start
    sleep 0.2
    # shellcheck disable=SC2086
    finish $pools
    for port in $ports; do
        split=$(xstat "$port" rx_split_packets)
        received=$(xstat "$port" rx_good_packets)
        [ -n "$split" ] && [ "$split" = "$received" ] || why=${why:-"port $port split $split packets of $received"}
    done
    verdict "$name" "$done"
}

# TCP segments over IPv4, for net_pcap to send round and round.
segments=$logs/segments.pcap
python3 - "$segments" <<'PYTHON' || exit 2
import struct, sys
def segment(payload):
    ip = struct.pack("!BBHIBBH8s", 0x45, 0, 40 + payload, 0, 64, 6, 0, bytes([10, 0, 0, 1, 10, 0, 0, 2]))
    tcp = struct.pack("!HHIIBBHI", 7000, 7001, 1, 1, 5 << 4, 0x10, 65535, 0)
    return bytes(12) + b"\x08\x00" + ip + tcp + bytes(payload)
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    for frame in map(segment, (1460, 536, 100, 1448)):
        file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
PYTHON

null='--vdev=net_null0 --vdev=net_null1'
# From one lcore, which gets mbufs, through a ring to another, which puts them.
ring='--vdev=net_null0 --vdev=net_ring0'
# Ports 1 and 3: payload in chains of mbufs of a second pool.
split="--vdev=net_pcap0,rx_pcap=$segments,infinite_rx=1 --vdev=net_hds0,lower=net_pcap0"
split+=" --vdev=net_pcap1,rx_pcap=$segments,infinite_rx=1 --vdev=net_hds1,lower=net_pcap1"
split+=' -- --mbuf-size=384,640 --rx-offloads=0x100000'

# shellcheck disable=SC2086
{
    forward native 100000000 1 mb_pool_0 '' $null -- --mp-alloc=native
    forward xbuf 100000000 1 mb_pool_0 '' $null -- --mp-alloc=xbuf
    forward pipeline 20000000 2 mb_pool_0 '' $ring -- --nb-cores=2
    forward split-rxhdrs 100000000 1 'mb_pool_0 mb_pool_0_1' '1 3' $split --rxhdrs=ipv4-tcp
    forward split-rxpkts 10000000 1 'mb_pool_0 mb_pool_0_1' '1 3' $split --mp-alloc=xbuf \
        --rxpkts=96,500 --rxoffs=0,8
}
exit $status
