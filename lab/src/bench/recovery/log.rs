//! A decision log with a past, written as the coordinator writes it: by the real writer, in the
//! records of transfers that carry idempotency keys.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvError, channel};

use assent::Failure;
use assent_common::lives::{Life, LifeBegan, Lives, Proof};
use assent_common::record::{Committed, CommittedBranch, Ended, Identity, Record};
use assent_common::wire::branch::CoordinatorRef;
use assent_common::{Attempt, Epoch, LogId, TransactionId, TxNumber};
use assent_coordinator::clock;
use assent_coordinator::log::{
    self, Callbacks, DecisionLog, Durability, LogError, LogHandle, LogOptions, NewRecord, Token,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::transfer::{Past, Transfer};

/// Records that are handed over at once.
const CHUNK: usize = 4_096;

/// A log that is being written, in an epoch of its own.
pub(super) struct Writer {
    log: LogHandle,
    durable: Receiver<Token>,
    queue: VecDeque<NewRecord>,
    last: Token,
    records: u64,
    lives: Lives,
}

/// What a log holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// Whether transactions carry idempotency keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Keyed {
    Yes,
    No,
}

fn failed(error: &LogError) -> Failure {
    Failure::of("the decision log", error)
}

/// Makes an empty log.
pub(super) fn init(dir: &Path) -> Result<(), Failure> {
    log::init(&LogOptions::new(dir)).map(drop).map_err(|error| failed(&error))
}

impl Writer {
    /// Opens a log, as a coordinator does that starts.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let (mut lives, mut last) = (Lives::default(), 0);
        let opened = log::open(LogOptions::new(dir), &mut |position, kind, payload| {
            last = position.0;
            if let Record::LifeBegan(began) = Record::decode(kind, payload)? {
                lives.began(began);
            }
            Ok(())
        });
        let opened = opened.map_err(|error| failed(&error))?;
        let records = opened.report.records;
        let (tell, durable) = channel();
        let log = opened.start(Callbacks {
            on_durable: Box::new(move |batch| {
                if let Some((token, _)) = batch.last() {
                    // Nobody listens any more when the writer is dropped.
                    let _gone = tell.send(*token);
                }
            }),
            on_fatal: Box::new(log::stop_process),
        });
        let log = log.map_err(|error| failed(&error))?;
        let life = Life { epoch: DecisionLog::epoch(&*log), nonce: rand::random::<u64>() >> 2 };
        let began = LifeBegan { life, at: Some(last) };
        lives.began(began);
        let mut writer = Self { log, durable, queue: VecDeque::new(), last: 0, records, lives };
        writer.push(&Record::LifeBegan(began))?;
        Ok(writer)
    }

    pub(super) fn log_id(&self) -> LogId {
        self.log.log_id()
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    /// Who speaks to participants: the coordinator of this life, which is at `url`.
    pub(super) fn speaker(&self, url: String) -> CoordinatorRef {
        let epoch = self.epoch();
        let nonce = self.lives.iter().last().map_or(0, |began| began.life.nonce);
        let before = Some(self.lives.before(epoch, None));
        let life = Some(Proof { nonce, position: 0, seal: None, before });
        CoordinatorRef { log_id: self.log_id(), epoch, url, life }
    }

    /// Writes transactions that have ended: each a decision, and its end. Their numbers begin at 1.
    pub(super) fn ended(&mut self, count: u64, keyed: Keyed, past: &Past) -> Result<(), Failure> {
        for n in 1..=count {
            let transfer =
                Transfer { number: TxNumber { epoch: self.epoch(), n }, ..past.transfer };
            self.push(&decision(transfer, keyed, past.branches(n)))?;
            self.push(&Record::Ended(Ended { number: transfer.number }))?;
        }
        Ok(())
    }

    /// Writes a decision without its end.
    pub(super) fn unfinished(
        &mut self,
        transfer: Transfer,
        branches: Vec<CommittedBranch>,
    ) -> Result<(), Failure> {
        self.push(&decision(transfer, Keyed::Yes, branches))
    }

    fn push(&mut self, record: &Record) -> Result<(), Failure> {
        let (kind, payload) = record.encode();
        self.last += 1;
        self.records += 1;
        let durability = Durability::Lazy;
        self.queue.push_back(NewRecord { token: self.last, kind, payload, durability });
        if self.queue.len() < CHUNK { Ok(()) } else { self.hand_over() }
    }

    fn hand_over(&mut self) -> Result<(), Failure> {
        loop {
            match self.log.append_all(&mut self.queue) {
                Ok(()) => return Ok(()),
                Err(LogError::Full { .. }) => drop(self.next_durable()?),
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    fn next_durable(&self) -> Result<Token, Failure> {
        let stopped = |_: RecvError| Failure::error("the writer of the decision log has stopped");
        self.durable.recv().map_err(stopped)
    }

    /// Waits until all of it is on disk, and closes the log.
    pub(super) fn close(mut self) -> Result<Size, Failure> {
        self.hand_over()?;
        let mut durable = 0;
        while durable < self.last {
            durable = self.next_durable()?;
        }
        let bytes = self.log.segments().iter().map(|segment| segment.bytes).sum();
        self.log.close();
        Ok(Size { records: self.records, bytes })
    }
}

fn decision(transfer: Transfer, keyed: Keyed, branches: Vec<CommittedBranch>) -> Record {
    let created_at = clock::now();
    let id = TransactionId::new(Uuid::now_v7())
        .unwrap_or_else(|error| unreachable!("a UUID of version 7 was made: {error}"));
    let (key, fingerprint) = match keyed {
        Keyed::Yes => {
            let fingerprint = Sha256::digest(transfer.body()).into();
            (transfer.key().parse().ok(), Some(fingerprint))
        }
        Keyed::No => (None, None),
    };
    Record::Committed(Committed {
        number: transfer.number,
        attempt: Attempt::FIRST,
        identity: Identity { id, key, fingerprint, name: None, created_at },
        decided_at: created_at,
        branches,
    })
}
