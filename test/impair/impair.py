#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The kernel's TCP sends through a bad wire, to devmem-ncat and, with --compare, to the kernel.

Namespaces `sender` and `receiver`, and this one between them:

    sender [w0] == wire == [w1] bridge [dm0] devmem-ncat      10.0.0.2, fd00::2
                                       [veth] == [receiver]   10.0.0.3, fd00::3

A pair is one stream to each of the two receivers through the same wire with the same seed, in
alternating order; a ratio is that of their goodputs, each from the first payload the receiver takes
to the last. Prints a line `PASS`, `FAIL` or `SKIP` for each pair: it fails if what was received is
not, by SHA-256, what was sent. With --compare the last line is about the median of the ratios.
"""

import argparse
import fnmatch
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cells import CELLS, Cell

BUILD = Path(os.environ["DEVMEM_BUILD"])
TOOLS = BUILD / "test/tools"
PING = Path(__file__).parents[1] / "tools/ping.py"
SENDER_MAC = "02:00:00:00:00:01"  # the same in all runs, as the receiver remembers it
PORT = 5201
SENDER = {4: "10.0.0.1", 6: "fd00::1"}
OURS = {4: "10.0.0.2", 6: "fd00::2"}
KERNEL = {4: "10.0.0.3", 6: "fd00::3"}
PREFIX = {4: 24, 6: 64}
ASKED = 0.95
# Cells of the everyday suite: one of each kind.
FEW = ["loss 1 %", "bursts of 10", "reorder 1 % by 1 ms", "duplicate 5 %", "corrupt 1 %",
       "MTU 1280 in mid-stream", "everything"]  # fmt: skip
RUN_SECONDS = 60


class Failed(Exception):
    """A run came to no good end."""


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True)


def inside(namespace: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{namespace}"]


def wait_until(what: str, condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


# Sender and wire on one CPU, the receiver on another, as devmem-ncat chooses it.
CPUS = sorted(os.sched_getaffinity(0))


def prefer(pid: int, priority: int) -> None:
    """Whatever else the machine does is to disturb the figures of neither receiver."""
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        pass


class Process:
    """In the background; its last line of output is a JSON object. Killed at the end of `with`."""

    def __init__(self, folder: Path, name: str, *argv, cpu: int):
        self.name = name
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=err, preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def alive(self) -> bool:
        return self.process.poll() is None

    def result(self, seconds: float = RUN_SECONDS) -> dict:
        """Wait for its end."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.name}: not done after {seconds:.0f} s") from error
        if status != 0:
            lines = self.err.read_text(errors="replace").splitlines()
            raise Failed(f"{self.name}: status {status}: {lines[-1] if lines else ''}")
        return json.loads(self.out.read_text().splitlines()[-1])


def set_up() -> None:
    """What stays from run to run."""
    for name in ("sender", "receiver"):
        ip("netns", "add", name)
        subprocess.run([*inside(name), "ip", "link", "set", "lo", "up"], check=True)
    # No traffic of this namespace's own on the bridge.
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1\n")
    ip("link", "add", "bridge", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
    ip("link", "set", "bridge", "up")
    ip("link", "add", "veth", "type", "veth", "peer", "name", "eth0", "netns", "receiver")
    ip("link", "set", "veth", "master", "bridge", "up")
    for family, address in KERNEL.items():
        ip("-n", "receiver", "addr", "add", f"{address}/{PREFIX[family]}", "dev", "eth0",
           *(["nodad"] if family == 6 else []))  # fmt: skip
    ip("-n", "receiver", "link", "set", "eth0", "up")
    for name in ("sender", "receiver"):
        # What one run finds out about the path is not the next one's.
        subprocess.run([*inside(name), "sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1"], check=True)


def attach(device: str, mtu: int) -> None:
    """To the bridge, once it is there."""
    wait_until(device, Path(f"/sys/class/net/{device}").exists)
    ip("link", "set", device, "mtu", str(mtu), "txqueuelen", "10000", "master", "bridge", "up")


def plug_wire(mtu: int) -> None:
    """The wire's ends have come up: one goes to the sender."""
    attach("w1", mtu)
    ip("link", "set", "w0", "mtu", str(mtu), "txqueuelen", "10000", "address", SENDER_MAC,
       "netns", "sender")  # fmt: skip
    ip("-n", "sender", "link", "set", "w0", "up")
    for family, address in SENDER.items():
        ip("-n", "sender", "addr", "add", f"{address}/{PREFIX[family]}", "dev", "w0",
           *(["nodad"] if family == 6 else []))  # fmt: skip


def listening() -> bool:
    sockets = subprocess.run([*inside("receiver"), "ss", "-tlnH"], capture_output=True, check=True)
    return bool(sockets.stdout)


def ping(address: str) -> bool:
    return subprocess.run([*inside("sender"), "python3", PING, address],
                          capture_output=True, check=False).returncode == 0  # fmt: skip


def transfer(args, cell: Cell, cc: str, family: int, ours: bool, folder: Path) -> dict:
    """One stream through one wire. @return what the receiver and the wire say of it"""
    address = (OURS if ours else KERNEL)[family]
    receive = (
        [BUILD / "apps/devmem-ncat/devmem-ncat", "-l", "-f", f"tap:dm0,mtu={cell.mtu}",
         "-s", f"{address}/{PREFIX[family]}", "-p", PORT, "--hash", "--json"]
        if ours else
        [*inside("receiver"), TOOLS / "blast", "--sink", f"{address}:{PORT}", "--hash"]
    )  # fmt: skip
    wire = [TOOLS / "wire/wire", "--seed", args.seed, "w0", "w1", *cell.options()]
    send = [*inside("sender"), TOOLS / "blast", "--connect", f"{address}:{PORT}",
            "--size", args.size, "--cc", cc, "--hash"]  # fmt: skip
    with Process(folder, "wire", *wire, cpu=CPUS[0]) as wire, \
         Process(folder, "receiver", *receive, cpu=CPUS[-1]) as receiver:  # fmt: skip
        plug_wire(cell.mtu)
        if ours:
            attach("dm0", cell.mtu)
        else:
            ip("link", "set", "veth", "mtu", str(cell.mtu))
            ip("-n", "receiver", "link", "set", "eth0", "mtu", str(cell.mtu))
            wait_until("the kernel listens", listening)
        wait_until(f"{address} answers", lambda: ping(address))
        prefer(wire.process.pid, 2)
        prefer(receiver.process.pid, 1)
        with Process(folder, "sender", *send, cpu=CPUS[0]) as sender:
            prefer(sender.process.pid, 1)
            sent = sender.result()
        received = receiver.result(10)
        wire.process.send_signal(signal.SIGINT)
        lanes = wire.result(10)
    hashes = received["sha256"]
    if (hashes[0] if ours else hashes) != sent["sha256"]:
        raise Failed(f"received {hashes}, sent {sent['sha256']}")
    return {"mbps": received["gbps"] * 1000, "received": received, "sent": sent, "wire": lanes}


def run_pair(args, cell: Cell, cc: str, family: int, number: int, folder: Path) -> dict:
    sides = [True, False] if args.compare else [True]
    if number % 2:
        sides.reverse()
    runs = {}
    for ours in sides:
        runs["ours" if ours else "kernel"] = transfer(args, cell, cc, family, ours, folder)
    if args.compare:
        runs["ratio"] = runs["ours"]["mbps"] / runs["kernel"]["mbps"]
    return runs


def show(pair: dict) -> str:
    if "ratio" not in pair:
        return ""
    return (f": {pair['ours']['mbps']:.1f} Mb/s, kernel {pair['kernel']['mbps']:.1f}, "
            f"ratio {pair['ratio']:.3f}")  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("impair", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--few", action="store_true",
                        help="one cell of each kind, IPv4 and IPv6 in turn, cubic, 4 MiB")  # fmt: skip
    parser.add_argument("--compare", action="store_true", help="with the kernel's receiver")
    parser.add_argument("--cell", action="append", metavar="GLOB", help="only these; may repeat")
    parser.add_argument("--cc", nargs="+", default=["cubic", "reno", "bbr"])
    parser.add_argument("--family", nargs="+", type=int, choices=[4, 6], default=[4, 6])
    parser.add_argument("--size", default="64M")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="pairs of each")
    parser.add_argument("--json", metavar="FILE", help="all figures and counters")
    parser.add_argument("--list", action="store_true", help="the cells, and end")
    return parser.parse_args()


def choose(args) -> list[tuple]:
    """(round, cell, congestion control, family)"""
    if args.few:
        args.size = "4M"
        few = [next(cell for cell in CELLS if cell.name == name) for name in FEW]
        return [(0, cell, "cubic", family) for cell, family in zip(few, itertools.cycle([4, 6]))]
    cells = [cell for cell in CELLS
             if any(fnmatch.fnmatch(cell.name, glob) for glob in args.cell or ["*"])]  # fmt: skip
    return list(itertools.product(range(args.rounds), cells, args.cc, args.family))


def summarise(ratios: list[float]) -> bool:
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    holds = median >= ASKED
    print(f"{'PASS' if holds else 'FAIL'} median ratio at least {ASKED}: {median:.3f} of "
          f"{len(ratios)} pairs, quartiles {low:.3f} and {high:.3f}, "
          f"from {min(ratios):.3f} to {max(ratios):.3f}")  # fmt: skip
    return holds


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if args.list:
        for cell in CELLS:
            print(f"{cell.name:26} MTU {cell.mtu}  {' '.join(cell.options())}")
        return 0
    plan = choose(args)
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    for cc in sorted({cc for _, _, cc, _ in plan} - set(available)):
        left_out = sum(each[2] == cc for each in plan)
        print(f"SKIP {cc}: this kernel has it not (tcp_available_congestion_control); {left_out} pairs")
    plan = [each for each in plan if each[2] in available]

    set_up()
    results, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (_, cell, cc, family) in enumerate(plan):
            name = f"{cell.name}, {cc}, IPv{family}"
            entry = {"cell": cell.name, "cc": cc, "family": family}
            try:
                entry |= run_pair(args, cell, cc, family, number, Path(folder))
                print(f"PASS {name}{show(entry)}", flush=True)
            except Failed as error:
                failed += 1
                entry["failed"] = str(error)
                print(f"FAIL {name}: {error}", flush=True)
            results.append(entry)
    ratios = [entry["ratio"] for entry in results if "ratio" in entry]
    if ratios and not summarise(ratios):
        failed += 1
    if args.json:
        Path(args.json).write_text(json.dumps({"seed": args.seed, "size": args.size, "pairs": results}))
    return 1 if failed else 0 if results else 77


if __name__ == "__main__":
    sys.exit(main())
