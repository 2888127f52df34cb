//! What a server says of a statement, as far as a client relies on it: the types of its parameters, and the names and
//! types of its columns. Two descriptions are told apart by digests of 128 bits.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

/// The columns of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns(u128);

impl Columns {
    /// Of a description that could not be looked at as a whole; not told from another such.
    pub const UNSEEN: Self = Self(0);

    /// Of a whole `RowDescription`, or of a `NoData`. Which relation a column is of does not count, nor does the format of
    /// its values: a statement keeps its columns when a table is made anew.
    pub fn of(frame: &[u8]) -> Self {
        // what a server says is not chosen by its client, so the key need not be secret
        let mut hasher = SipHasher24::new();
        let mut rest = frame.get(7..).unwrap_or_default();
        hasher.write(frame.get(..1).unwrap_or_default());
        while let Some(name) = rest.iter().position(|byte| *byte == 0) {
            let (name, column) = rest.split_at(name + 1);
            let Some((column, after)) = column.split_first_chunk::<18>() else {
                return Self::UNSEEN;
            };
            hasher.write(name);
            // four bytes for the relation and two for its column, then type, length and modifier, then the format
            hasher.write(column.get(6..16).unwrap_or_default());
            rest = after;
        }
        Self(hasher.finish128().as_u128())
    }
}

/// What a server says of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    parameters: u128,
    columns: Columns,
}

impl Description {
    /// Of a description that could not be looked at as a whole; not told from another such.
    pub const UNSEEN: Self = Self {
        parameters: 0,
        columns: Columns::UNSEEN,
    };

    /// Of the whole `ParameterDescription` and what follows it.
    pub fn of(parameters: u128, columns: &[u8]) -> Self {
        Self {
            parameters,
            columns: Columns::of(columns),
        }
    }

    /// The first half of [`Self::of`].
    pub fn parameters(frame: &[u8]) -> u128 {
        let mut hasher = SipHasher24::new();
        hasher.write(frame);
        hasher.finish128().as_u128()
    }

    /// Of a statement without columns, and with parameters of the types `oids`, four bytes each.
    pub fn without_columns(oids: &[u8]) -> Self {
        let count = u16::try_from(oids.len() / 4).unwrap_or(u16::MAX);
        let len = u32::try_from(oids.len() + 6).unwrap_or(u32::MAX);
        let frame = [b"t", &len.to_be_bytes()[..], &count.to_be_bytes(), oids].concat();
        Self::of(Self::parameters(&frame), b"n\0\0\0\x04")
    }

    /// The columns.
    pub fn columns(&self) -> Columns {
        self.columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(columns: &[(&str, u8, u8, u8)]) -> Columns {
        let mut frame = b"T\0\0\0\0\0\0".to_vec();
        for (name, relation, kind, format) in columns {
            frame.extend(name.as_bytes());
            frame.extend([
                0, 0, 0, 0, *relation, 0, 1, 0, 0, 0, *kind, 0, 4, 255, 255, 255, 255, 0, *format,
            ]);
        }
        Columns::of(&frame)
    }

    #[test]
    fn columns_are_told_by_name_and_type() {
        let columns = described(&[("a", 1, 23, 0), ("b", 1, 25, 0)]);
        assert_eq!(columns, described(&[("a", 2, 23, 1), ("b", 3, 25, 1)]));
        for other in [
            described(&[("a", 1, 23, 0)]),
            described(&[("a", 1, 20, 0), ("b", 1, 25, 0)]),
            described(&[("b", 1, 23, 0), ("a", 1, 25, 0)]),
            described(&[]),
            Columns::of(b"n\0\0\0\x04"),
        ] {
            assert_ne!(columns, other);
        }
        assert_eq!(Columns::of(b"T\0\0\0\x09\0\x01a\0\0"), Columns::UNSEEN);
    }
}
