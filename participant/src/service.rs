//! What the handlers and the background tasks share: the store, the agent, and what the resolver
//! knows.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

use assent_client::{CoordinatorClient, Http, Token};
use assent_common::outcome::{Heuristic, Refusal};
use assent_common::participant::Branches;
use assent_common::participant::resolver::Resolver;
use assent_common::time::Millis;
use assent_common::value::readable;
use assent_common::wire::branch::{
    Answer, Answers, BranchList, BranchState, BranchView, CoordinatorList, CoordinatorRef,
    CoordinatorView,
};
use assent_common::wire::redo::WrittenView;
use assent_common::wire::resync::{Resync, Resynced};
use assent_common::{ErrorCode, LogId, ParticipantName, Txid, limits};
use assent_edge::Budget;

use crate::agent::{Agent, Running};
use crate::by_hand;
use crate::health::{Check, Verdict};
use crate::known::Known;
use crate::metrics::Metrics;
use crate::mutex::lock;
use crate::options::MetricsText;
use crate::postgres::Database;
use crate::reach::Reach;
use crate::resource::Resource;
use crate::store::{InDoubt, Link, StoreError, StoreState, StoredBranch};
use crate::wire::{Batch, PrepareMessage};

/// Marks that one list shows: there may be millions, and a person looks for a few that stay.
const MARKED_LISTED_MAX: usize = 1_000;

/// How long a look at Redis waits: far above what a Redis that works takes.
pub(crate) const REDIS_SILENT: Duration = Duration::from_secs(1);

/// Branches ended by hand that a check names.
const DAMAGE_NAMED_MAX: usize = 5;

/// Coordinators that are asked at once, on the word of batches, who they are.
const ASKING_MAX: usize = 8;

/// Logs that are remembered as believed; the others are asked each time.
const VOUCHED_MAX: usize = 64;

/// How long a coordinator that is asked for a person may take: who it is, or what it decided.
pub(crate) const WHO_IS_THERE: Duration = Duration::from_millis(limits::WHO_IS_THERE_MS);

/// One participant.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: ParticipantName,
    pub(crate) agent: Agent,
    pub(crate) store: Arc<Resource>,
    pub(crate) reach: Arc<Reach>,
    /// To coordinators.
    pub(crate) http: Http,
    /// To other participants.
    pub(crate) peers: Http,
    /// To other agents of this participant: without a token, because anybody who may write to the
    /// Redis could say where they are.
    pub(crate) agents: Http,
    /// Which of them are asked.
    pub(crate) coordinators_known: Known,
    pub(crate) peers_known: Known,
    pub(crate) metrics: Metrics,
    pub(crate) token: Option<Token>,
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) metrics_text: Option<MetricsText>,
    /// The memory that requests may hold.
    pub(crate) budget: Budget,
    pub(crate) resolver: Mutex<Resolver>,
    pub(crate) running: watch::Receiver<Running>,
    pub(crate) started: Instant,
    /// Bounds how many coordinators are asked at once who they are.
    pub(crate) asking: Semaphore,
    /// Logs that are believed when they say that data was lost.
    pub(crate) vouched: Mutex<BTreeSet<LogId>>,
    /// Whether the last scan for branches in doubt went through.
    pub(crate) scanned: AtomicBool,
}

/// What the handlers work with.
pub(crate) type App = Arc<Shared>;

impl Shared {
    /// The bound of [`Shared::asking`].
    pub(crate) const fn asking() -> Semaphore {
        Semaphore::const_new(ASKING_MAX)
    }

    /// Time for the resolver: only its differences mean anything.
    pub(crate) fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn resolver(&self) -> MutexGuard<'_, Resolver> {
        // Its loss costs latency only, so half a change is as good as none.
        lock(&self.resolver)
    }

    /// Why the others of these branches are not asked, if they are not.
    pub(crate) fn peers_refusal(&self, branches: &Branches) -> Option<String> {
        let others = branches.iter().filter(|branch| branch.participant != self.name);
        others.map(|branch| &branch.url).find_map(|url| self.peers_known.refusal(url))
    }

    /// Sets the gauges.
    pub(crate) fn gauge(&self) {
        if let Some(link) = self.store.link() {
            self.metrics.sole_owner(link.is_sole_owner());
            self.metrics.stands_by(link.stands_by_for().is_some());
        }
        let now = self.now();
        let store_is_up = self.reach.store().is_none_or(|store| store.is_ok());
        let is_known = store_is_up && self.scanned.load(Ordering::Acquire);
        let resolver = self.resolver();
        let by_hand = self.store.all_by_hand();
        for outcome in [Heuristic::Committed, Heuristic::Aborted] {
            let damage = by_hand.values().filter(|it| it.is_damage && it.outcome == outcome);
            self.metrics.heuristic(outcome.as_str(), damage.count());
        }
        self.metrics.in_doubt(resolver.count(), resolver.oldest_ms(now), is_known);
    }

    /// The branches that are prepared.
    pub(crate) async fn prepared(&self) -> Result<Vec<BranchView>, Refusal> {
        let found = self.store.in_doubt().await.map_err(unavailable)?;
        Ok(found.into_iter().map(|branch| self.in_doubt_view(branch)).collect())
    }

    /// The branches of which a mark of this state is left.
    pub(crate) async fn marked(&self, state: BranchState) -> Result<BranchList, Refusal> {
        let (found, more) =
            self.store.marked(state, MARKED_LISTED_MAX).await.map_err(unavailable)?;
        let by_hand = self.store.all_by_hand();
        let view = |txid| match by_hand.get(&txid) {
            Some(hand) => by_hand::view(txid, state, hand),
            None => by_hand::ended(txid, state),
        };
        Ok(BranchList { branches: found.into_iter().map(view).collect(), more })
    }

    /// The branches that were ended by hand, also those whose marks are gone.
    pub(crate) async fn ended_by_hand(&self) -> Result<BranchList, Refusal> {
        // The look for branches in doubt finds those that were ended by hand, too.
        let open = self.store.in_doubt().await.map_err(unavailable)?;
        let open: HashSet<Txid> = open.into_iter().map(|branch| branch.txid).collect();
        let found = self.store.all_by_hand().into_iter().filter(|(txid, _)| !open.contains(txid));
        let mut branches: Vec<BranchView> = found
            .take(MARKED_LISTED_MAX + 1)
            .map(|(txid, hand)| by_hand::view(txid, by_hand::state(hand.outcome), &hand))
            .collect();
        let more = branches.len() > MARKED_LISTED_MAX;
        branches.truncate(MARKED_LISTED_MAX);
        Ok(BranchList { branches, more })
    }

    fn in_doubt_view(&self, branch: InDoubt) -> BranchView {
        let mut view = BranchView {
            txid: branch.txid,
            state: BranchState::Prepared,
            id: Some(branch.id),
            coordinator: Some(branch.coordinator),
            in_doubt_ms: None,
            keys: branch.keys.iter().map(|key| readable(&key.0)).collect(),
            last_error: None,
            written: None,
            by_hand: None,
        };
        if let Some((ms, why)) = self.resolver().doubt(self.now(), view.txid) {
            view.in_doubt_ms = Some(ms);
            view.last_error = why.map(str::to_owned);
        }
        view
    }

    /// Looks at the data, and thereby whether what keeps it answers. A look that takes long is
    /// waited for: what it has begun must not be left half done.
    pub(crate) async fn look_at_store(&self) {
        let kind = self.store.kind();
        let mut looking = std::pin::pin!(self.store.pulse());
        let found = match tokio::time::timeout(REDIS_SILENT, &mut looking).await {
            Ok(found) => found,
            Err(_) => {
                let silent = format!("no answer within {REDIS_SILENT:?}");
                self.reach.store_looked_at(kind, Err(silent), &self.metrics);
                looking.await
            }
        };
        let found = found.map_err(|error| error.to_string());
        self.reach.store_looked_at(kind, found, &self.metrics);
        if let Some(postgres) = self.store.postgres()
            && let Ok((count, _)) = postgres.prepared().await
        {
            self.metrics.postgres_prepared(count);
        }
    }

    /// The coordinators that this participant knows, by its Redis or by what they said to this
    /// agent; those whose addresses it knows are asked who they are.
    pub(crate) async fn coordinators(&self) -> Result<CoordinatorList, Refusal> {
        let spoke = self.reach.coordinators();
        let mut epochs = self.store.epochs().await.map_err(unavailable)?;
        for (log_id, coordinator) in &spoke {
            let epoch = epochs.entry(*log_id).or_insert(coordinator.epoch);
            *epoch = (*epoch).max(coordinator.epoch);
        }
        let stale = self.store.stale_logs();
        let asked = epochs.into_iter().map(async |(log_id, epoch)| {
            let url = spoke.get(&log_id).map(|coordinator| coordinator.url.clone());
            let found = match &url {
                Some(url) => self.who_is_at(url).await,
                None => Ok(log_id.to_string()),
            };
            let stale_log = stale.get(&log_id).cloned();
            let mut view = CoordinatorView {
                log_id,
                epoch: epoch.0,
                url,
                stale_log,
                error: None,
                found_log: None,
                superseded: false,
            };
            match found {
                Ok(found) if found == log_id.to_string() => {}
                Ok(found) => {
                    view.found_log = found.parse().ok();
                    view.error = Some(other_log(&found));
                }
                Err(why) => view.error = Some(why.to_string()),
            }
            view
        });
        let mut coordinators = futures_util::future::join_all(asked).await;
        if coordinators.iter().any(|view| view.found_log.is_some()) {
            let held = self.store.in_doubt().await.map_err(unavailable)?;
            for view in &mut coordinators {
                let waits = held.iter().any(|branch| branch.txid.log_id == view.log_id);
                let found = view.found_log.and_then(|found| spoke.get(&found));
                let later = spoke.get(&view.log_id).zip(found);
                view.superseded =
                    !waits && later.is_some_and(|(it, later)| it.is_superseded_by(later));
                view.error = view.error.take().filter(|_| !view.superseded);
            }
        }
        Ok(CoordinatorList { coordinators })
    }

    /// Has this agent answer a batch, if its coordinator may say what it says.
    pub(crate) async fn batch_here(&self, batch: Batch) -> Result<Answers, Refusal> {
        self.check_stranger(&batch).await?;
        self.agent.batch(batch).await
    }

    /// The same, of one prepare that may wait.
    pub(crate) async fn prepare_here(
        &self,
        batch: Batch,
        prepare: PrepareMessage,
    ) -> Result<Answer, Refusal> {
        self.check_stranger(&batch).await?;
        self.agent.prepare_waiting(batch, prepare).await
    }

    /// Takes a part of what a log says of fenced data, if its coordinator may say anything of it.
    pub(crate) async fn resync(&self, part: Resync) -> Result<Resynced, Refusal> {
        self.check_shown(&part.coordinator).await?;
        self.agent.resync(part).await
    }

    async fn check_stranger(&self, batch: &Batch) -> Result<(), Refusal> {
        let Batch { coordinator, known, progress, .. } = batch;
        match self.store.is_other_data(*known, *progress) {
            true => self.check_shown(coordinator).await,
            false => Ok(()),
        }
    }

    /// A log says that data was lost. Anybody can, and shut all others out: so who answers at its
    /// address must be of that log. One that has spoken here is believed also while nobody answers
    /// there, so that a loss is not overlooked; one that never spoke may be right, if what it said
    /// was lost too, but is not believed then.
    async fn check_shown(&self, coordinator: &CoordinatorRef) -> Result<(), Refusal> {
        let CoordinatorRef { log_id, url, .. } = coordinator;
        if lock(&self.vouched).contains(log_id) {
            return Ok(());
        }
        let has_spoken = self.store.has_spoken(*log_id).await.map_err(unavailable)?;
        let Ok(_asks) = self.asking.try_acquire() else {
            let detail = format!("{ASKING_MAX} coordinators are asked who they are already");
            return Err(Refusal::new(ErrorCode::Overloaded, detail));
        };
        let why = match self.who_is_at(url).await {
            Ok(found) if found != log_id.to_string() => other_log(&found),
            Err(NotShown::Silent(why)) if !has_spoken => why,
            Err(NotShown::NotAsked(why)) => why,
            Ok(_) | Err(NotShown::Silent(_)) => {
                self.believe(*log_id);
                return Ok(());
            }
        };
        let url = assent_common::text::cut(url, 200);
        tracing::warn!(%log_id, %url, why,
            "a log says that data was lost, and does not show who it is; it is not believed");
        let detail = format!(
            "log {log_id} knows other data than there is; who answers at {url} does not show that \
             it is of that log ({why}); nothing was done"
        );
        Err(Refusal::new(ErrorCode::UnprovenLife, detail))
    }

    fn believe(&self, log_id: LogId) {
        let mut vouched = lock(&self.vouched);
        if vouched.len() < VOUCHED_MAX {
            vouched.insert(log_id);
        }
    }

    /// The log of the coordinator that answers there.
    async fn who_is_at(&self, url: &str) -> Result<String, NotShown> {
        if let Some(why) = self.coordinators_known.refusal(url) {
            return Err(NotShown::NotAsked(why));
        }
        let client = CoordinatorClient::new(&self.http, url).map_err(NotShown::silent)?;
        let version = tokio::time::timeout(WHO_IS_THERE, client.version()).await;
        let version =
            version.map_err(|_| NotShown::silent(format!("no answer within {WHO_IS_THERE:?}")))?;
        Ok(version.map_err(NotShown::silent)?.log_id.unwrap_or_default())
    }

    /// What is kept of a branch: a mark, and who left it. That is told also when the mark has gone
    /// by the low-water mark.
    pub(crate) async fn branch(&self, txid: Txid) -> Result<BranchView, Refusal> {
        let kept = self.store.branch(txid).await.map_err(unavailable)?;
        if let Some(StoredBranch { in_doubt: Some(branch), .. }) = kept {
            return Ok(self.in_doubt_view(branch));
        }
        let hand = self.store.by_hand(&[txid]).await.map_err(unavailable)?.remove(&txid);
        match (kept, hand) {
            (Some(StoredBranch { state, written, .. }), hand) => {
                let view = match hand {
                    Some(hand) => by_hand::view(txid, state, &hand),
                    None => by_hand::ended(txid, state),
                };
                Ok(BranchView { written: written.map(WrittenView::from), ..view })
            }
            (None, Some(hand)) => Ok(by_hand::view(txid, by_hand::state(hand.outcome), &hand)),
            (None, None) => Err(Refusal::new(
                ErrorCode::NotFound,
                format!("nothing is kept of {txid} here; that says nothing about its outcome"),
            )),
        }
    }

    /// The branches that were ended by hand against what their logs say, as a check; none if there
    /// are none.
    fn damage(&self) -> Option<Check> {
        let all = self.store.all_by_hand().into_iter().filter(|(_, it)| it.is_damage);
        let txids: Vec<_> = all.map(|(txid, _)| txid.to_string()).collect();
        let named = txids.iter().take(DAMAGE_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        let detail = format!(
            "{} branches were ended by hand against what their logs say: {named}",
            txids.len()
        );
        (!txids.is_empty()).then_some(Check {
            name: "heuristic",
            verdict: Verdict::Warning,
            detail,
        })
    }

    /// The checks of `/readyz`.
    pub(crate) async fn checks(&self) -> Vec<Check> {
        let mut checks = match (self.store.redis(), self.store.postgres()) {
            (Some(store), _) => self.redis_checks(store.link()).await,
            (None, Some(postgres)) => postgres_checks(postgres).await,
            (None, None) => Vec::new(),
        };
        checks.extend(self.agent.hooks.check().await);
        checks.extend(self.damage());
        let warnings = self.store.warnings();
        checks.push(match warnings.as_slice() {
            [] => passing("durability"),
            warnings => {
                Check { name: "durability", verdict: Verdict::Warning, detail: warnings.join("; ") }
            }
        });
        let stale: Vec<String> = self.store.stale_logs().into_values().collect();
        checks.push(match stale.as_slice() {
            [] => passing("logs"),
            stale => Check {
                name: "logs",
                verdict: Verdict::Warning,
                detail: format!(
                    "stale_log: {}. {}",
                    stale.join("; "),
                    ErrorCode::StaleLog.advice()
                ),
            },
        });
        checks.push(match *self.running.borrow() {
            Running::Yes => passing("running"),
            Running::Stopping => failing("running", "draining".to_owned()),
        });
        checks
    }

    async fn redis_checks(&self, link: &Link) -> Vec<Check> {
        // A Redis that hangs must not make who asks wait as long as a transaction would.
        let pinged = tokio::time::timeout(REDIS_SILENT, link.ping()).await;
        let mut checks = vec![match pinged {
            Ok(Ok(())) => match link.refuses_writes() {
                None => passing("redis"),
                Some(said) => Check {
                    name: "redis",
                    verdict: Verdict::Warning,
                    detail: format!("refuses writes: {said}"),
                },
            },
            Ok(Err(error)) => failing("redis", error.to_string()),
            Err(_) => failing("redis", format!("no answer within {REDIS_SILENT:?}")),
        }];
        checks.push(data_check(link.state()));
        checks.extend(link.stands_by_for().map(|owner| {
            let url = assent_common::text::cut(owner.url(), 200);
            Check { detail: format!("this agent stands by for {url}"), ..passing("owner") }
        }));
        checks.extend(self.reach.silent_peer().map(|detail| Check {
            name: "peers",
            verdict: Verdict::Warning,
            detail,
        }));
        let replicas = tokio::time::timeout(REDIS_SILENT, link.replicas_missing()).await;
        let missing = match replicas {
            Ok(missing) => missing.ok().flatten(),
            Err(_) => link.replicas_missed(),
        };
        checks.extend(missing.map(|why| failing("replicas", why)));
        checks.extend(link.rights_missing().map(|why| failing("rights", why)));
        checks
    }
}

/// The checks of a participant with a database.
async fn postgres_checks(postgres: &Database) -> Vec<Check> {
    // One that hangs must not make who asks wait as long as a transaction would.
    let asked = async { tokio::try_join!(postgres.prepared(), postgres.prepared_by_others()) };
    let server = match tokio::time::timeout(REDIS_SILENT, asked).await {
        Ok(Ok(((count, most), by_others))) => {
            let is_near = count * 10 >= most * 9;
            let is_well = !is_near && by_others.is_none();
            let verdict = if is_well { Verdict::Passing } else { Verdict::Warning };
            let told = postgres.server_told();
            let by_others = by_others.map_or_else(String::new, |told| format!("; {told}"));
            let used = format!("{count} of {most} prepared transactions in use");
            Check { name: "postgres", verdict, detail: format!("{told}; {used}{by_others}") }
        }
        Ok(Err(error)) => failing("postgres", error.to_string()),
        Err(_) => failing("postgres", format!("no answer within {REDIS_SILENT:?}")),
    };
    vec![server, data_check(postgres.state())]
}

fn data_check(state: StoreState) -> Check {
    match state {
        StoreState::Ready => passing("data"),
        StoreState::Disconnected(why)
        | StoreState::Verifying(why)
        | StoreState::Quarantined(why) => failing("data", why),
    }
}

const fn failing(name: &'static str, detail: String) -> Check {
    Check { name, verdict: Verdict::Failing, detail }
}

const fn passing(name: &'static str) -> Check {
    Check { name, verdict: Verdict::Passing, detail: String::new() }
}

/// Why it is not known of which log the coordinator at an address is.
#[derive(Debug, thiserror::Error)]
enum NotShown {
    /// It is not among those that may be asked.
    #[error("{0}")]
    NotAsked(String),
    /// It did not say.
    #[error("{0}")]
    Silent(String),
}

impl NotShown {
    fn silent(why: impl ToString) -> Self {
        Self::Silent(why.to_string())
    }
}

fn other_log(found: &str) -> String {
    format!("the server that answers there has another log, {found:?}")
}

/// The coordinator of a branch, as its own record names it: the branch's epoch is one that this
/// Redis has seen.
pub(crate) fn coordinator_of(txid: Txid, url: String) -> CoordinatorRef {
    CoordinatorRef { log_id: txid.log_id, epoch: txid.number.epoch, url, life: None }
}

/// The refusal of what the store could not look at.
pub(crate) fn unavailable(error: StoreError) -> Refusal {
    match &error {
        StoreError::Corrupt { .. } => Refusal::new(ErrorCode::Internal, error.to_string()),
        _ => error.refusal(),
    }
}
