//! Watches, past the agents, how long branches stay in doubt once what kept them so is healed.
//!
//! A branch counts if it was in doubt at the healing and for some time before it, or if its Redis could not be asked
//! then; what merely was on its way is none of those. It counts again for a later healing if it is still there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::audit::{Control, Store};

/// How often each Redis is looked at.
const EVERY: Duration = Duration::from_millis(50);

/// What has been in doubt for longer is not merely on its way.
const IN_DOUBT_AFTER: Duration = Duration::from_millis(400);

/// Of what is left, so many are named.
const EXAMPLES_MAX: usize = 6;

/// What is known of the branches in doubt.
#[derive(Debug, Default)]
struct Seen {
    /// Per participant.
    branches: BTreeMap<String, Branches>,
    /// How long branches stayed in doubt after a healing, in milliseconds.
    resolved_ms: Vec<u64>,
}

#[derive(Debug, Default)]
struct Branches {
    /// Since when each txid is staged.
    staged: BTreeMap<String, Instant>,
    locked: Vec<String>,
    /// The last time that this Redis could be asked.
    looked: Option<Instant>,
    /// Those that count, since the healing.
    waiting: BTreeMap<String, Instant>,
    /// A healing after which nobody has looked yet.
    healed: Option<Instant>,
}

impl Branches {
    /// Takes what a look showed; returns how long those waited that are gone.
    fn look(&mut self, control: Control, now: Instant) -> Vec<u64> {
        let blind = self.looked.is_none_or(|looked| now.duration_since(looked) > IN_DOUBT_AFTER);
        self.staged.retain(|txid, _| control.staged.contains(txid));
        self.locked = control.locked.iter().cloned().collect();
        self.looked = Some(now);
        for txid in &control.staged {
            self.staged.entry(txid.clone()).or_insert(now);
        }
        if let Some(healed) = self.healed.take() {
            for (txid, since) in &self.staged {
                if blind || healed.saturating_duration_since(*since) > IN_DOUBT_AFTER {
                    self.waiting.insert(txid.clone(), healed);
                }
            }
        }
        let mut gone = Vec::new();
        self.waiting.retain(|txid, healed| {
            let there = control.staged.contains(txid);
            if !there {
                let ms = now.saturating_duration_since(*healed).as_millis();
                gone.push(u64::try_from(ms).unwrap_or(u64::MAX));
            }
            there
        });
        gone
    }
}

/// The watcher, as long as this lives.
#[derive(Debug)]
pub(crate) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(stores: Vec<Store>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tasks = stores.into_iter().map(|mut store| {
            let name = store.participant.clone();
            lock(&seen).branches.insert(name.clone(), Branches::default());
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                loop {
                    if let Ok(control) = store.control().await {
                        let mut seen = lock(&seen);
                        if let Some(branches) = seen.branches.get_mut(&name) {
                            let gone = branches.look(control, Instant::now());
                            seen.resolved_ms.extend(gone);
                        }
                    }
                    tokio::time::sleep(EVERY).await;
                }
            })
        });
        let tasks = tasks.collect();
        Self { seen, tasks }
    }

    /// From now on, what is in doubt has nothing to wait for.
    pub(crate) fn healed(&self) {
        let now = Instant::now();
        for branches in lock(&self.seen).branches.values_mut() {
            branches.healed = Some(now);
        }
    }

    /// What is still in doubt or locked, if anything, or could not be looked at since then.
    pub(crate) fn unrest(&self, since: Instant) -> Option<String> {
        let seen = lock(&self.seen);
        let unrest = seen.branches.iter().filter_map(|(participant, branches)| {
            if branches.looked.is_none_or(|looked| looked < since) {
                return Some(format!("the Redis of {participant} does not answer"));
            }
            let (staged, locked) = (branches.staged.len(), branches.locked.len());
            let examples = branches.staged.keys().chain(&branches.locked).take(EXAMPLES_MAX);
            let examples = examples.map(String::as_str).collect::<Vec<_>>().join(", ");
            (staged + locked > 0)
                .then(|| format!("{participant}: {staged} in doubt, {locked} locked ({examples})"))
        });
        let unrest: Vec<_> = unrest.collect();
        (!unrest.is_empty()).then(|| unrest.join("; "))
    }

    /// How many branches are in doubt, as far as is known.
    pub(crate) fn in_doubt(&self) -> usize {
        lock(&self.seen).branches.values().map(|branches| branches.staged.len()).sum()
    }

    /// How long branches stayed in doubt after a healing, sorted.
    pub(crate) fn resolved_ms(&self) -> Vec<u64> {
        let mut all = lock(&self.seen).resolved_ms.clone();
        all.sort_unstable();
        all
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Poison only says that another task panicked; what was seen is whole.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(staged: &[&str]) -> Control {
        let staged = staged.iter().map(|txid| (*txid).to_owned()).collect();
        Control { staged, ..Control::default() }
    }

    #[test]
    fn only_what_was_in_doubt_before_the_healing_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut branches = Branches::default();
        assert!(branches.look(control(&["old"]), at(0)).is_empty());
        assert!(branches.look(control(&["old"]), at(300)).is_empty());
        assert!(branches.look(control(&["old", "young"]), at(600)).is_empty());
        branches.healed = Some(at(650));
        assert!(branches.look(control(&["old", "young"]), at(700)).is_empty());
        assert_eq!(branches.look(control(&[]), at(950)), [300]);
    }

    #[test]
    fn what_could_not_be_seen_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut branches = Branches::default();
        branches.look(control(&[]), at(0));
        branches.healed = Some(at(5_000));
        assert!(branches.look(control(&["found"]), at(5_100)).is_empty());
        assert_eq!(branches.look(control(&[]), at(5_200)), [200]);
    }
}
