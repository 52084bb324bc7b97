//! The conformance suite: what every implementation of the log must do. Each case takes a [`Bed`] with a new log on it.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use assent_common::Epoch;
use proptest::prelude::*;

use super::{
    Callbacks, Durability, KIND_EPOCH, LogError, LogHandle, LogPosition, LogRecord, NewRecord,
    SegmentInfo, Token, VisitError, Visitor,
};

/// Long enough never to be reached, short enough to end a hung test.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) type Replayed = Vec<(LogPosition, u8, Vec<u8>)>;

/// A place where one log can live again and again. Its segments hold few records, so that the suite sees several.
pub(super) trait Bed {
    fn open(
        &self,
        visitor: &mut Visitor<'_>,
        callbacks: Callbacks,
    ) -> Result<(LogHandle, Epoch), LogError>;
}

/// One life of a log, with what it reported.
pub(super) struct Life {
    pub(super) log: LogHandle,
    pub(super) epoch: Epoch,
    pub(super) replayed: Replayed,
    pub(super) durable: Receiver<Vec<(Token, LogPosition)>>,
    pub(super) fatal: Receiver<String>,
}

pub(super) fn try_live(bed: &dyn Bed) -> Result<Life, LogError> {
    let (durable_sender, durable) = mpsc::channel();
    let (fatal_sender, fatal) = mpsc::channel();
    let callbacks = Callbacks {
        on_durable: Box::new(move |batch| drop(durable_sender.send(batch))),
        on_fatal: Box::new(move |error| drop(fatal_sender.send(error.to_string()))),
    };
    let mut replayed = Vec::new();
    let mut collect = |position, kind, payload: &[u8]| -> Result<(), VisitError> {
        replayed.push((position, kind, payload.to_vec()));
        Ok(())
    };
    let (log, epoch) = bed.open(&mut collect, callbacks)?;
    Ok(Life { log, epoch, replayed, durable, fatal })
}

pub(super) fn live(bed: &dyn Bed) -> Life {
    try_live(bed).unwrap()
}

impl Life {
    pub(super) fn append(&self, token: Token, payload: &[u8], durability: Durability) {
        self.log.append(token, 1, payload.to_vec(), durability).unwrap();
    }

    /// The next `n` reports, however they were batched.
    pub(super) fn reports(&self, n: usize) -> Vec<(Token, LogPosition)> {
        let mut reports = Vec::new();
        while reports.len() < n {
            reports.extend(self.durable.recv_timeout(PATIENCE).unwrap());
        }
        assert_eq!(reports.len(), n, "more was reported than was appended");
        reports
    }

    pub(super) fn put(&self, payload: &[u8]) -> LogPosition {
        self.append(0, payload, Durability::Forced);
        self.reports(1)[0].1
    }
}

pub(super) fn reports_come_once_in_order_and_read_back(bed: &dyn Bed) {
    let life = live(bed);
    for token in 0..20 {
        let durability = if token % 3 == 0 { Durability::Forced } else { Durability::Lazy };
        life.append(token, format!("record {token}").as_bytes(), durability);
    }
    let reports = life.reports(20);
    assert!(reports.iter().map(|report| report.0).eq(0..20));
    assert!(reports.windows(2).all(|pair| pair[0].1 < pair[1].1), "{reports:?}");
    for (token, position) in reports {
        let payload = format!("record {token}").into_bytes();
        assert_eq!(life.log.read(position).unwrap(), LogRecord { kind: 1, payload });
    }
    assert_eq!(life.log.queued_bytes(), 0);
}

pub(super) fn records_appended_as_one_are_reported_as_one(bed: &dyn Bed) {
    let life = live(bed);
    let record = |token| NewRecord {
        token,
        kind: 1,
        payload: b"payload".to_vec(),
        durability: Durability::Forced,
    };
    let mut records: VecDeque<_> = (0..3).map(record).collect();
    life.log.append_all(&mut records).unwrap();
    assert!(records.is_empty());
    let batch = life.durable.recv_timeout(PATIENCE).unwrap();
    assert!(batch.iter().map(|report| report.0).eq(0..3), "{batch:?}");
    life.log.append_all(&mut VecDeque::new()).unwrap();
}

pub(super) fn lazy_records_become_durable_without_a_forced_one(bed: &dyn Bed) {
    let life = live(bed);
    life.append(7, b"lazy", Durability::Lazy);
    assert_eq!(life.reports(1)[0].0, 7);
}

pub(super) fn a_new_life_replays_all_and_has_a_higher_epoch(bed: &dyn Bed) {
    let mut expected = Vec::new();
    let mut epoch = Epoch(0);
    for round in 0..4_u64 {
        let life = live(bed);
        assert!(life.epoch > epoch, "{} after {epoch}", life.epoch);
        assert_eq!(life.log.epoch(), life.epoch);
        epoch = life.epoch;
        assert_eq!(life.replayed, expected);
        let payload = round.to_be_bytes().to_vec();
        expected.push((life.put(&payload), 1, payload));
        // An empty record is one too.
        expected.push((life.put(b""), 1, Vec::new()));
        life.log.close();
    }
}

pub(super) fn there_is_one_life_at_a_time(bed: &dyn Bed) {
    let life = live(bed);
    assert!(matches!(try_live(bed).err(), Some(LogError::Locked { .. })));
    life.log.close();
    live(bed);
}

pub(super) fn closing_makes_all_durable_and_takes_no_more(bed: &dyn Bed) {
    let life = live(bed);
    life.append(1, b"one", Durability::Lazy);
    life.append(2, b"two", Durability::Forced);
    life.log.close();
    life.log.close();
    let refused = life.log.append(3, 1, Vec::new(), Durability::Forced);
    assert!(matches!(refused, Err(LogError::Closed)), "{refused:?}");
    assert!(life.reports(2).iter().map(|report| report.0).eq([1, 2]));
    assert_eq!(live(bed).replayed.len(), 2);
}

pub(super) fn what_is_not_there_is_said_so(bed: &dyn Bed) {
    let life = live(bed);
    let at = life.put(b"one");
    let beyond = LogPosition(at.0 + 4096);
    assert!(matches!(life.log.read(beyond), Err(LogError::NoRecord { .. })));
    let elsewhere = LogPosition::new(at.segment() + 9, at.offset());
    assert!(matches!(life.log.read(elsewhere), Err(LogError::NoSegment { segment: 10, .. })));
    assert!(matches!(life.log.retire(at.segment()), Err(LogError::InUse { segment: 1 })));
    let reserved = life.log.append(1, KIND_EPOCH, Vec::new(), Durability::Forced);
    assert!(matches!(reserved, Err(LogError::ReservedKind { .. })));
}

pub(super) fn a_refusing_visitor_stops_the_opening_and_changes_nothing(bed: &dyn Bed) {
    let life = live(bed);
    let at = life.put(b"one");
    life.log.close();
    let callbacks = Callbacks { on_durable: Box::new(|_| ()), on_fatal: Box::new(|_| ()) };
    let refused = bed.open(&mut |_, _, _| Err("not understood".into()), callbacks);
    match refused.err() {
        Some(LogError::Refused { position, .. }) => assert_eq!(position, at),
        other => panic!("{other:?}"),
    }
    assert_eq!(live(bed).replayed.len(), 1);
}

pub(super) fn segments_tell_and_retire_oldest_first(bed: &dyn Bed) {
    let life = live(bed);
    let mut positions = Vec::new();
    while positions.last().is_none_or(|last: &LogPosition| last.segment() < 4) {
        positions.push(life.put(&[7; 400]));
    }
    let segments = life.log.segments();
    assert!(segments.iter().map(|info| info.number).eq(1..=4));
    assert!(segments.iter().map(|info| info.sealed_ms.is_some()).eq([true, true, true, false]));
    for info in &segments {
        let within = |at: &&LogPosition| at.segment() == info.number;
        assert_eq!(info.last.as_ref(), positions.iter().rfind(within));
        assert_eq!(read_segment(&life, info), positions.iter().filter(within).count());
    }
    // A lazy copy appended before is durable when its old segment is gone.
    life.append(9, b"kept", Durability::Lazy);
    life.log.retire(2).unwrap();
    let kept = life.reports(1)[0].1;
    assert!(matches!(life.log.read(positions[0]), Err(LogError::NoSegment { first: 3, .. })));
    life.log.close();
    let life = live(bed);
    positions.retain(|at| at.segment() > 2);
    positions.push(kept);
    assert!(life.replayed.iter().map(|record| record.0).eq(positions));
}

fn read_segment(life: &Life, info: &SegmentInfo) -> usize {
    let mut records = 0;
    let mut count = |_, _, _: &[u8]| -> Result<(), VisitError> {
        records += 1;
        Ok(())
    };
    life.log.read_segment(info.number, &mut count).unwrap();
    records
}

/// What a random test does to a log.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Append { bytes: usize, forced: bool },
    Restart,
    Retire,
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        20 => (0..900_usize, any::<bool>())
            .prop_map(|(bytes, forced)| Op::Append { bytes, forced }),
        1 => Just(Op::Restart),
        1 => Just(Op::Retire),
    ];
    prop::collection::vec(op, 0..80)
}

/// The model of a log is a list.
pub(super) fn any_history_is_kept(bed: &dyn Bed, ops: &[Op]) {
    let mut life = live(bed);
    let mut model: Replayed = Vec::new();
    let mut pending: Vec<Vec<u8>> = Vec::new();
    for (n, op) in ops.iter().enumerate() {
        if let Op::Append { bytes, forced } = op {
            let payload = vec![n as u8; *bytes];
            let durability = if *forced { Durability::Forced } else { Durability::Lazy };
            life.append(pending.len() as Token, &payload, durability);
            pending.push(payload);
            continue;
        }
        let segments = life.log.segments();
        let through = segments.iter().rev().nth(1).map(|info| info.number);
        let retired = through.filter(|_| matches!(op, Op::Retire));
        if let Some(through) = retired {
            life.log.retire(through).unwrap();
        } else {
            life.log.close();
        }
        let reports = life.reports(pending.len());
        model.extend(reports.iter().zip(pending.drain(..)).map(|(r, p)| (r.1, 1, p)));
        match retired {
            Some(through) => model.retain(|record| record.0.segment() > through),
            None => life = live(bed),
        }
        if retired.is_none() {
            assert_eq!(life.replayed, model);
        }
    }
}

/// Makes a test of every case, for one kind of bed.
macro_rules! conformance {
    ($bed:expr) => {
        $crate::log::suite::conformance!($bed;
            reports_come_once_in_order_and_read_back
            records_appended_as_one_are_reported_as_one
            lazy_records_become_durable_without_a_forced_one
            a_new_life_replays_all_and_has_a_higher_epoch
            there_is_one_life_at_a_time
            closing_makes_all_durable_and_takes_no_more
            what_is_not_there_is_said_so
            a_refusing_visitor_stops_the_opening_and_changes_nothing
            segments_tell_and_retire_oldest_first
        );
        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
            #[test]
            fn any_history_is_kept(ops in $crate::log::suite::ops()) {
                $crate::log::suite::any_history_is_kept(&$bed, &ops);
            }
        }
    };
    ($bed:expr; $($case:ident)+) => {
        $(#[test]
        fn $case() {
            $crate::log::suite::$case(&$bed);
        })+
    };
}
pub(super) use conformance;
