//! The demo's tables, and their rows in PostgreSQL's binary COPY format
//! (<https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.55.9.4.6>).

use bytes::{BufMut, Bytes, BytesMut};

use super::generate::{EVENT_KINDS, Event, EventKind, Session};
use super::population::{COUNTRIES, Country, User};

/// A table of the demo.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Its columns, as in `CREATE TABLE`.
    pub(super) columns: &'static str,
    /// Its primary key.
    pub(super) key: &'static str,
    /// What else it is found by: a time, in whose order the rows lie.
    pub(super) time: Option<&'static str>,
}

/// One row for each country.
pub(super) static COUNTRIES_TABLE: Table = Table {
    name: "countries",
    columns: "country_code varchar(2) NOT NULL, name varchar(64) NOT NULL, region varchar(32) NOT NULL, \
              utc_offset_minutes integer NOT NULL",
    key: "country_code",
    time: None,
};

/// One row for each kind of event.
pub(super) static EVENT_KINDS_TABLE: Table = Table {
    name: "event_kinds",
    columns: "event_kind varchar(16) NOT NULL, category varchar(16) NOT NULL, is_engagement boolean NOT NULL",
    key: "event_kind",
    time: None,
};

/// One row for each user.
pub(super) static USERS_TABLE: Table = Table {
    name: "users",
    columns: "user_id bigint NOT NULL, signup_date date NOT NULL, country_code varchar(2) NOT NULL, \
              platform varchar(8) NOT NULL, kind varchar(8) NOT NULL, invited_by bigint",
    key: "user_id",
    time: None,
};

/// One row for each visit of a user.
pub(super) static SESSIONS_TABLE: Table = Table {
    name: "sessions",
    columns: "session_id bigint NOT NULL, user_id bigint NOT NULL, started_at timestamp NOT NULL, \
              ended_at timestamp NOT NULL, duration_seconds integer NOT NULL, event_count integer NOT NULL, \
              platform varchar(8) NOT NULL, app_version varchar(8) NOT NULL",
    key: "session_id",
    time: Some("started_at"),
};

/// One row for everything a user did.
pub(super) static EVENTS_TABLE: Table = Table {
    name: "events",
    columns: "event_id bigint NOT NULL, event_time timestamp NOT NULL, session_id bigint NOT NULL, \
              user_id bigint NOT NULL, event_kind varchar(16) NOT NULL, chat_kind varchar(8), \
              message_bytes integer, call_seconds integer, revenue_cents integer",
    key: "event_id",
    time: Some("event_time"),
};

/// Every stream begins with it: the signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// A chunk is given out when it has this many bytes.
const CHUNK_BYTES: usize = 128 << 10;

/// The rows of one table as chunks for `COPY … FROM STDIN (FORMAT binary)`.
#[derive(Debug)]
pub(super) struct CopyStream {
    buffer: BytesMut,
}

impl CopyStream {
    /// An empty stream.
    pub(super) fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES + 1024);
        buffer.put_slice(HEADER);
        Self { buffer }
    }

    /// Adds a row, and gives out what has gathered when that is enough.
    pub(super) fn push(&mut self, row: &impl Row) -> Option<Bytes> {
        let mut fields = Fields {
            buffer: &mut self.buffer,
        };
        row.write(&mut fields);
        (self.buffer.len() >= CHUNK_BYTES).then(|| self.buffer.split().freeze())
    }

    /// The last chunk, with the trailer.
    pub(super) fn finish(mut self) -> Bytes {
        self.buffer.put_i16(-1);
        self.buffer.freeze()
    }
}

/// Writes the fields of one row.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    buffer: &'a mut BytesMut,
}

impl Fields<'_> {
    fn count(&mut self, count: i16) -> &mut Self {
        self.buffer.put_i16(count);
        self
    }

    fn int8(&mut self, value: i64) -> &mut Self {
        self.buffer.put_i32(8);
        self.buffer.put_i64(value);
        self
    }

    fn int4(&mut self, value: i32) -> &mut Self {
        self.buffer.put_i32(4);
        self.buffer.put_i32(value);
        self
    }

    fn boolean(&mut self, value: bool) -> &mut Self {
        self.buffer.put_i32(1);
        self.buffer.put_u8(u8::from(value));
        self
    }

    fn text(&mut self, value: &str) -> &mut Self {
        // all texts are our own and short
        self.buffer
            .put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.buffer.put_slice(value.as_bytes());
        self
    }

    fn null(&mut self) -> &mut Self {
        self.buffer.put_i32(-1);
        self
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T) -> &mut Self) -> &mut Self {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }
}

/// Something that is a row of a table.
pub(super) trait Row {
    /// Writes the number of fields and each field, in order of the table's columns.
    fn write(&self, fields: &mut Fields<'_>);
}

impl Row for Country {
    fn write(&self, fields: &mut Fields<'_>) {
        let minutes = i32::try_from(self.utc_offset_minutes).unwrap_or(0);
        fields
            .count(4)
            .text(self.code)
            .text(self.name)
            .text(self.region)
            .int4(minutes);
    }
}

impl Row for EventKind {
    fn write(&self, fields: &mut Fields<'_>) {
        fields
            .count(3)
            .text(self.name)
            .text(self.category)
            .boolean(self.engagement);
    }
}

impl Row for User {
    fn write(&self, fields: &mut Fields<'_>) {
        fields
            .count(6)
            .int8(self.id)
            .int4(self.signup.postgres_date())
            .text(self.country.code)
            .text(self.platform)
            .text(self.kind.as_str())
            .optional(self.invited_by, Fields::int8);
    }
}

impl Row for Session {
    fn write(&self, fields: &mut Fields<'_>) {
        fields
            .count(8)
            .int8(self.id)
            .int8(self.user)
            .int8(self.started)
            .int8(self.started + i64::from(self.seconds) * 1_000_000)
            .int4(self.seconds)
            .int4(self.events)
            .text(self.platform)
            .text(&format!("8.{}", self.release));
    }
}

impl Row for Event {
    fn write(&self, fields: &mut Fields<'_>) {
        fields
            .count(9)
            .int8(self.id)
            .int8(self.at)
            .int8(self.session)
            .int8(self.user)
            .text(self.kind.name)
            .optional(self.chat, Fields::text)
            .optional(self.bytes, Fields::int4)
            .optional(self.seconds, Fields::int4)
            .optional(self.revenue_cents, Fields::int4);
    }
}

/// The whole of `countries`.
pub(super) fn countries() -> Vec<Bytes> {
    whole(COUNTRIES.iter().copied())
}

/// The whole of `event_kinds`.
pub(super) fn event_kinds() -> Vec<Bytes> {
    whole(EVENT_KINDS.iter().copied())
}

/// The chunks of all `rows`.
pub(super) fn whole<'a, R: Row + 'a>(rows: impl Iterator<Item = &'a R>) -> Vec<Bytes> {
    let mut stream = CopyStream::new();
    let mut chunks: Vec<Bytes> = rows.filter_map(|row| stream.push(row)).collect();
    chunks.push(stream.finish());
    chunks
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::standin::calendar::Day;
    use crate::standin::generate::{Days, SEED};

    #[test]
    fn a_row_is_its_fields_with_their_lengths() {
        let chunks = whole(COUNTRIES.iter().copied().filter(|country| country.code == "GB"));
        let mut expected = HEADER.to_vec();
        expected
            .extend(b"\0\x04\0\0\0\x02GB\0\0\0\x0eUnited Kingdom\0\0\0\x06Europe\0\0\0\x04\0\0\0\0\xff\xff");
        assert_eq!(chunks.concat(), expected);
    }

    #[test]
    fn long_streams_come_in_chunks() {
        let days = Days::new(SEED, 400_000, Day(20_500));
        let chunks = whole(days.users().iter());
        assert!(chunks.len() > 1);
        assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 1024));
    }

    /// The bytes of every table for a fixed day. When this fails the demo's data have changed: then every
    /// machine's answers change, and `GENERATOR` must too.
    #[test]
    fn the_data_never_change() {
        let mut digest = Sha256::new();
        let mut days = Days::new(SEED, 20_000, Day(20_484));
        for chunk in [countries(), event_kinds(), whole(days.users().iter())].concat() {
            digest.update(&chunk);
        }
        for rows in days.by_ref() {
            for chunk in [whole(rows.sessions.iter()), whole(rows.events.iter())].concat() {
                digest.update(&chunk);
            }
        }
        let digest = digest.finalize();
        let hex = digest
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(
            hex,
            "d19956bda811d80870381b3da4141aa40c48b01be4d95bf3f82c50b4187fc486"
        );
    }
}
