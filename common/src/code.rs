//! The error codes: one table, from which the HTTP answers, the metrics' labels and
//! `docs/reference/errors.md` follow.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $status:literal, $retryable:literal, $advice:literal;)+) => {
        /// Why something was refused. The text form is the `code` of a problem document, stable
        /// across versions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
        #[schema(rename_all = "snake_case")]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code as it stands in answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// Whether the same work may succeed if it is done again: after an abort as a new
            /// transaction.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)+ }
            }

            /// Whether it says that what a participant keeps its branches in does not answer.
            #[must_use]
            pub const fn is_of_silent_store(self) -> bool {
                matches!(self, Self::RedisUnavailable | Self::PostgresUnavailable)
            }

            /// What it means, in one sentence.
            #[must_use]
            pub fn meaning(self) -> String {
                match self { $(Self::$variant => concat!($($doc),+).trim().to_owned(),)+ }
            }

            /// What to do about it, in one sentence.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)+ }
            }
        }
    };
}

error_codes! {
    /// The body is not valid for this endpoint: malformed JSON, an unknown field, or a field of the
    /// wrong type.
    BadRequest = "bad_request", 400, false, "Correct the field that the detail names.";
    /// The bearer token is missing or wrong.
    Unauthorized = "unauthorized", 401, false, "Send `Authorization: Bearer <token>` with a token of this server's token file.";
    /// The request came from a page of another site, or was addressed to a name that is not this
    /// server's.
    Forbidden = "forbidden", 403, false, "Address the server by its own name; other names are configured as `allowed_hosts`.";
    /// Nothing is known here under this id. That says nothing about an outcome.
    NotFound = "not_found", 404, false, "Check the id, the server's address and its retention.";
    /// The path exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", 405, false, "See /openapi.json for the methods of this path.";
    /// The request's body took longer to arrive than the server waits.
    RequestTimeout = "request_timeout", 408, true, "Send the body without pauses, or raise `body_timeout`.";
    /// This cannot be done in the present state of the transaction or branch.
    WrongState = "wrong_state", 409, false, "Read the transaction's state and choose an action that it allows.";
    /// The body is larger than the server accepts.
    BodyTooLarge = "body_too_large", 413, false, "Split the transaction, or store large values outside it.";
    /// The request's path and query are longer than the server accepts.
    UriTooLong = "uri_too_long", 414, false, "Shorten the path or the query.";
    /// The body is not plain `application/json`.
    UnsupportedMediaType = "unsupported_media_type", 415, false, "Send `Content-Type: application/json`, and no `Content-Encoding`.";
    /// This idempotency key or transaction id was already used by a different request.
    IdempotencyMismatch = "idempotency_mismatch", 422, false, "To retry, send the same request again: spaces, the order of fields and spelt-out defaults do not matter. For a new request, use a new key.";
    /// The transaction names a participant that is not registered.
    UnknownParticipant = "unknown_participant", 422, false, "Register it: `assent participants set NAME URL`.";
    /// The transaction names a participant twice.
    DuplicateParticipant = "duplicate_participant", 422, false, "Put all ops for one participant into one branch.";
    /// The command is not in the set that Assent runs in a transaction.
    UnsupportedCommand = "unsupported_command", 422, false, "See docs/reference/commands.md for the set.";
    /// The op's arguments are not valid for its command.
    BadArguments = "bad_arguments", 422, false, "Correct the op that `op` names.";
    /// More branches, ops, arguments or keys than the limits allow.
    TooManyOps = "too_many_ops", 422, false, "Split the transaction.";
    /// A key, a branch or a collection is larger than the limits allow.
    TooLarge = "too_large", 422, false, "Split the transaction, or store large values outside it.";
    /// The ops of a branch would keep the participant's Redis busy for too long; it answers nobody
    /// else meanwhile.
    TooMuchWork = "too_much_work", 422, false, "Split the transaction, or read less of large collections.";
    /// A branch reads or replies more bytes than the limits allow.
    ReplyTooLarge = "reply_too_large", 422, false, "Read less: fewer ops, parts of large values, or read outside of a transaction.";
    /// The key holds a value of a type that the command does not work on.
    WrongType = "wrong_type", 422, false, "Use a command for the type that the key holds.";
    /// Redis itself refuses the command, for its arguments or for the data.
    CommandRefused = "command_refused", 422, false, "Read what Redis says in the detail.";
    /// The value or the argument is not a 64-bit integer.
    NotAnInteger = "not_an_integer", 422, false, "Check the value stored at the key and the argument.";
    /// The value or the argument is not a float, or the result would not be a number.
    NotAFloat = "not_a_float", 422, false, "Check the value stored at the key and the argument.";
    /// The result would be outside the range of 64-bit integers, or later than Redis can store a
    /// time.
    Overflow = "overflow", 422, false, "Check the value stored at the key and the argument.";
    /// An op in escrow found a key or a hash field that expires; its reservations would disappear
    /// with it.
    KeyExpires = "key_expires", 422, false, "Use the op without `escrow`, or PERSIST the key (HPERSIST the field).";
    /// The index is outside the list, or the count or the offset is negative.
    OutOfRange = "out_of_range", 422, false, "Check the length first, with an expectation.";
    /// The command needs the key to exist.
    NoSuchKey = "no_such_key", 422, false, "Check with EXISTS and an expectation.";
    /// The stream id is not greater than the stream's last one.
    StreamIdTooSmall = "stream_id_too_small", 422, false, "Use `*`, or an id greater than the last.";
    /// An op's reply was not what its `expect` demands.
    ExpectationFailed = "expectation_failed", 409, false, "Read again and decide again; `reply` is what was found.";
    /// A key is not what it was when its digest was taken: somebody has changed it, or it has
    /// expired.
    ReadChanged = "read_changed", 409, true,
        "Read again and decide again: in a new interactive transaction, or with a new digest.";
    /// The hook of a participant vetoed: `reply` has its code and its reason.
    Vetoed = "vetoed", 409, false,
        "Read the hook's `code` and `reason`: they are words of the service, not of Assent.";
    /// The hook of a participant could not be reached, had too much to do, or did not answer in
    /// time. Nothing is locked, and nothing is done.
    HookUnavailable = "hook_unavailable", 503, true,
        "Check the service that the participant's `hook_url` names; try again.";
    /// The answer of a participant's hook breaks the rules of hooks, or the hook failed over this
    /// input each time that it was asked. Nothing is locked, and nothing is done.
    HookInvalid = "hook_invalid", 502, false,
        "Correct the hook: see docs/guides/hooks.md, section `When it does not answer`.";
    /// A branch has an `input`, and its participant has no hook that could take it.
    NoHook = "no_hook", 422, false,
        "Give the participant a hook (`hook_url`), or send the branch without `input`.";
    /// A key or a row was locked by another transaction until the deadline; or a database could not
    /// bring the transaction into an order with others.
    LockConflict = "lock_conflict", 409, true,
        "Try again; `holder` names the transaction that held the key, where that is known.";
    /// The deadline passed before the transaction was decided, while `participant` was still asked,
    /// or waited for a lock. If the last call had failed, it is `participant_unreachable`.
    Timeout = "timeout", 409, true,
        "Try again, with a longer `timeout` if it is short; else look at the participant.";
    /// The coordinator was restarted while the transaction was under way. Nothing of it is done.
    Interrupted = "interrupted", 503, true, "Try again, under a new key.";
    /// The interactive transaction has expired: no call came for a while, or it was too old.
    /// Nothing of it is done.
    Expired = "expired", 410, false,
        "Begin a new one; a call without ops keeps one alive for a while.";
    /// The client or an operator asked for the abort.
    Cancelled = "cancelled", 409, false, "Nothing: this was asked for.";
    /// The last call to `participant` failed, or had no clear answer, and the deadline passed; or
    /// it has not answered for some seconds, so that nothing was begun.
    ParticipantUnreachable = "participant_unreachable", 503, true, "Check the participant's process and address; try again.";
    /// The participant's Redis could not be reached, or gave no clear answer.
    RedisUnavailable = "redis_unavailable", 503, true, "Check the participant's Redis; try again.";
    /// The participant's PostgreSQL could not be reached, or gave no clear answer.
    PostgresUnavailable = "postgres_unavailable", 503, true,
        "Check the participant's PostgreSQL; try again.";
    /// PostgreSQL refuses a statement: its syntax, its arguments, the data, or a right that is
    /// missing.
    SqlRefused = "sql_refused", 422, false,
        "Read what PostgreSQL says in the detail, and correct the op that `op` names.";
    /// A statement breaks a constraint of the database.
    ConstraintViolated = "constraint_violated", 409, false,
        "Read again and decide again; the detail names the constraint.";
    /// Between agents of one Redis only: this agent does not own the Redis, so that nothing was
    /// done.
    NotOwner = "not_owner", 503, true, "Nothing: the agent that passed it on looks who owns it.";
    /// The participant's Redis may lose votes, and an implicit transaction relies on its votes
    /// alone.
    NotDurable = "not_durable", 422, false, "Correct the settings of that Redis, or run the transaction with `\"protocol\": \"logged\"`.";
    /// The participant's Redis refuses writes because it is above `maxmemory`.
    RedisOutOfMemory = "redis_out_of_memory", 503, true, "Raise `maxmemory`, or free memory in that Redis.";
    /// The participant's Redis refuses writes: MISCONF, NOREPLICAS, READONLY, LOADING or BUSY.
    RedisRefuses = "redis_refuses", 503, true, "Read the detail: it carries the words of Redis.";
    /// The agent's Redis user may not run a command of the branch, or not use one of its keys.
    RedisNoPermission = "redis_no_permission", 503, false, "Give the agent's user the rights that docs/reference/servers.md lists, and the keys of the transaction.";
    /// The branch is fenced: its abort arrived before its prepare.
    Fenced = "fenced", 409, false, "Nothing: the transaction was aborted.";
    /// An operator ended the branch by hand as aborted, and its log has committed the transaction:
    /// heuristic damage.
    HeuristicAborted = "heuristic_aborted", 409, false, "See docs/guides/recover.md, section `A branch was ended by hand, and its log says otherwise`.";
    /// An operator ended the branch by hand as committed, and its log has aborted the transaction:
    /// heuristic damage.
    HeuristicCommitted = "heuristic_committed", 409, false, "See docs/guides/recover.md, section `A branch was ended by hand, and its log says otherwise`.";
    /// The prepare is below the coordinator's low-water mark, where everything has ended.
    BelowLowWater = "below_low_water", 409, false, "Nothing: a late duplicate was refused.";
    /// The prepare is from an earlier start of the coordinator than the participant has already
    /// seen.
    StaleEpoch = "stale_epoch", 409, false, "Check that no second coordinator runs on a copy of the log.";
    /// The coordinator's log is an old or a forked copy: a participant knows a start of the
    /// coordinator that is not in it.
    StaleLog = "stale_log", 409, false, "Stop that coordinator and start it on the newest copy of its log; see docs/guides/recover.md, section `Backup`.";
    /// The coordinator has not shown that its log has the life that the participant remembers of
    /// it.
    UnprovenLife = "unproven_life", 503, true, "Nothing: a coordinator says its lives and asks again; if it stays so, somebody speaks in its name.";
    /// The participant's Redis was flushed, restored or replaced. Nothing runs there until the
    /// missing writes are redone from the log.
    Quarantined = "quarantined", 503, true, "Try again in a moment; if that does not help, see docs/guides/recover.md, section `A Redis lost data`.";
    /// The participant voted yes on this txid and does not know it any more: its Redis lost data.
    BranchLost = "branch_lost", 409, false, "See docs/guides/recover.md, section `A Redis lost data`.";
    /// The request's headers are larger than the server accepts.
    HeadersTooLarge = "headers_too_large", 431, false, "Send fewer or shorter headers.";
    /// The server has too much to do.
    Overloaded = "overloaded", 429, true, "Wait as `Retry-After` says, then try again.";
    /// The server is starting or draining.
    NotReady = "not_ready", 503, true, "Wait as `Retry-After` says, then try again.";
    /// A fault in Assent itself. Nothing is known about an outcome.
    Internal = "internal", 500, false, "Ask for the outcome by the id or key; report the fault with the server's log of this time.";
}

// As text everywhere, the decision log included: the order of the table is free to change.
impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no error code of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no error code of this version")]
pub struct UnknownErrorCode(String);

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;
    fn from_str(text: &str) -> Result<Self, UnknownErrorCode> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| UnknownErrorCode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_serde_and_table_agree() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
            assert_eq!(code.as_str().parse::<ErrorCode>().unwrap(), *code);
            assert!((400..600).contains(&code.status()), "{code}");
            assert!(code.meaning().ends_with('.') && code.advice().ends_with('.'), "{code}");
        }
    }
}
