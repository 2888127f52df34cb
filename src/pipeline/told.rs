//! What a client was told of its session's parameters, so that it hears of changes, and of nothing else.
//!
//! A server tells a value when it is not the one that it told last. Behind a gateway the server that tells may be another one
//! than the one before, and a RESET goes back to what that server's own session began with, not the client's.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::gateway::Greeting;
use super::settle::{Aftermath, Step};
use crate::session::{SettingValue, Settings};
use crate::sql::{SessionUse, SettingChange};
use crate::wire;

/// What a client was told. It goes to a request's observer and back, so nothing of it costs anything while it is empty; a
/// server reports some twenty parameters.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Settings of its start-up packet.
    startup: Settings,
    /// What it was told at its login, but for the name of its application.
    greeting: Option<Arc<Greeting>>,
    /// What it was told since, where that is another value.
    changed: Vec<(String, String)>,
    /// Settings that the request that runs takes back to what the session began with, of those that it began with.
    back: Vec<Arc<str>>,
}

impl Told {
    /// A client that was just greeted; `startup` has the values that the server reported.
    pub(super) fn new(startup: Settings, greeting: Arc<Greeting>) -> Self {
        let mut told = Self {
            greeting: Some(greeting),
            ..Self::default()
        };
        if let Some(SettingValue::Plain(name) | SettingValue::Sql(name)) = startup.value("application_name") {
            told.hears("application_name", name);
        }
        told.startup = startup;
        told
    }

    /// Notes what a request that is about to be sent does to settings.
    pub(super) fn foresee(&mut self, aftermath: &Aftermath) {
        if aftermath.unpins.contains(&SessionUse::DiscardAll) {
            self.back = self.startup.names().cloned().collect();
        }
        for step in &aftermath.steps {
            match step {
                Step::Change(SettingChange::ResetAll) => self.back = self.startup.names().cloned().collect(),
                Step::Change(SettingChange::Reset { name } | SettingChange::Set { name, value: None }) => {
                    if self.startup.value(name).is_some() && !self.back.contains(name) {
                        self.back.push(Arc::clone(name));
                    }
                }
                Step::Change(SettingChange::Set { name, .. } | SettingChange::SetConfig { name, .. }) => {
                    self.back.retain(|back| back != name);
                }
                Step::Change(SettingChange::SetLocal { .. } | SettingChange::Show { .. }) => {}
                // whether what was done before it stays, the server will tell
                Step::End | Step::ToSavepoint => self.back.clear(),
            }
        }
    }

    /// Notes that the client gets this value; false when it has it already.
    pub(super) fn hears(&mut self, name: &str, value: &str) -> bool {
        let at_login = self
            .greeting
            .as_ref()
            .and_then(|greeting| greeting.parameters.get(name));
        let changed = self.changed.iter_mut().find(|(changed, _)| changed == name);
        let now = changed
            .as_ref()
            .map(|(_, now)| now.as_str())
            .or(at_login.map(String::as_str));
        if now.is_some_and(|now| now == value) {
            return false;
        }
        match changed {
            Some((_, now)) => value.clone_into(now),
            None => self.changed.push((name.to_owned(), value.to_owned())),
        }
        true
    }

    /// What the client gets when the server reports a value; nothing when that is no news. `failed`: after an error, which
    /// undid what the request was to do.
    pub(super) fn report(&mut self, name: &str, value: &str, failed: bool) -> Bytes {
        let mut frame = BytesMut::new();
        let goes_back = !failed && goes_back(&self.back, name);
        let begun_with = self.begun_with(name).filter(|_| goes_back);
        self.tell(name, &begun_with.unwrap_or_else(|| value.into()), &mut frame);
        frame.freeze()
    }

    /// What the client gets in front of a ReadyForQuery: values that it goes back to, of which the server has not reported a
    /// change because its own session had another one.
    pub(super) fn ready(&mut self, failed: bool) -> BytesMut {
        let mut frames = BytesMut::new();
        if self.back.is_empty() {
            return frames;
        }
        let back = std::mem::take(&mut self.back);
        let Some(greeting) = self.greeting.clone().filter(|_| !failed) else {
            return frames;
        };
        for name in greeting.parameters.keys() {
            if goes_back(&back, name)
                && let Some(value) = self.begun_with(name)
            {
                self.tell(name, &value, &mut frames);
            }
        }
        frames
    }

    fn tell(&mut self, name: &str, value: &str, out: &mut BytesMut) {
        if self.hears(name, value) {
            wire::parameter_status_frame(name, value, out);
        }
    }

    fn begun_with(&self, name: &str) -> Option<Arc<str>> {
        match self.startup.value(&name.to_ascii_lowercase())? {
            SettingValue::Plain(value) | SettingValue::Sql(value) => Some(Arc::clone(value)),
        }
    }
}

/// Whether `name`, in any case, is among `back`.
fn goes_back(back: &[Arc<str>], name: &str) -> bool {
    back.iter().any(|back| back.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let mut startup = Settings::default();
        startup.set("datestyle", SettingValue::Plain("German, DMY".into()));
        startup.set("application_name", SettingValue::Plain("probe".into()));
        let parameters = [
            ("DateStyle", "German, DMY"),
            ("TimeZone", "UTC"),
            ("application_name", ""),
        ];
        let greeting = Greeting {
            parameters: parameters
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            notices: Bytes::new(),
            search_path: "".into(),
            reads_committed: true,
        };
        Told::new(startup, Arc::new(greeting))
    }

    fn frame(name: &str, value: &str) -> BytesMut {
        let mut frame = BytesMut::new();
        wire::parameter_status_frame(name, value, &mut frame);
        frame
    }

    fn reset(name: Option<&str>) -> Aftermath {
        let change = match name {
            Some(name) => SettingChange::Reset { name: name.into() },
            None => SettingChange::ResetAll,
        };
        Aftermath {
            steps: vec![Step::Change(change)],
            ..Aftermath::default()
        }
    }

    #[test]
    fn only_news_is_told() {
        let mut told = told();
        for (name, value, news) in [
            ("DateStyle", "German, DMY", false),
            ("DateStyle", "SQL, DMY", true),
            ("DateStyle", "SQL, DMY", false),
            ("application_name", "probe", false),
            ("application_name", "", true),
            ("search_path", "a", true),
            ("search_path", "a", false),
        ] {
            let expected = if news { frame(name, value) } else { BytesMut::new() };
            assert_eq!(told.report(name, value, false), expected, "{name} {value}");
        }
    }

    #[test]
    fn a_reset_goes_back_to_the_start_up() {
        for name in [Some("datestyle"), None] {
            let mut told = told();
            told.foresee(&reset(name));
            // the server went to its own default, which the client is not to hear of
            assert!(told.report("DateStyle", "ISO, MDY", false).is_empty());
            assert!(told.ready(false).is_empty());
            // the server was at its own default already, and reports nothing
            assert!(!told.report("DateStyle", "ISO, MDY", false).is_empty());
            told.foresee(&reset(name));
            assert_eq!(told.ready(false), frame("DateStyle", "German, DMY"));
            // a RESET that failed
            assert!(!told.report("DateStyle", "ISO, MDY", false).is_empty());
            told.foresee(&reset(name));
            assert!(told.ready(true).is_empty());
            assert!(told.ready(false).is_empty());
        }
    }
}
