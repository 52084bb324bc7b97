//! What is kept of a branch: `s:<txid>` while it is staged, `d:<txid>` when it is applied,
//! `a:<txid>`, which holds nothing, when it is fenced.

use assent_common::command::ReplyKind;
use assent_common::ids::TransactionId;
use assent_common::participant::{Branches, DoneMarker, OnePhaseMarker};
use assent_common::value::{Arg, Reply};
use assent_common::wire::branch::{BranchAddress, Mode};

use super::super::call::PrepareItem;
use super::super::packed::{Item, Reader, RedoError, Writer, kind_letter};

/// The version of staged records that this code writes and reads.
const RECORD_VERSION: u8 = 1;

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
    /// Its replies, packed; empty if it has no writes.
    replies: Vec<u8>,
    /// All branches of an implicit transaction, else none.
    pub(in super::super) branches: Branches,
}

impl StagedRecord {
    /// The record of a branch that voted yes; `redo` and `replies` are packed.
    pub(in super::super) fn pack(
        item: &PrepareItem,
        url: &str,
        seq: u64,
        redo: &[u8],
        replies: &[u8],
    ) -> Vec<u8> {
        let mut record = Writer::default();
        record.array(if item.prepare.branches.is_empty() { 8 } else { 9 });
        record.small(RECORD_VERSION);
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
        if !item.prepare.branches.is_empty() {
            record.bytes(&pack_branches(&item.prepare.branches));
        }
        record.0
    }

    pub(in super::super) fn read(packed: &[u8]) -> Result<Self, RedoError> {
        let mut reader = Reader(packed);
        let foreign = RedoError::foreign;
        let length = reader.array()?;
        let is_known = reader.item()? == Item::Int(i64::from(RECORD_VERSION));
        if !is_known || !matches!(length, 8 | 9) {
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
            9 => branches(reader.bytes()?)?,
            _ => Branches::default(),
        };
        Ok(Self { id, coordinator, seq, keys, modes, redo, replies, branches })
    }

    /// Its replies, as the text of a JSON array.
    pub(in super::super) fn replies(
        &self,
        kinds: impl Iterator<Item = ReplyKind>,
    ) -> Result<String, RedoError> {
        Reader(&self.replies).replies(kinds)
    }
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
    let kinds: Vec<u8> = item.prepare.branch.ops.iter().map(|op| kind_letter(op.reply)).collect();
    marker.bytes(&kinds);
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
    let kinds: Vec<u8> = item.prepare.branch.ops.iter().map(|op| kind_letter(op.reply)).collect();
    marker.bytes(&kinds);
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
