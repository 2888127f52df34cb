//! Secrets and certificates: where they are kept, and that they never appear in a message.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

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
