"""Promise: an interactive transaction is told as committed only if it is, whoever has stopped."""

import json
import threading
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from stack import Stack
from test_client import COMMITTED, Heard, problem

import assent

Answer = Callable[[httpx.Request], httpx.Response]


class Coordinator:
    """Has one interactive transaction, and answers as it is told, or as a coordinator does."""

    def __init__(self, *, aborts_at: int | None = None, **answers: Answer) -> None:
        self._aborts_at = aborts_at
        self._answers = answers
        self.begun: dict[str, Any] = {}
        self.client = assent.Client(
            "http://one", http_client=httpx.Client(transport=httpx.MockTransport(Heard(self)))
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        what = request.url.path.rpartition("/")[2]
        if what in self._answers:
            return self._answers[what](request)
        if what == "transactions":
            id_ = json.loads(request.content)["id"]
            self.begun = {"id": id_, "outcome": "active", "seq": 0}
            return httpx.Response(200, json=self.begun)
        if what == "ops":
            seq = json.loads(request.content)["seq"]
            if seq == self._aborts_at:
                why = {"outcome": "aborted", "retryable": True, "id": self.begun["id"]}
                return problem(409, "read_changed", **why)
            return httpx.Response(200, json={**self.begun, "seq": seq, "replies": ["v"]})
        if what == "abort":
            return httpx.Response(200, json={**self.begun, "outcome": "aborted"})
        return httpx.Response(200, json={**self.begun, **COMMITTED, "branches": []})


def get(tx: assent.Interactive) -> Any:
    return tx.op("bank", "GET", "k")


def test_an_abort_of_another_transaction_says_nothing_of_this_one() -> None:
    def other(_: httpx.Request) -> httpx.Response:
        why = {"outcome": "aborted", "retryable": True, "id": assent.new_id()}
        return problem(409, "read_changed", **why)

    tx = Coordinator(commit=other).client.begin()
    get(tx)
    with pytest.raises(assent.Unknown, match="another transaction"):
        tx.commit()
    with pytest.raises(assent.Unknown):
        get(Coordinator(ops=other).client.begin())


def test_tasks_that_share_a_handle_take_turns(stack: Stack) -> None:
    async def run() -> None:
        replies: list[Any] = []

        async def add() -> None:
            replies.append(await tx.op("bank", "INCRBY", "turns:tasks", 1))

        async with (
            assent.AsyncClient(stack.url) as client,
            await client.begin() as tx,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(4):
                tasks.start_soon(add)
        assert sorted(replies) == [1, 2, 3, 4]

    anyio.run(run)


def test_threads_that_share_a_handle_take_turns(stack: Stack) -> None:
    replies: list[Any] = []
    together = threading.Barrier(4)

    def add() -> None:
        together.wait()
        replies.append(tx.op("bank", "INCRBY", "turns:threads", 1))

    with assent.Client(stack.url) as client, client.begin() as tx:
        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(replies) == [1, 2, 3, 4]


def test_a_call_whose_wait_was_cancelled_can_be_asked_for_again() -> None:
    coordinator = Coordinator()
    waits = [True]

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/ops") and waits and waits.pop():
            await anyio.sleep_forever()
        return coordinator(request)

    async def run() -> None:
        http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        client = assent.AsyncClient("http://one", http_client=http)
        tx = await client.begin()
        with anyio.move_on_after(0.05):
            await tx.op("bank", "INCRBY", "k", 1)
        with pytest.raises(assent.Rejected, match="again") as refused:
            await tx.commit()
        assert refused.value.code == "wrong_state"
        assert await tx.again() == ["v"]
        assert (await tx.commit()).id == tx.id

    anyio.run(run)


def own_abort(tx: assent.Interactive) -> str:
    get(tx)
    tx.abort()
    return "done"


def swallowed(what: Callable[[assent.Interactive], Any]) -> Callable[[assent.Interactive], str]:
    def work(tx: assent.Interactive) -> str:
        get(tx)
        try:
            what(tx)
        except assent.AssentError:
            return "done"
        raise AssertionError("it has not failed")

    return work


def test_run_returns_only_what_is_committed() -> None:
    coordinator = Coordinator()
    assert coordinator.client.run(get) == "v"
    with pytest.raises(assent.Aborted) as aborted:
        coordinator.client.run(own_abort)
    assert (aborted.value.code, aborted.value.id) == ("cancelled", coordinator.begun["id"])
    lost = Coordinator(commit=lambda _: httpx.Response(502))
    with pytest.raises(assent.Unknown):
        lost.client.run(swallowed(lambda tx: tx.commit()))
    assert coordinator.client.run(lambda _: "nothing to do") == "nothing to do"
    with pytest.raises(TypeError, match="attempts_max"):
        coordinator.client.run(get, attempts_max=0)


def test_run_knows_that_nothing_is_done_where_its_abort_has_arrived() -> None:
    def lost(_: httpx.Request) -> httpx.Response:
        return httpx.Response(502)

    both: list[dict[str, Any]] = [{"transactions": lost}, {"ops": lost}]
    for answers in both:
        with pytest.raises(assent.Rejected, match="nothing was done") as rejected:
            Coordinator(**answers).client.run(get)
        assert rejected.value.retryable
    with pytest.raises(assent.Unknown):
        Coordinator(ops=lost, abort=lost).client.run(get)
    # What another one has come to is not ours to know.
    other = assent.Unknown("of another", id=assent.new_id())

    def work(tx: assent.Interactive) -> None:
        get(tx)
        raise other

    with pytest.raises(assent.Unknown) as raised:
        Coordinator().client.run(work)
    assert raised.value is other


def test_a_result_that_is_not_there_says_why() -> None:
    with Coordinator().client.begin() as empty:
        pass
    with pytest.raises(RuntimeError, match="nothing to commit"):
        _ = empty.result
    lost = Coordinator(commit=lambda _: httpx.Response(502)).client.begin()
    get(lost)
    with pytest.raises(RuntimeError, match="not committed yet"):
        _ = lost.result
    with pytest.raises(assent.Unknown):
        lost.commit()
    with pytest.raises(RuntimeError, match="not known"):
        _ = lost.result
    for end in (own_abort, swallowed(get)):
        aborted = Coordinator(aborts_at=2).client.begin()
        end(aborted)
        with pytest.raises(RuntimeError, match="is aborted"):
            _ = aborted.result


def test_an_abort_that_the_program_has_caught_is_no_commit() -> None:
    coordinator = Coordinator(aborts_at=2)
    with pytest.raises(assent.Aborted, match="read_changed"), coordinator.client.begin() as tx:
        swallowed(get)(tx)
    with pytest.raises(assent.Aborted, match="read_changed"):
        coordinator.client.run(swallowed(get), attempts_max=2)
    # What the program itself has ended, it knows of.
    with Coordinator().client.begin() as tx:
        own_abort(tx)
