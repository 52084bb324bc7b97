//! The place in a JSON text at which parsing failed, as a path: `branches[0].participant`. serde
//! says what is wrong and at which column; a person wants to know in which field. Runs only when a
//! text is refused.

use std::fmt::Write as _;

use crate::wire::objects::ARRAY_FOR_OBJECT;

/// Where a reader of JSON is.
enum Level<'a> {
    /// In an object, at the member of this name.
    Object(&'a [u8]),
    /// In an array, at this element.
    Array(usize),
}

/// The path of what an error is about; empty at the top level.
#[must_use]
pub fn place_of(json: &[u8], error: &serde_json::Error) -> String {
    let mut levels = levels_at(json, error.line(), error.column());
    let said = error.to_string();
    // An array in an object's place was not read: it is wrong, and not its first element.
    if let (true, Some(Level::Array(_))) = (said.starts_with(ARRAY_FOR_OBJECT), levels.last()) {
        levels.pop();
    }
    // What is missing belongs to the object, not to the member that happens to stand last in it.
    if let (true, Some(Level::Object(name))) =
        (said.starts_with("missing field"), levels.last_mut())
    {
        *name = b"";
    }
    write_path(&levels)
}

/// Where a reader is at `line` and `column`, both from 1 as serde_json counts them.
fn levels_at(json: &[u8], line: usize, column: usize) -> Vec<Level<'_>> {
    let end = offset(json, line, column).min(json.len());
    let mut levels: Vec<Level<'_>> = Vec::new();
    let mut at = 0;
    // Whether a string that comes now is the name of a member.
    let mut name_next = false;
    while at < end {
        match json[at] {
            b'"' => {
                let length = string_length(&json[at + 1..end]);
                if let (true, Some(Level::Object(name))) = (name_next, levels.last_mut()) {
                    *name = &json[at + 1..at + 1 + length];
                    name_next = false;
                }
                at += length + 1;
            }
            b'{' => {
                levels.push(Level::Object(b""));
                name_next = true;
            }
            b'[' => {
                levels.push(Level::Array(0));
                name_next = false;
            }
            // An error at a bracket or a comma is about what stands before it.
            _ if at + 1 == end => {}
            b'}' | b']' => {
                levels.pop();
                name_next = false;
            }
            b',' => match levels.last_mut() {
                Some(Level::Array(element)) => *element += 1,
                Some(Level::Object(_)) => name_next = true,
                None => {}
            },
            _ => {}
        }
        at += 1;
    }
    levels
}

fn write_path(levels: &[Level<'_>]) -> String {
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object(b"") => {}
            Level::Object(name) => {
                let dot = if path.is_empty() { "" } else { "." };
                // Writing to a string does not fail.
                let _infallible = write!(path, "{dot}{}", String::from_utf8_lossy(name));
            }
            Level::Array(element) => {
                let _infallible = write!(path, "[{element}]");
            }
        }
    }
    path
}

/// Bytes of a string's inside, up to its closing quote or the end of the text.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len())
}

fn offset(json: &[u8], line: usize, column: usize) -> usize {
    let lines_before = line.saturating_sub(1);
    let start = match lines_before {
        0 => 0,
        _ => json
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .nth(lines_before - 1)
            .map_or(json.len(), |(at, _)| at + 1),
    };
    start.saturating_add(column)
}

#[cfg(test)]
mod tests {
    use super::{levels_at, place_of};
    use crate::wire::read_json;
    use crate::wire::transaction::TransactionRequest;

    #[test]
    fn an_error_is_at_the_field_that_is_wrong() {
        let cases = [
            ("{}", ""),
            (r#"{"branches": [{"participant": "a", "ops": []}, {"ops": []}]}"#, "branches[1]"),
            (r#"{"timeout": 5}"#, "timeout"),
            (r#"{"timeout": "5"}"#, "timeout"),
            (r#"{"id": "x", "branches": []}"#, "id"),
            (r#"{"ack": "soon", "branches": []}"#, "ack"),
            (r#"{"brances": []}"#, "brances"),
            (r#"{"branches": 3}"#, "branches"),
            (
                r#"{"branches": [{"participant": "a", "ops": []}, {"participant": "-"}]}"#,
                "branches[1].participant",
            ),
            (
                "{\"branches\": [\n  {\"participant\": \"a\",\n   \"opps\": []}]}",
                "branches[0].opps",
            ),
            (r#"{"branches": [{"participant": "a}\"", "ops": []}]}"#, "branches[0].participant"),
            ("[]", ""),
            ("[7]", ""),
            (r#"{"branches": [["a", []]]}"#, "branches[0]"),
        ];
        for (json, path) in cases {
            let error = read_json::<TransactionRequest>(json.as_bytes()).unwrap_err();
            assert_eq!(place_of(json.as_bytes(), &error), path, "{error}");
        }
    }

    #[test]
    fn any_place_in_any_text_has_a_path() {
        for json in [&b""[..], b"\"", b"{\"a\\", b"]]}},,", b"[[[[\"\\\"", b"\n\n{"] {
            for line in 0..4 {
                for column in 0..12 {
                    let _any = levels_at(json, line, column);
                }
            }
        }
    }
}
