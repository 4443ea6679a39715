#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The tables of doc/conformance.md, from requirements.txt and the scripts: table.py check|write.

A script's first comment is `// RFC N SECTION (NAMES): behaviour`, its second `// In: FUNCTION`. NAMES, if there are any,
are RFC 9293's (MUST-1, SHLD-2); for other RFCs the section, up to a comma, is the rule's name. check ends with status 1
if a table is not up to date, or names a function or a test that does not exist, or a rule or a script is without.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "test/conformance"
DOC = ROOT / "doc/conformance.md"
BEGIN = "<!-- test/conformance/table.py write: from here on -->\n"
HEAD = re.compile(r"// (RFC (\d+) (.+?)): (.+)\n// In: ([\w: ]+)\n")
TEST = re.compile(r"\bTEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\)")
LICENSE = "// SPDX-License-Identifier: BSD-3-Clause\n"


class Stale(Exception):
    pass


def read(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


class Tree:
    """What there is to name."""

    def __init__(self) -> None:
        parts = [p for part in ("tcp", "wire", "stack") for p in sorted((ROOT / "lib" / part).glob("*"))]
        self.code = "\n".join(read(p) for p in parts if p.suffix in (".h", ".cpp"))
        units = (ROOT / "test/unit").glob("**/*.cpp")
        self.tests = {f"{suite}.{name}" for p in units for suite, name in TEST.findall(read(p))}
        self.tests |= {f"e2e/{p.stem}" for p in (ROOT / "test/e2e").glob("*.sh")}
        self.tests |= {p.relative_to(SCRIPTS).with_suffix("").as_posix() for p in SCRIPTS.glob("*/*.pkt")}

    def function(self, name: str, where: str) -> str:
        if not re.search(rf"\b{re.escape(name)}\(", self.code):
            raise Stale(f"{where}: there is no function {name}()")
        return f"`{name}`"

    def test(self, name: str, where: str) -> str:
        if name not in self.tests:
            raise Stale(f"{where}: there is no test {name}")
        return f"`{name}`"


def linux(text: str) -> str:
    note = re.search(r"^# linux: (not played)?", text, re.MULTILINE)
    if note is None:
        return "same"
    return note.group(1) or "differs"


def natural(text: str) -> list:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", text)]


def names(number: str, section: str) -> list[str]:
    """The rules that a script says it is about. `(MUST-35, -37)` is two."""
    if number != "9293":
        return [f"RFC {number} {re.match(r'[0-9.]*', section).group().rstrip('.')}"]
    found, kind = [], ""
    for part in re.findall(r"(MUST|SHLD|MAY|REC)?-(\d+)", section):
        kind = part[0] or kind
        found.append(f"RFC 9293 {kind}-{part[1]}")
    return found


def scripts(tree: Tree, rules: dict[str, list[str]]) -> list[str]:
    """The rows about scripts; `rules` receives each under its rule."""
    rows = []
    for path in sorted(SCRIPTS.glob("*/*.pkt")):
        name = path.relative_to(SCRIPTS).with_suffix("").as_posix()
        text = read(path)
        head = HEAD.match(text.removeprefix(LICENSE))
        if not text.startswith(LICENSE) or head is None:
            raise Stale(f"{name}: does not begin with license, RFC and function")
        where, number, section, behaviour, function = head.groups()
        if path.parent.name != f"rfc{number}":
            raise Stale(f"{name}: is of {where}, in another folder")
        for rule in names(number, section):
            if rule not in rules:
                raise Stale(f"{name}: requirements.txt has no {rule}")
            rules[rule].append(name)
        row = f"| {where} | {behaviour} | {tree.function(function, name)} | `{name}` | {linux(text)} |\n"
        rows.append(((int(number), natural(section), name), row))
    return [row for _, row in sorted(rows)]


def requirements() -> list[tuple[str, list[str]]]:
    """(name, [what, functions, tests, note]) in their order."""
    found, rfc = [], ""
    for line in read(SCRIPTS / "requirements.txt").splitlines():
        if line.startswith("#") or not line:
            continue
        if "|" not in line:
            rfc = line
            continue
        name, *rest = [part.strip() for part in line.split("|")]
        if len(rest) not in (3, 4) or not rfc:
            raise Stale(f"requirements.txt: {line}")
        found.append((f"{rfc} {name}", (rest + [""])[:4]))
    return found


def numbered(listed: list[str]) -> None:
    """RFC 9293's list (appendix B) is whole, but for what it only allows."""
    for kind, last in (("MUST", 69), ("SHLD", 31)):
        for i in range(1, last + 1):
            if f"RFC 9293 {kind}-{i}" not in listed:
                raise Stale(f"requirements.txt: {kind}-{i} is not there")


def tables() -> str:
    tree, listed = Tree(), requirements()
    rules: dict[str, list[str]] = {name: [] for name, _ in listed}
    if len(rules) != len(listed):
        raise Stale("requirements.txt: a name is there twice")
    numbered(list(rules))
    script_rows = scripts(tree, rules)
    text = "| Requirement | What | Function | Test | |\n|---|---|---|---|---|\n"
    for name, (what, functions, tests, note) in listed:
        tests = sorted(set(tests.split()) | set(rules[name]), key=lambda test: ("/" not in test, test))
        if functions == "-":
            functions = ""
        if not note and not (functions and tests):
            raise Stale(f"requirements.txt: {name} has no test")
        cells = [name, what, " ".join(tree.function(each, name) for each in functions.split()),
                 " ".join(tree.test(each, name) for each in tests), note]
        text += "| " + " | ".join(cells) + " |\n"
    text += "\n## Scripts\n\nLinux: whether the kernel does the same.\n\n"
    text += "| Section | Behaviour | Function | Script | Linux |\n|---|---|---|---|---|\n"
    return text + "".join(script_rows)


def main() -> int:
    doc = read(DOC)
    before, mark, old = doc.partition(BEGIN)
    try:
        text = tables()
        if not mark:
            raise Stale("doc/conformance.md has no place for the tables")
        if sys.argv[1:] == ["write"]:
            DOC.write_text(before + mark + text, encoding="utf-8")
        elif old != text:
            raise Stale("doc/conformance.md is not what table.py writes")
    except Stale as stale:
        print(f"FAIL table: {stale}")
        return 1
    print("PASS table")
    return 0


if __name__ == "__main__":
    sys.exit(main())
