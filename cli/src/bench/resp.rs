//! The two floors: what the same writes cost at Redis without any atomicity between the servers.
//!
//! **Own connections**: each client has a connection to each server and sends `MULTI`, the write, `EXEC` to both at once.
//! **Pipelined**: all clients share one connection per server, whose requests go out together.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// The lines of an answer: `+OK`, `+QUEUED` for each write, `*n`, and each write's reply.
const fn lines_of(writes: usize) -> usize {
    2 + 2 * writes
}

/// Requests that go out in one write at most.
const COALESCED_MAX: usize = 512;

/// Appends `MULTI`, `INCRBY key amount` for each key, `EXEC`.
fn encode(keys: &[String], amount: i64, to: &mut Vec<u8>) {
    let amount = amount.to_string();
    to.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
    for key in keys {
        to.extend_from_slice(b"*3\r\n$6\r\nINCRBY\r\n");
        for argument in [key, &amount] {
            to.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
        }
    }
    to.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
}

/// The length of the first answer, if it is whole; an error of Redis is an error.
fn answer_length(bytes: &[u8], writes: usize) -> io::Result<Option<usize>> {
    let mut lines = 0;
    let mut start = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if bytes[start] == b'-' {
            let said = String::from_utf8_lossy(&bytes[start..at]).into_owned();
            return Err(io::Error::other(said));
        }
        lines += 1;
        start = at + 1;
        if lines == lines_of(writes) {
            return Ok(Some(start));
        }
    }
    Ok(None)
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

    pub(super) async fn add(&mut self, keys: &[String], amount: i64) -> io::Result<()> {
        self.request.clear();
        encode(keys, amount, &mut self.request);
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        while answer_length(&self.answer, keys.len())?.is_none() {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

struct Asked {
    keys: Vec<String>,
    amount: i64,
    answer: oneshot::Sender<()>,
}

/// An answer to come: to how many writes, and to whom.
type Awaited = (usize, oneshot::Sender<()>);

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

    pub(super) async fn add(&self, keys: Vec<String>, amount: i64) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (answer, answered) = oneshot::channel();
        let asked = Asked { keys, amount, answer };
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
        request.clear();
        for Asked { keys, amount, answer } in asked.drain(..) {
            encode(&keys, amount, &mut request);
            let _reader_gone = sent.send((keys.len(), answer));
        }
        write.write_all(&request).await?;
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
        while let Some((writes, _)) = waiting.front()
            && let Some(length) = answer_length(&bytes[used..], *writes)?
        {
            used += length;
            let _client_gone = waiting.pop_front().map(|(_, answer)| answer.send(()));
        }
        bytes.drain(..used);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_two_lines_and_two_for_each_write() {
        let answer = b"+OK\r\n+QUEUED\r\n*1\r\n:-12\r\n+OK\r\n";
        assert_eq!(answer_length(answer, 1).unwrap(), Some(answer.len() - 5));
        assert_eq!(answer_length(answer, 2).unwrap(), None);
        assert_eq!(answer_length(&answer[..20], 1).unwrap(), None);
        assert!(answer_length(b"+OK\r\n-ERR value is not an integer\r\n", 1).is_err());
    }
}
