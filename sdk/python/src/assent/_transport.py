"""One HTTP exchange, and the one place that decides what it means.

It never says a thing twice, never follows a redirect and never goes through a proxy: each of those
lets somebody else answer. httpx itself sends nothing again. Its timeout is that of each read
(findings/httpx-timeout-is-no-deadline.sh), so that here each exchange has a deadline too. Of a
blocking client that was handed in, only the body of an answer has it, and not the head.
"""

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import anyio.lowlevel
import httpcore
import httpx

from assent._json import read_json
from assent._outcome import Heard, Problem, Said, Silence
from assent._steps import Exchange
from assent._transaction import check_ms

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Bytes that an answer may have, as the Rust client has it."""

_JSON = "application/json"
_PROBLEM = "application/problem+json"
# Nobody got a byte of the request: no connection, or none was free.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# What is written at a time: each time the deadline is looked at.
_WRITE_BYTES = 65_536
_POOL = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30)


class Options:
    """How long an exchange may take, and as whom the client speaks."""

    def __init__(self, token: str | None, request_timeout_ms: int, connect_timeout_ms: int) -> None:
        """Take a bearer token, or none, and the times."""
        self.request_timeout_ms = check_ms(request_timeout_ms)
        self.connect_timeout_ms = check_ms(connect_timeout_ms)
        self._headers = {"accept": _JSON, "accept-encoding": "identity"}
        if token is not None and not isinstance(token, str):
            raise TypeError("a token is a text")
        if token is not None:
            token = token.strip()
            # The error must not show it, as that of httpx would.
            if not token or not token.isascii() or not token.isprintable():
                raise ValueError("the token is empty, or has characters that a header cannot carry")
            self._headers["authorization"] = f"Bearer {token}"

    def limit_s(self, call: Exchange) -> float:
        """Return the seconds from the request to the last byte of its answer."""
        return (self.request_timeout_ms + call.request.wait_ms) / 1_000

    def stream(self, call: Exchange) -> dict[str, Any]:
        """Return the arguments of `stream` for this exchange."""
        request = call.request
        headers = {**self._headers, **request.headers}
        if request.body is not None:
            headers["content-type"] = _JSON
        connect_s = self.connect_timeout_ms / 1_000
        return {
            "method": request.method,
            "url": call.coordinator + request.path,
            "content": request.body,
            "headers": headers,
            "follow_redirects": False,
            "timeout": httpx.Timeout(self.limit_s(call), connect=connect_s),
        }


class Body:
    """The body of an answer, as it comes."""

    def __init__(self, limit_s: float) -> None:
        """Begin to count its bytes, and the time."""
        self._limit_s = limit_s
        self._ends = time.monotonic() + limit_s
        self._taken = bytearray()

    def take(self, chunk: bytes) -> None:
        """Take some more, or raise `_TooMuch`."""
        if len(self._taken) + len(chunk) > ANSWER_BYTES_MAX:
            raise _TooMuch(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        if time.monotonic() > self._ends:
            raise _TooMuch(late(self._limit_s))
        self._taken += chunk

    def take_all(self, response: httpx.Response) -> bool:
        """Take what was read by somebody before, such as a transport of a test."""
        if response.is_stream_consumed:
            self.take(response.content)
        return response.is_stream_consumed

    def judge(self, response: httpx.Response) -> Heard:
        """Say what the answer means.

        Whatever is not recognisably Assent's own word is silence: an ingress answers 404 and 502, a
        captive portal answers 200.
        """
        status, headers = response.status_code, response.headers
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        size = len(self._taken)
        foreign = Silence(f"an answer of status {status} that is not Assent's ({size} bytes)")
        is_said = 200 <= status <= 299 and kind == _JSON
        is_problem = 400 <= status <= 599 and kind == _PROBLEM
        if "content-encoding" in headers or not (is_said or is_problem):
            return foreign
        try:
            body = read_json(bytes(self._taken))
        except ValueError as error:
            return Silence(f"the answer cannot be read: {error}")
        if is_said:
            return Said(body)
        return Problem(body) if _is_problem(body, status) else foreign


class _Deadline(threading.local):
    """Until when the exchange of this thread may take."""

    ends = float("inf")
    limit_s = 0.0

    def within(self, timeout_s: float | None) -> float:
        """Return how long one read or write may take, or raise `_TooMuch`."""
        left_s = self.ends - time.monotonic()
        if left_s <= 0:
            raise _TooMuch(late(self.limit_s))
        return left_s if timeout_s is None else min(timeout_s, left_s)


class _Connections(httpcore.NetworkBackend):
    """Connections that are read and written until a deadline."""

    def __init__(self, deadline: _Deadline, inner: httpcore.NetworkBackend) -> None:
        self._deadline = deadline
        self._inner = inner

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _Connection(self._deadline, self._inner.connect_tcp(*args, **options))


class _Connection(httpcore.NetworkStream):
    def __init__(self, deadline: _Deadline, inner: httpcore.NetworkStream) -> None:
        self._deadline = deadline
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.within(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE_BYTES):
            chunk = buffer[start : start + _WRITE_BYTES]
            self._inner.write(chunk, self._deadline.within(timeout))

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _Connection(self._deadline, self._inner.start_tls(*args, **options))

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _HttpTransport(httpx.HTTPTransport):
    """That of httpx, by connections that have a deadline."""

    def __init__(self, deadline: _Deadline, is_tls: bool) -> None:
        super().__init__(verify=is_tls, trust_env=False, limits=_POOL)
        # httpx has no other way in.
        self._pool._network_backend = _Connections(deadline, self._pool._network_backend)


class _TooMuch(Exception):
    """More bytes, or more time, than an answer may take."""


def _is_problem(body: Any, status: int) -> bool:
    return (
        isinstance(body, Mapping)
        and body.get("status") == status
        and isinstance(body.get("code"), str)
        and isinstance(body.get("detail"), str)
        and isinstance(body.get("retryable"), bool)
    )


def late(limit_s: float) -> str:
    """Return that no answer came in time."""
    return f"no answer within {limit_s * 1_000:.0f} ms"


def _silence(error: Exception, limit_s: float) -> Silence:
    is_late = isinstance(error, httpx.TimeoutException) and not isinstance(error, _NOT_SENT)
    why = late(limit_s) if is_late else str(error) or type(error).__name__
    return Silence(why, is_sent=not isinstance(error, _NOT_SENT), cause=error)


def _own(is_tls: bool) -> dict[str, Any]:
    """Return the arguments of a client of our own."""
    # Without TLS no certificate is ever looked at, and to load those of all authorities takes long.
    return {"limits": _POOL, "trust_env": False, "verify": is_tls}


_CLOSED = "the client is closed"
_ELSEWHERE = "http_client was used in another event loop, or before os.fork: make another one here"


class Transport:
    """Exchanges that block."""

    def __init__(self, options: Options, http: httpx.Client | None, is_tls: bool) -> None:
        """Use this client, or make one."""
        if http is not None and not isinstance(http, httpx.Client):
            raise TypeError("http_client is an httpx.Client")
        self._options = options
        self._is_owned = http is None
        self._is_tls = is_tls
        self._deadline = _Deadline()
        self._http = http or self._own()
        self._is_closed = False
        self._used_by: int | None = None

    def _own(self) -> httpx.Client:
        transport = _HttpTransport(self._deadline, self._is_tls)
        return httpx.Client(transport=transport, trust_env=False)

    def ready(self) -> None:
        """Raise `RuntimeError` if nothing can be sent here; else the next exchange can.

        Two processes on one connection hear each other's answers, so a fork has its own.
        """
        if self._is_closed or self._http.is_closed:
            raise RuntimeError(_CLOSED)
        here = os.getpid()
        if self._used_by not in (None, here):
            if not self._is_owned:
                raise RuntimeError(_ELSEWHERE)
            self._http = self._own()
        self._used_by = here

    def exchange(self, call: Exchange) -> Heard:
        """Say it once, and tell what came of it."""
        limit_s = self._options.limit_s(call)
        body = Body(limit_s)
        self._deadline.ends, self._deadline.limit_s = time.monotonic() + limit_s, limit_s
        try:
            with self._http.stream(**self._options.stream(call)) as response:
                if not body.take_all(response):
                    for chunk in response.iter_raw():
                        body.take(chunk)
                return body.judge(response)
        # Whatever it is, it may have come after the request.
        except Exception as error:
            return _silence(error, limit_s)

    def close(self) -> None:
        """Close the connections, unless they are of a client that was handed in."""
        self._is_closed = True
        if self._is_owned and self._used_by in (None, os.getpid()):
            self._http.close()


class AsyncTransport:
    """Exchanges that are awaited."""

    def __init__(self, options: Options, http: httpx.AsyncClient | None, is_tls: bool) -> None:
        """Use this client, or make one for each event loop: a connection lives in one only.

        In another one it sends the request, and raises then
        (findings/httpx-client-in-a-second-loop-posts-and-raises.sh).
        """
        if http is not None and not isinstance(http, httpx.AsyncClient):
            raise TypeError("http_client is an httpx.AsyncClient")
        self._options = options
        self._given = http
        self._is_tls = is_tls
        self._is_closed = False
        self._by_place: dict[tuple[int, object], httpx.AsyncClient] = {}

    def ready(self) -> None:
        """Raise `RuntimeError` if nothing can be sent here; else the next exchange can."""
        if self._is_closed or (self._given is not None and self._given.is_closed):
            raise RuntimeError(_CLOSED)
        here = _here()
        if here in self._by_place:
            return
        if self._given is not None and self._by_place:
            raise RuntimeError(_ELSEWHERE)
        for place in list(self._by_place):
            if _is_over(place):
                self._by_place.pop(place, None)
        self._by_place[here] = self._given or httpx.AsyncClient(**_own(self._is_tls))

    async def exchange(self, call: Exchange) -> Heard:
        """Say it once, and tell what came of it."""
        limit_s = self._options.limit_s(call)
        body = Body(limit_s)
        http = self._by_place[_here()]
        try:
            with anyio.fail_after(limit_s):
                async with http.stream(**self._options.stream(call)) as response:
                    if not body.take_all(response):
                        async for chunk in response.aiter_raw():
                            body.take(chunk)
                    return body.judge(response)
        except TimeoutError as error:
            return Silence(late(limit_s), cause=error)
        # Whatever it is, it may have come after the request.
        except Exception as error:
            return _silence(error, limit_s)

    async def close(self) -> None:
        """Close the connections, unless they are of a client that was handed in."""
        self._is_closed = True
        mine = self._by_place.pop(_here(), None)
        if mine is not None and mine is not self._given:
            await mine.aclose()


def _here() -> tuple[int, object]:
    """Return the process and the event loop that run this."""
    token = anyio.lowlevel.current_token()
    # Before anyio 4.11 it is the loop itself.
    return os.getpid(), getattr(token, "native_token", token)


def _is_over(place: tuple[int, object]) -> bool:
    """Return whether it is another process, or a loop that has ended."""
    pid, loop = place
    is_closed = getattr(loop, "is_closed", None)
    return pid != os.getpid() or (is_closed is not None and bool(is_closed()))
