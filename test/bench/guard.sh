#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# guard.sh [--update]: instructions and cold cache lines of a received packet, counted by callgrind,
# beside those of guard.tsv. One that is more than TOLERANCE above its figure fails.
# --update: write guard.tsv anew.
set -euo pipefail
. "$(dirname "$0")/../../scripts/common.sh"

TOLERANCE=1 # per cent; runs differ by a hundredth of one, for hashes have secrets
FIGURES=$ROOT/test/bench/guard.tsv
PROGRAM=$BUILD/test/bench/rx_guard
# The caches of nobody in particular, so that all machines count the same.
CACHES=(--cache-sim=yes '--I1=32768,8,64' '--D1=32768,8,64' '--LL=1048576,16,64')

skip() { echo "SKIP $1"; exit 77; }

command -v valgrind >/dev/null || skip "guard: there is no valgrind"
[ -x "$PROGRAM" ] || skip "guard: $PROGRAM was not built (-Dbench=true)"

# count: of each scenario its name, instructions and cold lines of a packet, less those of the senders.
count() {
    local dump name
    for dump in "$SCRATCH"/dump.*; do
        name=$(sed -n 's/^desc: Trigger: Client Request: //p' "$dump")
        awk -v name="$name" -v packets="$PACKETS" '
            $1 == "events:" { for (i = 2; i <= NF; i++) column[$i] = i }
            $1 == "summary:" { instructions += $column["Ir"]; lines += $column["DLmr"] + $column["DLmw"] }
            /^cfn=bench::Traffic::next/ { senders = 1 }
            /^calls=/ && senders {
                getline # what they took there
                instructions -= $column["Ir"]
                lines -= $column["DLmr"] + $column["DLmw"]
                senders = 0
            }
            END { printf "%s\t%.1f\t%.2f\n", name, instructions / packets, lines / packets }' "$dump"
    done
}

# functions instructions|"cold lines" SCENARIO: where they are, the most first.
functions() {
    awk -v packets="$PACKETS" -v lines="$([ "$1" = instructions ] || echo 1)" '
        $1 == "events:" { for (i = 2; i <= NF; i++) column[$i] = i }
        /^fn=/ { name = substr($0, 4) }
        /^calls=/ { getline; next }
        /^[-+*0-9]/ { own[name] += lines ? $column["DLmr"] + $column["DLmw"] : $column["Ir"] }
        END { for (name in own) if (own[name] != 0) printf "%9.2f %s\n", own[name] / packets, name }' \
        "$(grep -l "Client Request: $2\$" "$SCRATCH"/dump.*)" | sort -rn | head -15
}

CONDITIONS=$("$PROGRAM" conditions)
if [ "${1:-}" != --update ] && [ "$(head -1 "$FIGURES")" != "# $CONDITIONS" ]; then
    skip "guard: figures are for $(sed -n '1s/^# //p' "$FIGURES"), this is $CONDITIONS"
fi

SCRATCH=$(mktemp -d)
at_exit "rm -rf $SCRATCH"
if ! valgrind -q --tool=callgrind "${CACHES[@]}" --compress-strings=no \
    --callgrind-out-file="$SCRATCH/dump" "$PROGRAM" >"$SCRATCH/out" 2>"$SCRATCH/err"; then
    cat "$SCRATCH/err"
    echo "FAIL guard: rx_guard failed under valgrind"
    exit 1
fi
PACKETS=$(awk '$2 == "packets" { print $1 }' "$SCRATCH/out")
count >"$SCRATCH/counted"

if [ "${1:-}" = --update ]; then
    { echo "# $CONDITIONS"
      printf '# scenario\tinstructions\tcold lines\n'
      cat "$SCRATCH/counted"; } >"$FIGURES"
    cat "$FIGURES"
    exit
fi

# compare: PASS and FAIL lines.
compare() {
    awk -F'\t' -v tolerance=$TOLERANCE '
        function judge(what, now, then, slack) {
            if (now > then * (1 + tolerance / 100) + slack)
                print "FAIL " what ": " now " a packet, and was " then
            else
                print "PASS " what ": " now " a packet"
            if (now < then * (1 - tolerance / 100) - slack)
                print "now less than " then ": keep it with guard.sh --update"
        }
        /^#/ { next }
        NR == FNR { instructions[$1] = $2; lines[$1] = $3; next }
        !($1 in instructions) { print "FAIL " $1 ": it has no figures; give it some with guard.sh --update"; next }
        {
            judge("instructions, " $1, $2, instructions[$1], 0)
            judge("cold lines, " $1, $3, lines[$1], 0.1)
            delete instructions[$1]
        }
        END { for (name in instructions) print "FAIL " name ": not counted" }' \
        "$FIGURES" "$SCRATCH/counted"
}

status=0
while read -r line; do
    echo "$line"
    [[ $line == FAIL* ]] || continue
    status=1
    if [[ $line =~ ^'FAIL '(.*)', '([a-z]+): ]]; then
        functions "${BASH_REMATCH[@]:1}"
    fi
done < <(compare)
exit $status
