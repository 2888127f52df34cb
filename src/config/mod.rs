//! TOML text to a checked [`Config`], with every mistake at once.
//!
//! Each setting is declared once, in `sections.rs`: its name, type, default, range, what it does, what 0 means and
//! whether a reload applies it. Reading ([`parse`]), suggestions for misspelt names, the [`mod@reference`],
//! the console's rows ([`summary`]) and the answer to a reload ([`Config::diff`]) all come from that declaration.
//!
//! The checked types mean what they say: references point at something that exists, secrets are already fetched,
//! units are gone. Nothing here opens a file or reads a variable by itself; that is what [`Environment`] is for.

mod address;
mod checks;
mod diff;
mod environment;
mod kind;
mod mistake;
mod names;
mod network;
pub mod password;
mod reader;
pub mod reference;
mod schema;
mod secrets;
mod sections;
pub mod summary;
mod values;

pub use address::Address;
pub use diff::Change;
pub use environment::{Environment, RealEnvironment};
pub use mistake::Mistake;
pub use network::{Network, NetworkError, Networks};
pub use password::Password;
pub use secrets::{LoginPassword, PasswordCommand, Pem};
pub use sections::{
    Backend, BackendKind, Cache, CacheWhat, Config, Control, Http, Listen, ListenTls, Log, LogFormat,
    LogLevel, Login, Pooling, Quota, ReadAfterWrite, TcpKeepalive, Team, TlsMode, User, UserCertificate,
};

use toml::de::DeTable;

use reader::{Reader, Table};
use schema::Section;

/// The longest configuration that is read, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Reads a configuration file's text; secrets and certificates that it refers to come from `environment`.
///
/// # Errors
///
/// Every mistake in the text, sorted by line. A text that is not TOML yields one mistake, since nothing behind it
/// can be trusted to mean what it seems to. No mistake ever contains a secret.
pub fn parse(text: &str, environment: &dyn Environment) -> Result<Config, Vec<Mistake>> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(vec![Mistake {
            line: 1,
            path: String::new(),
            message: format!("the file is longer than {MAX_TEXT_BYTES} bytes"),
            hint: None,
        }]);
    }
    let mut reader = Reader::new(text, environment);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = reader.line_at(error.span().map_or(0, |span| span.start));
            let mut message = format!("this is not TOML: {}", error.message().replace('\n', ", "));
            // only a key is repeated here: anything else could be part of a secret
            if let Some(key) = error
                .span()
                .and_then(|span| text.get(span))
                .filter(|_| message.ends_with("duplicate key"))
            {
                message = format!("{message} {}", reader::quoted(key));
            }
            return Err(vec![Mistake {
                line,
                path: String::new(),
                message,
                hint: None,
            }]);
        }
    };
    reader.declare_names(document.get_ref());
    let config = Config::read(&Table::root(document.get_ref(), Config::SCHEMA), &mut reader);
    let mistakes = reader.into_mistakes();
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        Some(_) | None => Err(mistakes),
    }
}

#[cfg(test)]
mod tests;
