"""What came of tests that others wrote, as a table; each failure with its reason.

table.py REASONS OUTPUT…

An OUTPUT is a file of the Redis project's `runtest` (NAME.txt) or of pytest (NAME.xml, JUnit). REASONS
says which failures are as they must be. Ends with 1 if there is another one, or if a file has not run to
its end.
"""

import fnmatch
import re
import sys
import xml.etree.ElementTree as xml
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Test:
    """A test: `ok`, `failed` or `left out`, and what was said of it."""

    file: str
    name: str
    came: str
    said: str


def of_runtest(path):
    """The tests in an output of `runtest`, and whether it has run to its end."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", path.read_text(errors="replace"))
    # Behind this line it lists its failures once more.
    text = text.split("                   The End")[0]
    came = {"ok": "ok", "err": "failed", "ignore": "left out", "skip": "left out"}
    tests = []
    for part in re.split(r"^(?=\[)", text, flags=re.MULTILINE):
        found = re.match(r"\[(\w+)\]: (.*)", part)
        if not found or found[1] not in came:
            continue
        name, said = found[2], part[found.end() :]
        if found[1] == "err":
            name = re.sub(r" in tests/\S+$", "", name)
        elif found[1] == "ignore":
            name, _, said = name.rpartition(": ")
        elif found[1] == "skip":
            said = "It blocks, or is about a server that refuses: left-out.txt"
        else:
            name = re.sub(r" \(\d+ ms\)$", "", name)
        tests.append(Test(path.stem, name, came[found[1]], said))
    return tests, "[1/1 done]" in text


def of_pytest(path):
    """The same of a report of pytest."""
    tests = []
    for case in xml.parse(path).iter("testcase"):
        came, said = "ok", ""
        for child in case:
            if child.tag in ("failure", "error"):
                came, said = "failed", f"{child.get('message')}\n{child.text}"
            elif child.tag == "skipped":
                came, said = "left out", child.get("message", "")
        file = re.sub(r"\.Test\w*$", "", case.get("classname", ""))
        tests.append(Test(file, case.get("name"), came, said))
    return tests, True


def reasons_of(path):
    """Each reason, with the patterns that it is known by: of what is said, or of the test's name."""
    reasons, why = [], None
    for line in path.read_text().splitlines():
        if line.startswith("= "):
            why = line[2:]
        elif line.strip() and not line.startswith("#"):
            kind, pattern = line.split(" ", 1)
            assert why and kind in ("says", "test"), line
            reasons.append((why, kind, pattern))
    return reasons


def reason_of(test, reasons):
    for why, kind, pattern in reasons:
        if pattern in test.said if kind == "says" else fnmatch.fnmatchcase(test.name, pattern):
            return why
    return None


def main():
    reasons = reasons_of(Path(sys.argv[1]))
    counts, failed, left_out = defaultdict(Counter), defaultdict(list), Counter()
    unexplained, unfinished = [], []
    for path in map(Path, sys.argv[2:]):
        tests, is_whole = (of_pytest if path.suffix == ".xml" else of_runtest)(path)
        if not is_whole:
            unfinished.append(path.stem)
        for test in tests:
            counts[test.file][test.came] += 1
            if test.came == "left out":
                left_out[test.said.strip()] += 1
            elif test.came == "failed":
                why = reason_of(test, reasons)
                (failed[why] if why else unexplained).append(test)
                counts[test.file]["as expected" if why else "unexplained"] += 1
    columns = ["ok", "left out", "failed", "as expected", "unexplained"]
    print(f"{'file':<36}" + "".join(f"{column:>13}" for column in columns))
    for file, count in counts.items():
        print(f"{file:<36}" + "".join(f"{count[column]:>13}" for column in columns))
    print("\nleft out by the suite itself:")
    for why, count in left_out.most_common():
        print(f"{count:>5}  {why}")
    print("\nfailed as expected:")
    for why, tests in failed.items():
        print(f"{len(tests):>5}  {why}")
        for test in tests:
            print(f"         {test.file}: {test.name}")
    for test in unexplained:
        print(f"\nUNEXPLAINED {test.file}: {test.name}\n    {test.said.strip()[:600]}")
    for file in unfinished:
        print(f"\nNOT RUN TO ITS END {file}")
    sys.exit(1 if unexplained or unfinished or not counts else 0)


main()
