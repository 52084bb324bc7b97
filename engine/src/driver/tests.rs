//! A resynchronisation, step by step, without a participant and without a log.

use assent_common::coordinator::authority::{Authority, Decisions};
use assent_common::coordinator::resync::SeenData;
use assent_common::lives::Lives;
use assent_common::log::LogPosition;
use assent_common::record::{AnswerRecord, Answered, Identity, Record, WrittenRecord};
use assent_common::time::Millis;
use assent_common::wire::branch::CoordinatorRef;
use assent_common::wire::resync::{Hole, Mark, Progress, Resynced, StagedView};
use assent_common::{Attempt, Epoch, ParticipantName, Txid};
use uuid::Uuid;

use super::*;
use crate::{AdmissionLimits, CoreSettings, History, LifeHeard, Variant};

const LOG: LogId = LogId(Uuid::from_u128(0x0198_f1c2_a4b2_7c1d_9c0e_3f4a_5b6c_7d8e));

const NOW: Micros = Micros(1_000_000);

const KNOWN: DataPoint = DataPoint { incarnation: 7, seq: 2 };

const OPEN: DataPoint = DataPoint { incarnation: 8, seq: 1_000_002 };

/// The lane of the one participant.
const LANE: usize = 0;

fn name() -> ParticipantName {
    "bank-a".parse().unwrap()
}

fn number(n: u64) -> TxNumber {
    TxNumber { epoch: Epoch(1), n }
}

/// A core whose log has seen the participant's data up to vote 2.
fn core() -> Core {
    let settings = CoreSettings {
        identity: CoordinatorRef { log_id: LOG, epoch: Epoch(1), url: String::new(), life: None },
        decision_bytes_max: 1_000,
        admission: AdmissionLimits::default(),
        variant: Variant::default(),
    };
    let authority = Authority::new(LOG, Epoch(1), Decisions::default());
    let mut core = Core::new(settings, authority, History::default(), Lives::default());
    assert_eq!(core.restore_participant(&name(), "http://bank-a"), LANE);
    core.life_heard(LANE, LifeHeard::Nothing);
    let mut seen = SeenData::default();
    seen.apply(&data_seen(&name(), KNOWN, 0));
    core.restore_data(seen);
    core
}

/// The call that the last turn wants, if it wants one.
fn call(core: &mut Core) -> Option<ResyncCall> {
    let mut errands = Vec::new();
    core.swap_errands(&mut errands);
    let calls = errands.into_iter().filter_map(|errand| match errand {
        Errand::Resync(LANE, call) => Some(call),
        _ => None,
    });
    let mut calls: Vec<_> = calls.collect();
    assert!(calls.len() <= 1, "one call at a time: {calls:?}");
    calls.pop()
}

fn fenced() -> DataView {
    DataView {
        incarnation: Some(KNOWN.incarnation),
        seq: KNOWN.seq,
        view: 1,
        fenced: true,
        reason: None,
        owed: vec![LOG],
        staged: Vec::new(),
        served: Vec::new(),
        hole: None,
    }
}

/// One phase, committed by the first transaction with the first vote.
fn first_commit() -> Record {
    let id = "0198f1c2-a4b2-7000-8000-000000000001".parse().unwrap();
    let redo = b"w"[..].into();
    Record::Answered(Answered {
        number: number(1),
        attempt: Attempt::FIRST,
        identity: Identity { id, key: None, fingerprint: None, name: None, created_at: Millis(1) },
        decided_at: Millis(2),
        participants: vec![name()],
        answer: AnswerRecord::Committed { replies: "[]".into() },
        written: Some(WrittenRecord { redo, incarnation: KNOWN.incarnation, seq: 1 }),
    })
}

/// Shows this data to a core whose log has these records; up to where the report would be said.
fn shown(core: &mut Core, view: DataView, records: &[Record]) -> Option<ResyncCall> {
    core.data_is_fenced(LANE);
    assert!(matches!(call(core), Some(ResyncCall::AskData)));
    core.resync(LANE, ResyncHeard::DataShown(Ok(Box::new(view))), NOW);
    assert!(call(core).is_none(), "the log is read before it is on disk");
    let handed_over: Vec<_> = core.outbox().drain(..).collect();
    let durable = handed_over.into_iter().map(|record| (record.token, LogPosition(1)));
    core.durable(durable.collect(), NOW);
    let Some(ResyncCall::ReadLog(mut reading)) = call(core) else { panic!("it is to be read") };
    records.iter().for_each(|record| reading.apply(record));
    let report = reading.finish(core.known_data(LANE));
    core.resync(LANE, ResyncHeard::LogRead(Ok(Box::new(report))), NOW);
    call(core)
}

/// Invariant 9: asked, read behind all that was told, said, and over; once more when that failed.
#[test]
fn each_answer_leads_to_the_next_call_until_the_data_is_open() {
    let mut core = core();
    core.data_is_fenced(LANE);
    core.data_is_fenced(LANE);
    assert!(matches!(call(&mut core), Some(ResyncCall::AskData)), "one at a time");
    core.resync(LANE, ResyncHeard::DataShown(Err("no answer".to_owned())), NOW);
    assert!(matches!(call(&mut core), Some(ResyncCall::Wait(25..=50))));
    core.resync(LANE, ResyncHeard::WordTaken(Err("late".to_owned())), NOW);
    assert!(call(&mut core).is_none(), "nobody waits for that");
    core.resync(LANE, ResyncHeard::Due, NOW);
    assert!(matches!(call(&mut core), Some(ResyncCall::AskData)));
    core.lanes[LANE].data.made_whole();

    let view = DataView { seq: 0, ..fenced() };
    let Some(ResyncCall::Say(word)) = shown(&mut core, view, &[first_commit()]) else { panic!() };
    assert_eq!((word.part, word.last, word.alone, word.known), (0, true, false, Some(KNOWN)));
    assert_eq!(word.redo.iter().map(|it| it.seq).collect::<Vec<_>>(), [1]);
    let said = Resynced { open: Some(OPEN), owed: Vec::new(), redone: 1 };
    core.resync(LANE, ResyncHeard::WordTaken(Ok(said)), NOW);
    assert!(call(&mut core).is_none());
    assert!(!core.lanes[LANE].data.resyncs());
    assert_eq!(core.lanes[LANE].data.seen.known, Some(OPEN));
}

/// What only an operator can put up with is said to nobody before that, and alone afterwards.
#[test]
fn a_loss_waits_for_an_operator() {
    let mut core = core();
    core.lanes[LANE].data.seen.retired = 1;
    let view = DataView { seq: 0, ..fenced() };
    assert!(matches!(shown(&mut core, view.clone(), &[]), Some(ResyncCall::Wait(_))));
    core.accept_loss(&name(), "me".to_owned(), "why".to_owned(), crate::Ticket(1), NOW).unwrap();
    core.resync(LANE, ResyncHeard::Due, NOW);
    assert!(matches!(call(&mut core), Some(ResyncCall::AskData)));
    core.lanes[LANE].data.resync = None;
    let Some(ResyncCall::Say(word)) = shown(&mut core, view, &[]) else { panic!("it is said") };
    assert!(word.alone, "who has accepted a loss does not wait for other logs");
}

/// Invariant 9: the first commit was dropped out of the data, and so was the end of the second
/// transaction, which had said that there should be two: whoever was told of two knows better.
#[test]
fn a_hole_is_counted_with_the_ends_that_were_told() {
    let txid = Txid { log_id: LOG, number: number(2), attempt: Attempt::FIRST };
    let mark = Mark { log_id: LOG, low_water: number(3), epoch: Some(Epoch(1)) };
    let hole = Hole { ended: 0, expected: 1, done: Vec::new(), marks: vec![mark] };
    let staged = vec![StagedView { txid, seq: 2 }];
    let view = DataView { staged, hole: Some(hole), ..fenced() };
    for (incarnation, is_told) in [(KNOWN.incarnation, true), (KNOWN.incarnation + 1, false)] {
        let mut core = core();
        core.lanes[LANE].data.seen.known = Some(DataPoint { incarnation, ..KNOWN });
        core.lanes[LANE].data.progressed(Some(Progress { incarnation, ended: 2 }));
        core.lanes[LANE].data.seen.known = Some(KNOWN);
        let said = shown(&mut core, view.clone(), &[first_commit()]);
        assert_eq!(matches!(said, Some(ResyncCall::Wait(_))), is_told, "{said:?}");
    }
}
