"""What Redis commands take and reply, as Python and as JSON have it.

Arguments and replies of Redis are byte strings. In JSON they stand as readable as they can: UTF-8
as a string, other bytes as `{"base64": "…"}`, nil as `null`.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

Arg: TypeAlias = str | bytes | bytearray | memoryview | int | float
"""One argument of a command. Text is sent as UTF-8, a number as its digits."""

Reply: TypeAlias = Any
"""A reply: `int`, `str`, `bytes`, `None`, or a `list` of these."""


class Expect(TypedDict, total=False):
    """What the reply of an op must be. All that stand here must hold, else all is aborted."""

    eq: Arg | None
    ne: Arg | None
    gt: Arg
    ge: Arg
    lt: Arg
    le: Arg
    exists: bool


_EXPECTATIONS = frozenset(Expect.__annotations__)
_BASE64 = "base64"


def write_arg(value: Arg) -> str | dict[str, str]:
    """Return an argument as JSON has it."""
    # A bool is an int too, and Redis knows none: it is likely to be a mistake.
    if isinstance(value, bool) or value is None:
        raise TypeError(f"{value!r} is no argument for Redis: say what you mean, such as 0 or ''")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text has a lone surrogate, which is no UTF-8") from error
        return value
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is no number that Redis could keep")
        return repr(float(value))
    if isinstance(value, bytes | bytearray | memoryview):
        taken = bytes(value)
        try:
            return taken.decode()
        except UnicodeDecodeError:
            return {_BASE64: base64.b64encode(taken).decode("ascii")}
    raise TypeError(f"an argument is text, bytes or a number, and not {type(value).__name__}")


def write_op(
    cmd: Sequence[Arg], expect: Expect | None = None, escrow: bool = False
) -> dict[str, Any]:
    """Return an op as JSON has it."""
    if isinstance(cmd, str | bytes) or not cmd:
        raise TypeError('a command is its name and its arguments, such as "GET", "key"')
    op: dict[str, Any] = {"cmd": [write_arg(word) for word in cmd]}
    if expect is not None:
        op["expect"] = _write_expect(expect)
    if not isinstance(escrow, bool):
        raise TypeError("escrow is True or False")
    if escrow:
        op["escrow"] = True
    return op


def _write_expect(expect: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(expect, Mapping):
        raise TypeError('an expectation is a dict, such as {"ge": 0}')
    unknown = expect.keys() - _EXPECTATIONS
    if unknown or not expect:
        known = ", ".join(sorted(_EXPECTATIONS))
        raise TypeError(
            f"an expectation has {known}, and not {', '.join(sorted(unknown)) or 'none'}"
        )
    written: dict[str, Any] = {}
    for kind, value in expect.items():
        if kind == "exists":
            if not isinstance(value, bool):
                raise TypeError("exists is True or False")
            written[kind] = value
        elif value is None and kind in ("eq", "ne"):
            written[kind] = None
        else:
            written[kind] = write_arg(value)
    return written


def read_reply(value: Any, decode_replies: bool = True) -> Reply:
    """Return a reply as Python has it; without `decode_replies` each text as bytes."""
    if isinstance(value, str):
        return value if decode_replies else value.encode()
    if isinstance(value, list):
        return [read_reply(element, decode_replies) for element in value]
    if isinstance(value, dict) and value.keys() == {_BASE64}:
        return base64.b64decode(value[_BASE64])
    return value
