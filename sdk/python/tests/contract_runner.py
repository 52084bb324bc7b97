"""Runs the steps of sdk/contract/cases.json; the README beside it says what they mean."""

import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from drivers import Driver, Run, Saved
from stack import ROOT, Stack

import assent

CASES: list[dict[str, Any]] = json.loads((ROOT / "sdk/contract/cases.json").read_text())
UNTIL_WITHIN_S = 30


@dataclass
class Started:
    """A step in the background."""

    thread: threading.Thread
    errors: list[BaseException]


@dataclass
class Case:
    """One case under way."""

    stack: Stack
    driver: Driver
    saved: dict[str, Saved] = field(default_factory=dict)
    started: dict[str, Started] = field(default_factory=dict)

    def run(self, steps: Sequence[dict[str, Any]]) -> None:
        for step in steps:
            getattr(self, f"_{step['do']}")(step)

    def _client(self, step: dict[str, Any], saved: Saved | None = None) -> Any:
        via = step.get("via") or (saved.via if saved else ["live"])
        if saved is not None and saved.via != via:
            saved.via, saved.client = via, None
        if saved is not None and saved.client is not None:
            return saved.client
        client = self.driver.client([self.stack.addresses[name] for name in via])
        if saved is not None:
            saved.client = client
        return client

    def _new(self, step: dict[str, Any]) -> Saved:
        saved = Saved(step.get("via", ["live"]))
        if "as" in step:
            self.saved[step["as"]] = saved
        return saved

    def _checked(self, step: dict[str, Any], saved: Saved, act: Callable[[], Any]) -> None:
        """Do it, and compare what came of it with what is wanted."""
        try:
            came = act()
        except assent.AssentError as error:
            found = _of_error(error)
        else:
            found = _of_success(came, saved)
        _compare(step, found, {name: saved.id for name, saved in self.saved.items()})

    def _run(self, step: dict[str, Any]) -> None:
        saved = self._new(step)
        self._write(step, saved)
        self._send(step, saved)

    def _write(self, step: dict[str, Any], saved: Saved) -> None:
        body = step["transaction"]
        kept = self.saved[step["with_id_of"]].id if "with_id_of" in step else None
        saved.transaction = assent.Transaction(
            id=kept,
            key=step.get("key"),
            name=body.get("name"),
            timeout_ms=_ms(body.get("timeout")),
            ack=body.get("ack"),
        )
        for branch in body["branches"]:
            for op in branch.get("ops", []):
                options = {name: op[name] for name in ("expect", "escrow") if name in op}
                saved.transaction.op(branch["participant"], *_value(op["cmd"]), **options)
            if "input" in branch:
                saved.transaction.input(branch["participant"], branch["input"])

    def _send(self, step: dict[str, Any], saved: Saved) -> None:
        client = self._client(step, saved)
        wait_ms = step.get("wait_ms")
        self._checked(step, saved, lambda: self.driver.submit(client, saved.transaction, wait_ms))

    def _repeat(self, step: dict[str, Any]) -> None:
        self._send(step, self.saved[step["of"]])

    def _attach(self, step: dict[str, Any]) -> None:
        is_fresh = step["of"] == "$fresh"
        saved = Saved(["live"], assent.Transaction()) if is_fresh else self.saved[step["of"]]
        client = self.driver.client(
            [self.stack.addresses[name] for name in step.get("via", saved.via)]
        )
        wait = {"wait_ms": step["wait_ms"]} if "wait_ms" in step else {}
        self._checked(step, saved, lambda: self.driver.call(client.attach, saved.id, **wait))

    def _begin(self, step: dict[str, Any]) -> None:
        saved = self._new(step)
        client = self._client(step, saved)

        def begin() -> str:
            saved.interactive = self.driver.call(client.begin)
            return "active"

        self._checked(step, saved, begin)

    def _on_interactive(self, step: dict[str, Any], name: str, *args: Any) -> None:
        saved = self.saved[step["of"]]
        call = getattr(saved.interactive, name)
        self._checked(step, saved, lambda: self.driver.call(call, *args))

    def _ops(self, step: dict[str, Any]) -> None:
        self._on_interactive(step, "ops", _ops(step["ops"]))

    def _again(self, step: dict[str, Any]) -> None:
        self._on_interactive(step, "again")

    def _commit(self, step: dict[str, Any]) -> None:
        self._on_interactive(step, "commit")

    def _abort(self, step: dict[str, Any]) -> None:
        self._on_interactive(step, "abort")

    def _run_function(self, step: dict[str, Any]) -> None:
        saved = self._new(step)
        client = self._client(step, saved)
        aborts = step.get("aborts", False)
        run = Run(_ops(step["ops"]), lambda: self.run(step["meanwhile"]), aborts, saved)

        def act() -> Any:
            return self.driver.run_function(client, run, step["attempts_max"])

        self._checked({**step, "want": {**step["want"], "calls": ...}}, saved, act)
        assert run.calls == step["want"]["calls"]

    def _start(self, step: dict[str, Any]) -> None:
        errors: list[BaseException] = []
        saved = self._new(step)
        self._write(step["step"], saved)

        def background() -> None:
            try:
                self._send(step["step"], saved)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=background, daemon=True)
        self.started[step["as"]] = Started(thread, errors)
        thread.start()

    def _until(self, step: dict[str, Any]) -> None:
        client = self.driver.client([self.stack.addresses["live"]])
        ends = time.monotonic() + UNTIL_WITHIN_S
        states: dict[str, str] = {}
        while states.get(step["participant"]) != step["state"]:
            assert time.monotonic() < ends, f"its branches are {states}"
            try:
                view = self.driver.call(client.describe, self.saved[step["of"]].id)
            except assent.Unknown:
                continue
            states = {branch.participant: branch.state for branch in view.branches}

    def _release(self, step: dict[str, Any]) -> None:
        self.stack.hook.released(step["hold"]).set()

    def _join(self, step: dict[str, Any]) -> None:
        started = self.started[step["of"]]
        started.thread.join(UNTIL_WITHIN_S)
        assert not started.thread.is_alive(), "it has not ended"
        if started.errors:
            raise started.errors[0]

    def _lose(self, step: dict[str, Any]) -> None:
        self.stack.proxy.lose(step["what"])


def _ms(timeout: str | None) -> int | None:
    if timeout is None:
        return None
    assert timeout.endswith("ms")
    return int(timeout.removesuffix("ms"))


def _ops(ops: Sequence[dict[str, Any]]) -> list[assent.OpAt]:
    return [assent.op(op["participant"], *_value(op["cmd"]), expect=op.get("expect")) for op in ops]


def _value(value: Any) -> Any:
    """Return what stands in the file as Python has it."""
    match value:
        case {"$int": digits}:
            return int(digits)
        case {"$repeat": [text, times]}:
            return text * times
        case {"base64": text}:
            return base64.b64decode(text)
        case list():
            return [_value(element) for element in value]
        case dict():
            return {name: _value(element) for name, element in value.items()}
        case _:
            return value


def _of_error(error: assent.AssentError) -> dict[str, Any]:
    kinds = {assent.Aborted: "aborted", assent.Rejected: "rejected", assent.Unknown: "unknown"}
    [outcome] = [word for kind, word in kinds.items() if isinstance(error, kind)]
    veto = error.veto and {"code": error.veto.code, "reason": error.veto.reason}
    names = ("code", "retryable", "participant", "op", "reply", "id")
    found = {name: getattr(error, name) for name in names}
    holder = error.holder and error.holder.id
    pending = isinstance(error, assent.Unknown) and error.pending
    return {**found, "outcome": outcome, "veto": veto, "holder": holder, "pending": pending}


def _of_success(came: Any, saved: Saved) -> dict[str, Any]:
    match came:
        case assent.Committed(id=id_):
            return {"outcome": "committed", "id": id_, "replies": came.replies}
        case "active":
            return {"outcome": "active", "id": saved.id}
        # Of an abort.
        case None:
            return {"outcome": "aborted", "id": saved.id}
        case Run():
            return {"outcome": "committed", "id": saved.id, "replies": came.replies}
        case replies:
            return {"replies": replies}


def _compare(step: dict[str, Any], found: dict[str, Any], ids: dict[str, str]) -> None:
    for name, want in step["want"].items():
        context = f"{step['do']}: {name}, of {found}"
        match name:
            case "calls":
                continue
            case "same_id_as":
                assert found["id"] == ids[want], context
            case "holder":
                assert found["holder"] == ids[want], context
            case "veto":
                assert want.items() <= found["veto"].items(), context
            case _:
                assert found[name] == _value(want), context
                assert type(found[name]) is type(_value(want)), context
