//! `docs/reference/performance.md` and its plots. What stands outside of the markers is written by
//! people and stays.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::suite::plot::{Axis, Chart, Scale, Series, Stroke};
use crate::suite::results::{Part, Results, Subject, Who};
use crate::suite::targets;

const BEGIN: &str = "<!-- begin: written by `make bench` -->";
const END: &str = "<!-- end: written by `make bench` -->";

/// Characters of a reason in a table.
const SHORT_MAX: usize = 72;

/// The plots, and what is said where one cannot be seen.
const PLOTS: [(&str, &str); 2] = [
    ("throughput.svg", "Throughput of two-branch transfers against the number of clients"),
    ("latency.svg", "Latency of two-branch transfers against the rate of an open loop"),
];

/// Writes the page and the plots below `docs`.
pub(crate) fn write(results: &Results, docs: &Path) -> Result<(), String> {
    let page = docs.join("performance.md");
    let failed = |error: std::io::Error| format!("{}: {error}", page.display());
    let text = std::fs::read_to_string(&page).map_err(failed)?;
    let text = replaced(&text, &generated(results))
        .ok_or_else(|| format!("{} has lost its markers, {BEGIN} and {END}", page.display()))?;
    std::fs::write(&page, text).map_err(failed)?;
    let plots = docs.join("performance");
    std::fs::create_dir_all(&plots).map_err(failed)?;
    for ((name, _), chart) in PLOTS.iter().zip([throughput(results), latency(results)]) {
        std::fs::write(plots.join(name), chart.svg()).map_err(failed)?;
    }
    Ok(())
}

fn replaced(text: &str, generated: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{generated}\n{END}{after}"))
}

/// What is between the markers.
pub(crate) fn generated(results: &Results) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _written =
        write!(page, "\n## The run\n\n{}\n## Targets\n\n{}", run(results), target_table(results));
    page.push_str("\n## Transfers, clients in a closed loop\n\n");
    let _written = write!(page, "![{}](performance/{})\n\n", PLOTS[0].1, PLOTS[0].0);
    page.push_str(&clients_table(results));
    page.push_str("\n## Transfers, an open loop\n\n");
    let _written = write!(page, "![{}](performance/{})\n\n", PLOTS[1].1, PLOTS[1].0);
    page.push_str(&rates_table(results));
    page.push_str("\n## Hot keys and other workloads\n\n");
    page.push_str(&others_table(results));
    page.push_str("\n## What a transfer costs\n\n");
    page.push_str(&costs_table(results));
    page.push_str("\n## Restart\n\n");
    page.push_str(&restart(results));
    page.push_str("\n## Peers, and what was not measured\n\n");
    page.push_str(&peers(results));
    page
}

fn word<'a>(value: &'a Value, name: &str) -> std::borrow::Cow<'a, str> {
    match &value[name] {
        Value::String(text) => text.as_str().into(),
        Value::Null => "unknown".into(),
        other => other.to_string().into(),
    }
}

fn run(results: &Results) -> String {
    let Results { at, revision, repetitions, seconds, took_seconds, settings, .. } = results;
    let of = |name| word(settings, name);
    let mut text = format!(
        "| | |\n|---|---|\n\
         | when, revision | {at}, `{revision}`, {took_seconds:.0} s in all |\n\
         | machine | {}, {} cores, {} MiB, {}, {} |\n\
         | Assent | {} ({} build); decision log: {} |\n\
         | Redis | {}; `appendonly {}`, `appendfsync {}`, `auto-aof-rewrite-percentage {}` |\n\
         | between them | {}; one agent for each Redis |\n\
         | each figure | window of {seconds} s, {repetitions} repetitions, interleaved; the repetition of the median rate; \
         ratios are medians of those within a repetition |\n\
         | data | checked after each run: as reported to the clients |\n",
        of("cpu"),
        of("cores"),
        of("memory_mib"),
        of("kernel"),
        of("filesystem"),
        of("assent"),
        of("build"),
        of("decision_log"),
        of("redis"),
        of("appendonly"),
        of("appendfsync"),
        of("auto_aof_rewrite_percentage"),
        of("transport"),
    );
    if of("build") != "release" {
        text.push_str("\n**A debug build: these figures say nothing.**\n");
    }
    text
}

/// Also for the terminal.
pub(crate) fn target_table(results: &Results) -> String {
    let mut table = "| | target | this run | |\n|---|---|---|---|\n".to_owned();
    for row in targets::rows(results) {
        let (figure, word) = row.came.cells();
        let word = if word == "missed" { "**missed**" } else { word };
        let figure = short(figure).replace('|', "\\|");
        let _written = writeln!(table, "| {} | {} | {figure} | {word} |", row.what, row.target);
    }
    table
}

/// Assent and its peers, for the terminal.
pub(crate) fn comparison(results: &Results) -> String {
    format!("{}\n{}\n{}", clients_table(results), costs_table(results), peers(results))
}

/// Reasons are told in full where there is room.
fn short(text: &str) -> String {
    let end = text.char_indices().nth(SHORT_MAX).map(|(at, _)| at);
    end.map_or_else(|| text.to_owned(), |end| format!("{}…", &text[..end]))
}

const HEAD: &str =
    "tx/s (least..most) | to no atomicity | p50 ms | p99 ms | p99.9 ms | failed | retried";
const RULE: &str = "---|---|---|---|---|---|---";

/// The cells that every table of figures has.
fn figures(results: &Results, subject: &Subject) -> Option<String> {
    let median = results.median(subject)?;
    let one = median.sample;
    let ratio = results.ratio(subject, &[Who::Floor], |sample| sample.rate);
    let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    // Where nothing was committed in the window, there is no latency.
    let ms = |ms: f64| if one.rate > 0.0 { format!("{ms:.2}") } else { "-".to_owned() };
    Some(format!(
        "{:.0} ({:.0}..{:.0}) | {ratio} | {} | {} | {} | {:.1} % | {:.1} %",
        one.rate,
        median.rate_min,
        median.rate_max,
        ms(one.p50_ms),
        ms(one.p99_ms),
        ms(one.p999_ms),
        one.failed_percent,
        one.retried_percent
    ))
}

fn sorted(results: &Results, part: Part) -> Vec<&Subject> {
    let mut subjects = results.subjects(part);
    subjects.sort_by(|one, other| {
        let key = |subject: &Subject| (subject.clients, subject.who);
        one.asked_rate
            .unwrap_or(0.0)
            .total_cmp(&other.asked_rate.unwrap_or(0.0))
            .then(key(one).cmp(&key(other)))
    });
    subjects
}

fn clients_table(results: &Results) -> String {
    let mut table = format!("| clients | | {HEAD} |\n|---|---|{RULE}|\n");
    for subject in sorted(results, Part::Clients) {
        if let Some(figures) = figures(results, subject) {
            let _written =
                writeln!(table, "| {} | {} | {figures} |", subject.clients, subject.who.name());
        }
    }
    table
}

fn rates_table(results: &Results) -> String {
    let mut table = format!("| asked for, tx/s | | {HEAD} | given up |\n|---|---|{RULE}|---|\n");
    for subject in sorted(results, Part::Rates) {
        if let (Some(figures), Some(median)) = (figures(results, subject), results.median(subject))
        {
            let _written = writeln!(
                table,
                "| {:.0} | {} | {figures} | {} |",
                subject.asked_rate.unwrap_or(0.0),
                subject.who.name(),
                median.sample.unserved
            );
        }
    }
    table
}

fn others_table(results: &Results) -> String {
    let mut table =
        format!("| workload, clients | | {HEAD} | to uncontended |\n|---|---|{RULE}|---|\n");
    for part in [Part::HotOne, Part::HotOneEscrow, Part::HotZipf, Part::Others] {
        let note = if part == Part::HotOneEscrow { ", escrow" } else { "" };
        let mut subjects = results.subjects(part);
        let order: Vec<String> = subjects.iter().map(|subject| subject.workload.clone()).collect();
        let place = |subject: &Subject| order.iter().position(|name| *name == subject.workload);
        // Ways are measured in turns; here they stand in one order.
        subjects.sort_by_key(|subject| (place(subject), subject.who));
        for subject in subjects {
            let Some(figures) = figures(results, subject) else { continue };
            let ratio = results.ratio(subject, &[Who::Uncontended], |sample| sample.rate);
            let ratio = match (subject.who, ratio) {
                (Who::Applied, Some(ratio)) => format!("{ratio:.2}"),
                _ => "-".to_owned(),
            };
            let _written = writeln!(
                table,
                "| {}{note}, {} | {} | {figures} | {ratio} |",
                subject.workload,
                subject.clients,
                subject.who.name()
            );
        }
    }
    table
}

/// Who spends what for one transfer, at 64 clients.
fn costs_table(results: &Results) -> String {
    let mut table = "At 64 clients. CPU in µs for each transaction, of all processes of a kind together.\n\n\
                     | | Redis | agents | coordinator | load | machine busy | Redis, bytes written | Redis, syncs | log, syncs |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for subject in
        sorted(results, Part::Clients).into_iter().filter(|subject| subject.clients == 64)
    {
        let Some(median) = results.median(subject) else { continue };
        let costs = &median.sample.costs;
        let number = |value: &Value, digits: usize| {
            value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
        };
        let cpu = &costs["cpu_us_per_tx"];
        // Of a peer only the sum is known.
        let servers = if cpu["servers"].is_null() { &cpu["redis"] } else { &cpu["servers"] };
        let through = matches!(
            subject.who,
            Who::Applied | Who::Decided | Who::Implicit | Who::ImplicitApplied
        );
        let syncs = if through { &costs["log_syncs_per_tx"] } else { &Value::Null };
        let _written = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {:.0} % | {} | {} | {} |",
            subject.who.name(),
            number(servers, 0),
            number(&cpu["agents"], 0),
            number(&cpu["coordinator"], 0),
            number(&cpu["load"], 0),
            median.sample.machine_busy_percent,
            number(&costs["disk_bytes_per_tx"]["redis"], 0),
            number(&costs["redis_syncs_per_tx"], 2),
            number(syncs, 2),
        );
    }
    table.push_str("\nOf a peer, the first figure is that of all its servers together.\n");
    table
}

/// What `assent-lab bench recovery` says, but for its lists.
fn restart(results: &Results) -> String {
    let Some(recovery) = &results.recovery else { return "Not measured.\n".to_owned() };
    let mut table = "By `assent-lab bench recovery`.\n\n| | |\n|---|---|\n".to_owned();
    let mut row = |name: &str, value: String| {
        let _written = writeln!(table, "| `{name}` | {value} |");
    };
    let times = [("ready_ms", recovery.ready_ms), ("drain_ms", recovery.drain_ms)];
    for (name, ms) in times {
        if let Some(ms) = ms {
            row(name, format!("{ms:.0}"));
        }
    }
    for (name, value) in &recovery.others {
        match value {
            Value::Number(number) => {
                row(
                    name,
                    number.as_f64().map_or_else(String::new, |number| format!("{number:.0}")),
                );
            }
            Value::String(text) => row(name, text.clone()),
            _ => {}
        }
    }
    table
}

fn peers(results: &Results) -> String {
    let mut text = String::new();
    for (name, settings) in &results.peers {
        let pairs = settings["settings"].as_object().into_iter().flatten();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("`{name}={}`", value.as_str().unwrap_or("?")))
            .collect();
        let _written = writeln!(
            text,
            "- **{name}**, version {}: {}. {}",
            word(settings, "version"),
            pairs.join(", "),
            ["binary_log", "redis", "decision", "done", "transport"]
                .into_iter()
                .filter(|field| !settings[*field].is_null())
                .map(|field| format!("{}: {}", field.replace('_', " "), word(settings, field)))
                .collect::<Vec<_>>()
                .join("; ")
        );
    }
    for missing in &results.missing {
        let what = match (missing.part, missing.who) {
            (Part::Recovery, _) => "restarts".to_owned(),
            (Part::HotOneEscrow, _) => "one hot item with escrow".to_owned(),
            (_, Some(who)) => who.name().to_owned(),
            (part, None) => format!("{part:?}").to_lowercase(),
        };
        let line = format!("- Not measured: {what}: {}\n", missing.why);
        if !text.contains(&line) {
            text.push_str(&line);
        }
    }
    if text.is_empty() { "None in this run.\n".to_owned() } else { text }
}

/// Its own colour for each, in all plots.
const fn colour(who: Who) -> usize {
    match who {
        Who::Applied => 0,
        Who::Decided => 1,
        Who::Implicit => 2,
        Who::ImplicitApplied => 8,
        Who::Uncontended => 3,
        Who::Floor => 4,
        Who::FloorPipelined => 5,
        Who::Postgres => 7,
        Who::Mariadb => 6,
        Who::Dtmrs => 9,
    }
}

fn note(results: &Results) -> String {
    format!(
        "{} cores, everything on one machine; AOF always, decision log synced; median of {} repetitions",
        word(&results.settings, "cores"),
        results.repetitions
    )
}

fn throughput(results: &Results) -> Chart {
    let subjects = sorted(results, Part::Clients);
    let mut series: Vec<Series> = Vec::new();
    let mut ticks: Vec<f64> = subjects.iter().map(|subject| subject.clients as f64).collect();
    ticks.dedup();
    for subject in subjects {
        let Some(median) = results.median(subject) else { continue };
        if subject.who == Who::ImplicitApplied {
            continue;
        }
        let name = subject.who.name();
        let place = series.iter().position(|one| one.name == name).unwrap_or_else(|| {
            let stroke = match subject.who {
                Who::Floor | Who::FloorPipelined => Stroke::Dashed,
                Who::Postgres | Who::Mariadb | Who::Dtmrs => Stroke::Dotted,
                _ => Stroke::Solid,
            };
            let colour = colour(subject.who);
            let (points, ranges) = (Vec::new(), Vec::new());
            series.push(Series { name: name.to_owned(), colour, stroke, points, ranges });
            series.len() - 1
        });
        series[place].points.push((subject.clients as f64, median.sample.rate));
        series[place].ranges.push((median.rate_min, median.rate_max));
    }
    Chart {
        title: "Two-branch transfers: throughput against clients".to_owned(),
        note: note(results),
        x: Axis {
            label: "clients, each waiting for its answer".to_owned(),
            scale: Scale::Log,
            ticks,
        },
        y: Axis {
            label: "committed transactions a second".to_owned(),
            scale: Scale::Log,
            ticks: Vec::new(),
        },
        series,
    }
}

fn latency(results: &Results) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    for subject in sorted(results, Part::Rates) {
        let shown = [Who::Applied, Who::Decided, Who::Implicit, Who::Floor].contains(&subject.who);
        let (Some(median), Some(rate), true) = (results.median(subject), subject.asked_rate, shown)
        else {
            continue;
        };
        let one = median.sample;
        for (quantile, ms, stroke) in
            [("p50", one.p50_ms, Stroke::Solid), ("p99", one.p99_ms, Stroke::Dashed)]
        {
            let name = format!("{}, {quantile}", subject.who.name());
            match series.iter_mut().find(|one| one.name == name) {
                Some(known) => known.points.push((rate, ms)),
                None => series.push(Series {
                    name,
                    colour: colour(subject.who),
                    stroke,
                    points: vec![(rate, ms)],
                    ranges: Vec::new(),
                }),
            }
        }
    }
    Chart {
        title: "Two-branch transfers: latency against rate, from the intended start".to_owned(),
        note: note(results),
        x: Axis {
            label: "transactions begun a second (open loop, Poisson)".to_owned(),
            scale: Scale::Linear,
            ticks: Vec::new(),
        },
        y: Axis { label: "latency, ms".to_owned(), scale: Scale::Log, ticks: Vec::new() },
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::results::tests_support::{sample, subject};

    fn results() -> Results {
        let mut samples = Vec::new();
        for repetition in 1..=3 {
            for clients in [1, 64, 256] {
                for (who, rate) in [(Who::Floor, 900.0), (Who::Applied, 600.0), (Who::Dtmrs, 100.0)]
                {
                    let rate = rate * clients as f64 + f64::from(repetition);
                    samples.push((
                        subject(Part::Clients, clients, who),
                        sample(repetition, rate, 1.5),
                    ));
                }
            }
            for rate in [100.0, 200.0] {
                let of = subject(Part::Rates, 64, Who::Applied);
                let of = Subject { asked_rate: Some(rate), ..of };
                samples.push((of, sample(repetition, rate, 2.0)));
            }
        }
        Results { samples, repetitions: 3, ..Results::default() }
    }

    #[test]
    fn what_people_wrote_stays_and_what_was_written_before_goes() {
        let page = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nBy hand.\n");
        let text = replaced(&page, "new").unwrap();
        assert_eq!(text, format!("# Title\n\n{BEGIN}\nnew\n{END}\n\nBy hand.\n"));
        assert_eq!(replaced(&text, "new").unwrap(), text);
        assert_eq!(replaced("no markers", "new"), None);
    }

    #[test]
    fn the_page_has_each_figure_with_its_ratio_and_says_what_was_not_measured() {
        let text = generated(&results());
        assert!(text.contains("| 64 | Assent, applied | 38402 (38401..38403) | 0.67 |"), "{text}");
        assert!(text.contains("not part of this run | not measured |"), "{text}");
        assert!(text.contains("(performance/throughput.svg)"), "{text}");
    }

    #[test]
    fn the_plots_have_a_line_for_each_who_was_measured() {
        let chart = throughput(&results());
        assert_eq!(chart.series.len(), 3);
        assert_eq!(chart.x.ticks, [1.0, 64.0, 256.0]);
        assert!(chart.series.iter().all(|series| series.points.len() == 3));
        assert_eq!(latency(&results()).series.len(), 2);
    }
}
