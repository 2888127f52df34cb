//! An error in place of a request's answer, and what the server ignores behind one, up to the next Sync.

use tokio::io::{AsyncRead, AsyncWrite};

use super::error::ServeError;
use super::session::{Binding, Session};
use crate::session::{Ending, Request};
use crate::wire::{error_response, ready_for_query};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Ignores a request after an error in its series, as the server does up to the next Sync.
    pub(super) fn skip(&mut self, request: &Request) {
        self.drop_request(request);
        self.end_skipped(request);
    }

    /// Of what is ignored only the Sync is answered.
    fn end_skipped(&mut self, request: &Request) {
        self.skipping = request.ending != Ending::Sync;
        if !self.skipping {
            let status = self.status();
            ready_for_query(status, self.client.outbox());
        }
    }

    /// Whether the server ignores what comes, since it has told an error of the series that it is in.
    pub(super) fn ignores(&self) -> bool {
        matches!(&self.binding, Binding::Held(lease) if lease.replies().skips())
    }

    /// Tells the client an error in place of the request's answer, unless it was told one of the same series before: the
    /// server ignores what is behind that, and so nothing of it is wrong.
    pub(super) fn refuse(&mut self, request: &Request, error: &ServeError) {
        let ignored = self.ignores();
        self.note_failed();
        if ignored {
            self.end_skipped(request);
        } else {
            error_response(error, self.client.outbox());
            self.end_refused(request);
        }
    }

    /// Throws the request's bytes away, also those that are still to come.
    pub(super) fn drop_request(&mut self, request: &Request) {
        self.client.consume(request.len);
        self.unwanted = request.left();
    }

    /// What follows the error that is told in place of a request's answer.
    pub(super) fn end_refused(&mut self, request: &Request) {
        match request.ending {
            Ending::Call | Ending::Sync => {
                let status = self.status();
                ready_for_query(status, self.client.outbox());
            }
            Ending::Flush | Ending::Full | Ending::Long { .. } if request.calls() => {
                let status = self.status();
                ready_for_query(status, self.client.outbox());
            }
            Ending::Flush | Ending::Full | Ending::Long { .. } => self.skipping = true,
        }
    }

    /// Ignores what the client sends until its next Sync.
    pub(super) fn skip_to_sync(&mut self) {
        self.skipping = true;
    }
}
