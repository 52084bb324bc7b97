//! The two floors: what the same writes cost at Redis without any atomicity between the servers.
//!
//! **Own connections**: each client has a connection to each server and sends `MULTI`, the ops,
//! `EXEC` to all at once. **Pipelined**: all clients share one connection per server, whose
//! requests go out together.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::unit::{Op, write_value};

/// Requests that go out in one write at most.
const COALESCED_MAX: usize = 512;

/// Bytes that go out in one write at most, and one request.
const COALESCED_BYTES_MAX: usize = 256 * 1024;

/// The replies of one `EXEC`, as numbers where they are.
pub(super) type Replies = Vec<Option<i64>>;

/// Appends `MULTI`, a command for each op, `EXEC`. Redis cannot refuse: bounds are left out.
fn encode(ops: &[Op], to: &mut Vec<u8>) {
    to.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
    for op in ops {
        match op {
            Op::Add { key, by, .. } => command(&["INCRBY", &key.to_string(), &by.to_string()], to),
            Op::Get { key } => command(&["GET", &key.to_string()], to),
            Op::Empty { key, .. } => command(&["GETSET", &key.to_string(), "0"], to),
            Op::Put { key, stamp, bytes } => {
                let key = key.to_string();
                let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${bytes}\r\n", key.len());
                to.extend_from_slice(head.as_bytes());
                write_value(*stamp, *bytes, |piece| to.extend_from_slice(piece.as_bytes()));
                to.extend_from_slice(b"\r\n");
            }
        }
    }
    to.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
}

fn command(words: &[&str], to: &mut Vec<u8>) {
    to.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        to.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

/// The first whole line and where the next begins; an error of Redis is an error.
fn line(bytes: &[u8], start: usize) -> io::Result<Option<(&[u8], usize)>> {
    let Some(length) = bytes[start..].iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = bytes[start..start + length].trim_ascii_end();
    if line.first() == Some(&b'-') {
        return Err(io::Error::other(String::from_utf8_lossy(line).into_owned()));
    }
    Ok(Some((line, start + length + 1)))
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The length of the first answer and its replies, if it is whole.
fn answer(bytes: &[u8], ops: usize) -> io::Result<Option<(usize, Replies)>> {
    let mut at = 0;
    // `+OK`, `+QUEUED` for each op, `*n`.
    for _ in 0..ops + 2 {
        let Some((_, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
    }
    let mut replies = Vec::with_capacity(ops);
    for _ in 0..ops {
        let Some((head, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        let value = number(head.get(1..).unwrap_or_default());
        match (head.first(), value.map(usize::try_from)) {
            (Some(b'$'), Some(Ok(length))) => {
                // And the line's end behind it.
                let Some(text) = bytes.get(at..at + length + 2) else { return Ok(None) };
                replies.push(number(&text[..length]));
                at += length + 2;
            }
            (Some(b':'), _) => replies.push(value),
            _ => replies.push(None),
        }
    }
    Ok(Some((at, replies)))
}

/// A connection of one client's.
#[derive(Debug)]
pub(super) struct OwnConnection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl OwnConnection {
    pub(super) async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new() })
    }

    pub(super) async fn run(&mut self, ops: &[Op]) -> io::Result<Replies> {
        self.request.clear();
        encode(ops, &mut self.request);
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((_, replies)) = answer(&self.answer, ops.len())? {
                return Ok(replies);
            }
        }
    }
}

struct Asked {
    ops: Vec<Op>,
    answer: oneshot::Sender<Replies>,
}

/// An answer to come: to how many ops, and to whom.
type Awaited = (usize, oneshot::Sender<Replies>);

/// A connection that all clients share.
#[derive(Debug, Clone)]
pub(super) struct SharedConnection {
    asked: mpsc::Sender<Asked>,
}

impl SharedConnection {
    pub(super) async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (asked, asking) = mpsc::channel(COALESCED_MAX);
        let (sent, waiting) = mpsc::unbounded_channel();
        // They end with the connection, or with the last client.
        tokio::spawn(write_requests(write, asking, sent));
        tokio::spawn(read_answers(read, waiting));
        Ok(Self { asked })
    }

    pub(super) async fn run(&self, ops: &[Op]) -> io::Result<Replies> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (answer, answered) = oneshot::channel();
        let asked = Asked { ops: ops.to_vec(), answer };
        self.asked.send(asked).await.map_err(|_| broken())?;
        answered.await.map_err(|_| broken())
    }
}

async fn write_requests(
    mut write: OwnedWriteHalf,
    mut asking: mpsc::Receiver<Asked>,
    sent: mpsc::UnboundedSender<Awaited>,
) -> io::Result<()> {
    let mut asked = Vec::new();
    let mut request = Vec::new();
    while asking.recv_many(&mut asked, COALESCED_MAX).await > 0 {
        for Asked { ops, answer } in asked.drain(..) {
            encode(&ops, &mut request);
            let _reader_gone = sent.send((ops.len(), answer));
            if request.len() >= COALESCED_BYTES_MAX {
                write.write_all(&request).await?;
                request.clear();
            }
        }
        write.write_all(&request).await?;
        request.clear();
    }
    Ok(())
}

async fn read_answers(
    mut read: OwnedReadHalf,
    mut sent: mpsc::UnboundedReceiver<Awaited>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut waiting: VecDeque<Awaited> = VecDeque::new();
    while read.read_buf(&mut bytes).await? > 0 {
        while let Ok(awaited) = sent.try_recv() {
            waiting.push_back(awaited);
        }
        let mut used = 0;
        while let Some((ops, _)) = waiting.front()
            && let Some((length, replies)) = answer(&bytes[used..], *ops)?
        {
            used += length;
            let _client_gone = waiting.pop_front().map(|(_, answer)| answer.send(replies));
        }
        bytes.drain(..used);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_reply() {
        let whole = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:-12\r\n$4\r\n1000\r\n";
        let behind = b"+OK\r\n";
        let bytes = [&whole[..], behind].concat();
        assert_eq!(answer(&bytes, 2).unwrap(), Some((whole.len(), vec![Some(-12), Some(1_000)])));
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], 2).unwrap(), None, "{length}");
        }
        let nil = b"+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n";
        assert_eq!(answer(nil, 1).unwrap(), Some((nil.len(), vec![None])));
        assert!(answer(b"+OK\r\n-ERR value is not an integer\r\n", 1).is_err());
    }
}
