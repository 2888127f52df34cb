//! Connections to the warehouse: open them, log in, follow what they owe, cancel what they run.

mod cancel;
pub mod catalog;
mod command_password;
mod connect;
mod connection;
pub mod endpoints;
mod error;
mod replies;
mod reset;
mod secrets;
mod servers;
mod statements;
mod tls;
mod transport;

pub use cancel::{CancelGate, CancelTarget, cancel};
pub use command_password::{CommandError, CommandPassword};
pub use connect::{Connector, Route, ServerKey};
pub use connection::{AtRest, Connection, Piece};
pub use error::BackendError;
pub use replies::{Asked, Asker, Fate, Replies, Unexpected};
pub use reset::{Remains, Reset};
pub use secrets::{Learnt, SecretSource, Secrets};
pub use servers::{ServerActivity, ServerCard, Servers};
pub use statements::{NOBODYS, StatementNumber, Statements, is_shared_name};
pub use tls::client_config;
pub use transport::{TcpOptions, Transport};
