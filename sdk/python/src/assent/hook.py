"""The hook of a participant: a function of the service that votes on branches with an input.

```python
from assent.hook import HookServer, VetoError

def decide(call, stage):
    match call.input:
        case {"amount": amount} if type(amount) is int:
            owes = int(stage.read("GET", "owes") or 0) + amount
        case _:
            raise VetoError("bad_input", "an amount is needed")
    if owes > 100:
        raise VetoError("limit_exceeded", f"{owes} is above 100")
    stage.op("INCRBY", "owes", amount)
    return {"owes": owes}

HookServer(("127.0.0.1", 8080), decide).serve_forever()
```

The agent remembers nothing of a hook. It asks, hears what the hook wants to read, and asks again
with the replies of all reads so far. So the function is called anew each time, and a read that has
no reply yet ends that call. It must ask for the same reads in the same order each time.

`answer` is a pure function, for servers of any kind. `HookServer` is a server of the standard
library; `assent.fastapi` and `assent.starlette` have routes.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from assent._json import read_json, write_json
from assent._values import Arg, Expect, Reply, read_reply, write_op

QUESTION_BYTES_MAX = 16 * 1024 * 1024
"""Bytes that a question may have: the input, and the replies of all reads."""


@dataclass(frozen=True, slots=True)
class HookCall:
    """What a hook is asked about."""

    txid: str
    """The branch. The same one again must get the same answer."""
    id: str
    """The transaction, as its client knows it."""
    participant: str
    input: Any
    """What the client sent: any JSON."""


class VetoError(Exception):
    """Raised by a hook, it is a vote of no: nothing of the transaction is done, anywhere."""

    def __init__(self, code: str, reason: str) -> None:
        """Take a code of 1 to 64 letters, digits, `_`, `-`, `.`, and a reason for people."""
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _NotReadYet(BaseException):
    """Ends a call whose read has no reply yet; no `except Exception` of the hook's takes it."""


class HookStage:
    """What a hook may do: read, and add ops to the branch."""

    def __init__(self, replies: Sequence[Reply]) -> None:
        """Take the replies of the reads that were asked for before."""
        self._replies = replies
        self._reads = 0
        self._ops: list[dict[str, Any]] = []
        self.wanted: list[dict[str, Any]] = []

    def read(self, *cmd: Arg) -> Reply:
        """Read, such as `"GET", "limit"`, with the client's ops in view, and return the reply.

        What was read is still so when the branch commits.
        """
        return self.reads(cmd)[0]

    def reads(self, *cmds: Sequence[Arg]) -> list[Reply]:
        """Read several at once, such as `("GET", "a"), ("GET", "b")`: one question less each."""
        if self.wanted:
            # The end of the call was caught on the way. What is read now comes with that read.
            raise _NotReadYet
        ops = [write_op(cmd) for cmd in cmds]
        first, self._reads = self._reads, self._reads + len(ops)
        if self._reads > len(self._replies):
            self.wanted = ops
            raise _NotReadYet
        return list(self._replies[first : self._reads])

    def op(self, *cmd: Arg, expect: Expect | None = None, escrow: bool = False) -> None:
        """Add a command to the branch, behind the client's ops."""
        self._ops.append(write_op(cmd, expect, escrow))

    def answer(self, reply: Any) -> dict[str, Any]:
        """Return a yes: the ops, and what the client is told; or the read that is wanted first.

        A `try` in the hook may have caught what ends a call: then it decided without that read.
        """
        if self.wanted:
            return {"read": self.wanted}
        return {"ops": self._ops, **({} if reply is None else {"reply": reply})}

    def answer_to(self, error: BaseException) -> dict[str, Any]:
        """Return the read that is wanted first, or a veto; raise what is neither."""
        if self.wanted and isinstance(error, Exception | _NotReadYet):
            return {"read": self.wanted}
        if isinstance(error, VetoError):
            return {"veto": {"code": error.code, "reason": error.reason}}
        raise error


Hook: TypeAlias = Callable[[HookCall, HookStage], Any]
"""Votes on a branch, and returns any JSON for the client, or None; a no is a `VetoError`."""

AsyncHook: TypeAlias = Callable[[HookCall, HookStage], Awaitable[Any]]
"""The same, awaited. Its reads are not awaited: what they wait for is the next question."""


def _opened(question: Mapping[str, Any], decode_replies: bool) -> tuple[HookCall, HookStage]:
    call = HookCall(question["txid"], question["id"], question["participant"], question["input"])
    reads = question.get("reads", [])
    return call, HookStage([read_reply(reply, decode_replies) for reply in reads])


def answer(
    question: Mapping[str, Any], hook: Hook, *, decode_replies: bool = True
) -> dict[str, Any]:
    """Ask a hook once: the question of the agent in, the answer to it out, both as JSON has them.

    Raises what the hook raises, but for a `VetoError`. Answer 500 then: the agent asks again, a few
    times. 503 says that the hook will know later.
    """
    call, stage = _opened(question, decode_replies)
    try:
        reply = hook(call, stage)
    except BaseException as error:
        return stage.answer_to(error)
    return stage.answer(reply)


async def answer_async(
    question: Mapping[str, Any], hook: AsyncHook, *, decode_replies: bool = True
) -> dict[str, Any]:
    """Ask a hook that is awaited; else as `answer`."""
    call, stage = _opened(question, decode_replies)
    try:
        reply = await hook(call, stage)
    except BaseException as error:
        return stage.answer_to(error)
    return stage.answer(reply)


def read_question(body: bytes) -> Mapping[str, Any]:
    """Return the question of an agent, or raise `ValueError`."""
    question = read_json(body)
    fields = ("txid", "id", "participant", "input")
    if not isinstance(question, dict) or any(field not in question for field in fields):
        raise ValueError("this is no question to a hook")
    return question


def is_allowed(token: str | None, authorization: str | None) -> bool:
    """Return whether a header carries the token that the agent sends, if one is demanded."""
    if token is None:
        return True
    scheme, _, sent = (authorization or "").partition(" ")
    is_token = hmac.compare_digest(sent.strip().encode(), token.strip().encode())
    return scheme.lower() == "bearer" and is_token and bool(token.strip())


class HookServer(ThreadingHTTPServer):
    """Serves a hook by the standard library: for a service that has no server, and for tests.

    An error of the hook is answered 500: the agent asks again, a few times.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], hook: Hook, *, token: str | None = None) -> None:
        """Listen on an address. `token` is that of the agent's `hook_token_file`."""
        self.hook = hook
        self.token = token
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """Where the agent finds it."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"


class _Handler(BaseHTTPRequestHandler):
    server: HookServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self) -> None:
        if not is_allowed(self.server.token, self.headers.get("authorization")):
            return self._say(401, b"the token is missing or wrong")
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > QUESTION_BYTES_MAX:
            return self._say(413, b"the body has no length, or too much of it")
        try:
            question = read_question(self.rfile.read(int(length)))
        except ValueError as error:
            return self._say(400, str(error).encode())
        try:
            body = write_json(answer(question, self.server.hook))
        except Exception:
            self._say(500, b"the hook has failed")
            # The server prints it.
            raise
        return self._say(200, body, "application/json")

    def _say(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.close_connection = status != 200
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - so it is called
        """Say nothing of each request."""
