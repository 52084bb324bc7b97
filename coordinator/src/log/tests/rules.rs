//! The rules of making, opening, limiting and looking at a log.

use std::collections::VecDeque;
use std::fs;

use super::*;
use crate::log::suite::{live, try_live};
use crate::log::{Durability, KIND_EPOCH, NewRecord, dump};

#[test]
fn opening_where_there_is_no_log_says_to_init_and_what_that_would_forget() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [dir.path().to_owned(), dir.path().join("missing")] {
        let error = open(options(dir), &mut |_, _, _| Ok(())).err().unwrap();
        assert!(matches!(error, LogError::NotInitialised { .. }), "{error}");
        assert!(error.to_string().contains("assent init"), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "opening left something behind");
}

#[test]
fn init_takes_only_a_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    let options = options(dir.path().to_owned());
    let log_id = init(&options).unwrap();
    assert_eq!(log_id.0.get_version_num(), 7);
    assert!(matches!(init(&options), Err(LogError::AlreadyInitialised { .. })));
    // Nor when the superblock is lost: the segments are still decisions.
    fs::remove_file(dir.path().join("superblock")).unwrap();
    assert!(matches!(init(&options), Err(LogError::AlreadyInitialised { .. })));

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("notes.txt"), "mine").unwrap();
    let error = init(&self::options(other.path().to_owned())).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
}

/// The log holds what clients wrote, in clear.
#[test]
fn nobody_but_its_owner_may_read_a_log_and_an_old_one_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let open_to_all = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let modes = || {
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let all = std::iter::once(dir.path().to_owned()).chain(entries);
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        all.map(|path| mode(path) & 0o077).collect::<Vec<_>>()
    };
    open_to_all(dir.path(), 0o755);
    let options = options(dir.path().to_owned());
    init(&options).unwrap();
    assert!(modes().len() > 2 && modes().iter().all(|mode| *mode == 0), "{:?}", modes());
    open_to_all(dir.path(), 0o755);
    for entry in fs::read_dir(dir.path()).unwrap() {
        open_to_all(&entry.unwrap().path(), 0o644);
    }
    let opened = open(options, &mut |_, _, _| Ok(())).unwrap();
    assert!(modes().iter().all(|mode| *mode == 0), "{:?}", modes());
    drop(opened);
}

#[test]
fn a_second_opener_is_told_who_has_the_log() {
    let bed = RealBed::new();
    let life = live(&bed);
    let error = try_live(&bed).err().unwrap().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(life);
    live(&bed);
}

#[test]
fn limits_answer_before_anything_is_queued() {
    let bed = TestBed::new();
    let options = LogOptions { queue_bytes_max: 1000, ..bed.options.clone() };
    let callbacks = Callbacks { on_durable: Box::new(|_| ()), on_fatal: Box::new(|_| ()) };
    let log = start(options, &mut |_, _, _| Ok(()), callbacks).unwrap().0;
    let full = log.append(1, 1, vec![0; 1001], Durability::Forced);
    assert!(matches!(full, Err(LogError::Full { max: 1000, .. })), "{full:?}");
    let large = log.append(1, 1, vec![0; 8000], Durability::Forced);
    assert!(matches!(large, Err(LogError::TooLarge { max: 4080, .. })), "{large:?}");
    assert_eq!(log.queued_bytes(), 0);
    // What does not fit stays with the owner, in order.
    let record = |token, bytes| NewRecord {
        token,
        kind: 1,
        payload: vec![0; bytes],
        durability: Durability::Lazy,
    };
    let mut records = VecDeque::from([record(1, 600), record(2, 600), record(3, 1)]);
    let full = log.append_all(&mut records);
    assert!(matches!(full, Err(LogError::Full { queued: 600, .. })), "{full:?}");
    assert!(records.iter().map(|record| record.token).eq([2, 3]));
    let odd = LogOptions { segment_bytes: 10_000, ..bed.options };
    assert!(matches!(init(&odd), Err(LogError::Option { .. })));
}

#[test]
fn the_largest_record_fills_a_segment_and_the_epoch_then_takes_the_next() {
    let bed = TestBed::new();
    let life = live(&bed);
    let largest = vec![5; bed.options.payload_bytes_max()];
    assert_eq!(life.put(&largest).segment(), 2);
    drop(life);
    let life = live(&bed);
    assert_eq!(life.epoch, Epoch(2));
    assert_eq!(life.replayed[0].2, largest);
    assert_eq!(life.log.segments().len(), 3);
}

#[test]
fn a_log_that_is_opened_and_never_started_leaves_no_thread_behind() {
    let bed = TestBed::new();
    let life = live(&bed);
    life.put(&vec![5; bed.options.payload_bytes_max()]);
    drop(life);
    // The epoch does not fit into the full segment, so that the first of these rotates.
    for round in 2..20 {
        let opened = open(bed.options.clone(), &mut |_, _, _| Ok(())).unwrap();
        assert_eq!(opened.epoch, Epoch(round));
    }
    assert!(!bed.disk.names().contains(&"spare".to_owned()));
}

#[test]
fn the_epoch_outlives_the_segments_that_recorded_it() {
    let bed = TestBed::new();
    for round in 1..4 {
        let life = live(&bed);
        assert_eq!(life.epoch, Epoch(round));
        let first = life.log.segments().last().unwrap().number;
        while life.log.segments().last().unwrap().number < first + 2 {
            life.put(&[0; 900]);
        }
        life.log.retire(first + 1).unwrap();
    }
}

#[test]
fn verify_and_dump_work_beside_a_running_log() {
    let bed = RealBed::new();
    let options = bed.options();
    let life = live(&bed);
    for n in 0..200_u64 {
        life.append(n, &[n as u8; 200], Durability::Forced);
        let report = verify(&*options.disk, &options.dir).unwrap();
        assert_eq!(report.damage, [], "after {n}");
    }
    life.reports(200);
    let report = verify(&*options.disk, &options.dir).unwrap();
    assert_eq!(report.segments.iter().map(|segment| segment.records).sum::<u64>(), 201);
    assert_eq!(report.log_id, life.log.log_id());
    let mut kinds = Vec::new();
    dump(&*options.disk, &options.dir, &mut |frame| {
        kinds.push(frame.kind);
        Ok(())
    })
    .unwrap();
    assert_eq!(kinds.len(), 201);
    assert_eq!(kinds[0], KIND_EPOCH);
}

#[test]
fn verify_names_every_damaged_segment_and_changes_nothing() {
    let bed = TestBed::new();
    let life = live(&bed);
    while life.log.segments().len() < 4 {
        life.put(&[1; 700]);
    }
    drop(life);
    for name in ["00000001.log", "00000003.log"] {
        bed.disk.edit(name, |bytes| bytes[5000] ^= 1);
    }
    let before: Vec<_> = bed.disk.names().iter().map(|name| bed.disk.content(name)).collect();
    let report = bed.verify().unwrap();
    let files: Vec<_> = report.damage.iter().map(|damage| damage.file.file_name()).collect();
    assert_eq!(files, [Some("00000001.log".as_ref()), Some("00000003.log".as_ref())]);
    let after: Vec<_> = bed.disk.names().iter().map(|name| bed.disk.content(name)).collect();
    assert!(before == after);
}
