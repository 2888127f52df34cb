//! The server's side of a login: what to ask, and whether the answer is right.

use bytes::BytesMut;
use pgwire::api::auth::sasl::scram::{
    ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal as AwaitingProof,
};
use pgwire::error::PgWireError;
use pgwire::messages::startup::Authentication;
use subtle::ConstantTimeEq;

use super::credential::{Credential, CredentialForm, hex_md5};
use crate::error::{ClientError, Severity, SqlState};
use crate::wire::{self, WireError};

const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// How a client is asked for its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// SCRAM-SHA-256.
    Scram,
    /// MD5.
    Md5,
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
    /// An Amazon driver without TLS, and a password that is stored as a SCRAM verifier.
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
                "Connect with TLS, or let the administrator store the password in a form that MD5 can use."
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

/// How to ask `user`. Amazon's drivers stumble over SCRAM, so they get MD5 where the stored form allows it, else the
/// password itself where TLS protects it.
///
/// # Errors
///
/// An Amazon driver, no TLS, and a form that allows neither.
pub fn method(form: CredentialForm, amazon_driver: bool, tls: bool, user: &str) -> Result<Method, AuthError> {
    match (amazon_driver, form, tls) {
        (false, CredentialForm::Md5, _) => Ok(Method::Md5),
        (false, CredentialForm::Scram | CredentialForm::Plain, _) => Ok(Method::Scram),
        (true, CredentialForm::Md5 | CredentialForm::Plain, _) => Ok(Method::Md5),
        (true, CredentialForm::Scram, true) => Ok(Method::Cleartext),
        (true, CredentialForm::Scram, false) => Err(AuthError::NeedsTls(user.to_owned())),
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
    ClientFirst(ScramServerAuth),
    ClientFinal(Box<AwaitingProof>),
}

/// What an answer of the client leads to.
pub enum Progress {
    /// Another answer is awaited.
    Goes(Box<Exchange>),
    /// The client is who it says.
    Done,
}

impl Exchange {
    /// Begins: the request goes to `out`.
    pub fn begin(user: &str, credential: Credential, method: Method, out: &mut BytesMut) -> Self {
        let (expects, request) = match method {
            Method::Cleartext => (Expects::Password, Authentication::CleartextPassword),
            Method::Md5 => {
                let salt: [u8; 4] = rand::random();
                (Expects::Md5 { salt }, Authentication::MD5Password(salt.to_vec()))
            }
            Method::Scram => (
                Expects::ClientFirst(ScramServerAuth::new()),
                Authentication::SASL(vec![SCRAM_SHA_256.to_owned()]),
            ),
        };
        wire::authentication(&request, out);
        Self {
            user: user.to_owned(),
            credential,
            expects,
        }
    }

    /// Takes the client's answer, a whole `p` frame.
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
                let password = wire::password_text(frame)?;
                if credential.accepts(&user, password) {
                    Ok(Progress::Done)
                } else {
                    Err(AuthError::WrongPassword(user))
                }
            }
            Expects::Md5 { salt } => {
                let answer = wire::password_text(frame)?;
                let stored = credential
                    .md5_stored()
                    .and_then(|stored| stored.strip_prefix("md5"));
                let right = stored.is_some_and(|stored| {
                    let expected = format!("md5{}", hex_md5(&[stored.as_bytes(), &salt]));
                    expected.as_bytes().ct_eq(answer).into()
                });
                if right {
                    Ok(Progress::Done)
                } else {
                    Err(AuthError::WrongPassword(user))
                }
            }
            Expects::ClientFirst(scram) => {
                let (mechanism, data) = wire::sasl_initial(frame)?;
                if mechanism != SCRAM_SHA_256.as_bytes() {
                    return Err(AuthError::Protocol(
                        "client selected an invalid SASL authentication mechanism".to_owned(),
                    ));
                }
                let Some(verifier) = credential.verifier() else {
                    return Err(AuthError::WrongPassword(user));
                };
                let secret = ScramSecret::Verifier {
                    salt: verifier.salt.clone(),
                    iterations: usize::try_from(verifier.iterations).unwrap_or(usize::MAX),
                    stored_key: verifier.stored_key.clone(),
                    server_key: verifier.server_key.clone(),
                };
                let (answer, scram) = scram
                    .on_client_first_message_with_secret(data, secret)
                    .map_err(|error| scram_error(&error, &user))?;
                wire::authentication(&Authentication::SASLContinue(answer.into()), out);
                Ok(Progress::Goes(Box::new(Self {
                    user,
                    credential,
                    expects: Expects::ClientFinal(Box::new(scram)),
                })))
            }
            Expects::ClientFinal(scram) => {
                let data = frame.get(5..).unwrap_or_default();
                let answer = scram
                    .on_client_final_message(data)
                    .map_err(|error| scram_error(&error, &user))?;
                wire::authentication(&Authentication::SASLFinal(answer.into()), out);
                Ok(Progress::Done)
            }
        }
    }
}

fn scram_error(error: &PgWireError, user: &str) -> AuthError {
    if matches!(error, PgWireError::InvalidPassword(_)) {
        return AuthError::WrongPassword(user.to_owned());
    }
    AuthError::Protocol(format!("malformed SCRAM message: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Secret;
    use postgres_protocol::authentication::{md5_hash, sasl};

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = vec![b'p'];
        frame.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        frame.extend(body);
        frame
    }

    fn log_in(credential: Credential, method: Method, password: &[u8]) -> Result<(), AuthError> {
        let mut out = BytesMut::new();
        let exchange = Exchange::begin("ana", credential, method, &mut out);
        match method {
            Method::Cleartext => exchange
                .next(&frame(&[password, b"\0"].concat()), &mut out)
                .map(|_| ()),
            Method::Md5 => {
                let salt = out[9..13].try_into().unwrap();
                let answer = md5_hash(b"ana", password, salt);
                exchange
                    .next(&frame(&[answer.as_bytes(), b"\0"].concat()), &mut out)
                    .map(|_| ())
            }
            Method::Scram => {
                let mut client = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
                let mut first = b"SCRAM-SHA-256\0".to_vec();
                first.extend(u32::try_from(client.message().len()).unwrap().to_be_bytes());
                first.extend(client.message());
                out.clear();
                let Progress::Goes(exchange) = exchange.next(&frame(&first), &mut out)? else {
                    panic!("done too early")
                };
                client.update(&out[9..]).unwrap();
                out.clear();
                exchange.next(&frame(client.message()), &mut out)?;
                client.finish(&out[9..]).unwrap();
                Ok(())
            }
        }
    }

    #[test]
    fn the_right_password_logs_in_by_every_method_and_no_other_does() {
        let credential = Credential::plain("ana", Secret::new("geheim".to_owned()));
        for method in [Method::Scram, Method::Md5, Method::Cleartext] {
            assert!(
                log_in(credential.clone(), method, b"geheim").is_ok(),
                "{method:?}"
            );
            for (credential, password) in [
                (credential.clone(), &b"falsch"[..]),
                (Credential::mock("ana", CredentialForm::Plain), b"geheim"),
            ] {
                let error = log_in(credential, method, password).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    "password authentication failed for user \"ana\"",
                    "{method:?}"
                );
                assert_eq!(error.sqlstate().as_str(), "28P01");
            }
        }
    }

    #[test]
    fn what_is_asked_depends_on_the_stored_form_and_the_driver() {
        use CredentialForm::{Md5, Plain, Scram};
        for (form, amazon, tls, expected) in [
            (Scram, false, false, Some(Method::Scram)),
            (Md5, false, true, Some(Method::Md5)),
            (Plain, false, false, Some(Method::Scram)),
            (Scram, true, true, Some(Method::Cleartext)),
            (Scram, true, false, None),
            (Md5, true, false, Some(Method::Md5)),
            (Plain, true, true, Some(Method::Md5)),
        ] {
            assert_eq!(
                method(form, amazon, tls, "ana").ok(),
                expected,
                "{form:?} amazon={amazon} tls={tls}"
            );
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_login() {
        for method in [Method::Scram, Method::Md5, Method::Cleartext] {
            for body in [
                &b""[..],
                b"\0",
                b"SCRAM-SHA-256\0\xff\xff\xff\xff",
                b"SCRAM-SHA-256\0\0\0\0\x03n,,",
                b"\xff\xfe\0",
            ] {
                let credential = Credential::plain("ana", Secret::new("geheim".to_owned()));
                let exchange = Exchange::begin("ana", credential, method, &mut BytesMut::new());
                assert!(
                    exchange.next(&frame(body), &mut BytesMut::new()).is_err(),
                    "{method:?} {body:?}"
                );
            }
        }
    }
}
