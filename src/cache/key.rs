//! The exact identity of a request whose answer may be kept.
//!
//! A key is one byte string of parts in a fixed order, each with its length before it, so that no two different requests
//! can have the same one. It is compared byte by byte; a hash only finds it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A kept key. Equal to, and hashed as, the bytes that [`KeyBuilder::build`] lends.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CacheKey(Arc<[u8]>);

impl CacheKey {
    /// Keeps `key`, made by [`KeyBuilder::build`].
    pub fn new(key: &[u8]) -> Self {
        Self(key.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for CacheKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    /// Only the length: the bytes hold the client's statement and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({} bytes)", self.0.len())
    }
}

/// One parameter of a portal, as bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParameter<'a> {
    /// The type's `oid` as the client gave it in `Parse`, 0 where the backend infers it.
    pub type_oid: u32,
    /// 0 text, 1 binary.
    pub format: i16,
    /// The value's bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// Makes keys in one buffer that is used again for the next.
#[derive(Debug, Default)]
pub struct KeyBuilder {
    buffer: Vec<u8>,
}

impl KeyBuilder {
    /// The key of a request:
    /// - `scope`: everything of the session that can change the answer, already encoded without ambiguity: backend,
    ///   database, role, search path, settings;
    /// - `statement`: the canonical text, and values of relative dates if any were resolved;
    /// - `parameters`: in order;
    /// - `formats`: the result formats as `Bind` lists them, empty for the simple protocol. None, and the one code "text",
    ///   mean the same and give the same key, so both protocols share answers. A longer list stands as it is: the
    ///   backend refuses a list of the wrong length, and an answer must not hide that.
    pub fn build<'p>(
        &mut self,
        scope: &[u8],
        statement: &[u8],
        parameters: impl IntoIterator<Item = KeyParameter<'p>>,
        formats: &[i16],
    ) -> &[u8] {
        self.buffer.clear();
        self.part(scope);
        self.part(statement);
        for KeyParameter {
            type_oid,
            format,
            value,
        } in parameters
        {
            self.buffer.push(PARAMETER);
            self.buffer.extend_from_slice(&type_oid.to_be_bytes());
            self.buffer.extend_from_slice(&format.to_be_bytes());
            match value {
                None => self.buffer.push(NULL),
                Some(value) => {
                    self.buffer.push(VALUE);
                    self.part(value);
                }
            }
        }
        let formats = if formats == [0] { &[] } else { formats };
        self.buffer.push(FORMATS);
        self.buffer
            .extend(formats.iter().flat_map(|format| format.to_be_bytes()));
        &self.buffer
    }

    fn part(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.buffer.extend_from_slice(bytes);
    }
}

/// Before each parameter.
const PARAMETER: u8 = b'P';
/// Before a parameter's bytes.
const VALUE: u8 = b'V';
/// In place of a parameter's bytes.
const NULL: u8 = b'N';
/// Before the result formats, which end the key.
const FORMATS: u8 = b'F';

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    type Parameter = (u32, i16, Option<Vec<u8>>);
    type Request = (Vec<u8>, Vec<u8>, Vec<Parameter>, Vec<i16>);

    fn key((scope, statement, parameters, formats): &Request) -> Vec<u8> {
        let parameters = parameters.iter().map(|(type_oid, format, value)| KeyParameter {
            type_oid: *type_oid,
            format: *format,
            value: value.as_deref(),
        });
        KeyBuilder::default()
            .build(scope, statement, parameters, formats)
            .to_vec()
    }

    fn request(scope: &str, statement: &str, parameters: &[Parameter], formats: &[i16]) -> Request {
        (
            scope.into(),
            statement.into(),
            parameters.to_vec(),
            formats.to_vec(),
        )
    }

    #[test]
    fn requests_that_differ_have_different_keys() {
        let one = |bytes: &[u8]| (23, 0, Some(bytes.to_vec()));
        let base = request("s", "select", &[one(b"ab"), one(b"c")], &[]);
        for (what, other) in [
            ("scope", request("t", "select", &[one(b"ab"), one(b"c")], &[])),
            (
                "border of scope and statement",
                request("ss", "elect", &[one(b"ab"), one(b"c")], &[]),
            ),
            ("statement", request("s", "SELECT", &[one(b"ab"), one(b"c")], &[])),
            (
                "border of parameters",
                request("s", "select", &[one(b"a"), one(b"bc")], &[]),
            ),
            (
                "number of parameters",
                request("s", "select", &[one(b"ab"), one(b"c"), one(b"")], &[]),
            ),
            ("null", request("s", "select", &[one(b"ab"), (23, 0, None)], &[])),
            (
                "type",
                request("s", "select", &[one(b"ab"), (25, 0, Some(b"c".to_vec()))], &[]),
            ),
            (
                "format",
                request("s", "select", &[one(b"ab"), (23, 1, Some(b"c".to_vec()))], &[]),
            ),
            ("binary", request("s", "select", &[one(b"ab"), one(b"c")], &[1])),
            (
                "formats per column",
                request("s", "select", &[one(b"ab"), one(b"c")], &[0, 0]),
            ),
        ] {
            assert_ne!(key(&base), key(&other), "{what}");
        }
        let text = request("s", "select", &[one(b"ab"), one(b"c")], &[0]);
        assert_eq!(key(&base), key(&text), "no format and one text format");
    }

    #[test]
    fn a_kept_key_is_found_by_borrowed_bytes() {
        let bytes = key(&request("s", "select", &[], &[]));
        let kept = CacheKey::new(&bytes);
        let state = RandomState::new();
        assert_eq!(state.hash_one(&kept), state.hash_one(&bytes[..]));
        assert_eq!(HashMap::from([(kept, 1)]).get(&bytes[..]), Some(&1));
    }

    proptest! {
        #[test]
        fn equal_keys_mean_equal_requests(a: Request, b: Request) {
            let formats = |request: &Request| if request.3 == [0] { vec![] } else { request.3.clone() };
            let same = (&a.0, &a.1, &a.2, formats(&a)) == (&b.0, &b.1, &b.2, formats(&b));
            prop_assert_eq!(key(&a) == key(&b), same);
        }
    }
}
