//! Messages of a server, and what they hold.

use std::fmt;

/// One message of the server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The fields of an `ErrorResponse` or `NoticeResponse`, by letter.
    pub(crate) fn fields(&self) -> Vec<(char, String)> {
        self.body
            .split(|byte| *byte == 0)
            .filter_map(|field| {
                let (letter, text) = field.split_first()?;
                Some((char::from(*letter), String::from_utf8_lossy(text).into_owned()))
            })
            .collect()
    }

    /// The field `letter` of an `ErrorResponse` or `NoticeResponse`; empty if it is not there.
    pub(crate) fn field(&self, letter: char) -> String {
        self.fields()
            .into_iter()
            .find_map(|(found, text)| (found == letter).then_some(text))
            .unwrap_or_default()
    }

    /// The columns of a `DataRow`.
    pub(crate) fn columns(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = &self.body[2..];
        let count = u16::from_be_bytes([self.body[0], self.body[1]]);
        (0..count)
            .map(|_| {
                let (length, tail) = rest.split_at(4);
                let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
                rest = tail;
                let length = usize::try_from(length).ok()?;
                let (value, tail) = rest.split_at(length);
                rest = tail;
                Some(value.to_vec())
            })
            .collect()
    }

    /// The texts of the message, each of which ends with a zero byte.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.body
            .split(|byte| *byte == 0)
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", char::from(self.tag), self.body.escape_ascii())
    }
}

/// What a server answered up to some message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply(pub(crate) Vec<Message>);

impl Reply {
    /// The messages' letters.
    pub(crate) fn tags(&self) -> String {
        self.0.iter().map(|message| char::from(message.tag)).collect()
    }

    /// The rows as text, NULL as `None`.
    pub(crate) fn rows(&self) -> Vec<Vec<Option<String>>> {
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        self.0
            .iter()
            .filter(|message| message.tag == b'D')
            .map(|row| row.columns().into_iter().map(|value| value.map(text)).collect())
            .collect()
    }

    /// The only value of the only row.
    pub(crate) fn value(&self) -> String {
        let rows = self.rows();
        match rows.as_slice() {
            [row] if row.len() == 1 => row[0].clone().unwrap_or_else(|| "NULL".to_owned()),
            _ => panic!("not one value: {self:?}"),
        }
    }

    /// The first error.
    pub(crate) fn error(&self) -> Option<&Message> {
        self.0.iter().find(|message| message.tag == b'E')
    }

    /// The first error's SQLSTATE; empty if there is none.
    pub(crate) fn sqlstate(&self) -> String {
        self.error().map(|error| error.field('C')).unwrap_or_default()
    }

    /// The command tags of all CommandComplete.
    pub(crate) fn completions(&self) -> Vec<String> {
        self.0
            .iter()
            .filter(|message| message.tag == b'C')
            .map(|message| message.texts().swap_remove(0))
            .collect()
    }

    /// The transaction status of the last ReadyForQuery.
    pub(crate) fn status(&self) -> char {
        self.0
            .iter()
            .rev()
            .find(|message| message.tag == b'Z')
            .and_then(|message| message.body.first())
            .map_or('-', |status| char::from(*status))
    }
}
