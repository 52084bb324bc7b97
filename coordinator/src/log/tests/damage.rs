//! Rot, truncation, missing and foreign files: never a silent loss of what something vouched for.

use super::*;
use crate::log::Durability;
use crate::log::suite::{Replayed, live, try_live};

/// A log of three segments, closed cleanly: the mark covers all of it.
fn bed_with_records() -> (TestBed, Replayed) {
    let bed = TestBed::new();
    let life = live(&bed);
    let mut n = 0_u64;
    while life.log.segments().len() < 3 || life.log.segments()[2].bytes < 700 {
        // Two in a batch, so that not every frame begins one.
        for _ in 0..2 {
            life.append(n, &[n as u8; 150], Durability::Lazy);
            n += 1;
        }
        life.append(n, b"forced", Durability::Forced);
        n += 1;
        life.reports(3);
    }
    drop(life);
    let life = live(&bed);
    let replayed = life.replayed.clone();
    assert_eq!(replayed.len() as u64, n);
    drop(life);
    (bed, replayed)
}

/// Opens a changed copy without starting it.
fn reopen(bed: &TestBed, change: impl FnOnce(&TestDisk)) -> (TestBed, Result<Replayed, LogError>) {
    let bed = TestBed::on(bed.disk.snapshot());
    change(&bed.disk);
    let opened = replay(&bed);
    (bed, opened)
}

fn replay(bed: &TestBed) -> Result<Replayed, LogError> {
    let mut replayed = Vec::new();
    open(bed.options.clone(), &mut |position, kind, payload| {
        replayed.push((position, kind, payload.to_vec()));
        Ok(())
    })?;
    Ok(replayed)
}

fn logs(bed: &TestBed) -> Vec<String> {
    bed.disk.names().into_iter().filter(|name| name.ends_with(".log")).collect()
}

#[test]
fn no_flipped_byte_of_a_closed_log_loses_a_record_silently() {
    let (bed, expected) = bed_with_records();
    let mut refused = 0;
    let copy = TestBed::on(TestDisk::default());
    for name in logs(&bed).iter().chain([&"superblock".to_owned()]) {
        let content = bed.disk.content(name);
        for at in 0..content.len() {
            // All bytes, but of long stretches of zeros only some.
            let around = &content[at.saturating_sub(8)..content.len().min(at + 8)];
            if at % 16 != 0 && around.iter().all(|byte| *byte == 0) {
                continue;
            }
            copy.disk.restore(&bed.disk);
            copy.disk.edit(name, |bytes| bytes[at] ^= 0x55);
            let whole = copy.verify().is_ok_and(|report| report.damage.is_empty());
            let opened = replay(&copy);
            assert_eq!(whole, opened.is_ok(), "{name} byte {at}: verify disagrees");
            match opened {
                Ok(replayed) => assert!(replayed == expected, "{name} byte {at}: silent loss"),
                Err(error @ LogError::Corrupt { .. }) => {
                    refused += 1;
                    says_where_and_what_to_do(&error, name, at as u64);
                }
                Err(other) => panic!("{name} byte {at}: {other}"),
            }
        }
    }
    // Every byte of frames, but for zeros after the last.
    let frames: u64 = live(&bed).log.segments().iter().map(|info| info.bytes).sum();
    assert!(refused > frames, "{refused} refused, {frames} bytes of frames");
}

/// What is damaged is the record that holds the byte, or what the next segment's header says of this one.
#[track_caller]
fn says_where_and_what_to_do(error: &LogError, name: &str, at: u64) {
    let LogError::Corrupt { file, offset, .. } = error else { panic!("{error}") };
    let text = error.to_string();
    let found = file.file_name().unwrap().to_string_lossy();
    if found == name {
        assert!(*offset <= at, "byte {at} of {name} is found at {offset}: {text}");
    } else {
        let before = format!("{:08}.log", name[..8].parse::<u32>().unwrap() - 1);
        assert_eq!((&*found, at < 4096), (&*before, true), "byte {at} of {name}: {text}");
    }
    for part in [&*found, &format!("offset {offset}"), "assent log verify", "restore the file"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn a_flipped_byte_above_a_stale_mark_costs_at_most_the_last_batch() {
    let bed = TestBed::new();
    let life = live(&bed);
    for _ in 0..4 {
        life.put(&[1; 100]);
    }
    let stale = bed.disk.content("superblock");
    let before = life.log.segments()[0].bytes as usize + 4096;
    life.append(0, b"one of two in the last batch", Durability::Lazy);
    life.append(1, b"the other", Durability::Forced);
    life.reports(2);
    let end = life.log.segments()[0].bytes as usize + 4096;
    drop(life);
    bed.disk.edit("superblock", |bytes| *bytes = stale);
    for at in 4096..end {
        let (copy, opened) = reopen(&bed, |disk| {
            disk.edit("00000001.log", |bytes| bytes[at] ^= 0x55);
        });
        match opened {
            Ok(replayed) => {
                assert!(at >= before, "byte {at} was vouched for by the mark or a later batch");
                assert!((4..6).contains(&replayed.len()), "byte {at}: {}", replayed.len());
                // What was cut is cut for good.
                assert_eq!(live(&copy).replayed, replayed);
            }
            Err(LogError::Corrupt { .. }) => assert!(at < before, "byte {at} is a torn tail"),
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[test]
fn later_batches_vouch_for_earlier_ones_without_any_mark() {
    let bed = TestBed::new();
    let fresh = bed.disk.content("superblock");
    let life = live(&bed);
    let positions: Vec<_> = (0..5).map(|n| life.put(&[n; 60])).collect();
    drop(life);
    bed.disk.edit("superblock", |bytes| *bytes = fresh);
    for position in &positions[..4] {
        let at = position.offset() as usize;
        for wipe in [1, 40] {
            let opened = reopen(&bed, |disk| {
                disk.edit("00000001.log", |bytes| bytes[at..at + wipe].fill(0));
            });
            assert!(matches!(opened.1, Err(LogError::Corrupt { .. })), "{position} {wipe}");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_and_reported_once() {
    let bed = TestBed::new();
    let life = live(&bed);
    let at = life.put(b"whole").offset() + 24;
    drop(life);
    // The log was opened once: one record and an epoch. What follows was never vouched for.
    bed.disk.edit("00000001.log", |bytes| bytes[at as usize..at as usize + 900].fill(9));
    let opened = open(bed.options.clone(), &mut |_, _, _| Ok(())).unwrap();
    let torn = opened.report.torn_tail.clone().unwrap();
    assert_eq!((torn.offset, torn.bytes), (at, 900));
    assert_eq!(opened.report.records, 1);
    drop(opened);
    let opened = open(bed.options, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(opened.report.torn_tail, None);
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let (bed, _) = bed_with_records();
    for name in logs(&bed) {
        for length in (0..SEGMENT_BYTES as usize).step_by(61).chain([8191]) {
            let cut = |disk: &TestDisk| disk.edit(&name, |bytes| bytes.truncate(length));
            let opened = reopen(&bed, cut).1;
            assert!(matches!(opened, Err(LogError::Corrupt { .. })), "{name} at {length}");
        }
    }
    for length in (0..4096 + 60).step_by(12) {
        let opened = reopen(&bed, |disk| disk.edit("superblock", |bytes| bytes.truncate(length)));
        assert_eq!(opened.1.is_ok(), length >= 60, "superblock at {length}");
    }
}

#[test]
fn a_tail_turned_to_zeros_is_refused_if_it_was_durable() {
    let (bed, expected) = bed_with_records();
    let last = logs(&bed).pop().unwrap();
    let end = 4096 + live(&bed).log.segments()[2].bytes as usize;
    for from in (4096..SEGMENT_BYTES as usize).step_by(3) {
        let lost = |disk: &TestDisk| disk.edit(&last, |bytes| bytes[from..].fill(0));
        match reopen(&bed, lost).1 {
            // The last bytes of a frame may be zeros themselves.
            Ok(replayed) => assert!(from + 16 >= end && replayed == expected, "from {from}"),
            Err(LogError::Corrupt { .. }) => assert!(from < end, "from {from}"),
            Err(other) => panic!("from {from}: {other}"),
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let (bed, _) = bed_with_records();
    for name in logs(&bed).into_iter().chain(["superblock".to_owned()]) {
        match reopen(&bed, |disk| disk.delete(&name)).1 {
            Err(LogError::Missing { file, .. }) => assert!(file.ends_with(&name), "{file:?}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_segment_of_another_log_place_or_time_is_refused() {
    let (bed, _) = bed_with_records();
    let (other, _) = bed_with_records();
    let names = logs(&bed);
    for name in &names {
        let foreign = other.disk.content(name);
        let opened = reopen(&bed, |disk| disk.edit(name, |bytes| *bytes = foreign)).1;
        let text = opened.unwrap_err().to_string();
        assert!(text.contains("belongs segment"), "{text}");
    }
    let moved = bed.disk.content(&names[0]);
    let opened = reopen(&bed, |disk| disk.edit(&names[1], |bytes| *bytes = moved)).1;
    assert!(matches!(opened, Err(LogError::Corrupt { .. })));
    // Copies of before: of the last segment, and of one that was sealed since.
    let older = bed.disk.content(&names[2]);
    let life = live(&bed);
    life.put(b"later");
    drop(life);
    let opened = reopen(&bed, |disk| disk.edit(&names[2], |bytes| *bytes = older.clone())).1;
    assert!(matches!(opened, Err(LogError::Corrupt { .. })));
    let life = live(&bed);
    while life.log.segments().len() < 4 {
        life.put(&[3; 500]);
    }
    drop(life);
    let opened = reopen(&bed, |disk| disk.edit(&names[2], |bytes| *bytes = older)).1;
    assert!(matches!(opened, Err(LogError::Corrupt { .. })));
}

#[test]
fn a_segment_of_another_continuation_of_the_same_log_is_refused() {
    let bed = TestBed::new();
    let fork = TestBed::on(bed.disk.snapshot());
    for (bed, byte) in [(&bed, 1), (&fork, 2)] {
        let life = live(bed);
        while life.log.segments().len() < 2 {
            life.put(&[byte; 500]);
        }
    }
    let other = fork.disk.content("00000001.log");
    let opened = reopen(&bed, |disk| disk.edit("00000001.log", |bytes| *bytes = other)).1;
    let text = opened.unwrap_err().to_string();
    assert!(text.contains("another version"), "{text}");
}

#[test]
fn rot_under_a_running_log_is_an_error_and_not_an_answer() {
    let bed = TestBed::new();
    let life = live(&bed);
    let at = life.put(b"some record");
    bed.disk.edit("00000001.log", |bytes| bytes[at.offset() as usize + 20] ^= 1);
    let read = life.log.read(at).unwrap_err().to_string();
    assert!(read.contains("00000001.log") && read.contains("log verify"), "{read}");
    let scanned = life.log.read_segment(1, &mut |_, _, _| Ok(()));
    assert!(matches!(scanned, Err(LogError::Corrupt { .. })));
    assert!(matches!(try_live(&bed).err(), Some(LogError::Locked { .. })));
}
