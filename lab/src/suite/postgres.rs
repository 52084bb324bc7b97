//! `assent-lab postgres`: what a transfer between a Redis and a database costs by Assent, beside
//! one between two databases by PostgreSQL's own two-phase commit, in one run.

use std::path::Path;
use std::time::Duration;

use assent::{Exit, Failure, output};
use clap::Args;

use super::peers::{BothWays, TwoPhase};
use super::results::Sample;

/// The flags of `assent-lab postgres`.
#[derive(Debug, Args)]
pub(crate) struct PostgresArgs {
    /// Clients at once
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_name = "LIST")]
    clients: Vec<usize>,
    /// Measured time of each way in each repetition
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often; the figures are medians
    #[arg(long, default_value_t = 3)]
    repetitions: u32,
    /// Of the branches in the database; by hand it is PostgreSQL's default, read committed
    #[arg(long, default_value = "serializable")]
    isolation: String,
}

/// Measures both ways in turns, and prints what it measured.
pub(crate) fn beside_postgres(args: &PostgresArgs, binary: &Path) -> Result<Exit, Failure> {
    let fits = (0.05..=3_600.0).contains(&args.seconds) && (1..=1_000).contains(&args.repetitions);
    if !fits || args.clients.iter().any(|clients| !(1..=200).contains(clients)) {
        let limits = "--clients up to 200, --seconds up to 3600, --repetitions up to 1000";
        return Err(Failure::usage(limits));
    }
    let runtime = assent::runtime::start(1)?;
    let table = runtime.block_on(measure(args, binary)).map_err(Failure::error)?;
    output::line(&table)?;
    Ok(Exit::Ok)
}

async fn measure(args: &PostgresArgs, binary: &Path) -> Result<String, String> {
    let dir = tempfile::Builder::new().prefix("assent-bench-postgres-").tempdir();
    let dir = dir.map_err(|error| format!("no temporary directory: {error}"))?;
    let mut both = BothWays::start(dir.path(), binary, &args.isolation).await?;
    let duration = Duration::from_secs_f64(args.seconds);
    let mut lines = vec![
        format!(
            "Transfers, one account at each side; medians of {} times {} s, in turns; every answer \
             and both sums checked.",
            args.repetitions, args.seconds
        ),
        format!(
            "Assent: a Redis (appendfsync always) and a database ({}). By hand: two databases, \
             PREPARE TRANSACTION, a decision on disk, COMMIT PREPARED (read committed).",
            args.isolation
        ),
        "clients   Assent/s  by hand/s  ratio   p50 ms Assent, by hand   p99 ms   failed %"
            .to_owned(),
    ];
    for clients in &args.clients {
        let (mut assent, mut by_hand) = (Vec::new(), Vec::new());
        for repetition in 1..=args.repetitions {
            let mut ways = [TwoPhase::Assent, TwoPhase::ByHand];
            if repetition % 2 == 0 {
                ways.reverse();
            }
            for way in ways {
                let sample = both.measure(way, *clients, duration, repetition).await?;
                match way {
                    TwoPhase::Assent => assent.push(sample),
                    TwoPhase::ByHand => by_hand.push(sample),
                }
            }
        }
        lines.push(row(*clients, &assent, &by_hand));
    }
    Ok(lines.join("\n"))
}

fn row(clients: usize, assent: &[Sample], by_hand: &[Sample]) -> String {
    let of = |figure: fn(&Sample) -> f64| (median(assent, figure), median(by_hand, figure));
    let (rate, other_rate) = of(|sample| sample.rate);
    let (p50, other_p50) = of(|sample| sample.p50_ms);
    let (p99, other_p99) = of(|sample| sample.p99_ms);
    let (failed, other_failed) = of(|sample| sample.failed_percent);
    let ratio = rate / other_rate;
    format!(
        "{clients:7} {rate:10.0} {other_rate:10.0} {ratio:6.2}   {p50:12.2}, {other_p50:7.2}   \
         {p99:.1}, {other_p99:.1}   {failed:.2}, {other_failed:.2}"
    )
}

fn median(samples: &[Sample], figure: fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() % 2 {
        _ if figures.is_empty() => 0.0,
        1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_medians_of_both_ways() {
        let rates = |rates: &[f64]| -> Vec<Sample> {
            rates.iter().map(|rate| Sample { rate: *rate, ..Sample::default() }).collect()
        };
        let row = row(16, &rates(&[100.0, 900.0, 300.0]), &rates(&[100.0, 200.0]));
        let words: Vec<&str> = row.split_whitespace().take(4).collect();
        assert_eq!(words, ["16", "300", "150", "2.00"]);
    }
}
