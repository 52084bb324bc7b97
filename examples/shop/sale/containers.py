"""The shop as containers, as `../compose.yaml` has them, under a project name of their own."""

import os
import sys
from pathlib import Path

from parts import PARTS, READY, NotStarted, is_ready, lines, wait_until
from ports import Ports

COMPOSE_FILE = Path(__file__).resolve().parents[1] / "compose.yaml"
PROJECT = "assent-shop"
PUBLISHED = ("coordinator", "stock", "payments", "orders")
"""They are reached from this machine; each of the others only by who is on its network."""

AGENT_HEALTH = ("assent", "health", "http://127.0.0.1:7710")
TOKEN = "/var/lib/shop-tokens/api"  # noqa: S105, the name of a file
UP_WITHIN_S = 300


class Containers:
    """What a sale that died has left behind is removed by the next one."""

    what = "containers"
    how_killed = "docker kill"

    def __init__(self) -> None:
        """Find Compose, and a free port for each part that is reached from outside."""
        self._compose = [*compose(), "--project-name", PROJECT, "--file", str(COMPOSE_FILE)]
        self._held = Ports()
        self._ports = {part: self._held.take() for part in PUBLISHED}
        self._ids: dict[str, str] = {}
        self.headers: dict[str, str] = {}

    def start(self) -> None:
        """Start all, and find out what they are called."""
        self._run("down", "--volumes", "--remove-orphans", "--timeout", "1")
        try:
            self._run("up", "--detach", "--no-build")
            self._ids = {part.name: self._run("ps", "--quiet", part.name)[0] for part in PARTS}
        except (OSError, IndexError) as error:
            raise NotStarted(f"the containers do not start: {error}") from error
        for part in PARTS:
            self._wait(part.name)
        self.headers = {"Authorization": f"Bearer {self._in('coordinator', 'cat', TOKEN)[0]}"}

    def stop(self, is_clean: bool) -> None:
        """Remove them with all they have written, if nobody needs it; else only end them."""
        if is_clean:
            self._run("down", "--volumes", "--timeout", "1")
        else:
            self._run("kill")
            told = " ".join(self._compose)
            print(f"what was said: {told} logs", file=sys.stderr)
            print(f"to remove it: {told} down --volumes", file=sys.stderr)
        self._held.release()

    def kill(self, part: str) -> None:
        """Send SIGKILL to all that runs in it, and return when it is gone."""
        lines(["docker", "kill", "--signal", "KILL", self._ids[part]])
        lines(["docker", "wait", self._ids[part]])

    def revive(self, part: str) -> None:
        """Start it on its old files, and wait until it is ready."""
        lines(["docker", "start", self._ids[part]])
        self._wait(part)

    def url(self, part: str) -> str:
        """Return where a published part is reached."""
        return f"http://127.0.0.1:{self._ports[part]}"

    def redis(self, part: str, *words: str) -> list[str]:
        """Ask by `redis-cli`."""
        return self._in(part, "redis-cli", "--raw", *words)

    def sql(self, statement: str) -> list[str]:
        """Ask by `psql`."""
        return self._in(
            "orders-postgres",
            "psql",
            "-h",
            "127.0.0.1",
            "-U",
            "app",
            "-qAtc",
            statement,
            "postgres",
        )

    def _wait(self, part: str) -> None:
        def look() -> bool:
            if part.endswith("-redis"):
                return self.redis(part, "PING") == ["PONG"]
            if part == "orders-postgres":
                return self.sql("SELECT 1") == ["1"]
            if part in PUBLISHED:
                return is_ready(self.url(part) + READY[part])
            self._in(part, *AGENT_HEALTH)
            return True

        wait_until(part, look)

    def _in(self, part: str, *command: str) -> list[str]:
        return lines(["docker", "exec", self._ids[part], *command])

    def _run(self, *words: str) -> list[str]:
        ports = {f"SHOP_{part.upper()}_PORT": str(port) for part, port in self._ports.items()}
        return lines([*self._compose, *words], within_s=UP_WITHIN_S, environment=os.environ | ports)


def compose() -> list[str]:
    """Return the words by which Compose is called here: of the plugin, or the program before it."""
    for words in (["docker", "compose"], ["docker-compose"]):
        try:
            lines([*words, "version"])
        except OSError:
            continue
        return words
    raise NotStarted("neither docker compose nor docker-compose is installed")
