#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Many streams at once: many.py ADDRESS PORT CONNECTIONS LARGEST.

Opens every connection before the first byte is sent, sends a different number of bytes (0 to
LARGEST) of different content on each, and prints the SHA-256 of each stream, sorted.
"""

import asyncio
import hashlib
import random
import resource
import sys


async def send(index: int, size: int, streams) -> str:
    reader, writer = streams
    data = random.Random(index).randbytes(size)
    step = 1 + index * 37 % 65536  # writes of many sizes, so segments of many sizes
    for at in range(0, size, step):
        writer.write(data[at:at + step])
        await writer.drain()
    writer.write_eof()
    if await reader.read() != b"":
        raise RuntimeError(f"stream {index}: unexpected bytes from the peer")
    writer.close()
    return hashlib.sha256(data).hexdigest()


async def main() -> None:
    address, port, count, largest = sys.argv[1], *map(int, sys.argv[2:5])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 100, resource.getrlimit(
        resource.RLIMIT_NOFILE)[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    connections = await asyncio.gather(
        *(asyncio.open_connection(address, port) for _ in range(count)))
    sizes = [index * largest // max(count - 1, 1) for index in range(count)]
    hashes = await asyncio.gather(
        *(send(index, size, streams)
          for index, (size, streams) in enumerate(zip(sizes, connections))))
    print("\n".join(sorted(hashes)))


asyncio.run(main())
