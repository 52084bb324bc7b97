//! What is kept of a branch: `s:<txid>` while it is staged, `d:<txid>` when it is applied,
//! `a:<txid>`, which holds nothing, when it is fenced.

use std::str::FromStr;

use assent_common::command::{ReplyKind, Reserved};
use assent_common::ids::TransactionId;
use assent_common::participant::{Branches, Counter, DoneMarker, OnePhaseMarker};
use assent_common::value::{Arg, Reply};
use assent_common::wire::branch::{BranchAddress, Mode};

use super::super::packed::{Item, Reader, RedoError, Writer, kind_letter};
use super::super::work::PrepareItem;

/// The version of a staged record that reserves nothing in escrow; that of an earlier version of
/// this code may, and then fields beside it say what ([`super::read_escrow`]).
const RECORD_VERSION: u8 = 1;

/// The version of one that says what it reserves. An earlier version of this code does not take it
/// for one that reserves nothing, but refuses it.
const ESCROW_VERSION: u8 = 2;

/// A staged record.
pub(in super::super) struct StagedRecord {
    pub(in super::super) id: TransactionId,
    /// Where the outcome is asked for.
    pub(in super::super) coordinator: String,
    pub(in super::super) seq: u64,
    pub(in super::super) keys: Vec<Arg>,
    /// How each key is locked, one letter each ([`assent_common::command::Access`]).
    pub(in super::super) modes: Vec<u8>,
    /// Its writes, packed.
    pub(in super::super) redo: Vec<u8>,
    /// Its replies, packed; empty if it has neither writes nor a hook.
    replies: Vec<u8>,
    /// All branches of an implicit transaction, else none.
    pub(in super::super) branches: Branches,
    /// What it has reserved of counters in escrow.
    pub(in super::super) reserved: Vec<ReservedOf>,
}

/// What a branch has reserved of a counter of a key.
pub(in super::super) type ReservedOf = (Arg, Counter, Reserved);

impl StagedRecord {
    /// The record of a branch that voted yes; `redo` and `replies` are packed.
    pub(in super::super) fn pack(
        item: &PrepareItem,
        url: &str,
        seq: u64,
        redo: &[u8],
        replies: &[u8],
        reserved: &[ReservedOf],
    ) -> Vec<u8> {
        let mut record = Writer::default();
        let (version, length) = match (reserved.is_empty(), item.prepare.branches.is_empty()) {
            (true, true) => (RECORD_VERSION, 8),
            (true, false) => (RECORD_VERSION, 9),
            (false, _) => (ESCROW_VERSION, 10),
        };
        record.array(length);
        record.small(version);
        record.bytes(item.prepare.id.to_string().as_bytes());
        record.bytes(url.as_bytes());
        record.bytes(seq.to_string().as_bytes());
        record.array(item.prepare.branch.locks.len());
        for lock in &item.prepare.branch.locks {
            record.bytes(&lock.key.0);
        }
        let modes = item.prepare.branch.locks.iter().map(|lock| lock.access.letter());
        record.bytes(&modes.collect::<Vec<_>>());
        record.bytes(redo);
        record.bytes(replies);
        if length > 8 {
            record.bytes(&pack_branches(&item.prepare.branches));
        }
        if length > 9 {
            record.bytes(&pack_reserved(reserved));
        }
        record.0
    }

    pub(in super::super) fn read(packed: &[u8]) -> Result<Self, RedoError> {
        let mut reader = Reader(packed);
        let foreign = RedoError::foreign;
        let length = reader.array()?;
        let version = reader.item()?;
        let is = |known: u8| version == Item::Int(i64::from(known));
        let is_known = match length {
            8 | 9 => is(RECORD_VERSION),
            10 => is(ESCROW_VERSION),
            _ => false,
        };
        if !is_known {
            return Err(foreign());
        }
        let id = reader.text()?.parse().map_err(|_| foreign())?;
        let coordinator = reader.text()?.to_owned();
        let seq = reader.text()?.parse().map_err(|_| foreign())?;
        let keys = (0..reader.array()?)
            .map(|_| Ok(Arg(reader.bytes()?.to_vec())))
            .collect::<Result<_, RedoError>>()?;
        let modes = reader.bytes()?.to_vec();
        let redo = reader.bytes()?.to_vec();
        let replies = reader.bytes()?.to_vec();
        let branches = match length {
            8 => Branches::default(),
            _ => branches(reader.bytes()?)?,
        };
        let reserved = match length {
            10 => read_reserved(reader.bytes()?)?,
            _ => Vec::new(),
        };
        Ok(Self { id, coordinator, seq, keys, modes, redo, replies, branches, reserved })
    }

    /// Its replies, as the text of a JSON array.
    pub(in super::super) fn replies(
        &self,
        kinds: impl Iterator<Item = ReplyKind>,
    ) -> Result<String, RedoError> {
        Reader(&self.replies).replies(kinds)
    }
}

/// Counters and what is reserved of them: of each its key, `S` for the number in a string or `H`
/// and the field of a hash, what is added, floor and ceiling.
fn pack_reserved(reserved: &[ReservedOf]) -> Vec<u8> {
    let mut packed = Writer::default();
    packed.array(5 * reserved.len());
    for (key, counter, Reserved { delta, floor, ceiling }) in reserved {
        packed.bytes(&key.0);
        packed.bytes(&match counter {
            Some(field) => [b"H", &*field.0].concat(),
            None => b"S".to_vec(),
        });
        packed.bytes(delta.to_string().as_bytes());
        packed.bytes(floor.to_string().as_bytes());
        packed.bytes(ceiling.to_string().as_bytes());
    }
    packed.0
}

/// Reads them back.
fn read_reserved(packed: &[u8]) -> Result<Vec<ReservedOf>, RedoError> {
    fn number<T: FromStr>(reader: &mut Reader<'_>) -> Result<T, RedoError> {
        reader.text()?.parse().map_err(|_| RedoError("a number was expected"))
    }
    let mut reader = Reader(packed);
    let one = |reader: &mut Reader<'_>| {
        let key = Arg(reader.bytes()?.to_vec());
        let counter = match reader.bytes()? {
            [b'S'] => None,
            [b'H', field @ ..] => Some(Arg(field.to_vec())),
            _ => return Err(RedoError("a counter was expected")),
        };
        let (delta, floor, ceiling) = (number(reader)?, number(reader)?, number(reader)?);
        Ok((key, counter, Reserved { delta, floor, ceiling }))
    };
    (0..reader.array()? / 5).map(|_| one(&mut reader)).collect()
}

/// The done-marker of a branch of one phase: the kinds of the replies, the replies, which are
/// packed, its number, its writes.
pub(in super::super) fn pack_one_phase(
    item: &PrepareItem,
    replies: &[u8],
    seq: u64,
    redo: &[u8],
) -> Vec<u8> {
    debug_assert_eq!(item.prepare.mode, Mode::OnePhase);
    let mut marker = Writer::default();
    marker.bytes(&item.shown_kinds().map(kind_letter).collect::<Vec<_>>());
    marker.0.extend(replies);
    marker.bytes(seq.to_string().as_bytes());
    marker.bytes(redo);
    marker.0
}

/// The same, cut where the replies of these ops stand, which are in order.
pub(in super::super) fn pack_one_phase_around(
    item: &PrepareItem,
    replies: &[Reply],
    ops: impl Iterator<Item = usize>,
    seq: u64,
    redo: &[u8],
) -> Vec<Vec<u8>> {
    let mut marker = Writer::default();
    let mut pieces = Vec::new();
    marker.bytes(&item.shown_kinds().map(kind_letter).collect::<Vec<_>>());
    marker.array(replies.len());
    let mut ops = ops.peekable();
    for (place, reply) in replies.iter().enumerate() {
        if ops.next_if_eq(&place).is_some() {
            pieces.push(std::mem::take(&mut marker.0));
        } else {
            marker.reply(reply);
        }
    }
    marker.bytes(seq.to_string().as_bytes());
    marker.bytes(redo);
    pieces.push(marker.0);
    pieces
}

/// The branches of an implicit transaction, as staged records and done-markers have them; nothing
/// where there are none.
pub(in super::super) fn pack_branches(branches: &Branches) -> Vec<u8> {
    let mut packed = Writer::default();
    if !branches.is_empty() {
        packed.array(2 * branches.len());
    }
    for BranchAddress { participant, url } in branches.iter() {
        packed.bytes(participant.as_str().as_bytes());
        packed.bytes(url.as_bytes());
    }
    packed.0
}

/// Reads them back.
fn branches(packed: &[u8]) -> Result<Branches, RedoError> {
    if packed.is_empty() {
        return Ok(Branches::default());
    }
    let mut reader = Reader(packed);
    let branch = |reader: &mut Reader<'_>| {
        let participant = reader.text()?.parse().map_err(|_| RedoError("a name was expected"))?;
        Ok(BranchAddress { participant, url: reader.text()?.to_owned() })
    };
    (0..reader.array()? / 2).map(|_| branch(&mut reader)).collect()
}

/// What a done-marker holds.
pub(in super::super) fn done_marker(packed: &[u8]) -> Result<DoneMarker, RedoError> {
    match packed.first() {
        None => Ok(DoneMarker::Logged),
        Some(0x90..=0x9f | 0xdc | 0xdd) => branches(packed).map(DoneMarker::Implicit),
        Some(_) => one_phase_marker(packed).map(DoneMarker::OnePhase),
    }
}

/// What one phase came to, as its done-marker keeps it: the kinds of the replies, the replies, its
/// number, its writes. An
/// older version kept no number and no writes; a branch that only reads has none.
pub(in super::super) fn one_phase_marker(packed: &[u8]) -> Result<OnePhaseMarker, RedoError> {
    let mut reader = Reader(packed);
    let kinds = reader.bytes()?;
    let replies = reader.replies(kinds.iter().map(|letter| match letter {
        b'I' => ReplyKind::Int,
        b'A' => ReplyKind::Array,
        b'E' => ReplyKind::Estimate,
        b'H' => ReplyKind::Hook,
        _ => ReplyKind::Bytes,
    }))?;
    let wrote = if reader.0.is_empty() {
        None
    } else {
        let seq = reader.text()?.parse().map_err(|_| RedoError("a number was expected"))?;
        Some((seq, reader.bytes()?.into()))
    };
    Ok(OnePhaseMarker { replies: replies.into(), wrote })
}

#[cfg(test)]
mod tests {
    use assent_common::command::{OpRequest, ValidatedBranch};

    use super::super::super::CheckedPrepare;
    use super::*;

    /// What a script puts between the pieces makes the marker that is written for what it has said.
    #[test]
    fn a_marker_is_what_its_pieces_are_around_the_replies() {
        let lines =
            [&["XADD", "s", "*", "f", "v"][..], &["GET", "a"], &["XADD", "s", "*", "f", "w"]];
        let requests = lines.map(|line| OpRequest::new(line.iter().copied()));
        let prepare = CheckedPrepare {
            id: TransactionId::new(uuid::Uuid::now_v7()).unwrap(),
            mode: Mode::OnePhase,
            branches: Branches::default(),
            branch: ValidatedBranch::new(requests.into()).unwrap(),
            if_new: None,
            hooked: None,
        };
        let txid = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.7.0".parse().unwrap();
        let item = PrepareItem { slot: 0, txid, prepare, by_script: false };
        let mut replies = [Reply::Nil, Reply::Bytes(b"1".to_vec()), Reply::Nil];
        let around = pack_one_phase_around(&item, &replies, [0, 2].into_iter(), 9, b"redo");
        for id in [&b"1-1"[..], b"1791000000000-0", &[b'9'; 40]] {
            let mut packed = Writer::default();
            packed.array(replies.len());
            for place in [0, 2] {
                replies[place] = Reply::Bytes(id.to_vec());
            }
            replies.iter().for_each(|reply| packed.reply(reply));
            let mut said = Writer::default();
            said.bytes(id);
            assert_eq!(around.join(&*said.0), pack_one_phase(&item, &packed.0, 9, b"redo"));
        }
    }

    #[test]
    fn a_record_says_what_is_reserved() {
        let reserved = Reserved { delta: i64::MIN, floor: i128::from(i64::MIN) - 9, ceiling: 0 };
        let fields = [&b""[..], b"plain", b"\xff\x00;, :"].map(|field| Some(Arg(field.to_vec())));
        let counters = fields.into_iter().chain([None]);
        let all: Vec<_> = counters.map(|counter| (Arg::from("k"), counter, reserved)).collect();
        let packed = pack_reserved(&all);
        assert_eq!(read_reserved(&packed).unwrap(), all);
        assert!(read_reserved(&packed[..packed.len() - 1]).is_err());
        assert!(
            read_reserved(&[0x95, 0xa1, b'k', 0xa0, 0xa1, b'1', 0xa1, b'1', 0xa1, b'1']).is_err()
        );
    }

    #[test]
    fn a_done_marker_says_which_protocol_left_it() {
        let branch = |name: &str| BranchAddress {
            participant: name.parse().unwrap(),
            url: format!("http://{name}:7710"),
        };
        for count in [2, 7, 8, 64] {
            let names = (0..count).map(|place| format!("bank-{place}"));
            let all: Branches = names.map(|name| branch(&name)).collect();
            let packed = pack_branches(&all);
            assert_eq!(branches(&packed).unwrap(), all);
            assert_eq!(done_marker(&packed).unwrap(), DoneMarker::Implicit(all));
        }
        assert_eq!(pack_branches(&Branches::default()), b"");
        assert_eq!(done_marker(b"").unwrap(), DoneMarker::Logged);
        let marker = |wrote| DoneMarker::OnePhase(OnePhaseMarker { replies: "[5]".into(), wrote });
        let of_an_older_version = [0xa1, b'I', 0x91, 0x05];
        assert_eq!(done_marker(&of_an_older_version).unwrap(), marker(None));
        let one_phase = [0xa1, b'I', 0x91, 0x05, 0xa2, b'1', b'7', 0xa1, b'w'];
        assert_eq!(done_marker(&one_phase).unwrap(), marker(Some((17, b"w"[..].into()))));
        assert!(done_marker(&one_phase[..7]).is_err(), "a number without writes");
        assert!(done_marker(&[0x92, 0xa0, 0xa0]).is_err(), "an empty name is none");
    }
}
