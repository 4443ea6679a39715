#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The table of doc/conformance.md from the scripts: table.py check|write.

A script's first comment is `// RFC N SECTION: behaviour`, its second `// In: FUNCTION`, the function of
lib/tcp or lib/wire that has the rule. check ends with status 1 if the table or a function is not up to date.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "test/conformance"
DOC = ROOT / "doc/conformance.md"
BEGIN = "<!-- from the scripts: test/conformance/table.py write -->\n"
HEAD = re.compile(r"// (RFC (\d+) (.+?)): (.+)\n// In: ([\w: ]+)\n")
LICENSE = "// SPDX-License-Identifier: BSD-3-Clause\n"


class Stale(Exception):
    pass


def sources() -> str:
    files = [p for part in ("tcp", "wire") for p in sorted((ROOT / "lib" / part).glob("*"))]
    return "\n".join(p.read_text(encoding="utf-8") for p in files if p.suffix in (".h", ".cpp"))


def linux(text: str) -> str:
    note = re.search(r"^# linux: (not played)?", text, re.MULTILINE)
    if note is None:
        return "same"
    return note.group(1) or "differs"


def natural(text: str) -> list:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", text)]


def rows() -> list[str]:
    code, found = sources(), []
    for path in sorted(SCRIPTS.glob("*/*.pkt")):
        name = path.relative_to(SCRIPTS).with_suffix("").as_posix()
        text = path.read_text(encoding="utf-8")
        head = HEAD.match(text.removeprefix(LICENSE))
        if not text.startswith(LICENSE) or head is None:
            raise Stale(f"{name}: does not begin with license, RFC and function")
        where, number, section, behaviour, function = head.groups()
        if path.parent.name != f"rfc{number}":
            raise Stale(f"{name}: is of {where}, in another folder")
        if not re.search(rf"\b{re.escape(function)}\(", code):
            raise Stale(f"{name}: there is no function {function}()")
        key = (int(number), natural(section), name)
        found.append((key, f"| {where} | {behaviour} | `{function}` | `{name}` | {linux(text)} |\n"))
    return [row for _, row in sorted(found)]


def main() -> int:
    doc = DOC.read_text(encoding="utf-8")
    before, mark, old = doc.partition(BEGIN)
    try:
        table = "| Requirement | Behaviour | Function | Script | Linux |\n|---|---|---|---|---|\n" + "".join(rows())
        if not mark:
            raise Stale("doc/conformance.md has no place for the table")
        if sys.argv[1:] == ["write"]:
            DOC.write_text(before + mark + table, encoding="utf-8")
        elif old != table:
            raise Stale("doc/conformance.md is not what table.py writes")
    except Stale as stale:
        print(f"FAIL table: {stale}")
        return 1
    print("PASS table")
    return 0


if __name__ == "__main__":
    sys.exit(main())
