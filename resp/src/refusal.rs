//! Errors, in the words of Redis where it has words for them.

use assent_common::value::readable;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::{ErrorCode, TransactionId};

use crate::reply::Value;

/// An error in these words.
pub(crate) fn error(text: impl Into<String>) -> Value {
    Value::Error(text.into())
}

/// A command with too few words, or too many.
pub(crate) fn wrong_number(name: &[u8]) -> Value {
    let name = readable(&name.to_ascii_lowercase());
    error(format!("ERR wrong number of arguments for '{name}' command"))
}

/// A transaction that is not committed: aborted, or not begun; or nobody knows.
#[must_use]
pub(crate) fn of_problem(problem: &Problem) -> Value {
    let Problem { code, detail, id, participant, .. } = problem;
    if *code == ErrorCode::Internal {
        return unknown(*id, detail);
    }
    // The words of a veto are the service's.
    if let Some(said) = of_redis(detail).filter(|_| *code != ErrorCode::Vetoed) {
        return Value::Error(said.to_owned());
    }
    let words = words(*code);
    let separator = if words.contains(' ') { ";" } else { "" };
    let mut text = format!("{words}{separator} {detail}");
    if let Some(participant) = participant.as_ref().filter(|name| !detail.contains(name.as_str())) {
        text.push_str(&format!(" (participant {participant})"));
    }
    if let Some(named) = aborted(problem) {
        text.push_str(&named);
    }
    Value::Error(text)
}

/// The same of a transaction whose copies are tied by an id or a key: an abort names it also behind
/// the words of Redis, so that it is told from a refusal of one copy. Without such a tie these stay
/// as they are, because some clients compare all of them.
#[must_use]
pub(crate) fn of_tied(problem: &Problem) -> Value {
    match (of_problem(problem), aborted(problem)) {
        (Value::Error(text), Some(named)) if !text.ends_with(&named) => Value::Error(text + &named),
        (value, _) => value,
    }
}

/// Which transaction was aborted, behind the words of its error.
fn aborted(problem: &Problem) -> Option<String> {
    let id = problem.id.filter(|_| problem.outcome == Some(OutcomeWord::Aborted))?;
    Some(format!(" (transaction {id})"))
}

/// What Redis itself has said of a command, which stands behind the command and its key.
fn of_redis(detail: &str) -> Option<&str> {
    const BEGINNINGS: [&str; 5] = ["ERR ", "WRONGTYPE ", "BUSYGROUP ", "NOGROUP ", "BUSYKEY "];
    let mut said = detail.match_indices(": ").map(|(at, _)| &detail[at + 2..]);
    said.find(|text| BEGINNINGS.iter().any(|word| text.starts_with(word)))
}

/// A transaction of which nobody knows yet whether it is committed.
#[must_use]
pub(crate) fn unknown(id: Option<TransactionId>, why: &str) -> Value {
    let id = id.map_or_else(|| "without an id".to_owned(), |id| id.to_string());
    Value::Error(format!(
        "UNKNOWN whether the transaction is committed is not known: {why}; it goes on, ask for it \
         by its id: {id}"
    ))
}

/// No memory is left for a transaction.
#[must_use]
pub(crate) fn no_memory() -> Problem {
    let why = "the requests under way hold all the memory that they may; try again in a moment";
    Problem::new(ErrorCode::Overloaded, why)
}

/// Who has not said the token.
#[must_use]
pub(crate) fn unauthenticated() -> Value {
    Value::Error("NOAUTH Authentication required.".to_owned())
}

/// Whether the fault lies with one command of several, so that the others may run without it.
#[must_use]
pub(crate) fn is_of_one(problem: &Problem) -> bool {
    use ErrorCode as Code;
    let is_of_all = [
        Code::TooManyOps,
        Code::TooLarge,
        Code::TooMuchWork,
        Code::ReplyTooLarge,
        Code::LockConflict,
        Code::RedisNoPermission,
        // Of those that write: Redis takes those that read.
        Code::RedisOutOfMemory,
        Code::RedisRefuses,
    ];
    problem.code != Code::Internal && (problem.op.is_some() || is_of_all.contains(&problem.code))
}

/// What an error of this code begins with.
fn words(code: ErrorCode) -> String {
    let known = match code {
        ErrorCode::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
        ErrorCode::NotAnInteger => "ERR value is not an integer or out of range",
        ErrorCode::NotAFloat => "ERR value is not a valid float",
        ErrorCode::Overflow => "ERR increment or decrement would overflow",
        ErrorCode::OutOfRange => "ERR index out of range",
        ErrorCode::NoSuchKey => "ERR no such key",
        ErrorCode::StreamIdTooSmall => {
            "ERR The ID specified in XADD is equal or smaller than the target stream top item"
        }
        ErrorCode::RedisOutOfMemory => "OOM command not allowed when used memory > 'maxmemory'.",
        ErrorCode::RedisNoPermission => "NOPERM",
        ErrorCode::BadArguments | ErrorCode::BadRequest => "ERR",
        ErrorCode::UnsupportedCommand => "ERR unknown command",
        ErrorCode::Vetoed => "EXPECTATIONFAILED",
        _ => return code.as_str().replace('_', "").to_ascii_uppercase(),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(problem: &Problem) -> String {
        match of_problem(problem) {
            Value::Error(text) => text,
            value => panic!("{value:?}"),
        }
    }

    #[test]
    fn an_error_begins_with_the_word_that_clients_know_and_names_what_was_met() {
        let id = "0198f1c2-a4b2-7c1d-9c0e-000000000001".parse().unwrap();
        let problem = Problem {
            participant: Some("bank-a".to_owned()),
            id: Some(id),
            outcome: Some(OutcomeWord::Aborted),
            ..Problem::new(ErrorCode::ExpectationFailed, "DECRBY acct:alice: -20 is not ge 0")
        };
        assert_eq!(
            text(&problem),
            format!(
                "EXPECTATIONFAILED DECRBY acct:alice: -20 is not ge 0 (participant bank-a) \
                 (transaction {id})"
            )
        );
        let said = "XGROUP a:log: BUSYGROUP Consumer Group name already exists";
        let problem = Problem::new(ErrorCode::CommandRefused, said);
        assert_eq!(text(&problem), "BUSYGROUP Consumer Group name already exists");
        assert!(matches!(of_tied(&problem), Value::Error(of_copy) if !of_copy.contains("(trans")));
        let outcome = Some(OutcomeWord::Aborted);
        let problem = Problem { id: Some(id), outcome, ..problem };
        assert_eq!(text(&problem), "BUSYGROUP Consumer Group name already exists");
        for problem in [&problem, &Problem { code: ErrorCode::WrongType, ..problem.clone() }] {
            let Value::Error(tied) = of_tied(problem) else { panic!("{problem:?}") };
            assert!(tied.ends_with(&format!(" (transaction {id})")), "{tied}");
            assert_eq!(tied.matches("(transaction").count(), 1, "{tied}");
        }
        let problem = Problem::new(ErrorCode::WrongType, "GET k: the key holds another type");
        assert!(text(&problem).starts_with("WRONGTYPE Operation against a key holding"));
        for code in ErrorCode::ALL {
            let text = text(&Problem::new(*code, "why"));
            let word = text.split(' ').next().unwrap();
            assert!(word.bytes().all(|byte| byte.is_ascii_uppercase()), "{text}");
        }
    }

    /// Never a made-up success, and never a made-up failure.
    #[test]
    fn a_fault_of_assent_says_nothing_of_the_outcome() {
        let problem = Problem::new(ErrorCode::Internal, "the log has stopped");
        assert!(text(&problem).starts_with("UNKNOWN "), "{}", text(&problem));
        assert!(!is_of_one(&Problem { op: Some(1), ..problem }));
    }
}
