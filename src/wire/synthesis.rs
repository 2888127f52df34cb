//! What the gateway itself says, built with pgwire's message types: the one place that names them.

use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::data::{FieldDescription, ParameterDescription, RowDescription};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    TransactionStatus as PgwireStatus,
};
use pgwire::messages::startup::{Authentication, NegotiateProtocolVersion, ParameterStatus};

use super::backend::TransactionStatus;
use super::startup::CancelKey;
use crate::error::{ClientError, Severity, SqlState};

/// Types of the columns that the gateway answers with by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `varchar`, as Redshift has no other text.
    Text,
    /// `boolean`.
    Bool,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `double precision`.
    Float8,
}

/// A column of such an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnType,
}

impl Column {
    /// A column `name` of type `kind`.
    pub const fn new(name: &'static str, kind: ColumnType) -> Self {
        Self { name, kind }
    }
}

/// A field of such an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// For a text column.
    Text(String),
    /// For a `boolean` column.
    Bool(bool),
    /// For an `integer` column.
    Int4(i32),
    /// For a `bigint` column.
    Int8(i64),
    /// For a `double precision` column.
    Float8(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int8(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int8(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

fn put(message: &impl Message, out: &mut BytesMut) {
    // every message built here is small and has text without NUL, which is all that encoding can stumble over
    let before = out.len();
    if message.encode(out).is_err() {
        out.truncate(before);
        debug_assert!(false, "a message of our own could not be encoded");
    }
}

/// `RowDescription`; `formats` as in [`crate::wire::with_formats`], but one number each.
pub fn row_description(columns: &[Column], formats: &[i16], out: &mut BytesMut) {
    let fields = columns
        .iter()
        .enumerate()
        .map(|(index, column)| field_description(column.name, column.kind, format_of(formats, index)));
    put(&RowDescription::new(fields.collect()), out);
}

/// `RowDescription` of one column, whose name a client chose; `formats` as in [`row_description`].
pub fn column_description(name: &str, kind: ColumnType, formats: &[i16], out: &mut BytesMut) {
    let field = field_description(name, kind, format_of(formats, 0));
    put(&RowDescription::new(vec![field]), out);
}

fn field_description(name: &str, kind: ColumnType, format: i16) -> FieldDescription {
    let (oid, size) = match kind {
        ColumnType::Text => (1043, -1),
        ColumnType::Bool => (16, 1),
        ColumnType::Int4 => (23, 4),
        ColumnType::Int8 => (20, 8),
        ColumnType::Float8 => (701, 8),
    };
    FieldDescription::new(name.to_owned(), 0, 0, oid, size, -1, format)
}

fn format_of(formats: &[i16], index: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(index).copied().unwrap_or(0),
    }
}

/// `DataRow` in the formats asked for: 0 text, 1 binary.
pub fn data_row(values: &[Value], formats: &[i16], out: &mut BytesMut) {
    let start = begin(b'D', out);
    out.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
    for (index, value) in values.iter().enumerate() {
        let binary = format_of(formats, index) == 1;
        match value {
            Value::Null => out.put_i32(-1),
            Value::Text(text) => field(text.as_bytes(), out),
            Value::Bool(yes) if binary => field(&[u8::from(*yes)], out),
            Value::Bool(yes) => field(if *yes { b"t" } else { b"f" }, out),
            Value::Int4(number) if binary => field(&number.to_be_bytes(), out),
            Value::Int4(number) => field(number.to_string().as_bytes(), out),
            Value::Int8(number) if binary => field(&number.to_be_bytes(), out),
            Value::Int8(number) => field(number.to_string().as_bytes(), out),
            Value::Float8(number) if binary => field(&number.to_be_bytes(), out),
            Value::Float8(number) => field(number.to_string().as_bytes(), out),
        }
    }
    end(start, out);
}

fn field(bytes: &[u8], out: &mut BytesMut) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(0));
    out.put_slice(bytes);
}

/// `ParameterDescription` of the given types.
pub fn parameter_description(types: &[u32], out: &mut BytesMut) {
    put(&ParameterDescription::new(types.to_vec()), out);
}

/// `CommandComplete`.
pub fn command_complete(tag: &str, out: &mut BytesMut) {
    put(&CommandComplete::new(tag.to_owned()), out);
}

/// `EmptyQueryResponse`.
pub fn empty_query(out: &mut BytesMut) {
    put(&EmptyQueryResponse::new(), out);
}

/// `ReadyForQuery`.
pub fn ready_for_query(status: TransactionStatus, out: &mut BytesMut) {
    let status = match status {
        TransactionStatus::Idle => PgwireStatus::Idle,
        TransactionStatus::InTransaction => PgwireStatus::Transaction,
        TransactionStatus::Failed => PgwireStatus::Error,
    };
    put(&ReadyForQuery::new(status), out);
}

/// A message of a tag alone: `1` ParseComplete, `2` BindComplete, `3` CloseComplete, `n` NoData, `S` Sync …
pub fn simple(tag: u8, out: &mut BytesMut) {
    out.put_slice(&[tag, 0, 0, 0, 4]);
}

fn fields(
    severity: Severity,
    code: SqlState,
    message: &str,
    detail: Option<String>,
    hint: Option<String>,
) -> Vec<(u8, String)> {
    // a NUL would end the field early and make the rest of the message unreadable
    let clean = |text: String| {
        if text.contains('\0') {
            text.replace('\0', "?")
        } else {
            text
        }
    };
    let mut fields = vec![
        (b'S', severity.as_str().to_owned()),
        (b'V', severity.as_str().to_owned()),
        (b'C', code.as_str().to_owned()),
        (b'M', clean(message.to_owned())),
    ];
    fields.extend(detail.map(|text| (b'D', clean(text))));
    fields.extend(hint.map(|text| (b'H', clean(text))));
    fields
}

/// `ErrorResponse` for `error`.
pub fn error_response(error: &dyn ClientError, out: &mut BytesMut) {
    let mut fields = fields(
        error.severity(),
        error.sqlstate(),
        &error.to_string(),
        error.detail(),
        error.hint(),
    );
    fields.extend(error.routine().map(|routine| (b'R', routine.to_owned())));
    put(&ErrorResponse::new(fields), out);
}

/// `NoticeResponse`.
pub fn notice_response(message: &str, hint: Option<String>, out: &mut BytesMut) {
    let fields = fields(
        Severity::Notice,
        SqlState::SUCCESSFUL_COMPLETION,
        message,
        None,
        hint,
    );
    put(&NoticeResponse::new(fields), out);
}

/// `ParameterStatus`.
pub fn parameter_status_frame(name: &str, value: &str, out: &mut BytesMut) {
    put(&ParameterStatus::new(name.to_owned(), value.to_owned()), out);
}

/// `BackendKeyData`.
pub fn backend_key_data(key: &CancelKey, out: &mut BytesMut) {
    out.put_u8(b'K');
    out.put_u32(u32::try_from(8 + key.secret.len()).unwrap_or(12));
    out.put_u32(key.id);
    out.put_slice(&key.secret);
}

/// An authentication request or result.
pub fn authentication(message: &Authentication, out: &mut BytesMut) {
    put(message, out);
}

/// Redshift's request for a digest (code 13): the hash function SHA-256, the salt of the stored form, and a nonce.
pub fn digest_request(salt: &[u8], nonce: &[u8], out: &mut BytesMut) {
    let start = begin(b'R', out);
    out.put_u32(13);
    out.put_u32(0);
    field(salt, out);
    field(nonce, out);
    end(start, out);
}

/// `AuthenticationOk`.
pub fn authentication_ok(out: &mut BytesMut) {
    put(&Authentication::Ok, out);
}

/// `NegotiateProtocolVersion`: the newest version 3 minor we have, and the `_pq_.` options we do not know.
///
/// The number is the whole version, as `SendNegotiateProtocolVersion` sends it, not the minor part alone as the
/// documentation says.
pub fn negotiate_protocol_version(minor: u16, unknown: Vec<String>, out: &mut BytesMut) {
    put(
        &NegotiateProtocolVersion::new((3 << 16) | i32::from(minor), unknown),
        out,
    );
}

/// A start-up packet for a backend: protocol 3.0.
pub fn startup_message<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut BytesMut) {
    let start = out.len();
    out.put_slice(b"\0\0\0\0\0\x03\0\0");
    for (name, value) in parameters {
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.put_slice(value.as_bytes());
        out.put_u8(0);
    }
    out.put_u8(0);
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

/// A `Parse` for a backend.
pub fn parse_frame(name: &[u8], text: &[u8], types: &[u8], out: &mut BytesMut) {
    let start = begin(b'P', out);
    for part in [name, text] {
        out.put_slice(part);
        out.put_u8(0);
    }
    out.put_u16(u16::try_from(types.len() / 4).unwrap_or(0));
    out.put_slice(types);
    end(start, out);
}

/// A `Bind` of a statement without parameters, for a backend.
pub fn bind_frame(portal: &[u8], statement: &[u8], out: &mut BytesMut) {
    let start = begin(b'B', out);
    for name in [portal, statement] {
        out.put_slice(name);
        out.put_u8(0);
    }
    // no formats of parameters, no parameters, no formats of results
    out.put_bytes(0, 6);
    end(start, out);
}

/// An `Execute` of a portal to its end, for a backend.
pub fn execute_frame(portal: &[u8], out: &mut BytesMut) {
    let start = begin(b'E', out);
    out.put_slice(portal);
    out.put_u8(0);
    out.put_u32(0);
    end(start, out);
}

/// A `Close` of a statement for a backend.
pub fn close_statement_frame(name: &[u8], out: &mut BytesMut) {
    target_frame(b'C', b'S', name, out);
}

/// A `Describe` of a portal for a backend.
pub fn describe_portal_frame(name: &[u8], out: &mut BytesMut) {
    target_frame(b'D', b'P', name, out);
}

/// A `Describe` of a statement for a backend.
pub fn describe_statement_frame(name: &[u8], out: &mut BytesMut) {
    target_frame(b'D', b'S', name, out);
}

/// A `Flush` for a backend.
pub fn flush_frame(out: &mut BytesMut) {
    let start = begin(b'H', out);
    end(start, out);
}

/// A `Sync` for a backend.
pub fn sync_frame(out: &mut BytesMut) {
    let start = begin(b'S', out);
    end(start, out);
}

/// A `CopyFail` for a backend; `reason` has no NUL.
pub fn copy_fail_frame(reason: &str, out: &mut BytesMut) {
    let start = begin(b'f', out);
    out.put_slice(reason.as_bytes());
    out.put_u8(0);
    end(start, out);
}

/// A `Query` for a backend; the text has no NUL.
pub fn query_frame(sql: impl AsRef<[u8]>, out: &mut BytesMut) {
    let start = begin(b'Q', out);
    out.put_slice(sql.as_ref());
    out.put_u8(0);
    end(start, out);
}

fn target_frame(tag: u8, kind: u8, name: &[u8], out: &mut BytesMut) {
    let start = begin(tag, out);
    out.put_u8(kind);
    out.put_slice(name);
    out.put_u8(0);
    end(start, out);
}

fn begin(tag: u8, out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_slice(&[tag, 0, 0, 0, 0]);
    start
}

fn end(start: usize, out: &mut BytesMut) {
    let len = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start + 1..start + 5) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}
