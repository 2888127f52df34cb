//! What may be written for a setting: in words for people, and as text of the file.

use std::fmt;
use std::time::Duration;

use super::schema::Schema;
use crate::types::{ByteSize, HumanDuration};

/// What may be written for a setting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Free text.
    Text,
    /// One of some words, each with what it means.
    Choice(&'static [(&'static str, &'static str)]),
    /// A whole number.
    Count,
    /// `true` or `false`.
    Flag,
    /// A number with a unit of time.
    Duration,
    /// A number with a unit of memory.
    Size,
    /// `host:port`, or the directory of a Unix socket.
    Address,
    /// `host:port`.
    TcpAddress,
    /// A list of texts.
    Texts,
    /// A list of networks.
    Networks,
    /// A list of addresses.
    Addresses,
    /// The path of a PEM file.
    Pem,
    /// A reference to a secret.
    Secret,
    /// A user's password.
    Password,
    /// The name of a section declared elsewhere in the file, e.g. of a `backend`.
    Reference(&'static str),
    /// A section of its own.
    Table(&'static Schema),
    /// Any number of sections, each with a name of its own.
    Named(&'static Schema),
}

impl Kind {
    /// The section that it is, if it is one.
    pub(super) fn section(self) -> Option<&'static Schema> {
        match self {
            Self::Table(schema) | Self::Named(schema) => Some(schema),
            Self::Text | Self::Choice(_) | Self::Count | Self::Flag | Self::Duration | Self::Size => None,
            Self::Address | Self::TcpAddress | Self::Texts | Self::Addresses | Self::Pem | Self::Secret => {
                None
            }
            Self::Password | Self::Reference(_) | Self::Networks => None,
        }
    }

    /// Whether it is any number of sections with names of their own.
    pub(super) fn is_named(self) -> bool {
        matches!(self, Self::Named(_))
    }

    /// `text`, as it is written in the file.
    pub(super) fn written(self, text: &str) -> String {
        match self {
            Self::Count | Self::Flag | Self::Texts | Self::Addresses | Self::Networks => text.to_owned(),
            Self::Secret | Self::Password => text.to_owned(),
            Self::Table(_) | Self::Named(_) => text.to_owned(),
            Self::Text | Self::Choice(_) | Self::Duration | Self::Size => format!("\"{text}\""),
            Self::Address | Self::TcpAddress | Self::Pem | Self::Reference(_) => format!("\"{text}\""),
        }
    }

    /// An amount in this kind's unit: milliseconds, bytes, or units.
    pub(super) fn amount(self, amount: u64) -> String {
        match self {
            Self::Duration => HumanDuration(Duration::from_millis(amount)).to_string(),
            Self::Size => ByteSize(amount).to_string(),
            Self::Count | Self::Text | Self::Choice(_) | Self::Flag | Self::Texts => amount.to_string(),
            Self::Address | Self::TcpAddress | Self::Addresses | Self::Pem | Self::Secret => {
                amount.to_string()
            }
            Self::Password | Self::Reference(_) | Self::Table(_) | Self::Named(_) => amount.to_string(),
            Self::Networks => amount.to_string(),
        }
    }
}

/// What is expected, as the end of "expects …".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Choice(words) => {
                f.write_str("one of ")?;
                for (index, (word, _)) in words.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}\"{word}\"")?;
                }
                Ok(())
            }
            Self::Count => f.write_str("a whole number"),
            Self::Flag => f.write_str("true or false"),
            Self::Duration => f.write_str("a duration such as \"30s\""),
            Self::Size => f.write_str("a size such as \"8MiB\""),
            Self::Address => f.write_str(
                "an address such as \"127.0.0.1:5432\", or the absolute path of a Unix socket's directory",
            ),
            Self::TcpAddress => f.write_str("a TCP address such as \"127.0.0.1:5439\""),
            Self::Texts => f.write_str("a list of texts such as [\"dev\"]"),
            Self::Networks => f.write_str("a list of networks such as [\"10.0.0.0/8\", \"::1\"]"),
            Self::Addresses => f.write_str("a list of addresses such as [\"127.0.0.1:5432\"]"),
            Self::Pem => f.write_str("the path of a PEM file"),
            Self::Secret => {
                f.write_str("{ file = \"…\" }, { env = \"…\" } or { command = \"…\", refresh = \"10min\" }")
            }
            Self::Password => {
                f.write_str("a SCRAM verifier, an MD5 hash, a digest, { file = \"…\" } or { env = \"…\" }")
            }
            Self::Reference(section) => write!(f, "the name of a {section}"),
            Self::Table(_) => f.write_str("a section"),
            Self::Named(_) => f.write_str("named sections"),
        }
    }
}
