//! One request's way: what it asks, what may answer it, and the bytes in both directions.
//!
//! `session.rs` is the table of contents: plan, look into the cache, admit, bind, run, settle.

mod backend;
mod bind;
mod check;
mod client;
mod conclude;
mod error;
mod endpoints;
mod facts;
mod farewell;
mod following;
mod gateway;
mod listen_tls;
mod judged;
mod local;
mod lookup;
mod no_connection;
mod notice;
mod numbers;
mod observe;
mod outgoing;
mod own;
mod processes;
mod realm;
mod refuse;
mod relay;
mod rename;
mod replay;
mod role;
mod route;
mod run;
mod secrets;
mod series;
mod serve;
mod session;
mod sessions;
mod settle;
mod told;
mod transaction;
mod unread;
mod writes;

pub use backend::{Backend, tcp_options};
pub use client::Client;
pub use endpoints::{Endpoint, EndpointView, Endpoints};
pub use error::ServeError;
pub use gateway::{Gateway, Greeting, ReloadError, Verdicts};
pub use listen_tls::{ALPN, ListenTls};
pub use local::{Answer, Commands, answer_extended, answer_simple};
pub use no_connection::NoConnection;
pub use realm::{Database, GatewayError, Member, Realm, Team, TeamLogin};
pub use session::{Identity, Session, changes_reading};
pub use sessions::{Activity, Login, SessionCard, Sessions, Signals};
