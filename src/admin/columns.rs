//! What a command answers with: names and types for the wire, meanings for the reference.

use crate::wire::Column;

/// The columns of a command's answer.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// Names and types.
    pub wire: &'static [Column],
    /// What each of them says, in the same order.
    pub meanings: &'static [&'static str],
}

impl Columns {
    /// Of a command that answers with its tag alone.
    pub const NONE: Self = Self {
        wire: &[],
        meanings: &[],
    };
}

/// `columns! { name: Type = "meaning", … }`, for a constant.
macro_rules! columns {
    ($($name:literal: $kind:ident = $meaning:literal),+ $(,)?) => {
        $crate::admin::columns::Columns {
            wire: &[$($crate::wire::Column::new($name, $crate::wire::ColumnType::$kind)),+],
            meanings: &[$($meaning),+],
        }
    };
}

pub(super) use columns;
