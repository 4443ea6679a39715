#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One ICMP or ICMPv6 echo request: ping.py ADDRESS [BYTES]. Exit status 0 if the reply is right."""

import ipaddress
import os
import socket
import struct
import sys
import time


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main() -> int:
    address = sys.argv[1]
    payload = os.urandom(int(sys.argv[2]) if len(sys.argv) > 2 else 56)
    v6 = ipaddress.ip_address(address).version == 6
    ident, sequence = os.getpid() & 0xFFFF, 1
    if v6:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        request, reply = 128, 129
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        request, reply = 8, 0
    packet = struct.pack("!BBHHH", request, 0, 0, ident, sequence) + payload
    if not v6:  # the kernel fills in ICMPv6's
        packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
    sock.sendto(packet, (address, 0))
    deadline = time.monotonic() + 1
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data, sender = sock.recvfrom(65535)
        except TimeoutError:
            break
        if not v6:
            data = data[(data[0] & 0xF) * 4:]
        kind, code, _, got_ident, got_sequence = struct.unpack("!BBHHH", data[:8])
        if sender[0] == address and (kind, code) == (reply, 0):
            if (got_ident, got_sequence) == (ident, sequence):
                return 0 if data[8:] == payload else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
