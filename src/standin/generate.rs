//! The demo data: what the users did in each of the last 90 days. The same seed, number of events and last day
//! always give the same rows in the same order.
//!
//! Like real use: few users do much and many do little; the hours follow each country's day, the weeks have
//! weekends, the product grows by a third, newcomers leave fast and those who stay leave slowly.

use super::calendar::{DAY_MICROSECONDS, Day};
use super::population::{User, UserKind, WINDOW_DAYS, users};
use super::random::{Random, Weighted, apportion};

/// Changes when the data change, so that a directory knows by which generator it was filled.
pub(super) const GENERATOR: i32 = 1;

/// The seed of the demo.
pub(super) const SEED: u64 = 0x746F_6C6C_6761_7465;

const SECOND: i64 = 1_000_000;

/// A row of `event_kinds`.
#[derive(Debug)]
pub(super) struct EventKind {
    pub(super) name: &'static str,
    pub(super) category: &'static str,
    /// Whether it counts as engagement in the dashboards.
    pub(super) engagement: bool,
    carries: Carries,
}

/// What an event has beside its kind.
#[derive(Clone, Copy, Debug)]
enum Carries {
    Nothing,
    Chat,
    Message,
    Call,
    Payment,
}

macro_rules! event_kinds {
    ($($id:ident $name:literal $category:literal $engagement:literal $carries:ident;)*) => {
        $(static $id: EventKind = EventKind {
            name: $name, category: $category, engagement: $engagement, carries: Carries::$carries,
        };)*
        /// Every kind of event, in order of name.
        pub(super) static EVENT_KINDS: &[&EventKind] = &[$(&$id),*];
    };
}

event_kinds! {
    APP_OPEN "app_open" "navigation" false Nothing;
    CALL_ENDED "call_ended" "calls" true Call;
    CONTACT_INVITED "contact_invited" "growth" true Nothing;
    CRASH "crash" "quality" false Nothing;
    GROUP_JOINED "group_joined" "growth" true Nothing;
    MESSAGE_READ "message_read" "messages" true Chat;
    MESSAGE_SENT "message_sent" "messages" true Message;
    PURCHASE "purchase" "revenue" true Payment;
    REACTION "reaction" "messages" true Chat;
    SEARCH "search" "navigation" false Nothing;
    STORY_VIEWED "story_viewed" "stories" true Nothing;
}

static OF_PERSONS: Weighted<&EventKind> = Weighted {
    total: 1000,
    some: &[
        (330, &MESSAGE_SENT),
        (90, &REACTION),
        (85, &STORY_VIEWED),
        (35, &CALL_ENDED),
        (45, &SEARCH),
        (14, &GROUP_JOINED),
        (12, &CONTACT_INVITED),
        (5, &PURCHASE),
        (4, &CRASH),
    ],
    other: &MESSAGE_READ,
};

static OF_BUSINESSES: Weighted<&EventKind> = Weighted {
    total: 1000,
    some: &[
        (480, &MESSAGE_SENT),
        (20, &REACTION),
        (5, &STORY_VIEWED),
        (70, &CALL_ENDED),
        (60, &SEARCH),
        (5, &GROUP_JOINED),
        (25, &CONTACT_INVITED),
        (12, &PURCHASE),
        (3, &CRASH),
    ],
    other: &MESSAGE_READ,
};

static OF_CREATORS: Weighted<&EventKind> = Weighted {
    total: 1000,
    some: &[
        (420, &MESSAGE_SENT),
        (150, &REACTION),
        (140, &STORY_VIEWED),
        (10, &CALL_ENDED),
        (30, &SEARCH),
        (20, &GROUP_JOINED),
        (30, &CONTACT_INVITED),
        (15, &PURCHASE),
        (5, &CRASH),
    ],
    other: &MESSAGE_READ,
};

static OF_BOTS: Weighted<&EventKind> = Weighted {
    total: 100,
    some: &[(70, &MESSAGE_SENT)],
    other: &MESSAGE_READ,
};

static CHATS_OF_PERSONS: Weighted<&str> = Weighted {
    total: 100,
    some: &[(62, "direct"), (30, "group")],
    other: "channel",
};

static CHATS_OF_CREATORS: Weighted<&str> = Weighted {
    total: 100,
    some: &[(15, "direct"), (25, "group")],
    other: "channel",
};

static PRICES_CENTS: Weighted<i32> = Weighted {
    total: 100,
    some: &[(70, 99), (20, 499), (8, 999)],
    other: 4_999,
};

/// How many of a day's sessions begin in each local hour.
type Hours = [u64; 24];

const WORKDAY: Hours = [
    6, 3, 2, 1, 2, 5, 14, 28, 36, 34, 32, 34, 42, 38, 33, 32, 35, 44, 54, 62, 64, 56, 38, 18,
];

const WEEKEND: Hours = [
    14, 9, 5, 3, 2, 3, 6, 14, 25, 36, 42, 44, 46, 44, 42, 41, 42, 46, 52, 58, 60, 56, 44, 28,
];

const OFFICE: Hours = [
    1, 1, 1, 1, 1, 2, 6, 20, 56, 70, 68, 60, 44, 58, 66, 64, 54, 36, 18, 10, 6, 4, 2, 1,
];

const ALWAYS: Hours = [1; 24];

/// A row of `sessions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: i64,
    pub(super) user: i64,
    /// UTC, in microseconds since 2000-01-01.
    pub(super) started: i64,
    pub(super) seconds: i32,
    pub(super) events: i32,
    pub(super) platform: &'static str,
    /// The number of the release: version 8.N.
    pub(super) release: i32,
}

/// A row of `events`.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) id: i64,
    /// UTC, in microseconds since 2000-01-01.
    pub(super) at: i64,
    pub(super) session: i64,
    pub(super) user: i64,
    pub(super) kind: &'static EventKind,
    pub(super) chat: Option<&'static str>,
    pub(super) bytes: Option<i32>,
    pub(super) seconds: Option<i32>,
    pub(super) revenue_cents: Option<i32>,
}

/// One day's rows, each table in order of time and id.
#[derive(Debug)]
pub(super) struct DayRows {
    pub(super) sessions: Vec<Session>,
    pub(super) events: Vec<Event>,
}

/// The whole story, one day at a time.
#[derive(Debug)]
pub(super) struct Days {
    random: Random,
    users: Vec<User>,
    first_day: Day,
    /// How many events each day that is left has.
    quotas: std::vec::IntoIter<u64>,
    age: i32,
    sessions: i64,
    events: i64,
}

impl Days {
    /// The days up to `last_day`, with `events` events altogether.
    pub(super) fn new(seed: u64, events: u64, last_day: Day) -> Self {
        let mut random = Random::new(seed);
        let users = users(&mut random, events, last_day);
        let first_day = last_day.plus(1 - WINDOW_DAYS);
        let weights: Vec<u64> = (0..WINDOW_DAYS)
            .map(|age| {
                let growth = 1_000 + 4 * u64::from(age.unsigned_abs());
                let weekday = if is_weekend(first_day.plus(age)) { 112 } else { 100 };
                growth * weekday * (95 + random.below(11))
            })
            .collect();
        let quotas = apportion(events, &weights).into_iter();
        Self {
            random,
            users,
            first_day,
            quotas,
            age: 0,
            sessions: 0,
            events: 0,
        }
    }

    /// The rows of `users`.
    pub(super) fn users(&self) -> &[User] {
        &self.users
    }

    fn day(&mut self, day: Day, quota: u64) -> DayRows {
        let weekend = is_weekend(day);
        let mut rows = DayRows {
            sessions: Vec::new(),
            events: Vec::new(),
        };
        // everyone is there on the day of signing up; the others by their weight
        let mut newcomers = Vec::new();
        let mut reached = 0_u64;
        let mut chances: Vec<(u64, usize)> = Vec::new();
        for (index, user) in self.users.iter().enumerate() {
            if user.signup == day {
                newcomers.push(index);
            }
            let weight = user.weight(day, weekend);
            if weight > 0 {
                reached += weight;
                chances.push((reached, index));
            }
        }
        let mut newcomers = newcomers.into_iter();
        let mut left = quota;
        while left > 0 {
            let index = newcomers.next().or_else(|| {
                let drawn = self.random.below(reached);
                let place = chances.partition_point(|(until, _)| *until <= drawn);
                chances.get(place).map(|(_, index)| *index)
            });
            let Some(user) = index.and_then(|index| self.users.get(index)) else {
                break;
            };
            let count = session_length(&mut self.random).min(left);
            left -= count;
            session(&mut self.random, user, day, self.age, count, &mut rows);
        }
        self.number(&mut rows);
        rows
    }

    /// Sorts the day by time and gives out the ids.
    fn number(&mut self, rows: &mut DayRows) {
        // until here a session's id is its place; afterwards it says where the session went
        rows.sessions.sort_by_key(|session| (session.started, session.id));
        let mut ids = vec![0; rows.sessions.len()];
        for session in &mut rows.sessions {
            self.sessions += 1;
            if let Some(id) = usize::try_from(session.id)
                .ok()
                .and_then(|place| ids.get_mut(place))
            {
                *id = self.sessions;
            }
            session.id = self.sessions;
        }
        for event in &mut rows.events {
            if let Some(id) = usize::try_from(event.session)
                .ok()
                .and_then(|place| ids.get(place))
            {
                event.session = *id;
            }
        }
        // stable, so that the events of a session keep their order
        rows.events.sort_by_key(|event| (event.at, event.session));
        for event in &mut rows.events {
            self.events += 1;
            event.id = self.events;
        }
    }
}

impl Iterator for Days {
    type Item = DayRows;

    fn next(&mut self) -> Option<DayRows> {
        let quota = self.quotas.next()?;
        let day = self.first_day.plus(self.age);
        let rows = self.day(day, quota);
        self.age += 1;
        Some(rows)
    }
}

fn is_weekend(day: Day) -> bool {
    day.weekday() >= 5
}

/// How many events a session has: mostly a few, sometimes many.
fn session_length(random: &mut Random) -> u64 {
    let long = if random.happens(1, 10) {
        random.below(24)
    } else {
        0
    };
    1 + random.below(3) + random.below(4) + long
}

/// Adds a session of `user` with `count` events, all of them within `day`.
fn session(random: &mut Random, user: &User, day: Day, age: i32, count: u64, rows: &mut DayRows) {
    let hours = match (user.kind, is_weekend(day)) {
        (UserKind::Bot, _) => &ALWAYS,
        (UserKind::Business, _) => &OFFICE,
        (UserKind::Personal | UserKind::Creator, true) => &WEEKEND,
        (UserKind::Personal | UserKind::Creator, false) => &WORKDAY,
    };
    let mut offsets = Vec::new();
    let mut length = 0_i64;
    for place in 0..count {
        if place > 0 {
            let pause = if random.happens(1, 8) {
                random.below(240)
            } else {
                0
            };
            let seconds = 1 + random.below(20) + pause;
            length += signed(seconds) * SECOND + milliseconds(random);
        }
        offsets.push(length);
    }
    let seconds = length / SECOND + 1 + signed(random.below(30));
    let start = (start_of_session(random, hours, user.country.utc_offset_minutes))
        .min(DAY_MICROSECONDS - (seconds + 1) * SECOND);
    let started = day.postgres_midnight() + start;
    let place = i64::try_from(rows.sessions.len()).unwrap_or(i64::MAX);
    for (number, offset) in offsets.iter().enumerate() {
        rows.events
            .push(event(random, user, place, started + offset, number == 0));
    }
    // a release every fortnight, which not everyone installs at once
    let lag = i32::from(random.happens(40, 100)) + i32::from(random.happens(15, 100));
    rows.sessions.push(Session {
        id: place,
        user: user.id,
        started,
        seconds: i32::try_from(seconds).unwrap_or(i32::MAX),
        events: i32::try_from(count).unwrap_or(i32::MAX),
        platform: if random.happens(88, 100) {
            user.platform
        } else {
            "web"
        },
        release: 20 + age / 14 - lag,
    });
}

/// A moment of the day in UTC, in microseconds after midnight, by the hours of a country's local time. Local days
/// are cut at UTC's midnight, for the sake of simplicity.
fn start_of_session(random: &mut Random, hours: &Hours, utc_offset_minutes: i64) -> i64 {
    let mut left = random.below(hours.iter().sum());
    let mut hour = 0;
    for weight in hours {
        if left < *weight {
            break;
        }
        left -= weight;
        hour += 1;
    }
    let local = (hour * 3_600 + signed(random.below(3_600))) * SECOND + milliseconds(random);
    (local - utc_offset_minutes * 60 * SECOND).rem_euclid(DAY_MICROSECONDS)
}

fn event(random: &mut Random, user: &User, session: i64, at: i64, first: bool) -> Event {
    let kind = if first {
        &APP_OPEN
    } else {
        random.pick(match user.kind {
            UserKind::Personal => &OF_PERSONS,
            UserKind::Business => &OF_BUSINESSES,
            UserKind::Creator => &OF_CREATORS,
            UserKind::Bot => &OF_BOTS,
        })
    };
    let mut event = Event {
        id: 0,
        at,
        session,
        user: user.id,
        kind,
        chat: None,
        bytes: None,
        seconds: None,
        revenue_cents: None,
    };
    match kind.carries {
        Carries::Nothing => {}
        Carries::Chat => event.chat = Some(chat(random, user)),
        Carries::Message => {
            event.chat = Some(chat(random, user));
            // one in eight has a picture or a film
            let bytes = if random.happens(1, 8) {
                40_000 + random.below(200_000) * (1 + random.below(8))
            } else {
                2 + random.below(60) + random.below(60)
            };
            event.bytes = i32::try_from(bytes).ok();
        }
        Carries::Call => {
            let seconds = 5 + random.below(120) * (1 + random.below(12));
            event.seconds = i32::try_from(seconds).ok();
        }
        Carries::Payment => event.revenue_cents = Some(random.pick(&PRICES_CENTS)),
    }
    event
}

fn chat(random: &mut Random, user: &User) -> &'static str {
    match user.kind {
        UserKind::Personal | UserKind::Business => random.pick(&CHATS_OF_PERSONS),
        UserKind::Creator | UserKind::Bot => random.pick(&CHATS_OF_CREATORS),
    }
}

/// Less than a second, in microseconds; logs have milliseconds.
fn milliseconds(random: &mut Random) -> i64 {
    signed(random.below(1_000)) * 1_000
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const LAST: Day = Day(20_500);

    #[test]
    fn the_events_are_as_many_as_asked_and_in_order() {
        for events in [1, 90, 5_000, 20_000] {
            let days: Vec<DayRows> = Days::new(SEED, events, LAST).collect();
            assert_eq!(days.len(), 90);
            let all: Vec<&Event> = days.iter().flat_map(|day| &day.events).collect();
            assert_eq!(all.len() as u64, events);
            assert!(
                all.windows(2)
                    .all(|pair| pair[0].id + 1 == pair[1].id && pair[0].at <= pair[1].at)
            );
        }
    }

    #[test]
    fn every_row_lies_in_its_day_and_fits_its_session_and_user() {
        let mut days = Days::new(SEED, 20_000, LAST);
        let users = days.users().to_vec();
        for (age, rows) in (0..).zip(days.by_ref()) {
            let day = LAST.plus(age - 89);
            let hours = day.postgres_midnight()..day.plus(1).postgres_midnight();
            assert!(rows.sessions.windows(2).all(|pair| pair[0].id + 1 == pair[1].id));
            for session in &rows.sessions {
                let events: Vec<_> = rows
                    .events
                    .iter()
                    .filter(|event| event.session == session.id)
                    .collect();
                let user = users.iter().find(|user| user.id == session.user).unwrap();
                assert!(user.signup <= day, "{session:?}");
                assert_eq!(
                    events.len(),
                    usize::try_from(session.events).unwrap(),
                    "{session:?}"
                );
                let ended = session.started + i64::from(session.seconds) * SECOND;
                assert!(
                    hours.contains(&session.started) && hours.contains(&ended),
                    "{session:?}"
                );
                assert!(events.iter().all(|event| event.user == session.user));
                assert!(
                    events
                        .iter()
                        .all(|event| (session.started..=ended).contains(&event.at))
                );
                assert_eq!(events[0].kind.name, "app_open");
            }
        }
    }

    #[test]
    fn use_is_skewed_as_real_use_is() {
        let mut days = Days::new(SEED, 200_000, LAST);
        let users = days.users().to_vec();
        let rows: Vec<DayRows> = days.by_ref().collect();
        let events =
            |from: usize, to: usize| rows[from..to].iter().map(|day| day.events.len()).sum::<usize>();
        let growth = events(76, 90) * 100 / events(0, 14);
        assert!((115..150).contains(&growth), "the product grows: {growth}%");

        let active = |days: &[DayRows]| -> usize {
            days.iter()
                .flat_map(|day| &day.sessions)
                .map(|session| session.user)
                .collect::<HashSet<_>>()
                .len()
        };
        let stickiness = active(&rows[89..]) * 100 / active(&rows[60..]);
        assert!(
            (15..60).contains(&stickiness),
            "a part of the month's users come each day: {stickiness}%"
        );

        let mut per_user = vec![0_usize; users.len() + 1];
        for event in rows.iter().flat_map(|day| &day.events) {
            per_user[usize::try_from(event.user).unwrap()] += 1;
        }
        per_user.sort_unstable_by(|a, b| b.cmp(a));
        let top = per_user.iter().take(users.len() / 10).sum::<usize>() * 100 / 200_000;
        assert!((30..90).contains(&top), "a tenth of the users do {top}% of all");

        let mut local_hours = [0_usize; 24];
        for session in rows.iter().flat_map(|day| &day.sessions) {
            let user = &users[usize::try_from(session.user).unwrap() - 1];
            let local = session.started + user.country.utc_offset_minutes * 60 * SECOND;
            local_hours[usize::try_from(local.rem_euclid(DAY_MICROSECONDS) / SECOND / 3_600).unwrap()] += 1;
        }
        assert!(
            local_hours[20] > 5 * local_hours[3],
            "evenings are busy, nights are not: {local_hours:?}"
        );
    }
}
