//! Why a request got no backend connection, in words for its client.

use std::time::Duration;

use crate::backend::BackendError;
use crate::error::{ClientError, SqlState};
use crate::pool::{CheckoutError, Jam, Short};
use crate::types::BackendName;

/// Why a request got no backend connection.
#[derive(Debug)]
pub struct NoConnection {
    backend: BackendName,
    error: CheckoutError<BackendError>,
}

impl NoConnection {
    /// What a checkout from `backend`'s pool said.
    pub fn new(backend: BackendName, error: CheckoutError<BackendError>) -> Self {
        Self { backend, error }
    }

    /// Why a connection could not be opened for this very request.
    pub fn attempt(&self) -> Option<&BackendError> {
        match &self.error {
            CheckoutError::Connect(error) => Some(error),
            CheckoutError::Timeout { .. } | CheckoutError::Held(_) => None,
        }
    }

    /// Why a connection could not be opened, now or a short while ago.
    pub fn cause(&self) -> Option<&BackendError> {
        match &self.error {
            CheckoutError::Connect(error) => Some(error),
            CheckoutError::Held(hold) => Some(&hold.last),
            CheckoutError::Timeout { .. } => None,
        }
    }
}

impl std::fmt::Display for NoConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backend = &self.backend;
        match &self.error {
            CheckoutError::Timeout { patience, .. } => {
                write!(
                    f,
                    "no connection to backend \"{backend}\" became free within {patience:?}"
                )
            }
            CheckoutError::Held(hold) if hold.circuit_open => {
                write!(f, "backend \"{backend}\" does not answer")
            }
            CheckoutError::Connect(error) => error.fmt(f),
            CheckoutError::Held(hold) => hold.last.fmt(f),
        }
    }
}

impl std::error::Error for NoConnection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().and_then(|error| error.source())
    }
}

impl ClientError for NoConnection {
    fn sqlstate(&self) -> SqlState {
        self.cause()
            .map_or(SqlState::TOO_MANY_CONNECTIONS, ClientError::sqlstate)
    }

    fn detail(&self) -> Option<String> {
        match &self.error {
            CheckoutError::Timeout { jam, .. } => Some(in_use(jam)),
            CheckoutError::Held(hold) if hold.circuit_open => {
                let why = hold
                    .last
                    .detail()
                    .map(|detail| format!(": {}", detail.trim_end_matches('.')));
                Some(format!(
                    "The last attempt: {}{}.",
                    hold.last,
                    why.unwrap_or_default()
                ))
            }
            CheckoutError::Connect(error) => error.detail(),
            CheckoutError::Held(hold) => hold.last.detail(),
        }
    }

    fn hint(&self) -> Option<String> {
        match &self.error {
            CheckoutError::Timeout { jam, .. } => Some(hint(jam)),
            CheckoutError::Connect(error) => error.hint(),
            CheckoutError::Held(hold) => {
                let seconds = seconds(hold.retry_in);
                Some(format!(
                    "This is what the last attempt to connect was told; the gateway tries again in {seconds} s."
                ))
            }
        }
    }
}

/// Who uses what somebody waits for, as a sentence.
pub(super) fn in_use(jam: &Jam) -> String {
    let Jam { in_use, waiting, .. } = jam;
    let waiting = match waiting {
        0 => "no other query waits".to_owned(),
        1 => "1 query waits".to_owned(),
        count => format!("{count} queries wait"),
    };
    match jam.short {
        Short::Group(max) => {
            format!("{in_use} of the team's {max} connections are in use, and {waiting}.")
        }
        Short::Pool(max) => format!("{in_use} of the backend's {max} connections are in use, and {waiting}."),
        Short::Ceiling(max) => {
            format!("All backends together have {in_use} of {max} connections open, and {waiting}.")
        }
        Short::Paused => format!("The backend is paused, and {waiting}."),
        Short::Nothing => format!("{in_use} connections are in use, and {waiting}."),
    }
}

fn hint(jam: &Jam) -> String {
    let what = match jam.short {
        Short::Group(_) => "raise \"max_connections\" of the team",
        Short::Pool(_) => "raise \"max_connections\" of the backend",
        Short::Ceiling(_) => "raise \"max_connections\" of \"pool\"",
        Short::Paused => "RESUME the backend in the console",
        Short::Nothing => "raise \"checkout_timeout\"",
    };
    format!("Try again later, or let the administrator {what}.")
}

/// Whole seconds, rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pool::Hold;

    fn told(error: CheckoutError<BackendError>) -> [String; 4] {
        let error = NoConnection::new(BackendName::new("warehouse"), error);
        [
            error.sqlstate().as_str().to_owned(),
            error.to_string(),
            error.detail().unwrap_or_default(),
            error.hint().unwrap_or_default(),
        ]
    }

    #[test]
    fn who_waited_in_vain_reads_what_for() {
        for (short, detail, hint) in [
            (
                Short::Group(3),
                "3 of the team's 3 connections are in use, and 1 query waits.",
                "raise \"max_connections\" of the team.",
            ),
            (
                Short::Pool(3),
                "3 of the backend's 3 connections are in use, and 1 query waits.",
                "raise \"max_connections\" of the backend.",
            ),
            (
                Short::Ceiling(3),
                "All backends together have 3 of 3 connections open, and 1 query waits.",
                "raise \"max_connections\" of \"pool\".",
            ),
            (
                Short::Paused,
                "The backend is paused, and 1 query waits.",
                "RESUME the backend in the console.",
            ),
        ] {
            let jam = Jam {
                short,
                in_use: 3,
                waiting: 1,
                ahead: 0,
            };
            let patience = Duration::from_secs(2);
            let [code, message, its_detail, its_hint] = told(CheckoutError::Timeout { patience, jam });
            assert_eq!(code, "53300");
            assert_eq!(
                message,
                "no connection to backend \"warehouse\" became free within 2s"
            );
            assert_eq!(its_detail, detail);
            assert_eq!(
                its_hint,
                format!("Try again later, or let the administrator {hint}")
            );
        }
    }

    #[test]
    fn a_remembered_failure_says_when_it_is_tried_again() {
        let last = Arc::new(BackendError::Slow(Duration::from_secs(10)));
        for (circuit_open, message) in [
            (true, "backend \"warehouse\" does not answer"),
            (false, "the backend did not finish the login within 10s"),
        ] {
            let retry_in = Duration::from_millis(1_200);
            let hold = Hold {
                last: Arc::clone(&last),
                retry_in,
                circuit_open,
            };
            let [code, its_message, _, hint] = told(CheckoutError::Held(hold));
            assert_eq!((code.as_str(), its_message.as_str()), ("08006", message));
            assert!(hint.ends_with("the gateway tries again in 2 s."), "{hint}");
        }
    }
}
