//! One process takes over from another without refusing a client: the sockets on which both accept are handed over, and the
//! old one serves its sessions to their end.
//!
//! The two talk over a Unix socket, `listen.take_over_socket`:
//!
//! 1. the successor asks; the predecessor sends copies of its listening sockets, and where those before it can be reached;
//! 2. the successor sets itself up and says that it is ready; the predecessor stops to accept, stops to use its cache, makes
//!    room at the path, and says go. What connects meanwhile waits in the sockets' queue, which nobody closes;
//! 3. the predecessor stays within reach at a path of its own for cancel requests of its sessions, which clients send to
//!    the successor; the first connection tells by its end that it is gone.
//!
//! Whichever of the two fails before "go", the predecessor goes on as if it had not been asked.

mod letter;
mod predecessor;
mod successor;

pub use predecessor::{Asked, Farewell, Predecessor};
pub use successor::{Predecessors, TakeOverError, TakenOver, take_over};
