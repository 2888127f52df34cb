//! What each team may use at once and per minute: places, a queue for them, a rate.
//!
//! One [`Quota`] per team turns a wish to run into a [`Permit`] or a [`QuotaRefusal`] that says which limit and when to try
//! again. Permits give their place back when dropped, to the one who has waited longest. What this module does not do:
//! charge answers from the cache (the pipeline asks only for queries that run), or watch the time limit that a permit
//! carries.

mod admission;
mod permit;
mod rate;
mod refusal;

pub use admission::{Admission, QuotaLimits, Usage, decide};
pub use permit::{Permit, Quota, QuotaSnapshot};
pub use refusal::{QueryTimeExceeded, QuotaRefusal, RefusalReason};
