//! Login, from both sides, as machines without a socket.
//!
//! What a client is asked for depends on what is stored for its user and on what the client can do; a user that does
//! not exist is asked for the same, and refused with the same words. Sources:
//! <https://www.postgresql.org/docs/current/sasl-authentication.html>, RFC 5802, RFC 7677.

mod backend;
mod credential;
mod exchange;

pub use backend::{BackendLogin, BackendLoginError, LoginStep};
pub use credential::{Credential, CredentialForm};
pub use exchange::{AuthError, Exchange, Method, Progress, method};
