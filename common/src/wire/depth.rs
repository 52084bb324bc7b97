//! How deep JSON is, told before anything is made of it. A parser may keep something of each array
//! that a stranger opens, or name each of them in its error, and one byte opens one.

/// The bytes that open arrays and objects: where each is, and how many are open with it. Of text
/// that is no JSON it says what would be so if it were.
pub(super) fn openings(json: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut depth = 0_usize;
    let (mut in_string, mut escaped) = (false, false);
    json.iter().enumerate().filter_map(move |(at, byte)| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                return Some((at, depth));
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        None
    })
}

/// The byte that opens more than `max` arrays and objects inside each other, if one does.
#[must_use]
pub fn too_deep_at(json: &[u8], max: usize) -> Option<usize> {
    openings(json).find(|(_, depth)| *depth > max).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_deep_is_found_where_it_begins() {
        for (json, at) in [
            ("[[]]", None),
            ("[[], [[]]]", Some(6)),
            (r#"{"a":{"b":{}}}"#, Some(10)),
            (r#"["[[[", "\"[[", []]"#, None),
            (r#"["\\", [[]]]"#, Some(8)),
            ("]]][[[", Some(5)),
        ] {
            assert_eq!(too_deep_at(json.as_bytes(), 2), at, "{json}");
        }
        assert_eq!(too_deep_at(&vec![b'['; 1 << 20], 32), Some(32));
    }
}
