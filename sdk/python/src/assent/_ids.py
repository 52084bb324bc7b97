"""Ids of transactions: UUIDs of version 7, made before anything is sent."""

import secrets
import time
import uuid


def new_id() -> str:
    """Make a fresh id: 48 bits of milliseconds since 1970, and 74 random ones."""
    ms = time.time_ns() // 1_000_000 & (1 << 48) - 1
    value = ms << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def check_id(text: str) -> str:
    """Return an id as the coordinator writes it, or raise `ValueError`."""
    try:
        parsed = uuid.UUID(text)
    except (ValueError, AttributeError, TypeError):
        parsed = None
    if parsed is None or parsed.version != 7:
        raise ValueError(f"{text!r} is no id of a transaction: it must be a UUID of version 7")
    return str(parsed)
