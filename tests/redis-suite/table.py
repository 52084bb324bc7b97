"""What came of tests that others wrote, as a table; each failure with its reason.

table.py [--page] REASONS OUTPUT…

With --page it is a part of docs/reference/redis-suite.md. An OUTPUT is a file of the Redis project's `runtest` (NAME.txt) or of pytest (NAME.xml, JUnit). REASONS
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
            said = "It blocks, or is about a server that refuses (left-out.txt)."
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


class Sum:
    """What came of all tests: counts per file, and the failures by their reasons."""

    def __init__(self, reasons, paths):
        self.counts, self.failed, self.left_out = defaultdict(Counter), defaultdict(list), Counter()
        self.unexplained, self.unfinished = [], []
        for path in paths:
            tests, is_whole = (of_pytest if path.suffix == ".xml" else of_runtest)(path)
            if not is_whole:
                self.unfinished.append(path.stem)
            for test in tests:
                self.take(test, reasons)

    def take(self, test, reasons):
        count = self.counts[test.file]
        count[test.came] += 1
        if test.came == "left out":
            self.left_out[test.said.strip()] += 1
        elif test.came == "failed":
            why = reason_of(test, reasons)
            (self.failed[why] if why else self.unexplained).append(test)
            count["as expected" if why else "unexplained"] += 1

    def is_good(self):
        return bool(self.counts) and not self.unexplained and not self.unfinished


def print_plainly(all):
    columns = ["ok", "left out", "failed", "as expected", "unexplained"]
    print(f"{'file':<36}" + "".join(f"{column:>13}" for column in columns))
    for file, count in all.counts.items():
        print(f"{file:<36}" + "".join(f"{count[column]:>13}" for column in columns))
    print("\nleft out by the suite itself:")
    for why, count in all.left_out.most_common():
        print(f"{count:>5}  {why}")
    print("\nfailed as expected:")
    for why, tests in all.failed.items():
        print(f"{len(tests):>5}  {why}")
        for test in tests:
            print(f"         {test.file}: {test.name}")
    for test in all.unexplained:
        print(f"\nUNEXPLAINED {test.file}: {test.name}\n    {test.said.strip()[:600]}")
    for file in all.unfinished:
        print(f"\nNOT RUN TO ITS END {file}")


def name_of(file):
    """A file as its suite names it."""
    file = re.sub(r"^unit-(type-)?", lambda found: found[0].replace("-", "/"), file)
    return file.replace(".", "/") + (".py" if "." in file else "")


def escaped(text):
    return re.sub(r"([\\|<*`_\[])", r"\\\1", text)


def version_wanted(why):
    """What the suite says of a server's version, without the version."""
    return re.sub(r"^Redis version required [<>]=? ?[\d.]+$", "It is for another version.", why)


def print_page(all):
    print("| file | pass | left out | differ |\n|---|---|---|---|")
    total = Counter()
    for file, count in all.counts.items():
        total.update(count)
        print(f"| `{name_of(file)}` | {count['ok']} | {count['left out']} | {count['failed']} |")
    print(f"| together | {total['ok']} | {total['left out']} | {total['failed']} |")
    print("\nLeft out:\n")
    left_out = Counter()
    for why, count in all.left_out.items():
        left_out[version_wanted(why)] += count
    for why, count in left_out.most_common():
        print(f"- {count}: {escaped(why)}")
    print("\nWhat differs, and why:\n")
    for why, tests in sorted(all.failed.items(), key=lambda item: -len(item[1])):
        print(f"- **{escaped(why)}** ({len(tests)})")
        names = defaultdict(list)
        for test in tests:
            names[test.file].append(escaped(test.name))
        for file, those in names.items():
            print(f"  - `{name_of(file)}`: {'; '.join(those)}")


def main():
    words = sys.argv[1:]
    as_page = words[0] == "--page"
    reasons, *outputs = map(Path, words[as_page:])
    all = Sum(reasons_of(reasons), outputs)
    (print_page if as_page else print_plainly)(all)
    sys.exit(0 if all.is_good() else 1)


main()
