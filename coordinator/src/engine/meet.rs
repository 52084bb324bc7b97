//! A request waits until its participants have heard which life of the log speaks: a log that turns
//! out to be an old copy would call something aborted that the log has committed, or run a key
//! again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use assent_common::wire::problem::Problem;
use assent_common::wire::submission::Submission;
use assent_common::{ErrorCode, IdempotencyKey};
use assent_engine::Lane;
use tokio::sync::watch;
use tokio::time::Instant;

use super::shared::{Engine, Turn};

/// How long a request waits for a participant that has not answered in this life of the
/// coordinator. One that is there answers in milliseconds.
const MEET_WAIT: Duration = Duration::from_secs(2);

/// A participant that has not heard yet which life speaks.
struct Unmet {
    place: usize,
    /// How often it was said in vain.
    in_vain: u64,
    progress: watch::Receiver<u64>,
    problem: Problem,
}

/// Waits, not for long, until all participants of a new request have heard which life speaks.
/// Says which has not; nothing is begun or recorded then, so that the same request may come
/// again under the same key.
pub(super) async fn meet(
    engine: &Engine,
    submission: &Submission,
    key: Option<&IdempotencyKey>,
) -> Result<(), Problem> {
    if !engine.shared.unmet.load(Ordering::Acquire) {
        return Ok(());
    }
    let give_up_at = Instant::now() + MEET_WAIT;
    let mut waits_for: Option<(usize, u64)> = None;
    loop {
        let unmet = unmet(&engine.core(), submission, key);
        let Some(Unmet { place, in_vain, mut progress, problem }) = unmet else {
            return Ok(());
        };
        let first = waits_for.filter(|(of, _)| *of == place);
        if first.is_some_and(|(_, before)| in_vain > before) {
            return Err(problem);
        }
        let lane_is_away = {
            let mut core = engine.core();
            core.await_greeting(place);
            core.lanes()[place].breaker.away_since().is_some()
        };
        if lane_is_away {
            return Err(problem);
        }
        waits_for = first.or(Some((place, in_vain)));
        if tokio::time::timeout_at(give_up_at, progress.changed()).await.is_err() {
            return Err(problem);
        }
    }
}

/// A participant of a new request that has not heard yet which life speaks. What is known of
/// old is not begun, and needs nobody.
fn unmet(core: &Turn<'_>, submission: &Submission, key: Option<&IdempotencyKey>) -> Option<Unmet> {
    let Submission { id, branches, .. } = submission;
    if core.is_known(*id, key) || core.stale().is_some() {
        return None;
    }
    let lanes = core.lanes();
    let mut places = branches.iter().filter_map(|it| lanes.registered(&it.participant));
    // Who refuses the log has answered.
    let place = places.find(|place| !lanes[*place].is_met && lanes[*place].stale_log.is_none())?;
    let lane = &lanes[place];
    Some(Unmet {
        place,
        in_vain: lane.greeted_in_vain,
        progress: core.desk().progress(),
        problem: not_met(lane),
    })
}

/// It could know of a newer log.
fn not_met(lane: &Lane) -> Problem {
    let name = &lane.name;
    let detail = format!(
        "participant {name} has not answered since this coordinator started, and nothing was \
         begun: start its agent, or correct its address, and try again (last error: {})",
        lane.last_error.as_deref().unwrap_or("none")
    );
    let problem = Problem::new(ErrorCode::ParticipantUnreachable, detail);
    Problem { participant: Some(name.to_string()), ..problem }
}
