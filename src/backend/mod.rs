//! Connections to the warehouse: open them, log in, follow what they owe, cancel what they run.

mod cancel;
pub mod catalog;
mod connect;
mod connection;
pub mod endpoints;
mod error;
mod replies;
mod servers;
mod tls;
mod transport;

pub use cancel::{CancelGate, CancelTarget, cancel};
pub use connect::{Connector, Login, Route, ServerKey};
pub use connection::{AtRest, Connection, Piece};
pub use error::BackendError;
pub use replies::{Asked, Asker, Fate, Replies, Unexpected};
pub use servers::{ServerActivity, ServerCard, Servers};
pub use tls::client_config;
pub use transport::Transport;
