//! What is known of a user's password, in every form that it can be checked in.

use std::sync::OnceLock;

use subtle::ConstantTimeEq;

use super::keys::{BackendSecret, DigestKey, ScramKey, Verifier, hmac_sha256, md5_hash};
use crate::types::Secret;

/// Iterations of a verifier that is derived here, as PostgreSQL's `scram_iterations`.
const ITERATIONS: u32 = 4096;

/// The form in which a password was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialForm {
    /// A SCRAM-SHA-256 verifier.
    Scram,
    /// PostgreSQL's `md5…`.
    Md5,
    /// Redshift's `sha256|…`.
    Digest,
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
    Digest(DigestKey),
    Plain(Derived<Secret<String>>),
    Mock(Derived<CredentialForm>),
}

/// Every form, and where they come from.
#[derive(Clone)]
struct Derived<T> {
    verifier: Verifier,
    md5: Secret<String>,
    digest: DigestKey,
    from: T,
}

impl Credential {
    /// From a verifier `SCRAM-SHA-256$iterations:salt$stored:server`, decoded.
    pub fn scram(iterations: u32, salt: Vec<u8>, stored_key: [u8; 32], server_key: [u8; 32]) -> Self {
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

    /// From `sha256|hash|salt`, decoded.
    pub fn digest(key: DigestKey) -> Self {
        Self(Stored::Digest(key))
    }

    /// From the password itself. Costs some milliseconds, for the verifier that SCRAM needs.
    pub fn plain(user: &str, password: Secret<String>) -> Self {
        let salt: [u8; 16] = rand::random();
        let bytes = password.expose().as_bytes();
        Self(Stored::Plain(Derived {
            verifier: ScramKey::derive(password.expose(), &salt, ITERATIONS).verifier(),
            md5: Secret::new(md5_hash(bytes, user)),
            digest: DigestKey::derive(bytes, &rand::random::<[u8; 32]>()),
            from: password,
        }))
    }

    /// For a user that does not exist: no password fits, it is asked for as if it were stored in `form`, and the salt
    /// stays the same from attempt to attempt, as `mock_scram_secret` of PostgreSQL has it.
    pub fn mock(user: &str, form: CredentialForm) -> Self {
        static NONCE: OnceLock<[u8; 32]> = OnceLock::new();
        let nonce = NONCE.get_or_init(rand::random);
        let salt = |of: &[u8]| hmac_sha256(nonce, &[of, user.as_bytes()]).to_vec();
        let mut short = salt(b"scram");
        short.truncate(16);
        Self(Stored::Mock(Derived {
            // random keys that nothing was derived from
            verifier: Verifier {
                iterations: ITERATIONS,
                salt: short,
                stored_key: rand::random(),
                server_key: rand::random(),
            },
            md5: Secret::new(format!("md5{:032x}", rand::random::<u128>())),
            digest: DigestKey {
                salt: salt(b"digest"),
                hash: Secret::new(rand::random()),
            },
            from: form,
        }))
    }

    /// The form it was stored in.
    pub fn form(&self) -> CredentialForm {
        match &self.0 {
            Stored::Scram(_) => CredentialForm::Scram,
            Stored::Md5(_) => CredentialForm::Md5,
            Stored::Digest(_) => CredentialForm::Digest,
            Stored::Plain(_) => CredentialForm::Plain,
            Stored::Mock(mock) => mock.from,
        }
    }

    pub(super) fn verifier(&self) -> Option<&Verifier> {
        match &self.0 {
            Stored::Scram(verifier) => Some(verifier),
            Stored::Plain(all) => Some(&all.verifier),
            Stored::Mock(all) => Some(&all.verifier),
            Stored::Md5(_) | Stored::Digest(_) => None,
        }
    }

    /// The `md5…` hash, for the MD5 exchange.
    pub(super) fn md5_stored(&self) -> Option<&str> {
        match &self.0 {
            Stored::Md5(hash) => Some(hash.expose()),
            Stored::Plain(all) => Some(all.md5.expose()),
            Stored::Mock(all) => Some(all.md5.expose()),
            Stored::Scram(_) | Stored::Digest(_) => None,
        }
    }

    /// For the exchange by digest.
    pub(super) fn digest_key(&self) -> Option<&DigestKey> {
        match &self.0 {
            Stored::Digest(key) => Some(key),
            Stored::Plain(all) => Some(&all.digest),
            Stored::Mock(all) => Some(&all.digest),
            Stored::Scram(_) | Stored::Md5(_) => None,
        }
    }

    /// Whether `password`, sent in clear, is the one; then what a login at a backend can be made with.
    pub(super) fn accepts(&self, user: &str, password: &[u8]) -> Option<BackendSecret> {
        let equal = |left: &[u8], right: &[u8]| bool::from(left.ct_eq(right));
        let matches = match &self.0 {
            Stored::Plain(all) => equal(all.from.expose().as_bytes(), password),
            Stored::Md5(hash) => equal(md5_hash(password, user).as_bytes(), hash.expose().as_bytes()),
            Stored::Digest(key) => digest_of(key, password),
            Stored::Scram(verifier) => return scram_of(verifier, password),
            // the same work for a user that does not exist, so that time does not tell
            Stored::Mock(mock) => match mock.from {
                CredentialForm::Scram => return scram_of(&mock.verifier, password),
                CredentialForm::Digest => digest_of(&mock.digest, password),
                CredentialForm::Md5 | CredentialForm::Plain => false,
            },
        };
        matches.then(|| self.stored_secret()).flatten()
    }

    /// What the stored form itself can log in with at a backend; nothing where it only checks.
    pub(super) fn stored_secret(&self) -> Option<BackendSecret> {
        match &self.0 {
            Stored::Plain(all) => Some(BackendSecret::Password(all.from.clone())),
            Stored::Md5(hash) => Some(BackendSecret::Md5(hash.clone())),
            Stored::Digest(key) => Some(BackendSecret::Digest(key.clone())),
            Stored::Scram(_) | Stored::Mock(_) => None,
        }
    }
}

fn digest_of(key: &DigestKey, password: &[u8]) -> bool {
    let derived = DigestKey::derive(password, &key.salt);
    derived.hash.expose().ct_eq(key.hash.expose()).into()
}

fn scram_of(verifier: &Verifier, password: &[u8]) -> Option<BackendSecret> {
    let password = std::str::from_utf8(password).ok()?;
    verifier.key_of(password).map(BackendSecret::Scram)
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
            verifier.stored_key,
            verifier.server_key,
        );
        let md5 = Credential::md5(Secret::new(md5_hash(b"geheim", "ana")));
        let digest = Credential::digest(DigestKey::derive(b"geheim", b"salt"));
        for credential in [plain, scram, md5, digest] {
            let accepts = |password: &[u8]| credential.accepts("ana", password).is_some();
            assert!(accepts(b"geheim"), "{:?}", credential.form());
            for wrong in [&b"Geheim"[..], b"", b"\xff"] {
                assert!(!accepts(wrong), "{:?}", credential.form());
            }
            assert!(
                Credential::mock("ana", credential.form())
                    .accepts("ana", b"geheim")
                    .is_none()
            );
        }
    }

    #[test]
    fn a_user_that_does_not_exist_has_the_same_salt_at_each_attempt() {
        let salts = |user| {
            let mock = Credential::mock(user, CredentialForm::Scram);
            let digest = mock.digest_key().unwrap().salt.clone();
            (mock.verifier().unwrap().salt.clone(), digest)
        };
        assert_eq!(salts("nobody"), salts("nobody"));
        assert_ne!(salts("nobody").0, salts("somebody").0);
        assert_ne!(salts("nobody").1, salts("somebody").1);
    }
}
