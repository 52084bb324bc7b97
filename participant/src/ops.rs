//! The ops of a branch as this participant takes them: none of them touches what is Assent's own.

use assent_common::ErrorCode;
use assent_common::command::{OpRequest, ValidatedBranch};
use assent_common::outcome::Refusal;

use crate::store::Store;

/// Checks the ops of a branch.
pub(crate) fn check_ops(store: &Store, ops: Vec<OpRequest>) -> Result<ValidatedBranch, Refusal> {
    let branch = ValidatedBranch::new(ops)?;
    let control_key = &store.options().control_key;
    // Locks, staged writes and the incarnation are there: a transaction must not write them.
    if branch.locks.iter().any(|lock| is_own(&lock.key.0, control_key)) {
        let detail = format!("{control_key} and the keys below it are Assent's own");
        return Err(Refusal::new(ErrorCode::BadArguments, detail));
    }
    Ok(branch)
}

/// Whether a key is the control hash, or stands below it.
fn is_own(key: &[u8], control_key: &str) -> bool {
    key.strip_prefix(control_key.as_bytes())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
}
