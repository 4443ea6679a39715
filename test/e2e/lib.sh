# SPDX-License-Identifier: BSD-3-Clause
# Sourced first by every test of this folder. A test is a bash script with one function per case; it
# runs as root of a private network namespace, prints `PASS name`, `FAIL name: why` or
# `SKIP name: why` for each case, and exits 0, 1, or 77 if there was nothing but skips.
#
# The kernel side of the TAP `dm0` is the peer: it has 10.0.0.1 and fd00::1, and devmem-ncat, in
# the same namespace, serves 10.0.0.2 and fd00::2.

set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

TOOLS=$ROOT/test/tools
BLAST=$BUILD/test/tools/blast
NCAT=$BUILD/apps/devmem-ncat/devmem-ncat
PEER4=10.0.0.1 PEER6=fd00::1 OURS4=10.0.0.2 OURS6=fd00::2
PORT=5201
PORT_SPEC=tap:dm0
ADDRESSES=(-s $OURS4/24 -s $OURS6/64)

if [ -z "${DEVMEM_E2E_NAMESPACE:-}" ]; then
    need_tun
    need_hugepages 512
    set +e
    DEVMEM_E2E_NAMESPACE=1 in_namespace bash "$0" "$@"
    exit
fi
unset DEVMEM_E2E_NAMESPACE

TMP=$(mktemp -d)
at_exit "rm -rf $TMP"
PASSED=0 FAILED=0 SKIPPED=0

fail() { echo "$*" >"$TMP/reason"; exit 1; }
skip() { echo "$*" >"$TMP/reason"; exit 77; }

# expect WHAT GOT WANTED
expect() { [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"; }
# expect_that WHAT EXPRESSION: a Python expression of numbers is true.
expect_that() { python3 -c "import sys; sys.exit(not ($2))" || fail "$1: not true: $2"; }

# Within a case: end the processes it started, then the interfaces and rules it made.
end_case() {
    local each
    for each in $(jobs -p); do
        kill -9 "$each" || true
    done
    wait || true
    nft flush ruleset || true
    for each in $(ip -o link | awk -F': |@' '$2 != "lo" { print $2 }'); do
        ip link del "$each" || true
    done
    for each in $(ip netns list | cut -d' ' -f1); do
        ip netns del "$each" || true
    done
}

# run_case NAME FUNCTION [ARG...]
run_case() {
    local name=$1 status
    shift
    rm -rf "${TMP:?}"/*
    set +e
    (
        set -e
        trap 'echo "line $LINENO: $BASH_COMMAND: status $?" >&2' ERR
        trap 'end_case 2>/dev/null' EXIT
        "$@"
    )
    status=$?
    set -e
    case $status in
    0) PASSED=$((PASSED + 1)); echo "PASS $name" ;;
    77) SKIPPED=$((SKIPPED + 1)); echo "SKIP $name: $(cat "$TMP/reason")" ;;
    *)
        FAILED=$((FAILED + 1))
        tail -n 20 "$TMP"/*.err "$TMP"/ncat*.out >&2 2>/dev/null || true
        echo "FAIL $name: $(cat "$TMP/reason" 2>/dev/null || echo "status $status, see the log")"
        ;;
    esac
}

end_test() {
    [ $FAILED -eq 0 ] || exit 1
    [ $PASSED -gt 0 ] || exit 77
    exit 0
}

# stream BYTES [KEY]: the same pseudo-random bytes for the same key.
stream() {
    local bytes
    bytes=$(numfmt --from=iec "$1")
    openssl enc -aes-128-ctr -nosalt -K "$(printf '%032x' "${2:-1}")" -iv 0 -in /dev/zero 2>/dev/null |
        head -c "$bytes" || true
}
sha256() { openssl dgst -sha256 -r | cut -d' ' -f1; }
stream_sha256() { stream "$@" | sha256; }

# make_tap: dm0 before devmem-ncat attaches to it.
make_tap() {
    ip tuntap add dm0 mode tap vnet_hdr
    peer_up
}

# The kernel's side of dm0.
peer_up() {
    ip addr replace $PEER4/24 dev dm0
    [ "$(cat /proc/sys/net/ipv6/conf/dm0/mtu 2>/dev/null || echo 0)" -lt 1280 ] ||
        ip addr replace $PEER6/64 dev dm0 nodad
    ip link set dm0 txqueuelen 10000 up
}

# start_ncat NAME ARG...: in the background on dm0, JSON to NAME.json at the end.
start_ncat() {
    local name=$1
    shift
    "$NCAT" -f $PORT_SPEC "${ADDRESSES[@]}" -p $PORT --json "$@" \
        >"$TMP/$name.out" 2>"$TMP/$name.err" </dev/null &
    NCAT_PID=$!
}

ncat_alive() { kill -0 "$NCAT_PID" 2>/dev/null; }

# The stack answers on dm0: it is polled, and listens.
wait_ncat() {
    wait_until 20 ip link show dm0 || fail "devmem-ncat made no dm0"
    peer_up
    wait_until 20 python3 "$TOOLS/ping.py" $OURS4 || fail "devmem-ncat does not answer"
}

listen_ncat() {
    start_ncat "$1" -l "${@:2}"
    wait_ncat
}

# end_ncat [SECONDS [STATUS]]: wait for it to end by itself, with that exit status.
end_ncat() {
    wait_until "${1:-30}" eval '! ncat_alive' || fail "devmem-ncat did not end"
    local status=0
    wait "$NCAT_PID" || status=$?
    expect "exit status of devmem-ncat" $status "${2:-0}"
}

# summary NAME EXPRESSION: a Python expression of `s`, the JSON object devmem-ncat printed.
summary() {
    python3 -c '
import json, sys
s = json.loads(open(sys.argv[1]).read().splitlines()[-1])
print(eval(sys.argv[2]))' "$TMP/$1.out" "$2"
}

# dropped NAME: packets that devmem-ncat dropped, whatever the cause.
dropped() { summary "$1" 'sum(s["drops"].values())'; }

# A TCP sender in the kernel: stdin to the address, end of input is FIN.
send_to() { socat -u -b 262144 STDIN "TCP:${1/*:*/[$1]}:${2:-$PORT}"; }

# Times the kernel's TCP found that something was lost.
losses() { nstat -asz TcpExtTCPTimeouts TcpExtTCPFastRetrans | awk 'NR > 1 { n += $2 } END { print n }'; }
