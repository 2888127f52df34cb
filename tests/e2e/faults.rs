//! What breaks, at every moment: the backend, the client, the network between them; storms of clients and of cancel
//! requests; bytes that are no protocol. After each nothing may be left behind.

mod backend;
mod client;
mod garbage;
mod in_flight;
mod moment;
mod network;
pub(crate) mod rest;
mod storms;
