//! Text that others wrote, before it is shown, logged or kept.

use std::borrow::Cow;

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
}
