//! The client's side of a login: the gateway logs in at a backend.

use bytes::{BufMut, BytesMut};

use super::keys::{BackendSecret, DigestKey, md5_answer, md5_hash};
use super::scram::{Client, Known, Proved, ScramError};

/// Why the gateway could not answer a backend's request.
#[derive(Debug, thiserror::Error)]
pub enum BackendLoginError {
    /// A mechanism that is not implemented.
    #[error("the backend asks for an authentication that is not supported (code {0})")]
    Unsupported(u32),
    /// A password in clear over an unencrypted TCP connection.
    #[error("the backend asks for the password in clear over an unencrypted connection")]
    CleartextWithoutTls,
    /// There is no password for the role.
    #[error("the backend asks for a password, and the gateway has none for this role")]
    NoSecret,
    /// The form that is known of a password cannot answer what is asked.
    #[error("the backend asks for {asked}, which cannot be answered with {known}")]
    WrongForm {
        /// What the backend wants.
        asked: &'static str,
        /// What there is.
        known: &'static str,
    },
    /// A message that is not the protocol.
    #[error("the backend's authentication message is not valid: {0}")]
    Malformed(&'static str),
    /// The exchange by SCRAM fails.
    #[error(transparent)]
    Scram(#[from] ScramError),
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
    secret: Option<&'a BackendSecret>,
    link: Link,
    scram: Scram,
}

/// What a login goes through.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Whether nobody can listen: TLS, or a Unix socket.
    pub protected: bool,
    /// The hash of the certificate that the server showed, for channel binding.
    pub binding: Option<Vec<u8>>,
}

/// How far SCRAM has come.
enum Scram {
    Idle,
    Begun(Client),
    Proved(Proved),
}

impl<'a> BackendLogin<'a> {
    /// As `user` with `secret`, over `link`.
    pub fn new(user: &'a str, secret: Option<&'a BackendSecret>, link: Link) -> Self {
        Self {
            user,
            secret,
            link,
            scram: Scram::Idle,
        }
    }

    /// Takes an `R` frame; an answer goes to `out`.
    ///
    /// # Errors
    ///
    /// What cannot be answered.
    pub fn next(&mut self, frame: &[u8], out: &mut BytesMut) -> Result<LoginStep, BackendLoginError> {
        let body = frame.get(5..).unwrap_or_default();
        let (code, rest) = body
            .split_first_chunk::<4>()
            .ok_or(BackendLoginError::Malformed("too short"))?;
        match u32::from_be_bytes(*code) {
            0 => Ok(LoginStep::Done),
            3 if !self.link.protected => Err(BackendLoginError::CleartextWithoutTls),
            3 => {
                let BackendSecret::Password(password) = self.secret()? else {
                    return Err(self.wrong_form("the password itself"));
                };
                answer(b'p', &[password.expose().as_bytes(), b"\0"], out);
                Ok(LoginStep::Answer)
            }
            5 => {
                let salt = rest
                    .first_chunk::<4>()
                    .ok_or(BackendLoginError::Malformed("MD5 without a salt"))?;
                let hash = match self.secret()? {
                    BackendSecret::Password(password) => {
                        md5_answer(&md5_hash(password.expose().as_bytes(), self.user), *salt)
                    }
                    BackendSecret::Md5(hash) => md5_answer(hash.expose(), *salt),
                    BackendSecret::Digest(_) | BackendSecret::Scram(_) => None,
                };
                let hash = hash.ok_or_else(|| self.wrong_form("MD5"))?;
                answer(b'p', &[hash.as_bytes(), b"\0"], out);
                Ok(LoginStep::Answer)
            }
            10 => self.begin_scram(rest, out),
            11 => {
                let Scram::Begun(client) = std::mem::replace(&mut self.scram, Scram::Idle) else {
                    return Err(BackendLoginError::Malformed("SASL out of order"));
                };
                let known = match self.secret()? {
                    BackendSecret::Password(password) => Known::Password(password.expose()),
                    BackendSecret::Scram(key) => Known::Key(key),
                    BackendSecret::Md5(_) | BackendSecret::Digest(_) => return Err(self.wrong_form("SCRAM")),
                };
                let (proof, proved) = client.prove(rest, &known)?;
                answer(b'p', &[proof.as_bytes()], out);
                self.scram = Scram::Proved(proved);
                Ok(LoginStep::Answer)
            }
            12 => {
                let Scram::Proved(proved) = std::mem::replace(&mut self.scram, Scram::Idle) else {
                    return Err(BackendLoginError::Malformed("SASL out of order"));
                };
                proved.check(rest)?;
                Ok(LoginStep::Wait)
            }
            13 => {
                let (salt, nonce) = digest_request(rest)?;
                let derived;
                let key = match self.secret()? {
                    BackendSecret::Password(password) => {
                        derived = DigestKey::derive(password.expose().as_bytes(), salt);
                        &derived
                    }
                    BackendSecret::Digest(key) if key.salt == salt => key,
                    BackendSecret::Digest(_) | BackendSecret::Md5(_) | BackendSecret::Scram(_) => {
                        return Err(self.wrong_form("a digest with its own salt"));
                    }
                };
                // digits, as Amazon's drivers have it
                let own = rand::random::<u64>().to_string();
                let proof = key.proof(nonce, own.as_bytes());
                let own_len = u32::try_from(own.len()).unwrap_or(0).to_be_bytes();
                answer(
                    b'd',
                    &[&32_u32.to_be_bytes(), &proof, &own_len, own.as_bytes()],
                    out,
                );
                Ok(LoginStep::Answer)
            }
            other => Err(BackendLoginError::Unsupported(other)),
        }
    }

    fn begin_scram(&mut self, offered: &[u8], out: &mut BytesMut) -> Result<LoginStep, BackendLoginError> {
        if !matches!(
            self.secret()?,
            BackendSecret::Password(_) | BackendSecret::Scram(_)
        ) {
            return Err(self.wrong_form("SCRAM"));
        }
        let offered: Vec<&[u8]> = offered.split(|byte| *byte == 0).collect();
        let (client, mechanism, first) = Client::begin(&offered, self.link.binding.clone())?;
        let len = u32::try_from(first.len()).unwrap_or(0).to_be_bytes();
        answer(b'p', &[mechanism.as_bytes(), b"\0", &len, first.as_bytes()], out);
        self.scram = Scram::Begun(client);
        Ok(LoginStep::Answer)
    }

    fn secret(&self) -> Result<&'a BackendSecret, BackendLoginError> {
        self.secret.ok_or(BackendLoginError::NoSecret)
    }

    fn wrong_form(&self, asked: &'static str) -> BackendLoginError {
        let known = match self.secret {
            None => "nothing",
            Some(BackendSecret::Password(_)) => "a password",
            Some(BackendSecret::Md5(_)) => "an MD5 hash",
            Some(BackendSecret::Digest(_)) => "a digest",
            Some(BackendSecret::Scram(_)) => "the keys of a login by SCRAM",
        };
        BackendLoginError::WrongForm { asked, known }
    }
}

/// Salt and nonce of a request for a digest: the hash function (0 is SHA-256), then both with their lengths.
fn digest_request(body: &[u8]) -> Result<(&[u8], &[u8]), BackendLoginError> {
    let malformed = BackendLoginError::Malformed("a digest's request");
    let (Some(function), Some((salt, rest))) = (body.first_chunk::<4>(), body.get(4..).and_then(counted))
    else {
        return Err(malformed);
    };
    if *function != [0; 4] {
        return Err(BackendLoginError::Malformed(
            "a digest by another function than SHA-256",
        ));
    }
    match counted(rest) {
        Some((nonce, [])) => Ok((salt, nonce)),
        Some(_) | None => Err(malformed),
    }
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

fn answer(tag: u8, parts: &[&[u8]], out: &mut BytesMut) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.put_u8(tag);
    out.put_u32(u32::try_from(len + 4).unwrap_or(4));
    for part in parts {
        out.put_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::ScramKey;
    use crate::types::Secret;

    const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05abcd";
    const SASL: &[u8] = b"R\0\0\0\x0a\0\0\0\x0aSCRAM-SHA-256\0\0";
    const CLEARTEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const DIGEST: &[u8] = b"R\0\0\0\x1a\0\0\0\x0d\0\0\0\0\0\0\0\x04salt\0\0\0\x0217";

    fn step(
        frame: &[u8],
        secret: Option<&BackendSecret>,
        protected: bool,
    ) -> Result<LoginStep, BackendLoginError> {
        let link = Link {
            protected,
            binding: None,
        };
        BackendLogin::new("growth", secret, link).next(frame, &mut BytesMut::new())
    }

    #[test]
    fn requests_are_answered_or_refused() {
        let secret = BackendSecret::Password(Secret::new("geheim".to_owned()));
        for (frame, protected, expected) in [
            (&b"R\0\0\0\x08\0\0\0\0"[..], false, Some(LoginStep::Done)),
            (CLEARTEXT, true, Some(LoginStep::Answer)),
            (CLEARTEXT, false, None),
            (MD5, false, Some(LoginStep::Answer)),
            (b"R\0\0\0\x0a\0\0\0\x05ab", false, None),
            (SASL, false, Some(LoginStep::Answer)),
            (b"R\0\0\0\x0a\0\0\0\x0aOTHER\0\0", false, None),
            (b"R\0\0\0\x0a\0\0\0\x0bxx", false, None),
            (b"R\0\0\0\x0a\0\0\0\x0cv=", false, None),
            (DIGEST, false, Some(LoginStep::Answer)),
            // another function, lengths that lie, something behind
            (
                b"R\0\0\0\x1a\0\0\0\x0d\0\0\0\x01\0\0\0\x04salt\0\0\0\x0217",
                false,
                None,
            ),
            (
                b"R\0\0\0\x1a\0\0\0\x0d\0\0\0\0\xff\xff\xff\xffsalt\0\0\0\x0217",
                false,
                None,
            ),
            (
                b"R\0\0\0\x1a\0\0\0\x0d\0\0\0\0\0\0\0\x04salt\0\0\0\x01171",
                false,
                None,
            ),
            (b"R\0\0\0\x08\0\0\0\x0d", false, None),
            (b"R\0\0\0\x08\0\0\0\x07", false, None),
            (b"R\0\0\0\x04", false, None),
        ] {
            assert_eq!(
                step(frame, Some(&secret), protected).ok(),
                expected,
                "{frame:?} protected={protected}"
            );
        }
    }

    #[test]
    fn each_form_answers_what_it_can() {
        let scram = BackendSecret::Scram(ScramKey::derive("geheim", b"salt", 4096));
        let md5 = BackendSecret::Md5(Secret::new(md5_hash(b"geheim", "growth")));
        let digest = BackendSecret::Digest(DigestKey::derive(b"geheim", b"salt"));
        let other = BackendSecret::Digest(DigestKey::derive(b"geheim", b"other"));
        for (frame, answered) in [
            (MD5, [false, true, false, false]),
            (SASL, [true, false, false, false]),
            (CLEARTEXT, [false; 4]),
            (DIGEST, [false, false, true, false]),
        ] {
            for (secret, answered) in [&scram, &md5, &digest, &other].into_iter().zip(answered) {
                let step = step(frame, Some(secret), true);
                assert_eq!(step.is_ok(), answered, "{frame:?}");
                if !answered {
                    assert!(
                        matches!(step, Err(BackendLoginError::WrongForm { .. })),
                        "{frame:?}"
                    );
                }
            }
            assert!(matches!(
                step(frame, None, true),
                Err(BackendLoginError::NoSecret)
            ));
        }
    }

    #[test]
    fn the_digests_answer_is_the_proof_and_the_nonce() {
        let secret = BackendSecret::Password(Secret::new("geheim".to_owned()));
        let mut out = BytesMut::new();
        let mut login = BackendLogin::new("growth", Some(&secret), Link::default());
        assert_eq!(login.next(DIGEST, &mut out).ok(), Some(LoginStep::Answer));
        assert_eq!(out.first(), Some(&b'd'));
        let (proof, rest) = counted(out.get(5..).unwrap()).unwrap();
        let (nonce, rest) = counted(rest).unwrap();
        assert!(rest.is_empty() && nonce.iter().all(u8::is_ascii_digit));
        assert_eq!(proof, DigestKey::derive(b"geheim", b"salt").proof(b"17", nonce));
    }
}
