//! How many logins may fail, from one address and for one user.
//!
//! Only failures count: a tool that opens hundreds of connections with the right password is not slowed down. Whether the
//! user exists makes no difference. The clock is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses and users remembered at most, each; beyond that those go whose failures are nearest to forgotten.
const MAX_REMEMBERED: usize = 16_384;

/// A longer name is remembered by its beginning; no user of a configuration has one.
const MAX_NAME: usize = 128;

/// How many logins may fail in a minute; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) per_address: u32,
    pub(super) per_user: u32,
}

/// Too many failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barred {
    /// From this address; for so long.
    Address(Duration),
    /// For this user; for so long.
    User(Duration),
}

#[derive(Default)]
struct Failed {
    by_address: HashMap<IpAddr, Instant>,
    by_user: HashMap<String, Instant>,
}

/// Failures not yet forgotten: for each address and user the moment at which all of them are. Each failure puts it off by
/// a minute's share, and a minute's worth of failures may stand out (the generic cell rate algorithm).
#[derive(Default)]
pub(super) struct Attempts(Mutex<Failed>);

impl Attempts {
    /// Whether a client from `address` may try to log in as `user`.
    pub(super) fn check(
        &self,
        address: IpAddr,
        user: &str,
        allowance: Allowance,
        now: Instant,
    ) -> Result<(), Barred> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = failed.by_address.get(&network(address)).copied();
        if let Some(wait) = wait(from, allowance.per_address, now) {
            return Err(Barred::Address(wait));
        }
        let of = failed.by_user.get(beginning(user)).copied();
        match wait(of, allowance.per_user, now) {
            Some(wait) => Err(Barred::User(wait)),
            None => Ok(()),
        }
    }

    /// A login from `address` failed; where `user` is given, also one of that user.
    pub(super) fn failed(&self, address: IpAddr, user: Option<&str>, allowance: Allowance, now: Instant) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        put_off(
            &mut failed.by_address,
            network(address),
            allowance.per_address,
            now,
        );
        if let Some(user) = user {
            let user = beginning(user).to_owned();
            put_off(&mut failed.by_user, user, allowance.per_user, now);
        }
    }
}

/// Who has an IPv6 address has its whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

fn beginning(user: &str) -> &str {
    user.get(..user.floor_char_boundary(MAX_NAME)).unwrap_or(user)
}

/// How long one failure is remembered.
fn share(per_minute: u32) -> Duration {
    Duration::from_mins(1) / per_minute.max(1)
}

/// How long to wait until another failure fits.
fn wait(forgotten: Option<Instant>, per_minute: u32, now: Instant) -> Option<Duration> {
    if per_minute == 0 {
        return None;
    }
    let standing = forgotten?.saturating_duration_since(now);
    let room = share(per_minute) * (per_minute - 1);
    standing.checked_sub(room).filter(|wait| !wait.is_zero())
}

fn put_off<K: Hash + Eq>(all: &mut HashMap<K, Instant>, key: K, per_minute: u32, now: Instant) {
    if per_minute == 0 {
        return;
    }
    if all.len() >= MAX_REMEMBERED && !all.contains_key(&key) {
        all.retain(|_, forgotten| *forgotten > now);
        if all.len() > MAX_REMEMBERED / 4 * 3 {
            // many at once, so that not every failure has to look for one to forget
            let mut moments: Vec<Instant> = all.values().copied().collect();
            let (_, cut, _) = moments.select_nth_unstable(MAX_REMEMBERED / 4);
            let cut = *cut;
            all.retain(|_, forgotten| *forgotten > cut);
        }
    }
    let forgotten = all.entry(key).or_insert(now);
    // failures at the same time as the last one that fitted do not put it off for ever
    let latest = now + Duration::from_mins(1) + share(per_minute);
    *forgotten = ((*forgotten).max(now) + share(per_minute)).min(latest);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowance = Allowance {
        per_address: 6,
        per_user: 3,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_bar_an_address_and_a_user_until_they_are_forgotten() {
        let attempts = Attempts::default();
        let (now, here, there) = (Instant::now(), address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..3 {
            assert_eq!(attempts.check(here, "ana", ALLOWED, now), Ok(()));
            attempts.failed(here, Some("ana"), ALLOWED, now);
        }
        let barred = Err(Barred::User(Duration::from_secs(20)));
        assert_eq!(attempts.check(here, "ana", ALLOWED, now), barred);
        assert_eq!(attempts.check(there, "ana", ALLOWED, now), barred);
        assert_eq!(attempts.check(here, "ben", ALLOWED, now), Ok(()));
        for user in ["x", "y", "z"] {
            attempts.failed(here, Some(user), ALLOWED, now);
        }
        let barred = Err(Barred::Address(Duration::from_secs(10)));
        assert_eq!(attempts.check(here, "ben", ALLOWED, now), barred);
        assert_eq!(attempts.check(there, "ben", ALLOWED, now), Ok(()));
        // one at a time from then on
        let later = now + Duration::from_secs(20);
        assert_eq!(attempts.check(here, "ana", ALLOWED, later), Ok(()));
        attempts.failed(here, Some("ana"), ALLOWED, later);
        assert!(attempts.check(here, "ana", ALLOWED, later).is_err());
        let much_later = now + Duration::from_mins(2);
        for _ in 0..2 {
            attempts.failed(here, Some("ana"), ALLOWED, much_later);
            assert_eq!(attempts.check(here, "ana", ALLOWED, much_later), Ok(()));
        }
    }

    #[test]
    fn zero_is_no_limit_and_a_failure_from_elsewhere_need_not_count_for_the_user() {
        let attempts = Attempts::default();
        let (now, here) = (Instant::now(), address("10.0.0.1"));
        let unlimited = Allowance {
            per_address: 0,
            per_user: 0,
        };
        for _ in 0..100 {
            attempts.failed(here, Some("ana"), unlimited, now);
            attempts.failed(address("10.9.9.9"), None, ALLOWED, now);
        }
        assert_eq!(attempts.check(here, "ana", ALLOWED, now), Ok(()));
        assert!(attempts.check(address("10.9.9.9"), "ben", ALLOWED, now).is_err());
        // however many failed, the wait is that for one
        let Err(Barred::Address(wait)) = attempts.check(address("10.9.9.9"), "ben", ALLOWED, now) else {
            panic!("it is barred");
        };
        assert!(wait <= Duration::from_secs(20), "{wait:?}");
    }

    #[test]
    fn addresses_of_one_network_are_one_and_the_memory_is_bounded() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for host in 0..6 {
            attempts.failed(address(&format!("2001:db8::{host}")), None, ALLOWED, now);
        }
        assert!(
            attempts
                .check(address("2001:db8::ffff"), "ana", ALLOWED, now)
                .is_err()
        );
        assert!(
            attempts
                .check(address("2001:db8:0:1::"), "ana", ALLOWED, now)
                .is_ok()
        );
        for number in 0..40_000_u32 {
            attempts.failed(
                IpAddr::from(number.to_be_bytes()),
                Some(&number.to_string()),
                ALLOWED,
                now,
            );
        }
        let failed = attempts.0.lock().unwrap();
        assert!(failed.by_address.len() <= MAX_REMEMBERED && failed.by_user.len() <= MAX_REMEMBERED);
        // who failed most stays
        assert!(failed.by_address.contains_key(&address("2001:db8::")));
    }
}
