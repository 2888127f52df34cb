//! The server's side of a login: what to ask, and whether the answer is right.

use bytes::BytesMut;
use pgwire::messages::startup::Authentication;
use subtle::ConstantTimeEq;

use super::credential::{Credential, CredentialForm};
use super::keys::{BackendSecret, md5_answer};
use super::scram::{Challenged, PLUS, ScramError, Server};
use crate::error::{ClientError, Severity, SqlState};
use crate::wire::{self, WireError};

/// How a client is asked for its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// SCRAM-SHA-256.
    Scram,
    /// MD5.
    Md5,
    /// Redshift's digest by SHA-256.
    Digest,
    /// The password itself, only over TLS.
    Cleartext,
}

/// Why a login fails.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The user does not exist or the password is wrong; which of them is not told.
    #[error("password authentication failed for user \"{0}\"")]
    WrongPassword(String),
    /// The exchange is not the protocol.
    #[error("{0}")]
    Protocol(String),
    /// No TLS, and a password that is stored in a form that this client cannot log in with otherwise.
    #[error("this driver cannot log in as user \"{0}\" over an unencrypted connection")]
    NeedsTls(String),
}

impl ClientError for AuthError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::WrongPassword(_) => SqlState::INVALID_PASSWORD,
            Self::Protocol(_) => SqlState::PROTOCOL_VIOLATION,
            Self::NeedsTls(_) => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        }
    }

    fn severity(&self) -> Severity {
        Severity::Fatal
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NeedsTls(_) => Some(
                "Connect with TLS, or let the administrator store the password in a form that this driver can use."
                    .to_owned(),
            ),
            Self::WrongPassword(_) | Self::Protocol(_) => None,
        }
    }
}

impl From<WireError> for AuthError {
    fn from(error: WireError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// Who is at the other end of a login.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// One of Amazon's drivers: they stumble over SCRAM, and have a digest of their own.
    pub amazon_driver: bool,
    /// Whether TLS protects the connection.
    pub tls: bool,
    /// The hash of the certificate that it was shown, for channel binding.
    pub binding: Option<Vec<u8>>,
}

/// How to ask `user`: by the best method that the stored form and the client share. Amazon's drivers get their digest
/// where the form allows it, else MD5; the others SCRAM; else the password itself where TLS protects it.
///
/// # Errors
///
/// No TLS, and a form that allows nothing without.
pub fn method(form: CredentialForm, client: &Client, user: &str) -> Result<Method, AuthError> {
    match (client.amazon_driver, form) {
        (false, CredentialForm::Scram | CredentialForm::Plain) => Ok(Method::Scram),
        (true, CredentialForm::Digest | CredentialForm::Plain) => Ok(Method::Digest),
        (_, CredentialForm::Md5) => Ok(Method::Md5),
        (true, CredentialForm::Scram) | (false, CredentialForm::Digest) if client.tls => {
            Ok(Method::Cleartext)
        }
        (true, CredentialForm::Scram) | (false, CredentialForm::Digest) => {
            Err(AuthError::NeedsTls(user.to_owned()))
        }
    }
}

/// A login under way, named by what it expects next.
pub struct Exchange {
    user: String,
    credential: Credential,
    expects: Expects,
}

enum Expects {
    Password,
    Md5 { salt: [u8; 4] },
    Digest { nonce: Vec<u8> },
    ClientFirst(Server),
    ClientFinal { scram: Box<Challenged>, plus: bool },
}

/// What an answer of the client leads to.
pub enum Progress {
    /// Another answer is awaited.
    Goes(Box<Exchange>),
    /// The client is who it says.
    Done(Proven),
}

/// A login that succeeded.
pub struct Proven {
    /// By which method, in the word of the log.
    pub method: &'static str,
    /// What the same user's login at a backend can be made with.
    pub secret: Option<BackendSecret>,
}

impl Exchange {
    /// Begins: the request goes to `out`.
    pub fn begin(
        user: &str,
        credential: Credential,
        method: Method,
        binding: Option<Vec<u8>>,
        out: &mut BytesMut,
    ) -> Self {
        let expects = match method {
            Method::Cleartext => {
                wire::authentication(&Authentication::CleartextPassword, out);
                Expects::Password
            }
            Method::Md5 => {
                let salt: [u8; 4] = rand::random();
                wire::authentication(&Authentication::MD5Password(salt.to_vec()), out);
                Expects::Md5 { salt }
            }
            Method::Digest => {
                let nonce = rand::random::<u128>().to_string().into_bytes();
                let salt = credential.digest_key().map_or(&[][..], |key| &key.salt);
                wire::digest_request(salt, &nonce, out);
                Expects::Digest { nonce }
            }
            Method::Scram => {
                let server = Server::new(binding);
                wire::authentication(&Authentication::SASL(server.mechanisms()), out);
                Expects::ClientFirst(server)
            }
        };
        Self {
            user: user.to_owned(),
            credential,
            expects,
        }
    }

    /// The tag of the frame that the client answers with.
    pub fn tag(&self) -> u8 {
        match self.expects {
            Expects::Digest { .. } => b'd',
            Expects::Password | Expects::Md5 { .. } => b'p',
            Expects::ClientFirst(_) | Expects::ClientFinal { .. } => b'p',
        }
    }

    /// Whether the next answer of the client decides.
    pub fn decides(&self) -> bool {
        !matches!(self.expects, Expects::ClientFirst(_))
    }

    /// Takes the client's answer, a whole frame with the [`Self::tag`].
    ///
    /// # Errors
    ///
    /// A wrong password, or an answer that is not the protocol.
    pub fn next(self, frame: &[u8], out: &mut BytesMut) -> Result<Progress, AuthError> {
        let Self {
            user,
            credential,
            expects,
        } = self;
        match expects {
            Expects::Password => {
                let secret = credential.accepts(&user, wire::password_text(frame)?);
                proven(secret.is_some(), "password", secret, user)
            }
            Expects::Md5 { salt } => {
                let answer = wire::password_text(frame)?;
                let expected = credential
                    .md5_stored()
                    .and_then(|stored| md5_answer(stored, salt));
                let right = expected.is_some_and(|expected| expected.as_bytes().ct_eq(answer).into());
                proven(right, "md5", credential.stored_secret(), user)
            }
            Expects::Digest { nonce } => {
                let (proof, client_nonce) = wire::digest_response(frame)?;
                let expected = credential.digest_key().map(|key| key.proof(&nonce, client_nonce));
                let right = expected.is_some_and(|expected| expected.ct_eq(proof).into());
                proven(right, "digest", credential.stored_secret(), user)
            }
            Expects::ClientFirst(server) => {
                let (mechanism, data) = wire::sasl_initial(frame)?;
                let Some(verifier) = credential.verifier() else {
                    return Err(AuthError::WrongPassword(user));
                };
                let (answer, scram) = server
                    .challenge(mechanism, data, verifier.clone())
                    .map_err(|error| scram_error(error, &user))?;
                wire::authentication(&Authentication::SASLContinue(answer.into()), out);
                Ok(Progress::Goes(Box::new(Self {
                    user,
                    credential,
                    expects: Expects::ClientFinal {
                        scram: Box::new(scram),
                        plus: mechanism == PLUS.as_bytes(),
                    },
                })))
            }
            Expects::ClientFinal { scram, plus } => {
                let data = frame.get(5..).unwrap_or_default();
                let (answer, key) = scram.verify(data).map_err(|error| scram_error(error, &user))?;
                wire::authentication(&Authentication::SASLFinal(answer.into()), out);
                Ok(Progress::Done(Proven {
                    method: if plus {
                        "scram-sha-256-plus"
                    } else {
                        "scram-sha-256"
                    },
                    // the password itself, where it is stored, answers whatever the backend asks
                    secret: credential.stored_secret().or(Some(BackendSecret::Scram(key))),
                }))
            }
        }
    }
}

fn proven(
    right: bool,
    method: &'static str,
    secret: Option<BackendSecret>,
    user: String,
) -> Result<Progress, AuthError> {
    if right {
        Ok(Progress::Done(Proven { method, secret }))
    } else {
        Err(AuthError::WrongPassword(user))
    }
}

fn scram_error(error: ScramError, user: &str) -> AuthError {
    if error == ScramError::Proof {
        AuthError::WrongPassword(user.to_owned())
    } else {
        AuthError::Protocol(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::backend::{BackendLogin, Link};
    use crate::auth::keys::{DigestKey, ScramKey};
    use crate::types::Secret;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = vec![b'p'];
        frame.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        frame.extend(body);
        frame
    }

    /// Logs in with the gateway's own other side.
    fn log_in(
        credential: Credential,
        method: Method,
        binding: Option<&[u8]>,
        secret: &BackendSecret,
    ) -> Result<Proven, AuthError> {
        let binding = binding.map(<[u8]>::to_vec);
        let (mut asked, mut answered) = (BytesMut::new(), BytesMut::new());
        let link = Link {
            protected: true,
            binding: binding.clone(),
        };
        let mut client = BackendLogin::new("ana", Some(secret), link);
        let mut exchange = Exchange::begin("ana", credential, method, binding, &mut asked);
        loop {
            client.next(&asked.split(), &mut answered).unwrap();
            let answer = answered.split();
            assert_eq!(answer.first(), Some(&exchange.tag()));
            match exchange.next(&answer, &mut asked)? {
                Progress::Goes(next) => exchange = *next,
                Progress::Done(proven) => {
                    if !asked.is_empty() {
                        client.next(&asked.split(), &mut answered).unwrap();
                    }
                    return Ok(proven);
                }
            }
        }
    }

    fn password(text: &str) -> BackendSecret {
        BackendSecret::Password(Secret::new(text.to_owned()))
    }

    const METHODS: [(Method, &str); 4] = [
        (Method::Scram, "scram-sha-256"),
        (Method::Md5, "md5"),
        (Method::Digest, "digest"),
        (Method::Cleartext, "password"),
    ];

    #[test]
    fn the_right_password_logs_in_by_every_method_and_no_other_does() {
        let credential = Credential::plain("ana", Secret::new("geheim".to_owned()));
        for (method, word) in METHODS {
            let proven = log_in(credential.clone(), method, None, &password("geheim")).unwrap();
            assert_eq!(proven.method, word);
            assert!(proven.secret == Some(password("geheim")));
            for (credential, text) in [
                (credential.clone(), "falsch"),
                (Credential::mock("ana", CredentialForm::Plain), "geheim"),
            ] {
                let error = log_in(credential, method, None, &password(text)).err().unwrap();
                assert_eq!(
                    error.to_string(),
                    "password authentication failed for user \"ana\"",
                    "{method:?}"
                );
                assert_eq!(error.sqlstate().as_str(), "28P01");
            }
        }
        let bound = log_in(credential, Method::Scram, Some(b"hash"), &password("geheim")).unwrap();
        assert_eq!(bound.method, "scram-sha-256-plus");
    }

    #[test]
    fn a_login_leaves_what_the_next_one_takes() {
        let key = ScramKey::derive("geheim", b"salt", 4096);
        let verifier = key.verifier();
        let scram = Credential::scram(4096, b"salt".to_vec(), verifier.stored_key, verifier.server_key);
        let digest = Credential::digest(DigestKey::derive(b"geheim", b"salt"));
        for (credential, method, next) in [
            (scram.clone(), Method::Scram, Method::Scram),
            (scram, Method::Cleartext, Method::Scram),
            (digest.clone(), Method::Digest, Method::Digest),
            (digest, Method::Cleartext, Method::Digest),
        ] {
            let proven = log_in(credential.clone(), method, None, &password("geheim")).unwrap();
            let secret = proven.secret.unwrap();
            assert!(!matches!(secret, BackendSecret::Password(_)));
            assert!(log_in(credential, next, None, &secret).is_ok(), "{method:?}");
        }
    }

    #[test]
    fn what_is_asked_depends_on_the_stored_form_and_the_driver() {
        use CredentialForm::{Digest, Md5, Plain, Scram};
        for (form, amazon_driver, tls, expected) in [
            (Scram, false, false, Some(Method::Scram)),
            (Md5, false, true, Some(Method::Md5)),
            (Plain, false, false, Some(Method::Scram)),
            (Digest, false, true, Some(Method::Cleartext)),
            (Digest, false, false, None),
            (Scram, true, true, Some(Method::Cleartext)),
            (Scram, true, false, None),
            (Md5, true, false, Some(Method::Md5)),
            (Plain, true, true, Some(Method::Digest)),
            (Digest, true, false, Some(Method::Digest)),
        ] {
            let client = Client {
                amazon_driver,
                tls,
                binding: None,
            };
            assert_eq!(
                method(form, &client, "ana").ok(),
                expected,
                "{form:?} amazon={amazon_driver} tls={tls}"
            );
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_login() {
        for (method, _) in METHODS {
            for body in [
                &b""[..],
                b"\0",
                b"SCRAM-SHA-256\0\xff\xff\xff\xff",
                b"SCRAM-SHA-256\0\0\0\0\x03n,,",
                b"\xff\xfe\0",
                b"\0\0\0\x20\0\0\0\0",
                b"\0\0\0\0\0\0\0\0",
            ] {
                let credential = Credential::plain("ana", Secret::new("geheim".to_owned()));
                let exchange = Exchange::begin("ana", credential, method, None, &mut BytesMut::new());
                assert!(
                    exchange.next(&frame(body), &mut BytesMut::new()).is_err(),
                    "{method:?} {body:?}"
                );
            }
        }
    }
}
