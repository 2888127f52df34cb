//! A session's settings, so that any backend connection can be given them.
//!
//! A backend connection keeps the settings it was given last; before another session uses it, what differs is set and
//! what is too much is reset. Sources: <https://www.postgresql.org/docs/current/sql-set.html>,
//! <https://docs.aws.amazon.com/redshift/latest/dg/r_SET.html>.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A value in the form that it came in, since the two mean different things for settings that are lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingValue {
    /// The whole value, as in a start-up packet: `a, b`.
    Plain(Arc<str>),
    /// SQL text, as in `SET name TO …`: `a, b`, `'UTC'`.
    Sql(Arc<str>),
}

type Values = BTreeMap<Arc<str>, SettingValue>;

/// What there is where nothing was set.
static NOTHING: Values = BTreeMap::new();

/// Settings by name, folded to lower case. Cheap to make, to clone, and to compare with a clone.
#[derive(Clone, Debug, Default)]
pub struct Settings(Option<Arc<Values>>);

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.values() == other.values()
    }
}

impl Eq for Settings {}

/// Settings that cannot change the bytes of a result, nor whether a notice comes with it.
const WITHOUT_EFFECT_ON_RESULTS: [&str; 13] = [
    "application_name",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "log_min_duration_statement",
    "query_group",
    "statement_timeout",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tollgate.cache",
    "transaction_timeout",
    "wlm_query_slot_count",
];

/// Who a session acts as: RESET ALL leaves it.
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

/// Settings of the client's own that are followed in one session at most.
const MAX_CUSTOM: usize = 100;

/// What a setting is set to that has its default.
const DEFAULT: &str = "DEFAULT";

/// Whether a setting is a client's own, or an extension's: setting it makes it exist, to the end of the server's session.
/// The gateway's own never come to a server.
pub fn is_custom(name: &str) -> bool {
    name.contains('.') && !name.starts_with("tollgate.")
}

impl Settings {
    fn values(&self) -> &Values {
        self.0.as_deref().unwrap_or(&NOTHING)
    }

    fn values_mut(&mut self) -> &mut Values {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    /// Whether they are known to be the same without a look at them.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Sets `name`.
    pub fn set(&mut self, name: &str, value: SettingValue) {
        self.values_mut().insert(name.into(), value);
    }

    /// Forgets `name`, which has the backend's default from here on.
    pub fn reset(&mut self, name: &str) {
        if self.values().contains_key(name) {
            self.values_mut().remove(name);
        }
    }

    /// Forgets what RESET ALL resets: everything but who the session acts as.
    pub fn reset_all(&mut self) {
        *self = self.identity();
    }

    /// Who the session acts as, if that was set.
    #[must_use]
    pub fn identity(&self) -> Self {
        let mut identity = Self::default();
        for name in IDENTITY {
            if let Some(value) = self.value(name) {
                identity.set(name, value.clone());
            }
        }
        identity
    }

    /// What RESET ALL goes back to, where these are the settings of the session's start.
    #[must_use]
    pub fn without_identity(&self) -> Self {
        IDENTITY
            .iter()
            .fold(self.clone(), |settings, name| settings.without(name))
    }

    /// These settings with the values that the server reported, by their names in any case, where it did: what a value
    /// that was given means may depend on the one before, as `SET DateStyle = 'SQL'` leaves the order of day and month.
    #[must_use]
    pub fn as_reported(&self, reported: &BTreeMap<String, String>) -> Self {
        let mut settings = self.clone();
        for name in self.values().keys() {
            settings.take_reported(name, reported);
        }
        settings
    }

    /// The same for the setting `name` alone.
    pub fn take_reported(&mut self, name: &str, reported: &BTreeMap<String, String>) {
        let value = reported
            .iter()
            .find(|(reported, _)| reported.eq_ignore_ascii_case(name));
        if let Some((_, value)) = value {
            self.set(name, SettingValue::Plain(value.as_str().into()));
        }
    }

    /// Notes that `name`, a setting of the client's own, exists: it has its default, an empty text, unless it was set.
    pub fn define(&mut self, name: &str) {
        if is_custom(name) && !self.values().contains_key(name) {
            self.set(name, SettingValue::Sql(DEFAULT.into()));
        }
    }

    /// Notes that every setting of the client's own in `other` exists.
    pub fn define_all_of(&mut self, other: &Self) {
        for name in other.values().keys() {
            self.define(name);
        }
    }

    /// For a connection that has these settings: takes over what `wanted` says of settings of clients' own that have their
    /// default in either, and that `defined` says exist there.
    pub fn agree_on_defaults(&mut self, wanted: &Self, defined: &BTreeSet<Arc<str>>) {
        let is_default =
            |value: &SettingValue| matches!(value, SettingValue::Sql(text) if **text == *DEFAULT);
        for name in defined {
            match (self.values().get(name), wanted.values().get(name)) {
                (Some(value), None) if is_default(value) => self.reset(name),
                (None, Some(value)) if is_default(value) => self.define(name),
                _ => {}
            }
        }
    }

    /// Whether a change of `name` can be followed: it is no setting of the client's own, or one of those there are, or there
    /// are fewer than 100.
    pub fn has_room_for(&self, name: &str) -> bool {
        !is_custom(name) || self.values().contains_key(name) || !self.is_full()
    }

    /// Whether there are as many settings of the client's own as can be followed, so that there may be more.
    pub fn is_full(&self) -> bool {
        let values = self.values();
        values.len() >= MAX_CUSTOM && values.keys().filter(|name| is_custom(name)).count() >= MAX_CUSTOM
    }

    /// The value of `name`, if it was set.
    pub fn value(&self, name: &str) -> Option<&SettingValue> {
        self.values().get(name)
    }

    /// The names of what was set.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.values().keys()
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.values().is_empty()
    }

    /// These settings without `name`.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut settings = self.clone();
        settings.reset(name);
        settings
    }

    /// The SQL that turns a connection with the settings `from` (`None`: not known) into one with these; empty when
    /// nothing differs.
    pub fn restore_sql(&self, from: Option<&Self>) -> String {
        let nothing = Self::default();
        let mut steps = Vec::new();
        let from = from.unwrap_or_else(|| {
            steps.push("RESET ALL;".to_owned());
            &nothing
        });
        let too_many = from
            .values()
            .keys()
            .filter(|name| !self.values().contains_key(*name));
        steps.extend(too_many.map(|name| format!("RESET {};", written(name))));
        let different = self
            .values()
            .iter()
            .filter(|(name, value)| from.values().get(*name) != Some(*value));
        steps.extend(different.map(|(name, value)| match value {
            SettingValue::Sql(text) => format!("SET {} TO {text};", written(name)),
            SettingValue::Plain(text) => {
                format!(
                    "SELECT pg_catalog.set_config({}, {}, false);",
                    literal(name),
                    literal(text)
                )
            }
        }));
        steps.concat()
    }

    /// Appends what a cached result depends on, so that different settings give different bytes.
    pub fn scope_into(&self, out: &mut Vec<u8>) {
        self.encode(|name| !WITHOUT_EFFECT_ON_RESULTS.contains(&name), out);
    }

    /// These settings without clients' own.
    #[must_use]
    pub fn without_custom(&self) -> Self {
        let mut settings = self.clone();
        for name in self.values().keys().filter(|name| is_custom(name)) {
            settings.reset(name);
        }
        settings
    }

    /// Whether text means the same with `other`, but for where names are looked for: a statement is looked through again
    /// when the search path has changed. A client's own settings are for functions to read, not for the parser.
    pub fn reads_like(&self, other: &Self) -> bool {
        let wanted = |(name, _): &(&Arc<str>, &SettingValue)| {
            let name: &str = name;
            name != "search_path" && !is_custom(name) && !WITHOUT_EFFECT_ON_RESULTS.contains(&name)
        };
        self.is_same(other)
            || self
                .values()
                .iter()
                .filter(wanted)
                .eq(other.values().iter().filter(wanted))
    }

    /// Appends all of them, so that different settings give different bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        self.encode(|_| true, out);
    }

    fn encode(&self, wanted: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
        for (name, value) in self.values().iter().filter(|(name, _)| wanted(name)) {
            let (form, text) = match value {
                SettingValue::Plain(text) => (b'p', text),
                SettingValue::Sql(text) => (b's', text),
            };
            out.push(form);
            for part in [name, text] {
                out.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend(part.as_bytes());
            }
        }
    }
}

/// A setting's name as SQL: any word may stand in one of a client's own, a keyword too.
fn written(name: &str) -> String {
    if !name.contains('.') {
        return name.to_owned();
    }
    let quoted = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

/// `text` as a string literal that is read the same whether or not backslashes escape.
fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            let value = match value.strip_prefix('=') {
                Some(plain) => SettingValue::Plain(plain.into()),
                None => SettingValue::Sql((*value).into()),
            };
            settings.set(name, value);
        }
        settings
    }

    #[test]
    fn a_connection_is_given_what_differs_and_nothing_else() {
        let utc = settings(&[("timezone", "'UTC'"), ("search_path", "a, b")]);
        for (to, from, sql) in [
            (&utc, Some(utc.clone()), ""),
            (
                &utc,
                Some(settings(&[("timezone", "'UTC'")])),
                "SET search_path TO a, b;",
            ),
            (
                &Settings::default(),
                Some(utc.clone()),
                "RESET search_path;RESET timezone;",
            ),
            (
                &utc,
                None,
                "RESET ALL;SET search_path TO a, b;SET timezone TO 'UTC';",
            ),
            (
                &settings(&[("search_path", "=it's, \\b")]),
                Some(Settings::default()),
                "SELECT pg_catalog.set_config('search_path', E'it''s, \\\\b', false);",
            ),
        ] {
            assert_eq!(to.restore_sql(from.as_ref()), sql);
        }
    }

    #[test]
    fn a_reported_value_takes_the_place_of_what_was_given() {
        let reported = BTreeMap::from([("DateStyle".to_owned(), "SQL, MDY".to_owned())]);
        let given = settings(&[("datestyle", "'SQL'"), ("work_mem", "'5MB'")]);
        assert_eq!(
            given.as_reported(&reported),
            settings(&[("datestyle", "=SQL, MDY"), ("work_mem", "'5MB'")])
        );
    }

    #[test]
    fn a_setting_of_the_clients_own_exists_once_it_was_set() {
        let mut session = settings(&[("app.user", "'1'"), ("work_mem", "'5MB'")]);
        for name in ["app.user", "app.tenant", "timezone", "tollgate.cache"] {
            session.define(name);
        }
        let wanted = settings(&[
            ("app.tenant", "DEFAULT"),
            ("app.user", "'1'"),
            ("work_mem", "'5MB'"),
        ]);
        assert_eq!(session, wanted);
        // it exists on the connection already, or is not asked for: nothing is to be sent
        let defined = BTreeSet::from(["app.tenant".into(), "app.user".into()]);
        for (from, to, left) in [
            (&[][..], &[("app.tenant", "DEFAULT")][..], ""),
            (&[("app.tenant", "DEFAULT")], &[], ""),
            (&[("app.user", "'1'")], &[], "RESET \"app\".\"user\";"),
            (&[], &[("app.new", "DEFAULT")], "SET \"app\".\"new\" TO DEFAULT;"),
        ] {
            let (mut from, to) = (settings(from), settings(to));
            from.agree_on_defaults(&to, &defined);
            assert_eq!(to.restore_sql(Some(&from)), left);
        }
    }

    #[test]
    fn only_what_can_change_a_result_is_part_of_its_identity() {
        let scope = |pairs| {
            let mut out = Vec::new();
            settings(pairs).scope_into(&mut out);
            out
        };
        assert_eq!(scope(&[("application_name", "=psql")]), scope(&[]));
        assert_ne!(scope(&[("timezone", "'UTC'")]), scope(&[("timezone", "UTC")]));
        assert_ne!(scope(&[("a", "bc")]), scope(&[("ab", "c")]));
        assert_ne!(
            scope(&[("search_path", "=a, b")]),
            scope(&[("search_path", "a, b")])
        );
    }
}
