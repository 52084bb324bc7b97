"""Runs the experiments of docs/compare.md; see experiments.sh."""

import signal
import sys
import textwrap
import traceback

import assent
import mariadb
import postgres
import saga
import servers

PARTS = {
    "postgres": postgres.run,
    "mariadb": mariadb.run,
    "redis": saga.run,
    "assent": assent.run,
}


class Report:
    """Prints each claim with what was seen, and counts."""

    def __init__(self):
        self.seen = 0
        self.otherwise = []

    def about(self, server):
        print(f"\n{server}", flush=True)

    def __call__(self, name, claim, is_so, seen):
        if is_so:
            self.seen += 1
        else:
            self.otherwise.append(name)
        print(f"  {'  ' if is_so else '! '}{name:<4}", end="")
        print(textwrap.fill(claim, 96, initial_indent="", subsequent_indent=" " * 8))
        print(textwrap.fill(f"seen: {seen}", 96, initial_indent=" " * 8,
                            subsequent_indent=" " * 14), flush=True)


def main(wanted):
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report, missing = Report(), []
    for part in wanted or PARTS:
        try:
            PARTS[part](report)
        except servers.Missing as why:
            missing.append(f"{part}: {why}")
        except Exception:
            traceback.print_exc()
            missing.append(f"{part}: stopped by an error")
        finally:
            servers.end_all()
    print(f"\n{report.seen} seen as the page says, {len(report.otherwise)} not"
          f"{''.join(f' {name}' for name in report.otherwise)}")
    for line in missing:
        print(f"not tried: {line}")
    return 1 if report.otherwise or missing or not report.seen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
