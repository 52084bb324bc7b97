//! The participant's metrics: one table of names, labels and help, and one function for each thing that is counted.
//!
//! Writes through the `metrics` facade only; it must never install a recorder (a host application has its own) and never
//! put a transaction id into a label.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use assent_common::ParticipantName;

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Counts up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

const REQUESTS: &str = "assent_participant_requests_total";
const VOTES: &str = "assent_votes_total";
const IN_DOUBT: &str = "assent_branches_in_doubt";
const IN_DOUBT_AGE: &str = "assent_in_doubt_oldest_age_seconds";
const RESOLVER: &str = "assent_resolver_answers_total";
const WAITING: &str = "assent_prepares_waiting";
const REDIS: &str = "assent_redis_call_duration_seconds";
const REDIS_UP: &str = "assent_redis_up";
const POSTGRES: &str = "assent_postgres_call_duration_seconds";
const POSTGRES_UP: &str = "assent_postgres_up";
const POSTGRES_PREPARED: &str = "assent_postgres_prepared";
const OPERATOR: &str = "assent_operator_actions_total";
const HEURISTIC: &str = "assent_heuristic_branches";
const SOLE_OWNER: &str = "assent_redis_sole_owner";
const STANDS_BY: &str = "assent_redis_standby";
const PASSED_ON: &str = "assent_passed_on_total";
const HOOK_ANSWERS: &str = "assent_hook_answers_total";
const HOOK_DURATION: &str = "assent_hook_duration_seconds";
const HOOKS_ASKED: &str = "assent_hooks_asked";
const BUILD_INFO: &str = "assent_participant_build_info";

/// The kinds of messages.
const OPS: [&str; 3] = ["prepare", "commit", "abort"];

/// What comes of a message.
const RESULTS: [&str; 3] = ["applied", "refused", "unknown"];

/// Every metric of a participant.
pub const TABLE: &[Metric] = &[
    Metric {
        name: REQUESTS,
        kind: Kind::Counter,
        labels: &["participant", "op", "result"],
        help: "Messages answered, by kind (prepare, commit, abort) and result (applied, refused, unknown).",
    },
    Metric {
        name: VOTES,
        kind: Kind::Counter,
        labels: &["participant", "vote"],
        help: "Votes given: yes, committed (one phase), wait, unknown, or the code of a no.",
    },
    Metric {
        name: IN_DOUBT,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "Branches that voted yes and know no outcome, at the last scan; those in the middle of a commit included. \
            NaN while Redis cannot be asked and none is known.",
    },
    Metric {
        name: IN_DOUBT_AGE,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "For how long this agent has seen the oldest branch in doubt; NaN while none is known and Redis cannot be asked.",
    },
    Metric {
        name: RESOLVER,
        kind: Kind::Counter,
        labels: &["participant", "outcome"],
        help: "Answers to questions about branches in doubt: commit, abort, later, unauthorized (the coordinator refuses \
            this agent's token), unheard (no answer), hold (unknown authority).",
    },
    Metric {
        name: WAITING,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "Prepares that wait for a younger holder's lock.",
    },
    Metric {
        name: REDIS,
        kind: Kind::Histogram,
        labels: &["participant"],
        help: "Duration of one execution of a batch at Redis, its fsync included.",
    },
    Metric {
        name: REDIS_UP,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "1 while Redis answers within a second, 0 while it does not: looked at every second.",
    },
    Metric {
        name: POSTGRES,
        kind: Kind::Histogram,
        labels: &["participant"],
        help: "Duration of one execution of a batch at PostgreSQL, its syncs included.",
    },
    Metric {
        name: POSTGRES_UP,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "1 while PostgreSQL answers within a second, 0 while it does not: looked at \
            every second.",
    },
    Metric {
        name: POSTGRES_PREPARED,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "Transactions that are prepared in the cluster, whoever began them: at \
            max_prepared_transactions branches are refused. Looked at every second.",
    },
    Metric {
        name: SOLE_OWNER,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "1 while this agent owns its Redis; 0 while another agent does.",
    },
    Metric {
        name: STANDS_BY,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "1 while this agent stands by for the agent that owns its Redis, and passes on to it \
            what it is told.",
    },
    Metric {
        name: PASSED_ON,
        kind: Kind::Counter,
        labels: &["participant", "result"],
        help: "Requests passed on to the agent that owns the Redis, by result: answered, refused, \
            not_reached, not_owner (whoever is there owns it no more), unknown.",
    },
    Metric {
        name: OPERATOR,
        kind: Kind::Counter,
        labels: &["participant", "verb"],
        help: "Operators' overrides: resolve, forget.",
    },
    Metric {
        name: HEURISTIC,
        kind: Kind::Gauge,
        labels: &["participant", "outcome"],
        help: "Branches that an operator ended by hand against what their log says, by how they ended here, until the mark \
            is dropped (assent branch forget).",
    },
    Metric {
        name: HOOK_ANSWERS,
        kind: Kind::Counter,
        labels: &["participant", "answer"],
        help: "Answers of the hook: staged, vetoed, changed (what it had read was changed \
            meanwhile), refused (the branch cannot be, or the answer breaks the rules), unclear.",
    },
    Metric {
        name: HOOK_DURATION,
        kind: Kind::Histogram,
        labels: &["participant"],
        help: "Duration of one question to the hook, its reads included.",
    },
    Metric {
        name: HOOKS_ASKED,
        kind: Kind::Gauge,
        labels: &["participant"],
        help: "Branches whose hook is being asked; at most 256 at a time.",
    },
    Metric {
        name: BUILD_INFO,
        kind: Kind::Gauge,
        labels: &["participant", "version"],
        help: "Always 1; the labels say what runs.",
    },
];

/// From a Redis on a quiet disk (0.3 ms) to one that blocks.
const REDIS_BUCKETS_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// From a hook in this process to one that takes all the time that it has.
const HOOK_BUCKETS_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Adds the buckets of this crate's histograms to the recorder that a process's `main` installs.
pub fn configure(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    let builder = builder.set_buckets_for_metric(full(REDIS), REDIS_BUCKETS_SECONDS)?;
    builder.set_buckets_for_metric(full(HOOK_DURATION), HOOK_BUCKETS_SECONDS)
}

/// Tells the recorder the help texts. Called by [`crate::Builder::build`].
pub(crate) fn describe(participant: &ParticipantName) {
    for metric in TABLE {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, metric.help),
        }
    }
    assent_edge::describe_metrics();
    let participant = participant.to_string();
    let version = env!("CARGO_PKG_VERSION");
    gauge!(BUILD_INFO, "participant" => participant, "version" => version).set(1.0);
}

/// What came of a question to a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookSaid {
    Staged,
    Vetoed,
    Changed,
    Refused,
    Unclear,
}

impl HookSaid {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Vetoed => "vetoed",
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::Unclear => "unclear",
        }
    }
}

/// A hook that is being asked.
struct BeingAsked(Gauge);

impl Drop for BeingAsked {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// In what a participant keeps its branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptIn {
    Redis,
    Postgres,
}

/// The metrics of one participant. What is counted for every message is looked up once.
#[derive(Clone)]
pub(crate) struct Metrics {
    participant: String,
    /// By op and result.
    requests: [[Counter; 3]; 3],
    yes: Counter,
    /// How long a batch takes at what keeps the branches, and whether that answers.
    call: Histogram,
    up: &'static str,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("participant", &self.participant).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Of a participant that keeps its branches in a database, or in a Redis.
    pub(crate) fn new(participant: &ParticipantName, kept_in: KeptIn) -> Self {
        let participant = participant.to_string();
        let requests = OPS.map(|op| {
            RESULTS.map(|result| {
                counter!(REQUESTS, "participant" => participant.clone(), "op" => op, "result" => result)
            })
        });
        let yes = counter!(VOTES, "participant" => participant.clone(), "vote" => "yes");
        let (call, up) = match kept_in {
            KeptIn::Redis => (REDIS, REDIS_UP),
            KeptIn::Postgres => (POSTGRES, POSTGRES_UP),
        };
        let call = histogram!(call, "participant" => participant.clone());
        Self { participant, requests, yes, call, up }
    }

    fn participant(&self) -> String {
        self.participant.clone()
    }

    pub(crate) fn request(&self, op: &'static str, result: &'static str) {
        let place = |names: &[&str], name| names.iter().position(|known| *known == name);
        if let (Some(op), Some(result)) = (place(&OPS, op), place(&RESULTS, result)) {
            self.requests[op][result].increment(1);
        }
    }

    pub(crate) fn vote(&self, vote: &'static str) {
        match vote {
            "yes" => self.yes.increment(1),
            _ => counter!(VOTES, "participant" => self.participant(), "vote" => vote).increment(1),
        }
    }

    pub(crate) fn sole_owner(&self, is_owner: bool) {
        gauge!(SOLE_OWNER, "participant" => self.participant()).set(if is_owner {
            1.0
        } else {
            0.0
        });
    }

    pub(crate) fn stands_by(&self, it_does: bool) {
        gauge!(STANDS_BY, "participant" => self.participant()).set(if it_does { 1.0 } else { 0.0 });
    }

    pub(crate) fn passed_on(&self, result: &'static str) {
        counter!(PASSED_ON, "participant" => self.participant(), "result" => result).increment(1);
    }

    /// Whether what keeps the branches answers.
    pub(crate) fn store_up(&self, is_up: bool) {
        gauge!(self.up, "participant" => self.participant()).set(if is_up { 1.0 } else { 0.0 });
    }

    #[expect(clippy::cast_precision_loss, reason = "a server has room for some thousands")]
    pub(crate) fn postgres_prepared(&self, count: u64) {
        gauge!(POSTGRES_PREPARED, "participant" => self.participant()).set(count as f64);
    }

    /// What was known last counts on while Redis cannot be asked; that there is none is not known then.
    pub(crate) fn in_doubt(&self, count: usize, oldest_ms: u64, is_known: bool) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        let (count, oldest_ms) = match (count, is_known) {
            (0, false) => (f64::NAN, f64::NAN),
            (count, _) => (count as f64, oldest_ms as f64),
        };
        gauge!(IN_DOUBT, "participant" => self.participant()).set(count);
        gauge!(IN_DOUBT_AGE, "participant" => self.participant()).set(oldest_ms / 1_000.0);
    }

    pub(crate) fn resolver(&self, outcome: &'static str) {
        counter!(RESOLVER, "participant" => self.participant(), "outcome" => outcome).increment(1);
    }

    pub(crate) fn waiting_begins(&self) {
        gauge!(WAITING, "participant" => self.participant()).increment(1.0);
    }

    pub(crate) fn waiting_ends(&self) {
        gauge!(WAITING, "participant" => self.participant()).decrement(1.0);
    }

    /// A hook is being asked, until that is dropped.
    pub(crate) fn hook_is_asked(&self) -> impl Drop + use<> {
        let gauge = gauge!(HOOKS_ASKED, "participant" => self.participant());
        gauge.increment(1.0);
        BeingAsked(gauge)
    }

    pub(crate) fn hook_said(&self, said: HookSaid, duration: Duration) {
        let answer = said.as_str();
        counter!(HOOK_ANSWERS, "participant" => self.participant(), "answer" => answer)
            .increment(1);
        histogram!(HOOK_DURATION, "participant" => self.participant()).record(duration);
    }

    /// How long a batch took at what keeps the branches.
    pub(crate) fn store_call(&self, duration: Duration) {
        self.call.record(duration);
    }

    #[expect(clippy::cast_precision_loss, reason = "what people did by hand stays far below 2^52")]
    pub(crate) fn heuristic(&self, outcome: &'static str, branches: usize) {
        gauge!(HEURISTIC, "participant" => self.participant(), "outcome" => outcome)
            .set(branches as f64);
    }

    pub(crate) fn operator(&self, verb: &'static str) {
        counter!(OPERATOR, "participant" => self.participant(), "verb" => verb).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_stand_once() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in TABLE {
            assert!(metric.name.starts_with("assent_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"));
            assert!(metric.help.ends_with('.') && metric.labels.contains(&"participant"));
            assert!(seen.insert(metric.name), "{}", metric.name);
        }
    }
}
