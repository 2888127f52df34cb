//! Who a session acts as, where it began as somebody else than its login: RESET ROLE goes back to that.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-set-role.html>,
//! <https://www.postgresql.org/docs/current/sql-set-session-authorization.html>.

use tokio::io::{AsyncRead, AsyncWrite};

use super::following::Lost;
use super::session::{Binding, Session};
use super::settle::{Aftermath, Outcome};
use crate::sql::{PinReason, SessionUse, Statement};

/// What was done to who a session acts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActsAs {
    /// It acts as it began.
    Began,
    /// It acts as somebody that was named, or as its login.
    Another,
}

impl ActsAs {
    /// What `statement` does; `None` if nothing.
    pub(super) fn after(statement: &Statement) -> Option<Self> {
        match statement.session.as_ref()? {
            SessionUse::ResetRole if statement.mentions("none") => Some(Self::Another),
            // the session's user and its role go back together
            SessionUse::ResetRole | SessionUse::ResetAuthorization => Some(Self::Began),
            SessionUse::SetRole | SessionUse::SetAuthorization => Some(Self::Another),
            SessionUse::Prepare(_)
            | SessionUse::Execute(_)
            | SessionUse::Deallocate(_)
            | SessionUse::DeclareHeld(_)
            | SessionUse::CloseCursor(_)
            | SessionUse::Passing
            | SessionUse::Listen(_)
            | SessionUse::Unlisten(_)
            | SessionUse::DiscardAll
            | SessionUse::DiscardTemporary
            | SessionUse::UnlockAll => None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// A session that began with a role, or another user, keeps its connection once it acts as somebody else: the backend
    /// goes back to its login where the session goes back to how it began, which is set again.
    ///
    /// # Errors
    ///
    /// It cannot be set again now.
    pub(super) async fn follow_role(&mut self, aftermath: &Aftermath, outcome: Outcome) -> Result<(), Lost> {
        let (Some(acts), began) = (aftermath.acts_as, self.identity.startup.identity()) else {
            return Ok(());
        };
        if began.is_empty() {
            return Ok(());
        }
        self.pin_for(PinReason::Role, None);
        if acts != ActsAs::Began || outcome != Outcome::Completed {
            return Ok(());
        }
        let Binding::Held(lease) = &mut self.binding else {
            return Ok(());
        };
        // in the midst of a series a statement of the gateway's own would end the transaction
        if !lease.replies().settled() {
            return Err(Lost);
        }
        lease.set_within(&began).await.map_err(|_| Lost)
    }
}
