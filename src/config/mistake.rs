//! One thing that is wrong in a configuration file.

use std::fmt;

/// One mistake, with the place to look at.
///
/// `Display` prints one line, `12: team.growth.quota.burst: the message (the hint)`; put the file's name and a colon
/// in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line of the setting, or of its section where the setting is missing; the first line is 1.
    pub line: usize,
    /// The setting or section, e.g. `team.growth.quota.burst`; empty when the whole file is meant.
    pub path: String,
    /// What is wrong. Never contains a secret.
    pub message: String,
    /// What to write instead, where that can be told.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
