//! Short histories for unit tests: `process type f value`, or `! f value` for a document.

use crate::history::History;

/// The history of these lines; panics if they are none.
pub(crate) fn history(lines: &[&str]) -> History {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let json = match line.strip_prefix("! ") {
            Some(document) => {
                let (f, value) = document.split_once(' ').unwrap();
                format!(
                    r#"{{"index":{index},"type":"info","process":"audit","f":"{f}","value":{value}}}"#
                )
            }
            None => {
                let mut words = line.splitn(4, ' ');
                let mut word = || words.next().unwrap();
                let (process, kind, f, value) = (word(), word(), word(), word());
                format!(
                    r#"{{"index":{index},"type":"{kind}","process":{process},"f":"{f}","value":{value}}}"#
                )
            }
        };
        text.push_str(&json);
        text.push('\n');
    }
    History::parse(&text).unwrap()
}
