#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Count the cases of a `meson test` run: gtest-cases.py NAME TESTLOG.json XML-FOLDER.

A program that left GoogleTest XML counts by its cases, any other as one. Prints
VERDICT<tab>NAME: program: case<tab>reason for each.
"""

import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

VERDICTS = {"OK": "PASS", "EXPECTEDFAIL": "PASS", "SKIP": "SKIP"}


def one_line(text: str) -> str:
    return " ".join(text.split())


def cases(path: pathlib.Path):
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        failure, skipped = case.find("failure"), case.find("skipped")
        if failure is not None:
            yield "FAIL", name, one_line(failure.get("message", ""))
        elif skipped is not None:
            yield "SKIP", name, one_line(skipped.get("message", "").partition("\n")[2])
        elif case.get("status") == "notrun":
            yield "SKIP", name, "disabled"
        else:
            yield "PASS", name, ""


def main() -> int:
    prefix, log, folder = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    for line in log.read_text(encoding="utf-8").splitlines():
        test = json.loads(line)
        program = pathlib.Path(test["command"][0]).name
        xml = sorted(folder.glob(f"{program}.xml")) + sorted(folder.glob(f"{program}_*.xml"))
        results = []
        if xml:
            results = list(cases(xml[0]))
            xml[0].rename(xml[0].with_suffix(".counted"))
        verdict = VERDICTS.get(test["result"], "FAIL")
        if not results or (verdict == "FAIL" and all(r[0] != "FAIL" for r in results)):
            results.append((verdict, "exit", f"{test['result']}, status {test['returncode']}"))
        for verdict, name, reason in results:
            print(f"{verdict}\t{prefix}: {program}: {name}\t{reason if verdict != 'PASS' else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
