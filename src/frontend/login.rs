//! From the first byte to the greeting: TLS, start-up packet, password.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::places::Full;
use super::stream::ClientStream;
use crate::auth::{AuthError, Client, Exchange, Progress, method};
use crate::error::{ClientError, Severity, SqlState};
use crate::pipeline::{Gateway, Realm};
use crate::session::{StartupError, StartupRequest};
use crate::telemetry::LoginOutcome;
use crate::wire::{self, CancelKey, Initial, WireError};

/// The longest message of a client that is not logged in.
const MAX_MESSAGE: usize = 64 * 1024;

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
    #[error("connection requires TLS")]
    TlsRequired,
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
    #[error("{message}")]
    Setting { code: SqlState, message: String },
    #[error(transparent)]
    Backend(#[from] crate::pipeline::ServeError),
    /// The client is gone; there is nobody to tell.
    #[error("the client went away")]
    Gone(#[from] std::io::Error),
}

impl ClientError for LoginError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Wire(_) | Self::PlaintextAfterSslRequest | Self::Gone(_) => SqlState::PROTOCOL_VIOLATION,
            Self::Startup(error) => error.sqlstate(),
            Self::Auth(error) => error.sqlstate(),
            Self::TlsRequired | Self::NoTeam(_) => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::Full(_) => SqlState::TOO_MANY_CONNECTIONS,
            Self::Timeout => SqlState::QUERY_CANCELED,
            Self::Draining => SqlState::CANNOT_CONNECT_NOW,
            Self::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::NotAdmin => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::Setting { code, .. } => *code,
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
            | Self::TlsRequired
            | Self::Timeout
            | Self::Draining
            | Self::NoDatabase(_)
            | Self::NoTeam(_)
            | Self::NotAdmin
            | Self::Setting { .. }
            | Self::Gone(_) => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Startup(error) => error.hint(),
            Self::Auth(error) => error.hint(),
            Self::Backend(error) => error.hint(),
            Self::TlsRequired => Some("Connect with sslmode=require or stronger.".to_owned()),
            Self::NoTeam(_) => Some("An administrator's console is the database \"tollgate\".".to_owned()),
            Self::NotAdmin => Some("Only users with \"admin = true\" may use the console.".to_owned()),
            Self::Full(_) => Some("Close connections that are not used, or share them in a pool.".to_owned()),
            Self::Wire(_)
            | Self::PlaintextAfterSslRequest
            | Self::Timeout
            | Self::Draining
            | Self::NoDatabase(_)
            | Self::Setting { .. }
            | Self::Gone(_) => None,
        }
    }
}

impl LoginError {
    /// What to count it as.
    pub(super) fn outcome(&self) -> LoginOutcome {
        match self {
            Self::Wire(_) | Self::Startup(_) | Self::PlaintextAfterSslRequest | Self::Gone(_) => {
                LoginOutcome::Protocol
            }
            Self::Auth(AuthError::WrongPassword(_)) => LoginOutcome::WrongPassword,
            Self::Auth(AuthError::Protocol(_)) => LoginOutcome::Protocol,
            Self::Auth(AuthError::NeedsTls(_))
            | Self::TlsRequired
            | Self::NoDatabase(_)
            | Self::NoTeam(_)
            | Self::Setting { .. }
            | Self::NotAdmin => LoginOutcome::NotAllowed,
            Self::Full(_) => LoginOutcome::Limit,
            Self::Timeout => LoginOutcome::Timeout,
            Self::Draining | Self::Backend(_) => LoginOutcome::Unavailable,
        }
    }
}

/// What a first packet leads to.
pub(super) enum Opening {
    /// A cancel request.
    Cancel(CancelKey),
    /// Somebody wants to log in.
    Startup(StartupRequest),
}

/// A client that is logging in.
pub(super) struct Door {
    pub(super) stream: ClientStream,
    pub(super) inbox: BytesMut,
    pub(super) outbox: BytesMut,
}

impl Door {
    /// In front of a socket that was just accepted.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: ClientStream::Plain(stream),
            inbox: BytesMut::with_capacity(1024),
            outbox: BytesMut::new(),
        }
    }

    /// Sends what waits.
    pub(super) async fn flush(&mut self) -> std::io::Result<()> {
        self.stream.write_all_buf(&mut self.outbox).await?;
        self.stream.flush().await
    }

    async fn receive(&mut self) -> Result<(), LoginError> {
        match self.stream.read_buf(&mut self.inbox).await? {
            0 => Err(LoginError::Gone(std::io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Up to and with the start-up packet. Each kind of encryption may be asked for once.
    pub(super) async fn open(mut self, realm: &Realm) -> Result<(Self, Opening), (Self, LoginError)> {
        let (mut asked_tls, mut asked_gss) = (false, false);
        loop {
            let (packet, len) = match wire::initial(&self.inbox) {
                Ok(Some(packet)) => packet,
                Ok(None) => match self.receive().await {
                    Ok(()) => continue,
                    Err(error) => return Err((self, error)),
                },
                Err(error) => return Err((self, error.into())),
            };
            self.inbox.advance(len);
            match packet {
                Initial::Cancel(key) => return Ok((self, Opening::Cancel(key))),
                Initial::Ssl if asked_tls => {
                    return Err((self, WireError::Malformed("startup packet").into()));
                }
                Initial::Ssl => {
                    asked_tls = true;
                    self = match self.answer_tls(realm).await {
                        Ok(door) => door,
                        Err(refused) => return Err(refused),
                    };
                }
                Initial::GssEncryption if asked_gss => {
                    return Err((self, WireError::Malformed("startup packet").into()));
                }
                Initial::GssEncryption => {
                    asked_gss = true;
                    self.outbox.extend_from_slice(b"N");
                    if let Err(error) = self.flush().await {
                        return Err((self, error.into()));
                    }
                }
                Initial::Startup(packet) => {
                    let required = realm.config.listen.tls.as_ref().is_some_and(|tls| tls.required);
                    if required && !self.stream.tls() {
                        return Err((self, LoginError::TlsRequired));
                    }
                    return match StartupRequest::read(&packet) {
                        Ok(request) => Ok((self, Opening::Startup(request))),
                        Err(error) => Err((self, error.into())),
                    };
                }
            }
        }
    }

    async fn answer_tls(mut self, realm: &Realm) -> Result<Self, (Self, LoginError)> {
        let (Some(tls), false) = (&realm.tls, self.stream.tls()) else {
            self.outbox.extend_from_slice(b"N");
            return match self.flush().await {
                Ok(()) => Ok(self),
                Err(error) => Err((self, error.into())),
            };
        };
        // what came with the request in clear must not be taken for what TLS protects (CVE-2021-23214)
        if !self.inbox.is_empty() {
            return Err((self, LoginError::PlaintextAfterSslRequest));
        }
        self.outbox.extend_from_slice(b"S");
        if let Err(error) = self.flush().await {
            return Err((self, error.into()));
        }
        let Self {
            stream,
            inbox,
            outbox,
        } = self;
        let stream = match stream {
            ClientStream::Plain(stream) => stream,
            ClientStream::Tls(_) => {
                return Ok(Self {
                    stream,
                    inbox,
                    outbox,
                });
            }
        };
        match TlsAcceptor::from(Arc::clone(tls))
            .accept(stream)
            .into_fallible()
            .await
        {
            Ok(stream) => Ok(Self {
                stream: ClientStream::Tls(Box::new(stream)),
                inbox,
                outbox,
            }),
            Err((error, stream)) => Err((
                Self {
                    stream: ClientStream::Plain(stream),
                    inbox,
                    outbox,
                },
                LoginError::Gone(error),
            )),
        }
    }

    /// Asks for the password and checks it.
    pub(super) async fn authenticate(
        &mut self,
        request: &StartupRequest,
        gateway: &Gateway,
    ) -> Result<(), LoginError> {
        if let Some(options) = &request.negotiate {
            wire::negotiate_protocol_version(request.minor, options.clone(), &mut self.outbox);
        }
        let credential = gateway.realm().credential(&request.user);
        let client = Client {
            amazon_driver: request.amazon_driver,
            tls: self.stream.tls(),
            binding: None,
        };
        let method = method(credential.form(), &client, &request.user)?;
        let mut exchange = Exchange::begin(
            &request.user,
            credential,
            method,
            client.binding,
            &mut self.outbox,
        );
        loop {
            self.flush().await?;
            let frame = self.answer(exchange.tag()).await?;
            match exchange.next(&frame, &mut self.outbox)? {
                Progress::Goes(next) => exchange = *next,
                Progress::Done(_) => return Ok(()),
            }
        }
    }

    /// The client's answer, a frame with `tag`.
    async fn answer(&mut self, tag: u8) -> Result<BytesMut, LoginError> {
        loop {
            match wire::header(&self.inbox, MAX_MESSAGE)? {
                Some(header) if header.tag != tag => return Err(WireError::UnknownTag(header.tag).into()),
                Some(header) if self.inbox.len() >= header.len => return Ok(self.inbox.split_to(header.len)),
                Some(_) | None => self.receive().await?,
            }
        }
    }
}

/// What a client that connects now has to be told, if it may not even try.
pub(super) fn refusal(address: SocketAddr, full: Full) -> LoginError {
    tracing::debug!(%address, "no place for another client");
    LoginError::Full(full)
}
