//! Every metric of the coordinator: names, labels, help, and the few functions that record them.

use assent_common::coordinator::Outcome;
use assent_common::wire::transaction::ParticipantData;
use assent_common::{ParticipantName, limits};
use assent_engine::InteractiveCounts;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::engine::Counts;

const TRANSACTIONS: &str = "assent_transactions_total";
const DURATION: &str = "assent_transaction_duration_seconds";
const ACTIVE: &str = "assent_transactions_active";
const IN_DOUBT: &str = "assent_transactions_in_doubt";
const IN_DOUBT_OLDEST: &str = "assent_in_doubt_oldest_age_seconds";
const PARTICIPANT_UP: &str = "assent_participant_up";
const REDIS_UP: &str = "assent_participant_redis_up";
const PARTICIPANT_AWAY: &str = "assent_participant_away";
const STALE_LOG: &str = "assent_participant_stale_log";
const BATCH_MESSAGES: &str = "assent_batch_messages";
const BRANCHES_LOST: &str = "assent_branches_lost";
const HEURISTIC: &str = "assent_branches_heuristic";
const DATA: &str = "assent_participant_data";
const REDONE: &str = "assent_branches_redone_total";
const HISTORY: &str = "assent_history_transactions";
const INTERACTIVE: &str = "assent_interactive_transactions";
const INTERACTIVE_MAX: &str = "assent_interactive_transactions_max";
const INTERACTIVE_ENDED: &str = "assent_interactive_ended_total";
const BUILD_INFO: &str = "assent_build_info";

/// The buckets of durations, in seconds: from a quiet machine's round trip to a timeout.
pub const DURATION_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The states that [`ACTIVE`] has a series for, so that a state that empties goes to zero.
const STATES: &[&str] = &["preparing", "retrying", "deciding", "committing", "aborting", "asking"];

/// The states of [`DATA`].
const DATA_STATES: &[(&str, ParticipantData)] = &[
    ("open", ParticipantData::Open),
    ("resynchronising", ParticipantData::Resynchronising),
    ("lost", ParticipantData::Lost),
];

/// Registers the help texts with the installed recorder.
pub fn describe() {
    describe_counter!(
        TRANSACTIONS,
        "Transactions answered, by outcome and by the code of an abort"
    );
    describe_histogram!(DURATION, "Seconds from taking a transaction to its answer, by outcome");
    describe_gauge!(ACTIVE, "Transactions that have not ended, by state");
    describe_gauge!(
        IN_DOUBT,
        "Branches that have not acknowledged a decided outcome, by participant"
    );
    describe_gauge!(IN_DOUBT_OLDEST, "Age of the oldest such decision in seconds, by participant");
    describe_gauge!(PARTICIPANT_UP, "Whether the last message to a participant was answered");
    describe_gauge!(
        REDIS_UP,
        "Whether a participant's Redis answers, as its last answers tell; NaN while it gives none"
    );
    describe_gauge!(
        PARTICIPANT_AWAY,
        "Whether transactions that name the participant are refused at once, because it has not answered for a while"
    );
    describe_gauge!(
        STALE_LOG,
        "Whether the participant takes this log for an old or a forked copy without showing that \
         it is one, so that transactions that name it are refused"
    );
    describe_histogram!(BATCH_MESSAGES, "Messages in one batch to a participant");
    describe_gauge!(BRANCHES_LOST, "Committed branches whose participant lost its data");
    describe_gauge!(
        HEURISTIC,
        "Branches that an operator ended by hand against what the log says, by participant and by how they ended there; \
         of transactions that are kept"
    );
    describe_gauge!(
        DATA,
        "1 for what a participant's data is: open, resynchronising after a loss, or lost until an operator decides"
    );
    describe_counter!(REDONE, "Branches applied again at a participant whose Redis had lost them");
    describe_gauge!(HISTORY, "Ended transactions whose answers can be looked up");
    describe_gauge!(INTERACTIVE, "Interactive transactions that are active");
    describe_gauge!(INTERACTIVE_MAX, "Interactive transactions that may be active");
    describe_counter!(
        INTERACTIVE_ENDED,
        "Interactive transactions that have ended, by how: decided, cancelled, expired, \
         read_changed"
    );
    describe_gauge!(BUILD_INFO, "1, with the version as a label");
    assent_edge::describe_metrics();
    assent_resp::describe_metrics();
}

/// Sets the gauges, before a scrape.
pub fn observe(counts: &Counts) {
    for state in STATES {
        gauge!(ACTIVE, "state" => *state)
            .set(as_f64(counts.active.get(state).copied().unwrap_or(0)));
    }
    for (participant, (branches, oldest_ms)) in &counts.in_doubt {
        gauge!(IN_DOUBT, "participant" => participant.clone()).set(as_f64(*branches));
        gauge!(IN_DOUBT_OLDEST, "participant" => participant.clone())
            .set(as_f64(*oldest_ms) / 1_000.0);
    }
    for participant in counts.data.keys() {
        // Absent, it could not be told from none.
        counter!(REDONE, "participant" => participant.clone()).increment(0);
    }
    for (participant, up) in &counts.up {
        gauge!(PARTICIPANT_UP, "participant" => participant.clone()).set(if *up {
            1.0
        } else {
            0.0
        });
    }
    for (participant, up) in &counts.redis_up {
        let up = up.map_or(f64::NAN, |up| f64::from(u8::from(up)));
        gauge!(REDIS_UP, "participant" => participant.clone()).set(up);
    }
    for (participant, away) in &counts.away {
        gauge!(PARTICIPANT_AWAY, "participant" => participant.clone())
            .set(f64::from(u8::from(*away)));
    }
    for (participant, is_stale) in &counts.stale_log {
        gauge!(STALE_LOG, "participant" => participant.clone()).set(f64::from(u8::from(*is_stale)));
    }
    for (participant, data) in &counts.data {
        for (word, state) in DATA_STATES {
            gauge!(DATA, "participant" => participant.clone(), "state" => *word)
                .set(if data == state { 1.0 } else { 0.0 });
        }
    }
    for ((participant, outcome), branches) in &counts.heuristic {
        gauge!(HEURISTIC, "participant" => participant.clone(), "outcome" => *outcome)
            .set(as_f64(*branches));
    }
    gauge!(BRANCHES_LOST).set(as_f64(counts.lost));
    gauge!(HISTORY).set(as_f64(counts.history));
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "role" => "coordinator").set(1.0);
}

/// Sets those of interactive transactions, before a scrape.
pub fn observe_interactive(counts: &InteractiveCounts) {
    gauge!(INTERACTIVE).set(as_f64(counts.active as u64));
    gauge!(INTERACTIVE_MAX).set(as_f64(limits::INTERACTIVE_MAX as u64));
    for how in ["decided", "cancelled", "expired", "read_changed"] {
        let ended = counts.ended.get(how).copied().unwrap_or(0);
        counter!(INTERACTIVE_ENDED, "how" => how).absolute(ended);
    }
}

/// The rendered metrics without the series of participants that are registered no more: a recorder forgets none by itself.
#[must_use]
pub fn without_removed(text: &str, removed: &[String]) -> String {
    let labels: Vec<String> =
        removed.iter().map(|name| format!("participant=\"{name}\"")).collect();
    let is_of_removed = |line: &str| labels.iter().any(|label| line.contains(label));
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n').filter(|line| !is_of_removed(line)) {
        kept.push_str(line);
    }
    kept
}

/// Returns the words that it is counted under.
pub(crate) fn transaction_answered(
    outcome: &Outcome,
    duration_ms: u64,
) -> (&'static str, &'static str) {
    let (word, code) = match outcome {
        Outcome::Committed { .. } => ("committed", ""),
        Outcome::Aborted(failure) => ("aborted", failure.refusal.code.as_str()),
    };
    counter!(TRANSACTIONS, "outcome" => word, "code" => code).increment(1);
    histogram!(DURATION, "outcome" => word).record(as_f64(duration_ms) / 1_000.0);
    (word, code)
}

pub(crate) fn branches_redone(participant: &ParticipantName, branches: u64) {
    counter!(REDONE, "participant" => participant.to_string()).increment(branches);
}

pub(crate) fn batch_sent(participant: &ParticipantName, messages: usize) {
    histogram!(BATCH_MESSAGES, "participant" => participant.to_string())
        .record(as_f64(messages as u64));
}

#[expect(clippy::cast_precision_loss, reason = "counts and durations stay far below 2^52")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::without_removed;

    #[test]
    fn the_series_of_who_is_gone_go_and_all_others_stay() {
        let text = "# HELP up Whether\nup{participant=\"a\"} 1\nup{participant=\"ab\",x=\"y\"} 1\n\
                    n_bucket{participant=\"b\",le=\"1\"} 2\nall 3\n";
        let kept = without_removed(text, &["ab".to_owned(), "b".to_owned()]);
        assert_eq!(kept, "# HELP up Whether\nup{participant=\"a\"} 1\nall 3\n");
        assert_eq!(without_removed(text, &[]), text);
    }
}
