"""What a client does, without its I/O: the sync and the async client both run this.

Each way is a generator. It yields an `Exchange`, is sent what was heard, and returns or raises what
came of it. Nothing here says a thing twice to find out what became of it.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from assent._ids import check_id, new_id
from assent._interactive import TIMEOUT_MAX_MS, Session
from assent._json import write_json
from assent._outcome import (
    Aborted,
    About,
    AssentError,
    Committed,
    Heard,
    Rejected,
    Said,
    Silence,
    Unknown,
    View,
    as_unknown,
)
from assent._steps import Exchange, Request, Steps, prefer
from assent._transaction import Ack, Transaction, check_ms

_TRANSACTIONS = "/v1/transactions"
_WAIT_MS_MAX = 60_000
"""The longest wait that a coordinator grants."""


class Core:
    """The addresses of a client, and all that it does with them."""

    def __init__(self, coordinators: str | Sequence[str], decode_replies: bool) -> None:
        """Take base URLs; the next one is tried only while nothing was sent."""
        given = [coordinators] if isinstance(coordinators, str) else coordinators
        if not isinstance(given, Sequence):
            raise TypeError("the coordinators are a URL, or a list of them")
        if not isinstance(decode_replies, bool):
            raise TypeError("decode_replies is True or False")
        self.coordinators = tuple(check_coordinator(url) for url in given)
        if not self.coordinators:
            raise ValueError("there is no coordinator")
        self._decode_replies = decode_replies

    @property
    def is_tls(self) -> bool:
        """Whether any of them is spoken to by TLS."""
        return any(url.startswith("https:") for url in self.coordinators)

    def submit(self, transaction: Transaction, wait_ms: int | None) -> Steps[Committed]:
        """Send a transaction, for the first time or again."""
        if wait_ms is not None:
            check_ms(wait_ms)
        headers = prefer(wait_ms)
        if transaction.key is not None:
            headers["idempotency-key"] = transaction.key
        waits_ms = transaction.timeout_ms if wait_ms is None else wait_ms
        request = Request("POST", _TRANSACTIONS, transaction.seal(), headers, waits_ms)
        candidates = self._candidates(transaction.coordinator, transaction.is_kept)
        # Whoever ends the wait by force does not know what became of it.
        may_be_taken, transaction.is_unclear = transaction.may_be_taken, True
        transaction.copies = copies = transaction.copies + 1
        heard, coordinator = yield from self._send(request, candidates, transaction)
        about = self._about(transaction.id, coordinator, transaction.key)
        try:
            committed = about.committed(heard)
        except Rejected as rejected:
            # An earlier copy of it may have been taken, or one that was sent meanwhile.
            if may_be_taken or transaction.copies != copies:
                raise as_unknown(rejected) from rejected
            transaction.is_unclear = False
            raise
        except Aborted:
            transaction.is_unclear = False
            raise
        transaction.is_unclear = False
        transaction.take(committed)
        return committed

    def _send(
        self, request: Request, candidates: Sequence[str], transaction: Transaction | None = None
    ) -> Steps[tuple[Heard, str]]:
        """Send it to the first that can be reached."""
        for coordinator in candidates:
            was_at = None if transaction is None else transaction.coordinator
            if transaction is not None:
                transaction.coordinator = coordinator
            heard = yield Exchange(coordinator, request)
            if not isinstance(heard, Silence) or heard.is_sent:
                break
            if transaction is not None:
                transaction.coordinator = was_at
        return heard, coordinator

    def _candidates(self, coordinator: str | None, is_kept: bool) -> Sequence[str]:
        """Return who may be told of it: once one may have heard of it, only that one."""
        if coordinator is not None:
            coordinator = check_coordinator(coordinator)
            if coordinator not in self.coordinators:
                raise ValueError(f"it belongs to {coordinator}, which this client does not have")
            return [coordinator]
        if is_kept and len(self.coordinators) > 1:
            raise ValueError("a kept id or key needs its coordinator: the others do not know it")
        return self.coordinators

    def attach(self, id_: str, wait_ms: int, coordinator: str | None) -> Steps[Committed]:
        """Ask what became of a transaction."""
        view = yield from self.describe(id_, wait_ms, coordinator)
        return self._about(view.id, view.coordinator).outcome_of(view)

    def describe(self, id_: str, wait_ms: int, coordinator: str | None) -> Steps[View]:
        """Ask for the story of a transaction."""
        id_ = check_id(id_)
        waits_ms = min(check_ms(wait_ms), _WAIT_MS_MAX)
        request = Request("GET", f"{_TRANSACTIONS}/{id_}?wait={waits_ms}ms", wait_ms=waits_ms)
        asked = self.coordinators if coordinator is None else [check_coordinator(coordinator)]
        unknown: Unknown | None = None
        for url in asked:
            heard = yield Exchange(url, request)
            about = self._about(id_, url)
            view = about.view(heard)
            if view is not None:
                return view
            # Who could not be asked may know it.
            if unknown is None or unknown.code == "not_found":
                unknown = as_unknown(about.error(heard))
        assert unknown is not None  # noqa: S101 - there is a coordinator at least
        raise unknown

    def begin(
        self,
        id_: str | None,
        coordinator: str | None,
        name: str | None,
        timeout_ms: int | None,
        ack: Ack | None,
    ) -> Steps[Session]:
        """Begin an interactive transaction."""
        own = new_id() if id_ is None else check_id(id_)
        timeout = None if timeout_ms is None else f"{check_ms(timeout_ms)}ms"
        fields = {"id": own, "name": name, "timeout": timeout, "ack": ack}
        body = write_json({name: value for name, value in fields.items() if value is not None})
        candidates = self._candidates(coordinator, id_ is not None)
        heard, by = yield from self._send(Request("POST", _TRANSACTIONS, body), candidates)
        about = self._about(own, by)
        return Session(about, _begun(heard, about), timeout_ms or TIMEOUT_MAX_MS)

    def interactive(self, id_: str, seq: int, coordinator: str | None) -> Session:
        """Go on with one that was begun elsewhere."""
        if isinstance(seq, bool) or not isinstance(seq, int) or seq < 0:
            raise TypeError(f"{seq!r} is not the number of a call")
        [by] = self._candidates(coordinator, is_kept=True)
        return Session(self._about(check_id(id_), by), seq)

    def _about(self, id_: str | None, coordinator: str, key: str | None = None) -> About:
        return About(id_, coordinator, key, self._decode_replies)


def _begun(heard: Heard, about: About) -> int:
    """Return the number of the last call of what was begun."""
    body = heard.body if isinstance(heard, Said) else None
    if isinstance(body, dict) and (body.get("id"), body.get("outcome")) == (about.id, "active"):
        seq = body.get("seq")
        if isinstance(seq, int):
            return seq
    raise about.error(heard)


def may_run_again(error: AssentError, id_: str | None) -> bool:
    """Return whether a new attempt may help where this one ended so."""
    return isinstance(error, Aborted) and error.id == id_ and error.retryable


def check_coordinator(url: str) -> str:
    """Return a base URL without a slash at its end, or raise `ValueError`."""
    wrong = ValueError("a coordinator is a URL, such as http://127.0.0.1:7700, with a path at most")
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        raise wrong from None
    # A name and a password in it would be shown where the URL is.
    if not is_whole or "@" in parts.netloc or parts.query or parts.fragment:
        raise wrong
    return url.rstrip("/")
