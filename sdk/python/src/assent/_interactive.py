"""An interactive transaction without its I/O: it reads, the program decides, it writes, it commits.

Nothing is locked before the commit. The calls are numbered, so that a repeated one is answered and
not done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assent._json import write_json
from assent._outcome import (
    Aborted,
    About,
    AssentError,
    Committed,
    Heard,
    Rejected,
    Said,
    Unknown,
    as_unknown,
)
from assent._steps import Exchange, Request, Steps, prefer
from assent._transaction import check_ms
from assent._values import Arg, Expect, Reply, read_reply, write_op

TIMEOUT_MAX_MS = 60_000
"""The longest time that a decision may take."""


@dataclass(frozen=True, slots=True)
class OpAt:
    """A Redis command at a participant; `expect` says what its reply must be."""

    participant: str
    cmd: Sequence[Arg]
    expect: Expect | None = None


def op(participant: str, *cmd: Arg, expect: Expect | None = None) -> OpAt:
    """Return a Redis command at a participant, such as `op("bank-a", "GET", "acct:alice")`."""
    return OpAt(participant, cmd, expect)


@dataclass(frozen=True, slots=True)
class Call:
    """A numbered call, as it is sent."""

    seq: int
    body: bytes


class Session:
    """What a client knows of its interactive transaction."""

    def __init__(self, about: About, seq: int, timeout_ms: int = TIMEOUT_MAX_MS) -> None:
        """Made by `Core.begin` or `Core.interactive`."""
        self.about = about
        self.seq = seq
        self.timeout_ms = timeout_ms
        self.is_active = True
        """Whether neither commit nor abort was asked for."""
        self.result: Committed | None = None
        self.is_aborted = False
        """Whether its coordinator has said that it is aborted: nothing of it is done, for sure."""
        self._is_committing = False
        self._unclear: Call | None = None
        self._ended_by: AssentError | None = None

    @property
    def id(self) -> str:
        """Its id."""
        assert self.about.id is not None  # noqa: S101 - it is begun under one
        return self.about.id

    @property
    def is_empty(self) -> bool:
        """Whether no call was done, nor may have been: there is nothing to commit."""
        return self.seq == 0 and self._unclear is None

    @property
    def committed(self) -> Committed:
        """What was committed. `RuntimeError` as long as it is not."""
        if self.result is None:
            raise RuntimeError(self._why_not_committed())
        return self.result

    def _why_not_committed(self) -> str:
        if self.is_active:
            return "the transaction is not committed yet"
        if self.is_empty and not self._is_committing:
            return "the transaction was asked for nothing, so that there was nothing to commit"
        if self.is_aborted or isinstance(self._ended_by, Aborted):
            return "the transaction is aborted: nothing of it is done"
        return "it is not known whether the transaction is committed"

    def ops(self, ops: Sequence[OpAt]) -> Steps[list[Reply]]:
        """Read and stage."""
        written = [{"participant": op.participant, **write_op(op.cmd, op.expect)} for op in ops]
        self._refuse_unclear()
        seq = self.seq + 1
        return (yield from self._call(Call(seq, write_json({"seq": seq, "ops": written}))))

    def again(self) -> Steps[list[Reply] | None]:
        """Ask for the answer that was lost."""
        return None if self._unclear is None else (yield from self._call(self._unclear))

    def _call(self, call: Call) -> Steps[list[Reply]]:
        # Whoever ends the wait by force does not know whether it was done.
        was_unclear, self._unclear = self._unclear is not None, call
        heard = yield self._exchange("ops", body=call.body)
        replies = self._replies(heard, call)
        if replies is None:
            raise self._not_done(self.about.error(heard), was_unclear)
        self._unclear = None
        self.seq = call.seq
        return replies

    def _replies(self, heard: Heard, call: Call) -> list[Reply] | None:
        body: Any = heard.body if isinstance(heard, Said) else None
        if not isinstance(body, dict) or (body.get("id"), body.get("seq")) != (
            self.about.id,
            call.seq,
        ):
            return None
        replies = body.get("replies")
        if not isinstance(replies, list):
            return None
        return [read_reply(reply, self.about.decode_replies) for reply in replies]

    def _not_done(self, error: AssentError, was_unclear: bool) -> AssentError:
        if isinstance(error, Aborted):
            self.is_active = False
            self._ended_by = error
        elif isinstance(error, Unknown):
            return error
        elif was_unclear:
            # An earlier copy of the call may have been done, whatever is said of this one.
            return as_unknown(error)
        self._unclear = None
        return error

    def _refuse_unclear(self) -> None:
        """Refuse what comes after a call of which it is not known whether it was done."""
        if self._unclear is None:
            return
        why = f"the answer to call {self._unclear.seq} was lost: ask for it by again(), or abort"
        raise Rejected(
            why, id=self.about.id, coordinator=self.about.coordinator, code="wrong_state"
        )

    def commit(self, wait_ms: int | None) -> Steps[Committed]:
        """Commit, or ask again what became of it."""
        if not self._is_committing:
            self._refuse_unclear()
        waits_ms = self.timeout_ms if wait_ms is None else check_ms(wait_ms)
        was_asked, self._is_committing = self._is_committing, True
        self.is_active = False
        self._ended_by = self.about.unknown("the wait for its commit was ended")
        heard = yield self._exchange("commit", headers=prefer(wait_ms), wait_ms=waits_ms)
        try:
            self.result = self.about.committed(heard)
        except Rejected as rejected:
            if was_asked:
                raise as_unknown(rejected) from rejected
            # It has not begun, and the transaction goes on.
            self._is_committing = False
            self._ended_by = None
            self.is_active = True
            raise
        except AssentError as error:
            self._ended_by = error
            raise
        return self.result

    def refuse_aborted(self) -> None:
        """Raise what has ended it, if a call was told so before a commit was asked for."""
        if not self._is_committing and self._ended_by is not None:
            raise self._ended_by

    def refuse_uncommitted(self) -> None:
        """Raise why it is not committed, nor can be any more."""
        if self.is_active or self.result is not None:
            return
        raise self._ended_by or self.about.cancelled("it was aborted by its own program")

    def abort(self) -> Steps[None]:
        """Give it up."""
        heard = yield self._exchange("abort")
        body: Any = heard.body if isinstance(heard, Said) else None
        if not isinstance(body, dict) or (body.get("id"), body.get("outcome")) != (
            self.about.id,
            "aborted",
        ):
            error = self.about.error(heard)
            if not isinstance(error, Aborted):
                raise error
        self.is_active = False
        self.is_aborted = True

    def _exchange(
        self,
        what: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        wait_ms: int = 0,
    ) -> Exchange:
        path = f"/v1/transactions/{self.about.id}/{what}"
        return Exchange(self.about.coordinator, Request("POST", path, body, headers or {}, wait_ms))
