//! Walks a parsed TOML document along the declarations, and notes every mistake with its place.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::kind::Kind;
use super::mistake::Mistake;
use super::names::{closest, suggestion};
use super::schema::{Preset, Schema, Setting, Value};

/// The longest piece of the file's text that a message repeats, in characters.
const MAX_QUOTED: usize = 60;

/// What is known while a document is read.
pub(super) struct Reader<'a> {
    /// Where files and variables come from.
    pub(super) environment: &'a dyn Environment,
    line_ends: Vec<usize>,
    mistakes: Vec<Mistake>,
    /// The line of each setting and section that is written.
    lines: BTreeMap<String, usize>,
    /// The names declared by `[backend.NAME]` and `[team.NAME]`, sound or not.
    declared: BTreeMap<&'static str, Vec<String>>,
}

/// One value in the document.
pub(super) struct Node<'n> {
    pub(super) value: &'n DeValue<'n>,
    pub(super) path: String,
    pub(super) line: usize,
}

/// One section in the document.
pub(super) struct Table<'n> {
    entries: &'n DeTable<'n>,
    schema: &'static Schema,
    path: String,
    line: usize,
}

/// Reads a section's settings in the order of their declaration.
pub(super) struct Settings<'t, 'n> {
    table: &'t Table<'n>,
    left: std::slice::Iter<'static, Setting>,
    redshift: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &str, environment: &'a dyn Environment) -> Self {
        Self {
            environment,
            line_ends: text.match_indices('\n').map(|(at, _)| at).collect(),
            mistakes: Vec::new(),
            lines: BTreeMap::new(),
            declared: BTreeMap::new(),
        }
    }

    /// Remembers which names other sections may refer to, before any of them is read.
    pub(super) fn declare_names(&mut self, document: &DeTable<'_>) {
        for section in ["backend", "team"] {
            let names = document
                .get(section)
                .and_then(|value| value.get_ref().as_table())
                .map(|table| {
                    table
                        .iter()
                        .map(|(name, _)| name.get_ref().clone().into_owned())
                        .collect::<Vec<_>>()
                });
            self.declared.insert(section, names.unwrap_or_default());
        }
    }

    /// The names declared by the sections `section`.
    pub(super) fn declared(&self, section: &str) -> &[String] {
        self.declared.get(section).map_or(&[], Vec::as_slice)
    }

    /// The line of the byte at `offset`, counted from 1.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.line_ends.partition_point(|end| *end < offset) + 1
    }

    /// The line of the setting at `path`, or else of the innermost section around it.
    pub(super) fn line_of(&self, path: &str) -> usize {
        let around = std::iter::successors(Some(path), |path| path.rsplit_once('.').map(|(outer, _)| outer));
        around
            .into_iter()
            .find_map(|path| self.lines.get(path))
            .copied()
            .unwrap_or(1)
    }

    /// Notes a mistake at `path`.
    pub(super) fn note(&mut self, path: &str, message: impl Into<String>, hint: Option<String>) {
        let line = self.line_of(path);
        self.note_at(line, path, message, hint);
    }

    /// Notes a mistake in `node`.
    pub(super) fn note_node(&mut self, node: &Node<'_>, message: impl Into<String>, hint: Option<String>) {
        self.note_at(node.line, &node.path, message, hint);
    }

    fn note_at(&mut self, line: usize, path: &str, message: impl Into<String>, hint: Option<String>) {
        self.mistakes.push(Mistake {
            line,
            path: path.to_owned(),
            message: message.into(),
            hint,
        });
    }

    /// Notes that `word` is none of `words`.
    pub(super) fn note_choice(&mut self, node: &Node<'_>, word: &str, words: &[&str]) {
        let hint = closest(word, words.iter().copied()).map(|word| format!("did you mean \"{word}\"?"));
        let listed = words
            .iter()
            .map(|word| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(", ");
        self.note_node(node, format!("{} is none of {listed}", quoted(word)), hint);
    }

    /// Whether a mistake was noted at `path`.
    pub(super) fn mistaken(&self, path: &str) -> bool {
        self.mistakes.iter().any(|mistake| mistake.path == path)
    }

    /// Every mistake, sorted by line.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes;
        mistakes.sort_by(|left, right| (left.line, &left.path).cmp(&(right.line, &right.path)));
        mistakes
    }
}

impl Node<'_> {
    /// The node's text, or a mistake that says what `kind` expects.
    pub(super) fn text(&self, kind: Kind, reader: &mut Reader<'_>) -> Option<&str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.note_type(kind, reader);
        }
        text
    }

    /// Notes that the node's type is not what `kind` expects. Repeats nothing of the value, which may be a secret.
    pub(super) fn note_type(&self, kind: Kind, reader: &mut Reader<'_>) {
        let found = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a section",
        };
        reader.note_node(self, format!("expects {kind}, not {found}"), None);
    }
}

impl<'n> Table<'n> {
    /// The whole document.
    pub(super) fn root(entries: &'n DeTable<'n>, schema: &'static Schema) -> Self {
        Self {
            entries,
            schema,
            path: String::new(),
            line: 1,
        }
    }

    /// The section that `node` is; a mistake if it is something else.
    pub(super) fn of(node: &Node<'n>, schema: &'static Schema, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(entries) = node.value.as_table() else {
            node.note_type(Kind::Table(schema), reader);
            return None;
        };
        Some(Self {
            entries,
            schema,
            path: node.path.clone(),
            line: node.line,
        })
    }

    /// The sections `[section.NAME]` that `node` has; a mistake if it is something else.
    pub(super) fn named(
        node: &Node<'n>,
        section: &str,
        schema: &'static Schema,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let entries = node
            .value
            .as_table()
            .filter(|table| table.iter().all(|(_, value)| value.get_ref().is_table()));
        let Some(entries) = entries.filter(|table| !table.is_empty()) else {
            let hint = format!("write [{section}.NAME], with a name of your own");
            reader.note_node(node, "expects sections with a name each", Some(hint));
            return None;
        };
        Some(Self {
            entries,
            schema,
            path: node.path.clone(),
            line: node.line,
        })
    }

    /// Begins to read the settings; notes those that nobody declared.
    pub(super) fn settings(&self, reader: &mut Reader<'_>) -> Settings<'_, 'n> {
        for (key, _) in self.entries {
            let name = key.get_ref();
            let line = reader.line_at(key.span().start);
            let path = join(&self.path, name);
            if self.schema.settings.iter().any(|setting| setting.name == name) {
                reader.lines.insert(path, line);
            } else {
                let what = if self.path.is_empty() {
                    "section"
                } else {
                    "setting"
                };
                reader.note_at(
                    line,
                    &path,
                    format!("there is no such {what}"),
                    Some(suggestion(self.schema, name)),
                );
            }
        }
        Settings {
            table: self,
            left: self.schema.settings.iter(),
            redshift: false,
        }
    }

    /// The members of a section whose names are free, each with its name.
    pub(super) fn members(&self, reader: &mut Reader<'_>) -> Vec<(&'n str, Node<'n>)> {
        let member = |(key, value): (&'n toml::Spanned<_>, &'n toml::Spanned<DeValue<'n>>)| {
            let name: &'n std::borrow::Cow<'n, str> = key.get_ref();
            let line = reader.line_at(key.span().start);
            let path = join(&self.path, name);
            reader.lines.insert(path.clone(), line);
            (
                &**name,
                Node {
                    value: value.get_ref(),
                    path,
                    line,
                },
            )
        };
        self.entries.iter().map(member).collect()
    }

    /// Whether the setting `name` is written, rightly or wrongly.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether each of the settings `names` is right, or left out; a mistake in one makes no contradictions.
    pub(super) fn sound(&self, reader: &Reader<'_>, names: &[&str]) -> bool {
        names.iter().all(|name| !reader.mistaken(&self.path_of(name)))
    }

    /// The path of the setting `name`.
    pub(super) fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Notes a contradiction at the setting `name`.
    pub(super) fn note(&self, reader: &mut Reader<'_>, name: &str, message: impl Into<String>, hint: &str) {
        reader.note(&self.path_of(name), message, Some(hint.to_owned()));
    }
}

impl Settings<'_, '_> {
    /// The next setting's value: what is written, else its default. After a mistake in what is written the default
    /// stands in, so that the rest can be checked too.
    pub(super) fn next<T: Value>(&mut self, reader: &mut Reader<'_>) -> Option<T> {
        let setting = self.left.next()?;
        let path = join(&self.table.path, setting.name);
        let value = if let Some((key, value)) = self.table.entries.get_key_value(setting.name) {
            let line = reader.line_at(key.span().start);
            let node = Node {
                value: value.get_ref(),
                path: path.clone(),
                line,
            };
            T::read(&node, reader)
                .filter(|value| in_range(setting, value, &node, reader))
                .or_else(|| self.preset(setting, &path, reader))
        } else {
            if let Preset::Required { example } = setting.preset {
                self.note_missing(setting, &path, example, reader);
            }
            self.preset(setting, &path, reader)
        };
        self.redshift |= value.as_ref().is_some_and(Value::is_redshift);
        value
    }

    fn preset<T: Value>(&self, setting: &Setting, path: &str, reader: &mut Reader<'_>) -> Option<T> {
        let Some(text) = setting.default_text(self.redshift) else {
            return T::absent();
        };
        let written = setting.kind.written(text);
        let value = DeValue::parse(&written).ok()?;
        T::read(
            &Node {
                value: value.get_ref(),
                path: path.to_owned(),
                line: self.table.line,
            },
            reader,
        )
    }

    fn note_missing(&self, setting: &Setting, path: &str, example: &str, reader: &mut Reader<'_>) {
        let written = setting.kind.written(example);
        let hint = if setting.kind.is_named() {
            format!("add a section [{}.NAME]", setting.name)
        } else {
            format!("write {} = {written}", setting.name)
        };
        reader.note_at(self.table.line, path, "is missing", Some(hint));
    }
}

fn in_range<T: Value>(setting: &Setting, value: &T, node: &Node<'_>, reader: &mut Reader<'_>) -> bool {
    let (Some(amount), Some((smallest, largest))) = (value.amount(), setting.range) else {
        return true;
    };
    let told = setting.kind.amount(amount);
    if amount < smallest {
        let limit = setting.kind.amount(smallest);
        let hint = setting.zero.filter(|_| amount == 0).map(str::to_owned);
        reader.note_node(
            node,
            format!("{told} is less than the smallest value, {limit}"),
            hint,
        );
    } else if amount > largest {
        let limit = setting.kind.amount(largest);
        reader.note_node(
            node,
            format!("{told} is more than the largest value, {limit}"),
            None,
        );
    }
    (smallest..=largest).contains(&amount)
}

/// `path` and `key` as TOML writes a dotted key.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let key = match key {
        "" => "\"\"".to_owned(),
        _ if key.bytes().all(bare) => key.to_owned(),
        _ => quoted(key),
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// `text` in quotation marks on one line, shortened to what a message can carry.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(MAX_QUOTED).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    let escaped = short.replace('\\', "\\\\").replace('"', "\\\"");
    let printable: String = escaped
        .chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    format!("\"{printable}{dots}\"")
}
