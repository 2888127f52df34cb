//! What is derived from a password: SCRAM's keys (RFC 5802, section 3), PostgreSQL's MD5 hash, Redshift's digest.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::types::Secret;

/// A SCRAM-SHA-256 verifier: enough to check a password, not enough to log in with.
#[derive(Clone)]
pub(super) struct Verifier {
    /// At least 1.
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: [u8; 32],
    pub(super) server_key: [u8; 32],
}

/// What a login by SCRAM shows of a password: enough to log in by SCRAM wherever the verifier is the same, and only
/// there.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKey {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) client_key: Secret<[u8; 32]>,
    pub(super) server_key: Secret<[u8; 32]>,
}

impl ScramKey {
    /// Of `password`, prepared by `SASLprep`; one that it refuses is used as it is, as PostgreSQL does.
    pub(super) fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let prepared = stringprep::saslprep(password).unwrap_or(std::borrow::Cow::Borrowed(password));
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(prepared.as_bytes(), salt, iterations, &mut salted);
        let salted = Secret::new(salted);
        Self {
            iterations,
            salt: salt.to_vec(),
            client_key: Secret::new(hmac_sha256(salted.expose(), &[b"Client Key"])),
            server_key: Secret::new(hmac_sha256(salted.expose(), &[b"Server Key"])),
        }
    }

    /// What checks it.
    pub(super) fn verifier(&self) -> Verifier {
        Verifier {
            iterations: self.iterations,
            salt: self.salt.clone(),
            stored_key: Sha256::digest(self.client_key.expose()).into(),
            server_key: *self.server_key.expose(),
        }
    }
}

impl Verifier {
    /// The key in `proof`, which a client made of `transcript`, if it is the one that this verifier is of.
    pub(super) fn key_in(&self, proof: [u8; 32], transcript: &[u8]) -> Option<ScramKey> {
        let signature = hmac_sha256(&self.stored_key, &[transcript]);
        let client_key = Secret::new(xor(proof, signature));
        let stored: [u8; 32] = Sha256::digest(client_key.expose()).into();
        bool::from(stored.ct_eq(&self.stored_key)).then(|| self.with(client_key))
    }

    /// The key of `password`, if that is the one that this verifier is of.
    pub(super) fn key_of(&self, password: &str) -> Option<ScramKey> {
        let key = ScramKey::derive(password, &self.salt, self.iterations);
        let stored: [u8; 32] = Sha256::digest(key.client_key.expose()).into();
        bool::from(stored.ct_eq(&self.stored_key)).then_some(key)
    }

    fn with(&self, client_key: Secret<[u8; 32]>) -> ScramKey {
        ScramKey {
            iterations: self.iterations,
            salt: self.salt.clone(),
            client_key,
            server_key: Secret::new(self.server_key),
        }
    }
}

/// What Redshift stores of a password with SHA-256: a salt, and the hash of password and salt. It is as good as the
/// password for a login by digest.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestKey {
    /// 1 to 256 bytes.
    pub salt: Vec<u8>,
    /// `SHA256(password salt)`.
    pub hash: Secret<[u8; 32]>,
}

impl DigestKey {
    /// Of `password` with `salt`.
    pub(super) fn derive(password: &[u8], salt: &[u8]) -> Self {
        let hash = Sha256::new().chain_update(password).chain_update(salt).finalize();
        Self {
            salt: salt.to_vec(),
            hash: Secret::new(hash.into()),
        }
    }

    /// What proves that it is known, for one login.
    pub(super) fn proof(&self, server_nonce: &[u8], client_nonce: &[u8]) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.hash.expose())
            .chain_update(server_nonce)
            .chain_update(client_nonce)
            .finalize()
            .into()
    }
}

/// What the gateway logs in with at a backend.
#[derive(Clone, PartialEq, Eq)]
pub enum BackendSecret {
    /// The password.
    Password(Secret<String>),
    /// PostgreSQL's MD5 hash with its prefix `md5`, which a login by MD5 takes for the password.
    Md5(Secret<String>),
    /// Redshift's hash, which a login by digest takes for the password.
    Digest(DigestKey),
    /// SCRAM's keys.
    Scram(ScramKey),
}

impl fmt::Debug for BackendSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

pub(super) fn xor(left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    let mut both = left;
    for (byte, other) in both.iter_mut().zip(right) {
        *byte ^= other;
    }
    both
}

pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `md5` and the hash of password and user, as PostgreSQL stores it.
pub(super) fn md5_hash(password: &[u8], user: &str) -> String {
    format!("md5{}", hex_md5(&[password, user.as_bytes()]))
}

/// What answers an MD5 request with `salt` for the stored form `stored`; `None` where that is none.
pub(super) fn md5_answer(stored: &str, salt: [u8; 4]) -> Option<String> {
    let hash = stored.strip_prefix("md5")?;
    Some(format!("md5{}", hex_md5(&[hash.as_bytes(), &salt])))
}

fn hex_md5(parts: &[&[u8]]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    format!("{:032x}", u128::from_be_bytes(digest.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn the_digest_is_redshifts() {
        // the password and the stored form of the examples of Amazon's page on CREATE USER
        let salt = bytes("c721bff5d9042cf541ff7b9d48fa8a6e545c19a763e3710151f9513038b0f6c6");
        let stored = bytes("821708135fcc42eb3afda85286dee0ed15c2c461d000291609f77eb113073ec2");
        let key = DigestKey::derive(b"Mypassword1", &salt);
        assert_eq!(key.hash.expose().as_slice(), stored);
    }

    #[test]
    fn the_md5_form_is_postgresqls() {
        assert_eq!(md5_hash(b"ana", "old"), "md568e256fda3a5bc363bebdce506974683");
        assert_eq!(hex_md5(&[b""]), "d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn a_verifier_gives_a_key_only_for_its_own_password() {
        let key = ScramKey::derive("geheim", b"salt", 4096);
        let verifier = key.verifier();
        assert!(verifier.key_of("geheim") == Some(key.clone()));
        assert!(verifier.key_of("falsch").is_none());
        let proof = xor(
            *key.client_key.expose(),
            hmac_sha256(&verifier.stored_key, &[b"said"]),
        );
        assert!(verifier.key_in(proof, b"said") == Some(key));
        assert!(verifier.key_in(proof, b"said otherwise").is_none());
    }
}
