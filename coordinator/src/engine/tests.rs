//! Compaction of a log that does not keep up: what it must wait for, and what it must not copy. The
//! test is the log's disk and its writer, so that every interleaving is one that it chose. And the
//! end of a lane.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use assent_client::transport::HttpOptions;
use assent_common::branch::BranchAnswer;
use assent_common::coordinator::{Branch, FromBranch, State};
use assent_common::lives::SealKey;
use assent_common::outcome::{Applied, Call};
use assent_common::record::{Committed, CommittedBranch, Identity, Record};
use assent_common::time::Millis;
use assent_common::{Attempt, Epoch, LogId};
use assent_engine::{CoreSettings, NextLife, Replaying, Variant, decision_bytes_max};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::*;
use crate::log::{
    Callbacks, DecisionLog, Durability, LogError, LogRecord, MemoryLog, MemoryStore, NewRecord,
    SegmentInfo, Visitor,
};
use crate::recovery::compact;

const LOG_ID: LogId = LogId(Uuid::from_u128(0x0198_f1c2_a4b2_7c1d_9c0e_3f4a_5b6c_7d8e));

/// Records of a segment: the decision's is full and sealed with it and one more.
const RECORDS_PER_SEGMENT: usize = 2;

/// The transaction of these tests, decided in an earlier life.
const DECIDED: TxNumber = TxNumber { epoch: Epoch(1), n: 1 };

/// A log that says that its queue is full for as long as it is told to.
struct Congested {
    log: Arc<MemoryLog>,
    full: AtomicBool,
    refused: AtomicUsize,
}

impl DecisionLog for Congested {
    fn log_id(&self) -> LogId {
        self.log.log_id()
    }

    fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    fn append_all(&self, records: &mut VecDeque<NewRecord>) -> Result<(), LogError> {
        if self.full.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(LogError::Full { queued: 1, max: 1 });
        }
        self.log.append_all(records)
    }

    fn read(&self, position: LogPosition) -> Result<LogRecord, LogError> {
        self.log.read(position)
    }

    fn segments(&self) -> Vec<SegmentInfo> {
        self.log.segments()
    }

    fn read_segment(&self, number: u32, visitor: &mut Visitor<'_>) -> Result<(), LogError> {
        self.log.read_segment(number, visitor)
    }

    fn retire(&self, through: u32) -> Result<(), LogError> {
        self.log.retire(through)
    }

    fn queued_bytes(&self) -> usize {
        self.log.queued_bytes()
    }

    fn close(&self) {
        self.log.close();
    }
}

fn silent() -> Callbacks {
    Callbacks { on_durable: Box::new(|_| ()), on_fatal: Box::new(|_| ()) }
}

fn open(store: &MemoryStore) -> (crate::log::OpenedMemoryLog, Replaying) {
    let mut replaying = Replaying::default();
    let opened = store.open(&mut |position, kind, payload| {
        replaying.apply(position, Record::decode(kind, payload)?)?;
        Ok(())
    });
    (opened.unwrap(), replaying)
}

fn begin(replaying: Replaying, epoch: Epoch) -> NextLife {
    let settings = CoreSettings {
        identity: CoordinatorRef { log_id: LOG_ID, epoch, url: String::new(), life: None },
        decision_bytes_max: decision_bytes_max(usize::MAX),
        admission: AdmissionLimits::default(),
        variant: Variant::default(),
    };
    replaying.begin(settings, 1, || SealKey([7; 32]), clock::now())
}

fn decision() -> Record {
    let branch = |name: &str| CommittedBranch {
        participant: name.parse().unwrap(),
        replies: "[70]".into(),
        redo: [1, 2, 3][..].into(),
        incarnation: 1,
        seq: 1,
    };
    let id = "0198f1c2-a4b2-7000-8000-000000000001".parse().unwrap();
    Record::Committed(Committed {
        number: DECIDED,
        attempt: Attempt::FIRST,
        identity: Identity { id, key: None, fingerprint: None, name: None, created_at: Millis(1) },
        decided_at: Millis(2),
        branches: vec![branch("bank-a"), branch("bank-b")],
    })
}

/// A log whose first segment holds a decision that is not applied yet. It is full: the first
/// record of the next life seals it.
fn decided_in_a_sealed_segment() -> MemoryStore {
    let store = MemoryStore::init(LOG_ID, RECORDS_PER_SEGMENT);
    let log = open(&store).0.start(silent());
    for record in [decision(), Record::SealKey(SealKey([7; 32]))] {
        let (kind, payload) = record.encode();
        log.append(0, kind, payload, Durability::Forced).unwrap();
    }
    log.close();
    store
}

/// An engine that has recovered from such a log. Nothing runs its lanes, so that the transaction
/// stays as it is.
struct Rig {
    store: MemoryStore,
    log: Arc<Congested>,
    engine: Engine,
    runtime: Runtime,
}

impl Rig {
    fn start() -> Self {
        let store = decided_in_a_sealed_segment();
        let (opened, replaying) = open(&store);
        let started: Arc<OnceLock<Engine>> = Arc::new(OnceLock::new());
        let of_log = Arc::clone(&started);
        let log = opened.start(Callbacks {
            on_durable: Box::new(move |batch| of_log.get().unwrap().durable(batch)),
            on_fatal: Box::new(|error| panic!("{error}")),
        });
        let (full, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
        let log = Arc::new(Congested { log, full, refused });
        let runtime = Builder::new_current_thread().build().unwrap();
        let entered = runtime.enter();
        let NextLife { core, rest, .. } = begin(replaying, log.epoch());
        let http = Http::new(&HttpOptions::default()).unwrap();
        let engine = Engine::new(core, Arc::clone(&log) as LogHandle, http);
        started.set(engine.clone()).ok().unwrap();
        engine.go_on(rest);
        log.log.sync();
        assert!(engine.core().active(DECIDED).is_some());
        drop(entered);
        Self { store, log, engine, runtime }
    }

    /// Compacts; returns when what compaction keeps was handed over, or refused.
    fn compact(&self) -> JoinHandle<Result<u32, LogError>> {
        let engine = self.engine.clone();
        let offered = || self.log.log.queued_records() + self.log.refused.load(Ordering::SeqCst);
        let before = offered();
        let compacting = thread::spawn(move || compact(&engine, 0));
        while offered() == before {
            thread::yield_now();
        }
        // What is kept is handed over under this lock.
        drop(self.engine.core());
        compacting
    }

    /// Kills the process, and reads what the next one would find.
    fn crash(self) -> NextLife {
        self.log.log.crash();
        begin(open(&self.store).1, Epoch(9))
    }
}

fn resumed(started: &NextLife) -> Vec<TxNumber> {
    let transactions = started.rest.transactions().iter();
    transactions.map(|recovered| recovered.transaction.spec().number).collect()
}

/// Promise *durable*, invariant 4: a decision whose copy waits for room in the log's queue is
/// nowhere but in its old segment.
#[test]
fn a_crash_while_copies_wait_for_room_loses_no_decision() {
    let rig = Rig::start();
    rig.log.full.store(true, Ordering::SeqCst);
    let compacting = rig.compact();
    // Everything in memory is gone, whatever compaction was about to do.
    let empty = begin(Replaying::default(), Epoch(2)).core;
    *rig.engine.core().held = Guarded { core: empty, desk: Desk::default() };
    assert_eq!(compacting.join().unwrap().unwrap(), 0, "segments went without their copies");
    assert_eq!(resumed(&rig.crash()), [DECIDED]);
}

/// The other half: when there is room, the copies become durable, and the old segment goes.
#[test]
fn compaction_goes_on_when_its_copies_are_durable() {
    let rig = Rig::start();
    rig.log.full.store(true, Ordering::SeqCst);
    let compacting = rig.compact();
    rig.log.full.store(false, Ordering::SeqCst);
    rig.engine.durable(Vec::new());
    rig.log.log.sync();
    assert_eq!(compacting.join().unwrap().unwrap(), 1);
    assert_eq!(rig.log.segments()[0].number, 2);
    let position = rig.engine.core().active(DECIDED).unwrap().position.unwrap();
    assert!(rig.log.read(position).is_ok(), "its record is at {position}");
    assert_eq!(resumed(&rig.crash()), [DECIDED]);
}

/// Promise *once*: a copy behind its end would bring a transaction that has ended back to life.
#[test]
fn the_record_of_a_transaction_that_is_closing_is_not_copied_behind_its_end() {
    let rig = Rig::start();
    let applied = |branch| {
        let answer = BranchAnswer::Applied(Call::Applied(Applied { dirty_writes: 0 }));
        (DECIDED, FromBranch { branch: Branch(branch), attempt: Attempt::FIRST, answer })
    };
    rig.engine.core().answered(vec![applied(0), applied(1)], clock::micros());
    assert!(matches!(
        rig.engine.core().active(DECIDED).unwrap().machine.state(),
        State::Closing(_)
    ));
    assert_eq!(rig.log.log.queued_records(), 1, "its end is on the way");
    let compacting = rig.compact();
    rig.log.log.sync();
    assert_eq!(compacting.join().unwrap().unwrap(), 1);
    assert!(rig.engine.core().all_active().next().is_none());
    // The answer went with its segment.
    let Record::Committed(Committed { identity, .. }) = decision() else { unreachable!() };
    let looked_up = rig.engine.transaction(identity.id).unwrap_err();
    assert_eq!(looked_up.code, ErrorCode::NotFound);
    assert_eq!(rig.engine.core().history().by_id(identity.id), None);
    let after = rig.crash();
    let decided = Txid { log_id: LOG_ID, number: DECIDED, attempt: Attempt::FIRST };
    let outcome = after.core.outcome(decided);
    assert_eq!(outcome, BranchOutcome::Committed, "presumed abort would now be wrong");
    assert_eq!(resumed(&after), []);
}

/// Nobody would send its participant anything any more. The test runs itself in a process that may
/// end.
#[test]
fn a_panic_in_a_lane_ends_the_process() {
    const IN_CHILD: &str = "ASSENT_TEST_LANE_PANICS";
    if std::env::var_os(IN_CHILD).is_some() {
        let rig = Rig::start();
        // There is no such place, so that its first step panics.
        lane::start_lane(&rig.engine.shared, usize::MAX, Arc::default());
        rig.runtime.block_on(tokio::task::yield_now());
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "engine::tests::a_panic_in_a_lane_ends_the_process"])
        .env(IN_CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(6), "{}: {said}", child.status);
}
