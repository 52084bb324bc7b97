//! What an earlier version kept of each locked key: the field `l:<key>`. Of a key in escrow it says
//! who has reserved how much of which counter, for the records of that version, which do not.

use assent_common::command::{Access, EscrowKind, Reserved};
use assent_common::ids::Txid;
use assent_common::participant::Counter;
use assent_common::value::Arg;

/// What every holder has reserved; nothing where the lock is of another kind, none where it cannot
/// be read.
pub(in super::super) fn read_escrow(value: &[u8]) -> Option<Vec<(Txid, Counter, Reserved)>> {
    let is_hash = match Access::of_letter(*value.first()?)? {
        Access::Escrow(EscrowKind::Hash) => true,
        Access::Escrow(EscrowKind::String) => false,
        Access::Shared | Access::Exclusive => return Some(Vec::new()),
    };
    let mut all = Vec::new();
    for holder in std::str::from_utf8(value.get(2..)?).ok()?.split(';') {
        let mut words = holder.split(' ');
        let (txid, _id, items) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        for item in items.split(',') {
            let mut words = item.split(':');
            let field = field(words.next()?)?;
            let counter = is_hash.then_some(field);
            let delta = words.next()?.parse().ok()?;
            let (floor, ceiling) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            all.push((txid, counter, Reserved { delta, floor, ceiling }));
        }
    }
    Some(all)
}

/// The field of a hash, from its bytes in hexadecimal.
fn field(tag: &str) -> Option<Arg> {
    let byte = |at| u8::from_str_radix(tag.get(at..at + 2)?, 16).ok();
    (0..tag.len()).step_by(2).map(byte).collect::<Option<_>>().map(Arg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let text = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.7.0";
        let (txid, id) = (text.parse().unwrap(), "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e");
        let reserved =
            |delta, floor, ceiling| Reserved { delta, floor, ceiling: i128::from(ceiling) };
        let read = |value: String| read_escrow(value.as_bytes());
        let low = i128::from(i64::MIN) - 9;
        assert_eq!(
            read(format!("E {text} {id} :{}:{low}:0", i64::MIN)),
            Some(vec![(txid, None, reserved(i64::MIN, low, 0))])
        );
        let field = |bytes: &[u8]| Some(Arg(bytes.to_vec()));
        assert_eq!(
            read(format!("F {text} {id} :1:0:9,ff003b:-1:0:8;{text} {id} 66:2:0:7")),
            Some(vec![
                (txid, field(b""), reserved(1, 0, 9)),
                (txid, field(b"\xff\x00;"), reserved(-1, 0, 8)),
                (txid, field(b"f"), reserved(2, 0, 7)),
            ])
        );
        assert_eq!(read(format!("X {text} {id}")), Some(Vec::new()));
        assert_eq!(read(format!("E {text} {id}")), None, "it must say what is reserved");
    }
}
