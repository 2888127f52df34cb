//! A primary with several addresses: the one that was right the last time first, then the others in their order.

use std::sync::atomic::Ordering;

use crate::backend::connect::{Connector, Route, ServerKey};
use crate::backend::{BackendError, Connection};
use crate::config::Address;

impl Connector {
    /// Opens a connection to the first of the route's addresses where a server answers that takes writes. Nothing of a
    /// client's was sent anywhere before.
    pub(in crate::backend) async fn open_first(
        &self,
        key: &ServerKey,
        route: &Route,
    ) -> Result<Box<Connection>, BackendError> {
        if route.fallbacks.is_empty() {
            return self.open_within(key, route, &route.address).await;
        }
        let preferred = self.preferred.load(Ordering::Acquire);
        let others = (0..=route.fallbacks.len()).filter(|index| *index != preferred);
        let mut why = None;
        for index in std::iter::once(preferred).chain(others) {
            let Some(address) = route.primary(index) else {
                continue;
            };
            match self.open_writable(key, route, address).await {
                Ok(connection) => {
                    self.move_to(route, index);
                    return Ok(connection);
                }
                Err(error) if !tries_next(&error) => return Err(error),
                // why the likeliest did not answer says more than what is wrong with the others
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or(BackendError::Closed))
    }

    /// The address that the last connection to the primary went to.
    pub fn primary(&self) -> Address {
        let route = self.route();
        let preferred = route.primary(self.preferred.load(Ordering::Acquire));
        preferred.unwrap_or(&route.address).clone()
    }

    /// Tries `address` first from now on.
    pub fn prefer(&self, address: &Address) {
        let route = self.route();
        let index = (0..=route.fallbacks.len()).find(|index| route.primary(*index) == Some(address));
        if let Some(index) = index {
            self.move_to(&route, index);
        }
    }

    /// Calls `told` with the old and the new address whenever the primary is found at another one, before any connection to
    /// it is lent. Only the first call counts.
    pub fn on_move(&self, told: impl Fn(&Address, &Address) + Send + Sync + 'static) {
        // there is one pool with this connector, and it asks once
        drop(self.on_move.set(Box::new(told)));
    }

    fn move_to(&self, route: &Route, index: usize) {
        let before = self.preferred.swap(index, Ordering::AcqRel);
        if before != index
            && let (Some(told), Some(from), Some(to)) =
                (self.on_move.get(), route.primary(before), route.primary(index))
        {
            told(from, to);
        }
    }

    async fn open_writable(
        &self,
        key: &ServerKey,
        route: &Route,
        address: &Address,
    ) -> Result<Box<Connection>, BackendError> {
        let mut connection = self.open_within(key, route, address).await?;
        // PostgreSQL tells it at login from version 14 on
        let standby = if let Some(standby) = connection.parameters().get("in_hot_standby") {
            standby == "on"
        } else {
            let answer = connection.ask("SELECT pg_catalog.pg_is_in_recovery()").await?;
            answer.as_deref() == Some("t")
        };
        if standby {
            return Err(BackendError::Standby(address.to_string()));
        }
        Ok(connection)
    }
}

impl Route {
    /// The address of that number; 0 is the one that is named first.
    fn primary(&self, index: usize) -> Option<&Address> {
        match index.checked_sub(1) {
            None => Some(&self.address),
            Some(index) => self.fallbacks.get(index),
        }
    }
}

/// Whether another server may do better: this one is not there, or is none that takes writes. One that refuses the login,
/// or has no place, is the right one.
fn tries_next(error: &BackendError) -> bool {
    match error {
        BackendError::Refused { code, .. } => code.starts_with("57P"),
        BackendError::Unreachable { .. }
        | BackendError::Slow(_)
        | BackendError::NoTls(_)
        | BackendError::Tls { .. }
        | BackendError::Wire(_)
        | BackendError::Unexpected(_)
        | BackendError::Closed
        | BackendError::Lost(_)
        | BackendError::Standby(_) => true,
        BackendError::Login(_) | BackendError::Password(_) => false,
    }
}
