//! The client's side: accept, protect, log in, and hand over to a session or to the console.

mod attempts;
mod cancel;
mod connection;
mod console;
mod error;
mod handover;
mod listener;
mod login;
mod places;
mod stream;
mod workers;

pub use connection::Frontend;
pub use handover::{Asked, Farewell, Predecessor, Predecessors, TakeOverError, TakenOver, take_over};
pub use listener::{Listener, adopt, bind};
pub use places::Places;
pub use stream::ClientStream;
pub use workers::{Runtimes, Workers};
