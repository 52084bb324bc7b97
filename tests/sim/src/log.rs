//! A decision log: the bytes of the real one (`record`, `frame`) on a double of a disk. What a batch had written and not
//! yet synced is after a crash on disk, or not, or cut anywhere, or has holes.

use assent_common::frame::{Found, Place, SEGMENT_HEADER_BYTES, Scanner, encode, later_batch};
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
    queue: Vec<Record>,
    /// A record is in the queue that somebody waits for.
    is_forced: bool,
    /// Written, its sync under way.
    batch: Vec<Record>,
    /// The process lives that there were; raised and synced before anything else is done in a life.
    pub(crate) epoch: Epoch,
}

/// What was on disk after a crash.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) records: Vec<Record>,
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

    pub(crate) fn append(&mut self, record: Record, forced: bool) {
        self.queue.push(record);
        self.is_forced |= forced;
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
        for record in &self.batch {
            let (kind, payload) = record.encode();
            let at = offset(self.segment.len());
            encode(&self.place, at, begin, kind, &payload, &mut self.segment);
        }
    }

    /// The sync has returned: what it was of.
    pub(crate) fn synced(&mut self) -> Vec<Record> {
        self.durable = self.segment.len();
        std::mem::take(&mut self.batch)
    }

    /// The sync has failed, and the disk has thrown away what it was of.
    pub(crate) fn thrown_away(&mut self) -> Vec<Record> {
        self.segment.truncate(self.durable);
        std::mem::take(&mut self.batch)
    }

    /// The process dies. Returns what may be lost.
    pub(crate) fn crash(&mut self, random: &mut Random) -> Vec<Record> {
        self.tear(random);
        self.is_forced = false;
        let mut lost = std::mem::take(&mut self.batch);
        lost.append(&mut self.queue);
        lost
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
                    records.push(record.map_err(|error| error.to_string())?);
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
    pub(crate) fn compact(&mut self, records: Vec<Record>) {
        self.place.segment += 1;
        self.segment.truncate(SEGMENT_HEADER_BYTES as usize);
        let queue = std::mem::replace(&mut self.queue, records);
        let is_forced = self.is_forced;
        self.write();
        self.synced();
        (self.queue, self.is_forced) = (queue, is_forced);
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
