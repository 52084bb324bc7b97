"""Writing a transaction that is sent in one request."""

from typing import Any, Literal, TypeAlias

from assent._ids import check_id, new_id
from assent._json import write_json
from assent._outcome import Committed
from assent._values import Arg, Expect, Param, Reply, write_op, write_sql

Ack: TypeAlias = Literal["applied", "decided"]
"""When `committed` is answered: when every branch has applied, or when the decision is durable."""

TIMEOUT_DEFAULT_MS = 5_000
"""How long a decision may take if nothing is said: the coordinator's own default."""

_KEY_BYTES_MAX = 255


class Transaction:
    """Ops at participants, under an id that is made here.

    The id is the idempotency key too: however often it is submitted, it is one transaction, and is
    done once. Keep it, before it is sent, with the work that it belongs to.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 - it is the word of the API
        key: str | None = None,
        coordinator: str | None = None,
        timeout_ms: int | None = None,
        ack: Ack | None = None,
    ) -> None:
        """Begin to write one.

        `name` is a label for people. `id` is one that was kept before, a UUIDv7; `key` is an
        idempotency key of your own, such as the number of an order, instead of an id: 1 to 255
        printable ASCII characters. `coordinator` is the one to send it to; it is needed with an
        `id` or a `key` that was used before, where the client has several. `timeout_ms` is how long
        the decision may take (5 s if not said).
        """
        if id is not None and key is not None:
            raise ValueError("give an id or a key, not both")
        if key is not None and not _is_key(key):
            raise ValueError(
                "a key has 1 to 255 printable ASCII characters, none of its ends a space"
            )
        self.id: str | None = None if key is not None else new_id() if id is None else check_id(id)
        """Its id. With a `key` the coordinator makes it, and it is None before the answer."""
        self.key = key
        """The idempotency key that was given."""
        self.coordinator = coordinator
        """The coordinator that it was sent to, and that alone knows it; None while it was not."""
        self.is_kept = id is not None or key is not None
        """Whether its id or key may have been sent by somebody before."""
        self.is_unclear = False
        """Whether an earlier copy of it may have been taken."""
        self.copies = 0
        """How often it was submitted."""
        self.timeout_ms = TIMEOUT_DEFAULT_MS if timeout_ms is None else check_ms(timeout_ms)
        timeout = None if timeout_ms is None else f"{timeout_ms}ms"
        self._fields = {"id": self.id, "name": name, "timeout": timeout, "ack": ack}
        self._branches: dict[str, dict[str, Any]] = {}
        self._body: bytes | None = None
        self._result: Committed | None = None

    def op(
        self, participant: str, *cmd: Arg, expect: Expect | None = None, escrow: bool = False
    ) -> "Op":
        """Add a Redis command: its name and its arguments, such as `"DECRBY", "acct:alice", 30`.

        The ops of a participant run in their order. `expect` says what the reply must be, such as
        `{"ge": 0}`; else everything is aborted. In `escrow` many add to one counter at once.
        Returns the op, whose `reply` is there once the transaction is committed.
        """
        return self._add(participant, write_op(cmd, expect, escrow))

    def sql(self, participant: str, sql: str, *params: Param, expect: Expect | None = None) -> "Op":
        """Add a statement at a participant beside a PostgreSQL database, with its `$1`, `$2`, …

        The statements of a participant run in their order, in one transaction of the database.
        `expect` is about the number of rows that it changed; of a statement that returns rows,
        about the first column of the first one. The reply is that number, or `{"rows": […]}`.
        """
        return self._add(participant, write_sql(sql, params, expect))

    def input(self, participant: str, value: Any) -> None:
        """Add what the hook of a participant decides about: anything that is JSON.

        It stands beside the ops there, or instead of them. `Committed.hook_reply` has the answer.
        """
        write_json(value)
        branch = self._branch(participant)
        if "input" in branch:
            raise ValueError(f"{participant} has an input already")
        branch["input"] = value

    def _add(self, participant: str, op: dict[str, Any]) -> "Op":
        ops = self._branch(participant).setdefault("ops", [])
        ops.append(op)
        return Op(self, participant, len(ops) - 1)

    def _branch(self, participant: str) -> dict[str, Any]:
        if not isinstance(participant, str):
            raise TypeError("a participant is named by a string")
        if self._body is not None:
            raise ValueError("it was sent already: what is added now is another transaction")
        return self._branches.setdefault(participant, {})

    @property
    def is_empty(self) -> bool:
        """Whether it has neither ops nor inputs."""
        return not self._branches

    @property
    def result(self) -> Committed:
        """What was committed. `RuntimeError` as long as it is not."""
        if self._result is None:
            raise RuntimeError("the transaction is not committed, or not known to be")
        return self._result

    def take(self, result: Committed) -> None:
        """Keep what was committed."""
        self.id = result.id
        self._result = result

    @property
    def may_be_taken(self) -> bool:
        """Whether a coordinator has it, or may have: then a refusal is about one copy only."""
        return self.is_unclear or self._result is not None

    def seal(self) -> bytes:
        """Return the body of the request, which is the same from now on."""
        if self.is_empty:
            raise ValueError("the transaction has no ops and no input")
        if self._body is None:
            fields = {name: value for name, value in self._fields.items() if value is not None}
            branches = [{"participant": name, **rest} for name, rest in self._branches.items()]
            self._body = write_json({**fields, "branches": branches})
        return self._body

    def __repr__(self) -> str:
        """Name it, without its values."""
        return f"<Transaction {self.id or self.key} at {', '.join(self._branches) or 'nobody'}>"


class Op:
    """One Redis command, or statement, of a transaction."""

    def __init__(self, transaction: Transaction, participant: str, index: int) -> None:
        """Made by `Transaction.op` and `Transaction.sql`."""
        self._transaction = transaction
        self.participant = participant
        """Where it runs."""
        self.index = index
        """Its place among the ops there, from 0; `AssentError.op` says it of the one to blame."""

    @property
    def reply(self) -> Reply:
        """What was replied. `RuntimeError` as long as the transaction is not committed."""
        return self._transaction.result.replies[self.participant][self.index]


def check_ms(value: int) -> int:
    """Return a number of milliseconds, or raise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is no whole number of milliseconds")
    return value


def _is_key(key: str) -> bool:
    return (
        isinstance(key, str)
        and 1 <= len(key) <= _KEY_BYTES_MAX
        and key.isascii()
        and key.isprintable()
        and key == key.strip()
    )
