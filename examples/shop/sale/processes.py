"""The shop as processes on this machine: on free ports of loopback, in a temporary folder."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from parts import PARTS, READY, STORES, NotStarted, is_ready, lines, wait_until
from ports import Ports

ROOT = Path(__file__).resolve().parents[3]
SHOP = ROOT / "examples/shop"
NOBODY = "65534"
REDIS_SETTINGS = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
"""What a participant asks of its Redis: what it has acknowledged, it keeps."""


class Processes:
    """Ends with the process that made it: the kernel kills those that it leaves behind."""

    what = "processes"
    how_killed = "kill -9"

    def __init__(self, programs: Path, python: Path) -> None:
        """Take the folder of `assent` and `shop-payments`, and the Python of the orders service."""
        self.programs, self.python = programs, python
        self.folder = Path(tempfile.mkdtemp(prefix="assent-shop-"))
        self.postgres = postgres_programs()
        self._held = Ports()
        self._ports = {part.name: self._held.take() for part in PARTS}
        self._admin = {name: self._held.take() for name in ("coordinator", *AGENTS)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.headers: dict[str, str] = {}

    def start(self) -> None:
        """Start all: what keeps data first, then who uses it."""
        self._prepare()
        for part in STORES:
            self.revive(part)
        others = [part.name for part in PARTS if part.name not in STORES]
        for part in others:
            self._spawn(part)
        for part in others:
            self._wait(part)

    def stop(self, is_clean: bool) -> None:
        """End all, and remove the folder with their logs and data, if nobody needs it."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._held.release()
        if is_clean:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            print(f"what was written is in {self.folder}", file=sys.stderr)

    def kill(self, part: str) -> None:
        """Send SIGKILL, and return when it is gone."""
        process = self._running[part]
        process.kill()
        process.wait()

    def revive(self, part: str) -> None:
        """Start it, and wait until it is ready."""
        self._spawn(part)
        self._wait(part)

    def url(self, part: str) -> str:
        """Return where a part that speaks HTTP is reached."""
        return f"http://{self._address(part)}"

    def redis(self, part: str, *words: str) -> list[str]:
        """Ask by `redis-cli`."""
        port = str(self._ports[part])
        return lines(["redis-cli", "-p", port, "--raw", *words])

    def sql(self, statement: str) -> list[str]:
        """Ask by `psql`."""
        return lines([self.postgres / "psql", self._database(), "-qAtc", statement])

    # How each part is started.

    def _command(self, part: str) -> list[object]:
        assent = self.programs / "assent"
        if part.endswith("-redis"):
            where = ["--bind", "127.0.0.1", "--port", self._ports[part]]
            return ["redis-server", *where, "--dir", self.folder / part, *REDIS_SETTINGS]
        match part:
            case "orders-postgres":
                settings = [
                    f"port={self._ports[part]}",
                    "listen_addresses=127.0.0.1",
                    "unix_socket_directories=",
                    "max_prepared_transactions=64",
                ]
                words = [word for setting in settings for word in ("-c", setting)]
                return [self.postgres / "postgres", "-D", self.folder / part / "data", *words]
            case "coordinator":
                log = self.folder / "decisions"
                participants = [f"--participant={name}={url}" for name, url in self._participants()]
                listen = self._listen(part)
                return [assent, "coordinator", "--data-dir", log, *listen, *participants]
            case "stock":
                return ["node", self.folder / "stock/stock.js"]
            case "payments":
                return [self.programs / "shop-payments"]
            case "orders":
                return [self.python, SHOP / "orders/orders.py"]
        name, *beside = AGENTS[part]
        return [assent, "participant", "--name", name, *self._listen(part), *self._beside(*beside)]

    def _environment(self, part: str) -> dict[str, str]:
        """Return the settings of the services, by environment, and nothing else of Assent's."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("ASSENT_")}
        given = {
            "STOCK_LISTEN": self._address("stock"),
            "STOCK_REDIS": self._address("stock-redis"),
            "PAYMENTS_LISTEN": self._address("payments"),
            "PAYMENTS_REDIS": f"redis://{self._address('payments-redis')}",
            "ORDERS_LISTEN": self._address("orders"),
            "ORDERS_POSTGRES": self._database(),
            "ORDERS_REDIS": f"redis://{self._address('cache-redis')}",
            "ASSENT_URL": self.url("coordinator"),
        }
        is_service = part in ("stock", "payments", "orders")
        return {**own, "ASSENT_CONFIG": "none", **(given if is_service else {})}

    def _participants(self) -> list[tuple[str, str]]:
        return [
            ("stock", self.url("stock-agent")),
            ("payments", f"{self.url('payments')}/assent"),
            ("orders", self.url("orders-agent")),
            ("orders-cache", self.url("cache-agent")),
        ]

    def _beside(self, store: str, hook_of: str | None = None) -> list[str]:
        if store == "orders-postgres":
            return ["--postgres", self._database()]
        hook = ["--hook-url", f"{self.url(hook_of)}/assent"] if hook_of else []
        return ["--redis", f"redis://{self._address(store)}", *hook]

    def _listen(self, part: str) -> list[str]:
        return ["--listen", self._address(part), "--admin-listen", f"127.0.0.1:{self._admin[part]}"]

    def _address(self, part: str) -> str:
        return f"127.0.0.1:{self._ports[part]}"

    def _database(self) -> str:
        return f"postgres://app@{self._address('orders-postgres')}/postgres"

    def _prepare(self) -> None:
        """Make what must be there before anything starts."""
        self.folder.chmod(0o711)
        for part in STORES:
            (self.folder / part).mkdir()
        database = self.folder / "orders-postgres"
        if os.geteuid() == 0:
            os.chown(database, int(NOBODY), int(NOBODY))
        init = [self.postgres / "initdb", "-D", database / "data", "-U", "app", "--auth=trust"]
        lines([*as_nobody(), *init, "-E", "UTF8", "--no-locale", "--no-sync"], cwd=database)
        lines([self.programs / "assent", "init", "--data-dir", self.folder / "decisions"])
        # As `npm install` lays it.
        shutil.copytree(SHOP / "stock", self.folder / "stock")
        (self.folder / "stock/node_modules").mkdir()
        (self.folder / "stock/node_modules/assent").symlink_to(ROOT / "sdk/js")

    def _spawn(self, part: str) -> None:
        command = [str(word) for word in [*ending_with_us(part), *self._command(part)]]
        with (self.folder / f"{part}.log").open("ab") as log:
            self._running[part] = subprocess.Popen(
                command,
                cwd=self.folder / part if part in STORES else self.folder,
                env=self._environment(part),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, part: str) -> None:
        """Wait until it is ready; start it again where what the killed one left is in the way."""

        def look() -> bool:
            if self._running[part].poll() is not None:
                if part != "orders-postgres":
                    raise NotStarted(f"{part} ended at once:\n{self._tail(part)}")
                self._spawn(part)
                return False
            if part.endswith("-redis"):
                return self.redis(part, "PING") == ["PONG"]
            if part == "orders-postgres":
                return self.sql("SELECT 1") == ["1"]
            return is_ready(self.url(part) + READY[part])

        wait_until(part, look)

    def _tail(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text(errors="replace")[-1_000:]


AGENTS = {
    "stock-agent": ("stock", "stock-redis", "stock"),
    "orders-agent": ("orders", "orders-postgres"),
    "cache-agent": ("orders-cache", "cache-redis"),
}
"""By part: the participant, the store that it is beside, and the service that has a hook."""


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs: Debian keeps them out of the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    for folder in [*folders, *([Path(found).parent] if found else [])]:
        if (folder / "postgres").exists():
            return folder
    raise NotStarted("PostgreSQL is not installed: make postgres")


def as_nobody() -> list[str]:
    """Return the words in front of a command that root may not run."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]


def ending_with_us(part: str) -> list[str]:
    """Return the words in front of a command by which it is killed when this process dies."""
    if not shutil.which("setpriv"):
        return []
    is_postgres = part == "orders-postgres"
    user = as_nobody()[1:] if is_postgres else []
    return ["setpriv", *user, "--pdeathsig", "QUIT" if is_postgres else "KILL"]
