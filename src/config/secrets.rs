//! Secrets and certificates: where they are kept, and that they never appear in a message.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::kind::Kind;
use super::names::closest;
use super::password::{Password, VerifierError};
use super::reader::{Node, Reader, quoted};
use super::schema::{Setting, Value};
use super::summary::Rows;
use crate::types::Secret;

/// The longest password, in bytes: what a client's password message can hold before login.
const MAX_PASSWORD_BYTES: usize = 1024;

/// A PEM file, read when the configuration was.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// Where it was read, from the configuration's directory on.
    pub path: PathBuf,
    /// The file's text, which has at least one PEM block.
    pub text: Secret<String>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pem").field(&self.path).finish()
    }
}

/// Reads the file that `node` refers to as `path`.
fn read_file(path: &str, node: &Node<'_>, reader: &mut Reader<'_>) -> Option<(PathBuf, Secret<String>)> {
    let resolved = reader.environment.resolve(Path::new(path));
    match reader.environment.read(&resolved) {
        Ok(text) => Some((resolved, Secret::new(text))),
        Err(error) => {
            let why = if error.kind() == io::ErrorKind::NotFound {
                "does not exist".to_owned()
            } else if error.kind() == io::ErrorKind::PermissionDenied {
                "may not be read by this user".to_owned()
            } else {
                format!("cannot be read: {error}")
            };
            let relative = error.kind() == io::ErrorKind::NotFound && Path::new(path).is_relative();
            let hint = relative.then(|| "the path starts at this file's directory".to_owned());
            reader.note_node(node, format!("the file {} {why}", quoted(path)), hint);
            None
        }
    }
}

impl Value for Pem {
    const KIND: Kind = Kind::Pem;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let written = node.text(Self::KIND, reader)?;
        let (path, text) = read_file(written, node, reader)?;
        if !text.expose().contains("-----BEGIN ") {
            reader.note_node(
                node,
                format!("the file {} is not in PEM format", quoted(written)),
                None,
            );
            return None;
        }
        Some(Self { path, text })
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        // a renewed certificate under the same path is a change too
        let digest = Sha256::digest(self.text.expose()).into();
        rows.secret(setting, path, &self.path.display().to_string(), digest);
    }
}

/// The secret that `{ file = … }` or `{ env = … }` refers to.
fn fetch(node: &Node<'_>, kind: Kind, reader: &mut Reader<'_>) -> Option<Secret<String>> {
    let Some(table) = node.value.as_table() else {
        node.note_type(kind, reader);
        return None;
    };
    let (Some((key, value)), 1) = (table.iter().next(), table.len()) else {
        let hint = "write either { file = \"…\" } or { env = \"…\" }";
        reader.note_node(
            node,
            "expects exactly one of \"file\" and \"env\"",
            Some(hint.to_owned()),
        );
        return None;
    };
    let inner = Node {
        value: value.get_ref(),
        path: super::reader::join(&node.path, key.get_ref()),
        line: reader.line_at(key.span().start),
    };
    let (source, text) = match &**key.get_ref() {
        "file" => {
            let path = inner.text(Kind::Text, reader)?;
            (
                format!("the file {}", quoted(path)),
                read_file(path, &inner, reader)?.1,
            )
        }
        "env" => {
            let name = inner.text(Kind::Text, reader)?;
            let source = format!("the environment variable {}", quoted(name));
            let Some(text) = reader.environment.variable(name) else {
                reader.note_node(&inner, format!("{source} is not set"), None);
                return None;
            };
            (source, Secret::new(text))
        }
        other => {
            let meant = closest(other, ["file", "env"].into_iter());
            let hint = meant.map_or_else(
                || "there are file and env".to_owned(),
                |meant| format!("did you mean \"{meant}\"?"),
            );
            reader.note_node(&inner, "there is no such source of a secret", Some(hint));
            return None;
        }
    };
    // an editor ends the last line, and that is no part of the secret
    let line = text.expose().strip_suffix('\n').unwrap_or(text.expose());
    let line = line.strip_suffix('\r').unwrap_or(line);
    let objection = match line {
        "" => "is empty",
        _ if line.contains(['\n', '\r', '\0']) => "has more than one line",
        _ if line.len() > MAX_PASSWORD_BYTES => "is longer than 1024 bytes",
        _ => return Some(Secret::new(line.to_owned())),
    };
    reader.note_node(&inner, format!("{source} {objection}"), None);
    None
}

/// A secret with which the gateway itself logs in.
impl Value for Secret<String> {
    const KIND: Kind = Kind::Secret;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.value.is_str() {
            let hint = "write { file = \"…\" } or { env = \"…\" }";
            reader.note_node(
                node,
                "a secret must not stand in this file",
                Some(hint.to_owned()),
            );
            return None;
        }
        let secret = fetch(node, Self::KIND, reader)?;
        if !matches!(Password::from_stored(secret.expose()), Ok(Password::Plain(_))) {
            let message = "this is what a server stores of a password; to log in takes the password itself";
            reader.note_node(node, message, None);
            return None;
        }
        Some(secret)
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        rows.secret(setting, path, "***", Sha256::digest(self.expose()).into());
    }
}

/// The time between two runs of a command where it is not written.
const REFRESH: Duration = Duration::from_mins(10);

/// The shortest and the longest time between two runs of a command.
const REFRESH_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// A command that prints a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordCommand {
    /// The program, a name in `PATH` or a path, and its arguments.
    pub words: Vec<String>,
    /// The time between two runs.
    pub refresh: Duration,
}

impl fmt::Debug for PasswordCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // arguments may be secrets
        f.debug_struct("PasswordCommand").finish_non_exhaustive()
    }
}

/// The password with which the gateway itself logs in, or how to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginPassword {
    /// The password.
    Text(Secret<String>),
    /// A command prints it.
    Command(PasswordCommand),
}

impl Value for LoginPassword {
    const KIND: Kind = Kind::Secret;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let command = node
            .value
            .as_table()
            .and_then(|table| Some((table, table.get("command")?)));
        let Some((table, words)) = command else {
            return Secret::read(node, reader).map(Self::Text);
        };
        let mut refresh = Some(REFRESH);
        for (key, value) in table {
            let inner = Node {
                value: value.get_ref(),
                path: super::reader::join(&node.path, key.get_ref()),
                line: reader.line_at(key.span().start),
            };
            match &**key.get_ref() {
                "command" => {}
                "refresh" => {
                    refresh = Duration::read(&inner, reader).filter(|refresh| {
                        let sound = REFRESH_RANGE.contains(refresh);
                        if !sound {
                            reader.note_node(&inner, "is not from 1s to 1d", None);
                        }
                        sound
                    });
                }
                _ => {
                    let hint = "beside command stands only refresh";
                    reader.note_node(&inner, "there is no such setting", Some(hint.to_owned()));
                    refresh = None;
                }
            }
        }
        let inner = Node {
            value: words.get_ref(),
            path: super::reader::join(&node.path, "command"),
            line: reader.line_at(words.span().start),
        };
        let words = command_words(&inner, reader)?;
        let refresh = refresh?;
        Some(Self::Command(PasswordCommand { words, refresh }))
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        match self {
            Self::Text(secret) => secret.rows(setting, path, rows),
            Self::Command(PasswordCommand { words, refresh }) => {
                let mut digest = Sha256::new().chain_update(refresh.as_millis().to_be_bytes());
                for word in words {
                    digest = digest.chain_update(word.len().to_be_bytes()).chain_update(word);
                }
                rows.secret(setting, path, "*** (of a command)", digest.finalize().into());
            }
        }
    }
}

/// A command's words: a list of texts, or one text to be cut.
fn command_words(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let words = match (node.value.as_str(), node.value.as_array()) {
        (Some(text), _) => {
            let words = split_words(text);
            if words.is_none() {
                let hint = "close the quotation mark, or write a list of words";
                reader.note_node(node, "ends inside of a word", Some(hint.to_owned()));
            }
            words?
        }
        (None, Some(array)) => {
            let text = |word: &toml::Spanned<_>| toml::de::DeValue::as_str(word.get_ref()).map(str::to_owned);
            let words: Option<Vec<String>> = array.iter().map(text).collect();
            if words.is_none() {
                reader.note_node(node, "expects a list of texts", None);
            }
            words?
        }
        (None, None) => {
            reader.note_node(node, "expects a text or a list of texts", None);
            return None;
        }
    };
    if words.first().is_none_or(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
        reader.note_node(node, "is no command", None);
        return None;
    }
    Some(words)
}

/// Cuts `text` at white space. Between quotation marks of either sort it is not cut; a backslash takes the next character
/// as it is, except between single ones. `None` where the text ends inside of them.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(characters.next()?),
            (mark, Some(open)) if mark == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// What a client's password is checked against.
impl Value for Password {
    const KIND: Kind = Kind::Password;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let written = node.value.as_str();
        let password = match written {
            Some(text) => Password::from_stored(text),
            None => Password::from_stored(fetch(node, Self::KIND, reader)?.expose()),
        };
        match password {
            Ok(Password::Plain(_)) if written.is_some() => {
                let hint =
                    "write the verifier that `tollgate password` prints, { file = \"…\" } or { env = \"…\" }";
                reader.note_node(
                    node,
                    "a password in plain text must not stand in this file",
                    Some(hint.to_owned()),
                );
                None
            }
            Ok(password) => Some(password),
            Err(error) => {
                let hint = "make one with `tollgate password`";
                let what = match error {
                    VerifierError::Digest => "digest",
                    VerifierError::Form
                    | VerifierError::Iterations
                    | VerifierError::Salt
                    | VerifierError::Key => "SCRAM verifier",
                };
                reader.note_node(
                    node,
                    format!("the {what} is damaged: {error}"),
                    Some(hint.to_owned()),
                );
                None
            }
        }
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        rows.secret(setting, path, &format!("*** ({})", self.form()), self.digest());
    }
}

#[cfg(test)]
mod tests {
    use super::split_words;

    #[test]
    fn a_commands_text_is_cut_into_words() {
        for (text, expected) in [
            ("aws redshift  get", Some(&["aws", "redshift", "get"][..])),
            (" a\tb\n", Some(&["a", "b"])),
            (r#"a 'b c' "d e" f\ g"#, Some(&["a", "b c", "d e", "f g"])),
            (r#"a "b\"c" 'd\e' x"y z"w"#, Some(&["a", "b\"c", r"d\e", "xy zw"])),
            (r#"a '' """#, Some(&["a", "", ""])),
            ("a $HOME | b; c", Some(&["a", "$HOME", "|", "b;", "c"])),
            ("", Some(&[])),
            ("a 'b", None),
            ("a \"b", None),
            ("a \\", None),
        ] {
            let words = split_words(text);
            let words: Option<Vec<&str>> = words
                .as_ref()
                .map(|words| words.iter().map(String::as_str).collect());
            assert_eq!(words.as_deref(), expected, "{text}");
        }
    }
}
