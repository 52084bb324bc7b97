//! Lists of transactions and of participants.

use assent_common::time::Millis;
use assent_common::wire::problem::{OutcomeWord, Problem};
use assent_common::wire::transaction::{
    BranchProgress, ParticipantView, TransactionPage, TransactionView,
};
use assent_common::{ErrorCode, ParticipantName, TransactionId, limits};
use assent_engine::Active;
use uuid::Uuid;

use super::by_hand;
use super::shared::{Engine, stopping};
use super::view::view_of_active;
use crate::clock;

/// Ended transactions that one page reads from the log at most; a page may be short, and its token
/// leads on.
const READS_PER_PAGE_MAX: usize = 2_000;

/// How long a transaction is under way before its votes are listed as in doubt: in every one of
/// several branches some are, for a moment.
const IN_DOUBT_AFTER_MS: u64 = 1_000;

/// Which transactions to list.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Only those of this outcome.
    pub outcome: Option<OutcomeWord>,
    /// Only those with a branch at this participant.
    pub participant: Option<ParticipantName>,
    /// Only those with a branch that has voted and waits for a decision, for more than a moment, or
    /// that has not acknowledged its outcome.
    pub in_doubt: bool,
    /// Only those taken longer ago than this, in milliseconds.
    pub older_than_ms: Option<u64>,
    /// How many at the most.
    pub page_size: Option<usize>,
    /// Where the last page ended.
    pub page_token: Option<String>,
}

impl Engine {
    /// Active transactions and the latest ended ones, newest first; those in doubt oldest first.
    pub fn list(&self, filter: &ListFilter) -> Result<TransactionPage, Problem> {
        let size =
            filter.page_size.unwrap_or(limits::PAGE_SIZE_DEFAULT).clamp(1, limits::PAGE_SIZE_MAX);
        let before = filter.page_token.as_deref().map(parse_token).transpose()?;
        let created_before_ms = filter.older_than_ms.map(|ms| clock::now().0.saturating_sub(ms));
        let wanted_id = |id: TransactionId| {
            before.is_none_or(|last| if filter.in_doubt { id > last } else { id < last })
                && created_before_ms.is_none_or(|ms| created_ms(id) <= ms)
        };
        let (mut rows, ended) = {
            let core = self.core();
            let now = clock::now();
            let active = core.all_active().filter(|active| {
                let is_stale = active.machine.is_decided() || is_late(active, now);
                wanted_id(active.accepted.identity.id) && (!filter.in_doubt || is_stale)
            });
            let views = active.map(|active| row_of(view_of_active(&core, active)));
            let rows: Vec<TransactionView> = views.filter(|view| filter.takes(view)).collect();
            // After a restart the record of an unfinished transaction is among them.
            let ended = core.recent().iter().rev();
            let ended = ended.filter(|(id, _)| wanted_id(**id) && core.number_of(**id).is_none());
            let ended: Vec<_> =
                ended.take(READS_PER_PAGE_MAX).map(|(id, position)| (*id, *position)).collect();
            (rows, ended)
        };
        let read_all = ended.len() == READS_PER_PAGE_MAX;
        let mut last_read = None;
        if !filter.in_doubt {
            let (mut found, mut bytes) = (0, 0);
            for (id, position) in ended {
                // One more than fits, so that it is known whether the page is the last.
                if found > size || bytes > limits::PAGE_BYTES_MAX {
                    break;
                }
                last_read = Some(id);
                let view = self.ended_view(position, id).map(row_of);
                if let Some(view) = view.filter(|view| filter.takes(view)) {
                    bytes += bytes_of(&view);
                    rows.push(view);
                    found += 1;
                }
            }
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
        if filter.in_doubt {
            rows.reverse();
        }
        let fitting = rows_that_fit(&rows, size);
        let more = rows.len() > fitting;
        rows.truncate(fitting);
        let next_page_token = if more {
            rows.last().map(|row| token(row.id))
        } else {
            last_read.filter(|_| read_all).map(token)
        };
        Ok(TransactionPage { transactions: rows, next_page_token })
    }

    /// The registered participants, by name.
    #[must_use]
    pub fn participants(&self) -> Vec<ParticipantView> {
        let core = self.core();
        // Nothing is said to anybody, so no participant has another error.
        let copy = core.stale().map(|why| format!("this coordinator runs on a copy: {why}"));
        let mut participants: Vec<ParticipantView> = core
            .lanes()
            .iter()
            .filter_map(|lane| {
                Some(ParticipantView {
                    name: lane.name.clone(),
                    url: lane.url()?.to_owned(),
                    up: lane.up,
                    redis_up: lane.redis_up(),
                    known: lane.data.seen.known,
                    since: lane.since.map(clock::rfc3339),
                    away: lane.breaker.away_since().is_some(),
                    next_probe_at: lane.breaker.next_probe_at().map(clock::rfc3339),
                    unfinished: lane.unfinished.len() as u64,
                    last_error: (copy.as_ref().or(lane.data.trouble.as_ref()))
                        .or(lane.last_error.as_ref())
                        .cloned(),
                    stale_log: lane.stale_log.clone(),
                    data: lane.data.word(),
                    heuristic: by_hand::heuristic_at(core.history(), &lane.name),
                })
            })
            .collect();
        participants.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        participants
    }

    /// Registers a participant, or moves it.
    pub async fn set_participant(
        &self,
        name: &ParticipantName,
        url: &str,
    ) -> Result<ParticipantView, Problem> {
        let client = self.client_at(name, url)?;
        let durable = {
            let mut core = self.core();
            let done = core.desk_mut().ticket();
            let place = core.set_participant(name, url, client.base_url(), done);
            core.desk_mut().set_client(place, client);
            core.desk_mut().await_done(done)
        };
        durable.await.map_err(|_| stopping())?;
        self.participants().into_iter().find(|participant| participant.name == *name).ok_or_else(
            || {
                Problem::new(
                    ErrorCode::NotFound,
                    format!("participant {name} was removed meanwhile"),
                )
            },
        )
    }

    /// Removes a participant that has no unfinished transactions.
    pub async fn remove_participant(&self, name: &ParticipantName) -> Result<(), Problem> {
        let durable = {
            let mut core = self.core();
            let done = core.desk_mut().ticket();
            core.remove_participant(name, done)?;
            core.desk_mut().await_done(done)
        };
        durable.await.map_err(|_| stopping())
    }
}

impl ListFilter {
    fn takes(&self, view: &TransactionView) -> bool {
        self.outcome.is_none_or(|outcome| outcome == view.outcome)
            && self.participant.as_ref().is_none_or(|participant| {
                view.branches.iter().any(|branch| branch.participant == *participant)
            })
            && (!self.in_doubt || view.branches.iter().any(|branch| in_doubt(branch.state)))
    }
}

/// A row of a list. Large replies would make a page larger than anybody can use: they are in the
/// transaction's own view.
fn row_of(mut view: TransactionView) -> TransactionView {
    for branch in &mut view.branches {
        branch.replies = None;
    }
    view
}

/// How many of the rows a page has: as many as were asked for and as its bytes allow, and one at
/// least.
fn rows_that_fit(rows: &[TransactionView], size: usize) -> usize {
    let mut bytes = 0;
    let fitting = rows.iter().take(size).take_while(|row| {
        bytes += bytes_of(row);
        bytes <= limits::PAGE_BYTES_MAX
    });
    fitting.count().max(1).min(rows.len())
}

/// The bytes of a row in the answer.
fn bytes_of(row: &TransactionView) -> usize {
    serde_json::to_vec(row).map_or(0, |json| json.len())
}

/// Whether it is under way for longer than a vote that is followed by a decision is in doubt.
fn is_late(active: &Active, now: Millis) -> bool {
    now.since(active.accepted.identity.created_at) >= IN_DOUBT_AFTER_MS
}

const fn in_doubt(state: BranchProgress) -> bool {
    match state {
        BranchProgress::Prepared
        | BranchProgress::Committing
        | BranchProgress::Aborting
        | BranchProgress::Lost => true,
        BranchProgress::Preparing
        | BranchProgress::Applied
        | BranchProgress::Aborted
        | BranchProgress::Abandoned
        | BranchProgress::HeuristicCommitted
        | BranchProgress::HeuristicAborted => false,
    }
}

/// The first 48 bits of a UUIDv7 are its moment (RFC 9562, section 5.7).
fn created_ms(id: TransactionId) -> u64 {
    u64::try_from(id.uuid().as_u128() >> 80).unwrap_or(u64::MAX)
}

/// Opaque to clients: where the page ended.
fn token(id: TransactionId) -> String {
    id.uuid().as_simple().to_string()
}

fn parse_token(token: &str) -> Result<TransactionId, Problem> {
    Uuid::try_parse(token).ok().and_then(|uuid| TransactionId::new(uuid).ok()).ok_or_else(|| {
        Problem::new(ErrorCode::BadRequest, "`page_token` was not given out by this server")
    })
}
