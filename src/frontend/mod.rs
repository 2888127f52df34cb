//! The client's side: accept, protect, log in, and hand over to a session or to the console.

mod attempts;
mod cancel;
mod connection;
mod console;
mod error;
mod listener;
mod login;
mod places;
mod stream;
mod workers;

pub use connection::Frontend;
pub use listener::{Listener, bind};
pub use places::Places;
pub use stream::ClientStream;
pub use workers::{Runtimes, Workers};
