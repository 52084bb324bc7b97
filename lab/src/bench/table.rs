//! The report for people.

use assent::{
    Failure,
    output::{self, Rows},
};

use super::client::{Keys, Way};
use super::report::{ByKind, Cell, Report};
use super::unit::{Ack, Escrow, Mode, Protocol};
use super::workload::Shape;

/// Writes it to stdout.
pub(super) fn tell(report: &Report) -> Result<(), Failure> {
    for line in head(report) {
        output::line(&line)?;
    }
    output::rows(&rates(report))?;
    output::line("")?;
    output::rows(&costs(report))?;
    output::line("")?;
    for line in foot(report) {
        output::line(&line)?;
    }
    Ok(())
}

fn head(report: &Report) -> Vec<String> {
    let Report { settings, seconds, repetitions, accounts, .. } = report;
    let machine = &settings.machine;
    let keys = match report.idempotency_keys {
        Keys::None => "no idempotency keys",
        Keys::Each => "an idempotency key each",
    };
    let escrow = match report.escrow {
        Escrow::NotAsked => "",
        Escrow::Asked => ", escrow",
    };
    vec![
        format!(
            "assent {} ({} build), Redis {}: appendonly {}, appendfsync {}; decision log: {}",
            settings.assent,
            settings.build,
            settings.redis,
            settings.appendonly,
            settings.appendfsync,
            settings.decision_log
        ),
        format!(
            "{}, {} cores, {}, {}; everything on this machine, {}",
            machine.cpu, machine.cores, machine.kernel, machine.filesystem, settings.transport
        ),
        format!(
            "{accounts} accounts at each participant, {keys}{escrow}; {repetitions} repetitions of {seconds} s a way, \
             interleaved; each row is the repetition of the median rate"
        ),
    ]
}

fn rates(report: &Report) -> Rows {
    let mut rows = Rows::new(&[
        "WORKLOAD",
        "LOAD",
        "WAY",
        "TX/S",
        "MIN..MAX",
        "TO FLOOR",
        "TO PIPEL.",
        "TO UNCONT.",
        "TO HTTP",
        "P50 MS",
        "P50 TO FL.",
        "P99 MS",
        "P99.9 MS",
        "FAILED",
        "RETRIED",
    ]);
    let ratio =
        |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    for cell in &report.cells {
        let one = &cell.median;
        // Where nothing was committed in the window, there is no latency.
        let ms = |ms: f64| if one.committed > 0 { format!("{ms:.2}") } else { "-".to_owned() };
        rows.push([
            workload(cell.subject.shape),
            load(cell),
            way(cell.subject.way).to_owned(),
            format!("{:.0}", one.rate),
            format!("{:.0}..{:.0}", cell.rate_min, cell.rate_max),
            ratio(cell.rate_to_floor),
            ratio(cell.rate_to_floor_pipelined),
            ratio(cell.rate_to_uncontended),
            ratio(cell.rate_to_http),
            ms(one.p50_ms),
            ratio(cell.p50_to_floor),
            ms(one.p99_ms),
            ms(one.p999_ms),
            format!("{:.1}%", one.failed_percent),
            format!("{:.1}%", one.retried_percent),
        ]);
    }
    rows
}

fn costs(report: &Report) -> Rows {
    let mut rows = Rows::new(&[
        "WORKLOAD",
        "LOAD",
        "WAY",
        "CPU US/TX: REDIS",
        "AGENTS",
        "COORD",
        "LOAD",
        "BUSY",
        "OTHERS",
        "DISK BYTES/TX: REDIS",
        "LOG",
        "SYNCS/TX: REDIS",
        "LOG",
    ]);
    for cell in &report.cells {
        let one = &cell.median;
        let ByKind { redis, agents, coordinator, load: generator } = one.cpu_us_per_tx;
        let through = !cell.subject.way.is_floor();
        let syncs = |syncs: Option<f64>| {
            syncs.map_or_else(|| "-".to_owned(), |syncs| format!("{syncs:.2}"))
        };
        rows.push([
            workload(cell.subject.shape),
            load(cell),
            way(cell.subject.way).to_owned(),
            format!("{redis:.0}"),
            format!("{agents:.0}"),
            format!("{coordinator:.0}"),
            format!("{generator:.0}"),
            format!("{:.0}%", one.machine_busy_percent),
            format!("{:.0}%", one.others_busy_percent),
            format!("{:.0}", one.disk_bytes_per_tx.redis),
            format!("{:.0}", one.disk_bytes_per_tx.coordinator),
            syncs(one.redis_syncs_per_tx),
            syncs(one.log_syncs_per_tx.filter(|_| through)),
        ]);
    }
    rows
}

fn foot(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for cell in &report.cells {
        if let Some(lateness) = cell.median.lateness {
            lines.push(format!(
                "{} {}: the generator itself began late by {:.2} ms (p50), {:.2} ms (p99); {} arrivals were given up",
                load(cell),
                way(cell.subject.way),
                lateness.p50_ms,
                lateness.p99_ms,
                lateness.unserved
            ));
        }
        if cell.median.failed_percent > 0.0 {
            let failed = &cell.median.failed;
            let codes: Vec<String> =
                failed.iter().map(|(code, count)| format!("{code} {count}")).collect();
            lines.push(format!(
                "{} {} {}, failed: {}",
                workload(cell.subject.shape),
                load(cell),
                way(cell.subject.way),
                codes.join(", ")
            ));
        }
    }
    for missing in &report.not_measured {
        lines.push(format!("not measured: {}: {}", way(missing.way), missing.why));
    }
    lines.push(
        "syncs of Redis: its writes less its reads (/proc/PID/io); syncs and bytes of the log: its own count"
            .to_owned(),
    );
    let verdict = &report.verdict;
    let about = format!(
        "{} answers, {} of them asked for again; {} keys summed up, {} values compared",
        verdict.answered, verdict.resolved, verdict.counted_keys, verdict.compared_values
    );
    if verdict.as_reported {
        lines.push(format!("data: as reported ({about})"));
    } else {
        lines.push(format!("data: NOT AS REPORTED ({about})"));
        lines.extend(verdict.findings.iter().map(|finding| format!("  {finding}")));
    }
    lines
}

fn load(cell: &Cell) -> String {
    match cell.subject.asked_rate {
        None => format!("{} clients", cell.subject.clients),
        Some(rate) => format!("{rate:.0}/s"),
    }
}

pub(super) fn workload(shape: Shape) -> String {
    match shape {
        Shape::Transfer { writes: 1 } => "transfer".to_owned(),
        Shape::Transfer { writes } => format!("transfer {writes} writes"),
        Shape::Smallbank => "smallbank".to_owned(),
        Shape::Wide { branches } => format!("wide {branches}"),
        Shape::Read => "read".to_owned(),
        Shape::Get => "get".to_owned(),
        Shape::Hot { keys: 1, .. } => "hot 1 key".to_owned(),
        Shape::Hot { keys, zipf } => format!("hot {keys} keys zipf {zipf}"),
        Shape::Large { bytes } => format!("large {bytes} B"),
    }
}

pub(super) const fn way(way: Way) -> &'static str {
    match way {
        Way::Floor => "floor",
        Way::FloorPipelined => "floor, pipelined",
        Way::Uncontended(_) => "uncontended",
        Way::Assent(Mode { ack, protocol }) => match (protocol, ack) {
            (Protocol::Logged, Ack::Applied) => "assent, applied",
            (Protocol::Logged, Ack::Decided) => "assent, decided",
            (Protocol::Implicit, Ack::Applied) => "assent, implicit applied",
            (Protocol::Implicit, Ack::Decided) => "assent, implicit",
        },
        Way::Port => "assent, Redis port",
        Way::PortPipelined => "assent, Redis port, pipelined",
    }
}
