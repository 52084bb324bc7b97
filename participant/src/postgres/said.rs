//! What PostgreSQL says, as the words of the protocol: which error is a definite no, of which kind,
//! and which one leaves open what was done.

use assent_common::ErrorCode;
use assent_common::outcome::{Failed, Refusal};
use assent_common::text::cut;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

/// Bytes of an error of PostgreSQL that are passed on.
const SAID_BYTES_MAX: usize = 500;

/// Whether the error is the server's definite answer to the statement: it was not done, and the
/// session goes on.
pub(super) fn is_answer(error: &Error) -> Option<&DbError> {
    error.as_db_error().filter(|said| {
        // A FATAL ends the session, and may come behind what was done.
        said.parsed_severity().is_none_or(|severity| severity == Severity::Error)
    })
}

/// An error in one sentence: the words of the server, without the values that it shows beside.
pub(super) fn words(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => cut(said.message(), SAID_BYTES_MAX).into_owned(),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            cut(&text, SAID_BYTES_MAX).into_owned()
        }
    }
}

/// The no of a branch of which nothing was done: the transaction was open, and is no more.
pub(super) fn refusal(error: &Error) -> Refusal {
    let Some(said) = error.as_db_error() else {
        return Refusal::new(ErrorCode::PostgresUnavailable, words(error));
    };
    let code = code(said.code());
    let words = cut(said.message(), SAID_BYTES_MAX);
    Refusal::new(code, format!("PostgreSQL: {words} ({})", said.code().code()))
}

/// The same, of a call that may have been done all the same.
pub(super) fn failed(error: &Error) -> Failed {
    match is_answer(error) {
        Some(_) => Failed::Refused(refusal(error)),
        None => Failed::Unknown(words(error)),
    }
}

fn code(state: &SqlState) -> ErrorCode {
    match (&state.code()[..2], state.code()) {
        // Another order would do: a serialisation failure, a deadlock, a lock that is held.
        ("40", _) | (_, "55P03") => ErrorCode::LockConflict,
        // A statement, or (17 and later) a transaction, was longer than it may be.
        (_, "57014" | "25P04") => ErrorCode::TooMuchWork,
        // No memory or shared memory, no connection, no place for one more prepared transaction.
        (_, "53200" | "53300") => ErrorCode::Overloaded,
        ("23", _) => ErrorCode::ConstraintViolated,
        // It has become a standby, or an agent that hung has lost its session.
        (_, "25006" | "25P03") => ErrorCode::PostgresUnavailable,
        // Insufficient resources, an operator's intervention, a system error, an internal one.
        ("08" | "53" | "57" | "58" | "XX", _) => ErrorCode::PostgresUnavailable,
        _ => ErrorCode::SqlRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_postgresql_become_ours() {
        for (state, is) in [
            ("40001", ErrorCode::LockConflict),
            ("40P01", ErrorCode::LockConflict),
            ("55P03", ErrorCode::LockConflict),
            ("25006", ErrorCode::PostgresUnavailable),
            ("25P04", ErrorCode::TooMuchWork),
            ("25P02", ErrorCode::SqlRefused),
            ("53300", ErrorCode::Overloaded),
            ("57014", ErrorCode::TooMuchWork),
            ("53200", ErrorCode::Overloaded),
            ("53100", ErrorCode::PostgresUnavailable),
            ("57P01", ErrorCode::PostgresUnavailable),
            ("23505", ErrorCode::ConstraintViolated),
            ("22P02", ErrorCode::SqlRefused),
            ("42601", ErrorCode::SqlRefused),
            ("0A000", ErrorCode::SqlRefused),
        ] {
            assert_eq!(code(&SqlState::from_code(state)), is, "{state}");
        }
    }
}
