//! Who holds a key: the field `l:<key>`; in escrow also who has reserved
//! how much of which counter.

use std::fmt::Write as _;

use assent_common::command::{Access, EscrowKind, Reserved};
use assent_common::ids::Txid;
use assent_common::participant::{Counter, Escrow, Lock};
use assent_common::value::Arg;

/// The name of a counter in a lock.
pub(in super::super) fn tag(counter: &Counter) -> String {
    let bytes = counter.as_ref().map_or(&[][..], |field| &field.0);
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut tag, byte| {
        let _ = write!(tag, "{byte:02x}");
        tag
    })
}

/// The value of a lock: its letter, and each owner with what it has reserved.
pub(in super::super) fn lock_value(lock: &Lock) -> String {
    let mut text = String::from(char::from(lock.access().letter()));
    for (place, (txid, id)) in lock.owners().enumerate() {
        text.push(if place == 0 { ' ' } else { ';' });
        let _ = write!(text, "{txid} {id}");
        if let Lock::Escrow(_, owners) = lock
            && let Some(escrow) = owners.get(&txid)
        {
            push_reserved(&mut text, escrow);
        }
    }
    text
}

fn push_reserved(text: &mut String, escrow: &Escrow) {
    for (place, (counter, reserved)) in escrow.reserved.iter().enumerate() {
        let Reserved { delta, floor, ceiling } = reserved;
        let separator = if place == 0 { ' ' } else { ',' };
        let _ = write!(text, "{separator}{}:{delta}:{floor}:{ceiling}", tag(counter));
    }
}

/// What every owner of a lock in escrow has reserved; nothing for a lock of another kind, none for
/// one that cannot be read.
pub(in super::super) fn reserved(lock: &[u8]) -> Option<Vec<(Txid, Counter, Reserved)>> {
    let is_hash = match Access::of_letter(*lock.first()?)? {
        Access::Escrow(EscrowKind::Hash) => true,
        Access::Escrow(EscrowKind::String) => false,
        Access::Shared | Access::Exclusive => return Some(Vec::new()),
    };
    let mut all = Vec::new();
    for owner in std::str::from_utf8(lock.get(2..)?).ok()?.split(';') {
        let mut words = owner.split(' ');
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

fn field(tag: &str) -> Option<Arg> {
    let byte = |at| u8::from_str_radix(tag.get(at..at + 2)?, 16).ok();
    (0..tag.len()).step_by(2).map(byte).collect::<Option<_>>().map(Arg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let txid: Txid = "0198f1c2a4b27c1d9c0e3f4a5b6c7d8e.3.7.0".parse().unwrap();
        let id = "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap();
        let reserved = Reserved { delta: i64::MIN, floor: i128::from(i64::MIN) - 9, ceiling: 0 };
        let fields = [&b""[..], b"plain", b"\xff\x00;, :"].map(|field| Some(Arg(field.to_vec())));
        for (letter, counters) in [("E", vec![None]), ("F", fields.to_vec())] {
            let of = counters.iter().map(|counter| (counter.clone(), reserved));
            let escrow = Escrow { id, reserved: of.collect() };
            let mut text = format!("{letter} {txid} {id}");
            push_reserved(&mut text, &escrow);
            let read = super::reserved(text.as_bytes()).unwrap();
            let expected = counters.into_iter().map(|counter| (txid, counter, reserved));
            assert_eq!(read, expected.collect::<Vec<_>>(), "{text}");
        }
        assert_eq!(super::reserved(format!("X {txid} {id}").as_bytes()), Some(Vec::new()));
        assert_eq!(
            super::reserved(format!("E {txid} {id}").as_bytes()),
            None,
            "it must say what is reserved"
        );
    }
}
