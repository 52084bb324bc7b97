//! A decision log: the bytes of the real one (`record`, `frame`) on a double of a disk. What a batch had written and not
//! yet synced is after a crash on disk, or not, or cut anywhere, or has holes.

use assent_common::frame::{
    Found, Place, SEGMENT_HEADER_BYTES, Scanner, decode, encode, later_batch,
};
use assent_common::log::{Durability, LogPosition, NewRecord, Token};
use assent_common::record::Record;
use assent_common::{Epoch, LogId};

use crate::random::Random;

/// What a disk writes as one; smaller than a real sector, so that small batches are torn too.
const SECTOR_BYTES: usize = 64;

/// The log of one coordinator, of one segment.
#[derive(Debug)]
pub(crate) struct Log {
    place: Place,
    segment: Vec<u8>,
    /// So many bytes are on disk for sure.
    durable: usize,
    /// Handed over, not yet written.
    queue: Vec<HandedOver>,
    /// A record is in the queue that somebody waits for.
    is_forced: bool,
    /// Written, its sync under way.
    batch: Vec<HandedOver>,
    /// The process lives that there were; raised and synced before anything else is done in a life.
    pub(crate) epoch: Epoch,
}

/// A record that the engine has handed over.
#[derive(Debug)]
pub(crate) struct HandedOver {
    pub(crate) token: Token,
    pub(crate) record: Record,
    payload: Vec<u8>,
    kind: u8,
    /// Where it lies, when it is written.
    pub(crate) position: LogPosition,
}

/// What was on disk after a crash.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) records: Vec<(LogPosition, Record)>,
    /// Bytes of a torn tail that were cut.
    pub(crate) torn_bytes: usize,
}

impl Log {
    pub(crate) fn new(log_id: LogId) -> Self {
        let segment = vec![0; SEGMENT_HEADER_BYTES as usize];
        Self {
            place: Place { log_id, segment: 1 },
            durable: segment.len(),
            segment,
            queue: Vec::new(),
            is_forced: false,
            batch: Vec::new(),
            epoch: Epoch(1),
        }
    }

    pub(crate) const fn log_id(&self) -> LogId {
        self.place.log_id
    }

    pub(crate) fn append(&mut self, new: NewRecord, record: Record) {
        let NewRecord { token, kind, payload, durability } = new;
        self.queue.push(HandedOver { token, record, payload, kind, position: LogPosition(0) });
        self.is_forced |= durability == Durability::Forced;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.batch.is_empty()
    }

    /// Whether a batch should be written now: nothing is under way, and somebody waits; or whatever there is, lazily.
    pub(crate) fn wants_write(&self, lazy: bool) -> bool {
        self.batch.is_empty() && !self.queue.is_empty() && (self.is_forced || lazy)
    }

    /// Writes all that was handed over; its sync is then under way.
    pub(crate) fn write(&mut self) {
        self.batch = std::mem::take(&mut self.queue);
        self.is_forced = false;
        let begin = offset(self.segment.len());
        for appended in &mut self.batch {
            let at = offset(self.segment.len());
            appended.position = LogPosition::new(self.place.segment, at);
            encode(&self.place, at, begin, appended.kind, &appended.payload, &mut self.segment);
        }
    }

    /// The sync has returned: what it was of.
    pub(crate) fn synced(&mut self) -> Vec<HandedOver> {
        self.durable = self.segment.len();
        std::mem::take(&mut self.batch)
    }

    /// The sync has failed, and the disk has thrown away what it was of.
    pub(crate) fn thrown_away(&mut self) -> Vec<HandedOver> {
        self.segment.truncate(self.durable);
        std::mem::take(&mut self.batch)
    }

    /// The process dies. Returns what may be lost.
    pub(crate) fn crash(&mut self, random: &mut Random) -> Vec<Record> {
        self.tear(random);
        self.is_forced = false;
        let mut lost = std::mem::take(&mut self.batch);
        lost.append(&mut self.queue);
        lost.into_iter().map(|appended| appended.record).collect()
    }

    fn tear(&mut self, random: &mut Random) {
        let unsynced = self.segment.len() - self.durable;
        if unsynced == 0 {
            return;
        }
        match random.below(4) {
            0 => self.segment.truncate(self.durable),
            1 => {}
            2 => {
                let kept = random.place(unsynced + 1);
                self.segment[self.durable + kept..].fill(0);
            }
            // Sectors reach the disk in any order.
            _ => {
                for sector in self.segment[self.durable..].chunks_mut(SECTOR_BYTES) {
                    if random.percent(40) {
                        sector.fill(0);
                    }
                }
            }
        }
    }

    /// Reads everything, cuts a torn tail, and begins the next life. An error is damage of what was durable. Only a
    /// mutant keeps the tail.
    pub(crate) fn replay(&mut self, keeps_tail: bool) -> Result<Replayed, String> {
        let mut records = Vec::new();
        let mut end = SEGMENT_HEADER_BYTES;
        for found in Scanner::new(self.place, &self.segment) {
            match found {
                Found::Frame(frame) => {
                    let record = Record::decode(frame.kind, frame.payload);
                    let position = LogPosition::new(self.place.segment, frame.offset);
                    records.push((position, record.map_err(|error| error.to_string())?));
                    end = frame.end;
                }
                Found::End { .. } => {}
                Found::Invalid { offset: at, .. } => {
                    let range = at..offset(self.segment.len());
                    if let Some(later) = later_batch(&self.place, &self.segment, range) {
                        return Err(format!("byte {at} is damaged, and a batch at {later} is not"));
                    }
                }
            }
        }
        let end = end as usize;
        if end < self.durable {
            return Err(format!("the log ends at byte {end}, and {} were durable", self.durable));
        }
        let torn_bytes = self.segment.len() - end;
        if !keeps_tail {
            self.segment.truncate(end);
        }
        self.durable = self.segment.len();
        Ok(Replayed { records, torn_bytes })
    }

    /// Goes on in the next segment, of which these records are all; the one before is deleted.
    /// Nothing may be under way.
    pub(crate) fn compact(&mut self, records: &[Record]) {
        assert!(self.is_idle(), "a log is compacted at a start");
        self.place.segment += 1;
        self.segment.truncate(SEGMENT_HEADER_BYTES as usize);
        let begin = offset(self.segment.len());
        for record in records {
            let (kind, payload) = record.encode();
            let at = offset(self.segment.len());
            encode(&self.place, at, begin, kind, &payload, &mut self.segment);
        }
        self.durable = self.segment.len();
    }

    /// The durable record at a position, if it is still there.
    pub(crate) fn read(&self, position: LogPosition) -> Option<Record> {
        let at = position.offset();
        let rest = self.segment[..self.durable].get(at as usize..)?;
        if position.segment() != self.place.segment || at < SEGMENT_HEADER_BYTES {
            return None;
        }
        match decode(&self.place, rest, at) {
            Found::Frame(frame) => Record::decode(frame.kind, frame.payload).ok(),
            Found::End { .. } | Found::Invalid { .. } => None,
        }
    }

    /// The records that are durable.
    pub(crate) fn durable_records(&self) -> Vec<Record> {
        let segment = &self.segment[..self.durable];
        let frames = Scanner::new(self.place, segment).filter_map(|found| match found {
            Found::Frame(frame) => Record::decode(frame.kind, frame.payload).ok(),
            Found::End { .. } | Found::Invalid { .. } => None,
        });
        frames.collect()
    }

    pub(crate) fn durable_bytes(&self) -> usize {
        self.durable
    }
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a segment below 4 GiB")
}
