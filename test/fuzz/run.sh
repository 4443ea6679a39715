#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A short run of each target, from its corpus on and the same every time: run.sh BUILD [TARGET...]
# BUILD is one with -Dfuzz=true. DEVMEM_FUZZ_SECONDS=N runs each for that long instead, from another
# seed each time. What a run finds new, and what fails, stays in BUILD/fuzz.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
build=$1
shift
# As many inputs as each tries in a few seconds.
declare -A runs=([api]=8000 [engine]=12000 [frame]=500000 [options]=1500000 [spec]=50000)
declare -A length=([api]=400 [engine]=600 [frame]=256 [options]=40 [spec]=100)
[ $# -ne 0 ] || set -- api engine frame options spec

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:quarantine_size_mb=8}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
failed=0
for target in "$@"; do
    found=$build/fuzz/$target
    if [ -n "${DEVMEM_FUZZ_SECONDS:-}" ]; then
        much=(-max_total_time="$DEVMEM_FUZZ_SECONDS")
    else
        rm -rf "$found"
        much=(-seed=1 -runs="${runs[$target]}")
    fi
    mkdir -p "$found"
    if "$build/test/fuzz/fuzz_$target" "${much[@]}" -max_len="${length[$target]}" -timeout=10 \
        -print_final_stats=1 -artifact_prefix="$found-" "$found" "corpus/$target" \
        >"$found.log" 2>&1; then
        echo "PASS $target"
        sed -n 's/^stat::\(number_of_executed_units\|average_exec_per_sec\)/  \1/p' "$found.log"
    else
        failed=1
        echo "FAIL $target: $(grep -m1 -E 'not so|ERROR|runtime error|ALARM' "$found.log" || echo "see $found.log")"
        tail -n 40 "$found.log"
    fi
done
exit $failed
