//! How records lie in the bytes of a decision log: segment headers and frames. Pure, no I/O.
//!
//! It owns the byte layout and what makes a byte range *valid*. It never decides what an invalid range means (torn tail
//! or rot: that needs the whole log, `coordinator::log`), and it never looks into a payload (`record.rs` does).
//!
//! A segment is one header page and then frames, each aligned to [`ALIGN`], then zeros:
//!
//! ```text
//! 0        4096                                                          segment_bytes
//! | header | frame | frame | frame | 0 0 0 0 ...                                    |
//!
//! frame:  length u32 | crc32c u32 | batch u32 | kind u8 | version u8 | 0 u16 | payload | zeros up to ALIGN
//! ```
//!
//! All numbers are little-endian. `length` counts the payload. The checksum covers everything else of the frame **and
//! its place**: log id, segment number, offset. So a frame of another log, of an old copy or of another place is never
//! valid here. `batch` is the offset at which the batch that wrote the frame began. A batch is synced before the next
//! one is written, so a valid frame proves that every byte before its `batch` was durable once; that is what tells rot
//! from a torn tail.

use std::ops::Range;

use crate::LogId;

/// Bytes of a segment's header; frames begin after it. One page, so that writing frames never touches it.
pub const SEGMENT_HEADER_BYTES: u32 = 4096;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 16;

/// Frames begin at multiples of this, so that a search for frames after damage need look at few places.
pub const ALIGN: usize = 8;

/// The version of the frame layout that this code writes and reads. Never 0: a frame must differ from zeros.
pub const FRAME_VERSION: u8 = 1;

/// The version of the segment layout that this code writes and reads.
pub const SEGMENT_VERSION: u32 = 1;

const SEGMENT_MAGIC: &[u8; 8] = b"ASSENTLG";

/// Bytes that a payload of this length takes in a segment.
#[must_use]
pub const fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN)
}

/// Which log and segment a byte range claims to be of; enters every checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The log.
    pub log_id: LogId,
    /// The segment's number within it, from 1.
    pub segment: u32,
}

/// One valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it begins in its segment.
    pub offset: u32,
    /// Where the next one begins.
    pub end: u32,
    /// Where its batch began: every byte before that was durable when this frame was written.
    pub batch: u32,
    /// What the payload is; opaque here.
    pub kind: u8,
    /// The record.
    pub payload: &'a [u8],
    /// Its checksum, from which the owner of a segment chains a digest.
    pub crc: u32,
}

/// Why a byte range is not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFrame {
    /// The length runs past the end of the segment.
    #[error("a record's length runs past the end of the segment")]
    Length,
    /// The checksum does not hold for these bytes at this place of this log.
    #[error("the checksum does not hold for these bytes at this place of this log")]
    Checksum,
    /// The layout is one that this code does not know.
    #[error("the record has frame version {0}, which this Assent does not know")]
    Version(u8),
    /// The batch is neither that of the frame before nor one that begins here.
    #[error("the record claims a batch that did not begin where it should")]
    Batch,
    /// Zeros, but more data after them.
    #[error("zeros where a record should be, with data after them")]
    Hole,
}

/// What lies at an offset of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// A valid frame.
    Frame(Frame<'a>),
    /// Zeros as long as a frame's header, or no room for one: the end, if only zeros follow ([`data_end`]).
    End {
        /// Where the next frame would begin.
        offset: u32,
    },
    /// Bytes that are no valid frame.
    Invalid {
        /// Where they begin.
        offset: u32,
        /// What is wrong with them.
        reason: InvalidFrame,
    },
}

/// Appends the frame of `payload`, to lie at `offset`, to `out`, and returns its checksum. The caller has checked that
/// it fits into the segment.
pub fn encode(
    place: &Place,
    offset: u32,
    batch: u32,
    kind: u8,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> u32 {
    debug_assert!((offset as usize).is_multiple_of(ALIGN) && batch <= offset);
    let begin = out.len();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&batch.to_le_bytes());
    out.extend_from_slice(&[kind, FRAME_VERSION, 0, 0]);
    out.extend_from_slice(payload);
    out.resize(begin + frame_bytes(payload.len()), 0);
    let crc = checksum(place, offset, length, &out[begin + 8..]);
    out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Looks at what lies at `offset` of a segment; `rest` are its bytes from there on.
#[must_use]
pub fn decode<'a>(place: &Place, rest: &'a [u8], offset: u32) -> Found<'a> {
    let invalid = |reason| Found::Invalid { offset, reason };
    let Some(header) = rest.first_chunk::<FRAME_HEADER_BYTES>() else {
        let ends = rest.iter().all(|byte| *byte == 0);
        return if ends { Found::End { offset } } else { invalid(InvalidFrame::Length) };
    };
    if header == &[0; FRAME_HEADER_BYTES] {
        return Found::End { offset };
    }
    let length = u32_at(header, 0);
    let bytes = frame_bytes(length as usize);
    let Some(frame) = rest.get(..bytes) else { return invalid(InvalidFrame::Length) };
    let crc = u32_at(header, 4);
    if checksum(place, offset, length, &frame[8..]) != crc {
        return invalid(InvalidFrame::Checksum);
    }
    // After the checksum: only bytes that somebody meant to write can be of another version.
    if header[13] != FRAME_VERSION {
        return invalid(InvalidFrame::Version(header[13]));
    }
    let batch = u32_at(header, 8);
    if batch > offset {
        return invalid(InvalidFrame::Batch);
    }
    Found::Frame(Frame {
        offset,
        // A segment is shorter than 4 GiB (its length is a u32), and the frame lies inside it.
        end: offset.saturating_add(bytes as u32),
        batch,
        kind: header[12],
        payload: &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length as usize],
        crc,
    })
}

/// Iterates over the frames of a segment; its last item is `End` or `Invalid`.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    place: Place,
    segment: &'a [u8],
    next: Option<u32>,
    batch: u32,
}

impl<'a> Scanner<'a> {
    /// Scans a segment, given its bytes from its very beginning, header included.
    #[must_use]
    pub const fn new(place: Place, segment: &'a [u8]) -> Self {
        Self { place, segment, next: Some(SEGMENT_HEADER_BYTES), batch: SEGMENT_HEADER_BYTES }
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        let offset = self.next.take()?;
        let rest = self.segment.get(offset as usize..).unwrap_or_default();
        let found = decode(&self.place, rest, offset);
        let Found::Frame(frame) = found else { return Some(found) };
        if frame.batch != self.batch && frame.batch != offset {
            return Some(Found::Invalid { offset, reason: InvalidFrame::Batch });
        }
        self.batch = frame.batch;
        self.next = Some(frame.end);
        Some(found)
    }
}

/// Where the data of a segment end: one past its last byte that is not zero.
#[must_use]
pub fn data_end(segment: &[u8]) -> usize {
    // Chunks first, because most of a segment may be zeros and this is on the way of every start.
    let chunks = segment.rchunks(4096);
    let zeros = chunks.take_while(|chunk| chunk.iter().all(|byte| *byte == 0));
    let end = segment.len() - zeros.map(<[u8]>::len).sum::<usize>();
    segment[..end].iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

/// Searches `range` for a valid frame whose batch began after `range.start`: proof that the byte at `range.start` was
/// durable before it was damaged. Frames of the damaged batch itself prove nothing, since the pages of one write may
/// reach the disk in any order.
#[must_use]
pub fn later_batch(place: &Place, segment: &[u8], range: Range<u32>) -> Option<u32> {
    let first = (range.start as usize + 1).next_multiple_of(ALIGN);
    let offsets = (first..range.end as usize).step_by(ALIGN);
    offsets.map(|offset| offset as u32).find(|offset| {
        // The field is looked at before the checksum is computed: hardly any place in other data passes, so that the
        // search stays about linear.
        let at = *offset as usize;
        let Some(header) = segment.get(at..at + FRAME_HEADER_BYTES) else { return false };
        let batch = u32_at(header, 8);
        batch > range.start
            && batch <= *offset
            && matches!(decode(place, &segment[at..], *offset), Found::Frame(_))
    })
}

/// The first page of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which segment of which log.
    pub place: Place,
    /// Bytes of the whole segment, header included.
    pub segment_bytes: u32,
    /// When it was begun, in milliseconds since the epoch of Unix; for people.
    pub created_ms: u64,
    /// The epoch of the writer that began it: keeps the epoch known when older segments are gone.
    pub epoch: u64,
    /// Where the segment before it ended, so that a shorter copy of that one is noticed; 0 for the first.
    pub previous_end: u32,
    /// The digest ([`chain`]) of the segment before it; 0 for the first.
    pub previous_digest: u32,
}

/// Why a page is not a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// Not a segment at all.
    #[error("the file does not begin as a segment of a decision log")]
    Magic,
    /// The checksum does not hold.
    #[error("the checksum of the segment's header does not hold")]
    Checksum,
    /// A layout that this code does not know.
    #[error("the segment has format version {0}, which this Assent does not know")]
    Version(u32),
}

impl SegmentHeader {
    /// The page, [`SEGMENT_HEADER_BYTES`] long, its checksum in its last four bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        page.extend_from_slice(SEGMENT_MAGIC);
        page.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
        page.extend_from_slice(&self.place.segment.to_le_bytes());
        page.extend_from_slice(self.place.log_id.0.as_bytes());
        page.extend_from_slice(&self.created_ms.to_le_bytes());
        page.extend_from_slice(&self.epoch.to_le_bytes());
        page.extend_from_slice(&self.segment_bytes.to_le_bytes());
        page.extend_from_slice(&self.previous_end.to_le_bytes());
        page.extend_from_slice(&self.previous_digest.to_le_bytes());
        page.resize(SEGMENT_HEADER_BYTES as usize - 4, 0);
        let crc = crc(&page);
        page.extend_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads the page back. Whether it is the header that belongs here is for the caller to say.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidHeader> {
        let Some(page) = bytes.get(..SEGMENT_HEADER_BYTES as usize) else {
            return Err(InvalidHeader::Magic);
        };
        if &page[..8] != SEGMENT_MAGIC {
            return Err(InvalidHeader::Magic);
        }
        let (covered, stored) = page.split_at(page.len() - 4);
        if crc32c::crc32c(covered) != u32_at(stored, 0) {
            return Err(InvalidHeader::Checksum);
        }
        let version = u32_at(page, 8);
        if version != SEGMENT_VERSION {
            return Err(InvalidHeader::Version(version));
        }
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&page[16..32]);
        Ok(Self {
            place: Place {
                log_id: LogId(uuid::Uuid::from_bytes(log_id)),
                segment: u32_at(page, 12),
            },
            created_ms: u64_at(page, 32),
            epoch: u64_at(page, 40),
            segment_bytes: u32_at(page, 48),
            previous_end: u32_at(page, 52),
            previous_digest: u32_at(page, 56),
        })
    }
}

/// Adds a frame's checksum to the digest of its segment, which begins at 0.
#[must_use]
pub fn chain(digest: u32, frame_crc: u32) -> u32 {
    crc32c::crc32c_append(digest, &frame_crc.to_le_bytes())
}

/// The checksum that everything of the log carries: CRC-32C.
#[must_use]
pub fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

fn checksum(place: &Place, offset: u32, length: u32, rest: &[u8]) -> u32 {
    let mut bound = [0; 28];
    bound[..16].copy_from_slice(place.log_id.0.as_bytes());
    bound[16..20].copy_from_slice(&place.segment.to_le_bytes());
    bound[20..24].copy_from_slice(&offset.to_le_bytes());
    bound[24..].copy_from_slice(&length.to_le_bytes());
    crc32c::crc32c_append(crc(&bound), rest)
}

/// The caller has checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut array = [0; 4];
    array.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(array)
}

/// The caller has checked the length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(array)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e";

    fn place() -> Place {
        Place { log_id: LOG.parse().unwrap(), segment: 7 }
    }

    /// A segment of 8 KiB with batches of the given payloads.
    fn segment(batches: &[&[&[u8]]]) -> Vec<u8> {
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
        for batch in batches {
            let begin = bytes.len() as u32;
            for payload in *batch {
                let offset = bytes.len() as u32;
                encode(&place(), offset, begin, 3, payload, &mut bytes);
            }
        }
        bytes.resize(8192, 0);
        bytes
    }

    fn payloads<'a>(place: Place, bytes: &'a [u8]) -> (Vec<&'a [u8]>, Found<'a>) {
        let mut found: Vec<_> = Scanner::new(place, bytes).collect();
        let last = found.pop().unwrap();
        let frame = |found| match found {
            Found::Frame(frame) => frame.payload,
            other => panic!("not last, yet {other:?}"),
        };
        (found.into_iter().map(frame).collect(), last)
    }

    #[test]
    fn the_bytes_of_a_frame_are_these_and_stay_these() {
        let mut bytes = Vec::new();
        encode(&place(), 4104, 4096, 3, b"decided", &mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "070000006109de2300100000030100006465636964656400");
    }

    #[test]
    fn the_bytes_of_a_segment_header_keep_their_checksum() {
        let header = SegmentHeader {
            place: place(),
            segment_bytes: 65536,
            created_ms: 1_760_000_000_000,
            epoch: 5,
            previous_end: 8000,
            previous_digest: 0xdead_beef,
        };
        let page = header.encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(header));
        assert_eq!(u32_at(&page, 4092), 0x11b69076, "computed by another implementation");
        let mut damaged = page;
        damaged[4000] = 1;
        assert_eq!(SegmentHeader::decode(&damaged), Err(InvalidHeader::Checksum));
    }

    #[test]
    fn a_scan_gives_back_what_was_written_and_ends_at_the_zeros() {
        let bytes = segment(&[&[b"one", b""], &[b"three is a bit longer"]]);
        let (payloads, last) = payloads(place(), &bytes);
        assert_eq!(payloads, [&b"one"[..], b"", b"three is a bit longer"]);
        assert_eq!(last, Found::End { offset: data_end(&bytes).next_multiple_of(ALIGN) as u32 });
    }

    #[test]
    fn a_frame_of_another_log_segment_or_offset_is_invalid() {
        let bytes = segment(&[&[b"one"]]);
        let other_log = Place { log_id: LogId(uuid::Uuid::nil()), ..place() };
        let other_segment = Place { segment: 8, ..place() };
        for place in [other_log, other_segment] {
            let reason = InvalidFrame::Checksum;
            assert_eq!(payloads(place, &bytes).1, Found::Invalid { offset: 4096, reason });
        }
        let mut moved = bytes;
        moved.copy_within(4096..4096 + 24, 4096 + 24);
        assert!(matches!(decode(&place(), &moved[4096 + 24..], 4096 + 24), Found::Invalid { .. }));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_makes_it_invalid() {
        let bytes = segment(&[&[b"one"], &[b"two"]]);
        for at in 4096..4096 + frame_bytes(3) {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let (payloads, last) = payloads(place(), &damaged);
                assert!(payloads.is_empty(), "byte {at} bit {bit}");
                assert!(matches!(last, Found::Invalid { offset: 4096, .. }), "{at}: {last:?}");
            }
        }
    }

    #[test]
    fn only_a_frame_of_a_later_batch_proves_that_damage_was_durable() {
        let same = segment(&[&[b"one", b"two"]]);
        let later = segment(&[&[b"one"], &[b"two"]]);
        let range = 4096..8192;
        assert_eq!(later_batch(&place(), &same, range.clone()), None);
        assert_eq!(later_batch(&place(), &later, range), Some(4096 + 24));
    }

    #[test]
    fn a_length_past_the_end_is_invalid_and_never_read() {
        let mut bytes = segment(&[&[b"one"]]);
        bytes[4096..4100].copy_from_slice(&u32::MAX.to_le_bytes());
        let reason = InvalidFrame::Length;
        assert_eq!(decode(&place(), &bytes[4096..], 4096), Found::Invalid { offset: 4096, reason });
    }
}
