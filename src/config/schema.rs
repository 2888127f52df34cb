//! How a setting is declared: [`Setting`], [`Section`] and the macros `section!` and `choice!`.

use super::kind::Kind;
use super::reader::{Node, Reader, Table};
use super::summary::Rows;

/// One setting, declared once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// The name in the file.
    pub(super) name: &'static str,
    /// What it does: the lines of the field's doc comment.
    pub(super) doc: &'static [&'static str],
    /// What may be written.
    pub(super) kind: Kind,
    /// What holds when it is not written.
    pub(super) preset: Preset,
    /// The default for a backend with `kind = "redshift"`, where it differs.
    pub(super) on_redshift: Option<&'static str>,
    /// What 0 means, or what to do instead where 0 is out of range.
    pub(super) zero: Option<&'static str>,
    /// Smallest and largest value, in milliseconds, bytes, or units.
    pub(super) range: Option<(u64, u64)>,
    /// Whether a reload applies it.
    pub(super) reload: Reload,
    /// What PgBouncer and others call it: for suggestions.
    pub(super) elsewhere: &'static [&'static str],
    /// Written into the generated example though it may be left out.
    pub(super) shown: bool,
}

/// What holds when a setting is not written. Texts are as in the file, without the quotation marks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Preset {
    /// The setting must be written.
    Required { example: &'static str },
    /// A default.
    Default(&'static str),
    /// Nothing holds, which means something of its own.
    Absent {
        means: &'static str,
        example: &'static str,
    },
}

/// Whether a reload applies a changed setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// Not said: for sections, whose settings say it.
    Unsaid,
    /// Only a restart does.
    Restart,
    /// It does; the text says to what.
    Live(&'static str),
}

impl Setting {
    pub(super) const fn new(name: &'static str, doc: &'static [&'static str], kind: Kind) -> Self {
        Self {
            name,
            doc,
            kind,
            preset: Preset::Required { example: "" },
            on_redshift: None,
            zero: None,
            range: None,
            reload: Reload::Unsaid,
            elsewhere: &[],
            shown: false,
        }
    }

    /// Names it in the file otherwise than the field.
    pub(super) const fn key(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Takes less than the field's type could hold.
    pub(super) const fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) const fn required(mut self, example: &'static str) -> Self {
        self.preset = Preset::Required { example };
        self
    }

    pub(super) const fn default(mut self, text: &'static str) -> Self {
        self.preset = Preset::Default(text);
        self
    }

    pub(super) const fn absent(mut self, means: &'static str, example: &'static str) -> Self {
        self.preset = Preset::Absent { means, example };
        self
    }

    pub(super) const fn on_redshift(mut self, text: &'static str) -> Self {
        self.on_redshift = Some(text);
        self
    }

    pub(super) const fn zero(mut self, meaning: &'static str) -> Self {
        self.zero = Some(meaning);
        self
    }

    pub(super) const fn within(mut self, smallest: u64, largest: u64) -> Self {
        self.range = Some((smallest, largest));
        self
    }

    pub(super) const fn restart(mut self) -> Self {
        self.reload = Reload::Restart;
        self
    }

    pub(super) const fn reload(mut self, scope: &'static str) -> Self {
        self.reload = Reload::Live(scope);
        self
    }

    pub(super) const fn elsewhere(mut self, names: &'static [&'static str]) -> Self {
        self.elsewhere = names;
        self
    }

    pub(super) const fn shown(mut self) -> Self {
        self.shown = true;
        self
    }

    /// The default's text for a backend that is (or is not) a Redshift.
    pub(super) fn default_text(&self, redshift: bool) -> Option<&'static str> {
        match self.preset {
            Preset::Default(text) => Some(self.on_redshift.filter(|_| redshift).unwrap_or(text)),
            Preset::Required { .. } | Preset::Absent { .. } => None,
        }
    }
}

/// A section's settings.
#[derive(Debug)]
pub(super) struct Schema {
    /// What the section is for: the lines of the type's doc comment.
    pub(super) doc: &'static [&'static str],
    /// Its settings, in the order of the reference.
    pub(super) settings: &'static [Setting],
}

/// A type that a setting can have.
pub(super) trait Value: Sized {
    /// What may be written.
    const KIND: Kind;

    /// What `node` means; `None` after at least one mistake was noted.
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// The value for a setting that is not written and has no default; `None` where there is none.
    fn absent() -> Option<Self> {
        None
    }

    /// The amount that a range limits: milliseconds, bytes, units.
    fn amount(&self) -> Option<u64> {
        None
    }

    /// Whether the defaults of the settings after this one are those for a Redshift.
    fn is_redshift(&self) -> bool {
        false
    }

    /// Adds the rows that show this value.
    fn rows(&self, setting: &'static Setting, path: &str, rows: &mut Rows);
}

/// A type that is a section of the file.
pub(super) trait Section: Sized {
    /// Its declaration.
    const SCHEMA: &'static Schema;

    /// Reads the whole section; `None` if a required setting is missing or wrong, which was noted.
    fn read(table: &Table<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// Adds a row for each setting.
    fn section_rows(&self, path: &str, rows: &mut Rows);
}

/// Declares a section: its struct, and what reads, documents and shows it.
///
/// Each field is followed by `=>` and the methods of [`Setting`] that say the rest. `checked by` names a function
/// that notes contradictions between the section's settings.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident $(checked by $check:path)? {
            $(
                $(#[doc = $field_doc:literal])+
                pub $field:ident: $type:ty => $($method:ident($($argument:expr),*)),+;
            )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $field_doc])+ pub $field: $type, )+
        }

        impl $crate::config::schema::Section for $name {
            const SCHEMA: &'static $crate::config::schema::Schema = &$crate::config::schema::Schema {
                doc: &[$($doc),+],
                settings: &[$(
                    $crate::config::schema::Setting::new(
                        stringify!($field),
                        &[$($field_doc),+],
                        <$type as $crate::config::schema::Value>::KIND,
                    )$(.$method($($argument),*))+
                ),+],
            };

            fn read(
                table: &$crate::config::reader::Table<'_>,
                reader: &mut $crate::config::reader::Reader<'_>,
            ) -> Option<Self> {
                let mut settings = table.settings(reader);
                $( let $field = settings.next::<$type>(reader); )+
                let section = Self { $($field: $field?),+ };
                $( $check(&section, table, reader); )?
                Some(section)
            }

            fn section_rows(&self, path: &str, rows: &mut $crate::config::summary::Rows) {
                let mut settings = $crate::config::summary::Shown::new(Self::SCHEMA, path);
                $( settings.next(&self.$field, rows); )+
            }
        }

        impl $crate::config::schema::Value for $name {
            const KIND: $crate::config::kind::Kind =
                $crate::config::kind::Kind::Table(<Self as $crate::config::schema::Section>::SCHEMA);

            fn read(
                node: &$crate::config::reader::Node<'_>,
                reader: &mut $crate::config::reader::Reader<'_>,
            ) -> Option<Self> {
                let schema = <Self as $crate::config::schema::Section>::SCHEMA;
                let table = $crate::config::reader::Table::of(node, schema, reader)?;
                <Self as $crate::config::schema::Section>::read(&table, reader)
            }

            fn rows(
                &self,
                _setting: &'static $crate::config::schema::Setting,
                path: &str,
                rows: &mut $crate::config::summary::Rows,
            ) {
                $crate::config::schema::Section::section_rows(self, path, rows);
            }
        }
    };
}

/// Declares a type whose values are words, each with what it means.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident $(redshift when $redshift:ident)? {
            $( $(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[doc = $variant_doc])+ $variant, )+
        }

        impl $name {
            /// The word in the file.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::config::schema::Value for $name {
            const KIND: $crate::config::kind::Kind =
                $crate::config::kind::Kind::Choice(&[$( ($word, concat!($($variant_doc),+)) ),+]);

            fn read(
                node: &$crate::config::reader::Node<'_>,
                reader: &mut $crate::config::reader::Reader<'_>,
            ) -> Option<Self> {
                match node.text(<Self as $crate::config::schema::Value>::KIND, reader)? {
                    $( $word => Some(Self::$variant), )+
                    other => {
                        reader.note_choice(node, other, &[$($word),+]);
                        None
                    }
                }
            }

            $(
                fn is_redshift(&self) -> bool {
                    *self == Self::$redshift
                }
            )?

            fn rows(
                &self,
                setting: &'static $crate::config::schema::Setting,
                path: &str,
                rows: &mut $crate::config::summary::Rows,
            ) {
                rows.leaf(setting, path, self.as_str());
            }
        }
    };
}

pub(super) use {choice, section};
