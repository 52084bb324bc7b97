//! How long checks of a large history take, each as a ratio to the time of reading it.
//!
//! `cargo run --release -p assent-checkers --example large [OPERATIONS [PROCESSES]]`

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use assent_checkers::generate::{Plan, Workload, generate, to_lines};
use assent_checkers::{History, check_all};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let operations = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let processes = arguments.next().map_or(Ok(16), |text| text.parse())?;
    let mut out = std::io::stdout();
    for workload in Workload::ALL {
        let lines = to_lines(&generate(Plan { workload, operations, processes, seed: 1 }));
        let begin = Instant::now();
        let history = History::parse(&lines)?;
        let parsed = begin.elapsed();
        let reports = check_all(&history);
        let checked = begin.elapsed() - parsed;
        let ratio = checked.as_secs_f64() / parsed.as_secs_f64();
        let megabytes = lines.len() / 1_000_000;
        writeln!(
            out,
            "{workload:?}: {operations} operations, {processes} processes, {megabytes} MB: \
             read {parsed:.2?}, checked {checked:.2?} ({ratio:.1} times the reading)"
        )?;
        for report in reports.iter().filter(|report| report.examined > 0) {
            writeln!(out, "  {report}")?;
        }
    }
    Ok(())
}
