#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Watch the mappings of a process until it ends: watch_region.py PID NAME.

At every sample exactly one mapping of the memory file NAME must have no access right, at the same
address as before, and process_vm_readv() of its first, middle and last byte must fail with EFAULT.
The other mapping, the software port's, must be readable: so the reader itself works. One JSON
object on stdout; exit status 1 and one line if any of it is not so.
"""

import ctypes
import errno
import json
import os
import sys
import time


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


libc = ctypes.CDLL(None, use_errno=True)


def read_error(pid: int, address: int) -> int:
    """0, or the errno of reading one byte in the name of the process."""
    byte = ctypes.create_string_buffer(1)
    local = Iovec(ctypes.addressof(byte), 1)
    remote = Iovec(address, 1)
    got = libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return 0 if got == 1 else ctypes.get_errno()


def mappings(pid: int, name: str):
    """(first address, end, rights) of each mapping of the file; [] once the process is gone."""
    try:
        with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
            lines = [line.split(maxsplit=5) for line in maps]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [(*(int(part, 16) for part in line[0].split("-")), line[1])
            for line in lines if len(line) == 6 and name in line[5]]


def main() -> int:
    pid, name = int(sys.argv[1]), sys.argv[2]
    samples, seen = 0, None
    while found := mappings(pid, name):
        closed = [m for m in found if m[2].startswith("---")]
        if len(closed) != 1:
            print(f"{len(closed)} mappings without rights among {found}", file=sys.stderr)
            return 1
        first, end, _ = seen = seen or closed[0]
        if closed[0][:2] != (first, end):
            print(f"the mapping moved from {seen} to {closed[0]}", file=sys.stderr)
            return 1
        results = [read_error(pid, at) for at in (first, (first + end) // 2, end - 1)]
        control = [read_error(pid, m[0]) for m in found if m[2].startswith("r")]
        if errno.ESRCH in results + control or not mappings(pid, name):
            break
        if results != [errno.EFAULT] * 3 or control != [0]:
            print(f"reading gave {results}, the control {control}", file=sys.stderr)
            return 1
        samples += 1
        time.sleep(0.02)
    if seen is None:
        print(f"no mapping {name}", file=sys.stderr)
        return 1
    print(json.dumps({"samples": samples, "bytes": seen[1] - seen[0],
                      "mapping": f"{seen[0]:x}-{seen[1]:x} {seen[2]}", "read": "EFAULT"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
