//! Whether clients should be sent here.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::pipeline::Gateway;
use crate::types::BackendName;

/// Whether the gateway takes clients.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: AtomicBool,
}

/// Why clients should go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The gateway is about to stop.
    #[error("draining: no new clients")]
    Draining,
    /// No backend has been reached by the last attempt.
    #[error("no backend can be reached: {}", .0.join(", "))]
    NoBackend(Vec<String>),
}

impl Readiness {
    /// No more clients from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether `gateway` can serve clients: it is not draining, and at least one of its backends is within reach.
    ///
    /// A backend is within reach while it has an open connection, or when its catalog could be read the last time that
    /// the gateway tried, which is at least once per `catalog_refresh`. Others may be down: their teams' queries fail
    /// with a clear error, and answers from memory go on.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self, gateway: &Gateway) -> Result<(), Unready> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Unready::Draining);
        }
        let realm = gateway.realm();
        let servers = gateway.servers.list();
        let connected: BTreeSet<&BackendName> = servers.iter().map(|server| &server.key.backend).collect();
        let reached = realm
            .databases
            .iter()
            .filter(|(_, database)| {
                database.watch.latest().is_some() && database.watch.last_error().is_none()
            })
            .map(|((backend, _), _)| backend);
        let within_reach: BTreeSet<&BackendName> = reached.chain(connected).collect();
        let names = || realm.backends.keys();
        if names().any(|backend| within_reach.contains(backend)) {
            Ok(())
        } else {
            Err(Unready::NoBackend(names().map(ToString::to_string).collect()))
        }
    }
}
