# SPDX-License-Identifier: BSD-3-Clause
"""The cells of the matrix: what the wire does.

A cell is a name, the rate of the bottleneck in Mb/s, the round trip in ms, and what else the wire
does in either direction, in options of test/tools/wire. Rates and times are such that 64 MiB take
about one to four seconds: the rate of a sender that finds random loss falls with round trip and
loss, so where there is more loss the wire is shorter.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """`queue` is the bottleneck's, in KiB; `mtu` that of the interfaces at both ends."""

    name: str
    rate: float
    rtt: float
    forward: str = ""
    reverse: str = ""
    queue: int = 256
    mtu: int = 1500

    def options(self) -> list[str]:
        """For the command line of the wire."""
        one_way = f"--delay {self.rtt / 2}"
        return (
            f"forward --rate {self.rate} --queue {self.queue} {one_way} {self.forward} "
            f"reverse {one_way} {self.reverse}"
        ).split()


CELLS = [
    # Nothing but rate, delay and queue: how windows grow, and losses of a full queue.
    Cell("rate 200, 1 ms", 200, 1),
    Cell("rate 200, 10 ms", 200, 10),
    Cell("rate 200, 40 ms", 200, 40, queue=1024),
    Cell("rate 400, 2 ms", 400, 2),
    Cell("rate 400, 20 ms", 400, 20, queue=1024),
    Cell("rate 800, 2 ms", 800, 2),
    Cell("rate 800, 10 ms", 800, 10, queue=1024),
    Cell("queue of 32 KiB", 200, 4, queue=32),
    Cell("queue of 64 KiB", 400, 4, queue=64),
    Cell("queue of 2 MiB", 400, 4, queue=2048),
    # Loss of data, each packet for itself.
    Cell("loss 0.01 %", 400, 4, "--loss 0.0001"),
    Cell("loss 0.03 %", 400, 4, "--loss 0.0003"),
    Cell("loss 0.1 %", 400, 2, "--loss 0.001"),
    Cell("loss 0.3 %", 400, 1, "--loss 0.003"),
    Cell("loss 1 %", 400, 0.5, "--loss 0.01"),
    Cell("loss 3 %", 400, 0.2, "--loss 0.03"),
    # In bursts: good to bad, bad to good, loss while bad.
    Cell("bursts of 4", 400, 2, "--burst 0.0003 0.25 1"),
    Cell("bursts of 10", 400, 2, "--burst 0.0001 0.1 1"),
    Cell("bursts of 50", 400, 2, "--burst 0.0001 0.02 1"),
    Cell("bursts of 20, half lost", 400, 2, "--burst 0.0002 0.05 0.5"),
    # Bursts are counted in packets, so one that outlasts a window outlasts many timeouts, unless
    # something gets through.
    Cell("bursts of 200, half lost", 400, 2, "--burst 0.00006 0.005 0.5"),
    # Of acknowledgements. Where most are lost the handshake is spared: what it waits for after five
    # of its own is luck, and a first round trip of seconds the sender's timeout for the rest.
    Cell("ACK loss 1 %", 400, 4, "", "--loss 0.01"),
    Cell("ACK loss 10 %", 400, 4, "", "--loss 0.1"),
    Cell("ACK loss 30 %", 400, 4, "", "--from 20 --loss 0.3"),
    Cell("ACK loss 60 %", 400, 4, "", "--from 20 --loss 0.6"),
    Cell("ACK bursts of 40, half lost", 400, 4, "", "--burst 0.002 0.025 0.5"),
    Cell("loss 0.1 % both ways", 400, 2, "--loss 0.001", "--loss 0.001"),
    Cell("loss 0.3 %, ACK loss 20 %", 400, 1, "--loss 0.003", "--loss 0.2"),
    # Order.
    Cell("reorder 0.1 % by 1 ms", 400, 4, "--reorder 0.001 --reorder-by 1"),
    Cell("reorder 1 % by 0.1 ms", 400, 4, "--reorder 0.01 --reorder-by 0.1"),
    Cell("reorder 1 % by 1 ms", 400, 4, "--reorder 0.01 --reorder-by 1"),
    Cell("reorder 1 % by 5 ms", 400, 4, "--reorder 0.01 --reorder-by 5"),
    Cell("reorder 10 % by 0.2 ms", 400, 4, "--reorder 0.1 --reorder-by 0.2"),
    Cell("reorder 30 % by 1 ms", 400, 4, "--reorder 0.3 --reorder-by 1"),
    Cell("ACK reorder 10 % by 1 ms", 400, 4, "", "--reorder 0.1 --reorder-by 1"),
    Cell("ACK reorder 50 % by 3 ms", 400, 4, "", "--reorder 0.5 --reorder-by 3"),
    # Copies.
    Cell("duplicate 0.1 %", 400, 4, "--duplicate 0.001"),
    Cell("duplicate 5 %", 400, 4, "--duplicate 0.05"),
    Cell("duplicate 100 %", 400, 4, "--duplicate 1"),
    Cell("ACK duplicate 10 %", 400, 4, "", "--duplicate 0.1"),
    Cell("ACK duplicate 100 %", 400, 4, "", "--duplicate 1"),
    # Bits.
    Cell("corrupt 0.01 %", 400, 4, "--corrupt 0.0001"),
    Cell("corrupt 0.1 %", 400, 2, "--corrupt 0.001"),
    Cell("corrupt 1 %", 400, 0.5, "--corrupt 0.01"),
    Cell("ACK corrupt 1 %", 400, 4, "", "--corrupt 0.01"),
    Cell("ACK corrupt 20 %", 400, 4, "", "--corrupt 0.2"),
    Cell("corrupt 0.1 % both ways", 400, 2, "--corrupt 0.001", "--corrupt 0.001"),
    # Time.
    Cell("jitter 1 ms", 400, 4, "--jitter 1"),
    Cell("jitter 5 ms", 400, 4, "--jitter 5"),
    Cell("ACK jitter 5 ms", 400, 4, "", "--jitter 5"),
    Cell("jitter 3 ms both ways", 400, 4, "--jitter 3", "--jitter 3"),
    Cell("ACK rate 1 Mb/s", 200, 4, "", "--rate 1 --queue 16"),
    Cell("ACK rate 4 Mb/s", 400, 4, "", "--rate 4 --queue 64"),
    # The path's MTU falls, and ICMP says so.
    Cell("MTU 1400 from the start", 400, 4, "--mtu 1400"),
    Cell("MTU 1280 in mid-stream", 400, 4, "--mtu 1500 1280@5000"),
    Cell("MTU falls four times", 400, 4, "--mtu 1500 1480@5000 1440@15000 1360@25000 1300@35000"),
    Cell("MTU 9000", 800, 4, mtu=9000, queue=1024),
    Cell("MTU 9000 to 1500", 400, 4, "--mtu 9000 1500@3000", mtu=9000, queue=1024),
    Cell("MTU 9000, loss 0.3 %", 800, 2, "--loss 0.003", mtu=9000, queue=1024),
    # All at once.
    Cell("a wireless link", 200, 10, "--burst 0.0002 0.2 1 --jitter 3", "--jitter 3", queue=512),
    Cell("a bad cable", 400, 1, "--loss 0.0005 --corrupt 0.0005", "--loss 0.0005 --corrupt 0.0005"),
    Cell("two paths", 400, 4, "--reorder 0.5 --reorder-by 0.5", "--reorder 0.5 --reorder-by 0.5"),
    Cell(
        "everything", 400, 1,
        "--loss 0.0005 --burst 0.0002 0.2 1 --corrupt 0.0005 --duplicate 0.01 --reorder 0.01 "
        "--reorder-by 0.5 --jitter 0.5 --mtu 1500 1400@5000",
        "--loss 0.01 --corrupt 0.01 --duplicate 0.01 --reorder 0.01 --reorder-by 0.5 --jitter 0.5",
    ),
]
