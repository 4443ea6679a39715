#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# One page_pool mempool in several processes, some of which are killed.
#
#   multiprocess.sh BUILD_DIR
#
# One line per test: `PASS name`, `FAIL name: why`, `SKIP name: reason`. Exit status 1 if any failed.
# The log is BUILD_DIR/multiprocess/log.
set -u

[ $# -eq 1 ] || { echo "usage: $0 BUILD_DIR" >&2; exit 2; }
build=$(realpath "$1") || exit 2
program=$build/test/dpdk/multiprocess
[ -x "$program" ] || { echo "$0: no $program: build first" >&2; exit 2; }
logs=$build/multiprocess
log=$logs/log
mkdir -p "$logs" || exit 2

skip() { echo "SKIP multiprocess: $1"; exit 0; }
hugepages=$(awk '$1 == "HugePages_Free:" { free = $2 } $1 == "Hugepagesize:" { kib = $2 }
                 END { print int(free * kib / 1024) }' /proc/meminfo)
[ "$hugepages" -ge 128 ] || skip "needs 128 MiB of free hugepages, there are $hugepages (see vm.nr_hugepages)"

[ "$(nproc)" -ge 2 ] || skip "needs 2 cores, there is $(nproc)"

# Processes share hugepages as files of a file system: one of our own, that goes with us.
if [ -z "${MULTIPROCESS_NAMESPACE:-}" ]; then
    export MULTIPROCESS_NAMESPACE=1
    unshare --mount true 2>/dev/null && exec unshare --mount "$0" "$@"
    skip 'a mount namespace is refused (needs root)'
fi
RUNTIME_DIRECTORY=$(mktemp -d) && export RUNTIME_DIRECTORY || exit 2
trap 'umount "$RUNTIME_DIRECTORY/huge" 2>/dev/null; rm -rf "$RUNTIME_DIRECTORY"' EXIT
mkdir "$RUNTIME_DIRECTORY/huge"
mount -t hugetlbfs none "$RUNTIME_DIRECTORY/huge" 2>/dev/null || skip 'hugetlbfs may not be mounted (needs root)'

# Two CPUs, a lcore on each.
lcores=$(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status | tr , '\n' |
    awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print n++ "@" i }' | head -n 2 | paste -sd,)
# All must have the same memory at the same addresses: far from where libraries come to be, and from
# what sanitizers reserve.
timeout -k 5 120 "$program" --base-virtaddr=0x200000000000 "--file-prefix=multiprocess-$$" \
    "--huge-dir=$RUNTIME_DIRECTORY/huge" "--lcores=$lcores" -m 128 --no-pci --no-telemetry \
    >"$log" 2>&1
status=$?
awk -v log_file="$log" '
    /^note / { note = substr($0, 6) }
    /^\[ RUN / { name = $NF; sub(/.*\./, "", name); note = "" }
    /^\[ +OK \]/ { print "PASS " name (note == "" ? "" : ", " note); name = "" }
    /^\[  FAILED  \]/ && name != "" { print "FAIL " name ": see " log_file; name = ""; failed = 1 }
    END {
        if (name != "") { print "FAIL " name ": it did not end, see " log_file; failed = 1 }
        exit failed
    }' "$log"
[ $? -eq 0 ] && [ $status -eq 0 ] && exit 0
grep -q '^\[ RUN' "$log" || echo "FAIL multiprocess: status $status, see $log"
exit 1
