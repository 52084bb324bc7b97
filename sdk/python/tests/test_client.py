"""Promise: what is not known is never told as known, and nothing is sent twice unasked."""

import inspect
import json
import os
import pickle
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from stack import PeerServer, Stack, dead_url

import assent

Answer = Callable[[httpx.Request], httpx.Response]
COMMITTED = {"outcome": "committed", "state": "ended", "applied": True}


class Heard:
    """Answers requests by a function, and keeps them."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answer(request)


def client_of(answer: Answer, *coordinators: str, **options: Any) -> tuple[assent.Client, Heard]:
    heard = Heard(answer)
    http = httpx.Client(transport=httpx.MockTransport(heard))
    urls = coordinators or ("http://one",)
    return assent.Client(urls, http_client=http, **options), heard


def one_op() -> assent.Transaction:
    tx = assent.Transaction()
    tx.op("bank", "GET", "k")
    return tx


def id_of(request: httpx.Request) -> str:
    return str(json.loads(request.content)["id"])


def committed(request: httpx.Request, **more: Any) -> httpx.Response:
    branches = [{"participant": "bank", "state": "applied", "replies": ["v"]}]
    return httpx.Response(
        200, json={"id": id_of(request), **COMMITTED, "branches": branches, **more}
    )


def problem(status: int, code: str, **more: Any) -> httpx.Response:
    body = {"status": status, "code": code, "detail": "d", "retryable": False, **more}
    headers = {"content-type": "application/problem+json"}
    return httpx.Response(status, content=json.dumps(body), headers=headers)


def test_what_is_committed_is_returned() -> None:
    client, heard = client_of(committed, token="secret")
    tx = one_op()
    result = client.submit(tx)
    assert (result.id, result.replies, result.applied) == (tx.id, {"bank": ["v"]}, True)
    [request] = heard.requests
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["accept-encoding"] == "identity"
    assert "idempotency-key" not in request.headers


STRANGE: dict[str, Answer] = {
    "not found": lambda _: httpx.Response(404, text="no such page"),
    "bad gateway": lambda _: httpx.Response(502, html="<html>"),
    "a portal": lambda _: httpx.Response(200, html="<html>"),
    "another id": lambda r: committed(r, id=assent.new_id()),
    "no outcome": lambda r: committed(r, outcome="perhaps"),
    "no state": lambda r: committed(r, state=None, branches=None),
    "an array": lambda _: httpx.Response(200, json=[]),
    "deep": lambda _: httpx.Response(200, json=json.loads("[" * 40 + "]" * 40)),
    "no json": lambda _: httpx.Response(
        200, text="{", headers={"content-type": "application/json"}
    ),
    "internal": lambda _: problem(500, "internal"),
    "a proxy's status": lambda _: httpx.Response(
        502,
        content=problem(409, "x", outcome="aborted").content,
        headers={"content-type": "application/problem+json"},
    ),
    "a problem without a code": lambda _: httpx.Response(
        409, json={"status": 409}, headers={"content-type": "application/problem+json"}
    ),
    "a redirect": lambda _: httpx.Response(307, headers={"location": "http://two/"}),
    "zipped": lambda r: httpx.Response(
        200,
        content=committed(r).content,
        headers={"content-type": "application/json", "content-encoding": "br"},
    ),
    "an abort of another": lambda _: problem(409, "x", outcome="aborted", id=assent.new_id()),
    "an abort of nobody": lambda _: problem(409, "x", outcome="aborted"),
    "a refusal of another": lambda _: problem(422, "x", id=assent.new_id()),
    "an outcome that is null": lambda r: problem(409, "x", outcome=None, id=id_of(r)),
    "committed problem": lambda _: problem(409, "x", outcome="committed"),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE.keys())
def test_what_is_not_the_coordinators_own_word_is_unknown(answer: Answer) -> None:
    client, heard = client_of(answer, "http://one", "http://two")
    tx = one_op()
    with pytest.raises(assent.Unknown) as raised:
        client.submit(tx)
    assert raised.value.id == tx.id
    assert len(heard.requests) == 1, "nothing is sent again"


def fail_with(error: type[Exception]) -> Answer:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error("by the test")

    return answer


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadError,
        httpx.ReadTimeout,
        httpx.WriteError,
        httpx.WriteTimeout,
        httpx.RemoteProtocolError,
        httpx.CloseError,
        OSError,
        KeyError,
        RuntimeError,
    ],
)
def test_a_failure_after_the_connection_is_unknown(error: type[Exception]) -> None:
    client, heard = client_of(fail_with(error), "http://one", "http://two")
    tx = one_op()
    with pytest.raises(assent.Unknown) as raised:
        client.submit(tx)
    assert raised.value.id == tx.id
    assert isinstance(raised.value.__cause__, error)
    assert [request.url.host for request in heard.requests] == ["one"]


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_a_failure_before_the_connection_goes_on_to_the_next(error: type[Exception]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return fail_with(error)(request) if request.url.host == "one" else committed(request)

    client, heard = client_of(answer, "http://one", "http://two")
    assert client.submit(one_op()).coordinator == "http://two"
    assert [request.url.host for request in heard.requests] == ["one", "two"]


def test_once_sent_it_belongs_to_one_coordinator() -> None:
    hosts_down: set[str] = set()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host in hosts_down:
            raise httpx.ConnectError("refused")
        return httpx.Response(502)

    client, heard = client_of(answer, "http://one", "http://two")
    tx = one_op()
    with pytest.raises(assent.Unknown):
        client.submit(tx)
    hosts_down.add("one")
    # Another log would do it once more. And that this copy was not sent says nothing of the first.
    with pytest.raises(assent.Unknown) as raised:
        client.submit(tx)
    assert raised.value.code == "not_sent"
    assert {request.url.host for request in heard.requests} == {"one"}


def test_a_kept_id_needs_its_coordinator() -> None:
    client, heard = client_of(committed, "http://one", "http://two")
    tx = assent.Transaction(id=assent.new_id())
    tx.op("bank", "GET", "k")
    with pytest.raises(ValueError, match="needs its coordinator"):
        client.submit(tx)
    tx.coordinator = "http://three"
    with pytest.raises(ValueError, match="does not have"):
        client.submit(tx)
    tx.coordinator = "http://two/"
    client.submit(tx)
    assert [request.url.host for request in heard.requests] == ["two"]


def test_a_refusal_of_a_later_copy_is_no_news_of_the_first() -> None:
    answers = [httpx.Response(502), problem(429, "overloaded", retryable=True)]
    client, _ = client_of(lambda _: answers.pop(0))
    tx = one_op()
    for code in (None, "overloaded"):
        with pytest.raises(assent.Unknown) as raised:
            client.submit(tx)
        assert raised.value.code == code


def test_what_is_committed_is_not_refused_later() -> None:
    tx = one_op()
    client_of(committed)[0].submit(tx)
    stranger, _ = client_of(lambda _: problem(401, "unauthorized"))
    with pytest.raises(assent.Unknown, match="unauthorized"):
        stranger.submit(tx)
    assert tx.result.id == tx.id


def test_a_refusal_beside_a_copy_that_is_under_way_is_no_news() -> None:
    tx = one_op()
    second = threading.Event()

    def first(_: httpx.Request) -> httpx.Response:
        # The same again, by another thread, is under way when this one is refused.
        thread.start()
        second.wait(9)
        return problem(429, "overloaded")

    def later(request: httpx.Request) -> httpx.Response:
        second.set()
        refused.wait(9)
        return committed(request)

    refused = threading.Event()
    thread = threading.Thread(target=lambda: client_of(later)[0].submit(tx))
    with pytest.raises(assent.Unknown, match="overloaded"):
        client_of(first)[0].submit(tx)
    refused.set()
    thread.join()
    assert tx.result.id == tx.id


def test_a_refusal_of_a_later_copy_of_a_call_or_a_commit_is_no_news_either() -> None:
    refused = problem(429, "overloaded", retryable=True)
    answers = {"ops": [httpx.Response(502), refused], "commit": [httpx.Response(502), refused]}
    said: dict[str, Any] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        what = request.url.path.rpartition("/")[2]
        if what == "transactions":
            said.update(json.loads(request.content), outcome="active", seq=0)
            return httpx.Response(200, json=said)
        if answers[what]:
            return answers[what].pop(0)
        if what == "ops":
            return httpx.Response(200, json={**said, "seq": 1, "replies": ["v"]})
        return httpx.Response(200, json={**said, **COMMITTED, "branches": []})

    client, heard = client_of(answer)
    tx = client.begin()
    with pytest.raises(assent.Unknown):
        tx.op("bank", "GET", "k")
    with pytest.raises(assent.Unknown, match="overloaded"):
        tx.again()
    assert tx.again() == ["v"]
    assert tx.again() is None
    with pytest.raises(assent.Unknown):
        tx.commit()
    with pytest.raises(assent.Unknown, match="overloaded"):
        tx.commit()
    tx.close()
    assert tx.commit().id == tx.id
    assert not heard.requests[-1].url.path.endswith("/abort"), "its commit was asked for"


def test_who_is_asked_and_does_not_know_the_id_settles_nothing() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "two":
            raise httpx.ConnectError("refused")
        return problem(404, "not_found")

    client, heard = client_of(answer, "http://one", "http://two", "http://three")
    with pytest.raises(assent.Unknown) as raised:
        client.attach(assent.new_id())
    assert raised.value.code == "not_sent", "two may know it"
    assert len(heard.requests) == 3


def test_a_block_that_raises_sends_nothing() -> None:
    client, heard = client_of(committed)
    with suppress(ZeroDivisionError), client.transaction() as tx:
        tx.op("bank", "GET", "k")
        raise ZeroDivisionError
    assert not tx.is_empty
    assert heard.requests == []


def test_a_block_that_adds_nothing_is_no_transaction() -> None:
    client, heard = client_of(committed)
    with pytest.raises(ValueError, match="no ops"), client.transaction():
        pass
    assert heard.requests == []


def test_an_answer_is_not_read_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assent._transport.ANSWER_BYTES_MAX", 10)
    client, _ = client_of(committed)
    with pytest.raises(assent.Unknown, match="more than 10 bytes"):
        client.submit(one_op())


def test_a_wait_has_an_end(stack: Stack) -> None:
    del stack
    with anyio.from_thread.start_blocking_portal() as portal, Slow() as slow:
        quick: dict[str, Any] = {"request_timeout_ms": 100}
        tx = assent.Transaction(timeout_ms=0)
        tx.op("bank", "GET", "k")
        with assent.Client(slow.url, **quick) as client:
            with pytest.raises(assent.Unknown, match="100 ms"):
                client.submit(tx)
            slow.is_slow_from_the_start = True
            # By a connection that is used for the first time, and by one that was kept.
            for _ in range(2):
                with pytest.raises(assent.Unknown, match="100 ms"):
                    client.submit(tx)

        async def run() -> None:
            async with assent.AsyncClient(slow.url, **quick) as client:
                with pytest.raises(assent.Unknown, match="100 ms"):
                    await client.submit(tx)

        portal.call(run)


class Slow(PeerServer):
    """Sends an answer a byte at a time, so that no single read takes long."""

    def __init__(self) -> None:
        self.is_slow_from_the_start = False
        self._ended = threading.Event()
        super().__init__()
        self.url = f"http://{self.address}"

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        super().__exit__()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            peer.recv(65_536)
            try:
                peer.sendall(b"HTTP/1.1 200 OK\r\n")
                if self.is_slow_from_the_start:
                    peer.sendall(b"x-slow: ")
                else:
                    peer.sendall(b"content-length: 99999\r\n\r\n")
                while not self._ended.wait(0.01):
                    peer.sendall(b" ")
            except OSError:
                return


def test_a_cancelled_wait_leaves_the_id_and_the_coordinator(stack: Stack) -> None:
    async def run() -> None:
        tx = assent.Transaction()
        tx.op("shop", "SET", "cancelled", "1")
        tx.input("shop", {"hold": "cancelled"})
        async with assent.AsyncClient(stack.url) as client:
            with anyio.move_on_after(0.2) as scope:
                await client.submit(tx)
            assert scope.cancelled_caught
            assert (tx.is_unclear, tx.coordinator) == (True, stack.url)
            stack.hook.released("cancelled").set()
            # The same request again is the same transaction.
            assert (await client.submit(tx)).id == tx.id
            assert tx.result.hook_reply("shop") == {"held": "cancelled"}

    anyio.run(run)


def test_ops_have_their_replies_once_it_is_committed(stack: Stack) -> None:
    with assent.Client(stack.url) as client:
        with client.transaction(name="replies") as tx:
            first = tx.op("bank", "SET", "replies:a", "x")
            second = tx.op("shop", "INCRBY", "replies:b", 2)
            third = tx.op("bank", "GET", "replies:a")
        assert (first.reply, second.reply, third.reply) == ("OK", 2, "x")
        assert tx.result.id == tx.id
        with pytest.raises(assent.Aborted) as aborted, client.transaction() as tx:
            tx.op("bank", "GET", "replies:a", expect={"eq": "y"})
        assert (aborted.value.code, aborted.value.reply) == ("expectation_failed", "x")
    with assent.Client(stack.url, decode_replies=False) as client, client.transaction() as tx:
        value = tx.op("bank", "GET", "replies:a")
    assert value.reply == b"x"


def test_an_interactive_block_commits_or_leaves_nothing(stack: Stack) -> None:
    with assent.Client(stack.url) as client:
        with client.begin(name="block") as tx:
            assert tx.op("bank", "INCRBY", "block:n", 1) == 1
        assert tx.result.id == tx.id
        with suppress(ZeroDivisionError), client.begin() as tx:
            tx.op("bank", "INCRBY", "block:n", 1)
            raise ZeroDivisionError
        with pytest.raises(assent.Aborted) as aborted:
            client.attach(tx.id)
        assert aborted.value.code == "cancelled"
        with client.begin() as tx:
            pass
        assert not tx.is_active
        with client.begin() as tx:
            assert tx.op("bank", "GET", "block:n") == "1"
            with pytest.raises(assent.Rejected) as refused:
                tx.op("bank", "LPUSH", "block:n", 7)
            assert refused.value.code == "wrong_type"
            other = client.interactive(tx.id, tx.seq)
            assert other.op("bank", "SET", "block:m", 5) == "OK"
            other.commit()
            with pytest.raises(assent.AssentError):
                tx.abort()
            # It is done by whom it was handed to; asking again is harmless.
            assert tx.commit().id == other.id


def test_errors_can_be_sent_to_another_process() -> None:
    client, _ = client_of(
        lambda r: problem(409, "lock_conflict", outcome="aborted", retryable=True, id=id_of(r))
    )
    with pytest.raises(assent.Aborted) as raised:
        client.submit(one_op())
    copy = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - it is our own
    assert type(copy) is assent.Aborted
    assert (copy.code, copy.id, copy.retryable) == ("lock_conflict", raised.value.id, True)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("ASSENT_URL", "ASSENT_API_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_addresses_and_token_come_from_the_environment(
    clean_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with assent.Client() as client:
        assert client.coordinators == ("http://127.0.0.1:7700",)
    clean_environment.setenv("ASSENT_URL", "http://one http://two/base/")
    (tmp_path / "token").write_text("secret\n")
    clean_environment.setenv("ASSENT_API_TOKEN_FILE", os.fspath(tmp_path / "token"))
    http = httpx.Client(transport=httpx.MockTransport(heard := Heard(committed)))
    client = assent.Client(http_client=http)
    assert client.coordinators == ("http://one", "http://two/base")
    client.submit(one_op())
    assert heard.requests[0].headers["authorization"] == "Bearer secret"
    with pytest.raises(ValueError, match="not both"):
        assent.Client(token="a", token_file="b")


@pytest.mark.parametrize("token", ["", "a\nb", "ü"])
def test_a_token_that_no_header_carries_is_refused_unseen(token: str) -> None:
    with pytest.raises(ValueError, match="token") as raised:
        assent.Client(token=token)
    assert not token or token not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:7700", "ftp://a", "http://u:p@a", "http://a?b", "http://a#b", "http://:1"],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="a coordinator is a URL"):
        assent.Client([url])
    with pytest.raises(ValueError, match="no coordinator"):
        assent.Client([])


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [
        (assent.Client, assent.AsyncClient),
        (assent.Interactive, assent.AsyncInteractive),
    ],
)
def test_both_clients_have_the_same_words(blocking: type, awaited: type) -> None:
    def words(of: type) -> dict[str, str]:
        public = {name: value for name, value in vars(of).items() if not name.startswith("_")}
        return {
            name: str(inspect.signature(value)).split("->")[0].replace("Async", "")
            for name, value in public.items()
            if callable(value)
        }

    def neutral(signatures: dict[str, str]) -> dict[str, str]:
        awaitable = "collections.abc.Awaitable[~T]"
        return {name: text.replace(awaitable, "~T") for name, text in signatures.items()}

    assert neutral(words(blocking)) == neutral(words(awaited))
    documented = {name: vars(blocking)[name].__doc__ for name in words(blocking)}
    for name, text in documented.items():
        twin = vars(awaited)[name].__doc__
        assert text, name
        assert twin.replace("an `async with`", "a `with`").split() == text.split(), name


def test_nobody_listens(stack: Stack) -> None:
    with assent.Client([dead_url(), stack.url]) as client, client.transaction() as tx:
        tx.op("bank", "SET", "listens", 1)
    assert tx.coordinator == stack.url


@pytest.mark.parametrize(
    "options",
    [
        {"coordinators": 5},
        {"request_timeout_ms": -5},
        {"request_timeout_ms": "1"},
        {"connect_timeout_ms": 1.5},
        {"token": 5},
        {"decode_replies": "no"},
        {"http_client": 5},
    ],
)
@pytest.mark.parametrize("kind", [assent.Client, assent.AsyncClient])
def test_a_setting_of_another_kind_is_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"milliseconds|coordinators|token|decode|http_client"):
        kind(**{"coordinators": "http://one", **options})


def test_a_closed_client_begins_nothing() -> None:
    tx = one_op()
    client = assent.Client("http://one")
    client.close()
    with pytest.raises(RuntimeError, match="is closed"):
        client.submit(tx)
    assert (tx.is_unclear, tx.coordinator) == (False, None)
