"""What an answer means: the three outcomes, and what was never begun."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from assent._ids import check_id
from assent._values import Reply, read_reply


@dataclass(frozen=True, slots=True)
class Veto:
    """What a hook said when it vetoed: words of the service, not of Assent."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock that was in the way: the id, the id at participants, and the key."""

    id: str
    txid: str
    key: str


@dataclass(frozen=True, slots=True)
class Branch:
    """The part of a transaction at one participant."""

    participant: str
    state: str
    """Such as `preparing`, `prepared`, `committing`, `applied` or `aborted`."""
    replies: list[Reply]
    """The replies of its ops, in their order, and then `{"hook": JSON}` if a hook replied."""


@dataclass(frozen=True, slots=True)
class View:
    """The story of a transaction, as its coordinator tells it."""

    id: str
    outcome: str
    """`committed`, `aborted` or `pending`."""
    state: str
    """Such as `active`, `preparing`, `retrying`, `deciding`, `committing`, `ended`."""
    branches: list[Branch]
    applied: bool
    """Whether it is committed and every branch has applied already."""
    body: Mapping[str, Any]
    """All that the coordinator said, as JSON has it."""
    coordinator: str
    """The coordinator that said it."""


@dataclass(frozen=True, slots=True)
class Committed:
    """Every branch applies."""

    id: str
    branches: list[Branch]
    applied: bool
    """Whether every branch has already; with `ack="decided"` some may do so in a moment."""
    coordinator: str
    """The coordinator that has decided it."""

    @property
    def replies(self) -> dict[str, list[Reply]]:
        """The replies by participant."""
        return {branch.participant: branch.replies for branch in self.branches}

    def hook_reply(self, participant: str) -> Any:
        """Return what the hook of this participant replied, any JSON; None if it said nothing."""
        replies = self.replies[participant]
        last = replies[-1] if replies else None
        return last["hook"] if isinstance(last, dict) else None


class AssentError(Exception):
    """What all errors of this package have in common."""

    _may_be_done = False

    def __init__(
        self,
        message: str,
        *,
        id: str | None = None,  # noqa: A002 - it is the word of the API
        key: str | None = None,
        coordinator: str | None = None,
        code: str | None = None,
        retryable: bool = False,
        problem: Mapping[str, Any] | None = None,
        decode_replies: bool = True,
    ) -> None:
        """Keep what is known: of the transaction, and of the problem that was answered."""
        super().__init__(message)
        problem = problem or {}
        self.id: str | None = id or problem.get("id")
        """The transaction's id, where it is known."""
        self.key = key
        """The idempotency key that was given for it."""
        self.coordinator = coordinator
        """The coordinator that it was sent to."""
        self.code: str | None = code or problem.get("code")
        """The error code; `not_sent` where there was no connection."""
        self.retryable: bool = problem.get("retryable", retryable) and not self._may_be_done
        """Whether the same work may succeed if it is done again: after `Aborted` as a new
        transaction, after `Rejected` the same one too. Never of `Unknown`."""
        self.detail: str = problem.get("detail", message)
        """What happened, without the code."""
        self.participant: str | None = problem.get("participant")
        """The participant of the branch to blame."""
        self.op: int | None = problem.get("op")
        """The op of that branch to blame, from 0."""
        self.reply: Reply = read_reply(problem.get("reply"), decode_replies)
        """The reply that a false expectation met."""
        self.holder: Holder | None = _holder(problem.get("holder"))
        """Who holds the lock, in a conflict."""
        self.veto: Veto | None = _veto(self.code, problem.get("reply"))
        """The code and the reason of a hook's veto."""


class Aborted(AssentError):
    """No branch applies, now or later. If `retryable`, a new attempt under a new id may help."""


class Rejected(AssentError):
    """This copy of the request has begun nothing.

    If the same was sent earlier, that one may have committed: `attach` its id.
    """


class Unknown(AssentError):
    """It may have committed, or may yet.

    Submit the same transaction again, or `attach` its id; never run it anew under another id. So it
    is never `retryable`.
    """

    _may_be_done = True

    pending = False
    """Whether the coordinator itself says that there is no outcome yet."""


class Pending(Unknown):
    """The coordinator has it, and there is no outcome yet."""

    pending = True


def _holder(body: Any) -> Holder | None:
    if not isinstance(body, dict):
        return None
    return Holder(id=body.get("id", ""), txid=body.get("txid", ""), key=body.get("key", ""))


def _veto(code: str | None, body: Any) -> Veto | None:
    if code != "vetoed" or not isinstance(body, dict):
        return None
    return Veto(code=body.get("code", ""), reason=body.get("reason", ""))


@dataclass(frozen=True, slots=True)
class Said:
    """A success of Assent's own media type; its body is JSON, whose form is not yet checked."""

    body: Any


@dataclass(frozen=True, slots=True)
class Problem:
    """An error document of ours."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Silence:
    """Everything else. Only where `is_sent` is false did certainly nobody get this copy."""

    why: str
    is_sent: bool = True
    cause: Exception | None = None


Heard = Said | Problem | Silence


E = TypeVar("E", bound=AssentError)


@dataclass(frozen=True, slots=True)
class About:
    """Which transaction an answer is about, and how its texts are read."""

    id: str | None
    coordinator: str
    key: str | None = None
    decode_replies: bool = True

    def error(self, heard: Heard) -> AssentError:
        """Return what an answer says that is no success."""
        if isinstance(heard, Silence):
            return self._silence(heard)
        if isinstance(heard, Said):
            return self.unknown("the answer's body is not what was asked for")
        problem = heard.body
        is_named = self.id is None or problem.get("id") == self.id
        if "id" in problem and not is_named:
            return self.unknown("the answer is about another transaction")
        kind: type[AssentError] = Unknown
        # An outcome names its transaction.
        if problem.get("outcome") == "aborted" and is_named:
            kind = Aborted
        # A fault inside says nothing of what was begun before it.
        elif "outcome" not in problem and problem["code"] != "internal":
            kind = Rejected
        return self._of(kind, f"{problem['code']}: {problem['detail']}", problem)

    def _silence(self, heard: Silence) -> AssentError:
        error: AssentError
        if heard.is_sent:
            error = self.unknown(heard.why)
        else:
            error = Rejected(
                f"not sent: {heard.why}",
                id=self.id,
                key=self.key,
                coordinator=self.coordinator,
                code="not_sent",
                retryable=True,
            )
        error.__cause__ = heard.cause
        return error

    def unknown(self, why: str) -> Unknown:
        """Return that nothing is known of the outcome."""
        return self._of(Unknown, why, {})

    def cancelled(self, why: str) -> Aborted:
        """Return that it was given up."""
        return self._of(Aborted, f"cancelled: {why}", {"code": "cancelled", "detail": why})

    def _of(self, kind: type[E], message: str, problem: Mapping[str, Any]) -> E:
        return kind(
            message,
            id=self.id,
            key=self.key,
            coordinator=self.coordinator,
            problem=problem,
            decode_replies=self.decode_replies,
        )

    def view(self, heard: Heard) -> View | None:
        """Return the story that was told, if it is one, and of this transaction."""
        body = heard.body if isinstance(heard, Said) else None
        try:
            view = self._read_view(body)
        # Whatever does not have the form of a story is none.
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return view if self.id is None or view.id == self.id else None

    def _read_view(self, body: Any) -> View:
        if body["outcome"] not in ("committed", "aborted", "pending"):
            raise ValueError("it says no outcome")
        return View(
            id=check_id(body["id"]),
            outcome=body["outcome"],
            state=body["state"],
            branches=[self._branch(branch) for branch in body["branches"]],
            applied=body.get("applied") is True,
            body=body,
            coordinator=self.coordinator,
        )

    def _branch(self, body: Mapping[str, Any]) -> Branch:
        return Branch(
            participant=body["participant"],
            state=body["state"],
            replies=[read_reply(reply, self.decode_replies) for reply in body.get("replies", [])],
        )

    def committed(self, heard: Heard) -> Committed:
        """Return what was committed; raise what else became of it."""
        view = self.view(heard)
        if view is None:
            raise self.error(heard)
        return self.outcome_of(view)

    def outcome_of(self, view: View) -> Committed:
        """Return or raise the outcome that a story has."""
        if view.outcome == "committed":
            return Committed(view.id, view.branches, view.applied, view.coordinator)
        about = replace(self, id=view.id, coordinator=view.coordinator)
        if view.outcome == "aborted":
            unsaid = {"code": "cancelled", "detail": "the answer does not say why"}
            said = view.body.get("error")
            problem = said if isinstance(said, Mapping) and unsaid.keys() <= said.keys() else unsaid
            raise about._of(Aborted, f"{problem['code']}: {problem['detail']}", problem)
        raise about._of(Pending, f"{view.id} is {view.state}: there is no outcome yet", {})


def as_rejected(error: Unknown) -> Rejected:
    """Return the same error of a transaction of which certainly nothing is done."""
    rejected = Rejected(
        f"nothing was done: {error}",
        id=error.id,
        coordinator=error.coordinator,
        code=error.code,
        retryable=True,
    )
    rejected.__cause__ = error
    return rejected


def as_unknown(error: AssentError) -> Unknown:
    """Return an error as one that knows nothing of the outcome.

    That is what it is if an earlier copy of the request may have been taken, or if it only was a
    question.
    """
    unknown = Unknown(
        str(error),
        id=error.id,
        key=error.key,
        coordinator=error.coordinator,
        code=error.code,
    )
    unknown.__cause__ = error.__cause__
    return unknown
