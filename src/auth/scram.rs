//! SCRAM-SHA-256 from both sides, with channel binding and without (RFC 5802, RFC 7677, RFC 5929).
//!
//! Both sides are here because both need the keys themselves: the gateway takes a user's key from the proof of its login,
//! and logs in with it as that user at the backend.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq;

use super::keys::{ScramKey, Verifier, hmac_sha256, xor};
use crate::types::Secret;

/// The mechanism without channel binding.
pub(super) const PLAIN: &str = "SCRAM-SHA-256";

/// The mechanism with it.
pub(super) const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The only kind of channel binding that PostgreSQL has.
const END_POINT: &str = "p=tls-server-end-point";

/// More rounds than that no server asks for in earnest. They are counted on a thread that serves others too: so many take
/// some tenths of a second.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Why an exchange fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Not the proof of the password.
    #[error("the password is wrong")]
    Proof,
    /// A message that the protocol does not have here.
    #[error("malformed SCRAM message ({0})")]
    Malformed(&'static str),
    /// The client was made to believe that there is no channel binding.
    #[error("the client believes that there is no channel binding here, and there is")]
    Downgrade,
    /// The two ends of the encrypted connection are not one connection.
    #[error("SCRAM channel binding check failed")]
    Binding,
    /// The server does not know the password.
    #[error("the server could not prove that it knows the password")]
    Server,
    /// The server asks for more work than a login may cost.
    #[error("the server asks for {0} rounds of SCRAM, and {MAX_ITERATIONS} are the most that are done")]
    Rounds(u64),
    /// The key was learnt from another verifier.
    #[error(
        "the server's salt or iterations are not those that the gateway knows: the password was changed, or is no longer \
         valid"
    )]
    OtherVerifier,
}

/// The server's side, which waits for the client's first message.
pub(super) struct Server {
    /// The hash of the certificate that the client sees; `None` where there is no channel binding.
    binding: Option<Vec<u8>>,
}

/// The server's side, which waits for the client's proof.
pub(super) struct Challenged {
    verifier: Verifier,
    /// What the client must repeat, in base64.
    header: String,
    nonce: String,
    /// Both first messages, with a comma between and behind.
    transcript: String,
}

impl Server {
    pub(super) fn new(binding: Option<Vec<u8>>) -> Self {
        Self { binding }
    }

    /// The mechanisms to offer, the best first.
    pub(super) fn mechanisms(&self) -> Vec<String> {
        match self.binding {
            Some(_) => vec![PLUS.to_owned(), PLAIN.to_owned()],
            None => vec![PLAIN.to_owned()],
        }
    }

    /// Takes the client's first message by `mechanism`; gives the answer.
    pub(super) fn challenge(
        self,
        mechanism: &[u8],
        message: &[u8],
        verifier: Verifier,
    ) -> Result<(String, Challenged), ScramError> {
        let nonce = BASE64.encode(rand::random::<[u8; 18]>());
        self.challenge_with(mechanism, message, verifier, &nonce)
    }

    fn challenge_with(
        self,
        mechanism: &[u8],
        message: &[u8],
        verifier: Verifier,
        own_nonce: &str,
    ) -> Result<(String, Challenged), ScramError> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (flag, identity) = (parts.next().unwrap_or_default(), parts.next());
        let bare = parts.next().ok_or(ScramError::Malformed("no name"))?;
        if identity != Some("") {
            return Err(ScramError::Malformed("another identity is not supported"));
        }
        let mut bound = format!("{flag},,").into_bytes();
        match (flag, mechanism, &self.binding) {
            (END_POINT, mechanism, Some(hash)) if mechanism == PLUS.as_bytes() => bound.extend(hash),
            ("y", mechanism, None) if mechanism == PLAIN.as_bytes() => {}
            ("y", mechanism, Some(_)) if mechanism == PLAIN.as_bytes() => return Err(ScramError::Downgrade),
            ("n", mechanism, _) if mechanism == PLAIN.as_bytes() => {}
            _ => {
                return Err(ScramError::Malformed(
                    "channel binding does not fit the mechanism",
                ));
            }
        }
        let mut attributes = bare.split(',');
        // the name is that of the start-up packet, as PostgreSQL has it
        attribute(attributes.next(), "n=")?;
        let client_nonce = attribute(attributes.next(), "r=")?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Malformed("nonce"));
        }
        let nonce = format!("{client_nonce}{own_nonce}");
        let answer = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&verifier.salt),
            verifier.iterations
        );
        let transcript = format!("{bare},{answer},");
        let challenged = Challenged {
            verifier,
            header: BASE64.encode(bound),
            nonce,
            transcript,
        };
        Ok((answer, challenged))
    }
}

impl Challenged {
    /// Takes the client's proof; gives the answer and the key that the proof shows.
    pub(super) fn verify(&self, message: &[u8]) -> Result<(String, ScramKey), ScramError> {
        let message = text(message)?;
        let (unproved, proof) = message
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed("no proof"))?;
        let mut attributes = unproved.split(',');
        let header = attribute(attributes.next(), "c=")?;
        if !bool::from(header.as_bytes().ct_eq(self.header.as_bytes())) {
            return Err(ScramError::Binding);
        }
        if attribute(attributes.next(), "r=")? != self.nonce {
            return Err(ScramError::Malformed("nonce"));
        }
        let proof = decoded(proof)?;
        let transcript = format!("{}{unproved}", self.transcript);
        let key = self
            .verifier
            .key_in(proof, transcript.as_bytes())
            .ok_or(ScramError::Proof)?;
        let signature = hmac_sha256(&self.verifier.server_key, &[transcript.as_bytes()]);
        Ok((format!("v={}", BASE64.encode(signature)), key))
    }
}

/// What a client logs in with.
pub(super) enum Known<'a> {
    Password(&'a str),
    Key(&'a ScramKey),
}

/// The client's side, which waits for the server's challenge.
pub(super) struct Client {
    header: &'static str,
    binding: Option<Vec<u8>>,
    nonce: String,
}

/// The client's side, which waits for the server's signature.
pub(super) struct Proved {
    signature: [u8; 32],
}

impl Client {
    /// Begins with one of the mechanisms that the server `offered`; `binding` is the hash of the server's certificate,
    /// where there is TLS. Gives the mechanism and the first message.
    pub(super) fn begin(
        offered: &[&[u8]],
        binding: Option<Vec<u8>>,
    ) -> Result<(Self, &'static str, String), ScramError> {
        let has = |mechanism: &str| offered.contains(&mechanism.as_bytes());
        let (mechanism, header, binding) = match binding {
            Some(hash) if has(PLUS) => (PLUS, "p=tls-server-end-point,,", Some(hash)),
            // says so, that somebody between who took the better mechanism off the list is found out
            Some(_) if has(PLAIN) => (PLAIN, "y,,", None),
            None if has(PLAIN) => (PLAIN, "n,,", None),
            Some(_) | None => return Err(ScramError::Malformed("no mechanism that is supported")),
        };
        let nonce = BASE64.encode(rand::random::<[u8; 18]>());
        let first = format!("{header}n=,r={nonce}");
        let client = Self {
            header,
            binding,
            nonce,
        };
        Ok((client, mechanism, first))
    }

    /// Takes the challenge; gives the proof.
    pub(super) fn prove(self, message: &[u8], known: &Known<'_>) -> Result<(String, Proved), ScramError> {
        let challenge = text(message)?;
        let mut attributes = challenge.split(',');
        let nonce = attribute(attributes.next(), "r=")?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Malformed("nonce"));
        }
        let salt = BASE64
            .decode(attribute(attributes.next(), "s=")?)
            .map_err(|_| ScramError::Malformed("salt"))?;
        let iterations = rounds(attribute(attributes.next(), "i=")?)?;
        let derived;
        let key = match known {
            Known::Password(password) => {
                derived = ScramKey::derive(password, &salt, iterations);
                &derived
            }
            Known::Key(key) if key.salt == salt && key.iterations == iterations => key,
            Known::Key(_) => return Err(ScramError::OtherVerifier),
        };
        let mut bound = self.header.as_bytes().to_vec();
        bound.extend(self.binding.unwrap_or_default());
        let unproved = format!("c={},r={nonce}", BASE64.encode(bound));
        let transcript = format!("n=,r={},{challenge},{unproved}", self.nonce);
        let verifier = key.verifier();
        let client_signature = hmac_sha256(&verifier.stored_key, &[transcript.as_bytes()]);
        let proof = Secret::new(xor(*key.client_key.expose(), client_signature));
        let answer = format!("{unproved},p={}", BASE64.encode(proof.expose()));
        let signature = hmac_sha256(&verifier.server_key, &[transcript.as_bytes()]);
        Ok((answer, Proved { signature }))
    }
}

impl Proved {
    /// Takes the server's signature.
    pub(super) fn check(&self, message: &[u8]) -> Result<(), ScramError> {
        let signature: [u8; 32] = decoded(attribute(text(message)?.split(',').next(), "v=")?)?;
        if bool::from(signature.ct_eq(&self.signature)) {
            Ok(())
        } else {
            Err(ScramError::Server)
        }
    }
}

/// How many rounds the server asks for.
fn rounds(digits: &str) -> Result<u32, ScramError> {
    let asked: u64 = digits
        .parse()
        .ok()
        .filter(|asked| *asked > 0)
        .ok_or(ScramError::Malformed("iterations"))?;
    u32::try_from(asked)
        .ok()
        .filter(|rounds| *rounds <= MAX_ITERATIONS)
        .ok_or(ScramError::Rounds(asked))
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))
}

fn attribute<'m>(part: Option<&'m str>, name: &'static str) -> Result<&'m str, ScramError> {
    part.and_then(|part| part.strip_prefix(name))
        .ok_or(ScramError::Malformed(name))
}

fn decoded(text: &str) -> Result<[u8; 32], ScramError> {
    BASE64
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(ScramError::Malformed("not 32 bytes in base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ScramKey {
        ScramKey::derive("geheim", b"0123456789abcdef", 4096)
    }

    /// One exchange; what the server and the client are bound to.
    fn exchange(
        known: &Known<'_>,
        ours: Option<&[u8]>,
        theirs: Option<&[u8]>,
    ) -> Result<ScramKey, ScramError> {
        let server = Server::new(ours.map(<[u8]>::to_vec));
        let offered = server.mechanisms();
        let offered: Vec<&[u8]> = offered.iter().map(String::as_bytes).collect();
        let (client, mechanism, first) = Client::begin(&offered, theirs.map(<[u8]>::to_vec))?;
        let (challenge, challenged) =
            server.challenge(mechanism.as_bytes(), first.as_bytes(), key().verifier())?;
        let (proof, proved) = client.prove(challenge.as_bytes(), known)?;
        let (signature, key) = challenged.verify(proof.as_bytes())?;
        proved.check(signature.as_bytes())?;
        Ok(key)
    }

    #[test]
    fn the_exchange_of_the_rfc_is_reproduced() {
        // RFC 7677, section 3; PostgreSQL's clients leave the name empty, servers do not look at it
        let key = ScramKey::derive(
            "pencil",
            &BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            4096,
        );
        let (challenge, challenged) = Server::new(None)
            .challenge_with(
                PLAIN.as_bytes(),
                b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
                key.verifier(),
                "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            )
            .unwrap();
        assert_eq!(
            challenge,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let (signature, learnt) = challenged
            .verify(
                b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                  p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            )
            .unwrap();
        assert_eq!(signature, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(learnt == key);
    }

    #[test]
    fn a_password_and_the_key_that_a_login_shows_both_log_in() {
        for (ours, theirs) in [
            (None, None),
            (Some(&b"hash"[..]), Some(&b"hash"[..])),
            // a client without channel binding
            (Some(b"hash"), None),
            // a server without it
            (None, Some(b"hash")),
        ] {
            let learnt = exchange(&Known::Password("geheim"), ours, theirs).unwrap();
            assert!(learnt == key());
            assert!(exchange(&Known::Key(&learnt), ours, theirs).is_ok());
            let wrong = exchange(&Known::Password("falsch"), ours, theirs);
            assert_eq!(wrong.err(), Some(ScramError::Proof), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn somebody_between_is_found_out() {
        let known = Known::Password("geheim");
        // two connections with two certificates
        assert_eq!(
            exchange(&known, Some(b"ours"), Some(b"another")).err(),
            Some(ScramError::Binding)
        );
        // the better mechanism was taken off the list
        let (_, mechanism, first) = Client::begin(&[PLAIN.as_bytes()], Some(b"hash".to_vec())).unwrap();
        let answer = Server::new(Some(b"hash".to_vec())).challenge(
            mechanism.as_bytes(),
            first.as_bytes(),
            key().verifier(),
        );
        assert_eq!(answer.err(), Some(ScramError::Downgrade));
        // a server that does not know the verifier
        let (client, _, first) = Client::begin(&[PLAIN.as_bytes()], None).unwrap();
        let (challenge, _) = Server::new(None)
            .challenge(PLAIN.as_bytes(), first.as_bytes(), key().verifier())
            .unwrap();
        let (_, proved) = client.prove(challenge.as_bytes(), &known).unwrap();
        let invented = format!("v={}", BASE64.encode([7; 32]));
        assert_eq!(proved.check(invented.as_bytes()), Err(ScramError::Server));
    }

    #[test]
    fn a_key_of_another_verifier_says_so() {
        let other = ScramKey::derive("geheim", b"another salt", 4096);
        assert_eq!(
            exchange(&Known::Key(&other), None, None).err(),
            Some(ScramError::OtherVerifier)
        );
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for (mechanism, first) in [
            (PLAIN, ""),
            (PLAIN, "n,,"),
            (PLAIN, "n,,n=,r="),
            (PLAIN, "n,,n=,x=abc"),
            (PLAIN, "n,a=root,n=,r=abc"),
            (PLAIN, "n,,m=ext,n=,r=abc"),
            (PLAIN, "p=tls-server-end-point,,n=,r=abc"),
            (PLAIN, "p=tls-unique,,n=,r=abc"),
            (PLUS, "n,,n=,r=abc"),
            (PLUS, "p=tls-unique,,n=,r=abc"),
            ("OTHER", "n,,n=,r=abc"),
        ] {
            for binding in [None, Some(b"hash".to_vec())] {
                let answer =
                    Server::new(binding).challenge(mechanism.as_bytes(), first.as_bytes(), key().verifier());
                assert!(
                    matches!(answer, Err(ScramError::Malformed(_))),
                    "{mechanism} {first}"
                );
            }
        }
        let challenged = || {
            let server = Server::new(None);
            server
                .challenge_with(PLAIN.as_bytes(), b"n,,n=,r=abc", key().verifier(), "def")
                .unwrap()
                .1
        };
        for last in [
            "",
            "c=biws,r=abcdef",
            "c=biws,r=abc,p=AAAA",
            "c=biws,r=abcdef,p=AAAA",
            "r=abcdef,p=x",
        ] {
            assert!(
                matches!(
                    challenged().verify(last.as_bytes()),
                    Err(ScramError::Malformed(_))
                ),
                "{last}"
            );
        }
        assert_eq!(
            challenged().verify(b"c=eSws,r=abcdef,p=AAAA").err(),
            Some(ScramError::Binding)
        );
        for challenge in [
            "",
            "r=x,s=AAAA,i=1",
            "e=no",
            "r=NONCEx,s=?,i=1",
            "r=NONCEx,s=AAAA,i=0",
            "r=NONCEx,s=AAAA,i=-1",
            "r=NONCEx,s=AAAA,i=99999999999999999999",
        ] {
            let proof = answer_to(challenge);
            assert!(matches!(proof, Err(ScramError::Malformed(_))), "{challenge}");
        }
    }

    /// What a client says to a challenge, in which NONCE stands for its own.
    fn answer_to(challenge: &str) -> Result<(), ScramError> {
        let (client, _, _) = Client::begin(&[PLAIN.as_bytes()], None).unwrap();
        let message = challenge.replace("NONCE", &client.nonce);
        let proof = client.prove(message.as_bytes(), &Known::Password("geheim"));
        proof.map(drop)
    }

    #[test]
    fn a_server_that_asks_for_endless_work_is_refused_before_any_is_done() {
        assert_eq!(answer_to("r=NONCEx,s=AAAA,i=4096"), Ok(()));
        for asked in [1_000_001, 2_147_483_647, u64::MAX] {
            assert_eq!(
                answer_to(&format!("r=NONCEx,s=AAAA,i={asked}")),
                Err(ScramError::Rounds(asked))
            );
        }
        assert_eq!(
            ScramError::Rounds(2_147_483_647).to_string(),
            "the server asks for 2147483647 rounds of SCRAM, and 1000000 are the most that are done"
        );
    }
}
