//! What a client sends: commands as arrays of bulk strings, or as words of one line.
//!
//! Not by a library: the known ones build whole frames, whatever a stranger says that is in them,
//! and begin again at a frame's first byte with each piece that arrives. Here every count and every
//! length is held against its limit before anything is kept.

use assent_common::limits;
use assent_common::value::Arg;
use bytes::{Buf as _, BytesMut};

/// Bytes of a line: of a command that is one, or of a count or a length.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The most words that a command may say it has, and the most bytes that a word may say it has, as
/// Redis itself takes them. What is above the limits of a transaction, but not above these, is read
/// over and refused; above these nobody can tell where the next command begins.
const WORDS_SAID_MAX: usize = 1024 * 1024;
const BYTES_SAID_MAX: usize = 512 * 1024 * 1024;

/// A command as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientCommand {
    /// Its words: one or more.
    Words(Vec<Arg>),
    /// It has more words or bytes than a transaction may have. Its name, and which of the two.
    TooLarge(Arg, TooLarge),
}

/// What a command has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooLarge {
    /// More than [`limits::ARGS_PER_OP_MAX`].
    Words,
    /// More than [`limits::BRANCH_BYTES_MAX`].
    Bytes,
}

/// The client does not speak this protocol, and cannot be understood any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// A line has no end.
    #[error("Protocol error: too big inline request")]
    Line,
    /// The count of words is no number, or too large.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// A word does not begin with `$`.
    #[error("Protocol error: expected '$'")]
    WordStage,
    /// The length of a word is no number, or too large.
    #[error("Protocol error: invalid bulk length")]
    Length,
    /// A word is longer than it says.
    #[error("Protocol error: a word does not end where it should")]
    End,
    /// Quotes in a line are not closed.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
}

/// Reads commands from bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct CommandReader {
    /// Of the command that has begun.
    words: Vec<Arg>,
    /// Bytes that it says it has, as far as they are kept.
    bytes: usize,
    /// Bytes of `words`.
    kept: usize,
    too_large: Option<TooLarge>,
    /// Words that are still to come.
    left: usize,
    word: WordStage,
    /// Bytes of a line without an end that were looked through.
    scanned: usize,
}

/// Where the reader stands in a word.
#[derive(Debug, Default, Clone, Copy)]
enum WordStage {
    #[default]
    Length,
    /// So many bytes, and the end of the line.
    Kept(usize),
    /// So many bytes are to be read over, the end of the line among them.
    Skipped(usize),
}

impl CommandReader {
    /// The next command, or nothing before more bytes come.
    pub(crate) fn next(
        &mut self,
        bytes: &mut BytesMut,
    ) -> Result<Option<ClientCommand>, ProtocolError> {
        loop {
            if self.left > 0 {
                if !self.read_word(bytes)? {
                    return Ok(None);
                }
                if self.left == 0 {
                    return Ok(Some(self.finish()));
                }
                continue;
            }
            let Some(line) = self.line(bytes)? else { return Ok(None) };
            let Some(count) = line.strip_prefix(b"*") else {
                let words = words_of_line(&line)?;
                if words.is_empty() {
                    continue;
                }
                return Ok(Some(bounded(words)));
            };
            // No words, or fewer, are no command.
            let count = number(count).ok_or(ProtocolError::Count)?;
            self.left = usize::try_from(count).unwrap_or(0);
            if self.left > WORDS_SAID_MAX {
                return Err(ProtocolError::Count);
            }
        }
    }

    /// Whether a command has begun and not ended.
    #[must_use]
    pub(crate) fn has_begun(&self) -> bool {
        self.left > 0
    }

    /// Bytes of the words that have come of the command that has begun.
    #[must_use]
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    fn finish(&mut self) -> ClientCommand {
        (self.bytes, self.kept) = (0, 0);
        let mut words = std::mem::take(&mut self.words);
        match self.too_large.take() {
            None => ClientCommand::Words(words),
            Some(too_large) => ClientCommand::TooLarge(words.swap_remove(0), too_large),
        }
    }

    /// Whether a word came to its end.
    fn read_word(&mut self, bytes: &mut BytesMut) -> Result<bool, ProtocolError> {
        loop {
            match self.word {
                WordStage::Length => {
                    let Some(line) = self.line(bytes)? else { return Ok(false) };
                    let length = line.strip_prefix(b"$").ok_or(ProtocolError::WordStage)?;
                    let length = number(length).and_then(|length| usize::try_from(length).ok());
                    let length = length.filter(|length| *length <= BYTES_SAID_MAX);
                    self.word = self.begin(length.ok_or(ProtocolError::Length)?);
                }
                WordStage::Kept(length) => {
                    if bytes.len() < length + 2 {
                        return Ok(false);
                    }
                    if bytes[length..length + 2] != *b"\r\n" {
                        return Err(ProtocolError::End);
                    }
                    self.words.push(Arg(bytes[..length].to_vec()));
                    self.kept += length;
                    bytes.advance(length + 2);
                    break;
                }
                WordStage::Skipped(left) => {
                    let skipped = left.min(bytes.len());
                    bytes.advance(skipped);
                    self.word = WordStage::Skipped(left - skipped);
                    if skipped < left {
                        return Ok(false);
                    }
                    break;
                }
            }
        }
        self.word = WordStage::Length;
        self.left -= 1;
        Ok(true)
    }

    /// Whether the word is kept. The first one is, up to the length of a key: it is named.
    fn begin(&mut self, length: usize) -> WordStage {
        let is_name = self.words.is_empty() && length <= limits::KEY_BYTES_MAX;
        let has_room = self.too_large.is_none()
            && self.words.len() < limits::ARGS_PER_OP_MAX
            && self.bytes + length <= limits::BRANCH_BYTES_MAX;
        if is_name || has_room {
            self.bytes += length;
            return WordStage::Kept(length);
        }
        if self.words.is_empty() {
            self.words.push(Arg::from("the command"));
        }
        let is_words = self.words.len() >= limits::ARGS_PER_OP_MAX;
        let why = if is_words { TooLarge::Words } else { TooLarge::Bytes };
        self.too_large.get_or_insert(why);
        WordStage::Skipped(length + 2)
    }

    /// Takes a line, without its end.
    fn line(&mut self, bytes: &mut BytesMut) -> Result<Option<BytesMut>, ProtocolError> {
        let found = bytes[self.scanned..].iter().position(|byte| *byte == b'\n');
        let Some(found) = found else {
            self.scanned = bytes.len();
            return match bytes.len() > LINE_BYTES_MAX {
                true => Err(ProtocolError::Line),
                false => Ok(None),
            };
        };
        let mut line = bytes.split_to(self.scanned + found + 1);
        self.scanned = 0;
        line.truncate(line.len() - 1);
        if line.ends_with(b"\r") {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line))
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn bounded(mut words: Vec<Arg>) -> ClientCommand {
    match words.len() > limits::ARGS_PER_OP_MAX {
        true => ClientCommand::TooLarge(words.swap_remove(0), TooLarge::Words),
        false => ClientCommand::Words(words),
    }
}

/// The words of a line, as a person types them: with `"\n\x00"` or `'as it is'` where they need it.
fn words_of_line(line: &[u8]) -> Result<Vec<Arg>, ProtocolError> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let (word, after) = match first {
            quote @ (b'"' | b'\'') => quoted(&rest[1..], *quote)?,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                (rest[..end].to_vec(), &rest[end..])
            }
        };
        if after.first().is_some_and(|next| !next.is_ascii_whitespace()) {
            return Err(ProtocolError::Quotes);
        }
        words.push(Arg(word));
        rest = after.trim_ascii_start();
    }
    Ok(words)
}

/// A quoted word from behind its first quote, and what follows its last one.
fn quoted(text: &[u8], quote: u8) -> Result<(Vec<u8>, &[u8]), ProtocolError> {
    let mut word = Vec::new();
    let mut rest = text;
    loop {
        rest = match rest {
            [end, after @ ..] if *end == quote => return Ok((word, after)),
            [b'\\', b'x', high, low, after @ ..] if quote == b'"' && is_hex(*high, *low) => {
                word.push(16 * hex(*high) + hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => {
                word.push(unescaped(*escaped));
                after
            }
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return Err(ProtocolError::Quotes),
        };
    }
}

const fn is_hex(high: u8, low: u8) -> bool {
    high.is_ascii_hexdigit() && low.is_ascii_hexdigit()
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

const fn unescaped(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<const N: usize>(words: [&str; N]) -> ClientCommand {
        ClientCommand::Words(words.into_iter().map(Arg::from).collect())
    }

    /// All commands in these bytes, whatever pieces they come in.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<ClientCommand>, ProtocolError> {
        let (mut reader, mut buffer) = (CommandReader::default(), BytesMut::new());
        let mut commands = Vec::new();
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(command) = reader.next(&mut buffer)? {
                commands.push(command);
            }
        }
        assert!(!reader.has_begun() && buffer.is_empty(), "nothing is left");
        Ok(commands)
    }

    #[test]
    fn commands_are_the_same_in_whatever_pieces_they_come() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n\r\nPING\r\n*0\r\n*-1\r\n\
            *1\r\n$0\r\n\r\nset k \"a\\x0a\\tb\" 'it\\'s'\n";
        let expected = [
            words(["GET", "a\r\nb"]),
            words(["PING"]),
            words([""]),
            words(["set", "k", "a\n\tb", "it's"]),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(read(bytes, piece).unwrap(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_too_large_is_read_over_and_the_next_command_is_understood() {
        let long = limits::BRANCH_BYTES_MAX;
        let mut bytes = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${long}\r\n").into_bytes();
        bytes.resize(bytes.len() + long, b'v');
        bytes.extend_from_slice(b"\r\n*2001\r\n$3\r\nDEL\r\n");
        bytes.extend(b"$1\r\nk\r\n".repeat(2_000));
        bytes.extend_from_slice(format!("*1\r\n${long}\r\n").as_bytes());
        bytes.resize(bytes.len() + long, b'v');
        bytes.extend_from_slice(b"\r\nPING\r\n");
        let too_large = |name, what| ClientCommand::TooLarge(Arg::from(name), what);
        let (mut reader, mut buffer) = (CommandReader::default(), BytesMut::new());
        let mut commands = Vec::new();
        let mut most = 0;
        for piece in bytes.chunks(16 * 1024) {
            buffer.extend_from_slice(piece);
            while let Some(command) = reader.next(&mut buffer).unwrap() {
                commands.push(command);
            }
            most = most.max(buffer.len());
        }
        assert_eq!(commands[0], too_large("SET", TooLarge::Bytes));
        assert_eq!(commands[1], too_large("DEL", TooLarge::Words));
        assert!(matches!(&commands[2], ClientCommand::Words(name) if name[0].0.len() == long));
        assert_eq!(commands[3], words(["PING"]));
        assert!(most <= long + 16 * 1024 + 64, "{most} bytes were kept");
    }

    #[test]
    fn who_does_not_speak_the_protocol_is_told() {
        for (bytes, error) in [
            (&b"*x\r\n"[..], ProtocolError::Count),
            (b"*1048577\r\n", ProtocolError::Count),
            (b"*1\r\nGET\r\n", ProtocolError::WordStage),
            (b"*1\r\n$-1\r\n", ProtocolError::Length),
            (b"*1\r\n$536870913\r\n", ProtocolError::Length),
            (b"*1\r\n$1\r\nabc\r\n", ProtocolError::End),
            (b"set k \"v\r\n", ProtocolError::Quotes),
            (b"set k \"v\"w\r\n", ProtocolError::Quotes),
        ] {
            assert_eq!(read(bytes, bytes.len()), Err(error), "{}", bytes.escape_ascii());
        }
        assert_eq!(read(&vec![b'a'; LINE_BYTES_MAX + 1], 1_000), Err(ProtocolError::Line));
    }
}
