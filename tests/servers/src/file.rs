//! What a crash, or a server's own loader, does to an append-only file.

use std::path::{Path, PathBuf};

/// The file that a server in this directory appends to.
///
/// # Panics
/// If it cannot be found.
#[must_use]
pub fn appended(dir: &Path) -> PathBuf {
    let Ok(files) = std::fs::read_dir(dir.join("appendonlydir")) else {
        return dir.join("appendonly.aof");
    };
    let paths = files.filter_map(|entry| Some(entry.ok()?.path()));
    let increments = paths.filter(|path| path.to_string_lossy().contains(".incr."));
    let written = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).ok();
    increments.max_by_key(written).expect("a file that is appended to")
}

/// Cuts the file in the middle of the last place that says this, as a torn write does.
///
/// # Panics
/// If it does not say so, or cannot be written.
pub fn tear(path: &Path, inside: &str) {
    let file = std::fs::read(path).expect("the file is read");
    let says = |at: &usize| file[*at..].starts_with(inside.as_bytes());
    let last = (0..file.len()).rev().find(says).expect("the file says it");
    std::fs::write(path, &file[..last + inside.len() / 2]).expect("the file is cut");
}

/// Takes those `MULTI` … `EXEC` out of the file that it is told to, as some loaders do where the default user may run nothing: what was
/// written by single commands stays.
///
/// # Panics
/// If the file is not one of commands.
pub fn drop_transactions(path: &Path, mut is_dropped: impl FnMut() -> bool) {
    let file = std::fs::read(path).expect("the file is read");
    let mut left = Vec::new();
    let (mut at, mut is_in_dropped) = (0, false);
    while at < file.len() {
        let (end, name) = command(&file, at);
        is_in_dropped |= name.eq_ignore_ascii_case(b"MULTI") && is_dropped();
        if !is_in_dropped {
            left.extend_from_slice(&file[at..end]);
        }
        is_in_dropped &= !name.eq_ignore_ascii_case(b"EXEC");
        at = end;
    }
    std::fs::write(path, left).expect("the file is written");
}

/// Where the command that begins there ends, and its name.
fn command(file: &[u8], at: usize) -> (usize, &[u8]) {
    let (mut at, words) = number(file, at, b'*');
    let mut name: &[u8] = b"";
    for word in 0..words {
        let (from, length) = number(file, at, b'$');
        if word == 0 {
            name = &file[from..from + length];
        }
        at = from + length + 2;
    }
    (at, name)
}

/// A line of a sign and a number: where it ends, and the number.
fn number(file: &[u8], at: usize, sign: u8) -> (usize, usize) {
    assert_eq!(file[at], sign, "at {at}");
    let length = file[at..].windows(2).position(|two| two == b"\r\n").expect("a line");
    let text = std::str::from_utf8(&file[at + 1..at + length]).expect("a number");
    (at + length + 2, text.parse().expect("a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_alone_stays() {
        let write = |words: &[&str]| {
            let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
            let words: Vec<String> = words.collect();
            format!("*{}\r\n{}", words.len(), words.concat())
        };
        let alone = [write(&["SELECT", "0"]), write(&["HSET", "h", "f", "MULTI"])].concat();
        let transaction = [write(&["MULTI"]), write(&["SET", "k", ""]), write(&["EXEC"])].concat();
        let path = std::env::temp_dir().join(format!("assent-aof-{}", std::process::id()));
        std::fs::write(&path, [&*alone, &transaction, &alone].concat()).expect("written");
        drop_transactions(&path, || true);
        let left = std::fs::read_to_string(&path).expect("read");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(left, [&*alone, &alone].concat());
    }
}
