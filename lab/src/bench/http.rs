//! The least HTTP/1.1 client that measures a server and not itself: one keep-alive connection, one
//! request at a time, bodies of a known length. For the bench only; everybody else uses
//! `assent_client`.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes read at once; an answer is some hundreds.
const READ_BYTES: usize = 4 * 1024;

/// A connection.
#[derive(Debug)]
pub(crate) struct HttpConnection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// Where the last answer's body is.
    body: Range<usize>,
}

impl HttpConnection {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: Vec::with_capacity(1_024),
            answer: Vec::with_capacity(READ_BYTES),
            body: 0..0,
        })
    }

    /// Posts a JSON body; returns the status and the answer's body.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> io::Result<(u16, &[u8])> {
        self.request.clear();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n"
        );
        self.request.extend_from_slice(head.as_bytes());
        if let Some(key) = key {
            self.request.extend_from_slice(format!("idempotency-key: {key}\r\n").as_bytes());
        }
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(body.as_bytes());
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        self.body = 0..0;
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, start, end)) = parse(&self.answer)?
                && self.answer.len() >= end
            {
                self.body = start..end;
                return Ok((status, &self.answer[start..end]));
            }
        }
    }

    /// The body of the last answer.
    pub(super) fn last_body(&self) -> Option<&[u8]> {
        self.answer.get(self.body.clone())
    }
}

/// The status, and where the body begins and ends; `None` while the head is not whole.
fn parse(answer: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let foreign = || io::Error::from(io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(&answer[..head]).map_err(|_| foreign())?;
    let mut lines = text.split("\r\n");
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some((status, head + 4, head + 4 + length))),
        _ => Err(foreign()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_says_so() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(answer).unwrap(), Some((200, 38, 40)));
        assert_eq!(parse(&answer[..20]).unwrap(), None);
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
