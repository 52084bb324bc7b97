"""What a client asks for, and of whom."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

from assent._outcome import Heard

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a coordinator."""

    method: Literal["GET", "POST"]
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_ms: int = 0
    """How long the coordinator may wait on purpose."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that is to be sent, once, to this coordinator."""

    coordinator: str
    request: Request


Steps: TypeAlias = Generator[Exchange, Heard, T]
"""Yields what is to be sent, is sent what was heard, and returns what came of it."""


def prefer(wait_ms: int | None) -> dict[str, str]:
    """Return the header that says how long to wait. It counts in seconds; a part is a whole one."""
    return {} if wait_ms is None else {"prefer": f"wait={-(-wait_ms // 1_000)}"}
