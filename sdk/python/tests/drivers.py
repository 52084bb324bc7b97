"""The two clients behind one face that blocks, so that one runner is enough."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

import assent


@dataclass
class Saved:
    """A transaction that a case has named: one of the last three fields is there."""

    via: list[str]
    transaction: assent.Transaction | None = None
    interactive: Any = None
    client: Any = None

    @property
    def id(self) -> str:
        known = self.interactive or self.transaction
        assert known is not None
        return str(known.id)


@dataclass
class Run:
    """A function that is run in an interactive transaction."""

    ops: Sequence[assent.OpAt]
    meanwhile: Callable[[], None]
    aborts: bool
    saved: Saved
    calls: int = 0
    replies: list[Any] = field(default_factory=list)

    def begin(self, tx: Any) -> bool:
        """Note a call, and return whether it is the first."""
        self.saved.interactive = tx
        self.calls += 1
        return self.calls == 1


class Driver(Protocol):
    """A kind of client."""

    def client(self, coordinators: Sequence[str]) -> Any:
        """Make one."""

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call it, and wait for what comes."""

    def submit(self, client: Any, transaction: Any, wait_ms: int | None) -> Any:
        """Run a transaction of one request."""

    def run_function(self, client: Any, run: Run, attempts_max: int) -> Run:
        """Run a function."""


class SyncDriver:
    """`assent.Client`."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def __enter__(self) -> "SyncDriver":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def client(self, coordinators: Sequence[str]) -> Any:
        return self._open.enter_context(assent.Client(coordinators))

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return function(*args, **options)

    def submit(self, client: Any, transaction: Any, wait_ms: int | None) -> Any:
        return client.submit(transaction, wait_ms=wait_ms)

    def run_function(self, client: Any, run: Run, attempts_max: int) -> Run:
        def work(tx: assent.Interactive) -> Run:
            is_first = run.begin(tx)
            run.replies = tx.ops(run.ops)
            if is_first:
                run.meanwhile()
            if run.aborts:
                tx.abort()
            return run

        done: Run = client.run(work, attempts_max=attempts_max)
        return done


class AsyncDriver:
    """`assent.AsyncClient`, in an event loop of its own."""

    def __init__(self) -> None:
        self._starting = start_blocking_portal()
        self._clients: list[assent.AsyncClient] = []

    def __enter__(self) -> "AsyncDriver":
        self._portal: BlockingPortal = self._starting.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            self._portal.call(client.close)
        self._starting.__exit__(None, None, None)

    def client(self, coordinators: Sequence[str]) -> Any:
        client = assent.AsyncClient(coordinators)
        self._clients.append(client)
        return client

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        async def awaited() -> Any:
            return await function(*args, **options)

        return self._portal.call(awaited)

    def submit(self, client: Any, transaction: Any, wait_ms: int | None) -> Any:
        return self.call(client.submit, transaction, wait_ms=wait_ms)

    def run_function(self, client: Any, run: Run, attempts_max: int) -> Run:
        async def work(tx: assent.AsyncInteractive) -> Run:
            is_first = run.begin(tx)
            run.replies = await tx.ops(run.ops)
            if is_first:
                # The steps wait for this very event loop.
                await anyio.to_thread.run_sync(run.meanwhile)
            if run.aborts:
                await tx.abort()
            return run

        done: Run = self.call(client.run, work, attempts_max=attempts_max)
        return done
