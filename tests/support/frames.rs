//! Messages of a client, as bytes.

use std::ops::Deref;

/// Asks for TLS.
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Asks for encryption by GSSAPI.
pub(crate) const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// A start-up packet of protocol 3.`minor`.
pub(crate) fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3];
    body.extend(minor.to_be_bytes());
    for (name, value) in parameters {
        for text in [name, value] {
            body.extend(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let mut packet = length(body.len()).to_vec();
    packet.extend(body);
    packet
}

/// A cancel request with what BackendKeyData holds.
pub(crate) fn cancel(key: &[u8]) -> Vec<u8> {
    let mut packet = length(key.len() + 4).to_vec();
    packet.extend([0x04, 0xd2, 0x16, 0x2e]);
    packet.extend(key);
    packet
}

/// The length of a message with `body` bytes after its length.
fn length(body: usize) -> [u8; 4] {
    u32::try_from(body + 4).expect("a short message").to_be_bytes()
}

fn count(number: usize) -> [u8; 2] {
    u16::try_from(number).expect("few").to_be_bytes()
}

/// Messages, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames(Vec<u8>);

impl Deref for Frames {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Any message.
    pub(crate) fn frame(mut self, tag: u8, parts: &[&[u8]]) -> Self {
        self.0.push(tag);
        self.0
            .extend(length(parts.iter().map(|part| part.len()).sum::<usize>()));
        for part in parts {
            self.0.extend(*part);
        }
        self
    }

    /// Any bytes.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn query(self, sql: &str) -> Self {
        self.frame(b'Q', &[sql.as_bytes(), b"\0"])
    }

    pub(crate) fn parse(self, name: &str, sql: &str, types: &[u32]) -> Self {
        self.parse_bytes(name, sql.as_bytes(), types)
    }

    /// As [`Self::parse`], of a text in any encoding.
    pub(crate) fn parse_bytes(self, name: &str, sql: &[u8], types: &[u32]) -> Self {
        let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
        let many = count(types.len() / 4);
        self.frame(b'P', &[name.as_bytes(), b"\0", sql, b"\0", &many, &types])
    }

    pub(crate) fn bind(
        self,
        portal: &str,
        statement: &str,
        formats: &[i16],
        values: &[Option<&[u8]>],
        results: &[i16],
    ) -> Self {
        let mut body = Vec::new();
        for name in [portal, statement] {
            body.extend(name.as_bytes());
            body.push(0);
        }
        body.extend(count(formats.len()));
        body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
        body.extend(count(values.len()));
        for value in values {
            match value {
                None => body.extend((-1_i32).to_be_bytes()),
                Some(value) => {
                    body.extend(u32::try_from(value.len()).expect("a short value").to_be_bytes());
                    body.extend(*value);
                }
            }
        }
        body.extend(count(results.len()));
        body.extend(results.iter().flat_map(|format| format.to_be_bytes()));
        self.frame(b'B', &[&body])
    }

    /// A text without parameters, prepared and run without names, up to its Execute.
    pub(crate) fn unnamed(self, sql: &str) -> Self {
        self.parse("", sql, &[])
            .bind("", "", &[], &[], &[])
            .execute("", 0)
    }

    pub(crate) fn describe_portal(self, name: &str) -> Self {
        self.frame(b'D', &[b"P", name.as_bytes(), b"\0"])
    }

    pub(crate) fn describe_statement(self, name: &str) -> Self {
        self.frame(b'D', &[b"S", name.as_bytes(), b"\0"])
    }

    pub(crate) fn execute(self, portal: &str, max_rows: i32) -> Self {
        self.frame(b'E', &[portal.as_bytes(), b"\0", &max_rows.to_be_bytes()])
    }

    pub(crate) fn close_statement(self, name: &str) -> Self {
        self.frame(b'C', &[b"S", name.as_bytes(), b"\0"])
    }

    pub(crate) fn close_portal(self, name: &str) -> Self {
        self.frame(b'C', &[b"P", name.as_bytes(), b"\0"])
    }

    pub(crate) fn sync(self) -> Self {
        self.frame(b'S', &[])
    }

    pub(crate) fn flush(self) -> Self {
        self.frame(b'H', &[])
    }

    pub(crate) fn copy_data(self, bytes: &[u8]) -> Self {
        self.frame(b'd', &[bytes])
    }

    pub(crate) fn copy_done(self) -> Self {
        self.frame(b'c', &[])
    }

    pub(crate) fn copy_fail(self, why: &str) -> Self {
        self.frame(b'f', &[why.as_bytes(), b"\0"])
    }

    pub(crate) fn password(self, password: &[u8]) -> Self {
        self.frame(b'p', &[password, b"\0"])
    }

    pub(crate) fn terminate(self) -> Self {
        self.frame(b'X', &[])
    }
}
