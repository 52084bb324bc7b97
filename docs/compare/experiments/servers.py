"""Real servers: started in the temporary folder, killed, put back to an older state, and ended."""

import glob
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

import psycopg
import pymysql
import redis

DIR = pathlib.Path(os.environ["EXPERIMENTS_DIR"])

# Who databases run as where this is root.
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}

# How long anything may take, on a busy machine.
PATIENCE_S = 60


class Missing(Exception):
    """A program that is not here."""


def wait_for(what, ask):
    """Asks until the answer is true, and returns it."""
    last, deadline = None, time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if last := ask():
                return last
        except Exception as error:  # a server that is not there yet
            last = error
        time.sleep(0.02)
    raise TimeoutError(f"waited for {what}; the last answer was {last!r}")


def find(name, *patterns):
    """The program of this name: by these patterns, or on the path."""
    for pattern in patterns:
        if found := sorted(glob.glob(pattern)):
            return pathlib.Path(found[-1])
    if found := shutil.which(name):
        return pathlib.Path(found)
    raise Missing(f"there is no {name}; `make redis` and `make peers` install what is missing")


class Server:
    """A process with its data in a folder of its own."""

    running = []

    # How it is stopped in order, and how it is ended when all is over.
    stop, last = signal.SIGTERM, signal.SIGKILL

    def __init__(self, name, **options):
        """`options` are those of its processes: the user, the environment."""
        self.dir = DIR / name
        self.dir.mkdir()
        self.options = options
        self.process = None
        self.give("")

    def launch(self, *command):
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=self.dir, stdout=log, stderr=log,
                **self.options)
        Server.running.append(self)

    def log(self):
        return (self.dir / "log").read_text(errors="replace")

    def end(self, how):
        """Sends this signal, and waits until it is gone."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self):
        self.end(signal.SIGKILL)

    def back_up(self):
        """Copies its data while it is stopped; `start` afterwards."""
        self.end(self.stop)
        shutil.copytree(self.dir / "data", self.dir / "old")
        self.give("old")

    def restore(self):
        """Puts the copy in the place of its data; `start` afterwards."""
        self.end(self.stop)
        shutil.rmtree(self.dir / "data")
        (self.dir / "old").rename(self.dir / "data")

    def give(self, name):
        """Gives a folder, and what is in it, to whom the server runs as."""
        if "user" in self.options:
            top = self.dir / name
            for path in [top, *top.rglob("*")]:
                os.chown(path, self.options["user"], self.options["group"])


def end_all():
    for server in Server.running:
        server.end(server.last)


class Postgres(Server):
    """One cluster, on a socket."""

    # Its fast shutdown. A kill leaves processes that find out later.
    stop = last = signal.SIGINT

    def __init__(self, name):
        self.bin = find("postgres", "/usr/lib/postgresql/*/bin/postgres").parent
        super().__init__(name, **NOBODY)
        subprocess.run(
            [self.bin / "initdb", "-D", self.dir / "data", "-U", "app", "--auth=trust",
             "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd=self.dir, **self.options)
        self.start()

    def start(self):
        # After a kill the last processes of the old life may still hold its shared memory.
        def answers():
            if self.process is None or self.process.poll() is not None:
                self.launch(
                    self.bin / "postgres", "-D", self.dir / "data", "-c", "listen_addresses=",
                    "-c", f"unix_socket_directories={self.dir}",
                    "-c", "max_prepared_transactions=5", "-c", "lock_timeout=300ms")
            return self.connect()

        wait_for("PostgreSQL", answers).close()

    def connect(self):
        return psycopg.connect(f"host={self.dir} user=app dbname=postgres", autocommit=True)


class MariaDb(Server):
    """One server, on a socket: that of the system, or one that was unpacked from its packages."""

    def __init__(self, name):
        unpacked = DIR / "mariadb/usr"
        self.program = find("mariadbd", f"{unpacked}/sbin/mariadbd", "/usr/sbin/mariadbd")
        install = find("mariadb-install-db", f"{unpacked}/bin/mariadb-install-db")
        super().__init__(name, **NOBODY)
        self.base = []
        if self.program.is_relative_to(unpacked):
            self.base = [f"--basedir={unpacked}"]
            libraries = [str(found) for found in unpacked.parent.glob("**/*-linux-gnu")]
            self.options["env"] = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
        subprocess.run(
            [install, "--no-defaults", *self.base, "--skip-test-db",
             f"--datadir={self.dir}/data", "--auth-root-authentication-method=normal"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.dir,
            **self.options)
        self.start()

    def start(self):
        self.launch(
            self.program, "--no-defaults", *self.base, f"--datadir={self.dir}/data",
            f"--socket={self.dir}/socket", f"--pid-file={self.dir}/pid", "--skip-networking",
            "--innodb-buffer-pool-size=16M", "--innodb-lock-wait-timeout=1",
            "--innodb-flush-log-at-trx-commit=1")
        wait_for("MariaDB", lambda: self.connect("mysql")).close()

    def connect(self, database="app"):
        return pymysql.connect(
            unix_socket=str(self.dir / "socket"), user="root", database=database, autocommit=True)


class Redis(Server):
    """One Redis, on a socket, that syncs before it answers."""

    def __init__(self, name):
        super().__init__(name)
        self.start()

    def start(self, socket="socket"):
        (self.dir / "data").mkdir(exist_ok=True)
        self.launch(
            find("redis-server"), "--port", "0", "--unixsocket", self.dir / socket,
            "--dir", self.dir / "data", "--save", "", "--appendonly", "yes",
            "--appendfsync", "always")
        client = self.connect(socket)
        wait_for("Redis", lambda: client.ping())

    def connect(self, socket="socket"):
        return redis.Redis(unix_socket_path=str(self.dir / socket), decode_responses=True)

    def has(self, key):
        """What its data has of a key, seen where no agent finds it; `start` afterwards."""
        self.start("aside")
        value = self.connect("aside").get(key)
        self.end(self.stop)
        return value


class Assent(Server):
    """A server of Assent, on a port of its own choice that it keeps."""

    def __init__(self, name, *command):
        program = os.environ.get("ASSENT_BIN")
        if not program or not os.access(program, os.X_OK):
            raise Missing("no assent: build one, or set ASSENT_BIN")
        super().__init__(name)
        self.command = [program, *command]
        self.ports = {"api": 0, "admin": 0}
        self.start()

    def start(self):
        lines = len(self.log().splitlines()) if self.process else 0
        self.launch(
            *self.command, "--listen", f"127.0.0.1:{self.ports['api']}",
            "--admin-listen", f"127.0.0.1:{self.ports['admin']}")

        def announced():
            new = "\n".join(self.log().splitlines()[lines:])
            found = dict(re.findall(r"\b(api|admin) +http://127\.0\.0\.1:(\d+)", new))
            return found if len(found) == 2 and '"ready"' in new else None

        self.ports = wait_for(f"the ready of {self.dir.name}", announced)

    def url(self, path, listener="api"):
        return f"http://127.0.0.1:{self.ports[listener]}{path}"

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


def call(url, body=None, **headers):
    """What a JSON API answers, errors too."""
    data = None if body is None else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)
