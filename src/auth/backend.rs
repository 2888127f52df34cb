//! The client's side of a login: the gateway logs in at a backend.

use bytes::{BufMut, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use crate::types::Secret;

/// Why the gateway could not answer a backend's request.
#[derive(Debug, thiserror::Error)]
pub enum BackendLoginError {
    /// A mechanism that is not implemented.
    #[error("the backend asks for an authentication that is not supported (code {0})")]
    Unsupported(u32),
    /// A password in clear over an unencrypted TCP connection.
    #[error("the backend asks for the password in clear over an unencrypted connection")]
    CleartextWithoutTls,
    /// A message that is not the protocol, or a server that does not know the password.
    #[error("the backend's authentication message is not valid: {0}")]
    Malformed(String),
}

/// What an authentication message leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum LoginStep {
    /// The answer is in the buffer.
    Answer,
    /// Nothing to answer.
    Wait,
    /// Logged in.
    Done,
}

/// A login under way.
pub struct BackendLogin<'a> {
    user: &'a str,
    password: &'a Secret<String>,
    /// Whether the connection cannot be listened to: TLS, or a Unix socket.
    protected: bool,
    scram: Option<ScramSha256>,
}

impl<'a> BackendLogin<'a> {
    /// As `user` with `password`; `protected` says that nobody can listen.
    pub fn new(user: &'a str, password: &'a Secret<String>, protected: bool) -> Self {
        Self {
            user,
            password,
            protected,
            scram: None,
        }
    }

    /// Takes an `R` frame; an answer goes to `out`.
    ///
    /// # Errors
    ///
    /// What cannot be answered.
    pub fn next(&mut self, frame: &[u8], out: &mut BytesMut) -> Result<LoginStep, BackendLoginError> {
        let malformed = |what: &str| BackendLoginError::Malformed(what.to_owned());
        let body = frame.get(5..).unwrap_or_default();
        let (code, rest) = body
            .split_first_chunk::<4>()
            .ok_or_else(|| malformed("too short"))?;
        let password = self.password.expose().as_bytes();
        match u32::from_be_bytes(*code) {
            0 => Ok(LoginStep::Done),
            3 if !self.protected => Err(BackendLoginError::CleartextWithoutTls),
            3 => {
                answer(&[password, b"\0"], out);
                Ok(LoginStep::Answer)
            }
            5 => {
                let salt = rest
                    .first_chunk::<4>()
                    .ok_or_else(|| malformed("MD5 without a salt"))?;
                let hash = md5_hash(self.user.as_bytes(), password, *salt);
                answer(&[hash.as_bytes(), b"\0"], out);
                Ok(LoginStep::Answer)
            }
            10 => {
                if !rest
                    .split(|byte| *byte == 0)
                    .any(|mechanism| mechanism == b"SCRAM-SHA-256")
                {
                    return Err(malformed("no SASL mechanism that is supported"));
                }
                let scram = ScramSha256::new(password, ChannelBinding::unsupported());
                let first = scram.message();
                let len = u32::try_from(first.len()).unwrap_or(0).to_be_bytes();
                answer(&[b"SCRAM-SHA-256\0", &len, first], out);
                self.scram = Some(scram);
                Ok(LoginStep::Answer)
            }
            11 => {
                let scram = self
                    .scram
                    .as_mut()
                    .ok_or_else(|| malformed("SASL out of order"))?;
                scram
                    .update(rest)
                    .map_err(|error| BackendLoginError::Malformed(error.to_string()))?;
                answer(&[scram.message()], out);
                Ok(LoginStep::Answer)
            }
            12 => {
                let scram = self
                    .scram
                    .as_mut()
                    .ok_or_else(|| malformed("SASL out of order"))?;
                scram
                    .finish(rest)
                    .map_err(|error| BackendLoginError::Malformed(error.to_string()))?;
                Ok(LoginStep::Wait)
            }
            other => Err(BackendLoginError::Unsupported(other)),
        }
    }
}

fn answer(parts: &[&[u8]], out: &mut BytesMut) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.put_u8(b'p');
    out.put_u32(u32::try_from(len + 4).unwrap_or(4));
    for part in parts {
        out.put_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered_or_refused() {
        let password = Secret::new("geheim".to_owned());
        for (frame, protected, expected) in [
            (&b"R\0\0\0\x08\0\0\0\0"[..], false, Some(LoginStep::Done)),
            (b"R\0\0\0\x08\0\0\0\x03", true, Some(LoginStep::Answer)),
            (b"R\0\0\0\x08\0\0\0\x03", false, None),
            (b"R\0\0\0\x0c\0\0\0\x05abcd", false, Some(LoginStep::Answer)),
            (b"R\0\0\0\x0a\0\0\0\x05ab", false, None),
            (
                b"R\0\0\0\x0a\0\0\0\x0aSCRAM-SHA-256\0\0",
                false,
                Some(LoginStep::Answer),
            ),
            (b"R\0\0\0\x0a\0\0\0\x0aOTHER\0\0", false, None),
            (b"R\0\0\0\x0a\0\0\0\x0bxx", false, None),
            (b"R\0\0\0\x08\0\0\0\x07", false, None),
            (b"R\0\0\0\x04", false, None),
        ] {
            let mut login = BackendLogin::new("growth", &password, protected);
            assert_eq!(
                login.next(frame, &mut BytesMut::new()).ok(),
                expected,
                "{frame:?} protected={protected}"
            );
        }
    }
}
