//! What a client sends after login.

use super::frame::{Body, Header, MAX_FRAME, WireError, header};

/// The longest message of a type that has no data in it, in bytes; PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`.
const MAX_SMALL: usize = 10_000;

/// Every message a logged-in client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendTag {
    /// `Q`: one text, any number of statements.
    Query,
    /// `P`.
    Parse,
    /// `B`.
    Bind,
    /// `D`.
    Describe,
    /// `E`.
    Execute,
    /// `C`.
    Close,
    /// `H`.
    Flush,
    /// `S`.
    Sync,
    /// `F`.
    FunctionCall,
    /// `d`.
    CopyData,
    /// `c`.
    CopyDone,
    /// `f`.
    CopyFail,
    /// `X`.
    Terminate,
}

impl TryFrom<u8> for FrontendTag {
    type Error = WireError;

    fn try_from(tag: u8) -> Result<Self, WireError> {
        Ok(match tag {
            b'Q' => Self::Query,
            b'P' => Self::Parse,
            b'B' => Self::Bind,
            b'D' => Self::Describe,
            b'E' => Self::Execute,
            b'C' => Self::Close,
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'F' => Self::FunctionCall,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail,
            b'X' => Self::Terminate,
            other => return Err(WireError::UnknownTag(other)),
        })
    }
}

impl FrontendTag {
    /// The longest message of this type, counted as the protocol does, in bytes.
    fn max_len(self) -> usize {
        match self {
            Self::Query | Self::Parse | Self::Bind | Self::FunctionCall | Self::CopyData => MAX_FRAME,
            Self::Describe
            | Self::Execute
            | Self::Close
            | Self::Flush
            | Self::Sync
            | Self::CopyDone
            | Self::CopyFail
            | Self::Terminate => MAX_SMALL,
        }
    }
}

/// Reads the header of a client's message at the front of `buf`; `None` while fewer than five bytes have come.
///
/// # Errors
///
/// A type that no message has, or a length that none of this type has.
pub fn client_header(buf: &[u8]) -> Result<Option<(FrontendTag, Header)>, WireError> {
    let Some(header) = header(buf, MAX_FRAME)? else {
        return Ok(None);
    };
    let tag = FrontendTag::try_from(header.tag)?;
    let (len, max) = (header.len - 1, tag.max_len());
    if len > max {
        return Err(WireError::TooLong { len, max });
    }
    Ok(Some((tag, header)))
}

/// The text of a `Query`, without its NUL.
///
/// # Errors
///
/// No NUL, or bytes after it.
pub fn query_text(frame: &[u8]) -> Result<&[u8], WireError> {
    let mut body = Body::of(frame, "Query");
    let text = body.text()?;
    body.end()?;
    Ok(text)
}

/// A `Parse`, its parts still in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name, empty for the unnamed one.
    pub name: &'a [u8],
    /// The SQL text.
    pub text: &'a [u8],
    /// Type OIDs of the parameters, four bytes each.
    pub types: &'a [u8],
}

/// Reads a `Parse`.
///
/// # Errors
///
/// A body that is too short or too long.
pub fn parse(frame: &[u8]) -> Result<Parse<'_>, WireError> {
    let mut body = Body::of(frame, "Parse");
    let name = body.text()?;
    let text = body.text()?;
    let count = body.count()?;
    let types = body.take(count * 4)?;
    body.end()?;
    Ok(Parse { name, text, types })
}

/// A `Bind`, its parts still in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name, empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// Format codes of the parameters, two bytes each.
    pub parameter_formats: &'a [u8],
    /// The parameters with their lengths, as in the frame.
    pub parameters: &'a [u8],
    /// How many parameters there are.
    pub parameter_count: usize,
    /// Format codes of the result's columns, two bytes each.
    pub result_formats: &'a [u8],
}

impl<'a> Bind<'a> {
    /// The values of the parameters; `None` is NULL.
    pub fn values(&self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut body = Body::bare(self.parameters, "Bind");
        // `bind` walked the same bytes before, so no read can fail here; if one did, the iteration would end
        std::iter::from_fn(move || {
            let len = body.i32().ok()?;
            match usize::try_from(len) {
                Ok(len) => body.take(len).ok().map(Some),
                Err(_) => Some(None),
            }
        })
    }
}

/// Reads a `Bind`.
///
/// # Errors
///
/// A body that is too short or too long, or a parameter length below -1.
pub fn bind(frame: &[u8]) -> Result<Bind<'_>, WireError> {
    let mut body = Body::of(frame, "Bind");
    let portal = body.text()?;
    let statement = body.text()?;
    let formats = body.count()?;
    let parameter_formats = body.take(formats * 2)?;
    let parameter_count = body.count()?;
    let before = body.rest();
    for _ in 0..parameter_count {
        match body.i32()? {
            -1 => {}
            len => {
                let len = usize::try_from(len).map_err(|_| body.malformed())?;
                body.take(len)?;
            }
        }
    }
    let parameters = before.get(..before.len() - body.rest().len()).unwrap_or_default();
    let formats = body.count()?;
    let result_formats = body.take(formats * 2)?;
    body.end()?;
    Ok(Bind {
        portal,
        statement,
        parameter_formats,
        parameters,
        parameter_count,
        result_formats,
    })
}

/// An `Execute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// How many rows at most; 0 is all.
    pub max_rows: i32,
}

/// Reads an `Execute`.
///
/// # Errors
///
/// A body that is too short or too long.
pub fn execute(frame: &[u8]) -> Result<Execute<'_>, WireError> {
    let mut body = Body::of(frame, "Execute");
    let portal = body.text()?;
    let max_rows = body.i32()?;
    body.end()?;
    Ok(Execute { portal, max_rows })
}

/// What a `Describe` or a `Close` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// A `Describe` or a `Close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Statement or portal.
    pub kind: TargetKind,
    /// Its name.
    pub name: &'a [u8],
}

/// Reads a `Describe` or a `Close`.
///
/// # Errors
///
/// A kind other than `S` and `P`, or a body that is too short or too long.
pub fn target(frame: &[u8]) -> Result<Target<'_>, WireError> {
    let mut body = Body::of(frame, "Describe or Close");
    let kind = match body.u8()? {
        b'S' => TargetKind::Statement,
        b'P' => TargetKind::Portal,
        _ => return Err(body.malformed()),
    };
    let name = body.text()?;
    body.end()?;
    Ok(Target { kind, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![tag];
        frame.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        frame.extend(body);
        frame
    }

    #[test]
    fn messages_are_read_whole_or_refused() {
        let whole = frame(
            b'B',
            b"p\0s\0\0\x01\0\x01\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0\0\x01\0\0",
        );
        let read = bind(&whole).unwrap();
        assert_eq!(
            (read.portal, read.statement, read.parameter_count),
            (&b"p"[..], &b"s"[..], 3)
        );
        assert_eq!(
            read.values().collect::<Vec<_>>(),
            [Some(&b"ab"[..]), None, Some(&b""[..])]
        );
        assert_eq!(read.result_formats, b"\0\0");
        for cut in 5..whole.len() {
            assert!(bind(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for (bytes, name) in [
            (frame(b'Q', b"no nul"), "Query"),
            (frame(b'Q', b"a\0b"), "Query"),
            (frame(b'P', b"s\0text\0"), "Parse"),
            (frame(b'E', b"p\0\0\0"), "Execute"),
            (frame(b'D', b""), "Describe or Close"),
            (frame(b'D', b"Xp\0"), "Describe or Close"),
        ] {
            let error = match bytes[0] {
                b'Q' => query_text(&bytes).map(|_| ()),
                b'P' => parse(&bytes).map(|_| ()),
                b'E' => execute(&bytes).map(|_| ()),
                _ => target(&bytes).map(|_| ()),
            };
            assert_eq!(error, Err(WireError::Malformed(name)), "{bytes:?}");
        }
    }
}
