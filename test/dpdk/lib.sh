# SPDX-License-Identifier: BSD-3-Clause
# Stock dpdk-testpmd with our drivers, driven through its command line.
# Sourced, from a bash script that has `set -u`, its cases in `tests`, and BUILD_DIR as its argument.

[ $# -eq 1 ] || { echo "usage: $0 BUILD_DIR" >&2; exit 2; }
build=$(realpath "$1") || exit 2
plugins=("$build/drivers/plugin/librte_mempool_page_pool.so" "$build/drivers/plugin/librte_net_hds.so")
for plugin in "${plugins[@]}"; do
    [ -e "$plugin" ] || { echo "$0: no $plugin: build first" >&2; exit 2; }
done
logs=$build/$(basename "$0" .sh)
mkdir -p "$logs" || exit 2

skip_all() {
    for name in $tests; do echo "SKIP $name: $1"; done
    exit 0
}
command -v dpdk-testpmd >/dev/null || skip_all 'dpdk-testpmd is not installed (apt install dpdk-dev)'
[ "$(nproc)" -ge 2 ] || skip_all "needs 2 cores, there is $(nproc)"

# own_network "$@": go on in a network namespace of our own: what we make is seen by nobody else, and
# goes with us.
own_network() {
    [ -z "${TESTPMD_NAMESPACE:-}" ] || return 0
    export TESTPMD_NAMESPACE=1
    unshare --net true 2>/dev/null && exec unshare --net "$0" "$@"
    unshare --user --map-root-user --net true 2>/dev/null &&
        exec unshare --user --map-root-user --net "$0" "$@"
    skip_all 'a network namespace is refused (needs root, or user namespaces)'
}

# Two cores: the main lcore, which waits for commands, shares one.
read -r cpu0 cpu1 < <(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status | tr , '\n' |
    awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }' | head -n 2 | paste -sd' ')
eal=("--lcores=0@$cpu0,1@$cpu1,2@$cpu0" --no-pci --no-telemetry "${plugins[@]/#/-d}")
ops=page_pool
hugepages=$(awk '$1 == "HugePages_Free:" { free = $2 } $1 == "Hugepagesize:" { kib = $2 }
                 END { print int(free * kib / 1024) }' /proc/meminfo)
if [ "$hugepages" -ge 256 ]; then
    eal+=(--in-memory -m 256)
else
    eal+=(--no-huge -m 256 --no-shconf "--file-prefix=testpmd-$$")
fi

testpmd=
status=0
trap '' PIPE # testpmd may be gone when it is told something
RUNTIME_DIRECTORY=$(mktemp -d) && export RUNTIME_DIRECTORY || exit 2
trap 'exec 3>&-; [ -z "$testpmd" ] || kill "$testpmd" 2>/dev/null; wait; rm -rf "$RUNTIME_DIRECTORY"' EXIT

# begin NAME EAL-ARGUMENT... -- ARGUMENT...: start testpmd, and its forwarding.
begin() {
    local commands=$logs/$1.in
    log=$logs/$1.log
    shift
    why=
    rm -f "$commands"
    mkfifo "$commands"
    stdbuf -oL dpdk-testpmd "${eal[@]}" "--mbuf-pool-ops-name=$ops" "$@" <"$commands" >"$log" 2>&1 &
    testpmd=$!
    exec 3>"$commands"
    rm "$commands"
    tell start
    await 20 grep -q 'packet forwarding - ' "$log" || why='testpmd did not start'
}

# tell COMMAND...
tell() { printf '%s\n' "$@" 2>/dev/null >&3; }

# await SECONDS COMMAND...: until it succeeds.
await() {
    local tries=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ $((tries--)) -gt 0 ] && kill -0 "$testpmd" 2>/dev/null || return 1
        sleep 0.1
    done
}

# finish POOL...: stop, and end; none of the pools' mbufs may be out then.
finish() {
    local pool out
    tell stop 'port stop all' "${@/#/dump_mempool }" 'show port xstats all' quit
    exec 3>&-
    await 20 false # until it is gone
    wait "$testpmd" || why=${why:-"testpmd ended with status $?"}
    testpmd=
    for pool in "$@"; do
        out=$(in_use "$pool")
        [ "$out" = 0 ] || why=${why:-"$out mbufs of $pool are still in use"}
    done
    ! grep -q 'page_pool .* refused' "$log" || why=${why:-'page_pool refused a free'}
}

# in_use POOL: the mbufs that are not in it, or in a cache, by its last dump. Empty if it is not ours.
in_use() {
    awk -v start="mempool <$1>@" '
        index($0, "mempool <") { ours = index($0, start); size = free = 0; page_pool = 0 }
        ours && $1 == "ops_name:" { page_pool = $2 == "<page_pool>" }
        ours && split($1, field, "=") == 2 {
            if (field[1] == "size") size = field[2]
            if (field[1] == "total_cache_count") free += field[2]
            if (field[1] == "common_pool_count" && page_pool) out = size - free - field[2]
        }
        END { print out }' "$log"
}

# xstat PORT NAME
xstat() {
    awk -v port="$1" -v name="$2:" '
        /NIC extended statistics for port/ { ours = $NF == port }
        ours && $1 == name { value = $2 }
        END { print value }' "$log"
}

# verdict NAME [REMARK]
verdict() {
    if [ -n "$why" ]; then
        echo "FAIL $1: $why, see $log"
        status=1
    else
        echo "PASS $1${2:+, $2}"
    fi
}
