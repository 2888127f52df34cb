//! What two processes of the gateway say to each other: one byte of kind, two of length, text; once with sockets beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Sockets that one letter carries at most: for clients and for HTTP.
pub(super) const MAX_SOCKETS: usize = 2;

/// The longest letter; a path or a cancel key is much shorter.
const MAX_BODY: usize = 16 * 1024;

/// What a letter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The successor asks for the sockets.
    TakeOver,
    /// The sockets, and the paths of those that came before.
    Sockets,
    /// The successor can begin.
    Ready,
    /// The predecessor accepts no more; its path from now on.
    Go,
    /// A cancel key, for whoever has its session.
    Cancel,
    /// Whether a query was cancelled: `1` or `0`.
    Cancelled,
    /// Tell when you end.
    Watch,
    /// The end came, and nothing is left in doubt.
    Farewell,
}

impl Kind {
    const ALL: [(Self, u8); 8] = [
        (Self::TakeOver, b'T'),
        (Self::Sockets, b'S'),
        (Self::Ready, b'R'),
        (Self::Go, b'G'),
        (Self::Cancel, b'C'),
        (Self::Cancelled, b'D'),
        (Self::Watch, b'W'),
        (Self::Farewell, b'F'),
    ];

    fn byte(self) -> u8 {
        let found = Self::ALL.iter().find(|(kind, _)| *kind == self);
        found.map_or(b'?', |(_, byte)| *byte)
    }

    fn of(byte: u8) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == byte);
        found.map(|(kind, _)| *kind)
    }
}

/// One letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
}

impl Letter {
    pub(super) fn new(kind: Kind, body: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            body: body.into(),
        }
    }

    /// As bytes.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let length = u16::try_from(self.body.len())
            .ok()
            .filter(|_| self.body.len() <= MAX_BODY);
        let length = length.ok_or_else(|| wrong("the message is too long"))?;
        let mut bytes = vec![self.kind.byte()];
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.body);
        Ok(bytes)
    }

    /// The letter at the front of `bytes`, once all of it is there, and how long it is.
    ///
    /// # Errors
    ///
    /// It is none.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let Some((&[kind, high, low], rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let kind = Kind::of(kind).ok_or_else(|| wrong("another program answers"))?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_BODY {
            return Err(wrong("the message is too long"));
        }
        let whole = rest.get(..length);
        Ok(whole.map(|body| (Self::new(kind, body), length + 3)))
    }
}

pub(super) fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Sends `bytes`, and `sockets` beside the first of them. How many bytes were sent.
///
/// # Errors
///
/// As the socket has them.
pub(super) fn send_with(stream: impl AsFd, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(wrong("too many sockets"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(sent)
}

/// Receives some bytes into `bytes`, and puts what sockets come with them behind `sockets`. How many bytes came; 0 is the
/// end of the stream.
///
/// # Errors
///
/// As the socket has them.
pub(super) fn receive_with(
    stream: impl AsFd,
    bytes: &mut [u8],
    sockets: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(bytes)],
        &mut beside,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_letter_is_read_as_it_was_written_and_not_before_it_is_whole() {
        for (kind, _) in Kind::ALL {
            let letter = Letter::new(kind, "body");
            let bytes = letter.encode().unwrap();
            for end in 0..bytes.len() {
                assert_eq!(Letter::decode(&bytes[..end]).unwrap(), None);
            }
            let more = [&bytes[..], b"more"].concat();
            assert_eq!(Letter::decode(&more).unwrap(), Some((letter, bytes.len())));
        }
    }

    #[test]
    fn what_is_no_letter_is_refused() {
        assert!(Letter::decode(b"GET / HTTP/1.1").is_err());
        assert!(Letter::decode(&[b'T', 0xff, 0xff]).is_err());
        assert!(Letter::new(Kind::Go, vec![0; MAX_BODY + 1]).encode().is_err());
    }

    #[test]
    fn a_socket_arrives_and_works() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        send_with(&ours, b"x", &[listener.as_fd()]).unwrap();
        let (mut bytes, mut sockets) = ([0; 8], Vec::new());
        assert_eq!(receive_with(&theirs, &mut bytes, &mut sockets).unwrap(), 1);
        let copy = std::net::TcpListener::from(sockets.pop().unwrap());
        assert_eq!(copy.local_addr().unwrap(), listener.local_addr().unwrap());
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(copy.accept().unwrap().1, client.local_addr().unwrap());
    }
}
