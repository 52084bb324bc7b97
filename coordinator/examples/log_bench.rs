//! Measures the decision log on this machine's disk: `cargo run --release --example log_bench [dir]`.
//!
//! Each appender waits for its record before it sends the next, as transactions do; syncs are counted as batches.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool that prints figures")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use assent_coordinator::log::{Callbacks, DecisionLog, Durability, LogOptions, init, open};

const PAYLOAD: usize = 300;
const RUN: Duration = Duration::from_secs(3);

fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("assent-log-bench-{}", std::process::id()));
    let options = LogOptions::new(&dir);
    let begun = Instant::now();
    init(&options).unwrap();
    println!("init, 64 MiB segment: {:.0?}", begun.elapsed());
    for appenders in [1, 16, 64, 256] {
        closed_loop(&options, appenders);
    }
    replay(&options);
    std::fs::remove_dir_all(dir).unwrap();
}

fn closed_loop(options: &LogOptions, appenders: usize) {
    let opened = open(options.clone(), &mut |_, _, _| Ok(())).unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..appenders).map(|_| mpsc::channel::<()>()).unzip();
    let log = opened
        .start(Callbacks {
            on_durable: Box::new(move |batch| {
                counted.fetch_add(1, Ordering::Relaxed);
                for (token, _) in batch {
                    senders[token as usize].send(()).unwrap();
                }
            }),
            on_fatal: Box::new(|error| panic!("{error}")),
        })
        .unwrap();
    let begun = Instant::now();
    let clients = receivers.into_iter().enumerate().map(|(token, durable)| {
        let log = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut latencies = Vec::new();
            while begun.elapsed() < RUN {
                let sent = Instant::now();
                log.append(token as u64, 1, vec![7; PAYLOAD], Durability::Forced).unwrap();
                durable.recv().unwrap();
                latencies.push(sent.elapsed());
            }
            latencies
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut latencies: Vec<_> = clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
    let seconds = begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    println!(
        "{appenders:>4} appenders: {:>7.0} records/s, {:>6.0} syncs/s, p50 {:.0?}, p99 {:.0?}, max {:.0?}",
        latencies.len() as f64 / seconds,
        syncs.load(Ordering::Relaxed) as f64 / seconds,
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100],
        latencies[latencies.len() - 1],
    );
    log.close();
}

fn replay(options: &LogOptions) {
    let mut appended = 0_u64;
    let opened = open(options.clone(), &mut |_, _, _| {
        appended += 1;
        Ok(())
    });
    let (done, wait) = mpsc::channel();
    let log = opened
        .unwrap()
        .start(Callbacks {
            on_durable: Box::new(move |batch| done.send(batch.len() as u64).unwrap()),
            on_fatal: Box::new(|error| panic!("{error}")),
        })
        .unwrap();
    let begun = Instant::now();
    let mut in_flight = 0;
    let missing = 1_000_000_u64.saturating_sub(appended);
    for token in 0..missing {
        if in_flight == 10_000 {
            in_flight -= wait.recv().unwrap();
        }
        log.append(token, 1, vec![7; PAYLOAD], Durability::Forced).unwrap();
        in_flight += 1;
    }
    log.close();
    let rate = missing as f64 / begun.elapsed().as_secs_f64();
    println!("10,000 in flight: {rate:.0} records/s over {missing} records");
    let (begun, mut records, mut bytes) = (Instant::now(), 0_u64, 0_usize);
    open(options.clone(), &mut |_, _, payload| {
        records += 1;
        bytes += payload.len();
        Ok(())
    })
    .unwrap();
    println!("replay of {records} records, {bytes} bytes: {:.0?}", begun.elapsed());
}
