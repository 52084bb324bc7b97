"""What the tests run against: a live coordinator, a hook, and a proxy that loses things."""

import json
import os
import re
import socket
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from assent.hook import HookCall, HookServer, HookStage, VetoError

ROOT = Path(__file__).resolve().parents[3]
STARTS_WITHIN_S = 60
HOLDS_WITHIN_S = 30


class Hook:
    """The hook that sdk/contract/README.md describes."""

    def __init__(self) -> None:
        self._released: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def released(self, name: str) -> threading.Event:
        with self._lock:
            return self._released.setdefault(name, threading.Event())

    def __call__(self, call: HookCall, stage: HookStage) -> Any:
        match call.input:
            case {"add": {"key": key, "amount": amount, "limit": limit}}:
                total = int(stage.read("GET", key) or 0) + amount
                if total > limit:
                    raise VetoError("limit_exceeded", f"{total} is above {limit}")
                stage.op("INCRBY", key, amount)
                return {"total": total}
            case {"hold": name}:
                self.released(name).wait(HOLDS_WITHIN_S)
                return {"held": name}
            case _:
                raise VetoError("bad_input", "there is no such rule")


@dataclass
class Stack:
    """Where everything is."""

    url: str
    resp: str
    hook: Hook
    proxy: "LossyProxy"
    process: subprocess.Popen[str]
    participants: dict[str, str] = field(default_factory=dict)

    @property
    def addresses(self) -> dict[str, str]:
        tls = self.url.replace("http:", "https:")
        return {"live": self.url, "lossy": self.proxy.url, "dead": dead_url(), "tls": tls}


@contextmanager
def running(
    *participants: str,
    retain: Path | None = None,
    at: Stack | None = None,
    hook: Any = None,
    hooks_at: Sequence[str] = ("shop",),
) -> Iterator[Stack]:
    """Start `assent dev` with a hook at some of the participants, and end it.

    With `retain` its data stays in this folder; `at` has it listen where another one did.
    """
    hook = hook or Hook()
    with HookServer(("127.0.0.1", 0), hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = os.environ.get("ASSENT", str(ROOT / "target/debug/assent"))
        command = [program, "dev", "--config", "none", "--participants", ",".join(participants)]
        free = "127.0.0.1:0"
        api, port = (at.url.removeprefix("http://"), at.resp) if at else (free, free)
        command += ["--listen", api, "--admin-listen", free, "--resp-listen", port, "-o", "json"]
        if retain is not None:
            command += ["--retain", str(retain)]
        for name in hooks_at:
            command += ["--hook", f"{name}={server.url}"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            log = Log(process)
            try:
                said = log.wait_until_ready()
                servers = {one["name"]: one["redis_url"] for one in said["participants"]}
                with LossyProxy(said["url"]) as proxy:
                    yield Stack(said["url"], said["resp"], hook, proxy, process, servers)
            finally:
                process.terminate()
                process.wait()
                log.thread.join()
        server.shutdown()


class Log:
    """What the coordinator logs; it is read on, so that writing it never blocks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._is_up = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._lines.append(line)
            if line.startswith("ready in"):
                self._is_up.set()
        self._is_up.set()

    def wait_until_ready(self) -> Any:
        """Return what it says on stdout once it is up."""
        assert self._is_up.wait(STARTS_WITHIN_S), f"it is not up: {''.join(self._lines)}"
        assert self._process.stdout
        said = self._process.stdout.readline()
        assert said, f"it has ended: {''.join(self._lines)}"
        return json.loads(said)


def dead_url() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def _problem(status: int, code: str, *, retryable: bool, **more: Any) -> bytes:
    """Return an answer with an error document."""
    known = {"type": f"/errors#{code}", "title": "t", "status": status, "detail": "d"}
    body = {**known, "code": code, "retryable": retryable, **more}
    return _answer(status, "application/problem+json", json.dumps(body).encode())


OTHER_ID = "01976f00-0000-7000-8000-000000000000"


S = TypeVar("S", bound="PeerServer")


class PeerServer(ABC):
    """Listens on a free port, and serves each peer in a thread, until it is left."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more."""
        # Else who waits for a peer holds the port open.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    @abstractmethod
    def _serve(self, peer: socket.socket) -> None:
        """Serve one peer to the end."""


class LossyProxy(PeerServer):
    """Passes HTTP on, and does with the next request what it is told."""

    def __init__(self, url: str) -> None:
        super().__init__()
        host, port = url.removeprefix("http://").split(":")
        self._to = (host, int(port))
        self._lose: str | None = None
        self.url = f"http://{self.address}"

    def lose(self, what: str) -> None:
        assert self._lose is None, f"nothing came to lose the {self._lose} of"
        self._lose = what

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            while request := _message(peer):
                lose, self._lose = self._lose, None
                if lose == "request":
                    return
                if lose == "refuse":
                    peer.sendall(_problem(429, "overloaded", retryable=True))
                    continue
                with socket.create_connection(self._to) as server:
                    server.sendall(request)
                    answer = _message(server)
                if lose == "answer":
                    return
                peer.sendall(_spoilt(answer, lose))
                # Whole answers leave the connection as it is: its end would cross the next request.
                if lose == "cut":
                    return


def _spoilt(answer: bytes, lose: str | None) -> bytes:
    match lose:
        case None:
            return answer
        case "cut":
            return answer[:-10]
        case "problem-500":
            return _problem(500, "internal", retryable=False)
        case "other-abort":
            return _problem(409, "lock_conflict", retryable=True, outcome="aborted", id=OTHER_ID)
        case "null-outcome":
            return _problem(409, "lock_conflict", retryable=True, outcome=None)
        case "no-branches":
            body = json.loads(answer.partition(b"\r\n\r\n")[2])
            del body["branches"]
            return _answer(200, "application/json", json.dumps(body).encode())
        case status:
            return _answer(int(status), "text/html", b"<html>")


def _answer(status: int, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} S\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _message(peer: socket.socket) -> bytes:
    """Return one request or answer, which have a length; nothing at the end."""
    taken = b""
    while b"\r\n\r\n" not in taken:
        chunk = peer.recv(65_536)
        if not chunk:
            return b""
        taken += chunk
    head, _, _ = taken.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    whole = len(head) + 4 + int(length[1] if length else 0)
    while len(taken) < whole:
        chunk = peer.recv(65_536)
        if not chunk:
            return b""
        taken += chunk
    return taken
