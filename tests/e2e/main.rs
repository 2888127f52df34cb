//! The gateway as its clients meet it: the built program before a real PostgreSQL, asked by real clients and byte by byte.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "this is a test"
)]

#[path = "../support/mod.rs"]
mod support;

/// Tests that differ in what one function is called with.
macro_rules! each {
    ($check:ident: $($name:ident = $case:expr;)+) => {
        $(#[test]
        fn $name() {
            $check($case);
        })+
    };
}

mod script;
mod stage;

mod backend_login;
mod cache;
mod cancel;
mod compat;
mod console;
mod drivers;
mod encryption;
mod failover;
mod faults;
mod flights;
mod ha;
mod hidden_code;
mod hidden_writes;
mod invalidation;
mod leftovers;
mod login;
mod numbers;
mod operations;
mod own_settings;
mod pool;
mod processes;
mod property;
mod quota;
mod readers;
mod relay;
mod security;
mod sessions;
mod strangers;
mod streaming;
mod traps;
mod wire_random;
mod wire_scripts;
mod words;
