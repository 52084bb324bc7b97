"""A transaction over several Redis servers, with four verbs: start, write, commit, roll back.

```python
# Plain redis-py, at Assent's port. It waits for longer than a decision may take.
tx = RedisTransaction(redis.Redis(port=7702, retry=None, socket_timeout=9))
tx.start()
tx.decrby("bank-a:alice", 30, at_least=0)
tx.incrby("bank-b:bob", 30)
if not tx.commit():
    print("not done, at either of them:", tx.why)
```

With `assent.Client("http://127.0.0.1:7700")` in the place of the Redis client it does the same by
the HTTP API. Either way the writes are collected here, and one request carries them: nothing is
locked, and nothing is seen by others, before `commit`.

`commit` says True or False where that is known. Where it is not (the answer was lost, the time ran
out), it raises `OutcomeUnknown`: the writes may be done, or may yet be. `attach` asks again; it
never does the writes twice.

To run it, from the root of the repository, beside `assent dev`:

```sh
pip install ./sdk/python redis
python examples/redis_transaction.py
```
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis

import assent


class OutcomeUnknown(Exception):
    """It is not known whether the transaction is committed. Do not run it anew: `attach`."""

    def __init__(self, id_: str, why: str) -> None:
        """Keep the transaction's id."""
        super().__init__(f"transaction {id_}: {why}")
        self.id = id_


class Aborted(Exception):
    """Nothing of the transaction is done, now or later."""


class Door(Protocol):
    """A way into Assent, for one transaction at a time."""

    def start(self) -> str:
        """Return the id of a new transaction."""

    def write(self, command: Sequence[str | int], at_least: int | None) -> None:
        """Add a Redis command to it, and what its reply must be at least.

        Raises `TypeError`, `ValueError` or `redis.DataError` for what cannot be sent, and then has
        not added it.
        """

    def commit(self) -> None:
        """Do the writes, once, however often it is called. Raises `Aborted` or `OutcomeUnknown`."""


class RedisTransaction:
    """One transaction at a time, with the keys of any number of Redis servers."""

    def __init__(
        self,
        client: "redis.Redis | assent.Client",
        place: Callable[[str], str] = lambda key: key.partition(":")[0],
    ) -> None:
        """Take a client of either kind.

        With the SDK, `place` says at which participant a key lies: `bank-a:alice` at `bank-a`, if
        nothing is said. With redis-py, the routes of the coordinator say it. Either way, the keys
        of one command lie at one participant.
        """
        self._door: Door
        if isinstance(client, assent.Client):
            self._door = SdkDoor(client, place)
        elif isinstance(client, redis.Redis):
            self._door = RespDoor(client)
        else:
            # The calls of an async one return at once, and have sent nothing.
            given = f"{type(client).__module__}.{type(client).__qualname__}"
            raise TypeError(f"give a redis.Redis or an assent.Client, not a {given}")
        self._is_empty = True
        self.id: str | None = None
        """The id of the transaction that is open. Who has it can ask for the outcome elsewhere."""
        self.why: Exception | None = None
        """Why the last commit was False."""
        self.is_unclear = False
        """Whether a commit was asked for whose outcome is not known."""

    def start(self) -> None:
        """Start a transaction. It is an error while another one is open."""
        if self.id is not None:
            raise RuntimeError(f"{self.id} is open: commit it, roll it back, or attach to it")
        self.id, self._is_empty, self.why = self._door.start(), True, None

    def set(self, key: str, value: str | int) -> None:
        """Set a key."""
        self.write("SET", key, value)

    def delete(self, key: str) -> None:
        """Delete a key."""
        self.write("DEL", key)

    def incrby(self, key: str, amount: int) -> None:
        """Add to a number."""
        self.write("INCRBY", key, amount)

    def decrby(self, key: str, amount: int, *, at_least: int | None = None) -> None:
        """Take from a number; if less than `at_least` would be left, nothing at all is done."""
        self.write("DECRBY", key, amount, at_least=at_least)

    def write(self, *command: str | int, at_least: int | None = None) -> None:
        """Add any Redis command on keys. It is done at the commit.

        What cannot be sent, such as None, is an error here already, and is not added. Whether the
        command can be run, and whether its keys lie at one participant, the commit finds out.
        """
        if len(command) < 2:
            raise ValueError("a command is its name, a key, and more")
        if self.id is None:
            raise RuntimeError("no transaction was started")
        if self.is_unclear:
            raise RuntimeError(f"the commit of {self.id} is under way: attach to it")
        self._door.write(command, at_least)
        self._is_empty = False

    def commit(self) -> bool:
        """Do all writes, or none.

        Returns True if they are done; False if nothing is done (`why` says why: refused, or nobody
        was there to be sent them), or nothing was started. Raises `OutcomeUnknown` if nobody knows;
        then it may be called again.
        """
        if self.id is None:
            return False
        # Whatever is raised, it may come after the writes were sent: also Ctrl-C.
        self.is_unclear = True
        try:
            if not self._is_empty:
                self._door.commit()
        except Aborted as aborted:
            self.why = aborted
        self.id, self.is_unclear = None, False
        return self.why is None

    def attach(self) -> bool:
        """Ask what became of a commit whose outcome is not known; as `commit`, also if it is lost.

        Another process that has kept the id asks by `assent.Client().attach(id)`, or by
        `assent tx describe ID`.
        """
        return self.is_unclear and self.commit()

    def rollback(self) -> bool:
        """Drop all writes.

        Returns True if that was still possible: a transaction was started, and its commit not asked
        for.
        """
        if self.id is None or self.is_unclear:
            return False
        self.id = None
        return True


class RespDoor:
    """By plain redis-py, at the port that the coordinator has for Redis clients."""

    def __init__(self, client: redis.Redis) -> None:
        """Take a client that does not send again by itself.

        redis-py 8 sends a transaction up to eleven times. With an id each is the same transaction;
        but then an error of the last copy says nothing of the first.
        """
        if _sends_again(client):
            raise ValueError(
                "make the client with retry=None, and without retry_on_error: else an error says "
                "nothing for sure"
            )
        self._client = client
        self._id = ""
        self._commands: list[tuple[str | int, ...]] = []
        self._is_first = True

    def start(self) -> str:
        """Return an id that is made here."""
        self._id, self._commands, self._is_first = assent.new_id(), [], True
        return self._id

    def write(self, command: Sequence[str | int], at_least: int | None) -> None:
        """Keep the command, and behind it what `ASSENT.EXPECT` says of its reply."""
        commands = [tuple(command)]
        if at_least is not None:
            commands.append(("ASSENT.EXPECT", "GE", at_least))
        encode: Callable[..., Any] = self._client.get_encoder().encode
        for word in (word for words in commands for word in words):
            encode(word)
        self._commands += commands

    def commit(self) -> None:
        """Send `MULTI`, the id, the writes and `EXEC`."""
        is_first, self._is_first = self._is_first, False
        self._connect(is_first)
        pipe = self._client.pipeline(transaction=True)
        # Said by hand, so that redis-py does not take a WATCH among the writes for its own.
        pipe.multi()
        say: Callable[..., Any] = pipe.execute_command
        say("ASSENT.ID", self._id)
        for command in self._commands:
            say(*command)
        try:
            pipe.execute()
        except redis.ResponseError as error:
            said = str(error)
            if said.startswith("COMMITTED "):
                return
            # An outcome names its transaction. Any other no is about this copy only.
            is_sure = is_first or said.endswith(f"(transaction {self._id})")
            if is_sure and not said.startswith("UNKNOWN "):
                raise Aborted(said) from error
            raise OutcomeUnknown(self._id, said) from error
        # Such as a lost connection, or a reply that `decode_responses` cannot decode.
        except Exception as error:
            raise OutcomeUnknown(self._id, str(error)) from error

    def _connect(self, is_first: bool) -> None:
        """Have a connection in the pool: where there is none, nothing is sent, for certain."""
        pool = self._client.connection_pool
        try:
            pool.release(pool.get_connection())
        except Exception as error:
            if is_first:
                raise Aborted(f"not sent: {error}") from error
            raise OutcomeUnknown(self._id, f"not sent again: {error}") from error


def _sends_again(client: redis.Redis) -> bool:
    """Return whether the connections that the client makes repeat what they have sent."""
    pool = client.connection_pool
    # It is not connected. What was said of retries comes together here only.
    connection = pool.connection_class(**pool.connection_kwargs)
    # Less than 0 is without end.
    return bool(connection.retry.get_retries() != 0)


class SdkDoor:
    """By the HTTP API."""

    def __init__(self, client: assent.Client, place: Callable[[str], str]) -> None:
        """Take a client, and what says where a key lies."""
        self._client = client
        self._place = place
        self._transaction = assent.Transaction()
        self._refused: str | None = None

    def start(self) -> str:
        """Return the id that the SDK has made."""
        self._transaction, self._refused = assent.Transaction(), None
        return str(self._transaction.id)

    def write(self, command: Sequence[str | int], at_least: int | None) -> None:
        """Add the command where its keys lie."""
        expect: assent.Expect | None = None if at_least is None else {"ge": at_least}
        places = {self._place(key): key for key in keys_of(command)}
        self._transaction.op(next(iter(places), ""), *command, expect=expect)
        # The first one that is refused says why; as at the port, the commit tells of it.
        self._refused = self._refused or _refusal(str(command[0]), places)

    def commit(self) -> None:
        """Send the writes."""
        if self._refused is not None:
            raise Aborted(self._refused)
        try:
            self._client.submit(self._transaction)
        except assent.Unknown as unknown:
            raise OutcomeUnknown(str(self._transaction.id), str(unknown)) from unknown
        except (assent.Aborted, assent.Rejected) as error:
            raise Aborted(str(error)) from error


def _named(names: str, where: slice) -> dict[str, slice]:
    return dict.fromkeys(names.split(), where)


_KEYS = {
    **_named("DEL EXISTS MGET PFCOUNT PFMERGE SDIFF SDIFFSTORE SINTER", slice(1, None)),
    **_named("SINTERSTORE SUNION SUNIONSTORE TOUCH UNLINK", slice(1, None)),
    **_named("COPY GEOSEARCHSTORE LCS LMOVE RENAME RENAMENX", slice(1, 3)),
    **_named("RPOPLPUSH SMOVE ZRANGESTORE", slice(1, 3)),
    **_named("MSET MSETNX", slice(1, None, 2)),
    **_named("XGROUP XINFO", slice(2, 3)),
    **_named("BITOP", slice(2, None)),
    # Where their keys stand depends on the other words.
    **_named("GEORADIUS GEORADIUSBYMEMBER LMPOP MSETEX SINTERCARD SORT", slice(0)),
    **_named("XREAD XREADGROUP ZDIFF ZDIFFSTORE ZINTER ZINTERCARD", slice(0)),
    **_named("ZINTERSTORE ZMPOP ZUNION ZUNIONSTORE", slice(0)),
}
"""Where a command has its keys, if not only behind its name. The port has the whole set, and a test
compares the two."""


def keys_of(command: Sequence[str | int]) -> list[str]:
    """Return the keys of a command; none if they stand at no fixed place."""
    where = _KEYS.get(str(command[0]).upper(), slice(1, 2))
    return [str(key) for key in command[where]]


def _refusal(name: str, places: dict[str, str]) -> str | None:
    """Return why a command whose keys lie there is not sent."""
    if len(places) == 1:
        return None
    if not places:
        return f"{name} has no key at a fixed place: send it by a Redis client, which is routed"
    at = ", ".join(f"{key} at {place}" for place, key in places.items())
    return f"{name} has keys at several participants: {at}; write one command for each"


def transfer(tx: RedisTransaction, payer: str, payee: str, amount: int) -> bool:
    """Move an amount from one account to another, if it is there; returns whether it was moved."""
    tx.start()
    tx.decrby(payer, amount, at_least=0)
    tx.incrby(payee, amount)
    return tx.commit()


def total(client: redis.Redis, accounts: Sequence[str]) -> int:
    """Return what is in all accounts at one moment: one transaction that only reads."""
    pipe = client.pipeline(transaction=True)
    for account in accounts:
        pipe.get(account)
    return sum(int(value or 0) for value in pipe.execute())


def main(port: str = "127.0.0.1:7702") -> None:
    """Show a transfer that is done, and one that is not."""
    host, _, number = port.rpartition(":")
    options: dict[str, Any] = {"retry": None, "socket_timeout": 9}
    with redis.Redis(host, int(number), **options) as client:
        alice, bob = "bank-a:alice", "bank-b:bob"
        tx = RedisTransaction(client)
        tx.start()
        tx.set(alice, 100)
        tx.set(bob, 0)
        print("opened:", tx.commit())
        for amount in (30, 500):
            print(f"{amount} moved:", transfer(tx, alice, bob, amount), tx.why or "")
        print(f"alice has {int(client.get(alice) or 0)}, bob has {int(client.get(bob) or 0)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
