//! Text that others wrote, before it is shown, logged or kept.

use std::borrow::Cow;

use crate::limits::OVERRIDE_TEXT_BYTES_MAX;

/// The text, cut to that many bytes, with a sign that something is missing. Never in the middle of a character.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len()))
}

/// The same of a text that is owned: what is short is not copied.
#[must_use]
pub fn cut_owned(text: String, bytes_max: usize) -> String {
    match cut(&text, bytes_max) {
        Cow::Borrowed(_) => text,
        Cow::Owned(short) => short,
    }
}

/// What is wrong with who an operator is, or why something is done by hand, if something is.
pub fn check_override(actor: &str, reason: &str) -> Result<(), String> {
    for (field, text) in [("actor", actor), ("reason", reason)] {
        if text.trim().is_empty() || text.len() > OVERRIDE_TEXT_BYTES_MAX {
            return Err(format!("`{field}` must have 1 to {OVERRIDE_TEXT_BYTES_MAX} bytes"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "longe… (6 bytes)");
        assert_eq!(cut("aéé", 2), "a… (5 bytes)");
        assert_eq!(cut_owned("ééé".to_owned(), 4), "éé… (6 bytes)");
    }

    #[test]
    fn an_override_names_who_and_why_in_a_sentence_or_two() {
        assert_eq!(check_override("ana", &"x".repeat(OVERRIDE_TEXT_BYTES_MAX)), Ok(()));
        for (actor, reason, wrong) in [
            (" ", "its disk burnt", "`actor`"),
            ("ana", "", "`reason`"),
            ("ana", &*"x".repeat(OVERRIDE_TEXT_BYTES_MAX + 1), "`reason`"),
        ] {
            assert!(check_override(actor, reason).unwrap_err().contains(wrong), "{actor} {reason}");
        }
    }
}
