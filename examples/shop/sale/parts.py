"""The parts of the shop: which processes there are, and what whoever runs them must do."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

START_WITHIN_S = 120
LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Part:
    """One process, which may be killed."""

    name: str
    group: str
    """Whose it is: of one of the three services, or the coordinator's."""
    about: str = ""
    """What its name does not say."""


PARTS = (
    Part("coordinator", "coordinator", "keeps the decision log"),
    Part("stock", "stock", "JavaScript"),
    Part("stock-agent", "stock"),
    Part("stock-redis", "stock"),
    Part("payments", "payments", "Rust, agent inside"),
    Part("payments-redis", "payments"),
    Part("orders", "orders", "Python"),
    Part("orders-agent", "orders"),
    Part("orders-postgres", "orders"),
    Part("cache-agent", "orders"),
    Part("cache-redis", "orders"),
)

STORES = ("stock-redis", "payments-redis", "cache-redis", "orders-postgres")
"""They start before who uses them."""

READY = {
    "coordinator": "/readyz",
    "stock": "/livez",
    "stock-agent": "/readyz",
    "payments": "/assent/readyz",
    "orders": "/livez",
    "orders-agent": "/readyz",
    "cache-agent": "/readyz",
}
"""Where each part that speaks HTTP says that it is ready."""


class World(Protocol):
    """The shop's processes, wherever they run."""

    what: str
    """What they are: processes of this machine, or containers."""
    how_killed: str
    """By which command."""
    headers: dict[str, str]
    """What clients of the coordinator send: its token, if it asks for one."""

    def start(self) -> None:
        """Start all, and return when all are ready."""

    def stop(self, is_clean: bool) -> None:
        """End all. If the sale was clean, take away what they leave behind."""

    def kill(self, part: str) -> None:
        """Kill it by SIGKILL, and return when it is gone."""

    def revive(self, part: str) -> None:
        """Start it again, on the same files, and return when it is ready."""

    def url(self, part: str) -> str:
        """Return where a part that speaks HTTP is reached."""

    def redis(self, part: str, *words: str) -> list[str]:
        """Ask a Redis as any plain client would, and return the lines of its reply."""

    def sql(self, statement: str) -> list[str]:
        """Ask PostgreSQL as any plain client would, and return its rows as text."""


class NotStarted(Exception):
    """A part did not come up."""


def get(url: str, timeout_s: float = 1, headers: Mapping[str, str] | None = None) -> Any:
    """Return the JSON that is there, or raise `OSError` or `ValueError`."""
    return call(urllib.request.Request(url, headers=dict(headers or {})), timeout_s)[1]


def post(
    url: str, body: Any, timeout_s: float, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Post JSON, and return the status and the JSON that is answered, whatever it says."""
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    try:
        return call(urllib.request.Request(url, data, headers), timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def call(request: urllib.request.Request, timeout_s: float) -> tuple[int, Any]:
    """Send a request past all proxies, and return what is answered."""
    with _OPENER.open(request, timeout=timeout_s) as answer:
        return answer.status, json.loads(answer.read())


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wait_until(what: str, look: Any, within_s: float = START_WITHIN_S) -> None:
    """Return when `look` returns something true; what it raises is no yes either."""
    deadline = time.monotonic() + within_s
    last: object = "it says no"
    while time.monotonic() < deadline:
        try:
            if look():
                return
        except (OSError, ValueError) as error:
            last = error
        time.sleep(LOOK_EVERY_S)
    raise NotStarted(f"{what}: not within {within_s} s ({last})")


def is_ready(url: str) -> bool:
    """Return whether a part that speaks HTTP answers with success."""
    request = urllib.request.Request(url)
    with _OPENER.open(request, timeout=2) as answer:
        return bool(answer.status == 200)


def lines(
    command: Sequence[object],
    cwd: Path | None = None,
    within_s: float = 60,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Run a command to its end, and return the lines of its output; `OSError` if it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=within_s,
            cwd=cwd,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{words[0]} did not end in time") from error
    if done.returncode != 0:
        raise OSError(f"{words[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout.splitlines()
