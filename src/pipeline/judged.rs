//! The verdicts that a session asked for last, at hand without a lookup: a request asks for them twice, and the next one
//! is often of the same shape.

use std::sync::Arc;

use super::gateway::{Gateway, Verdicts};
use super::realm::Database;
use crate::config::CacheWhat;
use crate::policy::Catalog;
use crate::sql::Statement;

/// Of one session, whose database does not change.
#[derive(Default)]
pub(super) struct Judged(Option<Known>);

struct Known {
    statement: Arc<Statement>,
    generation: u64,
    what: CacheWhat,
    search_path: Arc<[Arc<str>]>,
    verdicts: Arc<Verdicts>,
}

impl Judged {
    /// What is decided of `statement`; as [`Gateway::verdicts`].
    pub(super) fn verdicts(
        &mut self,
        gateway: &Gateway,
        statement: &Arc<Statement>,
        database: &Database,
        catalog: &Catalog,
        search_path: &Arc<[Arc<str>]>,
    ) -> Arc<Verdicts> {
        let what = gateway.what();
        if let Some(known) = &self.0
            && Arc::ptr_eq(&known.statement, statement)
            && known.generation == catalog.generation
            && known.what == what
            && Arc::ptr_eq(&known.search_path, search_path)
        {
            return Arc::clone(&known.verdicts);
        }
        let verdicts = gateway.verdicts(statement, database, catalog, search_path);
        self.0 = Some(Known {
            statement: Arc::clone(statement),
            generation: catalog.generation,
            what,
            search_path: Arc::clone(search_path),
            verdicts: Arc::clone(&verdicts),
        });
        verdicts
    }
}
