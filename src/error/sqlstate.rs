//! The SQLSTATEs that Tollgate itself answers with.
//!
//! Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::fmt;

/// Five characters that name an error for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(&'static str);

impl SqlState {
    /// `00000`: a notice without a code of its own.
    pub const SUCCESSFUL_COMPLETION: Self = Self("00000");
    /// `08006`: the connection to the backend was lost.
    pub const CONNECTION_FAILURE: Self = Self("08006");
    /// `08P01`: a message that the protocol does not allow here.
    pub const PROTOCOL_VIOLATION: Self = Self("08P01");
    /// `0A000`: a feature that is not supported.
    pub const FEATURE_NOT_SUPPORTED: Self = Self("0A000");
    /// `22023`: a value that a setting does not take.
    pub const INVALID_PARAMETER_VALUE: Self = Self("22023");
    /// `25P02`: the transaction has failed.
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self("25P02");
    /// `25P03`: idle in a transaction for too long.
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: Self = Self("25P03");
    /// `26000`: no prepared statement of that name.
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self("26000");
    /// `28000`: this user may not connect so.
    pub const INVALID_AUTHORIZATION_SPECIFICATION: Self = Self("28000");
    /// `28P01`: user or password is wrong.
    pub const INVALID_PASSWORD: Self = Self("28P01");
    /// `34000`: no portal of that name.
    pub const INVALID_CURSOR_NAME: Self = Self("34000");
    /// `3D000`: no such database.
    pub const INVALID_CATALOG_NAME: Self = Self("3D000");
    /// `25001`: not within a transaction that has run something.
    pub const ACTIVE_SQL_TRANSACTION: Self = Self("25001");
    /// `42602`: what cannot be a name.
    pub const INVALID_NAME: Self = Self("42602");
    /// `55P02`: a parameter that cannot be set, or not now.
    pub const CANT_CHANGE_RUNTIME_PARAM: Self = Self("55P02");
    /// `42501`: not allowed to do this.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self("42501");
    /// `42601`: the text is no command.
    pub const SYNTAX_ERROR: Self = Self("42601");
    /// `42P01`: no such relation.
    pub const UNDEFINED_TABLE: Self = Self("42P01");
    /// `42704`: no such object.
    pub const UNDEFINED_OBJECT: Self = Self("42704");
    /// `42939`: a name that the gateway keeps for itself.
    pub const RESERVED_NAME: Self = Self("42939");
    /// `53300`: no place for another connection.
    pub const TOO_MANY_CONNECTIONS: Self = Self("53300");
    /// `53400`: over a configured limit (a quota).
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self("53400");
    /// `54000`: larger than a limit of the program.
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self("54000");
    /// `55000`: not in the state that this needs.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self("55000");
    /// `57014`: cancelled, by the user or by a time limit.
    pub const QUERY_CANCELED: Self = Self("57014");
    /// `57P01`: the server shuts down.
    pub const ADMIN_SHUTDOWN: Self = Self("57P01");
    /// `57P03`: not now.
    pub const CANNOT_CONNECT_NOW: Self = Self("57P03");
    /// `57P05`: idle for too long.
    pub const IDLE_SESSION_TIMEOUT: Self = Self("57P05");
    /// `F0000`: the configuration file has mistakes.
    pub const CONFIG_FILE_ERROR: Self = Self("F0000");
    /// `XX000`: a bug.
    pub const INTERNAL_ERROR: Self = Self("XX000");

    /// The code that a server answers to a setting it does not take, if `code` is one of those.
    pub fn of_setting(code: &str) -> Option<Self> {
        [
            Self::INVALID_PARAMETER_VALUE,
            Self::UNDEFINED_OBJECT,
            Self::INSUFFICIENT_PRIVILEGE,
            Self::INVALID_NAME,
            Self::ACTIVE_SQL_TRANSACTION,
            Self::CANT_CHANGE_RUNTIME_PARAM,
        ]
        .into_iter()
        .find(|known| known.0 == code)
    }

    /// The code that a server refuses a login with, if `code` is one of those.
    pub fn of_login(code: &str) -> Option<Self> {
        [
            Self::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::INVALID_PASSWORD,
            Self::INVALID_CATALOG_NAME,
            Self::INSUFFICIENT_PRIVILEGE,
            Self::TOO_MANY_CONNECTIONS,
            Self::CANNOT_CONNECT_NOW,
        ]
        .into_iter()
        .find(|known| known.0 == code)
    }

    /// The five characters.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
