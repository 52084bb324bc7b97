"""The tests that the origin of this project asks for: consistency, and performance."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_transaction import OutcomeUnknown, RedisTransaction, keys_of, main, total, transfer
from stack import LossyProxy, PeerServer, Stack, dead_url, running

import assent

Make = Callable[[], RedisTransaction]
Client = redis.Redis | assent.Client


def plain(resp: str) -> redis.Redis:
    """Return a client of redis-py at Assent's port, which sends nothing twice."""
    host, port = resp.split(":")
    options: dict[str, Any] = {"retry": None, "socket_timeout": 9, "decode_responses": True}
    return redis.Redis(host=host, port=int(port), **options)


@pytest.fixture(params=["redis-py", "sdk"])
def make(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Return what makes a `RedisTransaction`, by each of the two ways."""
    with plain(stack.resp) as by_redis, assent.Client(stack.url) as by_sdk:
        client = by_redis if request.param == "redis-py" else by_sdk
        yield lambda: RedisTransaction(client)


def test_all_writes_are_done_or_none(stack: Stack, make: Make) -> None:
    tx, reader = make(), plain(stack.resp)
    tx.start()
    tx.set("bank:all", 1)
    tx.set("shop:all", "x")
    assert reader.mget("bank:all") == [None], "nothing is seen before the commit"
    assert tx.commit() is True
    assert (reader.get("bank:all"), reader.get("shop:all")) == ("1", "x")
    tx.start()
    tx.delete("shop:all")
    tx.decrby("bank:all", 5, at_least=0)
    assert tx.commit() is False
    assert "-4" in str(tx.why)
    assert (reader.get("bank:all"), reader.get("shop:all")) == ("1", "x")
    reader.delete("bank:all")
    reader.delete("shop:all")
    reader.close()


def test_without_start_there_is_nothing_to_commit(make: Make) -> None:
    tx = make()
    assert tx.commit() is False
    assert tx.rollback() is False
    assert tx.attach() is False
    with pytest.raises(RuntimeError, match="no transaction was started"):
        tx.set("bank:k", 1)
    tx.start()
    assert tx.commit() is True, "nothing was to be done, and it is"
    assert tx.commit() is False


def test_what_is_rolled_back_is_not_done(stack: Stack, make: Make) -> None:
    tx, reader = make(), plain(stack.resp)
    tx.start()
    tx.set("bank:back", 1)
    with pytest.raises(RuntimeError, match="is open"):
        tx.start()
    assert tx.rollback() is True
    assert tx.commit() is False
    assert reader.get("bank:back") is None
    reader.close()


def test_a_value_that_cannot_be_sent_is_not_added(stack: Stack, make: Make) -> None:
    tx = make()
    tx.start()
    tx.set("bank:bad", "half")
    for bad in (None, True, "\ud800"):
        with pytest.raises((TypeError, ValueError, redis.DataError)):
            tx.set("shop:bad", bad)  # type: ignore[arg-type]
    with pytest.raises((TypeError, redis.DataError)):
        tx.decrby("shop:bad", 1, at_least=[])  # type: ignore[arg-type]
    assert tx.rollback() is True
    tx.start()
    tx.set("bank:bad", "whole")
    with pytest.raises((TypeError, redis.DataError)):
        tx.set("shop:bad", None)  # type: ignore[arg-type]
    assert tx.commit() is True, "what was refused was not added"
    with plain(stack.resp) as reader:
        assert (reader.get("bank:bad"), reader.get("shop:bad")) == ("whole", None)


TWO_PLACES: list[tuple[str | int, ...]] = [
    ("MSET", "bank:two", 1, "shop:two", 1),
    ("mget", "bank:two", "shop:two"),
    ("BITOP", "OR", "bank:two", "bank:other", "shop:two"),
    ("COPY", "bank:two", "shop:two"),
]


@pytest.mark.parametrize("command", TWO_PLACES)
def test_keys_at_two_participants_are_no_true(
    stack: Stack, make: Make, command: tuple[str | int, ...]
) -> None:
    tx = make()
    tx.start()
    tx.set("bank:beside", 1)
    tx.write(*command)
    assert tx.commit() is False
    assert "participants" in str(tx.why)
    with plain(stack.resp) as reader:
        found = [reader.get(key) for key in ("bank:two", "shop:two", "bank:beside")]
    assert found == [None, None, None]


def test_a_command_goes_where_its_keys_lie(stack: Stack, make: Make) -> None:
    tx = make()
    tx.start()
    tx.write("MSET", "bank:mset-a", 1, "bank:mset-b", 2)
    tx.write("BITOP", "OR", "shop:or", "shop:mset-a", "shop:mset-b")
    tx.write("XGROUP", "CREATE", "shop:stream", "group", "$", "MKSTREAM")
    assert tx.commit() is True, tx.why
    with plain(stack.resp) as reader:
        assert (reader.get("bank:mset-a"), reader.get("bank:mset-b")) == ("1", "2")
        assert reader.xlen("shop:stream") == 0
        for key in ("bank:mset-a", "bank:mset-b", "shop:stream"):
            reader.delete(key)


def test_the_keys_of_all_commands_are_found(stack: Stack) -> None:
    """Promise: what the SDK's way knows of the places of keys is what the port says of them."""
    words = [f"word-{place}" for place in range(9)]
    with plain(stack.resp) as client:
        commands = client.command()
    assert len(commands) > 150
    for name, told in commands.items():
        first, last = told["first_key_pos"], told["last_key_pos"]
        stops = len(words) if last < 0 else last + 1
        fixed = words[first : stops : told["step_count"]] if first else []
        is_movable = "movablekeys" in told["flags"]
        assert keys_of([name, *words[1:]]) == ([] if is_movable else fixed), name


def test_what_has_keys_at_no_fixed_place_is_sent_by_redis_clients(stack: Stack) -> None:
    for by, expected in (("redis-py", True), ("sdk", False)):
        with plain(stack.resp) as client, assent.Client(stack.url) as sdk:
            tx = RedisTransaction(client if by == "redis-py" else sdk)
            tx.start()
            tx.write("ZUNIONSTORE", "bank:union", 1, "bank:set")
            assert tx.commit() is expected, tx.why


def test_words_of_the_connection_are_no_writes(stack: Stack, make: Make) -> None:
    tx = make()
    tx.start()
    for word in ("EXEC", "DISCARD", "MULTI", "RESET"):
        with pytest.raises(ValueError, match="a key"):
            tx.write(word)
    tx.write("WATCH", "bank:watched")
    tx.incrby("bank:watched", 1)
    assert tx.commit() is False
    with plain(stack.resp) as reader:
        assert reader.get("bank:watched") is None


def test_an_async_client_is_refused() -> None:
    for client in (redis.asyncio.Redis(), assent.AsyncClient(), None):
        with pytest.raises(TypeError, match=type(client).__name__):
            RedisTransaction(client)  # type: ignore[arg-type]


def test_where_nobody_listens_nothing_is_done() -> None:
    dead = dead_url()
    with plain(dead.removeprefix("http://")) as client, assent.Client(dead) as sdk:
        for door in (client, sdk):
            tx = RedisTransaction(door)
            tx.start()
            tx.incrby("bank:dead", 1)
            assert tx.commit() is False
            assert "not sent" in str(tx.why)


def test_where_nobody_listens_any_more_it_is_not_known(stack: Stack) -> None:
    for by in ("redis-py", "sdk"):
        with LossyPort(stack.resp) as port, LossyProxy(stack.url) as proxy:
            sdk = assent.Client(proxy.url)
            tx = RedisTransaction(port.client if by == "redis-py" else sdk)
            tx.start()
            tx.incrby(f"bank:gone-{by}", 1)
            (port if by == "redis-py" else proxy).lose("answer")
            with pytest.raises(OutcomeUnknown):
                tx.commit()
            port.close()
            proxy.close()
            with pytest.raises(OutcomeUnknown, match="not sent"):
                tx.attach()
            sdk.close()


def test_it_runs_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    with running("bank-a", "bank-b", hooks_at=[]) as stack:
        main(stack.resp)
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["opened: True", "30 moved: True "]
    assert said[2].startswith("500 moved: False EXPECTATIONFAILED ")
    assert said[3:] == ["alice has 70, bob has 30"]


def test_a_reply_that_cannot_be_decoded_is_no_false(stack: Stack) -> None:
    with plain(stack.resp) as client:
        client.set("bank:blob", b"\xff")
        tx = RedisTransaction(client)
        tx.start()
        tx.write("GET", "bank:blob")
        tx.incrby("shop:blob", 1)
        with pytest.raises(OutcomeUnknown, match="decode"):
            tx.commit()
        assert tx.rollback() is False, "it is done"
        assert client.get("shop:blob") == "1"


@pytest.mark.parametrize("lost", ["answer", "request"])
@pytest.mark.parametrize("by", ["redis-py", "sdk"])
def test_a_lost_answer_is_no_false(stack: Stack, by: str, lost: str) -> None:
    key = f"bank:lost-{by}-{lost}"
    with LossyPort(stack.resp) as port, assent.Client(stack.proxy.url) as sdk:
        tx = RedisTransaction(port.client if by == "redis-py" else sdk)
        tx.start()
        tx.incrby(key, 1)
        proxy: LossyPort | LossyProxy = port if by == "redis-py" else stack.proxy
        proxy.lose(lost)
        with pytest.raises(OutcomeUnknown) as unknown:
            tx.commit()
        assert unknown.value.id == tx.id
        assert tx.rollback() is False, "that is not known"
        with pytest.raises(RuntimeError, match="under way"):
            tx.incrby(key, 1)
        assert tx.attach() is True
    with plain(stack.resp) as reader:
        assert reader.get(key) == "1", "done once"


def test_a_refusal_of_a_later_copy_is_no_false(stack: Stack) -> None:
    with LossyPort(stack.resp) as port:
        tx = RedisTransaction(port.client)
        for _ in range(2):
            tx.start()
            tx.incrby("bank:refused", 1)
            port.lose("answer")
            with pytest.raises(OutcomeUnknown):
                tx.commit()
            port.lose("refuse")
            with pytest.raises(OutcomeUnknown, match="OVERLOADED"):
                tx.attach()
            assert tx.attach() is True
            tx.start()
            tx.incrby("bank:refused", 1)
            port.lose("refuse")
            assert tx.commit() is False, "there is no earlier copy"
        with plain(stack.resp) as reader:
            assert reader.get("bank:refused") == "2"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"retry": None, "retry_on_error": [redis.ConnectionError]},
        {"retry": Retry(NoBackoff(), -1)},
        {"connection_pool": redis.ConnectionPool(retry=Retry(NoBackoff(), 1))},
    ],
)
def test_a_client_that_sends_again_by_itself_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="retry=None"):
        RedisTransaction(redis.Redis(**options))


def test_concurrent_transfers_lose_no_money(stack: Stack) -> None:
    """Consistency: readers see one and the same sum all the while."""
    bank = Bank(f"{place}:concurrent-{n}" for place in ("bank", "shop") for n in range(3))
    with plain(stack.resp) as client, assent.Client(stack.url) as sdk:
        bank.open(client)
        payers = [bank.paying(sdk if n % 2 else client, n, TRANSFERS) for n in range(6)]
        done = threading.Event()
        sums: list[int] = []

        def read() -> None:
            while not done.is_set():
                sums.append(total(client, bank.accounts))

        reader = threading.Thread(target=read)
        reader.start()
        in_parallel(payers)
        done.set()
        reader.join()
        assert set(sums) == {bank.money}
        assert bank.moved > 0
        bank.audit(client)


def test_a_crash_in_the_middle_loses_no_money(tmp_path: Path) -> None:
    """Consistency: coordinator, agents and Redis servers are killed, and started again."""
    bank = Bank(f"{place}:crash-{n}" for place in ("bank", "shop") for n in range(3))
    with ExitStack() as lives:
        stack = lives.enter_context(running("bank", "shop", retain=tmp_path))
        client, sdk = plain(stack.resp), assent.Client(stack.url)
        bank.open(client)
        payers = [bank.paying(sdk if n % 2 else client, n, TRANSFERS) for n in range(6)]
        money_moves = threading.Thread(target=in_parallel, args=(payers,))
        money_moves.start()
        for moved in (10, 25):
            bank.wait_until_moved(moved)
            stack.process.kill()
            stack.process.wait()
            stack = lives.enter_context(running("bank", "shop", retain=tmp_path, at=stack))
        money_moves.join()
        print(f"\n{bank.moved} moved, {bank.refused} refused, {bank.unclear} answers lost")
        assert bank.unclear > 0, "nothing was under way"
        bank.audit(client)
        client.close()
        sdk.close()


def test_a_client_that_dies_before_the_commit_leaves_nothing(stack: Stack) -> None:
    program = f"""
import os, redis
from redis_transaction import RedisTransaction
tx = RedisTransaction(redis.Redis(port={stack.resp.split(":")[1]}, retry=None))
tx.start()
tx.set("bank:died", 1)
os.kill(os.getpid(), 9)
"""
    died = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert died.returncode == -signal.SIGKILL
    with plain(stack.resp) as reader:
        assert reader.get("bank:died") is None


def test_performance(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Print how fast it is here and now; on a shared machine a figure is no promise."""
    floor = redis.Redis.from_url(stack.participants["bank"])
    figures = []
    with plain(stack.resp) as client, assent.Client(stack.url) as sdk:
        for threads in (1, 8):
            for name, of in (("redis-py at the port", client), ("the SDK", sdk)):
                bank = Bank(f"{place}:fast-{n}" for place in ("bank", "shop") for n in range(8))
                bank.open(client)
                rate = measured(bank.paying_for(of, n, SECONDS) for n in range(threads))
                figures.append(f"{threads} x {name}: {rate}")
                bank.audit(client)
            rate = measured(increments(floor, n, SECONDS) for n in range(threads))
            figures.append(f"{threads} x MULTI/EXEC at one plain Redis, AOF always: {rate}")
    floor.close()
    with capsys.disabled():
        print("\ntransfers between two Redis servers:", *figures, sep="\n  ")


TRANSFERS = 12
"""How many transfers each payer tries."""

SECONDS = 0.5
"""How long a rate is measured."""

WITHIN_S = 60
"""How long anything is waited for."""


class Bank:
    """Accounts, and what is known of them by what its transfers were told."""

    def __init__(self, accounts: Iterable[str]) -> None:
        self.accounts = list(accounts)
        self.known = dict.fromkeys(self.accounts, 100)
        self.money = sum(self.known.values())
        self.moved = self.refused = self.unclear = 0
        self._lock = threading.Lock()

    def open(self, client: redis.Redis) -> None:
        for account in self.accounts:
            client.set(account, self.known[account])

    def wait_until_moved(self, transfers: int) -> None:
        """Wait until so many have come through."""
        ends = time.monotonic() + WITHIN_S
        while self.moved < transfers:
            assert time.monotonic() < ends, f"only {self.moved} have"
            time.sleep(0.002)

    def audit(self, client: redis.Redis) -> None:
        """Demand that each account has what the transfers that were told True come to."""
        assert {account: int(client.get(account) or 0) for account in self.accounts} == self.known
        assert sum(self.known.values()) == self.money

    def paying(self, client: Client, seed: int, transfers: int) -> Callable[[], list[float]]:
        """Return a payer that tries so many transfers."""
        choice = random.Random(seed)
        return lambda: [self._pay(client, choice) for _ in range(transfers)]

    def paying_for(self, client: Client, seed: int, seconds: float) -> Callable[[], list[float]]:
        """Return a payer that goes on for so long."""

        def pay() -> list[float]:
            choice, took = random.Random(seed), list[float]()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                took.append(self._pay(client, choice))
            return took

        return pay

    def _pay(self, client: Client, choice: random.Random) -> float:
        """Try one transfer, until it is known what became of it; return how long that took."""
        payer, payee = choice.sample(self.accounts, 2)
        amount = choice.randrange(1, 60)
        tx = RedisTransaction(client)
        started = time.monotonic()
        is_moved = self._known(tx, lambda: transfer(tx, payer, payee, amount), started)
        with self._lock:
            if is_moved:
                self.known[payer] -= amount
                self.known[payee] += amount
                self.moved += 1
            else:
                self.refused += 1
        return time.monotonic() - started

    def _known(self, tx: RedisTransaction, ask: Callable[[], bool], since: float) -> bool:
        while True:
            try:
                return ask()
            except OutcomeUnknown:
                with self._lock:
                    self.unclear += 1
                assert time.monotonic() < since + WITHIN_S, f"{tx.id} is not known"
                ask = tx.attach
                # Nobody may be there yet.
                time.sleep(0.05)


def in_parallel(work: Iterable[Callable[[], list[float]]]) -> list[float]:
    """Do all of it, each in a thread, and return how long each transfer took."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return [took for one in [pool.submit(each) for each in work] for took in one.result()]


def measured(work: Iterable[Callable[[], list[float]]]) -> str:
    started = time.monotonic()
    took = sorted(in_parallel(work))
    rate = len(took) / (time.monotonic() - started)
    median, slow = (1_000 * took[int(len(took) * part)] for part in (0.5, 0.99))
    return f"{rate:.0f} a second, median {median:.1f} ms, 99% below {slow:.1f} ms"


def increments(client: redis.Redis, seed: int, seconds: float) -> Callable[[], list[float]]:
    """Return what a transfer would be without atomicity between servers: the floor."""

    def write() -> list[float]:
        took = []
        ends = time.monotonic() + seconds
        while (started := time.monotonic()) < ends:
            pipe = client.pipeline(transaction=True)
            pipe.decrby(f"floor-{seed}-a", 1)
            pipe.incrby(f"floor-{seed}-b", 1)
            pipe.execute()
            took.append(time.monotonic() - started)
        return took

    return write


class LossyPort(PeerServer):
    """Passes on what redis-py says, but for one transaction, or its answer."""

    def __init__(self, resp: str) -> None:
        super().__init__()
        host, port = resp.split(":")
        self._to = (host, int(port))
        self._lose: str | None = None
        self.client = plain(self.address)

    def lose(self, what: str) -> None:
        self._lose = what

    def __exit__(self, *_: object) -> None:
        self.client.close()
        super().__exit__()

    def _serve(self, peer: socket.socket) -> None:
        """Read what comes at once, and pass it on: this client sends a request in one piece."""
        with peer, socket.create_connection(self._to) as server:
            while request := peer.recv(65_536):
                lose = None
                if b"EXEC" in request:
                    lose, self._lose = self._lose, None
                if lose == "request":
                    return
                if lose == "refuse":
                    # To MULTI, ASSENT.ID, INCRBY and EXEC.
                    peer.sendall(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n-OVERLOADED busy\r\n")
                    continue
                server.sendall(request)
                answer = server.recv(65_536)
                if lose == "answer":
                    return
                peer.sendall(answer)
