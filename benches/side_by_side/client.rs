//! A client that reads as fast as a client can: it finds the frames' borders and keeps one row at most.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use crate::Outcome;
use crate::servers::{DATABASE, PASSWORD, Server, USER};

/// Room for what is received at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// A connection in the simple protocol.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The part of `buffer` that was received and not looked at.
    waiting: std::ops::Range<usize>,
}

/// What a query gave.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Rows.
    pub(crate) rows: u64,
    /// Bytes of all frames.
    pub(crate) bytes: u64,
    /// The first row's fields as text, NULL as an empty one.
    pub(crate) first: Vec<String>,
}

/// The tag of a frame and how many bytes of it follow.
struct Header {
    tag: u8,
    left: usize,
}

impl Client {
    /// Connects and logs in.
    pub(crate) fn connect(server: &Server) -> Outcome<Self> {
        Self::connect_as(server, USER)
    }

    /// Connects and logs in as `user`, by SCRAM or MD5.
    pub(crate) fn connect_as(server: &Server, user: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            waiting: 0..0,
        };
        let mut out = BytesMut::new();
        frontend::startup_message([("user", user), ("database", DATABASE)], &mut out)?;
        client.stream.write_all(&out)?;
        let mut scram = ScramSha256::new(PASSWORD.as_bytes(), ChannelBinding::unsupported());
        loop {
            let header = client.header()?;
            let body = client.take(header.left)?;
            out.clear();
            match (header.tag, body.get(..4)) {
                (b'R', Some([0, 0, 0, 5])) => {
                    let salt = body.get(4..).and_then(|rest| rest.first_chunk());
                    let salt = *salt.ok_or("no salt")?;
                    let answer = md5_hash(user.as_bytes(), PASSWORD.as_bytes(), salt);
                    frontend::password_message(answer.as_bytes(), &mut out)?;
                }
                (b'R', Some([0, 0, 0, 10])) => {
                    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?;
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    scram.update(body.get(4..).unwrap_or_default())?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                (b'R', Some([0, 0, 0, 12])) => scram.finish(body.get(4..).unwrap_or_default())?,
                (b'R', Some([0, 0, 0, 0])) | (b'S' | b'K' | b'N', _) => {}
                (b'Z', _) => return Ok(client),
                (b'E', _) => return Err(String::from_utf8_lossy(&body).into()),
                (tag, _) => return Err(format!("unexpected message {:?} at login", char::from(tag)).into()),
            }
            client.stream.write_all(&out)?;
        }
    }

    /// Only the connection; it must have been answered in full.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Runs `sql` and reads everything it answers.
    pub(crate) fn query(&mut self, sql: &str) -> Outcome<Answer> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.stream.write_all(&out)?;
        let mut answer = Answer::default();
        loop {
            let Header { tag, left } = self.header()?;
            answer.bytes += 5 + left as u64;
            match tag {
                b'D' if answer.rows == 0 => {
                    answer.rows = 1;
                    let row = self.take(left)?;
                    answer.first = fields(&row);
                }
                b'D' => {
                    answer.rows += 1;
                    self.skip(left)?;
                }
                b'E' => {
                    let body = self.take(left)?;
                    return Err(String::from_utf8_lossy(&body).into());
                }
                b'Z' => {
                    self.skip(left)?;
                    return Ok(answer);
                }
                _ => self.skip(left)?,
            }
        }
    }

    fn header(&mut self) -> Outcome<Header> {
        while self.waiting.len() < 5 {
            self.receive()?;
        }
        let bytes = self.buffer.get(self.waiting.clone()).unwrap_or_default();
        let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<5>() else {
            return Err("a frame's header is missing".into());
        };
        self.waiting.start += 5;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
        Ok(Header {
            tag,
            left: len.checked_sub(4).ok_or("a frame without a length")?,
        })
    }

    fn skip(&mut self, mut left: usize) -> Outcome<()> {
        loop {
            let here = left.min(self.waiting.len());
            self.waiting.start += here;
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.receive()?;
        }
    }

    fn take(&mut self, len: usize) -> Outcome<Vec<u8>> {
        if len > BUFFER_BYTES {
            return Err("a frame that is longer than the buffer".into());
        }
        while self.waiting.len() < len {
            self.receive()?;
        }
        let end = self.waiting.start + len;
        let bytes = self
            .buffer
            .get(self.waiting.start..end)
            .unwrap_or_default()
            .to_vec();
        self.waiting.start = end;
        Ok(bytes)
    }

    fn receive(&mut self) -> Outcome<()> {
        if self.waiting.is_empty() {
            self.waiting = 0..0;
        } else if self.waiting.start > BUFFER_BYTES / 2 {
            self.buffer.copy_within(self.waiting.clone(), 0);
            self.waiting = 0..self.waiting.len();
        }
        let room = self.buffer.get_mut(self.waiting.end..).unwrap_or_default();
        let received = self.stream.read(room)?;
        if received == 0 {
            return Err("the server closed the connection".into());
        }
        self.waiting.end += received;
        Ok(())
    }
}

fn fields(row: &[u8]) -> Vec<String> {
    let mut fields = Vec::new();
    let mut rest = row.get(2..).unwrap_or_default();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(i32::from_be_bytes(*len)).unwrap_or(0);
        let (field, behind) = behind.split_at_checked(len).unwrap_or((behind, &[]));
        fields.push(String::from_utf8_lossy(field).into_owned());
        rest = behind;
    }
    fields
}
