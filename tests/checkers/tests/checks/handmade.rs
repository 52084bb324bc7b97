//! List-append on hand-made histories.

use assent_checkers::list_append::{Level, check, check_at};
use assent_checkers::report::Dependency;
use assent_checkers::{Anomaly, History, Name, Verdict};

use crate::support::{BAD, GOOD, names, transactions};

fn history(lines: &[&str]) -> History {
    History::of(transactions(lines)).unwrap()
}

#[test]
fn each_bad_history_has_its_anomalies_and_no_others() {
    for (what, expected, lines) in BAD {
        let report = check(&history(lines));
        assert_eq!(&names(&report), expected, "{what}: {report}");
    }
}

#[test]
fn good_histories_hold() {
    for (what, lines) in GOOD {
        let report = check(&history(lines));
        assert!(report.holds(), "{what}: {report}");
    }
}

#[test]
fn without_real_time_only_what_contradicts_it_is_good() {
    for (what, expected, lines) in BAD {
        let report = check_at(&history(lines), Level::Serializable);
        let left: Vec<&str> = expected
            .iter()
            .filter(|name| !name.ends_with("-realtime") && **name != "lost-append")
            .copied()
            .collect();
        assert_eq!(names(&report), left, "{what}: {report}");
    }
}

fn cycle(lines: &[&str], name: Name) -> Anomaly {
    let report = check(&history(lines));
    report.anomalies().iter().find(|one| one.name == name).expect("the anomaly").clone()
}

#[test]
fn a_cycle_is_minimal_closed_and_explained() {
    for (what, expected, lines) in BAD {
        for anomaly in check(&history(lines)).anomalies() {
            let steps = &anomaly.cycle;
            let witnesses: Vec<u64> = anomaly.operations.iter().map(|one| one.index).collect();
            let froms: Vec<u64> = steps.iter().map(|step| step.from).collect();
            if !steps.is_empty() {
                assert_eq!(witnesses, froms, "{what} {expected:?}");
            }
            for (step, next) in steps.iter().zip(steps.iter().cycle().skip(1)) {
                assert_eq!(step.to, next.from, "{what}: {anomaly}");
            }
        }
    }
    // A stale read long after the write: the many transactions between are not part of the reason.
    let mut lines = vec!["0 1 ok ax1".to_owned()];
    lines.extend((1..200).map(|at| format!("{} {} ok ry", at * 10, at * 10 + 5)));
    lines.push("9000 9001 ok rx".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let anomaly = cycle(&lines, Name::GSingleRealtime);
    let kinds: Vec<Dependency> = anomaly.cycle.iter().map(|step| step.dependency).collect();
    assert_eq!(kinds, [Dependency::ReadWrite, Dependency::Realtime]);
    assert!(anomaly.cycle[0].why.contains("saw x empty, without the 1"), "{anomaly}");
    // Nor is a way around by a read shorter, although real time alone takes more edges.
    let lines = [
        "0 1 ok ax1 ay1",
        "0 50 ok ry1",
        "10 15 ok rz",
        "20 25 ok rz",
        "30 35 ok rz",
        "60 61 ok rx",
    ];
    assert_eq!(cycle(&lines, Name::GSingleRealtime).cycle.len(), 2);
}

#[test]
fn real_time_adds_what_is_worse_than_what_is_wrong_without_it() {
    // Write skew, and a stale read among the same transactions.
    let lines = ["0 9 ok rx ay1", "0 9 ok ry ax1", "10 11 ok rx1 ry", "12 13 ok rx1 ry1"];
    let report = check(&history(&lines));
    assert_eq!(names(&report), ["G-single-realtime", "G2"], "{report}");
}

#[test]
fn what_says_nothing_is_unknown() {
    for (lines, why) in [
        (&["0 1 ok ax1", "2 3 ok ax1 rx1"][..], "more than once"),
        (&["0 1 ok ax1", "2 3 ok ay1"], "read anything"),
    ] {
        match check(&history(lines)).verdict {
            Verdict::Unknown { why: said } => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(check(&history(&[])).verdict, Verdict::Absent);
}
