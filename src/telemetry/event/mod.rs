//! Events: what happened, told once as a log line and as metrics, from the same fields.
//!
//! Levels: ERROR, somebody must act; WARN, unexpected, and the gateway went on; INFO, a change of state; DEBUG, what belongs
//! to one request or connection. Text that a client or backend made is quoted, so it cannot forge a line.

mod gateway;
mod request;
mod session;

use std::time::Duration;

pub use gateway::{
    BackendConnected, BackendLost, BackendUnreachable, CircuitClosed, CircuitOpened, ConfigRejected,
    ConfigReloaded, Draining, EndpointDown, EndpointUp, Listening, PasswordCommandFailed, PasswordRenewed,
    PrimaryMoved, TakenOverBy,
};
pub use request::{QuotaRefused, RequestEnd, RequestFinished};
pub use session::{
    CancelRequested, ConsoleCommanded, LoginRefused, SessionClosed, SessionOpened, SessionPinned,
};

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// An error with its causes, on one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
