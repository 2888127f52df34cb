//! One request's way: what it asks, what may answer it, and the bytes in both directions.
//!
//! `session.rs` is the table of contents: plan, look into the cache, admit, bind, run, settle.

mod client;
mod conclude;
mod error;
mod endpoints;
mod facts;
mod farewell;
mod gateway;
mod listen_tls;
mod judged;
mod local;
mod lookup;
mod observe;
mod own;
mod realm;
mod relay;
mod replay;
mod route;
mod run;
mod serve;
mod session;
mod sessions;
mod settle;
mod writes;

pub use client::Client;
pub use endpoints::{Endpoint, EndpointView, Endpoints};
pub use error::ServeError;
pub use gateway::{Gateway, Greeting, ReloadError, Verdicts};
pub use local::{Answer, Commands, answer_extended, answer_simple};
pub use realm::{Backend, Database, GatewayError, Member, Realm, Team, keepalive};
pub use session::{Identity, Session, changes_reading};
pub use sessions::{Activity, Login, SessionCard, Sessions, Signals};
