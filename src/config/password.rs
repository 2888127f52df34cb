//! Passwords as PostgreSQL stores them: SCRAM verifiers and MD5 hashes, made and read.
//!
//! A verifier's form is `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, with salt and keys in base64
//! (<https://www.postgresql.org/docs/current/catalog-pg-authid.html>); the keys are those of RFC 5802, section 3.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::types::Secret;

/// The iterations of a new verifier: PostgreSQL's own default, which RFC 7677 asks for at least.
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// The longest salt that is read, in bytes; PostgreSQL writes 16.
const MAX_SALT_BYTES: usize = 256;

/// What a user's password is checked against.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// A SCRAM-SHA-256 verifier. The password itself is not known.
    Scram {
        /// At least 1.
        iterations: u32,
        /// 1 to 256 bytes.
        salt: Vec<u8>,
        /// `H(ClientKey)`: checks the client's proof.
        stored_key: [u8; 32],
        /// Signs the server's answer.
        server_key: [u8; 32],
    },
    /// `md5` and 32 hexadecimal digits, as [`md5_hash`] makes them. The password itself is not known.
    Md5(Secret<String>),
    /// Redshift's `sha256|hash|salt`, which its own `CREATE USER` takes. The password itself is not known.
    Digest {
        /// `SHA256(password salt)`.
        hash: Secret<[u8; 32]>,
        /// 1 to 256 bytes.
        salt: Vec<u8>,
    },
    /// The password itself, which any method of login can check.
    Plain(Secret<String>),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Password(*** {})", self.form())
    }
}

/// Why a text that begins as a verifier is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// A part is missing, or there is one too many.
    #[error("it is not of the form SCRAM-SHA-256$iterations:salt$key:key")]
    Form,
    /// The number of iterations is not one, or not positive.
    #[error("its iterations are not a number from 1 to 2147483647")]
    Iterations,
    /// The salt is not base64, empty, or too long.
    #[error("its salt is not 1 to 256 bytes in base64")]
    Salt,
    /// A key is not base64, or not 32 bytes.
    #[error("its keys are not 32 bytes each in base64")]
    Key,
    /// Not a digest with its salt.
    #[error(
        "it is not of the form sha256|hash|salt, with 32 bytes of hash and 1 to 256 of salt in hexadecimal"
    )]
    Digest,
}

const SCRAM_PREFIX: &str = "SCRAM-SHA-256$";
const DIGEST_PREFIX: &str = "sha256|";

impl Password {
    /// What `text` is: a verifier, a digest, an MD5 hash, or else a password in plain text. PostgreSQL and Redshift tell
    /// them apart by the same rules, except that a damaged verifier is an error here, and that Redshift takes a
    /// `sha256|` without a salt for a prefix of the password itself.
    ///
    /// # Errors
    ///
    /// `text` begins as a verifier or as a digest and is none.
    pub fn from_stored(text: &str) -> Result<Self, VerifierError> {
        if text.starts_with(SCRAM_PREFIX) {
            parse_verifier(text)
        } else if let Some(digest) = text.strip_prefix(DIGEST_PREFIX) {
            parse_digest(digest).ok_or(VerifierError::Digest)
        } else if is_md5_hash(text) {
            Ok(Self::Md5(Secret::new(text.to_owned())))
        } else {
            Ok(Self::Plain(Secret::new(text.to_owned())))
        }
    }

    /// In which form the password is known, in words.
    pub fn form(&self) -> &'static str {
        match self {
            Self::Scram { .. } => "SCRAM verifier",
            Self::Md5(_) => "MD5 hash",
            Self::Digest { .. } => "SHA-256 digest",
            Self::Plain(_) => "plain text",
        }
    }

    /// SHA-256 over everything in it: to see a change without showing what changed.
    pub(super) fn digest(&self) -> [u8; 32] {
        let digest = Sha256::new();
        let digest = match self {
            Self::Scram {
                iterations,
                salt,
                stored_key,
                server_key,
            } => digest
                .chain_update([0])
                .chain_update(iterations.to_be_bytes())
                .chain_update(stored_key)
                .chain_update(server_key)
                .chain_update(salt),
            Self::Md5(hash) => digest.chain_update([1]).chain_update(hash.expose()),
            Self::Plain(text) => digest.chain_update([2]).chain_update(text.expose()),
            Self::Digest { hash, salt } => digest
                .chain_update([3])
                .chain_update(hash.expose())
                .chain_update(salt),
        };
        digest.finalize().into()
    }
}

/// Makes the verifier of `password`, in PostgreSQL's own form.
///
/// The password is prepared by `SASLprep` (RFC 4013); one that it forbids is taken as it is, as PostgreSQL does.
/// `iterations` below 1 count as 1.
pub fn scram_verifier(password: &str, salt: [u8; 16], iterations: u32) -> String {
    let iterations = iterations.max(1);
    let prepared = stringprep::saslprep(password);
    let prepared = prepared.as_deref().unwrap_or(password);
    let salted: [u8; 32] = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), &salt, iterations);
    let stored_key: [u8; 32] = Sha256::digest(hmac(&salted, b"Client Key")).into();
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "{SCRAM_PREFIX}{iterations}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(stored_key),
        BASE64.encode(server_key)
    )
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Reads a verifier.
///
/// # Errors
///
/// Which part of `text` is not as it must be.
pub fn parse_verifier(text: &str) -> Result<Password, VerifierError> {
    let rest = text.strip_prefix(SCRAM_PREFIX).ok_or(VerifierError::Form)?;
    let (front, keys) = rest.split_once('$').ok_or(VerifierError::Form)?;
    let (iterations, salt) = front.split_once(':').ok_or(VerifierError::Form)?;
    let (stored_key, server_key) = keys.split_once(':').ok_or(VerifierError::Form)?;

    let iterations = iterations.parse().map_err(|_| VerifierError::Iterations)?;
    // PostgreSQL holds it in an int
    if iterations == 0 || i32::try_from(iterations).is_err() {
        return Err(VerifierError::Iterations);
    }
    let salt = BASE64.decode(salt).map_err(|_| VerifierError::Salt)?;
    if !(1..=MAX_SALT_BYTES).contains(&salt.len()) {
        return Err(VerifierError::Salt);
    }
    Ok(Password::Scram {
        iterations,
        salt,
        stored_key: key(stored_key)?,
        server_key: key(server_key)?,
    })
}

/// Reads `hash|salt`, both in hexadecimal.
fn parse_digest(text: &str) -> Option<Password> {
    let (hash, salt) = text.split_once('|')?;
    let (hash, salt) = (from_hex(hash)?, from_hex(salt)?);
    Some(Password::Digest {
        hash: Secret::new(hash.try_into().ok()?),
        salt: Some(salt).filter(|salt| (1..=MAX_SALT_BYTES).contains(&salt.len()))?,
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |pair: &[u8; 2]| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| !pair.starts_with('+'))?;
        u8::from_str_radix(pair, 16).ok()
    };
    pairs.iter().map(byte).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // writing to a String does not fail
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Makes what Redshift stores of `password`: `sha256|hash|salt`, in hexadecimal.
pub fn digest(password: &str, salt: [u8; 32]) -> String {
    let hash = Sha256::new().chain_update(password).chain_update(salt).finalize();
    format!("{DIGEST_PREFIX}{}|{}", to_hex(&hash), to_hex(&salt))
}

fn key(text: &str) -> Result<[u8; 32], VerifierError> {
    BASE64
        .decode(text)
        .ok()
        .and_then(|key| key.try_into().ok())
        .ok_or(VerifierError::Key)
}

/// Makes PostgreSQL's MD5 hash of `password` for `user`: `md5` and 32 hexadecimal digits of `MD5(password user)`.
pub fn md5_hash(password: &str, user: &str) -> String {
    let digest = Md5::new().chain_update(password).chain_update(user).finalize();
    format!("md5{}", to_hex(&digest))
}

/// Whether `text` has the form of [`md5_hash`].
pub fn is_md5_hash(text: &str) -> bool {
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("md5")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(lower_hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PostgreSQL 15 stored for these passwords.
    const STORED: [(&str, &str); 3] = [
        (
            "ana",
            "SCRAM-SHA-256$4096:HP9+oyWzC7X3Fsvi6rSV7A==$71j/LgjjPvAkQ7LQCUAjBWw2etsg3gwU+Ijg5frYPUg=:\
             ia34FsZKu8nCyfqdXNJK1/GbxXpmJoyjCsGyk3nTOTw=",
        ),
        // SASLprep drops the soft hyphen, spells the numeral, and makes the space an ordinary one
        (
            "I\u{ad}X \u{2168} pass\u{a0}word",
            "SCRAM-SHA-256$4096:uJYsjAeEwR/8srM5dXoGfQ==$k2T4GCywhQPUFsM42XTynP99wevGWbuRWUzQ4SwcfOA=:\
             8Brphh8MytFSmqwSFe7oVFH+WlIvIrCbT57GIJ2We8Y=",
        ),
        // SASLprep forbids control characters
        (
            "tab\there",
            "SCRAM-SHA-256$4096:WbFTByMf5SNjyTZi5derkg==$FSuxxV6m0/6qLME/ZTRmAEGSzjKOiWJsZ1Q8Ssq/3dE=:\
             zQnfquewan51JA13GyNV8R95t5n+toC1GTeQ/qn91sI=",
        ),
    ];

    /// Amazon's example of a stored form; the password is `Mypassword1`.
    const DIGEST: &str = "sha256|821708135fcc42eb3afda85286dee0ed15c2c461d000291609f77eb113073ec2|\
                          c721bff5d9042cf541ff7b9d48fa8a6e545c19a763e3710151f9513038b0f6c6";

    #[test]
    fn digests_are_those_that_redshift_makes() {
        let Ok(Password::Digest { salt, .. }) = Password::from_stored(DIGEST) else {
            panic!("{DIGEST} is a digest");
        };
        assert_eq!(digest("Mypassword1", salt.try_into().unwrap()), DIGEST);
    }

    #[test]
    fn verifiers_are_those_that_postgresql_makes() {
        for (password, stored) in STORED {
            let Password::Scram { iterations, salt, .. } = parse_verifier(stored).unwrap() else {
                panic!("{stored} is a verifier");
            };
            let made = scram_verifier(password, salt.try_into().unwrap(), iterations);
            assert_eq!(made, stored, "{password:?}");
        }
    }

    #[test]
    fn md5_hashes_are_those_that_postgresql_makes() {
        assert_eq!(md5_hash("ana", "old"), "md568e256fda3a5bc363bebdce506974683");
    }

    #[test]
    fn stored_passwords_are_told_apart_as_postgresql_does() {
        for (text, form) in [
            (STORED[0].1, Ok("SCRAM verifier")),
            ("md568e256fda3a5bc363bebdce506974683", Ok("MD5 hash")),
            ("md568E256FDA3A5BC363BEBDCE506974683", Ok("plain text")),
            ("md5", Ok("plain text")),
            ("hunter2", Ok("plain text")),
            (DIGEST, Ok("SHA-256 digest")),
            ("sha256|hunter2", Err(VerifierError::Digest)),
            ("sha256|00|00", Err(VerifierError::Digest)),
            (&DIGEST[..72], Err(VerifierError::Digest)),
            (&DIGEST[..DIGEST.len() - 1], Err(VerifierError::Digest)),
            ("SCRAM-SHA-256$", Err(VerifierError::Form)),
            ("SCRAM-SHA-256$4096:c2FsdA==$a", Err(VerifierError::Form)),
            ("SCRAM-SHA-256$0:c2FsdA==$a:b", Err(VerifierError::Iterations)),
            (
                "SCRAM-SHA-256$4294967295:c2FsdA==$a:b",
                Err(VerifierError::Iterations),
            ),
            ("SCRAM-SHA-256$4096:$a:b", Err(VerifierError::Salt)),
            ("SCRAM-SHA-256$4096:?$a:b", Err(VerifierError::Salt)),
            ("SCRAM-SHA-256$4096:c2FsdA==$a:b", Err(VerifierError::Key)),
            ("SCRAM-SHA-256$4096:c2FsdA==$YQ==:YQ==", Err(VerifierError::Key)),
        ] {
            let told = Password::from_stored(text);
            assert_eq!(
                told.as_ref().map(Password::form).map_err(|error| *error),
                form,
                "{text}"
            );
        }
    }

    #[test]
    fn printing_shows_no_secret() {
        for text in [
            "hunter2",
            "md568e256fda3a5bc363bebdce506974683",
            STORED[0].1,
            DIGEST,
        ] {
            let printed = format!("{:?}", Password::from_stored(text).unwrap());
            assert!(printed.starts_with("Password(*** "), "{printed}");
            assert!(
                !printed.contains("hunter2")
                    && !printed.contains("68e2")
                    && !printed.contains("71j")
                    && !printed.contains("8217"),
                "{printed}"
            );
        }
    }
}
