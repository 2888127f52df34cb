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
use crate::auth::{AuthError, Client, Exchange, Progress, Proven, common_name, method};
use crate::pipeline::{ALPN, Gateway, ListenTls, Realm};
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

/// What a client's certificate says about the user that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientCertificate {
    /// The user needs none.
    Unneeded,
    /// It is that user's.
    Right,
    /// It is somebody else's.
    Wrong,
    /// None was shown.
    Missing,
}

/// A client that is logging in.
pub(super) struct Door {
    pub(super) stream: ClientStream,
    pub(super) inbox: BytesMut,
    pub(super) outbox: BytesMut,
    /// What the TLS handshake was made with.
    tls: Option<Arc<ListenTls>>,
}

impl Door {
    /// In front of a socket that was just accepted.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: ClientStream::Plain(stream),
            inbox: BytesMut::with_capacity(1024),
            outbox: BytesMut::new(),
            tls: None,
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
        match self.begins_with_tls().await {
            Ok(true) if realm.tls.is_some() => {
                asked_tls = true;
                self = self.shake_hands(realm).await?;
                if !self.stream.agreed_on(ALPN) {
                    return Err((self, LoginError::NoAlpn));
                }
            }
            // without TLS it is a start-up packet of a length that none has
            Ok(_) => {}
            Err(error) => return Err((self, error)),
        }
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

    /// Whether the client does not ask for TLS but begins with it (`sslnegotiation=direct`). A start-up packet begins with
    /// its length, which is short enough for a first byte of 0.
    async fn begins_with_tls(&self) -> Result<bool, LoginError> {
        const HANDSHAKE: u8 = 0x16;
        let mut first = [0];
        match &self.stream {
            ClientStream::Plain(stream) => Ok(stream.peek(&mut first).await? == 1 && first == [HANDSHAKE]),
            ClientStream::Tls(_) => Ok(false),
        }
    }

    async fn answer_tls(mut self, realm: &Realm) -> Result<Self, (Self, LoginError)> {
        if realm.tls.is_none() || self.stream.tls() {
            self.outbox.extend_from_slice(b"N");
            return match self.flush().await {
                Ok(()) => Ok(self),
                Err(error) => Err((self, error.into())),
            };
        }
        // what came with the request in clear must not be taken for what TLS protects (CVE-2021-23214)
        if !self.inbox.is_empty() {
            return Err((self, LoginError::PlaintextAfterSslRequest));
        }
        self.outbox.extend_from_slice(b"S");
        if let Err(error) = self.flush().await {
            return Err((self, error.into()));
        }
        self.shake_hands(realm).await
    }

    /// The TLS handshake; nothing where there is no TLS, or where there is TLS already.
    async fn shake_hands(self, realm: &Realm) -> Result<Self, (Self, LoginError)> {
        let Self {
            stream,
            inbox,
            outbox,
            tls: before,
        } = self;
        let (stream, tls) = match (stream, &realm.tls) {
            (ClientStream::Plain(stream), Some(tls)) => (stream, Arc::clone(tls)),
            (stream, _) => {
                return Ok(Self {
                    stream,
                    inbox,
                    outbox,
                    tls: before,
                });
            }
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(Self {
                stream: ClientStream::Tls(Box::new(stream)),
                inbox,
                outbox,
                tls: Some(tls),
            }),
            Err((error, stream)) => Err((
                Self {
                    stream: ClientStream::Plain(stream),
                    inbox,
                    outbox,
                    tls: before,
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
        // who may not come from there anyway must not be able to lock the user out
        let charged = realm.allows(user, address).then_some(user);
        let has_password = realm
            .users
            .get(user)
            .is_none_or(|member| member.credential.is_some());
        let credential = realm.credential(user);
        let client = Client {
            amazon_driver: request.amazon_driver,
            tls: self.stream.tls(),
            binding: self.tls.as_ref().and_then(|tls| tls.end_point.clone()),
        };
        let certificate = self.certificate(&realm, user);
        match certificate {
            ClientCertificate::Right if !has_password => {
                return Ok(Proven {
                    method: "certificate",
                    secret: None,
                });
            }
            // who shows one that the authorities signed learns more than a stranger
            ClientCertificate::Wrong => {
                attempts.failed(address, charged, allowance, Instant::now());
                return Err(LoginError::Certificate(user.to_owned()));
            }
            ClientCertificate::Unneeded | ClientCertificate::Right | ClientCertificate::Missing => {}
        }
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
                Ok(Progress::Done(_)) if certificate == ClientCertificate::Missing => {
                    return Err(LoginError::Certificate(user.to_owned()));
                }
                Ok(Progress::Done(proven)) => return Ok(proven),
                Err(error) => {
                    if matches!(error, AuthError::WrongPassword(_)) {
                        attempts.failed(address, charged, allowance, Instant::now());
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Whether the client showed the certificate that `user` needs.
    fn certificate(&self, realm: &Realm, user: &str) -> ClientCertificate {
        let member = realm.users.get(user);
        let Some(needed) = member.and_then(|member| member.certificate.as_deref()) else {
            return ClientCertificate::Unneeded;
        };
        match self.stream.certificate() {
            None => ClientCertificate::Missing,
            Some(shown) if common_name(shown).as_deref() == Some(needed) => ClientCertificate::Right,
            Some(_) => ClientCertificate::Wrong,
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
