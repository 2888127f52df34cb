//! The five bytes at the front of every message after start-up.

/// The longest message that PostgreSQL itself takes or makes: 1 GiB less one byte.
pub const MAX_FRAME: usize = 0x3fff_ffff;

/// Why bytes are not the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A length below its own four bytes.
    #[error("invalid message length {0}")]
    LengthTooSmall(u32),
    /// A length above what is allowed here.
    #[error("message of {len} bytes is longer than the {max} allowed here")]
    TooLong {
        /// Bytes announced.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A body that does not have the shape its tag promises.
    #[error("invalid message format in {0}")]
    Malformed(&'static str),
    /// A tag that no message has.
    #[error("invalid frontend message type {0}")]
    UnknownTag(u8),
    /// A protocol version other than 3.
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    UnsupportedProtocol(u16, u16),
}

/// A message's tag and its whole length: tag, length field and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first byte.
    pub tag: u8,
    /// Bytes in all, at least 5.
    pub len: usize,
}

/// Reads the header at the front of `buf`; `None` while fewer than five bytes have come.
///
/// # Errors
///
/// A length below 4 or above `max` (counted without the tag, as the protocol does).
pub fn header(buf: &[u8], max: usize) -> Result<Option<Header>, WireError> {
    let Some((&[tag, a, b, c, d], _)) = buf.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let announced = u32::from_be_bytes([a, b, c, d]);
    if announced < 4 {
        return Err(WireError::LengthTooSmall(announced));
    }
    let len = announced as usize;
    if len > max {
        return Err(WireError::TooLong { len, max });
    }
    Ok(Some(Header { tag, len: len + 1 }))
}

/// Reads the parts of a message body one after the other; every read can find that the body ends too early.
pub(super) struct Body<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Body<'a> {
    /// The body of `frame`, which begins with its header.
    pub(super) fn of(frame: &'a [u8], message: &'static str) -> Self {
        Self {
            rest: frame.get(5..).unwrap_or_default(),
            message,
        }
    }

    /// `bytes` without a header.
    pub(super) fn bare(bytes: &'a [u8], message: &'static str) -> Self {
        Self { rest: bytes, message }
    }

    pub(super) fn malformed(&self) -> WireError {
        WireError::Malformed(self.message)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or(WireError::Malformed(self.message))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn i16(&mut self) -> Result<i16, WireError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(WireError::Malformed(self.message))?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*bytes))
    }

    pub(super) fn i32(&mut self) -> Result<i32, WireError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(WireError::Malformed(self.message))?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(WireError::Malformed(self.message))?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A count of 16 bits, which the protocol reads as unsigned in Bind and Parse.
    pub(super) fn count(&mut self) -> Result<usize, WireError> {
        Ok(usize::from(self.i16()?.cast_unsigned()))
    }

    /// Bytes up to a NUL, which is taken too.
    pub(super) fn text(&mut self) -> Result<&'a [u8], WireError> {
        let end = memchr::memchr(0, self.rest).ok_or(WireError::Malformed(self.message))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(text)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Malformed(self.message))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Malformed(self.message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_believed_only_when_it_is_whole_and_within_bounds() {
        for (bytes, expected) in [
            (&b""[..], Ok(None)),
            (b"Q\0\0\0", Ok(None)),
            (b"Q\0\0\0\x04", Ok(Some(Header { tag: b'Q', len: 5 }))),
            (b"Q\0\0\0\x03", Err(WireError::LengthTooSmall(3))),
            (
                b"Q\xff\xff\xff\xff",
                Err(WireError::TooLong {
                    len: 0xffff_ffff,
                    max: 100,
                }),
            ),
            (b"Q\0\0\0\x65", Err(WireError::TooLong { len: 101, max: 100 })),
        ] {
            assert_eq!(header(bytes, 100), expected, "{bytes:?}");
        }
    }
}
