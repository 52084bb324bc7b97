//! What is said of an interactive transaction that cannot go on.

use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, TransactionId, limits};

pub(super) fn problem_of(id: TransactionId, code: ErrorCode, detail: impl Into<String>) -> Problem {
    Problem { id: Some(id), ..Problem::new(code, detail) }
}

pub(super) fn internal(error: &serde_json::Error) -> Problem {
    Problem::new(ErrorCode::Internal, error.to_string())
}

pub(super) fn unknown(id: TransactionId) -> Problem {
    let detail = format!(
        "no interactive transaction {id} is active here: it was never begun, has ended, or was \
         begun before this start of the coordinator; what is not committed has left nothing behind"
    );
    problem_of(id, ErrorCode::NotFound, detail)
}

pub(super) fn check_room(id: TransactionId, bytes: usize, others: usize) -> Result<(), Problem> {
    if bytes > limits::INTERACTIVE_BYTES_MAX {
        let most = limits::INTERACTIVE_BYTES_MAX;
        let detail = format!("the transaction would hold more than {most} bytes");
        return Err(problem_of(id, ErrorCode::TooLarge, detail));
    }
    if others + bytes > limits::INTERACTIVE_BYTES_OF_ALL_MAX {
        let detail = "the interactive transactions hold all the memory that they may";
        return Err(problem_of(id, ErrorCode::Overloaded, detail));
    }
    Ok(())
}
