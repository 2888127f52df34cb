//! Login, from both sides, as machines without a socket.
//!
//! What a client is asked for depends on what is stored for its user and on what the client can do; a user that does
//! not exist is asked for the same, and refused with the same words. Sources:
//! <https://www.postgresql.org/docs/current/sasl-authentication.html>, RFC 5802, RFC 7677.

mod backend;
mod certificate;
mod credential;
mod exchange;
mod keys;
mod scram;

pub use backend::{BackendLogin, BackendLoginError, Link, LoginStep};
pub use certificate::{common_name, end_point_hash};
pub use credential::{Credential, CredentialForm};
pub use exchange::{AuthError, Client, Exchange, Method, Progress, Proven, method};
pub use keys::{BackendSecret, DigestKey, ScramKey};
pub use scram::ScramError;
