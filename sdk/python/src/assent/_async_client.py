"""The client that is awaited: the twin of `_client.py`, call by call."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from os import PathLike
from types import TracebackType
from typing import TypeVar

import anyio
import httpx

from assent._core import Core, may_run_again
from assent._interactive import OpAt, Session
from assent._interactive import op as op_at
from assent._outcome import AssentError, Committed, Unknown, View, as_rejected
from assent._settings import (
    ATTACH_WAIT_DEFAULT_MS,
    ATTEMPTS_DEFAULT_MAX,
    CONNECT_TIMEOUT_DEFAULT_MS,
    REQUEST_TIMEOUT_DEFAULT_MS,
    check_attempts,
    coordinators_of,
    pause_s,
    token_of,
)
from assent._steps import Steps
from assent._transaction import Ack, Transaction
from assent._transport import AsyncTransport, Options
from assent._values import Arg, Expect, Reply

T = TypeVar("T")


class AsyncClient:
    """Runs transactions at a coordinator, or at the first of several that can be reached.

    Tasks may share it. A transaction is of one task at a time.
    """

    def __init__(
        self,
        coordinators: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        request_timeout_ms: int = REQUEST_TIMEOUT_DEFAULT_MS,
        connect_timeout_ms: int = CONNECT_TIMEOUT_DEFAULT_MS,
        decode_replies: bool = True,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        """Connect to nobody yet.

        `coordinators` are base URLs (else `ASSENT_URL`, else http://127.0.0.1:7700); the next one
        is tried only while nothing was sent, and they need not share a log. The token, where they
        ask for one, is given, or stands in a file (else in that of `ASSENT_API_TOKEN_FILE`).
        `request_timeout_ms` is how long an answer may take beyond what the coordinator waits on
        purpose. Without `decode_replies`, each text in a reply is `bytes`. `http_client` is a
        client of yours, for TLS or sockets of your own; it is not closed.
        """
        self._core = Core(coordinators_of(coordinators), decode_replies)
        options = Options(token_of(token, token_file), request_timeout_ms, connect_timeout_ms)
        self._transport = AsyncTransport(options, http_client, self._core.is_tls)

    @property
    def coordinators(self) -> tuple[str, ...]:
        """The base URLs."""
        return self._core.coordinators

    @asynccontextmanager
    async def transaction(
        self,
        *,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 - it is the word of the API
        key: str | None = None,
        coordinator: str | None = None,
        timeout_ms: int | None = None,
        ack: Ack | None = None,
        wait_ms: int | None = None,
    ) -> AsyncIterator[Transaction]:
        """Collect ops in an `async with` block, and run them as one transaction at its end.

        If the block raises, nothing is sent; one that adds nothing raises `ValueError`. The
        arguments are those of `Transaction` and of `submit`. Raises what `submit` raises, at the
        end of the block.
        """
        transaction = Transaction(
            name=name, id=id, key=key, coordinator=coordinator, timeout_ms=timeout_ms, ack=ack
        )
        yield transaction
        await self.submit(transaction, wait_ms=wait_ms)

    async def submit(self, transaction: Transaction, *, wait_ms: int | None = None) -> Committed:
        """Send a transaction; the same one again after `Unknown`, as often as you like.

        Without `wait_ms` it is waited for as long as it may take to decide. Raises `Aborted`,
        `Rejected` or `Unknown`.
        """
        return await self._drive(self._core.submit(transaction, wait_ms))

    async def attach(
        self,
        id: str,  # noqa: A002 - it is the word of the API
        *,
        wait_ms: int = ATTACH_WAIT_DEFAULT_MS,
        coordinator: str | None = None,
    ) -> Committed:
        """Ask what became of a transaction. Without `coordinator`, all are asked.

        Raises `Aborted`, or `Unknown`: also if nobody knows the id.
        """
        return await self._drive(self._core.attach(id, wait_ms, coordinator))

    async def describe(
        self,
        id: str,  # noqa: A002 - it is the word of the API
        *,
        wait_ms: int = 0,
        coordinator: str | None = None,
    ) -> View:
        """Return the story of a transaction, whatever its outcome.

        Raises `Unknown` if nobody knows the id.
        """
        return await self._drive(self._core.describe(id, wait_ms, coordinator))

    async def begin(
        self,
        *,
        id: str | None = None,  # noqa: A002 - it is the word of the API
        coordinator: str | None = None,
        name: str | None = None,
        timeout_ms: int | None = None,
        ack: Ack | None = None,
    ) -> "AsyncInteractive":
        """Begin an interactive transaction: it reads, you decide, it writes, it commits.

        As an `async with` block it commits at the end of the block, and is given up if the block
        raises. Raises `Rejected` or `Unknown`; in both cases nothing was done.
        """
        steps = self._core.begin(id, coordinator, name, timeout_ms, ack)
        return AsyncInteractive(self, await self._drive(steps))

    def interactive(
        self,
        id: str,  # noqa: A002 - it is the word of the API
        seq: int,
        *,
        coordinator: str | None = None,
    ) -> "AsyncInteractive":
        """Go on with one that was begun elsewhere, of which `seq` calls were done."""
        return AsyncInteractive(self, self._core.interactive(id, seq, coordinator))

    async def run(
        self,
        work: Callable[["AsyncInteractive"], Awaitable[T]],
        *,
        attempts_max: int = ATTEMPTS_DEFAULT_MAX,
        name: str | None = None,
        timeout_ms: int | None = None,
        ack: Ack | None = None,
    ) -> T:
        """Call a function with an interactive transaction, commit it, and return its result.

        If something that it read has changed, or a lock was held for too long, nothing was done,
        and it is called again with a new transaction. If it raises, the transaction is given up.
        Raises `Aborted`, `Rejected` or `Unknown`, or what the function raised: it returns only if
        the transaction is committed, or empty. If the function has aborted it, that is `Aborted`
        with the code `cancelled`. `Unknown` comes from the commit, or where an answer before it was
        lost and the abort does not arrive either: if that does, it is `Rejected`.
        """
        check_attempts(attempts_max)
        for attempt in count(1):
            try:
                tx = await self.begin(name=name, timeout_ms=timeout_ms, ack=ack)
            except Unknown as unknown:
                # Nobody was given its id.
                raise as_rejected(unknown) from unknown
            try:
                async with tx:
                    result = await work(tx)
                    tx._session.refuse_uncommitted()
            except AssentError as error:
                if isinstance(error, Unknown) and error.id == tx.id and tx._session.is_aborted:
                    raise as_rejected(error) from error
                if attempt >= attempts_max or not may_run_again(error, tx.id):
                    raise
            else:
                return result
            await anyio.sleep(pause_s(attempt, random.random()))  # noqa: S311 - it is no secret
        raise AssertionError("the count has no end")

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> "AsyncClient":
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def _drive(self, steps: Steps[T]) -> T:
        try:
            self._transport.ready()
            call = next(steps)
            while True:
                call = steps.send(await self._transport.exchange(call))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()


class AsyncInteractive:
    """An interactive transaction; see `AsyncClient.begin`."""

    def __init__(self, client: AsyncClient, session: Session) -> None:
        """Made by `AsyncClient.begin`."""
        self._client = client
        self._session = session
        self._one_at_a_time = anyio.Lock()

    async def _drive(self, steps: Steps[T]) -> T:
        """Take the calls in their turn: each has the number after the one before."""
        async with self._one_at_a_time:
            return await self._client._drive(steps)

    @property
    def id(self) -> str:
        """Its id."""
        return self._session.id

    @property
    def seq(self) -> int:
        """The number of the last call that was done."""
        return self._session.seq

    @property
    def coordinator(self) -> str:
        """The coordinator that has it."""
        return self._session.about.coordinator

    @property
    def is_active(self) -> bool:
        """Whether neither commit nor abort was asked for."""
        return self._session.is_active

    @property
    def result(self) -> Committed:
        """What was committed. `RuntimeError` as long as it is not."""
        return self._session.committed

    async def op(self, participant: str, *cmd: Arg, expect: Expect | None = None) -> Reply:
        """Run one Redis command, and return its reply, which sees what was staged before."""
        [reply] = await self.ops([op_at(participant, *cmd, expect=expect)])
        return reply

    async def ops(self, ops: Sequence[OpAt]) -> list[Reply]:
        """Run several commands in one call, and return their replies in the same order.

        Raises `Rejected`: nothing was staged, and the transaction goes on; `Aborted`: it has ended,
        such as by `read_changed`; `Unknown`: the answer was lost, so ask for it by `again`.
        """
        return await self._drive(self._session.ops(ops))

    async def again(self) -> list[Reply] | None:
        """Return the replies of the call whose answer was lost; None if there is none.

        The call is done once, however often it is asked for.
        """
        return await self._drive(self._session.again())

    async def keep_alive(self) -> None:
        """Keep it alive: it expires a minute after its last call."""
        await self.ops([])

    async def commit(self, *, wait_ms: int | None = None) -> Committed:
        """Commit it. After `Unknown`, commit again, or `attach` its id.

        Raises `Aborted`: nothing was done; `read_changed`, if something that it read has changed.
        Raises `Rejected`: the commit has not begun.
        """
        return await self._drive(self._session.commit(wait_ms))

    async def abort(self) -> None:
        """Give it up: nothing of it is done. Raises `Rejected` if its commit has begun."""
        await self._drive(self._session.abort())

    async def close(self) -> None:
        """Give it up, if no commit was asked for. What does not arrive expires by itself."""
        if not self.is_active:
            return
        try:
            await self.abort()
        except AssentError:
            return

    async def __aenter__(self) -> "AsyncInteractive":
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """Commit it, if it is active and there is something to commit; give it up on an error.

        Raises the `Aborted` of a call that has ended it, if the block has taken that for itself.
        """
        try:
            if kind is None and self.is_active and not self._session.is_empty:
                await self.commit()
            elif kind is None:
                self._session.refuse_aborted()
        finally:
            await self.close()
