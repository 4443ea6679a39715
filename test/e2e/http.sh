#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A file fetched over HTTP from nginx: connect, send a request, receive.
. "$(dirname "$0")/lib.sh"

fetch() {
    local address=$1 url_host=${1/*:*/[$1]}
    make_tap
    mkdir -p "$TMP/www"
    stream 64M >"$TMP/www/file"
    cat >"$TMP/nginx.conf" <<CONF
daemon off;
master_process off;
pid $TMP/nginx.pid;
error_log stderr;
events { }
http {
    access_log $TMP/access.err;
    client_body_temp_path $TMP/body;
    proxy_temp_path $TMP/proxy;
    fastcgi_temp_path $TMP/fastcgi;
    uwsgi_temp_path $TMP/uwsgi;
    scgi_temp_path $TMP/scgi;
    server { listen $PEER4:80; listen [$PEER6]:80; root $TMP/www; }
}
CONF
    nginx -e stderr -p "$TMP" -c "$TMP/nginx.conf" 2>"$TMP/nginx.err" &
    wait_until 10 eval 'ss -tlnH sport 80 | grep -q .' || fail "nginx did not start"
    printf 'GET /file HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$url_host" >"$TMP/request"
    start_ncat ncat -c "$address" -p 80 --send "$TMP/request" -o "$TMP/response"
    end_ncat
    head -c 15 "$TMP/response" | grep -q '^HTTP/1.1 200 OK' || fail "the answer is not 200"
    expect "sha256 of the body" "$(tail -c $((64 << 20)) "$TMP/response" | sha256)" "$HASH"
    expect "blank line before the body" \
        "$(head -c -$((64 << 20)) "$TMP/response" | tail -c 4 | od -An -c | tr -d ' ')" '\r\n\r\n'
}

refused() {
    make_tap
    start_ncat ncat -c $PEER4 -p 81
    end_ncat 10 1
    grep -qi refused "$TMP/ncat.err" || fail "the refusal is not reported"
}

HASH=$(stream_sha256 64M)
run_case "from nginx over IPv4" fetch $PEER4
run_case "from nginx over IPv6" fetch $PEER6
run_case "connection refused" refused
end_test
