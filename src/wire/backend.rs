//! What a server sends: the few messages that decide something are read, the rest is relayed as it is.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Body, WireError};
use super::startup::CancelKey;

/// The byte in `ReadyForQuery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction.
    InTransaction,
    /// `E`: in a transaction that has failed.
    Failed,
}

impl TransactionStatus {
    /// The byte of the protocol.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// The status in a `ReadyForQuery`.
///
/// # Errors
///
/// A byte that is no status.
pub fn ready_status(frame: &[u8]) -> Result<TransactionStatus, WireError> {
    match frame.get(5) {
        Some(b'I') => Ok(TransactionStatus::Idle),
        Some(b'T') => Ok(TransactionStatus::InTransaction),
        Some(b'E') => Ok(TransactionStatus::Failed),
        Some(_) | None => Err(WireError::Malformed("ReadyForQuery")),
    }
}

/// Name and value of a `ParameterStatus`.
///
/// # Errors
///
/// A body that is not two texts.
pub fn parameter_status(frame: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut body = Body::of(frame, "ParameterStatus");
    let name = body.text()?;
    let value = body.text()?;
    body.end()?;
    Ok((name, value))
}

/// The key in a `BackendKeyData`.
///
/// # Errors
///
/// A body without an id.
pub fn backend_key(frame: &[u8]) -> Result<CancelKey, WireError> {
    let mut body = Body::of(frame, "BackendKeyData");
    let id = body.u32()?;
    Ok(CancelKey {
        id,
        secret: Bytes::copy_from_slice(body.rest()),
    })
}

/// The tag in a `CommandComplete`, e.g. `SELECT 5`.
pub fn command_tag(frame: &[u8]) -> &[u8] {
    let body = frame.get(5..).unwrap_or_default();
    body.strip_suffix(b"\0").unwrap_or(body)
}

/// The number of rows in a `CommandComplete`; 0 where the tag has none.
pub fn command_rows(frame: &[u8]) -> u64 {
    let digits = command_tag(frame)
        .rsplit(|byte| *byte == b' ')
        .next()
        .unwrap_or_default();
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// The fields of an `ErrorResponse` or `NoticeResponse` that the gateway looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// `V`, else `S`: the severity.
    pub severity: &'a [u8],
    /// `C`: the SQLSTATE.
    pub code: &'a [u8],
    /// `M`: the primary message.
    pub message: &'a [u8],
    /// `W`: where it arose, within code that was called.
    pub context: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads what is there; a body that ends too early has the fields up to there.
    pub fn of(frame: &'a [u8]) -> Self {
        let mut body = Body::of(frame, "ErrorResponse");
        let mut fields = Self::default();
        while let Ok(kind) = body.u8() {
            if kind == 0 {
                break;
            }
            let Ok(value) = body.text() else { break };
            match kind {
                b'V' => fields.severity = value,
                b'S' if fields.severity.is_empty() => fields.severity = value,
                b'C' => fields.code = value,
                b'M' => fields.message = value,
                b'W' => fields.context = value,
                _ => {}
            }
        }
        fields
    }
}

/// An `ErrorResponse` with other values for some of its fields, by their letters; one whose value is empty is left out. Every
/// other field stays as it is.
pub fn with_fields(frame: &[u8], fields: &[(u8, &[u8])]) -> Bytes {
    let mut changed = BytesMut::with_capacity(frame.len());
    changed.extend_from_slice(frame.get(..5).unwrap_or_default());
    let mut body = Body::of(frame, "ErrorResponse");
    while let Ok(kind) = body.u8()
        && kind != 0
        && let Ok(value) = body.text()
    {
        let other = fields.iter().find(|(letter, _)| *letter == kind);
        if other.is_some_and(|(_, value)| value.is_empty()) {
            continue;
        }
        changed.put_u8(kind);
        changed.put_slice(other.map_or(value, |(_, value)| value));
        changed.put_u8(0);
    }
    changed.put_u8(0);
    let len = u32::try_from(changed.len().saturating_sub(1)).unwrap_or(u32::MAX);
    if let Some(place) = changed.get_mut(1..5) {
        place.copy_from_slice(&len.to_be_bytes());
    }
    changed.freeze()
}

/// Appends an `ErrorResponse` with all fields of `frame`, as they are, but for its severity.
pub fn with_severity(frame: &[u8], severity: &str, out: &mut BytesMut) {
    let mut body = Body::of(frame, "ErrorResponse");
    let start = out.len();
    out.put_slice(b"E\0\0\0\0");
    while let Ok(kind) = body.u8()
        && kind != 0
        && let Ok(value) = body.text()
    {
        let severity = matches!(kind, b'S' | b'V').then_some(severity.as_bytes());
        out.put_u8(kind);
        out.put_slice(severity.unwrap_or(value));
        out.put_u8(0);
    }
    out.put_u8(0);
    let len = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start + 1..start + 5) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

/// A `RowDescription` with the format codes that `formats` (two bytes each, as in a `Bind`) asks for: none is text for
/// all columns, one is for all, else one each.
///
/// # Errors
///
/// A frame that is no row description, or a number of formats that fits no rule.
pub fn with_formats(frame: &[u8], formats: &[u8]) -> Result<Bytes, WireError> {
    let mut described = BytesMut::from(frame);
    let mut body = Body::of(frame, "RowDescription");
    let columns = body.count()?;
    let mut at = 7;
    for column in 0..columns {
        let name = body.text()?;
        body.take(18)?;
        at += name.len() + 1 + 16;
        let format = match formats.len() {
            0 => &[0, 0],
            2 => formats,
            _ => formats
                .get(column * 2..column * 2 + 2)
                .ok_or(WireError::Malformed("RowDescription"))?,
        };
        described
            .get_mut(at..at + 2)
            .ok_or(WireError::Malformed("RowDescription"))?
            .copy_from_slice(format);
        at += 2;
    }
    body.end()?;
    Ok(described.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_every_field_but_its_message() {
        let frame = b"E\0\0\0\x16SERROR\0Mold\0Xodd\0\0";
        assert_eq!(
            &with_fields(frame, &[(b'M', b"newer")])[..],
            b"E\0\0\0\x18SERROR\0Mnewer\0Xodd\0\0"
        );
    }

    #[test]
    fn the_number_of_rows_is_the_last_word_of_the_tag() {
        for (tag, rows) in [
            ("SELECT 12", 12),
            ("INSERT 0 3", 3),
            ("BEGIN", 0),
            ("COPY 7", 7),
            ("", 0),
        ] {
            let mut frame = b"C\0\0\0\0".to_vec();
            frame.extend(tag.as_bytes());
            frame.push(0);
            assert_eq!(command_rows(&frame), rows, "{tag}");
            assert_eq!(command_tag(&frame), tag.as_bytes());
        }
    }

    #[test]
    fn formats_are_written_into_every_column() {
        let columns = [
            crate::wire::Column::new("a", crate::wire::ColumnType::Int8),
            crate::wire::Column::new("bc", crate::wire::ColumnType::Text),
        ];
        let mut frame = BytesMut::new();
        crate::wire::row_description(&columns, &[], &mut frame);
        for (formats, expected) in [
            (&b""[..], [0, 0]),
            (b"\0\x01", [1, 1]),
            (b"\0\x01\0\0", [1, 0]),
            (b"\0\0\0\x01", [0, 1]),
        ] {
            let mut wanted = BytesMut::new();
            crate::wire::row_description(&columns, &expected, &mut wanted);
            assert_eq!(with_formats(&frame, formats).unwrap(), wanted, "{formats:?}");
        }
        assert!(with_formats(&frame, b"\0\0\0\0\0").is_err() || frame.len() > 5);
        assert!(with_formats(&frame[..20], b"").is_err());
    }

    #[test]
    fn errors_are_read_as_far_as_they_go() {
        let frame = b"E\0\0\0\0SFEHLER\0VERROR\0C57014\0Mcancelled\0\0";
        let fields = ErrorFields::of(frame);
        assert_eq!(
            fields,
            ErrorFields {
                severity: b"ERROR",
                code: b"57014",
                message: b"cancelled",
                context: b"",
            }
        );
        assert_eq!(ErrorFields::of(b"E\0\0\0\0SERR").severity, b"");
        assert_eq!(
            ErrorFields::of(b"E\0\0\0\0WSQL function\0\0").context,
            b"SQL function"
        );
        let mut out = BytesMut::from(&b"before"[..]);
        with_severity(frame, "FATAL", &mut out);
        assert_eq!(
            out,
            &b"beforeE\0\0\0\x25SFATAL\0VFATAL\0C57014\0Mcancelled\0\0"[..]
        );
    }
}
