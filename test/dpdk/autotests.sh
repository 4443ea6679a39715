#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Run stock dpdk-test on the mempool driver `page_pool`.
#
#   autotests.sh BUILD_DIR
#
# One line per test: `PASS name`, `FAIL name: why`, `SKIP name: reason`. Exit status 1 if any failed.
# A test passes if dpdk-test says so, the driver made the pools the test is about, and it refused no
# free. Names that end in :nohuge ran without hugepages. Logs are kept in BUILD_DIR/autotests/.
set -u

[ $# -eq 1 ] || { echo "usage: $0 BUILD_DIR" >&2; exit 2; }
build=$(realpath "$1") || exit 2
plugin=$build/drivers/plugin/librte_mempool_page_pool.so
logs=$build/autotests
mkdir -p "$logs" || exit 2
# EAL leaves its runtime directory behind: here, and not in the system's.
RUNTIME_DIRECTORY=$(mktemp -d) && export RUNTIME_DIRECTORY || exit 2
trap 'rm -rf "$RUNTIME_DIRECTORY"' EXIT
trap 'exit 1' INT TERM

# Test; pools it must have made here, by name; MiB it needs in hugepages, and without ("-": not run).
# event_eth_rx_adapter has 2^19 mbufs. table has an LPM of 1 GiB beside its pool, which no driver of
# mempools sees: once is enough. Nor would link_bonding_mode4, which takes half a minute, see a difference.
tests='
mempool               default_pool                         512   512
mbuf                  test_pktmbuf_pool,test_pinned_pool   512   512
reorder               RO_MBUF_POOL                         512   512
table                 mempool                              -     1536
ipfrag                FRAG_MBUF_POOL                       512   512
distributor           DT_MBUF_POOL                         512   512
ring_pmd              mbuf_pool                            512   512
event_eth_tx_adapter  mbuf_pool                            512   512
event_eth_rx_adapter  packet_pool                          1264  2560
link_bonding          MBUF_POOL                            512   512
link_bonding_mode4    TEST_MODE4,slave_port0_pool          512   -
pdump                 mbuf_pool_server                     512   512
sched                 test_sched                           512   512
cksum                 test_cksum_mbuf_pool                 512   512
bitratestats          mbuf_pool                            512   512
latencystats          mbuf_pool                            512   512
'

# What stands in the way of every test; empty if nothing does.
blocked=
command -v dpdk-test >/dev/null || blocked='dpdk-test is not installed (apt install dpdk-dev)'
[ -e "$plugin" ] || { echo "$0: no $plugin: build first" >&2; exit 2; }
cores=$(nproc)
[ "$cores" -ge 2 ] || blocked="needs 2 cores, there is $cores"

# MiB in free hugepages, and in all memory.
hugepages() {
    awk '$1 == "HugePages_Free:" { free = $2 } $1 == "Hugepagesize:" { kib = $2 }
         END { print int(free * kib / 1024) }' /proc/meminfo
}
memory() { awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo; }

# Two of the cores this process may run on.
lcores=$(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status | tr , '\n' |
         awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }' | head -n 2 | paste -sd,)

# dpdk_test TEST EAL-ARGUMENT...
dpdk_test() {
    test=$1
    shift
    case $test in
    link_bonding_mode4)
        # It gives LACP 30 x 100 ms to agree, and LACP needs all of it: 2 s of wait_while, and twice 0.5 s
        # between two LACPDUs. The bond measures those in TSC cycles, at the rate DPDK estimates to the
        # nearest 10 MHz, but looks at them at ticks of 100 ms of the kernel's clock. If the rate is less
        # than estimated, each ends just after a tick and costs another. As a batch job, which does not
        # preempt the test on its core, the tick is the later one.
        set -- taskset -c "${lcores%,*}" chrt --batch 0 dpdk-test -l "${lcores%,*}" "$@"
        ;;
    *) set -- dpdk-test -l "$lcores" "$@" ;;
    esac
    DPDK_TEST=${test}_autotest timeout 120 "$@" --no-pci --no-telemetry -d "$plugin" \
        --mbuf-pool-ops-name=page_pool --log-level=mempool.page_pool:debug </dev/null
}

# run NAME LABEL POOLS EAL-ARGUMENT...
status=0
run() {
    name=$1 label=$2 pools=$3 log=$logs/$2.log
    shift 3
    dpdk_test "$name" "$@" >"$log" 2>&1
    rc=$?
    why=
    [ $rc -eq 0 ] || why="exit status $rc"
    for pool in $(echo "$pools" | tr , ' '); do
        [ -n "$why" ] || grep -q "page_pool $pool: [0-9]* objects" "$log" ||
            why="its pool $pool is not one of page_pool's"
    done
    [ -n "$why" ] || ! grep -q 'page_pool .* refused' "$log" || why='page_pool refused a free'
    if [ $rc -eq 77 ]; then
        echo "SKIP $label: dpdk-test says it cannot run here (see $log)"
    elif [ -n "$why" ]; then
        echo "FAIL $label: $why, see $log"
        status=1
    else
        echo "PASS $label"
    fi
}

# consider NAME LABEL POOLS WHERE NEED HAVE EAL-ARGUMENT...: NEED and HAVE are MiB of WHERE.
consider() {
    name=$1 label=$2 pools=$3 where=$4 need=$5 have=$6
    shift 6
    if [ "$need" = - ]; then
        return
    elif [ -n "$blocked" ]; then
        echo "SKIP $label: $blocked"
    elif [ "$have" -lt "$need" ]; then
        echo "SKIP $label: needs $need MiB of $where, there are $have"
    else
        run "$name" "$label" "$pools" "$@"
    fi
}

while read -r name pools huge nohuge; do
    [ -n "$name" ] || continue
    consider "$name" "$name" "$pools" 'free hugepages' "$huge" "$(hugepages)" --in-memory -m 512
    consider "$name" "$name:nohuge" "$pools" memory "$nohuge" "$(memory)" \
        --no-huge -m "$nohuge" --file-prefix="page_pool_$$"
done <<EOF
$tests
EOF
exit $status
