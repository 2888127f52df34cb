//! Errors that a client may read.
//!
//! Implementing [`ClientError`] is the allow-list: nothing else is ever sent to a client. Messages follow
//! PostgreSQL's style guide (<https://www.postgresql.org/docs/current/error-style-guide.html>): the primary
//! message is short, lower-case and has no full stop; detail and hint are whole sentences.

mod sqlstate;

pub use sqlstate::SqlState;

/// How bad an error is for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session ends.
    Fatal,
    /// Not an error: a message beside the results.
    Notice,
}

impl Severity {
    /// The word in field `S` and `V` of an `ErrorResponse`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Notice => "NOTICE",
        }
    }
}

/// An error whose text may be shown to a client. `Display` is the primary message.
pub trait ClientError: std::error::Error + Send + Sync + 'static {
    /// The SQLSTATE; every error names its own.
    fn sqlstate(&self) -> SqlState;

    /// The function of the server's that reports this error (field `R`), where clients go by it.
    fn routine(&self) -> Option<&'static str> {
        None
    }

    /// Whether the session survives.
    fn severity(&self) -> Severity {
        Severity::Error
    }

    /// What happened, in whole sentences.
    fn detail(&self) -> Option<String> {
        None
    }

    /// What to do about it, in whole sentences.
    fn hint(&self) -> Option<String> {
        None
    }
}
