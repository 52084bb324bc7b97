"""Promise: a hook helper answers what docs/guides/hooks.md says, by each kind of server."""

import json
import threading
from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from assent._json import write_json
from assent.fastapi import hook_router
from assent.hook import (
    HookCall,
    HookServer,
    HookStage,
    VetoError,
    answer,
    answer_async,
    is_allowed,
)
from assent.starlette import hook_route


def question(reads: list[Any], **input_: Any) -> dict[str, Any]:
    return {"txid": "t", "id": "i", "participant": "p", "input": input_, "reads": reads}


def limit(call: HookCall, stage: HookStage) -> Any:
    try:
        a, b = stage.reads(("GET", "a"), ("GET", "b"))
        top = int(stage.read("GET", "limit") or 0)
    except Exception as error:
        raise AssertionError("no hook can take the end of its call for an error") from error
    total = int(a or 0) + int(b or 0) + call.input["amount"]
    if total > top:
        raise VetoError("limit_exceeded", f"{total} is above {top}")
    stage.op("INCRBY", "a", call.input["amount"], expect={"ge": 0})
    return {"total": total}


async def limit_async(call: HookCall, stage: HookStage) -> Any:
    return limit(call, stage)


def test_reads_come_question_by_question() -> None:
    assert answer(question([], amount=1), limit) == {
        "read": [{"cmd": ["GET", "a"]}, {"cmd": ["GET", "b"]}]
    }
    assert answer(question(["1", None], amount=1), limit) == {"read": [{"cmd": ["GET", "limit"]}]}
    assert answer(question(["1", None, "2"], amount=1), limit) == {
        "ops": [{"cmd": ["INCRBY", "a", "1"], "expect": {"ge": "0"}}],
        "reply": {"total": 2},
    }
    assert answer(question(["1", None, "2"], amount=2), limit) == {
        "veto": {"code": "limit_exceeded", "reason": "3 is above 2"}
    }
    assert answer(question([]), lambda _call, _stage: None) == {"ops": []}


@pytest.mark.parametrize("then", [None, VetoError("no", "no"), KeyError("no")])
@pytest.mark.parametrize("is_awaited", [True, False])
def test_a_hook_that_catches_everything_decides_nothing_without_its_read(
    then: Exception | None, is_awaited: bool
) -> None:
    def careless(_call: HookCall, stage: HookStage) -> Any:
        try:
            stage.read("GET", "a")
        except:  # noqa: E722 - that is the point
            with suppress(BaseException):
                stage.read("GET", "b")
            if then is not None:
                raise then from None
        return "yes"

    async def awaited(call: HookCall, stage: HookStage) -> Any:
        return careless(call, stage)

    def ask(reads: list[Any]) -> dict[str, Any]:
        if is_awaited:
            return anyio.run(answer_async, question(reads), awaited)
        return answer(question(reads), careless)

    assert ask([]) == {"read": [{"cmd": ["GET", "a"]}]}
    assert ask(["1"]) == {"ops": [], "reply": "yes"}


def test_a_hook_that_is_interrupted_says_nothing() -> None:
    def interrupted(_call: HookCall, stage: HookStage) -> Any:
        try:
            stage.read("GET", "a")
        finally:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(question([]), interrupted)


def test_an_error_of_the_hook_is_its_own() -> None:
    with pytest.raises(KeyError):
        answer(question(["1", "1", "1"]), limit)


@pytest.mark.parametrize(
    ("header", "is_let_in"),
    [
        ("Bearer secret", True),
        ("bearer  secret", True),
        ("Bearer Secret", False),
        ("Basic secret", False),
        ("secret", False),
        ("", False),
        (None, False),
    ],
)
def test_the_token_is_demanded(header: str | None, is_let_in: bool) -> None:
    assert is_allowed("secret\n", header) is is_let_in
    assert is_allowed(None, header)
    assert not is_allowed("", "Bearer ")


def starlette(**options: Any) -> Any:
    return Starlette(routes=[hook_route("/assent", limit_async, **options)])


def fastapi(**options: Any) -> Any:
    app = FastAPI()
    app.include_router(hook_router("/assent", limit, **options))
    return app


def asked(app: Any, headers: dict[str, str], *bodies: bytes) -> list[httpx.Response]:
    """Post each body to the app, and return the answers."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://hook") as http:
            return [await http.post("/assent", content=body, headers=headers) for body in bodies]

    return anyio.run(ask)


@pytest.mark.parametrize("app", [starlette, fastapi])
def test_a_route_answers(app: Any) -> None:
    guarded = app(token="secret")
    asks, fails = write_json(question([], amount=1)), write_json(question(["1", "1", "1"]))
    answers = asked(guarded, {"authorization": "Bearer secret"}, asks, b"x", b"{}", b"", fails)
    # Directly: the agent follows no redirect. What fails is unclear, and it asks again.
    assert [heard.status_code for heard in answers] == [200, 400, 400, 400, 500]
    assert answers[0].headers["content-type"] == "application/json"
    assert answers[0].json()["read"]
    assert [heard.status_code for heard in asked(guarded, {}, asks)] == [401]


def test_a_body_is_not_read_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assent.starlette.QUESTION_BYTES_MAX", 10)
    assert [heard.status_code for heard in asked(starlette(), {}, b" " * 11)] == [413]


def test_the_server_of_the_standard_library_answers(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with HookServer(("127.0.0.1", 0), limit, token="secret") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with httpx.Client(headers={"authorization": "Bearer secret"}, trust_env=False) as http:
            heard = http.post(server.url, json=question(["1", None, "2"], amount=1))
            assert heard.json()["reply"] == {"total": 2}
            assert http.post(server.url, content=b"{}").status_code == 400
            assert http.post(server.url, json=question(["1", "1", "1"])).status_code == 500
            monkeypatch.setattr("assent.hook.QUESTION_BYTES_MAX", 10)
            assert http.post(server.url, content=b" " * 11).status_code == 413
        assert httpx.post(server.url, content=json.dumps({}), trust_env=False).status_code == 401
        server.shutdown()
    assert "KeyError" in capfd.readouterr().err
