//! Why a client does not get in, and what it is told.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::attempts::Barred;
use super::places::Full;
use crate::auth::AuthError;
use crate::error::{ClientError, Severity, SqlState};
use crate::session::StartupError;
use crate::telemetry::LoginOutcome;
use crate::wire::{self, WireError};

/// Why a client does not get in.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Startup(#[from] StartupError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("received unencrypted data after SSL request")]
    PlaintextAfterSslRequest,
    #[error("received direct TLS connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    #[error("certificate authentication failed for user \"{0}\"")]
    Certificate(String),
    #[error("connection requires TLS")]
    TlsRequired,
    #[error("too many failed logins from this address")]
    AddressBarred(Duration),
    #[error("too many failed logins of user \"{user}\"")]
    UserBarred { user: String, wait: Duration },
    #[error("user \"{user}\" may not log in from address {address}")]
    Address { user: String, address: IpAddr },
    #[error("sorry, too many clients already")]
    Full(Full),
    #[error("canceling authentication due to timeout")]
    Timeout,
    #[error("the gateway is shutting down")]
    Draining,
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    #[error("user \"{0}\" belongs to no team")]
    NoTeam(String),
    #[error("permission denied for database \"tollgate\"")]
    NotAdmin,
    /// By the backend, in its own words, which are in `frame`.
    #[error("{message}")]
    Refused {
        code: SqlState,
        message: String,
        frame: Bytes,
    },
    #[error(transparent)]
    Backend(#[from] crate::pipeline::ServeError),
    /// The client is gone; there is nobody to tell.
    #[error("the client went away")]
    Gone(#[from] std::io::Error),
}

impl ClientError for LoginError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Wire(_) | Self::PlaintextAfterSslRequest | Self::NoAlpn | Self::Gone(_) => {
                SqlState::PROTOCOL_VIOLATION
            }
            Self::Startup(error) => error.sqlstate(),
            Self::Auth(error) => error.sqlstate(),
            Self::TlsRequired
            | Self::Certificate(_)
            | Self::NoTeam(_)
            | Self::AddressBarred(_)
            | Self::UserBarred { .. }
            | Self::Address { .. } => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::Full(_) => SqlState::TOO_MANY_CONNECTIONS,
            Self::Timeout => SqlState::QUERY_CANCELED,
            Self::Draining => SqlState::CANNOT_CONNECT_NOW,
            Self::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::NotAdmin => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::Refused { code, .. } => *code,
            Self::Backend(error) => error.sqlstate(),
        }
    }

    fn severity(&self) -> Severity {
        Severity::Fatal
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Full(Full::Total(max)) => Some(format!("The limit is {max} connections.")),
            Self::Full(Full::Address(max)) => Some(format!("The limit is {max} connections from one address.")),
            Self::Backend(error) => error.detail(),
            Self::PlaintextAfterSslRequest => {
                Some("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.".to_owned())
            }
            Self::Wire(_)
            | Self::Startup(_)
            | Self::Auth(_)
            | Self::NoAlpn
            | Self::Certificate(_)
            | Self::TlsRequired
            | Self::AddressBarred(_)
            | Self::UserBarred { .. }
            | Self::Address { .. }
            | Self::Timeout
            | Self::Draining
            | Self::NoDatabase(_)
            | Self::NoTeam(_)
            | Self::NotAdmin
            | Self::Refused { .. }
            | Self::Gone(_) => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Startup(error) => error.hint(),
            Self::Auth(error) => error.hint(),
            Self::Backend(error) => error.hint(),
            Self::Certificate(_) => Some(
                "Connect with TLS and the certificate that the gateway's configuration names for this user.".to_owned(),
            ),
            Self::TlsRequired => Some("Connect with sslmode=require or stronger.".to_owned()),
            Self::NoTeam(_) => Some("An administrator's console is the database \"tollgate\".".to_owned()),
            Self::AddressBarred(wait) | Self::UserBarred { wait, .. } => {
                let seconds = wait.as_secs_f64().ceil();
                Some(format!("Try again in {seconds} s. Does something try an old password again and again?"))
            }
            Self::Address { .. } => Some(
                "Connect from a network that \"allow\" of the user and of its team lists, or let the administrator \
                 add this one."
                    .to_owned(),
            ),
            Self::NotAdmin => Some("Only users with \"admin = true\" may use the console.".to_owned()),
            Self::Full(_) => Some("Close connections that are not used, or share them in a pool.".to_owned()),
            Self::Wire(_)
            | Self::PlaintextAfterSslRequest
            | Self::NoAlpn
            | Self::Timeout
            | Self::Draining
            | Self::NoDatabase(_)
            | Self::Refused { .. }
            | Self::Gone(_) => None,
        }
    }
}

impl LoginError {
    /// For a login of `user` that may not even be tried.
    pub(super) fn barred(barred: Barred, user: &str) -> Self {
        match barred {
            Barred::Address(wait) => Self::AddressBarred(wait),
            Barred::User(wait) => Self::UserBarred {
                user: user.to_owned(),
                wait,
            },
        }
    }

    /// Appends what the client is told.
    pub(super) fn tell(&self, out: &mut BytesMut) {
        if let Self::Refused { frame, .. } = self {
            wire::with_severity(frame, Severity::Fatal.as_str(), out);
        } else {
            wire::error_response(self, out);
        }
    }

    /// What to count it as.
    pub(super) fn outcome(&self) -> LoginOutcome {
        match self {
            Self::Wire(_)
            | Self::Startup(_)
            | Self::PlaintextAfterSslRequest
            | Self::NoAlpn
            | Self::Gone(_) => LoginOutcome::Protocol,
            Self::Auth(AuthError::WrongPassword(_)) => LoginOutcome::WrongPassword,
            Self::Auth(AuthError::Protocol(_)) => LoginOutcome::Protocol,
            Self::Auth(AuthError::NeedsTls(_))
            | Self::TlsRequired
            | Self::Certificate(_)
            | Self::Address { .. }
            | Self::NoDatabase(_)
            | Self::NoTeam(_)
            | Self::Refused { .. }
            | Self::NotAdmin => LoginOutcome::NotAllowed,
            Self::AddressBarred(_) | Self::UserBarred { .. } => LoginOutcome::Barred,
            Self::Full(_) => LoginOutcome::Limit,
            Self::Timeout => LoginOutcome::Timeout,
            Self::Draining | Self::Backend(_) => LoginOutcome::Unavailable,
        }
    }
}
