"""JSON as it is sent and heard."""

import json
from typing import Any

JSON_DEPTH_MAX = 32
"""Arrays and objects inside each other in an answer, as the Rust client has it."""


def write_json(value: Any) -> bytes:
    """Return JSON as bytes; `ValueError` or `TypeError` for what JSON does not have."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def read_json(body: bytes) -> Any:
    """Return what a body says, or raise `ValueError`. The error quotes nothing of it."""
    try:
        value = json.loads(body, parse_constant=_no_json)
    except (ValueError, RecursionError):
        # What Python says of it may quote the body.
        raise ValueError(f"it is no JSON that could be read ({len(body)} bytes)") from None
    if _is_deeper(value, JSON_DEPTH_MAX):
        raise ValueError(f"it has more than {JSON_DEPTH_MAX} arrays and objects inside each other")
    return value


def _no_json(constant: str) -> None:
    raise ValueError(constant)


def _is_deeper(value: Any, depth_max: int) -> bool:
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list):
        inner = value
    else:
        return False
    return depth_max == 0 or any(_is_deeper(element, depth_max - 1) for element in inner)
