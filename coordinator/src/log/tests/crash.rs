//! Crashes and power cuts at every named point: what was reported is there afterwards, and the log always opens.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::log::suite::{live, try_live};
use crate::log::{Durability, LogCrashPoint, Token};

/// What the disk was at one crash point.
struct Moment {
    point: LogCrashPoint,
    disk: TestDisk,
    reported: usize,
    epoch: Epoch,
}

fn payload(n: usize) -> Vec<u8> {
    // Long enough to span sectors, so that a cut can tear a batch in the middle.
    let mut payload = vec![n as u8; 90 + n * 37 % 600];
    payload[..8].copy_from_slice(&n.to_le_bytes());
    payload
}

/// Runs a workload that rotates and retires, and keeps the disk at every crash point.
fn moments() -> (Vec<Moment>, usize) {
    let bed = TestBed::new();
    let moments = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::new(AtomicUsize::new(0));
    let mut appended = 0;
    for life in 0..3 {
        let epoch = Epoch(life);
        let (kept, seen, disk) = (moments.clone(), reported.clone(), bed.disk.clone());
        let hook = move |point| {
            let reported = seen.load(Ordering::SeqCst);
            let moment = Moment { point, disk: disk.snapshot(), reported, epoch };
            kept.lock().unwrap().push(moment);
        };
        let options = LogOptions { crash_hook: Arc::new(hook), ..bed.options.clone() };
        let counter = reported.clone();
        let callbacks = Callbacks {
            on_durable: Box::new(move |batch: Vec<(Token, _)>| {
                counter.fetch_add(batch.len(), Ordering::SeqCst);
            }),
            on_fatal: Box::new(|error| panic!("{error}")),
        };
        let log = start(options, &mut |_, _, _| Ok(()), callbacks).unwrap().0;
        for round in 0..12 {
            for _ in 0..round % 4 {
                log.append(0, 1, payload(appended), Durability::Lazy).unwrap();
                appended += 1;
            }
            log.append(0, 1, payload(appended), Durability::Forced).unwrap();
            appended += 1;
        }
        // Also waits until everything before is durable.
        if let [.., before_last, _] = log.segments()[..] {
            log.retire(before_last.number).unwrap();
        }
        log.close();
    }
    drop(bed);
    let moments = std::mem::take(&mut *moments.lock().unwrap());
    (moments, appended)
}

/// Opens what a crash left. What it has must be one stretch of what was appended, with all that was reported and was
/// not retired; and it must go on from there.
fn check(moment: &Moment, disk: TestDisk, appended: usize, what: &str) {
    let what = format!("{what} at {:?} in epoch {}", moment.point, moment.epoch);
    let bed = TestBed::on(disk);
    let life = match try_live(&bed) {
        Ok(life) => life,
        Err(error) => panic!("{what}: {}", error.with_sources()),
    };
    assert!(life.epoch > moment.epoch, "{what}");
    let numbers: Vec<usize> = life
        .replayed
        .iter()
        .map(|(_, _, payload)| usize::from_le_bytes(*payload.first_chunk().unwrap()))
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{what}: {numbers:?}");
    for (record, n) in life.replayed.iter().zip(&numbers) {
        assert_eq!(record.2, payload(*n), "{what}");
    }
    let next = numbers.last().map_or(0, |last| last + 1);
    assert!((moment.reported..=appended).contains(&next) || numbers.is_empty(), "{what}");
    let before = life.replayed.len();
    life.put(&payload(next));
    drop(life);
    let life = live(&bed);
    assert_eq!(life.replayed.len(), before + 1, "{what}");
}

/// A small generator, so that a failure comes again.
fn coin(mut seed: u64) -> impl FnMut() -> bool {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed & 1 == 0
    }
}

#[test]
fn a_killed_process_loses_nothing_reported_at_any_crash_point() {
    let (moments, appended) = moments();
    let points: HashSet<_> = moments.iter().map(|moment| moment.point).collect();
    assert_eq!(points.len(), 7, "the workload must reach every point: {points:?}");
    for moment in &moments {
        check(moment, moment.disk.snapshot(), appended, "kill");
    }
}

#[test]
fn a_power_cut_loses_nothing_reported_at_any_crash_point() {
    let (moments, appended) = moments();
    for (n, moment) in moments.iter().enumerate() {
        for seed in 1..=12 {
            let disk = moment.disk.snapshot();
            disk.power_cut(&mut coin(0x9e37_79b9_7f4a_7c15 ^ (n as u64 * 64 + seed)));
            check(moment, disk, appended, "power cut");
        }
        for keeps in [false, true] {
            let disk = moment.disk.snapshot();
            disk.power_cut(&mut || keeps);
            check(moment, disk, appended, "extreme power cut");
        }
    }
}

#[test]
fn an_init_that_a_crash_interrupted_can_be_done_again() {
    let bed = TestBed::on(TestDisk::default());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (disk, keep) = (bed.disk.clone(), kept.clone());
    let hook = move |_| keep.lock().unwrap().push(disk.snapshot());
    init(&LogOptions { crash_hook: Arc::new(hook), ..bed.options }).unwrap();
    for disk in kept.lock().unwrap().iter() {
        for seed in 1..50 {
            let disk = disk.snapshot();
            disk.power_cut(&mut coin(seed));
            let bed = TestBed::on(disk);
            assert!(matches!(try_live(&bed).err(), Some(LogError::NotInitialised { .. })));
            init(&bed.options).unwrap();
            assert_eq!(live(&bed).epoch, Epoch(1));
        }
    }
}

#[test]
fn a_failed_sync_stops_the_log_and_reports_nothing() {
    let bed = TestBed::new();
    let life = live(&bed);
    life.put(b"before");
    wait_for_spare(&bed);
    assert_eq!(life.durable.try_iter().count(), 0);
    bed.disk.fail_sync_after(0);
    life.append(1, b"lost", Durability::Forced);
    let fatal = life.fatal.recv().unwrap();
    let refused = life.log.append(2, 1, Vec::new(), Durability::Forced).err();
    assert!(fatal.contains("cannot sync"), "{fatal}");
    assert!(matches!(refused, Some(LogError::Stopped { .. })), "{refused:?}");
    life.log.close();
    assert_eq!(life.durable.iter().count(), 0);
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_made_durable_before_it_is_believed() {
    let bed = TestBed::new();
    let life = live(&bed);
    life.put(b"before");
    life.log.close();
    let life = live(&bed);
    wait_for_spare(&bed);
    bed.disk.fail_sync_after(0);
    life.append(1, b"in the cache only", Durability::Forced);
    assert!(life.fatal.recv().unwrap().contains("cannot sync"));
    life.log.close();
    // The cache still shows the record, and calls it clean.
    let life = live(&bed);
    assert_eq!(life.replayed.len(), 2);
    let disk = bed.disk.snapshot();
    disk.power_cut(&mut || false);
    assert_eq!(live(&TestBed::on(disk)).replayed.len(), 2);
}

/// Once the spare is made, the syncs that follow are those of records (or of the mark, which stops the log as well).
fn wait_for_spare(bed: &TestBed) {
    while bed.disk.unfinished("spare", SEGMENT_BYTES as usize) {
        std::thread::yield_now();
    }
}
