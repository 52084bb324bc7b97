"""What Redis commands and statements take and reply, as Python and as JSON have it.

Arguments and replies of Redis are byte strings. In JSON they stand as readable as they can: UTF-8
as a string, other bytes as `{"base64": "…"}`, nil as `null`.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, TypeAlias, TypedDict
from uuid import UUID

Arg: TypeAlias = str | bytes | bytearray | memoryview | int | float
"""One argument of a command. Text is sent as UTF-8, a number as its digits."""

Reply: TypeAlias = Any
"""A reply: `int`, `str`, `bytes`, `None`, or a `list` of these.

That of a statement is the number of rows that it changed, or `{"rows": [{"column": value}]}`.
"""

Param: TypeAlias = (
    str
    | bytes
    | bytearray
    | memoryview
    | int
    | float
    | bool
    | Decimal
    | UUID
    | date
    | list[Any]
    | dict[str, Any]
    | None
)
"""A parameter of a statement, which PostgreSQL reads by the type that it finds for it.

Lists and dicts are sent as JSON text.
"""


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


def write_sql(
    sql: str, params: Sequence[Param] = (), expect: Expect | None = None
) -> dict[str, Any]:
    """Return an op that is a statement as JSON has it."""
    if not isinstance(sql, str) or not sql.strip():
        raise TypeError('a statement is a text, such as "SELECT balance FROM acct WHERE id = $1"')
    op: dict[str, Any] = {"sql": sql}
    if params:
        op["params"] = [_write_param(param) for param in params]
    if expect is not None:
        op["expect"] = _write_expect(expect)
    return op


def _write_param(value: Param) -> Any:
    if value is None or isinstance(value, bool | list | dict):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        # As PostgreSQL writes a bytea.
        return "\\x" + bytes(value).hex()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, str | int | float):
        return write_arg(value)
    raise TypeError(
        f"a parameter is text, bytes, a number, a date, None or JSON, not {type(value).__name__}"
    )


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
    if not isinstance(value, dict):
        return value
    if value.keys() == {_BASE64}:
        return base64.b64decode(value[_BASE64])
    rows = value.get("rows")
    if value.keys() == {"rows"} and isinstance(rows, list):
        return {"rows": [_read_row(row) for row in rows]}
    return value


def _read_row(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    return {column: _read_column(it) for column, it in row.items()}


def _read_column(value: Any) -> Any:
    """Return a value of a row as Python has it.

    A column of JSON may look like bytes, and need not be any: what cannot be read as such stays.
    """
    if isinstance(value, list):
        return [_read_column(element) for element in value]
    if isinstance(value, dict) and value.keys() == {_BASE64}:
        try:
            return base64.b64decode(value[_BASE64], validate=True)
        except (TypeError, ValueError):
            return value
    return value
