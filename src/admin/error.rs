//! Why the console does not do what it was told.

use crate::error::{ClientError, SqlState};
use crate::pipeline::ReloadError;

/// Why a command was not run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// No command begins so.
    #[error("unrecognized console command: {text}")]
    NoCommand {
        /// The beginning of the text.
        text: String,
        /// What may have been meant.
        meant: Option<&'static str>,
    },
    /// A command with arguments that it does not take.
    #[error("{name} does not take: {given}")]
    Arguments {
        /// The command.
        name: &'static str,
        /// What was given.
        given: String,
        /// How it is written.
        usage: String,
    },
    /// A command without an argument that it needs.
    #[error("{name} needs an argument")]
    ArgumentMissing {
        /// The command.
        name: &'static str,
        /// How it is written.
        usage: String,
    },
    /// Several commands in one prepared statement.
    #[error("cannot insert multiple commands into a prepared statement")]
    SeveralCommands,
    /// A text longer than any command.
    #[error("the text is longer than {limit} bytes")]
    TooLong {
        /// Bytes that a text may have.
        limit: usize,
    },
    /// No backend of that name.
    #[error("backend \"{name}\" does not exist")]
    NoBackend {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No database of that name.
    #[error("database \"{name}\" does not exist")]
    NoDatabase {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No relation of that name in any database that was looked into.
    #[error("relation \"{name}\" does not exist")]
    NoRelation {
        /// The name as it was looked for.
        name: String,
        /// Databases whose relations are not known, because they have not been reached.
        unread: Vec<String>,
    },
    /// No client of that number.
    #[error("client {id} does not exist")]
    NoClient {
        /// The number.
        id: u64,
    },
    /// No user of that name.
    #[error("user \"{name}\" does not exist")]
    NoUser {
        /// The name.
        name: String,
    },
    /// The configuration was not taken.
    #[error("the configuration was not reloaded, the one before stays in force")]
    Reload(#[source] ReloadError),
}

impl ClientError for ConsoleError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NoCommand { .. }
            | Self::Arguments { .. }
            | Self::ArgumentMissing { .. }
            | Self::SeveralCommands => SqlState::SYNTAX_ERROR,
            Self::TooLong { .. } => SqlState::PROGRAM_LIMIT_EXCEEDED,
            Self::NoBackend { .. } | Self::NoClient { .. } | Self::NoUser { .. } => {
                SqlState::UNDEFINED_OBJECT
            }
            Self::NoDatabase { .. } => SqlState::INVALID_CATALOG_NAME,
            Self::NoRelation { .. } => SqlState::UNDEFINED_TABLE,
            Self::Reload(_) => SqlState::CONFIG_FILE_ERROR,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::NoRelation { unread, .. } if !unread.is_empty() => Some(format!(
                "The relations of {} are not known yet: the backend has not been reached.",
                unread.join(", ")
            )),
            Self::Reload(error) => Some(reload_detail(error)),
            Self::NoCommand { .. }
            | Self::Arguments { .. }
            | Self::ArgumentMissing { .. }
            | Self::SeveralCommands
            | Self::TooLong { .. }
            | Self::NoBackend { .. }
            | Self::NoDatabase { .. }
            | Self::NoRelation { .. }
            | Self::NoClient { .. }
            | Self::NoUser { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoCommand { meant: None, .. } => "Use SHOW HELP.".to_owned(),
            Self::NoCommand {
                meant: Some(meant), ..
            } => format!("Use SHOW HELP. Did you mean {meant}?"),
            Self::Arguments { usage, .. } | Self::ArgumentMissing { usage, .. } => {
                format!("Write: {usage}")
            }
            Self::SeveralCommands => "Send them one by one, or by the simple protocol.".to_owned(),
            Self::NoBackend { known, .. } => format!("There are: {}.", known.join(", ")),
            Self::NoDatabase { known, .. } => format!("There are: {}.", known.join(", ")),
            Self::NoRelation { .. } => {
                "Write schema.relation, or database.schema.relation; without a schema, public is meant. INVALIDATE \
                 alone makes every answer stale."
                    .to_owned()
            }
            Self::NoClient { .. } => "The numbers are in column id of SHOW CLIENTS.".to_owned(),
            Self::NoUser { .. } => "The names are in column name of SHOW USERS.".to_owned(),
            Self::Reload(_) => "Correct the file and send RELOAD again.".to_owned(),
            Self::TooLong { .. } => return None,
        };
        Some(hint)
    }
}

impl From<ConsoleError> for Box<dyn ClientError> {
    fn from(error: ConsoleError) -> Self {
        Box::new(error)
    }
}

/// Every mistake, one line each.
fn reload_detail(error: &ReloadError) -> String {
    match error {
        ReloadError::Mistakes { path, mistakes } => {
            let path = path.display();
            let lines: Vec<String> = mistakes
                .iter()
                .map(|mistake| format!("{path}:{mistake}"))
                .collect();
            lines.join("\n")
        }
        ReloadError::NoFile | ReloadError::Unreadable { .. } | ReloadError::Gateway(_) => error.to_string(),
    }
}
