"""Where a client finds its coordinators and its token if it is not told."""

import os
from collections.abc import Sequence
from pathlib import Path

URL_DEFAULT = "http://127.0.0.1:7700"


def coordinators_of(given: str | Sequence[str] | None) -> str | Sequence[str]:
    """Return what was given, or what `ASSENT_URL` says: one or more URLs with spaces between."""
    return given if given is not None else os.environ.get("ASSENT_URL", URL_DEFAULT).split()


def token_of(token: str | None, token_file: str | os.PathLike[str] | None) -> str | None:
    """Return the token: as given, of that file, or of the one of `ASSENT_API_TOKEN_FILE`."""
    if token is not None and token_file is not None:
        raise ValueError("give a token or a token_file, not both")
    if token is not None:
        return token
    path = token_file or os.environ.get("ASSENT_API_TOKEN_FILE")
    return Path(path).read_text() if path else None


def check_attempts(attempts_max: int) -> None:
    """Raise, if a function cannot be called so often."""
    if isinstance(attempts_max, bool) or not isinstance(attempts_max, int) or attempts_max < 1:
        raise TypeError(f"attempts_max is 1 or more, and not {attempts_max!r}")


ATTEMPTS_DEFAULT_MAX = 5
"""How often `run` calls its function, if nothing is said."""

ATTACH_WAIT_DEFAULT_MS = 5_000
"""How long `attach` waits for the outcome, if nothing is said."""

REQUEST_TIMEOUT_DEFAULT_MS = 5_000
"""How long an answer may take beyond what the coordinator waits on purpose, if nothing is said."""

CONNECT_TIMEOUT_DEFAULT_MS = 1_000
"""How long a connection may take, if nothing is said."""

_PAUSE_FIRST_MS = 20
_PAUSE_MS_MAX = 1_000


def pause_s(attempt: int, random: float) -> float:
    """Return how long to wait after so many attempts: a random part of what doubles each time."""
    return min(_PAUSE_FIRST_MS * 2.0 ** min(attempt, 30), _PAUSE_MS_MAX) / 1_000 * random
