"""Free ports of loopback, which nobody else of this machine's runs of Assent takes."""

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

from parts import NotStarted

PORTS = range(12_000, 32_000)
"""Below those of outgoing connections: who is killed must find its port free."""


class Ports:
    """Holds a lock for each port that it has given."""

    def __init__(self) -> None:
        """Begin at a port of this process's own."""
        self._locks: list[IO[str]] = []
        self._start = os.getpid() * 97

    def take(self) -> int:
        """Take one that nobody listens on, under the lock by which Assent's tools share them."""
        locks = Path(tempfile.gettempdir()) / f"assent-ports-{os.geteuid()}"
        locks.mkdir(exist_ok=True)
        for step in range(len(PORTS)):
            port = PORTS[(self._start + step) % len(PORTS)]
            lock = (locks / str(port)).open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.create_server(("127.0.0.1", port)):
                    self._locks.append(lock)
                    return port
            except OSError:
                lock.close()
        raise NotStarted("there is no free port")

    def release(self) -> None:
        """Let others have them."""
        for lock in self._locks:
            lock.close()
