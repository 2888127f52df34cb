//! What is known of a user's password, in every form that it can be checked in.

use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::types::Secret;

/// Iterations of a verifier that is derived here, as PostgreSQL's `scram_iterations`.
const ITERATIONS: u32 = 4096;

/// A SCRAM-SHA-256 verifier: enough to check a password, not enough to log in with.
#[derive(Clone)]
pub(super) struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

/// The form in which a password was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialForm {
    /// A SCRAM-SHA-256 verifier.
    Scram,
    /// PostgreSQL's `md5…`.
    Md5,
    /// The password itself.
    Plain,
}

/// A user's password, ready to be checked; forms that cost work to derive are derived once.
#[derive(Clone)]
pub struct Credential(Stored);

#[derive(Clone)]
enum Stored {
    Scram(Verifier),
    Md5(Secret<String>),
    Plain {
        verifier: Verifier,
        md5: Secret<String>,
        password: Secret<String>,
    },
    Mock {
        form: CredentialForm,
        verifier: Verifier,
        md5: Secret<String>,
    },
}

impl Credential {
    /// From a verifier `SCRAM-SHA-256$iterations:salt$stored:server`, decoded.
    pub fn scram(iterations: u32, salt: Vec<u8>, stored_key: &[u8], server_key: &[u8]) -> Self {
        let (stored_key, server_key) = (stored_key.to_vec(), server_key.to_vec());
        Self(Stored::Scram(Verifier {
            iterations,
            salt,
            stored_key,
            server_key,
        }))
    }

    /// From `md5` and 32 hexadecimal digits.
    pub fn md5(hash: Secret<String>) -> Self {
        Self(Stored::Md5(hash))
    }

    /// From the password itself. Costs some milliseconds, for the verifier that SCRAM needs.
    pub fn plain(user: &str, password: Secret<String>) -> Self {
        let salt: [u8; 16] = rand::random();
        let verifier = derive(password.expose(), &salt, ITERATIONS);
        let md5 = Secret::new(md5_hash(password.expose(), user));
        Self(Stored::Plain {
            verifier,
            md5,
            password,
        })
    }

    /// For a user that does not exist: no password fits, it is asked for as if it were stored in `form`, and the salt
    /// stays the same from attempt to attempt, as `mock_scram_secret` of PostgreSQL has it.
    pub fn mock(user: &str, form: CredentialForm) -> Self {
        static NONCE: OnceLock<[u8; 32]> = OnceLock::new();
        let nonce = NONCE.get_or_init(rand::random);
        let salt = hmac_sha256(nonce, user.as_bytes())
            .get(..16)
            .unwrap_or_default()
            .to_vec();
        // random keys that nothing was derived from
        let (stored_key, server_key): ([u8; 32], [u8; 32]) = (rand::random(), rand::random());
        let verifier = Verifier {
            iterations: ITERATIONS,
            salt,
            stored_key: stored_key.to_vec(),
            server_key: server_key.to_vec(),
        };
        let md5 = Secret::new(format!("md5{:032x}", rand::random::<u128>()));
        Self(Stored::Mock { form, verifier, md5 })
    }

    /// The form it was stored in.
    pub fn form(&self) -> CredentialForm {
        match self.0 {
            Stored::Scram(_) => CredentialForm::Scram,
            Stored::Md5(_) => CredentialForm::Md5,
            Stored::Plain { .. } => CredentialForm::Plain,
            Stored::Mock { form, .. } => form,
        }
    }

    pub(super) fn verifier(&self) -> Option<&Verifier> {
        match &self.0 {
            Stored::Scram(verifier) | Stored::Plain { verifier, .. } | Stored::Mock { verifier, .. } => {
                Some(verifier)
            }
            Stored::Md5(_) => None,
        }
    }

    /// The `md5…` hash, for the MD5 exchange.
    pub(super) fn md5_stored(&self) -> Option<&str> {
        match &self.0 {
            Stored::Md5(hash) | Stored::Plain { md5: hash, .. } | Stored::Mock { md5: hash, .. } => {
                Some(hash.expose())
            }
            Stored::Scram(_) => None,
        }
    }

    /// Whether `password`, sent in clear, is the one.
    pub(super) fn accepts(&self, user: &str, password: &[u8]) -> bool {
        match &self.0 {
            Stored::Plain { password: stored, .. } => stored.expose().as_bytes().ct_eq(password).into(),
            Stored::Md5(hash) => match std::str::from_utf8(password) {
                Ok(password) => md5_hash(password, user)
                    .as_bytes()
                    .ct_eq(hash.expose().as_bytes())
                    .into(),
                Err(_) => false,
            },
            Stored::Mock {
                form: CredentialForm::Md5 | CredentialForm::Plain,
                ..
            } => false,
            Stored::Scram(verifier) | Stored::Mock { verifier, .. } => {
                // the same work for a user that does not exist, so that time does not tell
                let Ok(password) = std::str::from_utf8(password) else {
                    return false;
                };
                let derived = derive(password, &verifier.salt, verifier.iterations);
                derived.stored_key.ct_eq(&verifier.stored_key).into()
            }
        }
    }
}

fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
    // a password that SASLprep refuses is used as it is, as PostgreSQL does
    let prepared = stringprep::saslprep(password).unwrap_or(std::borrow::Cow::Borrowed(password));
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(prepared.as_bytes(), salt, iterations, &mut salted);
    let client_key = hmac_sha256(&salted, b"Client Key");
    let stored_key = Sha256::digest(&client_key).to_vec();
    Verifier {
        iterations,
        salt: salt.to_vec(),
        stored_key,
        server_key: hmac_sha256(&salted, b"Server Key"),
    }
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// `md5` and the hash of password and user, as PostgreSQL stores it.
fn md5_hash(password: &str, user: &str) -> String {
    format!("md5{}", hex_md5(&[password.as_bytes(), user.as_bytes()]))
}

/// The MD5 digest of `parts` one after the other, in hexadecimal.
pub(super) fn hex_md5(parts: &[&[u8]]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    format!("{:032x}", u128::from_be_bytes(digest.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clear_password_is_checked_against_every_form() {
        let plain = Credential::plain("ana", Secret::new("geheim".to_owned()));
        let verifier = plain.verifier().unwrap().clone();
        let scram = Credential::scram(
            verifier.iterations,
            verifier.salt.clone(),
            &verifier.stored_key,
            &verifier.server_key,
        );
        let md5 = Credential::md5(Secret::new(md5_hash("geheim", "ana")));
        for credential in [plain, scram, md5] {
            assert!(credential.accepts("ana", b"geheim"), "{:?}", credential.form());
            assert!(!credential.accepts("ana", b"Geheim"), "{:?}", credential.form());
            assert!(!credential.accepts("ana", b""), "{:?}", credential.form());
        }
        assert!(!Credential::mock("ana", CredentialForm::Scram).accepts("ana", b"geheim"));
    }

    #[test]
    fn a_user_that_does_not_exist_has_the_same_salt_at_each_attempt() {
        let salt = |user| {
            Credential::mock(user, CredentialForm::Scram)
                .verifier()
                .unwrap()
                .salt
                .clone()
        };
        assert_eq!(salt("nobody"), salt("nobody"));
        assert_ne!(salt("nobody"), salt("somebody"));
    }

    #[test]
    fn the_md5_form_is_postgresqls() {
        // PostgreSQL 15: SET password_encryption = md5; CREATE ROLE ana PASSWORD 'ana'
        assert_eq!(md5_hash("ana", "ana"), format!("md5{}", hex_md5(&[b"anaana"])));
        assert_eq!(hex_md5(&[b""]), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
