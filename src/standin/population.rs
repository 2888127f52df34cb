//! The messenger's users and the dimensions they belong to. All of it is made up.

use super::calendar::Day;
use super::random::{Random, Weighted, apportion};

/// The days that the events cover.
pub(super) const WINDOW_DAYS: i32 = 90;

/// The days that the sign-ups cover; they end with the window.
const HISTORY_DAYS: i32 = 730;

/// A row of `countries`.
#[derive(Debug)]
pub(super) struct Country {
    pub(super) code: &'static str,
    pub(super) name: &'static str,
    pub(super) region: &'static str,
    /// Without daylight saving.
    pub(super) utc_offset_minutes: i64,
}

macro_rules! countries {
    ($($id:ident $code:literal $name:literal $region:literal $offset:literal;)*) => {
        $(static $id: Country =
            Country { code: $code, name: $name, region: $region, utc_offset_minutes: $offset };)*
        /// Every country, in order of code.
        pub(super) static COUNTRIES: &[&Country] = &[$(&$id),*];
    };
}

countries! {
    AE "AE" "United Arab Emirates" "Middle East" 240;
    BR "BR" "Brazil" "Americas" -180;
    DE "DE" "Germany" "Europe" 60;
    EG "EG" "Egypt" "Africa" 120;
    ES "ES" "Spain" "Europe" 60;
    FR "FR" "France" "Europe" 60;
    GB "GB" "United Kingdom" "Europe" 0;
    ID "ID" "Indonesia" "Asia" 420;
    IN "IN" "India" "Asia" 330;
    JP "JP" "Japan" "Asia" 540;
    KZ "KZ" "Kazakhstan" "Asia" 300;
    MX "MX" "Mexico" "Americas" -360;
    NG "NG" "Nigeria" "Africa" 60;
    PH "PH" "Philippines" "Asia" 480;
    TR "TR" "Turkey" "Middle East" 180;
    US "US" "United States" "Americas" -300;
}

/// Where those who signed up first live.
static EARLY_COUNTRIES: Weighted<&Country> = Weighted {
    total: 100,
    some: &[
        (18, &IN),
        (14, &US),
        (12, &BR),
        (9, &DE),
        (7, &GB),
        (6, &TR),
        (6, &ES),
        (5, &FR),
        (5, &MX),
        (4, &ID),
        (3, &KZ),
        (3, &JP),
        (3, &EG),
        (2, &NG),
        (2, &PH),
    ],
    other: &AE,
};

/// Where those who signed up last live.
static LATE_COUNTRIES: Weighted<&Country> = Weighted {
    total: 100,
    some: &[
        (24, &IN),
        (16, &BR),
        (13, &ID),
        (10, &NG),
        (8, &US),
        (6, &MX),
        (6, &PH),
        (4, &EG),
        (3, &DE),
        (2, &TR),
        (2, &ES),
        (2, &GB),
        (1, &FR),
        (1, &KZ),
        (1, &JP),
    ],
    other: &AE,
};

static PLATFORMS: Weighted<&str> = Weighted {
    total: 100,
    some: &[(58, "android"), (27, "ios"), (10, "desktop")],
    other: "web",
};

/// What a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserKind {
    /// A person among friends.
    Personal,
    /// A company that talks to customers.
    Business,
    /// Someone with a channel and an audience.
    Creator,
    /// A program; it neither sleeps nor leaves.
    Bot,
}

impl UserKind {
    /// As in the column `users.kind`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Business => "business",
            Self::Creator => "creator",
            Self::Bot => "bot",
        }
    }

    /// How much more than a person it uses the messenger.
    fn activity(self) -> u64 {
        match self {
            Self::Personal => 2,
            Self::Business => 5,
            Self::Creator => 6,
            Self::Bot => 20,
        }
    }

    /// How many of 100 never leave.
    fn loyal_percent(self) -> u64 {
        match self {
            Self::Personal => 30,
            Self::Business => 60,
            Self::Creator => 45,
            Self::Bot => 95,
        }
    }
}

static USER_KINDS: Weighted<UserKind> = Weighted {
    total: 1000,
    some: &[
        (70, UserKind::Business),
        (25, UserKind::Creator),
        (5, UserKind::Bot),
    ],
    other: UserKind::Personal,
};

/// A row of `users`, and how that user behaves.
#[derive(Clone, Debug)]
pub(super) struct User {
    /// From 1, in order of sign-up.
    pub(super) id: i64,
    pub(super) signup: Day,
    pub(super) country: &'static Country,
    pub(super) platform: &'static str,
    pub(super) kind: UserKind,
    /// The user who invited this one.
    pub(super) invited_by: Option<i64>,
    /// The last day in the messenger.
    last: Day,
    /// How active, relative to others.
    activity: u64,
}

impl User {
    /// How likely the user is to be active on `day`, relative to others; 0 before the sign-up and after leaving.
    pub(super) fn weight(&self, day: Day, weekend: bool) -> u64 {
        if day < self.signup || day > self.last {
            return 0;
        }
        let age = day.0 - self.signup.0;
        let left = self.last.0 - day.0;
        // newcomers try everything, and who is about to leave comes less and less
        let novelty = if age < 3 { 8 } else { 4 };
        let fading = if left < 14 { 2 } else { 4 };
        let weekday = match (self.kind, weekend) {
            (UserKind::Business, true) => 1,
            (UserKind::Personal | UserKind::Creator, true) => 5,
            (UserKind::Personal | UserKind::Business | UserKind::Creator, false) | (UserKind::Bot, _) => 4,
        };
        self.activity * novelty * fading * weekday
    }
}

/// The users who have signed up by `last_day`: about one for every 80 events.
pub(super) fn users(random: &mut Random, events: u64, last_day: Day) -> Vec<User> {
    let count = (events / 80).max(50);
    let first_day = last_day.plus(1 - HISTORY_DAYS);
    let weights: Vec<u64> = (0..HISTORY_DAYS)
        .map(|age| (1_000 + 3 * u64::from(age.unsigned_abs())) * (85 + random.below(31)))
        .collect();
    let per_day = apportion(count, &weights);
    let mut users = Vec::new();
    let mut id = 0;
    for (signup, count_of_day) in (0..HISTORY_DAYS).map(|age| first_day.plus(age)).zip(per_day) {
        for _ in 0..count_of_day {
            id += 1;
            users.push(user(random, id, signup, signup.0 - first_day.0, count));
        }
    }
    users
}

fn user(random: &mut Random, id: i64, signup: Day, age_of_product: i32, count: u64) -> User {
    let late = random.happens(
        u64::from(age_of_product.unsigned_abs()),
        u64::from(HISTORY_DAYS.unsigned_abs()),
    );
    let country = random.pick(if late { &LATE_COUNTRIES } else { &EARLY_COUNTRIES });
    let kind = random.pick(&USER_KINDS);
    let platform = if kind == UserKind::Bot {
        "web"
    } else {
        random.pick(&PLATFORMS)
    };
    let invited_by = (id > 10 && random.happens(35, 100))
        .then(|| 1 + i64::try_from(random.below(id.unsigned_abs() - 1)).unwrap_or(0));
    // of those who are not loyal, 6 in 6 + t are still there after t days
    let stay = if random.happens(kind.loyal_percent(), 100) {
        100_000
    } else {
        i32::try_from((6 << 16) / (1 + random.below(1 << 16)))
            .unwrap_or(i32::MAX)
            .saturating_sub(6)
    };
    // Zipf's law with its head cut off: the most active is ten times as active as the least
    let rank = random.below(count);
    let activity = (kind.activity() << 32) / (1 + rank + count / 9);
    User {
        id,
        signup,
        country,
        platform,
        kind,
        invited_by,
        last: signup.plus(stay),
        activity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbered_in_order_of_sign_up_and_end_on_the_last_day() {
        let last_day = Day(20_500);
        let users = users(&mut Random::new(1), 80_000, last_day);
        assert_eq!(users.len(), 1_000);
        assert!(
            users
                .windows(2)
                .all(|pair| pair[0].id + 1 == pair[1].id && pair[0].signup <= pair[1].signup)
        );
        assert!(
            users
                .iter()
                .all(|user| user.signup <= last_day && user.invited_by < Some(user.id))
        );
    }

    #[test]
    fn who_left_or_has_not_come_is_never_active() {
        let mut user = users(&mut Random::new(1), 1, Day(1_000)).remove(0);
        user.signup = Day(100);
        user.last = Day(150);
        for (day, active) in [(99, false), (100, true), (150, true), (151, false)] {
            assert_eq!(user.weight(Day(day), false) > 0, active, "{day}");
        }
        assert!(
            user.weight(Day(100), false) > user.weight(Day(120), false),
            "newcomers do more"
        );
        assert!(
            user.weight(Day(120), false) > user.weight(Day(149), false),
            "leavers do less"
        );
    }

    #[test]
    fn countries_are_in_order_of_their_unique_codes() {
        assert!(COUNTRIES.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
