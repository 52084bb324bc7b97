//! Tasks that nobody would miss in time: a lane that is dead sends its participant nothing for
//! good.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

/// Runs a task that the engine cannot be without. A panic in it ends the process, as one in a step
/// does: the next start goes on from the log. (Release builds end at any panic; this is for all
/// others.)
pub(crate) async fn vital(task: impl Future<Output = ()>) {
    // Nothing that it left half-done is looked at again.
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!("a task of the engine panicked; stopping");
        std::process::abort();
    }
}
