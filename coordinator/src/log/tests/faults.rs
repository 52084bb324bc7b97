//! A disk that is full, or that fails a sync, at every write and every sync of a log's life: what was reported is there
//! afterwards, and the log says what failed (invariant 4).

use super::*;
use crate::log::Durability;
use crate::log::suite::{Life, live, try_live};

/// Enough to rotate and to retire.
const RECORDS: usize = 24;

fn payload(n: usize) -> Vec<u8> {
    let mut payload = vec![n as u8; 500];
    payload[..8].copy_from_slice(&n.to_le_bytes());
    payload
}

/// One life on a disk that fails at some time. Returns how many records were reported, and the last words.
fn one_life(bed: &TestBed) -> (usize, Option<String>) {
    let life = match try_live(bed) {
        Ok(life) => life,
        Err(error) => return (0, Some(error.with_sources())),
    };
    for n in 0..RECORDS {
        let appended = life.log.append(n as u64, 1, payload(n), Durability::Forced);
        if appended.is_err() || life.durable.recv().is_err() {
            return (n, Some(last_words(&life)));
        }
        if n == RECORDS / 2 {
            let oldest = life.log.segments()[0].number;
            // If it fails, so does the next append.
            let _failed = life.log.retire(oldest);
        }
    }
    life.log.close();
    (RECORDS, life.fatal.try_recv().ok())
}

fn last_words(life: &Life) -> String {
    let words = life.fatal.recv().unwrap();
    let refused = life.log.append(0, 1, Vec::new(), Durability::Forced).unwrap_err();
    assert!(matches!(refused, LogError::Stopped { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&words), "{refused} after {words}");
    refused.to_string()
}

/// Opens what the life left, as it is and after a power cut.
fn check(bed: &TestBed, reported: usize, what: &str) {
    let cut = bed.disk.snapshot();
    cut.power_cut(&mut || false);
    for (how, disk) in [("as it is", bed.disk.snapshot()), ("after a power cut", cut)] {
        let bed = TestBed::on(disk);
        let life = try_live(&bed);
        let life = life.unwrap_or_else(|error| panic!("{what}, {how}: {}", error.with_sources()));
        let numbers: Vec<usize> = life
            .replayed
            .iter()
            .map(|(_, _, payload)| usize::from_le_bytes(*payload.first_chunk().unwrap()))
            .collect();
        assert!(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{what}, {how}: {numbers:?}"
        );
        let next = numbers.last().map_or(0, |last| last + 1);
        assert!(next >= reported, "{what}, {how}: {next} are there, {reported} were reported");
        life.put(&payload(next));
        drop(life);
        assert_eq!(live(&bed).replayed.len(), numbers.len() + 1, "{what}, {how}");
    }
}

/// Has one life after the other, each with its failure a step later, until none meets one.
fn at_every_step(name: &str, fail_after: impl Fn(&TestDisk, u32), says: &str) {
    let mut stopped = 0;
    for step in 0.. {
        let bed = TestBed::new();
        fail_after(&bed.disk, step);
        let (reported, words) = one_life(&bed);
        bed.disk.heal();
        let what = format!("{name} after {step}");
        if let Some(words) = words {
            stopped += 1;
            assert!(words.contains("cannot ") && words.contains(says), "{what}: {words}");
        }
        check(&bed, reported, &what);
        if bed.disk.failures() == 0 {
            break;
        }
    }
    assert!(stopped > RECORDS, "{name}: only {stopped} lives were stopped by it");
}

#[test]
fn a_disk_that_is_full_at_any_write_loses_nothing_reported() {
    let full = |disk: &TestDisk, step| disk.full_after(step, u32::MAX);
    at_every_step("a full disk", full, "No space left");
    // One that is cleared up at once: whoever goes on as if nothing had happened is found out.
    let once = |disk: &TestDisk, step| disk.full_after(step, 1);
    at_every_step("a write without room", once, "No space left");
}

#[test]
fn a_sync_that_fails_at_any_time_loses_nothing_reported() {
    at_every_step("a failed sync", |disk, step| disk.fail_sync_after(step), "sync");
}

/// The next segment is made ahead of its time: that there is no room for it yet stops nothing.
#[test]
fn a_disk_that_is_full_for_a_while_stops_nothing_if_there_is_room_when_it_is_needed() {
    // The first step at which opening comes through: what the full disk meets is the next segment.
    let opened = (0..).find_map(|step| {
        let bed = TestBed::new();
        bed.disk.full_after(step, u32::MAX);
        try_live(&bed).ok().map(|life| (bed, life))
    });
    let (bed, life) = opened.unwrap();
    while life.log.trouble().is_none() {
        std::thread::yield_now();
    }
    assert!(life.log.trouble().unwrap().contains("No space left"), "the probe says why");
    bed.disk.heal();
    // Nothing is written meanwhile: whoever looks at the probe keeps work away.
    while life.log.trouble().is_some() {
        std::thread::yield_now();
    }
    while life.log.segments().len() < 3 {
        life.put(&payload(0));
    }
    assert_eq!(life.fatal.try_recv().ok(), None);
}
