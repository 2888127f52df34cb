//! Why a backend cannot serve.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::command_password::CommandError;
use super::replies::Unexpected;
use crate::auth::BackendLoginError;
use crate::error::{ClientError, SqlState};
use crate::wire::WireError;

/// Why a backend connection could not be opened, or had to be closed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The address does not resolve, or nobody answers there.
    #[error("could not connect to the backend at {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("the backend did not finish the login within {0:?}")]
    Slow(Duration),
    /// The server has no TLS.
    #[error("the backend at {0} does not support TLS")]
    NoTls(String),
    /// The handshake failed.
    #[error("the TLS handshake with the backend at {address} failed")]
    Tls {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server refused the login, or said something fatal.
    #[error("{message}")]
    Refused {
        /// Its SQLSTATE.
        code: String,
        /// Its message.
        message: String,
        /// The whole `ErrorResponse`.
        frame: Bytes,
    },
    /// The command that prints the password has not succeeded yet.
    #[error("the gateway has no password for the backend")]
    Password(#[source] CommandError),
    /// The server follows another one.
    #[error("the server at {0} is a standby and takes no writes")]
    Standby(String),
    /// The login could not be answered.
    #[error("the gateway could not log in at the backend")]
    Login(#[from] BackendLoginError),
    /// What came is not the protocol.
    #[error("the backend sent something that is not the protocol")]
    Wire(#[from] WireError),
    /// A reply that nothing asked for.
    #[error("the backend answered out of order")]
    Unexpected(#[from] Unexpected),
    /// The connection is gone.
    #[error("server closed the connection unexpectedly")]
    Closed,
    /// The connection broke.
    #[error("the connection to the backend was lost")]
    Lost(#[source] io::Error),
}

impl ClientError for BackendError {
    fn sqlstate(&self) -> SqlState {
        match self {
            // classes 53 and 57 tell a client to try again later
            Self::Refused { code, .. } if code.starts_with("53") => SqlState::TOO_MANY_CONNECTIONS,
            Self::Refused { code, .. } if code.starts_with("57P03") => SqlState::CANNOT_CONNECT_NOW,
            Self::Refused { code, .. } if code == "3D000" => SqlState::INVALID_CATALOG_NAME,
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Slow(_)
            | Self::NoTls(_)
            | Self::Tls { .. }
            | Self::Standby(_)
            | Self::Login(_)
            | Self::Password(_)
            | Self::Wire(_)
            | Self::Unexpected(_)
            | Self::Closed
            | Self::Lost(_) => SqlState::CONNECTION_FAILURE,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Unreachable { source, .. } | Self::Tls { source, .. } | Self::Lost(source) => {
                Some(format!("{source}."))
            }
            Self::Login(error) => Some(format!("{error}.")),
            Self::Wire(error) => Some(format!("{error}.")),
            Self::Unexpected(error) => Some(format!("{error}.")),
            Self::Refused { .. } => Some("The backend refused the gateway's own login.".to_owned()),
            // what became of the command is for the log
            Self::Slow(_) | Self::NoTls(_) | Self::Standby(_) | Self::Closed | Self::Password(_) => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } | Self::Slow(_) => Some("Is the warehouse running?".to_owned()),
            Self::NoTls(_) | Self::Tls { .. } | Self::Login(_) => Some(
                "The administrator of the gateway should look at \"tls\" and \"login\" of its configuration."
                    .to_owned(),
            ),
            Self::Password(_) => Some(
                "The administrator of the gateway should look for \"password command failed\" in its log."
                    .to_owned(),
            ),
            Self::Standby(_) => {
                Some("Has the primary failed, and no other server been promoted yet?".to_owned())
            }
            Self::Refused { .. } | Self::Wire(_) | Self::Unexpected(_) | Self::Closed | Self::Lost(_) => None,
        }
    }
}
