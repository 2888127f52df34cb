//! Why a request could not be served.

use super::no_connection::NoConnection;
use super::sessions::IdleTooLong;
use crate::backend::BackendError;
use crate::error::{ClientError, Severity, SqlState};
use crate::quota::{QueryTimeExceeded, QuotaRefusal};
use crate::wire::WireError;

/// Why a request could not be served, or a session has to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A quota refused.
    #[error(transparent)]
    Quota(#[from] QuotaRefusal),
    /// It ran for longer than its team's queries may.
    #[error(transparent)]
    Time(#[from] QueryTimeExceeded),
    /// No connection became free, or none could be opened.
    #[error(transparent)]
    NoConnection(#[from] NoConnection),
    /// The backend cannot be reached, and nothing was sent.
    #[error(transparent)]
    Unavailable(BackendError),
    /// The connection to the backend was lost while a request was under way.
    #[error(transparent)]
    Lost(BackendError),
    /// The user cancelled before the backend was asked.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// What the client sent is not the protocol.
    #[error(transparent)]
    Protocol(#[from] WireError),
    /// The client sent what cannot be where it is, and what follows cannot be told apart from it.
    #[error("terminating connection because protocol synchronization was lost")]
    OutOfStep,
    /// The administrator ends the session, or the gateway stops.
    #[error("terminating connection due to administrator command")]
    Shutdown,
    /// A statement of the gateway's own in a transaction that has failed.
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    FailedTransaction,
    /// A statement of the gateway's own among others.
    #[error("{0} must be sent by itself")]
    NotAlone(&'static str),
    /// Something that the gateway does not do.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// A value that a setting of the gateway does not take.
    #[error("invalid value for parameter \"{name}\": \"{value}\"")]
    Value {
        /// The setting.
        name: String,
        /// The value.
        value: String,
    },
    /// The client asked for nothing for too long.
    #[error(transparent)]
    Idle(#[from] IdleTooLong),
    /// A setting of the gateway that does not exist.
    #[error("unrecognized configuration parameter \"{0}\"")]
    Setting(String),
    /// The prepared statement is not known; its name, empty for the unnamed one.
    #[error("{}", undefined(.0))]
    UndefinedStatement(String),
    /// The portal was run to its end before; its name.
    #[error("portal \"{0}\" cannot be run")]
    PortalDone(String),
    /// A prepared statement has other columns or parameters than the client was told.
    #[error("cached plan must not change result type")]
    PlanChanged,
    /// What a sequence gave last, asked on a connection where another session may have taken it.
    #[error("currval and lastval are not supported on connections that sessions share")]
    NumberOfSequence,
    /// The session has prepared as many statements as it may.
    #[error("too many prepared statements in one session")]
    TooManyStatements,
    /// The gateway's own statements have such names.
    #[error("prepared statement name \"{0}\" is reserved")]
    ReservedName(String),
    /// The portal is not known; its name.
    #[error("portal \"{0}\" does not exist")]
    UndefinedPortal(String),
    /// A session of another user is to be cancelled or ended.
    #[error("must be a member of the role whose {0} or member of pg_signal_backend")]
    NotYours(&'static str),
    /// What cannot be: a mistake of the gateway's own.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl ClientError for ServeError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Quota(error) => error.sqlstate(),
            Self::Time(error) => error.sqlstate(),
            Self::NoConnection(error) => error.sqlstate(),
            Self::Unavailable(error) | Self::Lost(error) => error.sqlstate(),
            Self::Cancelled => SqlState::QUERY_CANCELED,
            Self::Protocol(_) | Self::OutOfStep => SqlState::PROTOCOL_VIOLATION,
            Self::Shutdown => SqlState::ADMIN_SHUTDOWN,
            Self::Idle(IdleTooLong::Session) => SqlState::IDLE_SESSION_TIMEOUT,
            Self::Idle(IdleTooLong::Transaction) => SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            Self::FailedTransaction => SqlState::IN_FAILED_SQL_TRANSACTION,
            Self::NotAlone(_) | Self::Unsupported(_) | Self::NumberOfSequence | Self::PlanChanged => {
                SqlState::FEATURE_NOT_SUPPORTED
            }
            Self::Value { .. } => SqlState::INVALID_PARAMETER_VALUE,
            Self::Setting(_) => SqlState::UNDEFINED_OBJECT,
            Self::UndefinedStatement(_) => SqlState::INVALID_SQL_STATEMENT_NAME,
            Self::TooManyStatements => SqlState::PROGRAM_LIMIT_EXCEEDED,
            Self::ReservedName(_) => SqlState::RESERVED_NAME,
            Self::UndefinedPortal(_) => SqlState::INVALID_CURSOR_NAME,
            Self::PortalDone(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::NotYours(_) => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::Internal(_) => SqlState::INTERNAL_ERROR,
        }
    }

    fn routine(&self) -> Option<&'static str> {
        // drivers prepare again when they see it
        matches!(self, Self::PlanChanged).then_some("RevalidateCachedQuery")
    }

    fn severity(&self) -> Severity {
        match self {
            // its length is sound, so what is behind it can be read
            Self::Protocol(WireError::Malformed(_)) => Severity::Error,
            Self::Lost(_) | Self::Protocol(_) | Self::OutOfStep | Self::Shutdown | Self::Idle(_) => {
                Severity::Fatal
            }
            Self::Quota(_)
            | Self::Time(_)
            | Self::NoConnection(_)
            | Self::Unavailable(_)
            | Self::Cancelled
            | Self::FailedTransaction
            | Self::NotAlone(_)
            | Self::Unsupported(_)
            | Self::Value { .. }
            | Self::Setting(_)
            | Self::UndefinedStatement(_)
            | Self::PlanChanged
            | Self::PortalDone(_)
            | Self::NumberOfSequence
            | Self::TooManyStatements
            | Self::ReservedName(_)
            | Self::UndefinedPortal(_)
            | Self::NotYours(_)
            | Self::Internal(_) => Severity::Error,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::NumberOfSequence => Some(
                "The number may have been taken by another session: this one has not kept its connection since it took \
                 one."
                    .to_owned(),
            ),
            Self::Quota(error) => error.detail(),
            Self::Time(error) => error.detail(),
            Self::NoConnection(error) => error.detail(),
            Self::Unavailable(error) | Self::Lost(error) => error.detail(),
            Self::Cancelled
            | Self::Protocol(_)
            | Self::OutOfStep
            | Self::Shutdown
            | Self::Idle(_)
            | Self::FailedTransaction
            | Self::NotAlone(_)
            | Self::Unsupported(_)
            | Self::Value { .. }
            | Self::Setting(_)
            | Self::UndefinedStatement(_)
            | Self::PlanChanged
            | Self::PortalDone(_)
            | Self::TooManyStatements
            | Self::ReservedName(_)
            | Self::UndefinedPortal(_)
            | Self::NotYours(_)
            | Self::Internal(_) => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NumberOfSequence => Some(
                "Use INSERT … RETURNING, ask in the same transaction, or let the administrator set \"pooling\" of the team \
                 to \"session\"."
                    .to_owned(),
            ),
            Self::Quota(error) => error.hint(),
            Self::Time(error) => error.hint(),
            Self::Unavailable(error) | Self::Lost(error) => error.hint(),
            Self::NoConnection(error) => error.hint(),
            Self::NotAlone(_) => Some("Send it as a statement of its own, outside of a pipeline.".to_owned()),
            Self::TooManyStatements => Some(
                "Close the prepared statements that are not needed any more, or use the unnamed one."
                    .to_owned(),
            ),
            Self::ReservedName(_) => Some("Names of the gateway's own begin with \"tollgate_\": take another one.".to_owned()),
            Self::Value { .. } => Some("Available values: on, off.".to_owned()),
            Self::Setting(_) => {
                Some("The gateway's own settings are tollgate.cache and tollgate.last.".to_owned())
            }
            Self::NotYours(_) => Some(
                "Sessions of the same user can be ended, and all of them by users with \"admin = true\"."
                    .to_owned(),
            ),
            Self::Cancelled
            | Self::Protocol(_)
            | Self::OutOfStep
            | Self::Shutdown
            | Self::Idle(_)
            | Self::FailedTransaction
            | Self::Unsupported(_)
            | Self::UndefinedStatement(_)
            | Self::PlanChanged
            | Self::PortalDone(_)
            | Self::UndefinedPortal(_)
            | Self::Internal(_) => None,
        }
    }
}

/// As PostgreSQL says it.
fn undefined(name: &str) -> String {
    if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    }
}
