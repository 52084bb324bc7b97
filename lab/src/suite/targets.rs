//! The targets, and whether a run met them.

use crate::suite::results::{Part, Results, Sample, Subject, Who};

/// Which way a figure should go.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// What came of a target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Came {
    Met(String),
    Missed(String),
    NotMeasured(String),
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) target: String,
    pub(crate) came: Came,
}

impl Target {
    fn is_met_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

/// The table of issue 4.
pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let mut rows = vec![
        rate_to_floor(
            results,
            "transfer, 64 clients, applied / no atomicity",
            64,
            Who::Applied,
            0.6,
        ),
        rate_to_floor(results, "the same, answered when decided", 64, Who::Decided, 0.7),
        rate_to_floor(results, "the same, implicit", 64, Who::Implicit, 0.75),
        rate_to_floor(
            results,
            "transfer, 256 clients, applied / no atomicity",
            256,
            Who::Applied,
            0.6,
        ),
        p50_to_floor(
            results,
            "p50 at 1 client / that without atomicity: applied",
            Who::Applied,
            2.8,
        ),
        p50_to_floor(results, "the same, decided", Who::Decided, 2.0),
        p50_to_floor(results, "the same, implicit", Who::Implicit, 1.6),
        hot_one(results),
        hot_zipf(results),
        against_peers(
            results,
            "transfer, 64 clients / the better of PostgreSQL 2PC and MariaDB XA",
            &[Who::Postgres, Who::Mariadb],
            5.0,
        ),
        against_peers(results, "the same / a saga of dtmrs", &[Who::Dtmrs], 2.0),
    ];
    rows.extend(recovery(results));
    rows
}

fn row(
    what: &'static str,
    target: Target,
    unit: &str,
    figure: Result<(f64, String), String>,
) -> Row {
    let sign = if matches!(target, Target::AtLeast(_)) { "≥" } else { "≤" };
    let (Target::AtLeast(bound) | Target::AtMost(bound)) = target;
    let came = match figure {
        Err(why) => Came::NotMeasured(why),
        Ok((figure, note)) => {
            let text = format!("{figure:.2}{unit}{note}");
            if target.is_met_by(figure) { Came::Met(text) } else { Came::Missed(text) }
        }
    };
    Row { what, target: format!("{sign} {bound}{unit}"), came }
}

fn transfer(part: Part, clients: usize, who: Who) -> Subject {
    Subject { part, workload: "transfer".to_owned(), clients, asked_rate: None, who }
}

/// The ratio, or why there is none.
fn ratio(
    results: &Results,
    subject: &Subject,
    others: &[Who],
    figure: fn(&Sample) -> f64,
) -> Result<f64, String> {
    results.ratio(subject, others, figure).ok_or_else(|| {
        let whom = std::iter::once(&subject.who).chain(others);
        let mut whys = whom.filter_map(|who| results.why_missing(subject.part, *who));
        whys.next().map_or_else(|| "not part of this run".to_owned(), str::to_owned)
    })
}

fn rate_to_floor(
    results: &Results,
    what: &'static str,
    clients: usize,
    who: Who,
    bound: f64,
) -> Row {
    let subject = transfer(Part::Clients, clients, who);
    let figure = ratio(results, &subject, &[Who::Floor], |sample| sample.rate);
    row(what, Target::AtLeast(bound), "", figure.map(|figure| (figure, String::new())))
}

fn p50_to_floor(results: &Results, what: &'static str, who: Who, bound: f64) -> Row {
    let subject = transfer(Part::Clients, 1, who);
    let figure = ratio(results, &subject, &[Who::Floor], |sample| sample.p50_ms);
    row(what, Target::AtMost(bound), "", figure.map(|figure| (figure, String::new())))
}

fn against_peers(results: &Results, what: &'static str, peers: &[Who], bound: f64) -> Row {
    let subject = transfer(Part::Clients, 64, Who::Applied);
    let figure = ratio(results, &subject, peers, |sample| sample.rate);
    // Of two peers, the one that is there is not the better one.
    let absent = |who: &&Who| {
        let other = Subject { who: **who, ..subject.clone() };
        results.median(&other).is_none()
    };
    let missing = peers.iter().filter(absent).find_map(|who| {
        let why = results.why_missing(subject.part, *who)?;
        Some(format!(" (without {}: {why})", who.name()))
    });
    let figure = figure.map(|figure| (figure, missing.unwrap_or_default()));
    row(what, Target::AtLeast(bound), " ×", figure)
}

fn of_part(results: &Results, part: Part, who: Who) -> Option<Subject> {
    results.subjects(part).into_iter().find(|subject| subject.who == who).cloned()
}

fn hot_one(results: &Results) -> Row {
    let what = "one hot counter, 64 clients, escrow / uncontended; no abort seen";
    let target = Target::AtLeast(0.8);
    let part = Part::HotOneEscrow;
    let why =
        || results.why_missing(part, Who::Applied).unwrap_or("not part of this run").to_owned();
    let Some(subject) = of_part(results, part, Who::Applied) else {
        return row(what, target, "", Err(why()));
    };
    let figure = ratio(results, &subject, &[Who::Uncontended], |sample| sample.rate);
    let failed = results.worst(&subject, |sample| sample.failed_percent);
    let note =
        if failed > 0.0 { format!(", {failed:.1} % aborted") } else { ", none aborted".to_owned() };
    let mut row = row(what, target, "", figure.map(|figure| (figure, note)));
    // Both belong to the target.
    if let (Came::Met(text), true) = (&row.came, failed > 0.0) {
        row.came = Came::Missed(text.clone());
    }
    row
}

fn hot_zipf(results: &Results) -> Row {
    let what = "Zipf 1.0 over 1,000 items, 64 clients / uncontended";
    let figure = of_part(results, Part::HotZipf, Who::Applied)
        .ok_or_else(|| "not part of this run".to_owned())
        .and_then(|subject| ratio(results, &subject, &[Who::Uncontended], |sample| sample.rate));
    row(what, Target::AtLeast(0.6), "", figure.map(|figure| (figure, String::new())))
}

fn recovery(results: &Results) -> [Row; 2] {
    let missing = results.missing.iter().find(|missing| missing.part == Part::Recovery);
    let why = || missing.map_or("not part of this run", |missing| missing.why.as_str()).to_owned();
    let seconds = |ms: Option<f64>| ms.map(|ms| (ms / 1_000.0, String::new())).ok_or_else(why);
    let found = results.recovery.clone().unwrap_or_default();
    [
        row(
            "restart: ready after 1,000,000 ended and 10,000 unfinished transactions",
            Target::AtMost(2.0),
            " s",
            seconds(found.ready_ms),
        ),
        row("restart: 10,000 in doubt drained", Target::AtMost(5.0), " s", seconds(found.drain_ms)),
    ]
}

impl Came {
    /// The figure or the reason, and the word.
    pub(crate) fn cells(&self) -> (&str, &'static str) {
        match self {
            Self::Met(text) => (text, "met"),
            Self::Missed(text) => (text, "missed"),
            Self::NotMeasured(why) => (why, "not measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::results::tests_support::{sample, subject};
    use crate::suite::results::{Missing, Recovery};

    fn came<'a>(rows: &'a [Row], what: &str) -> &'a Came {
        &rows.iter().find(|row| row.what.contains(what)).unwrap().came
    }

    fn results() -> Results {
        let at =
            |clients, who, rate, p50| (subject(Part::Clients, clients, who), sample(1, rate, p50));
        let hot = |who, rate| (subject(Part::HotOneEscrow, 64, who), sample(1, rate, 1.0));
        let samples = vec![
            at(64, Who::Floor, 1_000.0, 1.0),
            at(64, Who::Applied, 650.0, 1.0),
            at(64, Who::Decided, 650.0, 1.0),
            at(64, Who::Postgres, 100.0, 1.0),
            at(1, Who::Floor, 1_000.0, 1.0),
            at(1, Who::Applied, 400.0, 2.5),
            hot(Who::Uncontended, 100.0),
            hot(Who::Applied, 90.0),
        ];
        let missing = vec![
            Missing {
                part: Part::Clients,
                who: Some(Who::Implicit),
                why: "no such field".to_owned(),
            },
            Missing {
                part: Part::Clients,
                who: Some(Who::Mariadb),
                why: "not installed".to_owned(),
            },
        ];
        let recovery = Some(Recovery { ready_ms: Some(2_500.0), ..Recovery::default() });
        Results { samples, missing, recovery, ..Results::default() }
    }

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let rows = rows(&results());
        assert_eq!(rows.len(), 13);
        assert_eq!(came(&rows, "64 clients, applied"), &Came::Met("0.65".to_owned()));
        assert_eq!(came(&rows, "answered when decided"), &Came::Missed("0.65".to_owned()));
        assert_eq!(
            came(&rows, "the same, implicit"),
            &Came::NotMeasured("no such field".to_owned())
        );
        assert_eq!(came(&rows, "p50 at 1 client"), &Came::Met("2.50".to_owned()));
        assert_eq!(came(&rows, "ready after"), &Came::Missed("2.50 s".to_owned()));
        assert!(matches!(came(&rows, "in doubt drained"), Came::NotMeasured(_)));
        assert!(matches!(came(&rows, "256 clients"), Came::NotMeasured(_)));
    }

    #[test]
    fn what_is_missing_of_the_peers_is_said() {
        let rows = rows(&results());
        let expected = "6.50 × (without MariaDB XA: not installed)";
        assert_eq!(came(&rows, "better of PostgreSQL"), &Came::Met(expected.to_owned()));
        assert!(matches!(came(&rows, "dtmrs"), Came::NotMeasured(_)));
    }

    #[test]
    fn a_hot_counter_that_aborts_for_a_client_misses_however_fast_it_is() {
        let mut results = results();
        assert_eq!(
            came(&rows(&results), "one hot counter"),
            &Came::Met("0.90, none aborted".to_owned())
        );
        for (subject, sample) in &mut results.samples {
            if subject.who == Who::Applied {
                sample.failed_percent = 1.0;
            }
        }
        assert!(matches!(came(&rows(&results), "one hot counter"), Came::Missed(_)));
    }
}
