//! The verdict of a run, with its figures: for people, and as a document.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use assent_checkers::{Checker, History, Report, Verdict, check};
use serde::Serialize;

use crate::load::Tally;
use crate::schedule::Kind;

/// What the history must let a checker say something about: a workload that never ran is no success.
const MUST_HOLD: [Checker; 5] =
    [Checker::ListAppend, Checker::Bank, Checker::Counter, Checker::Atomicity, Checker::Liveness];

/// Anomalies of one checker that are told; all are in the document.
const TOLD_MAX: usize = 5;

/// What came of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) steps: u32,
    pub(crate) faults: BTreeMap<Kind, u32>,
    pub(crate) transactions: Transactions,
    /// From a healing until a branch that had been in doubt was finished.
    pub(crate) resolved: Resolved,
    /// From the end of the load until nothing was in doubt or locked.
    pub(crate) settled_ms: Option<u64>,
    /// What went wrong in plain sight: crashes, things that did not end.
    pub(crate) findings: Vec<String>,
    pub(crate) checks: Vec<Report>,
}

/// Transactions by what their clients were told.
#[derive(Debug, Serialize)]
pub(crate) struct Transactions {
    committed: u64,
    aborted: u64,
    unknown: u64,
    rejected: u64,
    unclear_at_first: u64,
}

impl Transactions {
    pub(crate) fn of(tally: &Tally) -> Self {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let rejected = read(&tally.rejected);
        Self {
            committed: read(&tally.committed),
            // Those that were not taken are told as aborted to the history, and counted apart here.
            aborted: read(&tally.aborted).saturating_sub(rejected),
            unknown: read(&tally.unknown),
            rejected,
            unclear_at_first: read(&tally.unclear_at_first),
        }
    }
}

/// How long branches stayed in doubt after a healing.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Resolved {
    branches: usize,
    p50_ms: Option<u64>,
    max_ms: Option<u64>,
}

impl Resolved {
    /// Of these times, sorted.
    pub(crate) fn of(sorted_ms: &[u64]) -> Self {
        let middle = sorted_ms.len().saturating_sub(1) / 2;
        Self {
            branches: sorted_ms.len(),
            p50_ms: sorted_ms.get(middle).copied(),
            max_ms: sorted_ms.last().copied(),
        }
    }
}

/// Runs every checker that has something to say.
pub(crate) fn judge(history: &History) -> Vec<Report> {
    MUST_HOLD.iter().map(|checker| check(*checker, history)).collect()
}

impl Outcome {
    /// Whether nothing is wrong, as far as this run can tell.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.checks.iter().all(Report::holds)
    }

    /// Lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Transactions { committed, aborted, unknown, rejected, unclear_at_first } =
            self.transactions;
        let all: u32 = self.faults.values().sum();
        let kinds: Vec<_> =
            self.faults.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        let ms = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let mut lines = vec![
            String::new(),
            format!("seed          {}, {:.0} s, {} steps", self.seed, self.seconds, self.steps),
            format!("faults        {all}: {}", kinds.join(", ")),
            format!(
                "transactions  {committed} committed, {aborted} aborted, {unknown} unknown, {rejected} not taken"
            ),
            format!("              {unclear_at_first} were unclear at first and asked for again"),
            format!(
                "in doubt      {} branches outlasted a fault; finished after {} (median), {} (longest) from the healing",
                self.resolved.branches,
                ms(self.resolved.p50_ms),
                ms(self.resolved.max_ms)
            ),
            format!("at the end    nothing in doubt or locked after {}", ms(self.settled_ms)),
        ];
        for report in &self.checks {
            lines.push(format!("{:13} {}", report.checker.as_str(), verdict(report)));
            let told = report.anomalies().iter().take(TOLD_MAX);
            lines.extend(told.map(|anomaly| format!("              {anomaly}")));
        }
        lines.extend(self.findings.iter().map(|finding| format!("finding       {finding}")));
        lines
            .push(format!("verdict       {}", if self.is_clean() { "clean" } else { "NOT CLEAN" }));
        lines
    }
}

fn verdict(report: &Report) -> String {
    let examined = report.examined;
    match &report.verdict {
        Verdict::Holds => format!("holds, {examined} examined"),
        Verdict::Violated { anomalies } => {
            format!("VIOLATED: {} anomalies in {examined}", anomalies.len())
        }
        Verdict::Unknown { .. } => format!("NOT KNOWN: {report}"),
        Verdict::Absent => "NOTHING TO EXAMINE".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use assent_checkers::Recorder;

    use super::*;

    fn outcome(checks: Vec<Report>, findings: Vec<String>) -> Outcome {
        Outcome {
            seed: 7,
            seconds: 1.0,
            steps: 1,
            faults: BTreeMap::from([(Kind::Kill, 2)]),
            transactions: Transactions::of(&Tally::default()),
            resolved: Resolved::of(&[10, 20, 90]),
            settled_ms: Some(3),
            findings,
            checks,
        }
    }

    #[test]
    fn a_run_in_which_nothing_happened_is_not_clean() {
        let nothing = outcome(judge(&Recorder::in_memory().history()), Vec::new());
        assert!(!nothing.is_clean());
        assert!(nothing.lines().last().unwrap().ends_with("NOT CLEAN"));
        assert!(outcome(Vec::new(), Vec::new()).is_clean());
        assert!(!outcome(Vec::new(), vec!["a crash".to_owned()]).is_clean());
    }

    #[test]
    fn figures_are_of_what_was_seen() {
        let text = outcome(Vec::new(), Vec::new()).lines().join("\n");
        assert!(text.contains("finished after 20 ms (median), 90 ms (longest)"), "{text}");
        assert!(Resolved::of(&[]).p50_ms.is_none());
    }
}
