"""Promise: bad input is refused before anything is sent, and values keep their kind."""

import json
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from assent import Transaction
from assent._ids import check_id, new_id
from assent._json import read_json, write_json
from assent._values import read_reply, write_arg, write_op, write_sql


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("ü", "ü"),
        (b"text", "text"),
        (bytearray(b"\xff\x00"), {"base64": "/wA="}),
        (memoryview(b"a"), "a"),
        (-(2**63), "-9223372036854775808"),
        (2**64, "18446744073709551616"),
        (1.5, "1.5"),
        (1e300, "1e+300"),
        ("", ""),
    ],
)
def test_an_argument_is_written_without_loss(value: Any, written: Any) -> None:
    assert write_arg(value) == written


@pytest.mark.parametrize("value", [True, None, [1], {"a": 1}, object()])
def test_what_redis_cannot_take_is_no_argument(value: Any) -> None:
    with pytest.raises(TypeError):
        write_arg(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_would_arrive_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"number|surrogate"):
        write_arg(value)


@pytest.mark.parametrize("cmd", ["GET k", (), b"GET"])
def test_a_command_is_its_words(cmd: Any) -> None:
    with pytest.raises(TypeError):
        write_op(cmd)


@pytest.mark.parametrize("expect", [{}, {"equal": 1}, {"exists": 1}, {"ge": None}, "ge 0", [], 0])
def test_an_expectation_that_checks_nothing_is_refused(expect: Any) -> None:
    with pytest.raises(TypeError):
        write_op(("GET", "k"), expect)


@pytest.mark.parametrize("escrow", ["no", 0, None])
def test_an_escrow_that_is_neither_yes_nor_no_is_refused(escrow: Any) -> None:
    with pytest.raises(TypeError, match="escrow"):
        write_op(("INCRBY", "k", 1), None, escrow)


def test_replies_are_text_or_bytes_as_was_asked_for() -> None:
    said = ["OK", {"base64": "/w=="}, 7, None, ["a"]]
    assert read_reply(said) == ["OK", b"\xff", 7, None, ["a"]]
    assert read_reply(said, decode_replies=False) == [b"OK", b"\xff", 7, None, [b"a"]]
    # A hook's JSON is its own.
    assert read_reply([{"hook": {"a": "b"}}], decode_replies=False) == [{"hook": {"a": "b"}}]


def test_the_rows_of_a_statement_have_values_of_python() -> None:
    odd = {"base64": "no bytes!"}
    row = {"name": "a", "photo": {"base64": "/w=="}, "parts": [{"base64": "AAE="}], "doc": odd}
    said = [{"rows": [row, {"hook": {"base64": "/w=="}}]}, 3]
    read = {"name": "a", "photo": b"\xff", "parts": [b"\0\1"], "doc": odd}
    assert read_reply(said) == [{"rows": [read, {"hook": b"\xff"}]}, 3]


@pytest.mark.parametrize(
    ("param", "written"),
    [
        ("ü", "ü"),
        (30, "30"),
        (2.5, "2.5"),
        (True, True),
        (None, None),
        (b"\x00\xff", "\\x00ff"),
        (Decimal("10.10"), "10.10"),
        (date(2026, 11, 30), "2026-11-30"),
        (datetime(2026, 11, 30, 4, 5, tzinfo=timezone.utc), "2026-11-30T04:05:00+00:00"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ({"a": [1]}, {"a": [1]}),
    ],
)
def test_a_parameter_is_written_as_postgresql_reads_it(param: Any, written: Any) -> None:
    assert write_sql("SELECT $1", [param]) == {"sql": "SELECT $1", "params": [written]}


@pytest.mark.parametrize("param", [object(), float("nan"), {1, 2}])
def test_what_postgresql_cannot_take_is_no_parameter(param: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"parameter|number"):
        write_sql("SELECT $1", [param])


def test_a_statement_stands_among_the_ops_of_its_participant() -> None:
    tx = Transaction()
    tx.sql("ledger", "UPDATE acct SET n = n - $1", 30, expect={"eq": 1})
    assert tx.sql("ledger", "TABLE acct").index == 1
    branch = json.loads(tx.seal())["branches"][0]
    first = {"sql": "UPDATE acct SET n = n - $1", "params": ["30"], "expect": {"eq": "1"}}
    assert branch == {"participant": "ledger", "ops": [first, {"sql": "TABLE acct"}]}
    with pytest.raises(TypeError, match="statement"):
        Transaction().sql("ledger", " ")


def test_an_id_is_a_uuid_of_version_7_and_of_now() -> None:
    ids = [new_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert all(check_id(one) == one and one[14] == "7" and one[19] in "89ab" for one in ids)
    assert [one[:13] for one in ids] == sorted(one[:13] for one in ids)
    for wrong in ("", "x", "01976f00-0000-4000-8000-000000000000", None):
        with pytest.raises(ValueError, match="version 7"):
            check_id(wrong)  # type: ignore[arg-type]


def test_json_of_a_stranger_is_bounded() -> None:
    assert read_json(b"[" * 32 + b"]" * 32)
    for wrong in (b"[" * 33 + b"]" * 33, b"[" * 100_000, b"NaN", b"", b"\xff", b"1" * 5_000):
        with pytest.raises(ValueError, match="it "):
            read_json(wrong)
    with pytest.raises(ValueError, match="JSON"):
        write_json(float("nan"))


def test_the_id_is_there_before_anything_is_sent_and_the_body_stays_the_same() -> None:
    tx = Transaction(name="transfer", timeout_ms=5_000)
    tx.op("bank-a", "DECRBY", "acct:alice", 30, expect={"ge": 0})
    tx.op("bank-b", "INCRBY", "acct:bob", 30, escrow=True)
    tx.input("bank-b", {"a": 1})
    assert read_json(tx.seal()) == {
        "id": tx.id,
        "name": "transfer",
        "timeout": "5000ms",
        "branches": [
            {
                "participant": "bank-a",
                "ops": [{"cmd": ["DECRBY", "acct:alice", "30"], "expect": {"ge": "0"}}],
            },
            {
                "participant": "bank-b",
                "ops": [{"cmd": ["INCRBY", "acct:bob", "30"], "escrow": True}],
                "input": {"a": 1},
            },
        ],
    }
    with pytest.raises(ValueError, match="sent already"):
        tx.op("bank-a", "GET", "acct:alice")


@pytest.mark.parametrize(
    "options",
    [
        {"id": "x"},
        {"id": new_id(), "key": "k"},
        {"key": ""},
        {"key": "k" * 256},
        {"key": "ü"},
        {"key": " k"},
        {"key": "a\nb"},
    ],
)
def test_what_identifies_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"id|key"):
        Transaction(**options)


def test_nothing_to_do_is_no_transaction() -> None:
    with pytest.raises(ValueError, match="no ops"):
        Transaction().seal()


def test_a_reply_that_is_not_there_yet_is_no_none() -> None:
    op = Transaction().op("bank", "GET", "k")
    with pytest.raises(RuntimeError, match="not committed"):
        _ = op.reply


def test_values_are_in_no_repr() -> None:
    tx = Transaction()
    tx.op("bank", "SET", "k", "secret")
    assert "secret" not in repr(tx)
    assert "bank" in repr(tx)
