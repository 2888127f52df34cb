//! What holds, as rows for `SHOW CONFIG`: every setting, written or not, secrets masked.

use super::kind::Kind;
use super::reader::join;
use super::schema::{Preset, Reload, Schema, Section, Setting, Value};
use super::sections::Config;
use crate::types::Secret;

/// One setting and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The setting, e.g. `team.growth.quota.burst`.
    pub path: String,
    /// Its value as the file would have it, without quotation marks; a secret is `***`; for a setting that is not
    /// written and has no default, what that means.
    pub value: String,
    /// Whether the value is the default.
    pub default: bool,
    /// Whether a change takes a restart.
    pub restart: bool,
    /// The optional sections that it stands in, outermost first.
    pub(super) within: Vec<String>,
    /// Tells two values apart that look the same because they are masked.
    pub(super) digest: Option<Secret<[u8; 32]>>,
    /// Whether this row stands for a whole section that is not there.
    pub(super) stands_for_section: bool,
}

impl Config {
    /// Every setting with its value, in the order of the reference.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Rows::default();
        self.section_rows("", &mut rows);
        rows.all
    }
}

/// Rows in the making.
#[derive(Default)]
pub(super) struct Rows {
    all: Vec<Row>,
    within: Vec<String>,
    redshift: bool,
}

impl Rows {
    /// Adds the row of a single value.
    pub(super) fn leaf(&mut self, setting: &'static Setting, path: &str, value: &str) {
        let default = setting.default_text(self.redshift) == Some(value);
        self.push(setting, path, value, default);
    }

    /// Adds the row of a value of which only `masked` may be shown; `digest` tells it from others.
    pub(super) fn secret(&mut self, setting: &'static Setting, path: &str, masked: &str, digest: [u8; 32]) {
        let row = self.push(setting, path, masked, false);
        row.digest = Some(Secret::new(digest));
    }

    /// Adds the row of a setting that is not written and has no default.
    pub(super) fn absent(&mut self, setting: &'static Setting, path: &str) {
        let means = match setting.preset {
            Preset::Absent { means, .. } => means,
            Preset::Required { .. } | Preset::Default(_) => "",
        };
        let row = self.push(setting, path, means, true);
        row.stands_for_section = matches!(setting.kind, Kind::Table(_));
    }

    /// Adds rows that stand in the optional section at `path`.
    pub(super) fn within(&mut self, path: &str, add: impl FnOnce(&mut Self)) {
        self.within.push(path.to_owned());
        let redshift = std::mem::take(&mut self.redshift);
        add(self);
        self.redshift = redshift;
        self.within.pop();
    }

    fn push(&mut self, setting: &'static Setting, path: &str, value: &str, default: bool) -> &mut Row {
        self.all.push_mut(Row {
            path: path.to_owned(),
            value: value.to_owned(),
            default,
            restart: setting.reload == Reload::Restart,
            within: self.within.clone(),
            digest: None,
            stands_for_section: false,
        })
    }
}

/// Shows a section's settings in the order of their declaration.
pub(super) struct Shown<'p> {
    left: std::slice::Iter<'static, Setting>,
    path: &'p str,
}

impl<'p> Shown<'p> {
    pub(super) fn new(schema: &'static Schema, path: &'p str) -> Self {
        Self {
            left: schema.settings.iter(),
            path,
        }
    }

    pub(super) fn next<T: Value>(&mut self, value: &T, rows: &mut Rows) {
        if let Some(setting) = self.left.next() {
            value.rows(setting, &join(self.path, setting.name), rows);
            rows.redshift |= value.is_redshift();
        }
    }
}
