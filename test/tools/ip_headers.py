#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the IP headers of TCP packets say that come in on an interface: ip_headers.py INTERFACE ADDRESS.

A line for each packet from ADDRESS: DSCP, ECN, TTL or hop limit, and the letters of the TCP flags (`.` is ACK); `wrong
checksum` for one with a wrong checksum of IPv4 or TCP. The first line is `ready`. Ends when it is killed.
"""

import ipaddress
import socket
import struct
import sys

ETH_P_ALL = 3


def total(data: bytes) -> int:
    """The ones' complement sum (RFC 1071): 0xffff over what has a good checksum in it."""
    data += b"\0" * (len(data) % 2)
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def describe(frame: bytes, address: bytes) -> str | None:
    ethertype, ip = frame[12:14], frame[14:]
    if ethertype == b"\x08\x00":
        header, length, protocol = 4 * (ip[0] & 15), struct.unpack("!H", ip[2:4])[0], ip[9]
        traffic, ttl, source, addresses = ip[1], ip[8], ip[12:16], ip[12:20]
        good = total(ip[:header]) == 0xFFFF
    elif ethertype == b"\x86\xdd":
        header, length, protocol = 40, 40 + struct.unpack("!H", ip[4:6])[0], ip[6]
        traffic, ttl, source, addresses = (ip[0] << 4 | ip[1] >> 4) & 255, ip[7], ip[8:24], ip[8:40]
        good = True
    else:
        return None
    if protocol != socket.IPPROTO_TCP or source != address:
        return None
    segment = ip[header:length]
    pseudo = addresses + struct.pack("!II", len(segment), protocol)
    if not good or total(pseudo + segment) != 0xFFFF:
        return "wrong checksum"
    flags = "".join(letter for bit, letter in enumerate("FSRP.U") if segment[13] >> bit & 1)
    return f"{traffic >> 2} {traffic & 3} {ttl} {flags}"


def main() -> None:
    interface, address = sys.argv[1], ipaddress.ip_address(sys.argv[2]).packed
    watched = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    watched.bind((interface, ETH_P_ALL))
    print("ready", flush=True)
    while True:
        line = describe(watched.recv(65536), address)
        if line:
            print(line, flush=True)


if __name__ == "__main__":
    main()
