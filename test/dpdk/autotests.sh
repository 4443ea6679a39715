#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Run stock dpdk-test on the mempool driver `page_pool`.
#
#   autotests.sh BUILD_DIR
#
# One line per test: `PASS name`, `FAIL name`, `SKIP name: reason`. Exit status 1 if any failed.
# Names that end in :nohuge ran without hugepages. Logs are kept in BUILD_DIR/autotests/.
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

hugepage_tests='mempool mbuf reorder ipfrag distributor ring_pmd'
nohuge_tests='mempool mbuf reorder ipfrag'
status=0

# What stands in the way of every test; empty if nothing does.
blocked=
command -v dpdk-test >/dev/null || blocked='dpdk-test is not installed (apt install dpdk-dev)'
[ -e "$plugin" ] || { echo "$0: no $plugin: build first" >&2; exit 2; }
cores=$(nproc)
[ "$cores" -ge 2 ] || blocked="needs 2 cores, there is $cores"

# 512 MiB for EAL, in 2 MiB pages that are free.
hugepages=$(awk '$1 == "HugePages_Free:" { free = $2 } $1 == "Hugepagesize:" { kib = $2 }
                 END { print int(free * kib / 1024) }' /proc/meminfo)

# run NAME LABEL EAL-ARGUMENT...
run() {
    name=$1 label=$2
    shift 2
    log=$logs/$label.log
    DPDK_TEST=${name}_autotest timeout 300 dpdk-test -l "$lcores" --no-pci --no-telemetry "$@" \
        -d "$plugin" --mbuf-pool-ops-name=page_pool </dev/null >"$log" 2>&1
    rc=$?
    case $rc in
    0) echo "PASS $label" ;;
    77) echo "SKIP $label: dpdk-test says it cannot run here (see $log)" ;;
    *) echo "FAIL $label: exit status $rc, see $log"; status=1 ;;
    esac
}

# Two of the cores this process may run on.
lcores=$(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status | tr , '\n' |
         awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }' | head -n 2 | paste -sd,)

for name in $hugepage_tests; do
    if [ -n "$blocked" ]; then
        echo "SKIP $name: $blocked"
    elif [ "$hugepages" -lt 512 ]; then
        echo "SKIP $name: needs 512 MiB of free hugepages, there are $hugepages"
    else
        run "$name" "$name" --in-memory -m 512
    fi
done
for name in $nohuge_tests; do
    if [ -n "$blocked" ]; then
        echo "SKIP $name:nohuge: $blocked"
    else
        run "$name" "$name:nohuge" --no-huge -m 1024 --file-prefix="page_pool_$$"
    fi
done
exit $status
