#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What devmem-ncat says at the end, and when the end is.
. "$(dirname "$0")/lib.sh"

fields() {
    listen_ncat ncat --hash -m opaque:size=64M,page=64K
    stream 64M | send_to $OURS4
    end_ncat
    expect "lines on stdout" "$(wc -l <"$TMP/ncat.out")" 1
    python3 - "$TMP/ncat.out" <<'PYTHON' || fail "the summary is wrong, see the log"
import json, sys
s = json.load(open(sys.argv[1]))
shape = {
    "bytes": int, "seconds": float, "gbps": float, "cpu_seconds": float, "connections": int, "tokens": int,
    "mean_token_bytes": (int, float), "device_bytes": int, "host_bytes": int,
    "fill": (int, float), "ooo_segments": int, "ce_segments": int, "sha256": list, "region": dict, "port": dict,
    "drops": dict,
}
for name, kind in shape.items():
    assert isinstance(s[name], kind), (name, s.get(name))
for name, kind in {"spec": str, "readable": bool, "page_bytes": int, "fragment_bytes": int}.items():
    assert isinstance(s["region"][name], kind), name
for name, kind in {"name": str, "driver": str, "split": str}.items():
    assert isinstance(s["port"][name], kind), name
assert all(isinstance(n, int) and n >= 0 for n in s["drops"].values()), s["drops"]
assert s["bytes"] == 64 << 20 and s["connections"] == 1
assert s["device_bytes"] + s["host_bytes"] == s["bytes"]
assert abs(s["gbps"] - s["bytes"] * 8e-9 / s["seconds"]) <= 0.02 * s["gbps"], s
assert 0 < s["cpu_seconds"] <= 1.1 * s["seconds"] + 0.1, s
assert abs(s["mean_token_bytes"] - s["bytes"] / s["tokens"]) <= 1, s
assert 0 < s["fill"] <= 1, s["fill"]
assert s["region"]["page_bytes"] == 65536 and s["region"]["fragment_bytes"] <= 65536
assert s["port"]["driver"] == "net_hds" and s["port"]["split"] == "software", s["port"]
PYTHON
}

in_turn() {
    local i
    listen_ncat ncat -k --connections 3 --hash
    for i in 1 2 3; do
        stream "${i}M" "$i" | send_to $OURS4
    done
    end_ncat
    expect sha256 "$(summary ncat '" ".join(s["sha256"])')" \
        "$(stream_sha256 1M 1) $(stream_sha256 2M 2) $(stream_sha256 3M 3)"
}

keeps_listening() {
    local i
    listen_ncat ncat -k --hash
    for i in 1 2; do
        "$BLAST" --connect $OURS4:$PORT --size 1M >&2
        sleep 0.3
        ncat_alive || fail "it ended after connection $i"
    done
    kill -INT $NCAT_PID
    end_ncat 10
    expect connections "$(summary ncat 's["connections"]')" 2
}

# --send goes to whoever connects, too.
sends() {
    stream 3M >"$TMP/reply"
    listen_ncat ncat --send "$TMP/reply"
    timeout 20 python3 - $OURS4 $PORT <<'PYTHON' | sha256 >"$TMP/got"
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
left = 3 << 20
while left and (data := peer.recv(left)):
    sys.stdout.buffer.write(data)
    left -= len(data)
PYTHON
    end_ncat
    expect "sha256 of the reply" "$(cat "$TMP/got")" "$(stream_sha256 3M)"
}

# ncdevmem's pattern, of which `yes` makes any amount.
repeat() { (set +o pipefail; yes 123456 | head -c "$1" | tr '\n1-6' '\0\1-\6'); }

validates() {
    local tail=$1 wanted=$2
    listen_ncat ncat -v 7
    { repeat 70M; printf '%b' "$tail"; } | send_to $OURS4
    end_ncat 20 "$wanted"
}

run_case "JSON fields" fields
run_case "--connections 3, in turn" in_turn
run_case "-k keeps listening until interrupted" keeps_listening
run_case "--send from the listening side" sends
run_case "-v 7 takes the pattern" validates '\01\02\03' 0
run_case "-v 7 finds a wrong byte" validates '\01\03' 1
end_test
