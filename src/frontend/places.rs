//! How many clients may be connected, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which limit a client ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All clients together.
    Total(u32),
    /// Clients of one address.
    Address(u32),
}

#[derive(Default)]
struct Taken {
    total: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// Places for clients.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<Taken>>);

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many clients are connected, logged in or not.
    pub fn taken_count(&self) -> u32 {
        self.taken().total
    }

    /// Takes a place for a client from `address`; `per_address` 0 is no limit of its own.
    pub(super) fn take(&self, address: IpAddr, max: u32, per_address: u32) -> Result<Place, Full> {
        let mut taken = self.taken();
        if taken.total >= max {
            return Err(Full::Total(max));
        }
        let here = taken.by_address.entry(address).or_default();
        if per_address > 0 && *here >= per_address {
            return Err(Full::Address(per_address));
        }
        *here += 1;
        taken.total += 1;
        drop(taken);
        Ok(Place {
            places: self.clone(),
            address,
        })
    }
}

/// A client's place; dropped, it is free again.
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.total = taken.total.saturating_sub(1);
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_by_address_and_come_back() {
        let places = Places::default();
        let [here, there]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
        let one = places.take(here, 2, 1).unwrap();
        assert_eq!(places.take(here, 2, 1).err(), Some(Full::Address(1)));
        let two = places.take(there, 2, 1).unwrap();
        assert_eq!(places.take(there, 2, 0).err(), Some(Full::Total(2)));
        drop(one);
        assert!(places.take(here, 2, 1).is_ok());
        drop(two);
        assert_eq!(places.taken_count(), 0);
        assert!(places.taken().by_address.is_empty());
    }
}
