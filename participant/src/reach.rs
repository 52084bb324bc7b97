//! Whom this agent reaches: its Redis or database, the agent that owns it, and the coordinators
//! that it asks about branches in doubt.
//! For health, metrics, operators, and where to ask. Nothing of the protocol is decided by it, and
//! it must never be taken for an answer about a branch.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use assent_common::outcome::Call;
use assent_common::text::cut;
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::outcome::BranchOutcome;
use assent_common::{Epoch, ErrorCode, LogId, Txid};

use crate::metrics::Metrics;
use crate::mutex::lock;

/// How often a coordinator that cannot be asked is named in the log again.
const REPEATED: Duration = Duration::from_secs(60);

/// Coordinators that are remembered: who speaks for more logs than this is no coordinator.
const COORDINATORS_MAX: usize = 64;

/// For how long it is said that another agent took nothing. This one may own the Redis since, so
/// that nothing more is passed on, and it does not hear when the other one is mended.
const PEER_SAID_FOR: Duration = Duration::from_secs(600);

/// Whom this agent reaches.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    store: Mutex<Option<Result<(), String>>>,
    /// The agent that owned the Redis and did not take what was passed on to it.
    peer: Mutex<Option<SilentPeer>>,
    coordinators: Mutex<Coordinators>,
}

#[derive(Debug, Default)]
struct Coordinators {
    by_log: BTreeMap<LogId, Coordinator>,
    /// Counts what was heard: only the order of two numbers means anything.
    heard: u64,
}

/// An agent that did not take what was passed on to it.
#[derive(Debug)]
struct SilentPeer {
    url: String,
    at: Instant,
    why: String,
}

/// A coordinator that has spoken to this agent, or is asked by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coordinator {
    pub(crate) url: String,
    pub(crate) epoch: Epoch,
    /// What came of the last question to it.
    pub(crate) asked: Option<Result<(), String>>,
    logged_at: Option<Instant>,
    /// When it spoke at this address for the first and for the last time; it may only have been
    /// asked.
    spoke: Option<Spoke>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spoke {
    first: u64,
    last: u64,
}

impl Coordinator {
    /// Whether another log has begun to speak at the address of this one since this one was last
    /// heard. Two logs that speak in turn are two coordinators, of which one names a wrong address.
    pub(crate) fn is_superseded_by(&self, later: &Self) -> bool {
        let last = self.spoke.map_or(0, |spoke| spoke.last);
        self.url == later.url && later.spoke.is_some_and(|later| later.first > last)
    }
}

impl Reach {
    /// What came of a look at what keeps the branches. Said once, when it changes.
    pub(crate) fn store_looked_at(
        &self,
        kind: &str,
        result: Result<(), String>,
        metrics: &Metrics,
    ) {
        metrics.store_up(result.is_ok());
        let mut store = lock(&self.store);
        let was_up = store.as_ref().is_none_or(Result::is_ok);
        match &result {
            Err(error) if was_up => {
                tracing::warn!(error, "{kind} cannot be used; nothing is voted on until it can");
            }
            Ok(()) if !was_up => tracing::info!("{kind} can be used again"),
            Ok(()) | Err(_) => {}
        }
        *store = Some(result);
    }

    /// What the last look found; nothing before the first.
    pub(crate) fn store(&self) -> Option<Result<(), String>> {
        lock(&self.store).clone()
    }

    /// What came of what was passed on to the agent at this address, which owns the Redis.
    pub(crate) fn passed_on(&self, url: &str, result: Result<(), String>) {
        let silent = |why| SilentPeer { url: cut(url, 200).into_owned(), at: Instant::now(), why };
        *lock(&self.peer) = result.err().map(silent);
    }

    /// Which agent did not take what was passed on to it, how long ago, and why.
    pub(crate) fn silent_peer(&self) -> Option<String> {
        let peer = lock(&self.peer);
        let SilentPeer { url, at, why } =
            peer.as_ref().filter(|peer| peer.at.elapsed() < PEER_SAID_FOR)?;
        let ago = at.elapsed().as_secs();
        Some(format!("the agent {url} took nothing from this one {ago} s ago: {why}"))
    }

    /// A coordinator speaks.
    pub(crate) fn heard_from(&self, coordinator: &CoordinatorRef) {
        let mut known = lock(&self.coordinators);
        known.note(coordinator.log_id, coordinator.epoch, &coordinator.url);
        known.heard += 1;
        let now = known.heard;
        if let Some(known) = known.by_log.get_mut(&coordinator.log_id) {
            known.spoke.get_or_insert(Spoke { first: now, last: now }).last = now;
        }
    }

    /// Where a log was last heard from. Only a life that was admitted is heard.
    pub(crate) fn heard_at(&self, log_id: LogId) -> Option<String> {
        lock(&self.coordinators).heard_at(log_id).map(str::to_owned)
    }

    /// What came of the question about a branch, which names this address. A coordinator that
    /// cannot be asked is named in the log: at once, and again now and then, for as long as
    /// branches wait for it.
    pub(crate) fn asked(&self, txid: Txid, url: &str, call: &Call<BranchOutcome>) {
        let mut known = lock(&self.coordinators);
        // A branch may name the address of an earlier life.
        let heard_at = known.heard_at(txid.log_id).map(str::to_owned);
        let url = heard_at.as_deref().unwrap_or(url);
        known.note(txid.log_id, txid.number.epoch, url);
        let Some(coordinator) = known.by_log.get_mut(&txid.log_id) else { return };
        let (why, is_unauthorized) = match call {
            Call::Applied(_) => {
                coordinator.asked = Some(Ok(()));
                coordinator.logged_at = None;
                return;
            }
            Call::Refused(refusal) => {
                (refusal.to_string(), refusal.code == ErrorCode::Unauthorized)
            }
            Call::Unknown(why) => (why.clone(), false),
        };
        let is_due = coordinator.logged_at.is_none_or(|at| at.elapsed() >= REPEATED);
        if is_due {
            coordinator.logged_at = Some(Instant::now());
            if is_unauthorized {
                tracing::warn!(%txid, coordinator = url, why,
                    "a branch is in doubt, and its coordinator refuses this agent's token: give the agent the \
                     coordinator's API token (--coordinator-token-file), and the address that it \
                     may send it to (--coordinator URL)");
            } else {
                tracing::warn!(%txid, coordinator = url, why,
                    "a branch is in doubt, and its coordinator does not answer the question for its outcome");
            }
        }
        coordinator.asked = Some(Err(why));
    }

    /// The coordinators, by their logs.
    pub(crate) fn coordinators(&self) -> BTreeMap<LogId, Coordinator> {
        lock(&self.coordinators).by_log.clone()
    }
}

impl Coordinators {
    fn heard_at(&self, log_id: LogId) -> Option<&str> {
        self.by_log.get(&log_id).filter(|known| known.spoke.is_some()).map(|known| &*known.url)
    }

    fn note(&mut self, log_id: LogId, epoch: Epoch, url: &str) {
        let is_full = self.by_log.len() >= COORDINATORS_MAX;
        match self.by_log.get_mut(&log_id) {
            Some(known) if known.epoch == epoch && known.url == url => {}
            Some(known) => {
                let at_another = known.url != url;
                *known = Coordinator {
                    url: url.to_owned(),
                    epoch: known.epoch.max(epoch),
                    asked: known.asked.take().filter(|_| !at_another),
                    logged_at: known.logged_at.filter(|_| !at_another),
                    spoke: known.spoke.filter(|_| !at_another),
                };
            }
            None if is_full => {}
            None => {
                let url = url.to_owned();
                let coordinator =
                    Coordinator { url, epoch, asked: None, logged_at: None, spoke: None };
                self.by_log.insert(log_id, coordinator);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use assent_common::outcome::Refusal;

    use super::*;

    fn txid(n: u64) -> Txid {
        format!("0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.{n}.0").parse().unwrap()
    }

    fn only(reach: &Reach) -> Coordinator {
        let all = reach.coordinators();
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_values().next().unwrap()
    }

    #[test]
    fn the_last_question_counts_until_the_coordinator_moves() {
        let reach = Reach::default();
        let refused = Refusal::new(ErrorCode::Unauthorized, "wrong token");
        reach.asked(txid(1), "http://a", &Call::Refused(refused));
        let asked = only(&reach).asked.unwrap().unwrap_err();
        assert_eq!(asked, "unauthorized: wrong token");
        reach.asked(txid(2), "http://a", &Call::Applied(BranchOutcome::Undecided));
        assert_eq!(only(&reach).asked, Some(Ok(())));
        reach.asked(txid(2), "http://a", &Call::Unknown("connection refused".to_owned()));
        let url = "http://b".to_owned();
        let moved = CoordinatorRef { log_id: txid(1).log_id, epoch: Epoch(4), url, life: None };
        reach.heard_from(&moved);
        let coordinator = only(&reach);
        assert_eq!((coordinator.epoch, coordinator.url.as_str()), (Epoch(4), "http://b"));
        assert_eq!(coordinator.asked, None, "of another address nothing is known");
        assert_eq!(reach.heard_at(txid(1).log_id).as_deref(), Some("http://b"));
        reach.asked(txid(1), "http://a", &Call::Unknown("connection refused".to_owned()));
        assert_eq!(only(&reach).url, "http://b", "what a branch names is older");
    }

    #[test]
    fn a_coordinator_is_named_once_for_many_branches_and_again_when_it_had_answered() {
        let reach = Reach::default();
        let silent = Call::Unknown("no answer".to_owned());
        reach.asked(txid(1), "http://a", &silent);
        let first = only(&reach).logged_at;
        reach.asked(txid(2), "http://a", &silent);
        assert_eq!(only(&reach).logged_at, first);
        reach.asked(txid(1), "http://a", &Call::Applied(BranchOutcome::Undecided));
        assert_eq!(only(&reach).logged_at, None);
    }

    #[test]
    fn a_log_is_superseded_by_one_that_began_to_speak_at_its_address_after_its_last_word() {
        let reach = Reach::default();
        let [old, new] = ["0198f1c2a4b27c1d9c0e3f4a00000001", "0198f1c2a4b27c1d9c0e3f4a00000002"]
            .map(|log_id| log_id.parse::<LogId>().unwrap());
        let speaks = |log_id, url: &str| {
            let url = url.to_owned();
            reach.heard_from(&CoordinatorRef { log_id, epoch: Epoch(1), url, life: None });
        };
        let is_superseded = || {
            let all = reach.coordinators();
            all[&old].is_superseded_by(&all[&new])
        };
        speaks(old, "http://a");
        speaks(new, "http://b");
        assert!(!is_superseded(), "at another address");
        speaks(new, "http://a");
        assert!(is_superseded());
        let all = reach.coordinators();
        assert!(!all[&new].is_superseded_by(&all[&old]), "the new one stays");
        speaks(old, "http://a");
        assert!(!is_superseded(), "both are alive, and one of them names a wrong address");
        speaks(new, "http://a");
        assert!(!is_superseded(), "it began before the other's last word");
    }

    #[test]
    fn whoever_speaks_for_countless_logs_is_not_remembered_for_each() {
        let reach = Reach::default();
        for n in 0..200_u32 {
            let log_id = format!("0198f1c2a4b27c1d9c0e3f4a{n:08x}").parse().unwrap();
            let url = "http://a".to_owned();
            reach.heard_from(&CoordinatorRef { log_id, epoch: Epoch(1), url, life: None });
        }
        assert_eq!(reach.coordinators().len(), COORDINATORS_MAX);
    }
}
