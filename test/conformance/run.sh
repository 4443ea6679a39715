#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# run.sh engine|kernel|plugin|packetdrill: play all scripts that can be played so.
# engine: and compare the table of doc/conformance.md. plugin: as packetdrill would, with our own
# player. packetdrill: with the one on the PATH.
set -euo pipefail
. "$(dirname "$0")/../../scripts/common.sh"

FOLDER=$ROOT/test/conformance
PLUGIN=$BUILD/test/conformance/packetdrill_devmem.so
OUR_CALLS='^[^/#]*\b(credit|held_limit|hold|retrying|urgent_left|urgent_told)\('

# play PEER JOBS SCRIPT...
play() { "$BUILD/test/conformance/conformance" --peer="$1" --jobs="$2" "${@:3}"; }

# What packetdrill does not understand is left out, or said in its way: settings are flags of the
# plugin, errors carry a note.
play_stock() {
    local name=${1#"$FOLDER/"} script flags output
    script=$(mktemp)
    flags=$(sed -nE 's/^`sysctl -q ([^=]*)="?([^"`]*)"?`.*/\1=\2;/p' "$1" | tr -d '\n')
    sed -E '/^[#`]/d; s/= -1 (E[A-Z]+)/= -1 \1 (\1)/' "$1" >"$script"
    if output=$(timeout 20 packetdrill --so_filename="$PLUGIN" --so_flags="$flags" "$script" 2>&1); then
        echo "PASS $name"
    else
        echo "FAIL $name: $(tr '\n' ' ' <<<"${output//"$script"/"$name"}")"
    fi
    rm "$script"
}

status=0
case $1 in
engine)
    python3 "$FOLDER/table.py" check || status=1
    play engine 2 "$FOLDER"/*/*.pkt || status=$?
    ;;
kernel)
    play kernel 16 "$FOLDER"/*/*.pkt || status=$? # they wait most of the time
    ;;
plugin)
    mapfile -t scripts < <(grep -LE "$OUR_CALLS" "$FOLDER"/*/*.pkt)
    play "$PLUGIN" 2 "${scripts[@]}" || status=$?
    ;;
packetdrill)
    if ! command -v packetdrill >/dev/null; then
        echo "SKIP packetdrill: there is none on the PATH"
        exit 77
    fi
    if packetdrill --so_filename="$PLUGIN" "$FOLDER/rfc9293/passive_open.pkt" 2>&1 |
        grep -q ^lockall; then
        echo "SKIP packetdrill: it locks its memory, and may not (ulimit -l)"
        exit 77
    fi
    export FOLDER PLUGIN
    export -f play_stock
    grep -LE "$OUR_CALLS|<[^>]*\braw |^--ip_version=ipv6|^# packetdrill: not played" "$FOLDER"/*/*.pkt |
        xargs -P 2 -I{} bash -c 'play_stock {}' # the exit status is made of the lines, as of others
    ;;
esac
exit $status
