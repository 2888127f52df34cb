//! The names of sections: which are allowed, which was probably meant.

use super::reader::join;
use super::schema::{Schema, Section};
use super::sections::Config;
use crate::types::{BackendName, TeamName, UserName};

/// A type that names the sections `[SECTION.NAME]`.
pub(super) trait Name: Sized + Ord {
    /// The section.
    const SECTION: &'static str;

    /// `text` as a name.
    fn of(text: &str) -> Self;

    /// The name's text.
    fn text(&self) -> &str;

    /// Why `text` cannot be a name.
    fn objection(text: &str) -> Option<&'static str>;
}

/// Names that become labels of metrics and columns of the console.
fn plain(text: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let sound = (1..=63).contains(&text.len()) && text.bytes().all(allowed);
    (!sound).then_some("a name has 1 to 63 letters, digits, \"_\" or \"-\"")
}

/// Names that clients send: what PostgreSQL and Redshift allow as one.
fn user(text: &str) -> Option<&'static str> {
    let sound = (1..=127).contains(&text.len()) && !text.chars().any(char::is_control);
    (!sound).then_some("a user's name has 1 to 127 bytes, none of them control characters")
}

macro_rules! name {
    ($type:ident, $section:literal, $objection:ident) => {
        impl Name for $type {
            const SECTION: &'static str = $section;

            fn of(text: &str) -> Self {
                Self::new(text)
            }

            fn text(&self) -> &str {
                self.as_str()
            }

            fn objection(text: &str) -> Option<&'static str> {
                $objection(text)
            }
        }
    };
}

name!(BackendName, "backend", plain);
name!(TeamName, "team", plain);
name!(UserName, "user", user);

/// The candidate that was probably meant by `word`: a third of its letters may differ, and at least one.
pub(super) fn closest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // the distance takes time quadratic in the length
    if word.len() > 127 {
        return None;
    }
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What may have been meant by the setting `name`, which `schema` does not have.
pub(super) fn suggestion(schema: &'static Schema, name: &str) -> String {
    let known = || schema.settings.iter();
    if let Some(setting) = known().find(|setting| setting.elsewhere.contains(&name)) {
        return format!("it is called \"{}\" here", setting.name);
    }
    if let Some(meant) = closest(name, known().map(|setting| setting.name)) {
        return format!("did you mean \"{meant}\"?");
    }
    if let Some(section) = home_of(Config::SCHEMA, "", name) {
        return format!("it belongs in [{section}]");
    }
    let names: Vec<&str> = known().map(|setting| setting.name).collect();
    format!("there are {}", names.join(", "))
}

/// The section that has the setting `name`, if one has.
fn home_of(schema: &'static Schema, path: &str, name: &str) -> Option<String> {
    schema.settings.iter().find_map(|setting| {
        let inner = setting.kind.section()?;
        let named = if setting.kind.is_named() { ".NAME" } else { "" };
        let path = format!("{}{named}", join(path, setting.name));
        let here = inner
            .settings
            .iter()
            .any(|setting| setting.name == name || setting.elsewhere.contains(&name));
        if here {
            Some(path)
        } else {
            home_of(inner, &path, name)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_suggested_if_it_is_close() {
        for (word, meant) in [
            ("brust", Some("burst")),
            ("Burst", Some("burst")),
            ("que_length", Some("queue_length")),
            ("ttl", None),
            ("", None),
        ] {
            assert_eq!(
                closest(word, ["burst", "queue_length"].into_iter()),
                meant,
                "{word}"
            );
        }
    }

    #[test]
    fn names_are_what_labels_and_logins_can_carry() {
        for (name, team, user) in [
            ("growth", true, true),
            ("growth-2_x", true, true),
            ("ana@example.com", false, true),
            ("с", false, true),
            ("", false, false),
            ("a\nb", false, false),
        ] {
            assert_eq!(TeamName::objection(name).is_none(), team, "{name:?} as a team");
            assert_eq!(UserName::objection(name).is_none(), user, "{name:?} as a user");
        }
    }
}
