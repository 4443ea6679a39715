#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The kernel's TCP sends through a bad wire, to devmem-ncat and, with --compare, to the kernel.

Namespaces `sender` and `receiver`, and this one between them:

    sender [w0] == wire == [w1] bridge [dm0] == devmem-ncat   10.0.0.2, fd00::2
                                       [veth] == receiver     10.0.0.3, fd00::3

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
NCAT = BUILD / "apps/devmem-ncat/devmem-ncat"
BLAST = BUILD / "test/tools/blast"
WIRE = BUILD / "test/tools/wire/wire"
PING = Path(__file__).parents[1] / "tools/ping.py"

PORT = 5201
SENDER = {4: "10.0.0.1", 6: "fd00::1"}
OURS = {4: "10.0.0.2", 6: "fd00::2"}
KERNEL = {4: "10.0.0.3", 6: "fd00::3"}
PREFIX = {4: 24, 6: 64}
SENDER_MAC = "02:00:00:00:00:01"  # the same in all runs: the receiver remembers it
# Sender and wire on one CPU, the receiver on another, which is also devmem-ncat's choice.
CPUS = sorted(os.sched_getaffinity(0))
RUN_SECONDS = 60
ASKED = 0.95

# The everyday suite's: a cell of each kind, and the counter that shows that it was.
FEW = {
    "loss 1 %": "lost",
    "bursts of 4": "lost_in_bursts",
    "reorder 1 % by 1 ms": "reordered",
    "duplicate 5 %": "duplicated",
    "corrupt 1 %": "corrupted",
    "MTU 1280 in mid-stream": "too_big",
    "everything": "too_big",
}
FEW_SIZE = "16M"


class Failed(Exception):
    """A run came to no good end."""


def ip(*args: str) -> None:
    done = subprocess.run(["ip", *args], stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"ip {' '.join(args)}: {done.stderr.strip()}")


def inside(namespace: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{namespace}"]


def wait_until(what: str, condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Process:
    """In the background; its last line of output is a JSON object. Killed at the end of `with`."""

    def __init__(self, folder: Path, name: str, cpu: int, argv: list):
        self.name = name
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(cpu), *(str(arg) for arg in argv)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def prefer(self, priority: int) -> None:
        """Whatever else the machine does is to disturb the figures of neither receiver. Not from
        the start: EAL waits for threads of its own on the CPU it has."""
        try:
            os.sched_setscheduler(self.process.pid, os.SCHED_FIFO, os.sched_param(priority))
        except PermissionError:
            pass

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def result(self, seconds: float) -> dict:
        """Wait for its end."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.name}: not done after {seconds} s") from error
        if status != 0:
            lines = self.err.read_text(errors="replace").splitlines()
            raise Failed(f"{self.name}: status {status}: {lines[-1] if lines else ''}")
        return json.loads(self.out.read_text().splitlines()[-1])


def add_addresses(namespace: str, device: str, addresses: dict) -> None:
    ip("-n", namespace, "link", "set", device, "up")
    for family, address in addresses.items():
        nodad = ["nodad"] if family == 6 else []
        ip("-n", namespace, "addr", "add", f"{address}/{PREFIX[family]}", "dev", device, *nodad)


def set_up() -> None:
    """What stays from run to run."""
    for name in ("sender", "receiver"):
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        # What one run finds out about the path is not the next one's.
        no_metrics = ["sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1"]
        subprocess.run([*inside(name), *no_metrics], check=True)
    # No traffic of this namespace's own on the bridge.
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1\n")
    ip("link", "add", "bridge", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
    ip("link", "set", "bridge", "up")
    ip("link", "add", "veth", "type", "veth", "peer", "name", "eth0", "netns", "receiver")
    ip("link", "set", "veth", "master", "bridge", "up")
    add_addresses("receiver", "eth0", KERNEL)


def attach(device: str, mtu: int) -> None:
    """To the bridge, once it is there."""
    wait_until(device, Path(f"/sys/class/net/{device}").exists)
    ip("link", "set", device, "mtu", str(mtu), "txqueuelen", "10000", "master", "bridge", "up")


def plug_wire(mtu: int) -> None:
    """Its ends come up here; one goes to the sender."""
    attach("w1", mtu)  # made after w0
    ip("link", "set", "w0", "mtu", str(mtu), "txqueuelen", "10000", "address", SENDER_MAC)
    ip("link", "set", "w0", "netns", "sender")
    add_addresses("sender", "w0", SENDER)


def plug_receiver(ours: bool, mtu: int) -> None:
    if ours:
        attach("dm0", mtu)
    else:
        ip("link", "set", "veth", "mtu", str(mtu))
        ip("-n", "receiver", "link", "set", "eth0", "mtu", str(mtu))
        wait_until("the kernel listens", listening)


def listening() -> bool:
    sockets = subprocess.run([*inside("receiver"), "ss", "-tlnH"], capture_output=True, check=True)
    return bool(sockets.stdout)


def answers(address: str) -> bool:
    ping = [*inside("sender"), "python3", PING, address]
    return subprocess.run(ping, capture_output=True).returncode == 0


def sent_sha256(size: str, folder: Path) -> str:
    """Of what every sender sends."""
    endpoint = f"127.0.0.1:{PORT}"
    with Process(folder, "sink", CPUS[-1], [*inside("receiver"), BLAST, "--sink", endpoint]):
        wait_until("the kernel listens", listening)
        send = [*inside("receiver"), BLAST, "--connect", endpoint, "--size", size, "--hash"]
        with Process(folder, "sender", CPUS[0], send) as sender:
            return sender.result(RUN_SECONDS)["sha256"]


def transfer(args, cell: Cell, cc: str, family: int, ours: bool, folder: Path) -> dict:
    """One stream through one wire. @return what receiver and wire say of it"""
    address = (OURS if ours else KERNEL)[family]
    wire = [WIRE, "--seed", args.seed, "w0", "w1", *cell.options()]
    if ours:
        receive = [NCAT, "-l", "-f", f"tap:dm0,mtu={cell.mtu}", "-s", f"{address}/{PREFIX[family]}"]
        receive += ["-p", PORT, "--hash", "--json"]
    else:
        receive = [*inside("receiver"), BLAST, "--sink", f"{address}:{PORT}", "--hash"]
    send = [*inside("sender"), BLAST, "--connect", f"{address}:{PORT}"]
    send += ["--size", args.size, "--cc", cc]
    with (
        Process(folder, "wire", CPUS[0], wire) as wire,
        Process(folder, "receiver", CPUS[-1], receive) as receiver,
    ):
        plug_wire(cell.mtu)
        plug_receiver(ours, cell.mtu)
        wait_until(f"{address} answers", lambda: answers(address))
        with Process(folder, "sender", CPUS[0], send) as sender:
            if args.compare:
                for process, priority in ((wire, 2), (receiver, 1), (sender, 1)):
                    process.prefer(priority)
            # The sender's own end may be late: it is for a FIN that the wire may lose.
            received = receiver.result(RUN_SECONDS)
        wire.end()
        carried = wire.result(10)
    sha256 = received["sha256"][0] if ours else received["sha256"]
    if sha256 != args.sha256:
        raise Failed(f"received SHA-256 {sha256}, sent {args.sha256}")
    if args.few and carried["forward"][FEW[cell.name]] == 0:
        raise Failed(f"nothing was {FEW[cell.name]}")
    mbps = received["bytes"] * 8e-6 / received["seconds"]
    return {"mbps": mbps, "received": received, "wire": carried}


def run_pair(args, cell: Cell, cc: str, family: int, ours_first: bool, folder: Path) -> dict:
    pair = {}
    for ours in (ours_first, not ours_first) if args.compare else (True,):
        side = "ours" if ours else "kernel"
        try:
            pair[side] = transfer(args, cell, cc, family, ours, folder)
        except Failed as error:
            raise Failed(f"{side}: {error}") from error
    if args.compare:
        pair["ratio"] = pair["ours"]["mbps"] / pair["kernel"]["mbps"]
    return pair


def show(pair: dict) -> str:
    if "ratio" not in pair:
        return ""
    ours, kernel = pair["ours"]["mbps"], pair["kernel"]["mbps"]
    return f": {ours:.1f} Mb/s, kernel {kernel:.1f}, ratio {pair['ratio']:.3f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "impair", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", action="store_true", help=f"a cell of each kind, {FEW_SIZE}")
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
        args.size = FEW_SIZE
        cells = [next(cell for cell in CELLS if cell.name == name) for name in FEW]
        return [(0, cell, "cubic", family) for cell, family in zip(cells, itertools.cycle([4, 6]))]
    globs = args.cell or ["*"]
    cells = [cell for cell in CELLS if any(fnmatch.fnmatch(cell.name, glob) for glob in globs)]
    return list(itertools.product(range(args.rounds), cells, args.cc, args.family))


def leave_out_missing(plan: list[tuple]) -> list[tuple]:
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    for cc in sorted({cc for _, _, cc, _ in plan} - set(available)):
        pairs = sum(each[2] == cc for each in plan)
        print(f"SKIP {cc}: not in tcp_available_congestion_control of this kernel; {pairs} pairs")
    return [each for each in plan if each[2] in available]


def summarise(ratios: list[float]) -> bool:
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    holds = median >= ASKED
    print(
        f"{'PASS' if holds else 'FAIL'} median ratio at least {ASKED}: {median:.3f} of "
        f"{len(ratios)} pairs, quartiles {low:.3f} and {high:.3f}, "
        f"from {min(ratios):.3f} to {max(ratios):.3f}"
    )
    return holds


def main() -> int:
    args = arguments()
    if args.list:
        for cell in CELLS:
            print(f"{cell.name:26} MTU {cell.mtu}  {' '.join(cell.options())}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so end what was started
    plan = leave_out_missing(choose(args))
    set_up()
    results, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        args.sha256 = sent_sha256(args.size, Path(folder))
        for number, (_, cell, cc, family) in enumerate(plan):
            result = {"cell": cell.name, "cc": cc, "family": family}
            name = f"{cell.name}, {cc}, IPv{family}"
            try:
                result |= run_pair(args, cell, cc, family, number % 2 == 0, Path(folder))
                print(f"PASS {name}{show(result)}", flush=True)
            except Failed as error:
                failed += 1
                result["failed"] = str(error)
                print(f"FAIL {name}: {error}", flush=True)
            results.append(result)
    ratios = [result["ratio"] for result in results if "ratio" in result]
    if ratios and not summarise(ratios):
        failed += 1
    if args.json:
        report = {"seed": args.seed, "size": args.size, "pairs": results}
        Path(args.json).write_text(json.dumps(report))
    return 1 if failed else 0 if results else 77


if __name__ == "__main__":
    sys.exit(main())
