//! What a start-up packet asks for.
//!
//! Amazon's drivers send parameters that PostgreSQL would refuse; they are read here and go no further.

use super::settings::{SettingValue, Settings};
use crate::error::{ClientError, Severity, SqlState};
use crate::wire::StartupPacket;

/// The newest protocol that is spoken: 3.2.
const NEWEST_MINOR: u16 = 2;

/// Parameters that say something about an Amazon driver and nothing about the session.
const OF_AMAZON_DRIVERS: [&str; 11] = [
    "client_protocol_version",
    "driver_version",
    "os_version",
    "driver_discovery_version",
    "plugin_name",
    "idp_type",
    "provider_name",
    "token_type",
    "identity_namespace",
    "idc_client_display_name",
    "idc_region",
];

/// Why a start-up packet is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// No user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// `replication` was asked for.
    #[error("replication connections are not supported")]
    Replication,
    /// A name that no setting has.
    #[error("unrecognized configuration parameter \"{0}\"")]
    Name(String),
    /// `options` that cannot be read.
    #[error("invalid command-line argument for server process: {0}")]
    Options(String),
}

impl ClientError for StartupError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NoUser => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::Replication => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Name(_) => SqlState::UNDEFINED_OBJECT,
            Self::Options(_) => SqlState::SYNTAX_ERROR,
        }
    }

    fn severity(&self) -> Severity {
        Severity::Fatal
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Options(_) => {
                Some("Only \"-c name=value\" and \"--name=value\" are understood.".to_owned())
            }
            Self::Replication => Some("Connect to the server itself for replication.".to_owned()),
            Self::NoUser | Self::Name(_) => None,
        }
    }
}

/// What a client asks for when it connects.
#[derive(Clone, Debug, PartialEq)]
pub struct StartupRequest {
    /// Who it says it is.
    pub user: String,
    /// The database; the user's name where none was given, as PostgreSQL has it.
    pub database: String,
    /// What the client calls itself, cleaned as PostgreSQL cleans it; empty where it did not say.
    pub application_name: String,
    /// The minor version to speak; `Some` list of `_pq_.` options where the client must be told.
    pub minor: u16,
    /// Whether the client asked for more than is spoken, and so is told.
    pub negotiate: Option<Vec<String>>,
    /// One of Amazon's drivers, which must not be offered SCRAM.
    pub amazon_driver: bool,
    /// Settings to begin with.
    pub settings: Settings,
}

impl StartupRequest {
    /// Reads a packet.
    ///
    /// # Errors
    ///
    /// Parameters that make no sense, or that are not supported.
    pub fn read(packet: &StartupPacket) -> Result<Self, StartupError> {
        let mut request = Self {
            user: String::new(),
            database: String::new(),
            application_name: String::new(),
            minor: packet.protocol.minor.min(NEWEST_MINOR),
            negotiate: None,
            amazon_driver: false,
            settings: Settings::default(),
        };
        // protocol 3.1 was never used
        if request.minor == 1 {
            request.minor = 0;
        }
        let mut unknown_options = Vec::new();
        // a parameter of its own counts more than the options, wherever they stand, and the last options count
        let mut options = packet.parameters.iter().rev();
        if let Some((_, options)) = options.find(|(name, _)| name.eq_ignore_ascii_case("options")) {
            request.read_options(options)?;
        }
        for (name, value) in &packet.parameters {
            let folded = name.to_ascii_lowercase();
            match folded.as_str() {
                "user" => request.user.clone_from(value),
                "database" => request.database.clone_from(value),
                "options" => {}
                "replication" if !matches!(value.as_str(), "false" | "off" | "no" | "0") => {
                    return Err(StartupError::Replication);
                }
                "replication" => {}
                name if OF_AMAZON_DRIVERS.contains(&name) => {
                    request.amazon_driver |= matches!(name, "client_protocol_version" | "driver_version");
                }
                _ if name.starts_with("_pq_.") => unknown_options.push(name.clone()),
                _ => request.set(&folded, value)?,
            }
        }
        if request.user.is_empty() {
            return Err(StartupError::NoUser);
        }
        if request.database.is_empty() {
            request.database.clone_from(&request.user);
        }
        if packet.protocol.minor != request.minor || !unknown_options.is_empty() {
            request.negotiate = Some(unknown_options);
        }
        Ok(request)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), StartupError> {
        let sound = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
        if !sound {
            return Err(StartupError::Name(name.to_owned()));
        }
        if name == "application_name" {
            // as `pg_clean_ascii` and NAMEDATALEN have it
            self.application_name = value
                .chars()
                .flat_map(|c| {
                    if matches!(c, ' '..='~') {
                        vec![c]
                    } else {
                        vec!['?'; c.len_utf8()]
                    }
                })
                .take(63)
                .collect();
            self.settings
                .set(name, SettingValue::Plain(self.application_name.as_str().into()));
            return Ok(());
        }
        self.settings.set(name, SettingValue::Plain(value.into()));
        Ok(())
    }

    /// `-c name=value`, `-cname=value` and `--name=value`; a backslash takes the next character as it is, as
    /// `pg_split_opts` reads it.
    fn read_options(&mut self, options: &str) -> Result<(), StartupError> {
        let mut words = split_options(options).into_iter();
        while let Some(word) = words.next() {
            let assignment = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
                (Some(long), _) => long.to_owned(),
                (None, Some("")) => words.next().ok_or_else(|| StartupError::Options(word.clone()))?,
                (None, Some(joined)) => joined.to_owned(),
                (None, None) => return Err(StartupError::Options(word)),
            };
            let (name, value) = assignment
                .split_once('=')
                .ok_or_else(|| StartupError::Options(assignment.clone()))?;
            // in an option's name a dash stands for an underscore
            self.set(&name.to_ascii_lowercase().replace('-', "_"), value)?;
        }
        Ok(())
    }
}

fn split_options(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Protocol;

    fn read(minor: u16, parameters: &[(&str, &str)]) -> Result<StartupRequest, StartupError> {
        StartupRequest::read(&StartupPacket {
            protocol: Protocol { major: 3, minor },
            parameters: parameters
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
        })
    }

    fn value(request: &StartupRequest, name: &str) -> Option<String> {
        match request.settings.value(name)? {
            SettingValue::Plain(text) | SettingValue::Sql(text) => Some(text.to_string()),
        }
    }

    #[test]
    fn every_parameter_of_amazons_drivers_is_taken() {
        let request = read(
            0,
            &[
                ("user", "ana"),
                ("database", "dev"),
                ("client_encoding", "UTF8"),
                ("DateStyle", "ISO"),
                ("TimeZone", "Europe/Berlin"),
                ("_pq_.compression", "lz4:1"),
                ("extra_float_digits", "2"),
                ("application_name", "[main]a.B"),
                ("driver_version", "Redshift JDBC Driver 2.2.6.1"),
                ("os_version", "Linux 5.10 amd64"),
                ("plugin_name", "none"),
                ("client_protocol_version", "3"),
                ("driver_discovery_version", "1"),
                ("idp_type", "AwsIdc"),
                ("provider_name", "x"),
                ("token_type", "x"),
                ("identity_namespace", "x"),
                ("idc_client_display_name", "x"),
                ("search_path", "a, b"),
            ],
        )
        .unwrap();
        assert!(request.amazon_driver);
        assert_eq!(request.negotiate, Some(vec!["_pq_.compression".to_owned()]));
        assert_eq!(value(&request, "timezone").as_deref(), Some("Europe/Berlin"));
        assert_eq!(value(&request, "search_path").as_deref(), Some("a, b"));
        assert_eq!(value(&request, "driver_version"), None);
    }

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        for (options, name, expected) in [
            ("-c statement_timeout=5000", "statement_timeout", "5000"),
            ("-cgeqo=off --search-path=a,b", "search_path", "a,b"),
            ("-c application_name=a\\ b", "application_name", "a b"),
            ("  --work_mem=4MB  ", "work_mem", "4MB"),
        ] {
            let request = read(0, &[("user", "ana"), ("options", options)]).unwrap();
            assert_eq!(value(&request, name).as_deref(), Some(expected), "{options}");
        }
        for options in ["-c", "-x", "-c novalue", "words"] {
            assert!(
                matches!(
                    read(0, &[("user", "a"), ("options", options)]),
                    Err(StartupError::Options(_))
                ),
                "{options}"
            );
        }
    }

    #[test]
    fn a_parameter_of_its_own_counts_more_than_the_options() {
        let (named, options) = (
            ("TimeZone", "Asia/Tokyo"),
            ("options", "-c timezone=UTC -c geqo=off"),
        );
        for parameters in [
            [("user", "ana"), named, options],
            [("user", "ana"), options, named],
            [("options", "-c nonsense"), options, ("user", "ana")],
        ] {
            let request = read(0, &parameters).unwrap();
            let expected = if parameters.contains(&named) {
                "Asia/Tokyo"
            } else {
                "UTC"
            };
            assert_eq!(value(&request, "timezone").as_deref(), Some(expected));
            assert_eq!(value(&request, "geqo").as_deref(), Some("off"));
        }
    }

    #[test]
    fn versions_and_names_are_settled() {
        for (asked, spoken, told) in [(0, 0, false), (2, 2, false), (1, 0, true), (9999, 2, true)] {
            let request = read(asked, &[("user", "ana")]).unwrap();
            assert_eq!(
                (request.minor, request.negotiate.is_some()),
                (spoken, told),
                "3.{asked}"
            );
            assert_eq!(request.database, "ana");
        }
        assert_eq!(read(0, &[("database", "dev")]), Err(StartupError::NoUser));
        assert_eq!(
            read(0, &[("user", "a"), ("replication", "database")]),
            Err(StartupError::Replication)
        );
        assert_eq!(
            read(0, &[("user", "a"), ("a;b", "c")]),
            Err(StartupError::Name("a;b".to_owned()))
        );
        let request = read(0, &[("user", "a"), ("application_name", "caf\u{e9}\n")]).unwrap();
        assert_eq!(request.application_name, "caf???");
    }
}
