//! The types that settings have: numbers, units, texts, addresses, references, sections.

use std::collections::BTreeMap;
use std::time::Duration;

use super::address::Address;
use super::kind::Kind;
use super::names::{Name, closest};
use super::network::Networks;
use super::reader::{Node, Reader, Table, quoted};
use super::schema::{Section, Setting, Value};
use super::summary::Rows;
use crate::types::{BackendName, ByteSize, DatabaseName, HumanDuration, TeamName, UnitError};

/// The longest name of a user or database, in bytes: Redshift's, which is longer than PostgreSQL's.
const MAX_NAME_BYTES: usize = 127;

macro_rules! count {
    ($($type:ident),+) => {$(
        impl Value for $type {
            const KIND: Kind = Kind::Count;

            fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                let Some(integer) = node.value.as_integer() else {
                    note_not_a_number(node, reader);
                    return None;
                };
                let value = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
                let read = Self::try_from(value).ok();
                if read.is_none() {
                    let message = if value < 0 { "is negative" } else { "is too large" };
                    reader.note_node(node, format!("{} {message}", quoted(integer.as_str()).trim_matches('"')), None);
                }
                read
            }

            fn amount(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }

            fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
                rows.leaf(setting, path, &self.to_string());
            }
        }
    )+};
}

count!(u16, u32, usize);

fn note_not_a_number(node: &Node<'_>, reader: &mut Reader<'_>) {
    match node.value.as_str().filter(|text| text.parse::<u32>().is_ok()) {
        Some(text) => {
            let hint = format!("write {text} without quotation marks");
            reader.note_node(node, "expects a whole number, not a text", Some(hint));
        }
        None => node.note_type(Kind::Count, reader),
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Flag;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let flag = node.value.as_bool();
        if flag.is_none() {
            node.note_type(Kind::Flag, reader);
        }
        flag
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        rows.leaf(setting, path, if *self { "true" } else { "false" });
    }
}

/// Reads a number with a unit; a bare number gets the same answer as one in quotation marks without a unit.
fn with_unit<T: std::str::FromStr<Err = UnitError>>(
    node: &Node<'_>,
    kind: Kind,
    reader: &mut Reader<'_>,
) -> Option<T> {
    let bare = node.value.as_integer().filter(|integer| integer.radix() == 10);
    let text = match bare {
        Some(integer) => integer.as_str(),
        None => node.text(kind, reader)?,
    };
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            reader.note_node(node, error.to_string(), None);
            None
        }
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Duration;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        with_unit(node, Self::KIND, reader).map(|HumanDuration(duration)| duration)
    }

    fn amount(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        rows.leaf(setting, path, &HumanDuration(*self).to_string());
    }
}

impl Value for ByteSize {
    const KIND: Kind = Kind::Size;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        with_unit(node, Self::KIND, reader)
    }

    fn amount(&self) -> Option<u64> {
        Some(self.0)
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        rows.leaf(setting, path, &self.to_string());
    }
}

impl Value for Address {
    const KIND: Kind = Kind::Address;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = node.text(Self::KIND, reader)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(error) => {
                let hint = "write e.g. \"127.0.0.1:5432\"";
                let message = format!("{} is not an address: {error}", quoted(text));
                reader.note_node(node, message, Some(hint.to_owned()));
                None
            }
        }
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        rows.leaf(setting, path, &self.to_string());
    }
}

/// Has `read` read each item of a list, and tells whether all of them were sound; a mistake if `node` is no list.
fn each(
    node: &Node<'_>,
    kind: Kind,
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&Node<'_>, &mut Reader<'_>) -> Option<()>,
) -> Option<bool> {
    let Some(array) = node.value.as_array() else {
        node.note_type(kind, reader);
        return None;
    };
    let mut sound = true;
    for item in array {
        let item = Node {
            value: item.get_ref(),
            path: node.path.clone(),
            line: reader.line_at(item.span().start),
        };
        sound &= read(&item, reader).is_some();
    }
    Some(sound)
}

impl Value for Vec<Address> {
    const KIND: Kind = Kind::Addresses;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let mut addresses = Self::new();
        let sound = each(node, Self::KIND, reader, |item, reader| {
            let address = Address::read(item, reader)?;
            if addresses.contains(&address) {
                let message = format!("{} is listed twice", quoted(&address.to_string()));
                reader.note_node(item, message, None);
            } else {
                addresses.push(address);
            }
            Some(())
        })?;
        sound.then_some(addresses)
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        let addresses: Vec<String> = self.iter().map(|address| quoted(&address.to_string())).collect();
        rows.leaf(setting, path, &format!("[{}]", addresses.join(", ")));
    }
}

/// Reads the name of something at a backend.
fn sql_name<'n>(node: &'n Node<'_>, reader: &mut Reader<'_>) -> Option<&'n str> {
    let text = node.text(Kind::Text, reader)?;
    if !(1..=MAX_NAME_BYTES).contains(&text.len()) || text.chars().any(char::is_control) {
        let message = format!("a name has 1 to {MAX_NAME_BYTES} bytes, none of them control characters");
        reader.note_node(node, message, None);
        return None;
    }
    Some(text)
}

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        sql_name(node, reader).map(str::to_owned)
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        rows.leaf(setting, path, self);
    }
}

impl Value for Vec<DatabaseName> {
    const KIND: Kind = Kind::Texts;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let mut names = Self::new();
        let sound = each(node, Self::KIND, reader, |item, reader| {
            let name = DatabaseName::new(sql_name(item, reader)?);
            if names.contains(&name) {
                reader.note_node(item, format!("{} is listed twice", quoted(name.as_str())), None);
            } else {
                names.push(name);
            }
            Some(())
        })?;
        if sound && names.is_empty() {
            reader.note_node(node, "is empty", Some("name at least one database".to_owned()));
        }
        (sound && !names.is_empty()).then_some(names)
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        let names: Vec<String> = self.iter().map(|name| quoted(name.as_str())).collect();
        rows.leaf(setting, path, &format!("[{}]", names.join(", ")));
    }
}

impl Value for Networks {
    const KIND: Kind = Kind::Networks;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let mut networks = Vec::new();
        let sound = each(node, Self::KIND, reader, |item, reader| {
            let text = item.text(Kind::Text, reader)?;
            match text.parse() {
                Ok(network) => {
                    networks.push(network);
                    Some(())
                }
                Err(error) => {
                    let hint = "write e.g. \"10.0.0.0/8\" or \"::1\"";
                    let message = format!("{} is not a network: {error}", quoted(text));
                    reader.note_node(item, message, Some(hint.to_owned()));
                    None
                }
            }
        })?;
        if sound && networks.is_empty() {
            let hint = "name at least one network, or leave the line out to allow every address";
            reader.note_node(node, "is empty", Some(hint.to_owned()));
        }
        (sound && !networks.is_empty()).then_some(Self(networks))
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        let networks: Vec<String> = self.0.iter().map(|network| format!("\"{network}\"")).collect();
        rows.leaf(setting, path, &format!("[{}]", networks.join(", ")));
    }
}

/// Reads the name of a section that must exist.
fn reference<T: Name>(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<T> {
    let text = node.text(Kind::Reference(T::SECTION), reader)?;
    let declared = reader.declared(T::SECTION);
    if declared.iter().any(|name| name == text) {
        return Some(T::of(text));
    }
    let hint = match closest(text, declared.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("add a section [{}]", super::reader::join(T::SECTION, text)),
    };
    reader.note_node(
        node,
        format!("there is no {} {}", T::SECTION, quoted(text)),
        Some(hint),
    );
    None
}

macro_rules! reference {
    ($($type:ident),+) => {$(
        impl Value for $type {
            const KIND: Kind = Kind::Reference(<$type as Name>::SECTION);

            fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                reference(node, reader)
            }

            fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
                rows.leaf(setting, path, self.as_str());
            }
        }
    )+};
}

reference!(BackendName, TeamName);

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(node, reader).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn amount(&self) -> Option<u64> {
        self.as_ref().and_then(Value::amount)
    }

    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows) {
        match self {
            Some(value) if matches!(T::KIND, Kind::Table(_)) => {
                rows.within(path, |rows| value.rows(setting, path, rows));
            }
            Some(value) => value.rows(setting, path, rows),
            None => rows.absent(setting, path),
        }
    }
}

impl<N: Name, S: Section> Value for BTreeMap<N, S> {
    const KIND: Kind = Kind::Named(S::SCHEMA);

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let table = Table::named(node, N::SECTION, S::SCHEMA, reader)?;
        let mut sections = Self::new();
        for (name, member) in table.members(reader) {
            if let Some(objection) = N::objection(name) {
                reader.note_node(
                    &member,
                    format!("{} is not a name", quoted(name)),
                    Some(objection.to_owned()),
                );
            }
            let section = Table::of(&member, S::SCHEMA, reader).and_then(|table| S::read(&table, reader));
            // one that has a mistake is left out: the others can still be checked, and the mistake was noted
            sections.extend(section.map(|section| (N::of(name), section)));
        }
        Some(sections)
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn rows(&self, _setting: &'static Setting, path: &str, rows: &mut Rows) {
        for (name, section) in self {
            let path = super::reader::join(path, name.text());
            rows.within(&path, |rows| section.section_rows(&path, rows));
        }
    }
}
