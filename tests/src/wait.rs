//! Waiting on conditions, never on time: a bound, and a report of the last state when it is reached.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// The bound that fits almost everything: far above what any condition takes on a loaded machine, so that reaching it
/// means that the condition never comes.
pub const BOUND: Duration = Duration::from_secs(30);

/// The same for a mutant (`ASSENT_MUTANT`): most of them leave something undone for ever, and the test only has to tell
/// that from what a healthy process does in a fraction of it.
const BOUND_OF_MUTANTS: Duration = Duration::from_secs(6);

/// Between two looks at a condition; it only decides how soon a test notices.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until `look` returns `Ok`, and returns that; panics with the last `Err` at the bound.
pub async fn wait_for<T, E, F, Fut>(what: &str, look: F) -> T
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let is_mutant = std::env::var_os("ASSENT_MUTANT").is_some();
    wait_for_up_to(if is_mutant { BOUND_OF_MUTANTS } else { BOUND }, what, look).await
}

/// The same with another bound.
pub async fn wait_for_up_to<T, E, F, Fut>(bound: Duration, what: &str, mut look: F) -> T
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let began = Instant::now();
    let mut last = "never looked".to_owned();
    loop {
        let left = bound.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(state)) => last = state.to_string(),
            Err(_) => panic!(
                "waited {bound:?} for {what}; the last look did not return; before it: {last}"
            ),
        }
        assert!(began.elapsed() < bound, "waited {bound:?} for {what}; last state: {last}");
        tokio::time::sleep(LOOK).await;
    }
}
