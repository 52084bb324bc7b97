//! A decision log: the bytes of the real one (`record`, `frame`) on a double of a disk, in segments
//! of which the last is written. What a batch had written and not yet synced is after a crash on
//! disk, or not, or cut anywhere, or has holes.

use assent_common::frame::{
    Found, Place, SEGMENT_HEADER_BYTES, Scanner, decode, encode, later_batch,
};
use assent_common::log::{Durability, LogPosition, NewRecord, Token};
use assent_common::record::Record;
use assent_common::time::Millis;
use assent_common::{Epoch, LogId};

use crate::random::Random;

/// What a disk writes as one; smaller than a real sector, so that small batches are torn too.
const SECTOR_BYTES: usize = 64;

/// A batch begins the next segment when the one before has so many bytes.
const SEGMENT_BYTES: usize = 4 * 1024;

/// The log of one coordinator.
#[derive(Debug)]
pub(crate) struct Log {
    log_id: LogId,
    /// The oldest first; the last is being written, and all of the others is durable.
    segments: Vec<Segment>,
    /// So many bytes of the last segment are on disk for sure.
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

#[derive(Debug)]
struct Segment {
    place: Place,
    bytes: Vec<u8>,
    sealed_at: Option<Millis>,
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
pub(crate) struct FoundLog {
    pub(crate) records: Vec<(LogPosition, Record)>,
    /// Bytes of a torn tail that were cut.
    pub(crate) torn_bytes: usize,
}

impl Segment {
    fn new(log_id: LogId, segment: u32) -> Self {
        let bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
        Self { place: Place { log_id, segment }, bytes, sealed_at: None }
    }

    /// Its records, where nothing is damaged.
    fn records(&self, durable: usize) -> impl Iterator<Item = Record> {
        let frames = Scanner::new(self.place, &self.bytes[..durable]);
        frames.filter_map(|found| match found {
            Found::Frame(frame) => Record::decode(frame.kind, frame.payload).ok(),
            Found::End { .. } | Found::Invalid { .. } => None,
        })
    }

    /// Reads all of it, and adds its records; returns the end of what is whole. An error is damage
    /// that no crash leaves.
    fn read(&self, records: &mut Vec<(LogPosition, Record)>) -> Result<usize, String> {
        let mut end = SEGMENT_HEADER_BYTES;
        for found in Scanner::new(self.place, &self.bytes) {
            match found {
                Found::Frame(frame) => {
                    let record = Record::decode(frame.kind, frame.payload);
                    let position = LogPosition::new(self.place.segment, frame.offset);
                    records.push((position, record.map_err(|error| error.to_string())?));
                    end = frame.end;
                }
                Found::End { .. } => {}
                Found::Invalid { offset: at, .. } => {
                    let range = at..offset(self.bytes.len());
                    if let Some(later) = later_batch(&self.place, &self.bytes, range) {
                        return Err(format!("byte {at} is damaged, and a batch at {later} is not"));
                    }
                }
            }
        }
        Ok(end as usize)
    }
}

impl Log {
    pub(crate) fn new(log_id: LogId) -> Self {
        let first = Segment::new(log_id, 1);
        Self {
            log_id,
            durable: first.bytes.len(),
            segments: vec![first],
            queue: Vec::new(),
            is_forced: false,
            batch: Vec::new(),
            epoch: Epoch(1),
        }
    }

    pub(crate) const fn log_id(&self) -> LogId {
        self.log_id
    }

    fn last(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log has a segment")
    }

    pub(crate) fn append(&mut self, new: NewRecord, record: Record) {
        let NewRecord { token, kind, payload, durability } = new;
        self.queue.push(HandedOver { token, record, payload, kind, position: LogPosition(0) });
        self.is_forced |= durability == Durability::Forced;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.batch.is_empty()
    }

    /// Whether a batch should be written now: nothing is under way, and somebody waits; or whatever
    /// there is, lazily.
    pub(crate) fn wants_write(&self, lazy: bool) -> bool {
        self.batch.is_empty() && !self.queue.is_empty() && (self.is_forced || lazy)
    }

    /// Writes all that was handed over; its sync is then under way.
    pub(crate) fn write(&mut self, now: Millis) {
        if self.durable > SEGMENT_BYTES {
            let (log_id, sealed) = (self.log_id, self.last());
            sealed.sealed_at = Some(now);
            let next = Segment::new(log_id, sealed.place.segment + 1);
            self.durable = next.bytes.len();
            self.segments.push(next);
        }
        let mut batch = std::mem::take(&mut self.queue);
        self.is_forced = false;
        let Segment { place, bytes, .. } = self.last();
        let begin = offset(bytes.len());
        for appended in &mut batch {
            let at = offset(bytes.len());
            appended.position = LogPosition::new(place.segment, at);
            encode(place, at, begin, appended.kind, &appended.payload, bytes);
        }
        self.batch = batch;
    }

    /// The sync has returned: what it was of.
    pub(crate) fn synced(&mut self) -> Vec<HandedOver> {
        self.durable = self.last().bytes.len();
        std::mem::take(&mut self.batch)
    }

    /// The sync has failed, and the disk has thrown away what it was of.
    pub(crate) fn thrown_away(&mut self) -> Vec<HandedOver> {
        let durable = self.durable;
        self.last().bytes.truncate(durable);
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
        let durable = self.durable;
        let bytes = &mut self.last().bytes;
        let unsynced = bytes.len() - durable;
        if unsynced == 0 {
            return;
        }
        match random.below(4) {
            0 => bytes.truncate(durable),
            1 => {}
            2 => {
                let kept = random.place(unsynced + 1);
                bytes[durable + kept..].fill(0);
            }
            // Sectors reach the disk in any order.
            _ => {
                for sector in bytes[durable..].chunks_mut(SECTOR_BYTES) {
                    if random.percent(40) {
                        sector.fill(0);
                    }
                }
            }
        }
    }

    /// Reads everything, and cuts a torn tail. An error is damage of what was durable. Only a
    /// mutant keeps the tail.
    pub(crate) fn replay(&mut self, keeps_tail: bool) -> Result<FoundLog, String> {
        let mut records = Vec::new();
        let mut end = 0;
        for segment in &self.segments {
            end = segment.read(&mut records)?;
            if segment.sealed_at.is_some() && end < segment.bytes.len() {
                return Err(format!("segment {} ends at byte {end}", segment.place.segment));
            }
        }
        if end < self.durable {
            return Err(format!("the log ends at byte {end}, and {} were durable", self.durable));
        }
        let bytes = &mut self.last().bytes;
        let torn_bytes = bytes.len() - end;
        if !keeps_tail {
            bytes.truncate(end);
        }
        self.durable = bytes.len();
        Ok(FoundLog { records, torn_bytes })
    }

    /// The numbers of the segments, and when they were sealed.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u32, Option<Millis>)> {
        self.segments.iter().map(|segment| (segment.place.segment, segment.sealed_at))
    }

    /// The records of a segment that is sealed.
    pub(crate) fn sealed_records(&self, number: u32) -> Vec<Record> {
        let sealed = self.segments.iter().filter(|it| it.sealed_at.is_some());
        let mut named = sealed.filter(|segment| segment.place.segment == number);
        named.next().map_or_else(Vec::new, |it| it.records(it.bytes.len()).collect())
    }

    /// Deletes the segments up to this one.
    pub(crate) fn retire(&mut self, through: u32) {
        self.segments.retain(|segment| segment.place.segment > through);
        assert!(!self.segments.is_empty(), "the segment that is written stays");
    }

    /// The durable record at a position, if it is still there.
    pub(crate) fn read(&self, position: LogPosition) -> Option<Record> {
        let (number, at) = (position.segment(), position.offset());
        let segment = self.segments.iter().find(|segment| segment.place.segment == number)?;
        let durable = self.durable_bytes_of(segment);
        let rest = segment.bytes[..durable].get(at as usize..)?;
        if at < SEGMENT_HEADER_BYTES {
            return None;
        }
        match decode(&segment.place, rest, at) {
            Found::Frame(frame) => Record::decode(frame.kind, frame.payload).ok(),
            Found::End { .. } | Found::Invalid { .. } => None,
        }
    }

    /// The records that are durable.
    pub(crate) fn durable_records(&self) -> Vec<Record> {
        let segments = self.segments.iter();
        segments.flat_map(|it| it.records(self.durable_bytes_of(it))).collect()
    }

    const fn durable_bytes_of(&self, segment: &Segment) -> usize {
        if segment.sealed_at.is_some() { segment.bytes.len() } else { self.durable }
    }
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a segment below 4 GiB")
}
