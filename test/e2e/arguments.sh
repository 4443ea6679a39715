#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A wrong argument: status 2 and one line that names it.
. "$(dirname "$0")/lib.sh"

GOOD=(-l -f tap:dm0 -s $OURS4/24 -p $PORT)

# wrong NAMED ARG...: the line contains NAMED.
wrong() {
    local named=$1 status=0
    shift
    timeout 20 "$NCAT" "$@" >"$TMP/ncat.out" 2>"$TMP/ncat.err" </dev/null || status=$?
    expect "exit status" $status 2
    expect "lines on stderr" "$(wc -l <"$TMP/ncat.err")" 1
    grep -qF -e "$named" "$TMP/ncat.err" || fail "'$named' is not named: $(cat "$TMP/ncat.err")"
}

refuse() { run_case "refuses ${*:2}" wrong "$@"; }

refuse --frobnicate "${GOOD[@]}" --frobnicate
refuse -l -f tap:dm0 -s $OURS4/24 -p $PORT
refuse -c "${GOOD[@]}" -c $PEER4
refuse -f -l -s $OURS4/24 -p $PORT
refuse -s -l -f tap:dm0 -p $PORT
refuse -p -l -f tap:dm0 -s $OURS4/24 -p 0
refuse -p -l -f tap:dm0 -s $OURS4/24 -p 65536
refuse -p -l -f tap:dm0 -s $OURS4/24 -p http
refuse 10.0.0.300 -l -f tap:dm0 -s 10.0.0.300 -p $PORT
refuse 10.0.0.2/33 -l -f tap:dm0 -s 10.0.0.2/33 -p $PORT
refuse fd00::2/129 -l -f tap:dm0 -s fd00::2/129 -p $PORT
refuse -g "${GOOD[@]}" -g 10.0.0
refuse example -c example -f tap:dm0 -s $OURS4/24 -p $PORT
refuse a_name_too_long_for_linux -l -f tap:a_name_too_long_for_linux -s $OURS4/24 -p $PORT
refuse -q "${GOOD[@]}" -q 0
refuse -q "${GOOD[@]}" -q many
refuse -v "${GOOD[@]}" -v 0
refuse -v "${GOOD[@]}" -v 300
refuse --hds-thresh "${GOOD[@]}" --hds-thresh 65536
refuse --hds-thresh "${GOOD[@]}" --hds-thresh -1
refuse --hds-thresh "${GOOD[@]}" --hds-thresh
refuse --rate "${GOOD[@]}" --rate 0
refuse --rate "${GOOD[@]}" --rate fast
refuse --hold "${GOOD[@]}" --hold 129M
refuse --connections "${GOOD[@]}" --connections 0
refuse --dscp "${GOOD[@]}" --dscp 64
refuse --ttl "${GOOD[@]}" --ttl 0
refuse --source "${GOOD[@]}" --source $OURS4
refuse --source -c $PEER4 -f tap:dm0 -s $OURS4/24 -p $PORT --source 10.0.0.3
refuse --source-port "${GOOD[@]}" --source-port 2
refuse --send "${GOOD[@]}" --send /nonexistent
refuse -o "${GOOD[@]}" -o /nonexistent/file
refuse nonsense "${GOOD[@]}" -m nonsense:size=1M
refuse colour "${GOOD[@]}" -m opaque:colour=red
refuse size "${GOOD[@]}" -m opaque:size=1
refuse page "${GOOD[@]}" -m opaque:size=1M,page=3K
end_test
