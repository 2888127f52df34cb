//! From the first byte to the greeting: TLS, start-up packet, password.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::attempts::{Allowance, Attempts};
use super::error::LoginError;
use super::stream::ClientStream;
use crate::auth::{AuthError, Client, Exchange, Progress, Proven, method};
use crate::pipeline::{Gateway, Realm};
use crate::session::StartupRequest;
use crate::wire::{self, CancelKey, Initial, WireError};

/// The longest message of a client that is not logged in.
const MAX_MESSAGE: usize = 64 * 1024;

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
        attempts: &Attempts,
        address: IpAddr,
    ) -> Result<Proven, LoginError> {
        let realm = gateway.realm();
        let user = request.user.as_str();
        let allowance = Allowance {
            per_address: realm.config.listen.failed_logins_per_address,
            per_user: realm.config.listen.failed_logins_per_user,
        };
        let check = || {
            let checked = attempts.check(address, user, allowance, Instant::now());
            checked.map_err(|barred| LoginError::barred(barred, user))
        };
        check()?;
        if let Some(options) = &request.negotiate {
            wire::negotiate_protocol_version(request.minor, options.clone(), &mut self.outbox);
        }
        let credential = realm.credential(user);
        let client = Client {
            amazon_driver: request.amazon_driver,
            tls: self.stream.tls(),
            binding: None,
        };
        let method = method(credential.form(), &client, user)?;
        let mut exchange = Exchange::begin(user, credential, method, client.binding, &mut self.outbox);
        loop {
            self.flush().await?;
            let frame = self.answer(exchange.tag()).await?;
            if exchange.decides() {
                // again: many at once must not get more guesses than one after the other
                check()?;
            }
            match exchange.next(&frame, &mut self.outbox) {
                Ok(Progress::Goes(next)) => exchange = *next,
                Ok(Progress::Done(proven)) => return Ok(proven),
                Err(error) => {
                    if matches!(error, AuthError::WrongPassword(_)) {
                        // who may not come from there anyway must not be able to lock the user out
                        let user = realm.allows(user, address).then_some(user);
                        attempts.failed(address, user, allowance, Instant::now());
                    }
                    return Err(error.into());
                }
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
